"""Batches of our own on real Kafka: it takes them as they are, and one that it refuses holds nothing up."""

import asyncio
from collections.abc import Sequence

import pytest

from streams.kafka.admin import ensure_topics
from streams.kafka.connection import Connection
from streams.kafka.publisher import Outgoing, OwnPublisher
from streams.kafka.reader import Reader
from streams.kafka.record_batch import EncodedRecord
from streams.topics import MAX_MESSAGE_BYTES, Topics

pytestmark = pytest.mark.kafka

TOPIC, RECORDS, LARGE = "outbox.results.reader", 3_000, 1_234


def record(number: int) -> Outgoing:
    headers = [(f"ce_{name}", f"{name}-{number}-ü".encode()) for name in range(15)]
    return number, EncodedRecord(f"key-{number}".encode(), b"x" * (number % 2_000), headers)


async def test_what_is_put_is_in_the_log_in_order(kafka: str) -> None:
    connection = Connection.plaintext(kafka)
    await ensure_topics(connection, {TOPIC: Topics().config(TOPIC)}, partitions=1, replication=1)
    records = [record(number) for number in range(RECORDS)]
    records[LARGE] = LARGE, EncodedRecord(b"k", bytes(MAX_MESSAGE_BYTES), [])
    acknowledged: list[int] = []
    failures: list[str] = []
    done = asyncio.Event()

    def acknowledge(numbers: Sequence[int]) -> None:
        acknowledged.extend(numbers)
        if len(acknowledged) == RECORDS:
            done.set()

    async with OwnPublisher(connection) as publisher:
        first = publisher.producer
        outbox = publisher.outbox(TOPIC, 0, acknowledge, failures.append, lambda _: record(LARGE))
        outbox.put(records)
        async with asyncio.timeout(60):
            await done.wait()
        assert publisher.producer is not first
    assert acknowledged == list(range(RECORDS))
    assert len(failures) == 1
    async with Reader(connection) as reader:
        read = [(it.offset, it.key, it.value, list(it.headers)) async for it in reader.read({(TOPIC, 0): 0})]
    assert read == [
        (number, it.key, it.value, list(it.headers)) for number, it in map(record, range(RECORDS))
    ]
