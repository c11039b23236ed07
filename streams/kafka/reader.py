"""Reads partitions by position, outside of any consumer group: for show, tail, replay and artifacts."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError

from streams.envelope import Record
from streams.kafka.admin import partition_counts, unreachable
from streams.kafka.connection import Connection
from streams.kafka.private_access import learn_leaders

Place = tuple[str, int]

# Brokers stamp the records, and their clocks differ from each other and from ours.
CLOCK_SKEW_MS = 60_000

POLL_MS = 200
BATCH = 1_000


class Reader:
    """A consumer without a group; use it as an async context manager. One `read` or `follow` at a time.

    Args:
        connection: How Kafka is reached.

    Raises:
        BrokerUnreachableError: On entering, if nobody answers.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._consumer: AIOKafkaConsumer

    async def __aenter__(self) -> Self:
        self._consumer = AIOKafkaConsumer(
            **self._connection.client_options,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
        )
        try:
            await self._consumer.start()
        except KafkaConnectionError:
            await self._consumer.stop()
            raise await unreachable(self._connection) from None
        # `start` has made a task that catches its own cancellation once it runs. Stopped before that, it
        # would pass the cancellation on to us, and we would look interrupted.
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def partitions(self, topics: Iterable[str]) -> list[Place]:
        """Give all partitions of those of `topics` that exist, in order."""
        counts = await self.topics()
        return [(topic, n) for topic in sorted(set(topics) & counts.keys()) for n in range(counts[topic])]

    async def topics(self) -> dict[str, int]:
        """Give all topics with their numbers of partitions."""
        return await partition_counts(self._connection)

    async def first_offsets(self, places: Iterable[Place], *, since: int | None = None) -> dict[Place, int]:
        """Tell where to begin reading.

        Args:
            places: Partitions.
            since: Milliseconds since 1970: begin at the first record of that time or later; none: at the
                first record that is kept.
        """
        if since is not None:
            return await self.first_offsets_since(dict.fromkeys(places, since))
        partitions = await self._known(places)
        return _plain(await self._consumer.beginning_offsets(partitions)) if partitions else {}

    async def first_offsets_since(self, since: Mapping[Place, int]) -> dict[Place, int]:
        """Tell the first record of each partition's time (milliseconds since 1970) or later, or its end."""
        if not since:
            return {}
        partitions = await self._known(since)
        # Ends come first: a record that arrives after a time found nothing must not be passed over.
        ends = await self._consumer.end_offsets(partitions)
        found = await self._consumer.offsets_for_times({tp: since[_place(tp)] for tp in partitions})
        return {_place(tp): ends[tp] if at is None else at.offset for tp, at in found.items()}

    async def end_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """Tell the offset the next record of each partition will have."""
        partitions = await self._known(places)
        return _plain(await self._consumer.end_offsets(partitions)) if partitions else {}

    async def read(
        self, starts: Mapping[Place, int], *, ends: Mapping[Place, int] | None = None
    ) -> AsyncGenerator[Record]:
        """Read from `starts` up to `ends`, each partition in order; finishes when all of it was read.

        Args:
            starts: First offset per partition.
            ends: Offset to stop before, per partition; none: what is there now.
        """
        if ends is None:
            ends = await self.end_offsets(starts)
        left = {TopicPartition(*place) for place, start in starts.items() if start < ends[place]}
        if not left:
            # Not even assigned: stopped right after an assignment, the client waits for ever. Its fetcher is
            # busy then canceling what it fetched before, and takes its own cancellation for that of these.
            return
        self._begin(left, starts)
        while left:
            for tp, records in (await self._consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH)).items():
                for record in records:
                    if tp in left and record.offset < ends[_place(tp)]:
                        yield record
            # A transaction's end marker takes an offset but is no record: only the position tells.
            left = {tp for tp in left if await self._consumer.position(tp) < ends[_place(tp)]}

    async def follow(self, starts: Mapping[Place, int]) -> AsyncGenerator[Record | None]:
        """Read from `starts` and go on for ever; gives None whenever nothing new came for a while."""
        self._begin({TopicPartition(*place) for place in starts}, starts)
        while True:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH)
            if not batches:
                yield None
            for records in batches.values():
                for record in records:
                    yield record

    async def _known(self, places: Iterable[Place]) -> list[TopicPartition]:
        # A topic whose leaders the client does not know costs it a pause of 0.1 s, one topic after the other.
        partitions = [TopicPartition(*place) for place in places]
        await learn_leaders(self._consumer, {tp.topic for tp in partitions})
        return partitions

    def _begin(self, partitions: set[TopicPartition], starts: Mapping[Place, int]) -> None:
        self._consumer.assign(list(partitions))
        for tp in partitions:
            self._consumer.seek(tp, starts[_place(tp)])


def _place(tp: TopicPartition) -> Place:
    return tp.topic, tp.partition


def _plain(offsets: Mapping[TopicPartition, int]) -> dict[Place, int]:
    return {_place(tp): offset for tp, offset in offsets.items()}
