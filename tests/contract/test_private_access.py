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
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import client as client_module
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer import message_accumulator
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.record.memory_records import MemoryRecords
from packaging.requirements import Requirement

from streams.kafka import private_access
from streams.kafka.private_access import (
    Sendable,
    client_of,
    coordinator_answers,
    generation_of,
    learn_leaders,
    left_for_good,
    make_dynamic,
    watch_heartbeats,
)
from streams.kafka.record_batch import EncodedRecord, RecordBatch

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


async def test_requests_can_be_sent_by_connections_of_their_own(
    consumer: AIOKafkaConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is kept for each group, which may be anything that can be looked up."""
    client, opened = client_of(consumer), []

    async def create_conn(*_: Any, **__: Any) -> Any:
        opened.append(SimpleNamespace(connected=lambda: True))
        return opened[-1]

    monkeypatch.setattr(client_module, "create_conn", create_conn)
    monkeypatch.setattr(client.cluster, "broker_metadata", lambda _: SimpleNamespace(host="h", port=1))
    for connection in (ConnectionGroup.DEFAULT, "quiet", "quiet"):
        assert await client.ready(1, group=connection)
    assert len(opened) == 2
    client._conns.clear()


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


# Batches of our own, where the client expects its own


def sendable() -> Sendable:
    record = EncodedRecord(b"k", b"v", [])
    return Sendable(RecordBatch([(0, record), (1, record)], limit=1_000, timestamp=1))


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
