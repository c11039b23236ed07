"""Publishing: what is too large, what is tried again, and which partition a key has."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, NotLeaderForPartitionError

from agents.core.errors import ConfigurationError
from streams.kafka import publisher
from streams.kafka.connection import Connection
from streams.kafka.publisher import (
    PRODUCER_OPTIONS,
    Outbox,
    Outgoing,
    OwnPublisher,
    Publisher,
    RecordTooLargeError,
    partition_for,
)
from streams.kafka.record_batch import EncodedRecord, RecordBatch
from streams.topics import MAX_RECORD_BYTES
from tests.unit.worker_world import FakeProducer, settle

RECORD: dict[str, Any] = {"key": b"k", "value": b"v", "headers": []}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "RETRY_PAUSE", 0)


class Producer:
    """Answers sends with what it was given, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def send(self, *_: Any, **__: Any) -> "asyncio.Future[Any]":
        answer = self.answers.pop(0)
        if isinstance(answer, MessageSizeTooLargeError):
            raise answer
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            sent.set_exception(answer)
        else:
            sent.set_result(SimpleNamespace(offset=answer))
        return sent


async def test_the_place_of_a_record_is_known_once_kafka_has_it() -> None:
    assert await Publisher(Producer(7)).send_and_wait("t", 0, **RECORD) == 7


async def test_one_failure_is_an_error_where_nobody_asked_for_more() -> None:
    with pytest.raises(KafkaTimeoutError):
        await Publisher(Producer(KafkaTimeoutError())).send_and_wait("t", 0, **RECORD)


async def test_delivering_goes_on_until_kafka_has_it() -> None:
    producer = Producer(KafkaTimeoutError(), KafkaTimeoutError(), 7)
    assert await Publisher(producer).deliver("t", 0, **RECORD) == 7


async def test_a_record_the_client_refuses_is_never_tried_again() -> None:
    with pytest.raises(RecordTooLargeError, match="a record of 1 bytes for t is larger than"):
        await Publisher(Producer(MessageSizeTooLargeError())).deliver("t", 0, **RECORD)


def test_the_producer_loses_and_repeats_nothing() -> None:
    assert (PRODUCER_OPTIONS["acks"], PRODUCER_OPTIONS["enable_idempotence"]) == ("all", True)
    assert PRODUCER_OPTIONS["max_request_size"] > MAX_RECORD_BYTES
    # Batches of our own know neither.
    assert not {"compression_type", "transactional_id"} & PRODUCER_OPTIONS.keys()


# Hashes of Kafka's own UtilsTest.testMurmur2
@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_has_the_partition_that_every_kafka_client_gives_it(key: bytes, hashed: int) -> None:
    for partitions in (1, 6, 1000):
        assert partition_for(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


async def test_nobody_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ConfigurationError, match=f"no Kafka broker answers at {address}; start the local one"
        ):
            async with OwnPublisher(Connection.plaintext(address)):
                pass


# The outbox of a partition


class Renewing(Publisher):
    """Gets a new producer whenever it asks for one."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.producer)
        self._world = world

    async def ids_since(self, topic: str, partition: int, since: int) -> frozenset[bytes]:
        assert (topic, partition) == ("results.reader", 3)
        self._world.looked_since.append(since)
        return frozenset(self._world.in_the_log)

    async def renew(self, broken: Any) -> None:
        assert broken is self.producer
        self._world.renewed += 1


class World:
    def __init__(self) -> None:
        self.producer = FakeProducer()
        self.acknowledged: list[list[int]] = []
        self.failures: list[str] = []
        self.renewed = 0
        self.in_the_log: list[bytes] = []
        self.looked_since: list[int] = []
        self.too_large: list[int] = []
        self.outbox: Outbox = Renewing(self).outbox(
            "results.reader",
            3,
            lambda numbers: self.acknowledged.append(list(numbers)),
            self.failures.append,
            self.shorten,
        )

    def shorten(self, record: Outgoing) -> Outgoing | None:
        number, refused = record
        self.too_large.append(number)
        return (number, EncodedRecord(refused.key, b"99", refused.headers)) if number % 2 else None

    async def put(self, *numbers: int) -> None:
        self.outbox.put(
            [
                (number, EncodedRecord(b"k", str(number).encode(), [("ce_id", f"id-{number}".encode())]))
                for number in numbers
            ]
        )
        await settle()

    def sent(self) -> list[int]:
        assert {(it.topic, it.partition) for it in self.producer.sent} <= {("results.reader", 3)}
        return [int(it.value) for it in self.producer.sent]


async def test_records_leave_in_order_and_are_acknowledged_by_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = EncodedRecord(b"k", b"n", [("ce_id", b"id-n")])
    three = RecordBatch([(number, record) for number in range(3)], limit=1_000, timestamp=0)
    monkeypatch.setattr(publisher, "MAX_BATCH_BYTES", len(three.sealed(-1, -1, 0)) + 1)
    world = World()
    await world.put(*range(7))
    assert world.sent() == list(range(7))
    assert world.acknowledged == [[0, 1, 2], [3, 4, 5], [6]]


async def test_what_comes_while_a_batch_is_in_flight_is_the_next_one() -> None:
    world = World()
    world.producer.waiting = []
    await world.put(0)
    await world.put(1)
    await world.put(2)
    assert (world.sent(), world.acknowledged) == ([0], [])
    world.producer.waiting.pop().set_result(None)
    await settle()
    assert (world.sent(), world.acknowledged) == ([0, 1, 2], [[0]])
    world.producer.waiting.pop().set_result(None)
    await settle()
    assert world.acknowledged == [[0], [1, 2]]


@pytest.mark.parametrize("when", ["refuse", "fail"])
async def test_a_batch_that_failed_is_sent_again_before_anything_later(when: str) -> None:
    world = World()
    setattr(world.producer, when, [KafkaTimeoutError("slow"), KafkaTimeoutError("slow")])
    await world.put(0, 1)
    await world.put(2)
    assert (world.sent(), world.acknowledged[0][:2]) == ([0, 1, 2], [0, 1])
    assert len(world.failures) == 2
    assert "slow" in world.failures[0]


async def test_a_closed_outbox_sends_nothing_more() -> None:
    world = World()
    world.producer.fail = [KafkaTimeoutError()] * 100_000
    await world.put(0, 1)
    world.outbox.close()
    await settle()
    world.producer.fail = []
    await settle()
    assert (world.sent(), world.acknowledged) == ([], [])


async def test_what_was_in_flight_when_it_closed_is_not_acknowledged() -> None:
    # Its cause may be someone else's by now; a late copy has the same id and is passed over.
    world = World()
    world.producer.waiting = []
    await world.put(0)
    world.outbox.close()
    world.producer.waiting.pop().set_result(None)
    await settle()
    assert world.acknowledged == []


async def test_a_record_that_kafka_never_takes_is_found_and_replaced_and_the_others_go() -> None:
    world = World()
    too_large = MessageSizeTooLargeError("limit")
    # A batch of 0, 1, 2; then 0 alone passes, 1 alone does not; what stands for it passes, and so does 2.
    world.producer.waiting = []
    world.producer.fail = [too_large]
    await world.put(0, 1, 2)
    world.producer.fail = [too_large]
    await answered(world)
    assert world.too_large == [1]
    await answered(world)
    await answered(world)
    assert world.sent() == [0, 99, 2]
    assert world.acknowledged == [[0], [1], [2]]
    assert world.renewed == 2  # the numbers of a refused batch are missing in what the old one sends


async def test_what_cannot_be_replaced_holds_nothing_up() -> None:
    world = World()
    world.producer.fail = [MessageSizeTooLargeError("limit")]
    await world.put(0)
    await world.put(1)
    assert (world.too_large, world.acknowledged) == ([0], [[1]])


async def test_a_producer_that_may_recover_is_kept() -> None:
    world = World()
    world.producer.fail = [NotLeaderForPartitionError()]
    await world.put(0)
    assert (world.renewed, world.acknowledged) == (0, [[0]])


async def test_a_batch_of_which_only_the_answer_was_lost_is_not_sent_twice() -> None:
    world = World()
    world.producer.fail = [KafkaTimeoutError()]
    world.in_the_log = [b"id-0", b"id-1"]
    await world.put(0, 1)
    await world.put(2)
    assert (world.sent(), world.acknowledged) == ([2], [[0, 1], [2]])
    assert len(world.looked_since) == 1


async def answered(world: World) -> None:
    """Let Kafka take the batch that is in flight."""
    assert world.producer.waiting is not None
    if world.producer.waiting:
        world.producer.waiting.pop().set_result(None)
    await settle()
