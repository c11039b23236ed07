"""Publishes records, pipelined: what has not been acknowledged has not happened."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from itertools import islice
from types import TracebackType
from typing import Any, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import murmur2

from agents.core.errors import ConfigurationError
from streams.envelope import EncodedHeaders, Headers
from streams.kafka.admin import unreachable
from streams.kafka.connection import Connection
from streams.kafka.private_access import Sendable
from streams.kafka.reader import CLOCK_SKEW_MS, Reader
from streams.kafka.record_batch import EncodedRecord, RecordBatch
from streams.topics import MAX_LETTER_BYTES, MAX_RECORD_BYTES

log = structlog.stdlib.get_logger()

RETRY_PAUSE = 0.5
MAX_BATCH_BYTES = 128 * 1024

# aiokafka's own defaults ask for one acknowledgement and no idempotence: both would lose or repeat records.
PRODUCER_OPTIONS: Any = {
    "acks": "all",
    "enable_idempotence": True,
    "max_batch_size": MAX_BATCH_BYTES,
    "max_request_size": MAX_LETTER_BYTES,
    "request_timeout_ms": 30_000,
}


# What a publish may fail with and be tried again; the name by which others catch it.
PublishError = KafkaError


class RecordTooLargeError(ValueError):
    """A record is larger than the broker takes."""


def partition_for(key: bytes, partitions: int) -> int:
    """Choose a key's partition as every Kafka client does (murmur2); done once, where a task enters."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class Publisher:
    """Sends records to given partitions.

    Args:
        producer: A started, idempotent producer; whoever started it stops it.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer

    async def renew(self, broken: AIOKafkaProducer) -> None:
        """Go on with another producer in place of one that is of no more use, where that is possible.

        A batch that Kafka refused leaves a gap in the numbers an idempotent producer gives its batches, and
        everything after it is refused as well.
        """

    async def ids_since(self, topic: str, partition: int, since: int) -> frozenset[bytes]:
        """Give the ids of events a partition got since a time in milliseconds, where that can be read."""
        del topic, partition, since
        return frozenset()

    async def send(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes,
        headers: Headers | EncodedHeaders,
    ) -> "asyncio.Future[Any]":
        """Hand a record over; returns when it is buffered.

        Returns:
            A future of the record's place, done when all replicas have it.

        Raises:
            RecordTooLargeError: If no broker of this application takes it.
        """
        try:
            sent: asyncio.Future[Any] = await self.producer.send(
                topic, value, key, partition=partition, headers=list(headers)
            )
        except MessageSizeTooLargeError:
            raise RecordTooLargeError(
                f"a record of {len(value)} bytes for {topic} is larger than {MAX_RECORD_BYTES}"
            ) from None
        return sent

    def outbox(
        self,
        topic: str,
        partition: int,
        acknowledged: Callable[[Sequence[int]], None],
        failed: Callable[[str], None],
        too_large: "TooLarge | None" = None,
    ) -> "Outbox":
        """Make the outbox of one partition."""
        return Outbox(self, topic, partition, acknowledged, failed, too_large)

    async def deliver(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes,
        headers: Headers | EncodedHeaders,
    ) -> int:
        """Send a record until Kafka has it, however often that takes; gives its offset.

        Raises:
            RecordTooLargeError: As `send`.
        """
        while True:
            try:
                return await self.send_and_wait(topic, partition, key=key, value=value, headers=headers)
            except PublishError as error:
                log.warning("publish failed, trying again", topic=topic, error=str(error) or repr(error))
                await asyncio.sleep(RETRY_PAUSE)

    async def send_and_wait(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes,
        headers: Headers | EncodedHeaders,
    ) -> int:
        """Send a record and give its offset once all replicas have it.

        Raises:
            RecordTooLargeError: As `send`.
        """
        metadata = await (await self.send(topic, partition, key=key, value=value, headers=headers))
        return int(metadata.offset)


# One record on its way, under a number of whoever sends it.
Outgoing = tuple[int, EncodedRecord]
TooLarge = Callable[[Outgoing], Outgoing | None]


class Outbox:
    """Results of one partition on their way: in order, one batch in flight; what comes meanwhile is the next.

    Under load batches grow by themselves, without it nothing waits. A batch that failed is sent again before
    anything later: the work is done and perhaps paid for, so it is kept until Kafka has it, however long.

    Args:
        publisher: Has the producer.
        topic: Where to.
        partition: Where to.
        acknowledged: Called with the numbers of records that all replicas have.
        failed: Called with the reason each time a batch did not go through.
        too_large: Called with a record that Kafka will never take; gives one to send in its place, or none.
            Without it, such a record is tried for ever, and `problem` says so.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (where to, and three things to tell)
        self,
        publisher: Publisher,
        topic: str,
        partition: int,
        acknowledged: Callable[[Sequence[int]], None],
        failed: Callable[[str], None],
        too_large: "TooLarge | None" = None,
    ) -> None:
        self._publisher = publisher
        self._topic, self._partition = topic, partition
        self._acknowledged, self._failed, self._too_large = acknowledged, failed, too_large
        self._one_by_one = 0  # so many records go alone, because one of them is too large
        self._waiting: list[Outgoing] = []
        self._sender: asyncio.Task[None] | None = None
        self.problem: str | None = None  # why the last batch did not go through, until one does

    def put(self, records: Iterable[Outgoing]) -> None:
        """Take records to send."""
        self._waiting.extend(records)
        if self._sender is None or self._sender.done():
            # In a context of its own: records of many runs go, and who put the first is only one of them.
            self._sender = asyncio.get_running_loop().create_task(self._send(), context=Context())

    def close(self) -> None:
        """Send nothing more: who owns the causes now says it anew. What is in flight may still arrive."""
        self._waiting.clear()

    async def _send(self) -> None:
        while self._waiting:
            producer = self._publisher.producer
            begun = int(time.time() * 1000)
            try:
                batch, numbers = self._fill(begun)
                sent = await producer.send_batch(batch, self._topic, partition=self._partition)
                await sent
            except PublishError as error:
                self.problem = str(error) or repr(error)
                self._failed(self.problem)
                if not error.retriable:
                    await self._publisher.renew(producer)
                if isinstance(error, MessageSizeTooLargeError):
                    self._find_the_large_one(numbers)
                elif await self._arrived(begun):
                    self._sent(numbers)
                await asyncio.sleep(RETRY_PAUSE)
            except Exception as error:
                # What it may be: if this task ended, what waits would wait for ever, unnoticed.
                log.exception("a batch cannot be sent, trying again", topic=self._topic)
                self.problem = repr(error)
                self._failed(self.problem)
                await asyncio.sleep(RETRY_PAUSE)
            else:
                self._sent(numbers)

    def _sent(self, numbers: Sequence[int]) -> None:
        self.problem = None
        if self._waiting:  # else it was closed meanwhile
            del self._waiting[: len(numbers)]
            self._one_by_one = max(0, self._one_by_one - len(numbers))
            self._acknowledged(numbers)

    async def _arrived(self, begun: int) -> bool:
        """Tell whether a batch is in the log of which only the answer was lost.

        The client repeats a batch under its number, and Kafka drops the copy; after its time-out the client
        gives the batch up, and a repetition by us would be another one. A batch is in the log whole or not.
        """
        while self._waiting:
            _, first = self._waiting[0]
            wanted = next((value for name, value in first.headers if name == "ce_id"), None)
            if wanted is None:
                return False
            try:
                there = await self._publisher.ids_since(self._topic, self._partition, begun - CLOCK_SKEW_MS)
            except (PublishError, ConfigurationError) as error:
                self.problem = str(error) or repr(error)
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return wanted in there
        return False

    def _find_the_large_one(self, numbers: Sequence[int]) -> None:
        """Go on one by one; a record that is refused alone is replaced by what can be said instead."""
        if not self._waiting or self._too_large is None:
            return  # closed meanwhile, or nothing can be said instead
        if len(numbers) > 1:
            self._one_by_one = len(numbers)
            return
        instead = self._too_large(self._waiting[0])
        self._waiting[:1] = [] if instead is None else [instead]

    def _fill(self, now: int) -> tuple[Sendable, list[int]]:
        records = islice(self._waiting, 1) if self._one_by_one else self._waiting
        batch = RecordBatch(records, limit=MAX_BATCH_BYTES, timestamp=now)
        return Sendable(batch), [number for number, _ in islice(self._waiting, batch.count)]


class OwnPublisher(Publisher):
    """A publisher with a producer of its own, for commands; use it as an async context manager.

    Args:
        connection: How Kafka is reached.

    Raises:
        BrokerUnreachableError: On entering, if nobody answers.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._renewing = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self) -> None:
        """Connect; whoever does this stops it, too.

        Raises:
            BrokerUnreachableError: If nobody answers.
        """
        super().__init__(await self._connect())

    async def stop(self) -> None:
        """Send what is under way, and disconnect."""
        await self.producer.stop()

    async def renew(self, broken: AIOKafkaProducer) -> None:
        """Connect anew, unless somebody did; while nobody answers, the old one stays."""
        async with self._renewing:
            if self.producer is not broken:
                return
            try:
                self.producer = await self._connect()
            except (ConfigurationError, PublishError) as error:
                log.warning("no new producer", error=str(error))
                return
            log.warning("went on with a new producer: Kafka takes no more of the old one")
            stopping = asyncio.get_running_loop().create_task(_stop(broken))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    async def ids_since(self, topic: str, partition: int, since: int) -> frozenset[bytes]:
        """Read them."""
        async with Reader(self._connection) as reader:
            starts = await reader.first_offsets_since({(topic, partition): since})
            return frozenset(
                [
                    value
                    async for record in reader.read(starts)
                    for name, value in record.headers
                    if name == "ce_id"
                ]
            )

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(**self._connection.client_options, **PRODUCER_OPTIONS)
        try:
            await producer.start()
        except KafkaConnectionError:
            await producer.stop()
            raise await unreachable(self._connection) from None
        return producer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _stop(producer: AIOKafkaProducer) -> None:
    """Stop a producer that was replaced; what others sent through it, it finishes."""
    try:
        await producer.stop()
    except PublishError as error:
        log.warning("the old producer did not stop in order", error=str(error))
