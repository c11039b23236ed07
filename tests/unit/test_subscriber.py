"""One membership: when it commits, how batches come to its handler, and what a client does wrong."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, GroupAuthorizationFailedError
from faststream._internal.endpoint.subscriber.utils import MultiLock
from faststream.kafka import KafkaBroker
from faststream.kafka.subscriber.usecase import LogicSubscriber

from streams.kafka import subscriber as subscriber_module
from streams.kafka.connection import Connection
from streams.kafka.subscriber import AgentSubscriber, adoptable

PLACE = ("tasks.reader", 0)
SLOTS = 3


class Consumer:
    """A consumer whose first commit never ends, as with a broker that is away."""

    def __init__(self) -> None:
        self.committed: list[dict[TopicPartition, tuple[int, str]]] = []
        self.asked = asyncio.Event()

    async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
        if not self.asked.is_set():
            self.asked.set()
            await asyncio.Event().wait()
        self.committed.append(offsets)


def a_subscriber(handler: Any, *, drain_seconds: float = 1) -> AgentSubscriber:
    return AgentSubscriber(
        KafkaBroker("127.0.0.1:1"),
        Connection.plaintext("127.0.0.1:1"),
        group="app.reader",
        topics=[PLACE[0]],
        late_topics=[],
        handler=handler,
        drain_seconds=drain_seconds,
        slots=SLOTS,
        session_timeout_ms=10_000,
    )


async def test_a_commit_that_was_given_up_does_not_end_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Consumer()
    done = iter([3, 5])
    handler: Any = SimpleNamespace(commit_of=lambda *_: (next(done), "said"))
    subscriber = a_subscriber(handler)
    monkeypatch.setattr(AgentSubscriber, "consumer", property(lambda _: consumer))
    subscriber._owned = {TopicPartition(*PLACE)}
    subscriber.commit_soon([PLACE])
    await consumer.asked.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await subscriber.commit_now()
    await subscriber.commit_now()  # the next rebalance; a canceled commit must not cancel it
    subscriber.commit_soon([PLACE])
    await subscriber.commit_now()
    assert consumer.committed == [{TopicPartition(*PLACE): (5, "said")}]


class Willing:
    """A consumer that commits whatever it is given."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.told = asyncio.Event()

    async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
        self.committed += [offset for offset, _ in offsets.values()]
        self.told.set()

    async def further(self) -> None:
        self.told.clear()
        await self.told.wait()


async def settle() -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> tuple[AgentSubscriber, Willing, list[int]]:
    """Give a membership that would commit once an hour, its consumer, and what is done in a list of one."""
    consumer, done = Willing(), [1]
    handler: Any = SimpleNamespace(commit_of=lambda *_: (done[0], "said"))
    subscriber = a_subscriber(handler)
    monkeypatch.setattr(AgentSubscriber, "consumer", property(lambda _: consumer))
    monkeypatch.setattr(subscriber_module, "COMMIT_PAUSE", 3600)
    monkeypatch.setattr(subscriber_module, "SHORT_COMMIT_PAUSE", 0)
    subscriber._owned = {TopicPartition(*PLACE)}
    subscriber._last_commit = -3600.0
    return subscriber, consumer, done


Patient = tuple[AgentSubscriber, Willing, list[int]]


async def test_the_first_commit_waits_for_nothing_and_the_next_until_as_much_ended_as_there_are_slots(
    patient: Patient,
) -> None:
    subscriber, consumer, done = patient
    subscriber.commit_soon([PLACE], 1)
    await consumer.further()
    for done[0] in range(2, 2 + SLOTS):
        await settle()
        assert consumer.committed == [1]
        subscriber.commit_soon([PLACE], 1)
    await consumer.further()
    assert consumer.committed == [1, 1 + SLOTS]
    subscriber.commit_soon([PLACE], SLOTS)  # what was counted for one commit does not count for the next
    await consumer.further()
    subscriber.commit_soon([PLACE], 1)
    await settle()
    assert len(consumer.committed) == 3
    await subscriber.commit_now()


async def test_a_commit_that_must_be_waits_for_no_other(patient: Patient) -> None:
    subscriber, consumer, done = patient
    subscriber.commit_soon([PLACE], 1)
    await subscriber.commit_now()
    done[0] = 2
    subscriber.commit_soon([PLACE], 1)
    await subscriber.commit_now()
    await subscriber.commit_now()  # nothing is left to commit
    assert consumer.committed == [1, 2]
    done[0] = 3
    subscriber.commit_soon([PLACE], 1)  # and the pauses are as they were
    await settle()
    assert consumer.committed == [1, 2]
    await subscriber.commit_now()


class Log:
    """A consumer and what fetches for it: nothing at first, then two records, and then it is stopped."""

    def __init__(self, subscriber: AgentSubscriber) -> None:
        self.batches: list[tuple[Any, ...]] = [(), (), (a_record(0), a_record(1))]
        self.heard = 0
        fetcher: Any = self
        subscriber._fetcher = fetcher

    async def getmany(self) -> dict[TopicPartition, list[Any]]:
        self.heard += 1
        return {}

    async def records(self, *_: Any) -> tuple[Any, ...]:
        if not self.batches:
            raise ConsumerStoppedError
        return self.batches.pop(0)


def a_record(offset: int) -> ConsumerRecord:
    return ConsumerRecord(*PLACE, offset, 0, 1, b"key", b"{}", None, 3, 2, ((f"name-{offset}", b"value"),))


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> tuple[AgentSubscriber, list[Any]]:
    """Give a membership that was started, and the batches that its handler gets."""
    taken: list[Any] = []

    async def take(records: Any, epoch: int) -> None:
        taken.append(([record.offset for record in records], epoch))

    async def no_sleep(seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s, in which records would wait")

    subscriber = a_subscriber(SimpleNamespace(on_records=take))
    monkeypatch.setattr("anyio.sleep", no_sleep)
    subscriber._subscriber.running = True
    return subscriber, taken


Reader = tuple[AgentSubscriber, list[Any]]


async def test_nothing_waits_for_records_but_the_client(reader: Reader) -> None:
    subscriber, taken = reader
    subscriber._epoch = 7
    log = Log(subscriber)
    await subscriber._subscriber._run_consume_loop(log)
    assert taken == [([0, 1], 7)]
    assert log.heard >= 1


async def test_the_client_is_asked_now_and_then_what_is_wrong(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber, _ = reader
    now = [100.0]
    monkeypatch.setattr(subscriber_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    log = Log(subscriber)
    log.batches = [()] * 3
    for now[0] in (100.0, 100.1, 100.2):
        await subscriber._next_batch(log)
    assert log.heard == 2


async def test_a_batch_is_not_looked_at_as_a_message_of_a_users_handler(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber, taken = reader
    monkeypatch.setattr(subscriber._subscriber, "process_message", None)
    await subscriber._subscriber._run_consume_loop(Log(subscriber))
    assert len(taken) == 1


async def test_a_batch_that_comes_after_the_stop_is_left_to_the_next_owner(reader: Reader) -> None:
    subscriber, taken = reader
    subscriber._subscriber.running = False
    await subscriber._subscriber.consume_one((a_record(0),))
    assert taken == []


async def test_a_stop_waits_for_the_batch_that_is_being_taken() -> None:
    held: list[bool] = []

    async def take(*_: Any) -> None:
        held.append(not lock.empty)

    subscriber = a_subscriber(SimpleNamespace(on_records=take))._subscriber
    subscriber.lock = lock = MultiLock()
    subscriber.running = True
    await subscriber.consume_one((a_record(0),))
    assert (held, lock.empty) == ([True], True)


async def test_what_ends_while_the_group_joins_is_committed_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run ends after the positions were read: a commit then would make its partition look a stranger's."""
    place, done = TopicPartition(*PLACE), [11]
    adopted: list[tuple[int, bool]] = []
    kafka = {place: 10}
    generations = iter([1, 1, 2, 2])

    class Joining(Consumer):
        async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
            self.committed.append(offsets)
            kafka.update((tp, offset) for tp, (offset, _) in offsets.items())

        def pause(self, *_: TopicPartition) -> None: ...

        resume = seek = pause

        async def beginning_offsets(self, places: Any) -> dict[TopicPartition, int]:
            # The longest way of the callback: the positions are read, and nothing is said of them yet.
            done[0] += 1
            subscriber.commit_soon([PLACE], 1)
            await settle()
            return dict.fromkeys(places, 0)

        async def end_offsets(self, places: Any) -> dict[TopicPartition, int]:
            return dict.fromkeys(places, 99)

    async def committed(*_: Any) -> dict[TopicPartition, tuple[int, str]]:
        return {tp: (offset, "") for tp, offset in kafka.items()}

    async def on_assigned(positions: Any, _: int) -> None:
        adopted.extend((it.offset, it.adopt) for it in positions)

    consumer = Joining()
    handler = SimpleNamespace(
        commit_of=lambda *_: (done[0], "m"), metadata_at=lambda _: "begun", on_assigned=on_assigned
    )
    for name in ("COMMIT_PAUSE", "SHORT_COMMIT_PAUSE"):
        monkeypatch.setattr(subscriber_module, name, 0)
    for name in ("watch_heartbeats", "client_of"):
        monkeypatch.setattr(subscriber_module, name, lambda *_: None)
    monkeypatch.setattr(
        subscriber_module, "Fetcher", lambda client: SimpleNamespace(client=client, assign=lambda _: None)
    )
    monkeypatch.setattr(subscriber_module, "committed_offsets", committed)
    monkeypatch.setattr(subscriber_module, "generation_of", lambda _: next(generations))
    monkeypatch.setattr(AgentSubscriber, "consumer", property(lambda _: consumer))
    subscriber = a_subscriber(handler)
    await subscriber.on_partitions_assigned({place})
    subscriber.commit_soon([PLACE], 1)
    await subscriber.commit_now()
    assert kafka == {place: 12}
    await subscriber.on_partitions_assigned({place})
    assert adopted == [(10, False), (12, True)]
    await subscriber.commit_now()
    assert kafka == {place: 13}


async def test_what_is_wrong_with_a_membership_is_heard_where_the_client_says_it(reader: Reader) -> None:
    async def getmany() -> None:
        raise GroupAuthorizationFailedError("app.reader")

    subscriber, _ = reader
    with pytest.raises(GroupAuthorizationFailedError):
        await subscriber._next_batch(SimpleNamespace(getmany=getmany))


async def test_reading_begins_as_soon_as_there_is_an_assignment(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "POLL_SECONDS", 3600)
    subscriber, _ = reader
    log = Log(subscriber)
    subscriber._fetcher = None
    reading = asyncio.create_task(subscriber._next_batch(log))
    await settle()
    assert not reading.done()
    monkeypatch.setattr(subscriber_module, "client_of", lambda _: "its")
    monkeypatch.setattr(subscriber_module, "watch_heartbeats", lambda *_: None)
    subscriber._fetcher_of(log)
    assert await reading == ()  # FastStream asks again at once


async def test_a_batch_that_could_not_be_taken_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take(*_: Any) -> None:
        raise ZeroDivisionError("a fault of ours")

    sought: list[tuple[TopicPartition, int]] = []
    subscriber = a_subscriber(SimpleNamespace(on_records=take))
    fetcher: Any = SimpleNamespace(seek=lambda *where: sought.append(where))
    subscriber._fetcher = fetcher
    subscriber._subscriber.running = True
    monkeypatch.setattr(subscriber_module, "RETRY_PAUSE", 0)
    await subscriber._subscriber.consume_one((a_record(4), a_record(5)))
    assert sought == [(TopicPartition(*PLACE), 4)]


async def test_nothing_is_fetched_any_more_when_the_client_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    async def close() -> None:
        did.append("fetches nothing")

    async def stop(_: Any) -> None:
        did.append("client stops")

    def fetcher(client: str) -> Any:
        return SimpleNamespace(client=client, close=close)

    monkeypatch.setattr(LogicSubscriber, "stop", stop)
    monkeypatch.setattr(subscriber_module, "client_of", str)
    monkeypatch.setattr(subscriber_module, "watch_heartbeats", lambda *_: None)
    monkeypatch.setattr(subscriber_module, "Fetcher", fetcher)
    subscriber = a_subscriber(SimpleNamespace())
    await subscriber._subscriber.stop()
    assert did == ["client stops"]  # it was not even there
    did.clear()
    subscriber._subscriber.consumer = cast("Any", "first")
    await subscriber._subscriber.stop()
    assert did == ["fetches nothing", "client stops"]
    # An assignment that ends only now finds what is closed, and not nothing; another consumer has its own.
    closed = subscriber._fetcher
    assert subscriber._fetcher_of(cast("Any", "first")) is closed
    assert subscriber._fetcher_of(cast("Any", "second")) is not closed


def test_partitions_of_one_number_are_adopted_together_or_not_at_all() -> None:
    tasks, results = (
        [TopicPartition("tasks.a", n) for n in (0, 1)],
        [TopicPartition("results.b", n) for n in (0, 1)],
    )
    assigned = [*tasks, *results]
    starts = dict.fromkeys(assigned, 7)
    committed = starts | {results[1]: 6}  # committed, and the answer was lost
    assert adoptable(assigned, assigned, committed, starts) == {tasks[0], results[0]}
    assert adoptable(assigned, assigned[1:], starts, starts) == {tasks[1], results[1]}
    assert adoptable(assigned, assigned, {}, starts) == set(assigned)
    assert adoptable(assigned, [], starts, starts) == set()


async def test_nothing_is_read_before_its_position_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, out_of_range = TopicPartition(*PLACE), TopicPartition(PLACE[0], 1)
    did: list[Any] = []

    async def on_assigned(*_: Any) -> None:
        did.append("assigned")

    async def commit(_: Any) -> None:
        did.append("committed")

    subscriber = a_subscriber(SimpleNamespace(on_assigned=on_assigned, metadata_at=lambda _: "said"))
    consumer = SimpleNamespace(
        pause=lambda *places: did.append(("pause", set(places))),
        seek=lambda *where: did.append(("seek", *where)),
        commit=commit,
    )
    fetcher: Any = SimpleNamespace(client="its", assign=lambda places: did.append(("fetch", places)))

    async def positions(assigned: set[TopicPartition]) -> Any:
        subscriber.out_of_range = {f"{out_of_range.topic}/{out_of_range.partition}": "why"}
        return dict.fromkeys(assigned, 4), dict.fromkeys(assigned, 9), {}

    monkeypatch.setattr(AgentSubscriber, "consumer", property(lambda _: consumer))
    monkeypatch.setattr(subscriber, "_positions_at_last", positions)
    monkeypatch.setattr(subscriber_module, "generation_of", lambda _: 1)
    monkeypatch.setattr(subscriber_module, "client_of", lambda _: "its")
    subscriber._fetcher = fetcher
    await subscriber.on_partitions_assigned({kept, out_of_range})
    assert did == [
        ("pause", {kept, out_of_range}),
        "committed",
        ("seek", kept, 4),
        ("fetch", {kept: 4}),
        "assigned",
    ]


async def test_positions_are_not_asked_for_in_a_membership_that_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subscriber = a_subscriber(SimpleNamespace())
    monkeypatch.setattr(AgentSubscriber, "consumer", property(lambda _: None))
    monkeypatch.setattr(subscriber_module, "RETRY_PAUSE", 0)
    generations = iter([5, 5, 5, -1])
    monkeypatch.setattr(subscriber_module, "generation_of", lambda _: next(generations))

    async def refused(_assigned: set[TopicPartition]) -> Any:
        raise CommitFailedError("moved on")

    monkeypatch.setattr(subscriber, "_positions", refused)
    with pytest.raises(CommitFailedError):
        await subscriber._positions_at_last({TopicPartition(*PLACE)})
    assert list(generations) == []


@pytest.mark.parametrize("drain_seconds", [0.0, 20.0, 3600.0])
def test_the_group_waits_for_a_member_that_lets_its_runs_end(drain_seconds: float) -> None:
    subscriber = a_subscriber(SimpleNamespace(), drain_seconds=drain_seconds)
    given = subscriber._subscriber._connection_args
    assert given["rebalance_timeout_ms"] / 1000 > drain_seconds + subscriber_module.LAST_COMMIT_SECONDS
    assert given["max_poll_interval_ms"] > given["rebalance_timeout_ms"]
