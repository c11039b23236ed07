"""Every private attribute of aiokafka that Callboard needs; a contract test holds each one."""

import asyncio
import time
from collections.abc import Callable, Iterable
from inspect import GEN_CREATED, getgeneratorstate
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher as fetching
from aiokafka.record.memory_records import MemoryRecords

from streams.kafka.fetched import Fetched, Unread, Whole
from streams.kafka.record_batch import RecordBatch


def generation_of(consumer: AIOKafkaConsumer) -> int:
    """Give the group generation the consumer is in; -1 while it is in none."""
    return int(consumer._coordinator.generation)  # noqa: SLF001 (module's purpose)


def coordinator_answers(consumer: AIOKafkaConsumer) -> bool:
    """Tell whether the group's coordinator is known; the client forgets it once a heartbeat fails."""
    return consumer._coordinator.coordinator_id is not None  # noqa: SLF001 (module's purpose)


def left_for_good(consumer: AIOKafkaConsumer) -> bool:
    """Tell whether what keeps the consumer in its group has ended; the client never begins it again."""
    coordinator = consumer._coordinator  # noqa: SLF001 (module's purpose)
    return coordinator is not None and bool(coordinator._coordination_task.done())  # noqa: SLF001 (as above)


def watch_heartbeats(consumer: AIOKafkaConsumer, succeeded: Callable[[float], None]) -> None:
    """Have it told of each heartbeat that the coordinator answered well: when it was sent, monotonic seconds.

    The client keeps that to itself, and notices a process that was frozen only with its next heartbeat.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 (module's purpose)
    beat = coordinator._do_heartbeat  # noqa: SLF001 (module's purpose)

    async def watched() -> bool:
        sent = time.monotonic()
        answered: bool = await beat()
        if answered:
            succeeded(sent)
        return answered

    coordinator._do_heartbeat = watched  # noqa: SLF001 (module's purpose)


def make_dynamic(consumer: AIOKafkaConsumer) -> None:
    """Let a static member leave its group when it is stopped, as others do; the client never lets it."""
    consumer._coordinator._group_instance_id = None  # noqa: SLF001 (module's purpose)


async def learn_leaders(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> None:
    """Let the consumer learn where the partitions of `topics` are, all at once."""
    client = consumer._client  # noqa: SLF001 (module's purpose)
    await asyncio.gather(*(client.add_topic(topic) for topic in topics))


class _Kept:
    """The client's `MemoryRecords`, which cannot be inherited from, with what they were made of.

    Args:
        data: As Kafka sent them.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        theirs = MemoryRecords(data)
        self.has_next, self.next_batch = theirs.has_next, theirs.next_batch
        self.size_in_bytes = theirs.size_in_bytes


fetching.MemoryRecords = _Kept


def read_as_ours(consumer: AIOKafkaConsumer) -> None:
    """Have it read what it fetches as records of ours from now on, a batch at a time.

    The client makes some forty objects of each record with its headers, and nearly all are passed on as they
    are.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 (module's purpose)
    proceed = fetcher._proc_fetch_request  # noqa: SLF001 (module's purpose)

    async def proceeded(*given: Any) -> bool:
        # Nobody has read of what this brought: nothing awaits from where the client keeps it to here.
        woken: bool = await proceed(*given)
        for place, result in fetcher._records.items():  # noqa: SLF001 (module's purpose)
            found = getattr(result, "_partition_records", None)  # none of an error, or of what is read
            if found is None or isinstance(found, Unread):
                continue
            if getgeneratorstate(found._records_iterator) == GEN_CREATED:  # noqa: SLF001 (as above)
                found._records = Fetched(found._records.data, place.topic, place.partition)  # noqa: SLF001 (as above)
                found._consumer_record = _as_it_is  # noqa: SLF001 (as above)
                result._partition_records = Unread(found)  # noqa: SLF001 (as above)
        return woken

    fetcher._proc_fetch_request = proceeded  # noqa: SLF001 (module's purpose)


def _as_it_is(_: TopicPartition, whole: Whole) -> Whole:
    return whole


def fetch_afterwards(consumer: AIOKafkaConsumer, *, turns: int, seconds: float) -> None:
    """Have it hand out what comes at once, and ask for more only after that had some turns of the event loop.

    It would first look through all its partitions, in vain, since what came is not handed out yet, and then
    ask for more, while what becomes of the records waits until that request is made and sent.

    Args:
        consumer: A started one.
        turns: How many of them.
        seconds: No later than that, however long the turns take: much is under way, and more should be, too.
    """
    fetcher, loop = consumer._fetcher, asyncio.get_running_loop()  # noqa: SLF001 (module's purpose)
    proceed = fetcher._proc_fetch_request  # noqa: SLF001 (module's purpose)

    async def proceeded(*given: Any) -> bool:
        until = loop.time() + seconds
        try:
            for _ in range(turns):
                if loop.time() >= until:
                    break
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            return False  # as the client's own does: whoever cancels it awaits it, and expects no error
        if await proceed(*given):
            # They come to their turn before the client's routine, which waits for this task to end.
            for waiter in fetcher._fetch_waiters:  # noqa: SLF001 (module's purpose)
                fetcher._notify(waiter)  # noqa: SLF001 (module's purpose)
        return False  # so that nobody is told twice

    fetcher._proc_fetch_request = proceeded  # noqa: SLF001 (module's purpose)


class Sendable:
    """A batch of ours as the producer's `send_batch` takes it: it looks like the client's `BatchBuilder`.

    Args:
        batch: Full, as far as the client can tell.
    """

    def __init__(self, batch: RecordBatch) -> None:
        self._batch = batch
        self._producer = (-1, -1, 0)  # unless the client numbers its batches
        self._sealed: bytes | None = None

    def append(self, **_: object) -> None:
        """Take no record: what the client sends by itself waits for a batch of its own."""

    def close(self) -> None:
        """Be closed, as ever."""

    def closed(self) -> bool:
        """Tell that nothing more comes in."""
        return True

    def record_count(self) -> int:
        """Give the number of records."""
        return self._batch.count

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = producer_id, producer_epoch, base_sequence

    def _build(self) -> bytes:
        # A repetition is the same to the byte.
        if self._sealed is None:
            self._sealed = self._batch.sealed(*self._producer)
        return self._sealed
