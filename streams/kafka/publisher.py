"""Publishes records, pipelined: what has not been acknowledged has not happened."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from types import TracebackType
from typing import Any, NamedTuple, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import murmur2

from streams.envelope import Headers
from streams.kafka.admin import unreachable
from streams.kafka.connection import Connection
from streams.topics import MAX_LETTER_BYTES, MAX_RECORD_BYTES

log = structlog.stdlib.get_logger()

RETRY_PAUSE = 0.5

# aiokafka's own defaults ask for one acknowledgement and no idempotence: both would lose or repeat records.
PRODUCER_OPTIONS: Any = {
    "acks": "all",
    "enable_idempotence": True,
    "max_batch_size": 128 * 1024,
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
        self._producer = producer

    async def send(
        self, topic: str, partition: int, *, key: bytes | None, value: bytes, headers: Headers
    ) -> "asyncio.Future[Any]":
        """Hand a record over; returns when it is buffered.

        Returns:
            A future of the record's place, done when all replicas have it.

        Raises:
            RecordTooLargeError: If no broker of this application takes it.
        """
        try:
            sent: asyncio.Future[Any] = await self._producer.send(
                topic, value, key, partition=partition, headers=headers
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
    ) -> "Outbox":
        """Make the outbox of one partition."""
        return Outbox(self._producer, topic, partition, acknowledged, failed)

    async def deliver(
        self, topic: str, partition: int, *, key: bytes | None, value: bytes, headers: Headers
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
        self, topic: str, partition: int, *, key: bytes | None, value: bytes, headers: Headers
    ) -> int:
        """Send a record and give its offset once all replicas have it.

        Raises:
            RecordTooLargeError: As `send`.
        """
        metadata = await (await self.send(topic, partition, key=key, value=value, headers=headers))
        return int(metadata.offset)


class Outgoing(NamedTuple):
    """One record on its way."""

    number: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Outbox:
    """Results of one partition on their way: in order, one batch in flight; what comes meanwhile is the next.

    Under load batches grow by themselves, without it nothing waits. A batch that failed is sent again before
    anything later: the work is done and perhaps paid for, so it is kept until Kafka has it, however long.

    Args:
        producer: A started, idempotent producer.
        topic: Where to.
        partition: Where to.
        acknowledged: Called with the numbers of records that all replicas have.
        failed: Called with the reason each time a batch did not go through.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        partition: int,
        acknowledged: Callable[[Sequence[int]], None],
        failed: Callable[[str], None],
    ) -> None:
        self._producer = producer
        self._topic, self._partition = topic, partition
        self._acknowledged, self._failed = acknowledged, failed
        self._waiting: deque[Outgoing] = deque()
        self._sender: asyncio.Task[None] | None = None
        self.problem: str | None = None  # why the last batch did not go through, until one does

    def put(self, records: Iterable[Outgoing]) -> None:
        """Take records to send."""
        self._waiting.extend(records)
        if self._sender is None or self._sender.done():
            # In a context of its own: records of many runs go, and the run that put the first is none of them.
            self._sender = asyncio.get_running_loop().create_task(self._send(), context=Context())

    def close(self) -> None:
        """Send nothing more: who owns the causes now says it anew. What is in flight may still arrive."""
        self._waiting.clear()

    async def _send(self) -> None:
        while self._waiting:
            batch, numbers = self._fill()
            try:
                sent = await self._producer.send_batch(batch, self._topic, partition=self._partition)
                await sent
            except PublishError as error:
                self.problem = str(error) or repr(error)
                self._failed(self.problem)
                await asyncio.sleep(RETRY_PAUSE)
            else:
                self.problem = None
                if not self._waiting:
                    return  # closed meanwhile
                for _ in numbers:
                    self._waiting.popleft()
                self._acknowledged(numbers)

    def _fill(self) -> tuple[Any, list[int]]:
        batch = self._producer.create_batch()
        numbers = []
        for record in self._waiting:
            # The first record always fits, whatever its size; the broker has the last word on that.
            if (
                batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
                is None
            ):
                break
            numbers.append(record.number)
        batch.close()
        return batch, numbers


class OwnPublisher(Publisher):
    """A publisher with a producer of its own, for commands; use it as an async context manager.

    Args:
        connection: How Kafka is reached.

    Raises:
        BrokerUnreachableError: On entering, if nobody answers.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Self:
        producer = AIOKafkaProducer(**self._connection.client_options, **PRODUCER_OPTIONS)
        try:
            await producer.start()
        except KafkaConnectionError:
            await producer.stop()
            raise await unreachable(self._connection) from None
        super().__init__(producer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()
