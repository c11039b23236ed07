"""What Callboard touches inside of FastStream and aiokafka is there, and their versions are held."""

import ast
import asyncio
import inspect
import time
import tomllib
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CorruptRecordException
from aiokafka.producer import message_accumulator
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from streams.kafka import private_access
from streams.kafka.fetched import Record
from streams.kafka.private_access import (
    Sendable,
    coordinator_answers,
    fetch_afterwards,
    generation_of,
    learn_leaders,
    left_for_good,
    make_dynamic,
    read_as_ours,
    watch_heartbeats,
)
from streams.kafka.record_batch import RecordBatch

ROOT = Path(private_access.__file__).parents[2]


def private_attributes(path: Path) -> set[str]:
    """Give the attributes that a file takes from something other than its own objects."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
        and ast.unparse(node.value) != "super()"
    }


def test_this_file_knows_every_attribute_the_module_touches() -> None:
    assert private_attributes(Path(private_access.__file__)) == {
        "_coordinator",
        "_coordination_task",
        "_do_heartbeat",
        "_client",
        "_group_instance_id",
        "_fetcher",
        "_proc_fetch_request",
        "_records",
        "_partition_records",
        "_records_iterator",
        "_consumer_record",
        "_notify",
        "_fetch_waiters",
    }


def test_no_other_module_near_the_clients_touches_a_private_attribute() -> None:
    near = [ROOT / "streams/app.py", *(ROOT / "streams/kafka").glob("*.py")]
    touched = {path.name: private_attributes(path) for path in near if path.name != "private_access.py"}
    assert {name: found for name, found in touched.items() if found} == {}


@pytest.mark.parametrize("name", ["aiokafka", "faststream"])
def test_versions_are_held_to_one_minor_version(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (requirement,) = [it for it in map(Requirement, project["dependencies"]) if it.name == name]
    installed = version(name)
    major, minor, *_ = map(int, installed.split("."))
    assert requirement.specifier.contains(installed)
    assert not requirement.specifier.contains(f"{major}.{minor + 1}.0")
    assert not requirement.specifier.contains(f"{major + 1}.0.0")


@pytest.fixture
async def consumer() -> AsyncIterator[AIOKafkaConsumer]:
    it = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", group_id="g")
    yield it
    it._coordinator = None
    await it.stop()


async def test_the_generation_of_a_consumer(consumer: AIOKafkaConsumer) -> None:
    assert consumer._coordinator is None  # before it is started
    client, subscription = AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), SubscriptionState()
    coordinator = GroupCoordinator(client, subscription, group_id="g")
    consumer._coordinator = coordinator
    assert generation_of(consumer) == -1
    assert not left_for_good(consumer)
    coordinator.generation = 7
    assert generation_of(consumer) == 7
    coordinator.coordinator_id = 1
    assert coordinator_answers(consumer)
    coordinator.coordinator_dead()
    assert not coordinator_answers(consumer)
    coordinator._coordination_task.cancel()
    await asyncio.gather(coordinator._coordination_task, return_exceptions=True)
    assert left_for_good(consumer)


@pytest.mark.parametrize("answered", [False, True])
async def test_heartbeats_that_are_answered_are_told(
    consumer: AIOKafkaConsumer, monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    client, subscription = AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), SubscriptionState()
    coordinator = GroupCoordinator(client, subscription, group_id="g", heartbeat_interval_ms=0)
    coordinator.member_id, coordinator.coordinator_id = "m", 1
    consumer._coordinator = coordinator
    beats: list[bool] = []
    told: list[float] = []

    async def beat() -> bool:
        beats.append(answered)
        if len(beats) == 2:
            coordinator.member_id = ""  # the routine ends with the membership
        return answered

    async def known() -> None:
        """Be known."""

    monkeypatch.setattr(coordinator, "_do_heartbeat", beat)
    monkeypatch.setattr(coordinator, "ensure_coordinator_known", known)
    monkeypatch.setattr(coordinator, "_retry_backoff_ms", 0)
    before = time.monotonic()
    watch_heartbeats(consumer, told.append)
    await coordinator._heartbeat_routine()
    assert len(beats) == 2
    assert len(told) == 2 * answered
    assert all(before <= sent <= time.monotonic() for sent in told)
    coordinator._coordination_task.cancel()
    await asyncio.gather(coordinator._coordination_task, return_exceptions=True)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_static_member_leaves_only_if_told(
    consumer: AIOKafkaConsumer, monkeypatch: pytest.MonkeyPatch, *, leaves: bool
) -> None:
    client, subscription = AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), SubscriptionState()
    coordinator = GroupCoordinator(client, subscription, group_id="g", group_instance_id="i")
    consumer._coordinator, coordinator.generation = coordinator, 7
    sent: list[Any] = []

    async def send(_: GroupCoordinator, request: Any) -> None:
        sent.append(request)

    monkeypatch.setattr(GroupCoordinator, "_send_req", send)
    if leaves:
        make_dynamic(consumer)
    await coordinator._maybe_leave_group()
    assert [type(request) for request in sent] == [LeaveGroupRequest] * leaves
    coordinator._coordination_task.cancel()
    await asyncio.gather(coordinator._coordination_task, return_exceptions=True)


async def test_leaders_are_learned_at_once(
    consumer: AIOKafkaConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[asyncio.Future[bool]] = []

    def force_metadata_update(_: AIOKafkaClient) -> "asyncio.Future[bool]":
        asked.append(asyncio.get_running_loop().create_future())
        return asked[-1]

    monkeypatch.setattr(AIOKafkaClient, "force_metadata_update", force_metadata_update)
    learning = asyncio.create_task(learn_leaders(consumer, ["a", "b"]))
    await asyncio.sleep(0)
    assert len(asked) == 2
    assert consumer._client._topics == {"a", "b"}
    for future in asked:
        future.set_result(True)
    await learning


# Records of our own, where the client expects its own


class Fetching:
    """A fetcher with a partition of its own, and a Kafka that answers with what it is given."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.place = TopicPartition("t", 3)
        subscription = SubscriptionState()
        subscription.assign_from_user({self.place})
        self.fetcher = Fetcher(
            SimpleNamespace(send=self.send, _loop=None, _metadata_max_age_ms=1), subscription
        )
        self.fetcher._fetch_task.cancel()  # the test fetches itself
        consumer._fetcher = self.fetcher
        self.assignment = subscription.subscription.assignment
        self.state = self.assignment.state_value(self.place)
        self.state.seek(0)
        self.data = b""
        self.asked = False

    async def send(self, *_: Any) -> Any:
        self.asked = True
        return SimpleNamespace(
            API_VERSION=4, topics=[(self.place.topic, [(self.place.partition, 0, 9, 9, [], self.data)])]
        )

    async def fetch(self, data: bytes) -> bool:
        self.data = data
        request = SimpleNamespace(
            topics=[(self.place.topic, [(self.place.partition, self.state.position, 0)])]
        )
        woken: bool = await self.fetcher._proc_fetch_request(self.assignment, 1, request)
        return woken

    async def read(self, most: int) -> list[Any]:
        found = await self.fetcher.fetched_records([self.place], timeout=0, max_records=most)
        return [record for records in found.values() for record in records]


def a_batch(*offsets: int) -> bytes:
    records = [(0, b"k", str(it).encode(), [("h", b"1")]) for it in offsets]
    batch = RecordBatch(records, limit=10_000, timestamp=5).sealed(-1, -1, 0)
    return offsets[0].to_bytes(8, "big") + batch[8:]


async def test_what_is_fetched_is_read_as_ours_from_then_on(consumer: AIOKafkaConsumer) -> None:
    fetching = Fetching(consumer)
    assert await fetching.fetch(a_batch(0, 1, 2))
    (first,) = await fetching.read(1)
    read_as_ours(consumer)
    rest = await fetching.read(10)
    assert [type(it) for it in (first, *rest)] == [ConsumerRecord] * 3  # it was being read
    assert await fetching.fetch(a_batch(3, 4) + a_batch(5))
    ours = [*await fetching.read(2), *await fetching.read(10)]
    assert [type(it) for it in ours] == [Record] * 3
    assert [(it.offset, it.value, *fetching.place) for it in (first, *rest, *ours)] == [
        (offset, str(offset).encode(), it.topic, it.partition)
        for offset, it in enumerate((first, *rest, *ours))
    ]
    assert fetching.state.position == 6


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(0, 12),
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
)
def test_what_is_handed_out_and_where_it_goes_on_is_what_the_client_says(
    batches: list[tuple[int, int]], begin: int, takes: list[int]
) -> None:
    """Batches with gaps before them, read from somewhere in the first, some records at a time."""
    data, offset, begin = b"", 0, min(begin, sum(batches[0]) - 1)
    for gap, size in batches:
        data += a_batch(*range(offset + gap, offset + gap + size))
        offset += gap + size

    async def seen(*, ours: bool) -> list[Any]:
        consumer: Any = SimpleNamespace()
        fetching = Fetching(consumer)
        if ours:
            read_as_ours(consumer)
        fetching.state.seek(begin)
        await fetching.fetch(data)
        found = []
        for most in takes:
            records = await fetching.read(most)
            assert ours is all(isinstance(it, Record) for it in records) or not records
            found.append(([(it.offset, it.value) for it in records], where(fetching.state.position)))
        return found

    def where(position: int) -> int:
        """Give the next offset that there is: ours does not stop in a gap."""
        there = [n for gap, size in with_begins(batches) for n in range(gap, gap + size)]
        return min((n for n in there if n >= position), default=position)

    assert asyncio.run(seen(ours=True)) == asyncio.run(seen(ours=False))


def with_begins(batches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give where each batch begins, and its size."""
    found, offset = [], 0
    for gap, size in batches:
        found.append((offset + gap, size))
        offset += gap + size
    return found


async def test_what_was_not_read_of_when_it_changes_is_read_as_ours(consumer: AIOKafkaConsumer) -> None:
    fetching = Fetching(consumer)
    await fetching.fetch(a_batch(0))
    read_as_ours(consumer)
    fetching.state.consumed_to(0)
    assert not await fetching.fetch(b"")  # whatever else arrives
    assert [type(it) for it in await fetching.read(10)] == [Record]


async def test_a_broken_batch_is_an_error_of_the_client(consumer: AIOKafkaConsumer) -> None:
    fetching = Fetching(consumer)
    read_as_ours(consumer)
    broken = a_batch(0, 1)
    await fetching.fetch(broken[:-1] + b"?")
    with pytest.raises(CorruptRecordException, match="CRC"):
        await fetching.read(10)


async def test_another_consumer_reads_as_ever(consumer: AIOKafkaConsumer) -> None:
    fetching = Fetching(consumer)
    await fetching.fetch(a_batch(0))
    (record,) = await fetching.read(10)
    assert isinstance(record, ConsumerRecord)
    assert (record.value, record.headers) == (b"0", (("h", b"1"),))


async def test_more_is_asked_for_some_turns_after_records_were_handed_out(consumer: AIOKafkaConsumer) -> None:
    fetching = Fetching(consumer)
    fetch_afterwards(consumer, turns=3, seconds=3600)
    asked = asyncio.create_task(fetching.fetch(a_batch(0)))
    for _ in range(4):
        assert not fetching.asked
        await asyncio.sleep(0)
    await asked
    assert fetching.asked
    assert len(await fetching.read(10)) == 1


async def test_more_is_asked_for_after_one_turn_that_took_long(consumer: AIOKafkaConsumer) -> None:
    fetching = Fetching(consumer)
    fetch_afterwards(consumer, turns=1_000, seconds=0)
    asked = asyncio.create_task(fetching.fetch(a_batch(0)))
    await asyncio.sleep(0)
    assert fetching.asked
    await asked


async def test_who_waits_for_records_is_told_at_once_and_nobody_else(consumer: AIOKafkaConsumer) -> None:
    fetching = Fetching(consumer)
    fetch_afterwards(consumer, turns=1, seconds=3600)
    waiting = asyncio.get_running_loop().create_future()
    fetching.fetcher._fetch_waiters.add(waiting)
    assert not await fetching.fetch(b"")
    assert not waiting.done()
    assert not await fetching.fetch(a_batch(0))
    assert waiting.done()


async def test_a_fetch_that_is_canceled_before_it_was_sent_ends_as_the_clients_do(
    consumer: AIOKafkaConsumer,
) -> None:
    fetching = Fetching(consumer)
    fetch_afterwards(consumer, turns=1_000, seconds=3600)
    asked = asyncio.create_task(fetching.fetch(a_batch(0)))
    await asyncio.sleep(0)
    asked.cancel()
    assert await asked is False
    assert not fetching.asked


async def test_the_client_tells_those_who_wait_when_a_fetch_says_that_something_came(
    consumer: AIOKafkaConsumer,
) -> None:
    fetching = Fetching(consumer)
    routine = inspect.getsource(type(fetching.fetcher)._fetch_requests_routine)
    assert "self._proc_fetch_request(assignment, node_id, request)" in routine
    assert "has_new_data = any(fut.result() for fut in done_pending)" in routine
    assert "for waiter in self._fetch_waiters:" in routine


# Batches of our own, where the client expects its own


def sendable() -> Sendable:
    return Sendable(RecordBatch([(0, b"k", b"v", []), (1, b"k", b"v", [])], limit=1_000, timestamp=1))


def test_the_client_asks_nothing_of_a_batch_that_ours_has_not() -> None:
    module = ast.parse(inspect.getsource(message_accumulator))
    asked = {
        node.attr
        for part in module.body
        if not (isinstance(part, ast.ClassDef) and part.name == BatchBuilder.__name__)
        for node in ast.walk(part)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("_builder")
    }
    assert asked == {"append", "close", "closed", "record_count", "_set_producer_state", "_build"}
    for name in asked - {"append"}:  # which takes anything, and none of it
        theirs, ours = (inspect.signature(getattr(it, name)).parameters for it in (BatchBuilder, Sendable))
        assert list(ours) == list(theirs)


def test_a_batch_of_ours_is_like_a_closed_one_of_theirs() -> None:
    theirs, ours = BatchBuilder(1_000, 0), sendable()
    for _ in range(2):
        assert theirs.append(timestamp=1, key=b"k", value=b"v", headers=[])
    theirs.close()
    full: dict[str, Any] = {"timestamp": 1, "key": b"k", "value": b"v", "headers": []}
    assert theirs.append(**full) is ours.append(**full) is None  # type: ignore[func-returns-value]
    assert theirs.closed() is ours.closed() is True
    ours.close()
    assert theirs.record_count() == ours.record_count() == 2
    assert bytes(theirs._build()) == ours._build()  # of a producer without a number


async def test_a_batch_is_numbered_once_and_repeated_to_the_byte() -> None:
    numbers = TransactionManager(None, 1_000)
    numbers.set_pid_and_epoch(7, 3)
    leads: Any = SimpleNamespace(leader_for_partition=lambda _: 1)
    place = TopicPartition("t", 0)
    accumulator = MessageAccumulator(leads, 1_000, 0, 1.0, txn_manager=numbers)

    def drained() -> Any:
        ((node, batches),) = accumulator.drain_by_nodes(ignore_nodes=[])[0].items()
        assert node == 1
        return batches[place]

    sent = await accumulator.add_batch(sendable(), place, 1.0)
    batch = drained()
    first = batch.get_data_buffer()
    accumulator.reenqueue(batch)  # as after an error that may pass
    again = drained()
    assert again.get_data_buffer() == first
    read = MemoryRecords(first).next_batch()
    assert read is not None
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == (7, 3, 0)
    again.done(base_offset=40)
    assert (await sent).offset == 40

    await accumulator.add_batch(sendable(), place, 1.0)
    batch = drained()
    read = MemoryRecords(batch.get_data_buffer()).next_batch()
    assert read is not None
    assert read.base_sequence == 2
    batch.done(base_offset=42)


async def test_what_the_client_sends_by_itself_goes_after_a_batch_of_ours() -> None:
    leads: Any = SimpleNamespace(leader_for_partition=lambda _: 1)
    place = TopicPartition("t", 0)
    accumulator = MessageAccumulator(leads, 1_000, 0, 1.0)
    await accumulator.add_batch(sendable(), place, 1.0)
    sending = asyncio.create_task(accumulator.add_message(place, b"k", b"alone", 1.0))
    await asyncio.sleep(0)
    batch = accumulator.drain_by_nodes(ignore_nodes=[])[0][1][place]
    assert batch.record_count == 2
    batch.done_noack()
    await sending
    batch = accumulator.drain_by_nodes(ignore_nodes=[])[0][1][place]
    assert batch.record_count == 1
    batch.done_noack()
