"""Every private attribute of aiokafka that Callboard needs; a contract test holds each one.

But for one method that `fetched.py` has in place of the client's: its tests compare the two.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient

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


def client_of(consumer: AIOKafkaConsumer) -> AIOKafkaClient:
    """Give what a consumer sends its requests by."""
    return consumer._client  # noqa: SLF001 (module's purpose)


async def learn_leaders(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> None:
    """Let the consumer learn where the partitions of `topics` are, all at once."""
    client = client_of(consumer)
    await asyncio.gather(*(client.add_topic(topic) for topic in topics))


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
