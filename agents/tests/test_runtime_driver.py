"""The driver between asyncio and the Rust machine: real machine, fake host, a clock of its own."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents._rust import Envelope, Record
from agents.core.runtime import Assignment, RetryPolicy, Runtime, TryAgain

Done = tuple[int, str, str]


class Host:
    """Runs whatever it is given until the test lets it end, and remembers what it was told, in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.runtime: Runtime[str, str]
        self.told: list[tuple[str, Any]] = []
        self.running: dict[str, asyncio.Future[str]] = {}
        self.most_running = 0
        self.stubborn: dict[str, asyncio.Event] = {}
        self.acknowledges = True
        self.unacknowledged: list[int] = []
        self.offsets: dict[int, int] = {}
        self.ended = 0
        self.reasons: list[str] = []
        self.numbers: dict[str, int] = {}

    async def execute(self, work: str, number: int) -> str:
        self.numbers[work] = number
        self.told.append(("start", work))
        self.running[work] = asyncio.get_running_loop().create_future()
        self.most_running = max(self.most_running, len(self.running))
        try:
            return await self.running[work]
        except asyncio.CancelledError:
            self.told.append(("canceled", work))
            if work in self.stubborn:
                await self.stubborn[work].wait()
            raise
        finally:
            del self.running[work]

    def expired(self, work: str) -> str:
        self.told.append(("expired", work))
        return f"late {work}"

    def publish(self, done: Sequence[Done]) -> None:
        for number, work, result in done:
            self.told.append(("publish", (work, result)))
            if self.acknowledges:
                self.runtime.acknowledge([number])
            else:
                self.unacknowledged.append(number)

    def commit(self, partitions: Sequence[int], ended: int) -> None:
        self.ended += ended
        # Told as well where only what is done above an offset changed; most tests are about the offset.
        positions = [(n, self.runtime.commit_of(n).offset) for n in partitions]
        if news := [(n, offset) for n, offset in positions if self.offsets.get(n, 0) != offset]:
            self.told.append(("commit", news))
            self.offsets |= dict(news)

    def retrying(self, work: str, attempt: int, seconds: float) -> None:
        self.told.append(("retry", (work, attempt, seconds)))

    def pause(self, partitions: Sequence[int]) -> None:
        self.told.append(("pause", list(partitions)))

    def resume(self, partitions: Sequence[int]) -> None:
        self.told.append(("resume", list(partitions)))

    def forget(self, work: str, reason: str) -> None:
        self.reasons.append(reason)
        self.told.append(("forget", work))

    # What a test says and asks

    def offer(self, *works: str, partition: int = 0, epoch: int = 1, **fields: Any) -> None:
        """Offer works named after lane and offset, as `a3`; a lane of `-` is none."""
        defaults: dict[str, Any] = {"deadline": None, "size": 10}
        for work in works:
            self.runtime.offer(
                work,
                partition=partition,
                epoch=epoch,
                offset=int(work[1:]),
                lane=None if work[0] == "-" else work[0].encode(),
                **defaults | fields,
            )

    def offer_events(self, *works: str, ahead: int | None = None, deadline: datetime | None = None) -> None:
        """Offer works together, named as for `offer`, of partition 0."""
        self.runtime.offer_events(
            works,
            0,
            1,
            [Record("t", 0, int(work[1:]), 0, 1, work[0].encode(), None, []) for work in works],
            [Envelope(work, "/s", "t", "w", deadline=deadline) for work in works],
            size=10,
            ahead=ahead,
            in_lanes=True,
            deduped=True,
            budgets=None,
        )

    def assign(self, *partitions: int, epoch: int = 1, position: int = 0, adopt: bool = False) -> None:
        self.runtime.assign([Assignment(number, epoch, position, adopt) for number in partitions])

    async def end(self, *works: str) -> None:
        for work in works:
            self.running[work].set_result(f"did {work}")
        await settle()

    def take(self, *kinds: str) -> list[Any]:
        """Give what was told since the last time; of some kinds only, the others are lost."""
        told, self.told = self.told, []
        return [
            what if len(kinds) == 1 else (kind, what) for kind, what in told if not kinds or kind in kinds
        ]

    def check_nothing_is_left(self) -> None:
        """Nothing is kept of what ended: a worker runs for months."""
        kept = {
            name: it for name, it in vars(self.runtime).items() if isinstance(it, dict | list | set | deque)
        }
        assert len(kept) > 8
        assert {name: it for name, it in kept.items() if it} == {}
        counts = {name for name, count in self.runtime.stats().items() if count}
        assert counts <= {"slots", "partitions", "retry_budget"}


async def settle() -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(10):
        await asyncio.sleep(0)


def a_host(*, slots: int = 2, **limits: Any) -> Host:
    host = Host()
    host.runtime = Runtime(host, slots=slots, clock=lambda: host.now, **limits)
    return host


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = a_host()
    yield host
    await host.runtime.close()
    await settle()


KEPT: ContextVar[str] = ContextVar("kept")
OWN: ContextVar[str] = ContextVar("own")


class Acting(Host):
    """Does at once what the first letter of a work, its lane, says, and remembers in which task."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.alive: set[asyncio.Task[Any]] = set()
        self.waited: set[asyncio.Task[Any]] = set()
        self.barrier = asyncio.Barrier(2)

    async def execute(self, work: str, number: int) -> str:
        assert self.runtime.work_of(number) == work
        task = asyncio.current_task()
        assert task is not None
        assert task not in self.alive  # of a run that is under way
        assert task not in self.waited
        assert not task.cancelling()
        assert KEPT.get("nothing") == "nothing"
        OWN.set(work)
        self.tasks[work] = task
        self.alive.add(task)
        try:
            match work[0]:
                case "w":
                    if await self.barrier.wait() < self.barrier.parties - 1:
                        self.waited.add(task)
                case "y":
                    await asyncio.sleep(0)
                    self.waited.add(task)
                case "k":
                    KEPT.set(work)
                case "c":
                    task.cancel()
                case "t":
                    raise TryAgain(f"tried {work}", 0)
                case "r":
                    raise ValueError(work)
            assert OWN.get() == work
        finally:
            self.alive.remove(task)
        return f"did {work}"


def an_acting_host(*, slots: int = 100, **limits: Any) -> Acting:
    host = Acting()
    host.runtime = Runtime(host, slots=slots, clock=lambda: host.now, **limits)
    host.assign(0)
    return host


def in_lanes(kinds: str) -> list[str]:
    return [f"{kind}{offset}" for offset, kind in enumerate(kinds)]


async def test_runs_that_wait_for_nothing_share_a_task() -> None:
    host = an_acting_host()
    for number in range(50):
        host.runtime.offer(f"n{number}", 0, 1, number, None, None, 10)
    await settle()
    assert len(host.tasks) == 50
    assert len({*host.tasks.values()}) == 1
    await host.runtime.close()


async def test_runs_that_wait_begin_together_and_none_shares_its_task() -> None:
    host = an_acting_host()
    host.barrier = asyncio.Barrier(50)  # nobody is through before all have begun
    for number in range(50):
        host.runtime.offer(f"w{number}", 0, 1, number, None, None, 10)
    await settle()
    assert len(host.take("publish")) == 50
    assert len({*host.tasks.values()}) == 50
    await host.runtime.close()


@pytest.mark.parametrize("kind", "kcr")
async def test_what_a_run_leaves_behind_reaches_no_other(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    host = an_acting_host()
    works = in_lanes(f"n{kind}nn{kind}{kind}n")
    for number, work in enumerate(works):
        host.runtime.offer(work, 0, 1, number, None, None, 10)
    await settle()
    assert [*host.tasks] == works  # the host itself looks for what was left
    assert len(host.take("publish")) == sum(work[0] != "r" for work in works)
    assert len(caplog.records) == sum(work[0] == "r" for work in works)
    await host.runtime.close()


async def test_who_asks_for_a_turn_leaves_nothing_to_the_runs() -> None:
    host = an_acting_host()
    host.runtime.revoke()
    host.runtime.offer("n0", 0, 2, 0, None, None, 10)
    KEPT.set("of a rebalance")
    host.runtime.assign([Assignment(0, 2, 0, adopt=False)])
    host.runtime.offer("n0", 0, 2, 0, None, None, 10)
    host.runtime._turn()
    await settle()
    assert [*host.tasks] == ["n0"]
    await host.runtime.close()


async def test_what_is_canceled_before_its_turn_never_begins() -> None:
    host = an_acting_host(timeout=1)
    host.acknowledges = False
    for number, work in enumerate(in_lanes("nwn")):
        host.runtime.offer(work, 0, 1, number, None, None, 10)
    host.runtime._turn_now()
    host.now += 2  # nothing had its turn yet
    host.runtime._turn_now()
    await settle()
    assert host.tasks == {}
    assert host.take("expired", "publish") == [
        *[("expired", work) for work in in_lanes("nwn")],
        *[("publish", (work, f"late {work}")) for work in in_lanes("nwn")],
    ]
    host.acknowledges = True
    host.runtime.acknowledge(host.unacknowledged)
    host.runtime.offer("n3", 0, 1, 3, None, None, 10)
    await settle()
    assert [*host.tasks] == ["n3"]
    await host.runtime.close()
    host.assign()
    host.check_nothing_is_left()


@settings(derandomize=True, database=None, max_examples=200)
@given(st.lists(st.text("nnnwykct", min_size=1, max_size=12), min_size=1, max_size=5), st.integers(1, 8))
def test_each_run_has_a_task_like_new_whatever_runs_beside_it(batches: list[str], slots: int) -> None:
    async def check() -> None:
        host = an_acting_host(slots=slots, retry=RetryPolicy(retries=0))
        works = in_lanes("".join(batches))
        left = iter(enumerate(works))
        for batch in batches:
            for number, work in (next(left) for _ in batch):
                host.runtime.offer(work, 0, 1, number, work[0].encode() * (number % 3), None, 10)
            await settle()
        for _ in works:  # those who wait for each other in vain, one lane after the other
            host.barrier = broken = asyncio.Barrier(2) if not host.barrier.n_waiting else host.barrier
            if broken.n_waiting:
                await broken.wait()
            await settle()
        assert {*host.tasks} == {*works}
        published = {work for work, _ in host.take("publish")}
        assert published == {*works}
        await host.runtime.close()
        host.assign()
        host.check_nothing_is_left()

    asyncio.run(check())


async def test_each_run_that_is_over_is_told_once_with_the_commits() -> None:
    host = a_host(slots=4)
    host.acknowledges = False
    host.assign(0)
    host.offer("a0", "b1", "c2", "d3")
    await settle()
    await host.end("a0", "b1", "c2")
    host.runtime.acknowledge(host.unacknowledged[1:])  # above the position: done, too
    await settle()
    host.runtime.acknowledge(host.unacknowledged[:1])
    await settle()
    assert (host.ended, host.offsets) == (3, {0: 3})
    await host.end("d3")
    host.runtime.acknowledge(host.unacknowledged[3:])
    await settle()
    assert (host.ended, host.offsets) == (4, {0: 4})
    await host.runtime.close()


async def test_a_record_is_run_then_published_then_committed(host: Host) -> None:
    host.assign(0)
    host.offer("a0")
    await settle()
    assert host.take() == [("start", "a0")]
    await host.end("a0")
    assert host.take() == [("publish", ("a0", "did a0")), ("commit", [(0, 1)])]
    host.check_nothing_is_left()


async def test_nothing_is_committed_before_its_result_is_acknowledged(host: Host) -> None:
    host.acknowledges = False
    host.assign(0)
    host.offer("a0", "b1")
    await settle()
    await host.end("b1", "a0")
    assert [kind for kind, _ in host.take()] == ["start", "start", "publish", "publish"]
    b1, a0 = host.unacknowledged
    host.runtime.acknowledge([b1])
    await settle()
    assert host.take() == []
    host.runtime.acknowledge([a0])
    await settle()
    assert host.take() == [("commit", [(0, 2)])]


async def test_a_lane_runs_one_at_a_time_in_order_and_waits_for_the_acknowledgement(host: Host) -> None:
    host.acknowledges = False
    host.assign(0)
    host.offer("a0", "a1", "b2")
    await settle()
    assert host.take("start") == ["a0", "b2"]
    await host.end("a0")
    assert host.take("start") == []
    host.runtime.acknowledge([host.unacknowledged.pop()])
    await settle()
    assert host.take("start") == ["a1"]


async def test_a_freed_slot_is_taken_at_once_even_where_the_result_is_not_acknowledged(host: Host) -> None:
    host.acknowledges = False
    host.assign(0)
    host.offer(*(f"-{offset}" for offset in range(7)))
    await settle()
    order = []
    while host.running:
        order += host.take("start")
        await host.end(next(iter(host.running)))
    assert order == [f"-{offset}" for offset in range(7)]
    assert host.most_running == 2


async def test_many_offers_are_one_turn(host: Host) -> None:
    turns = []
    machine = host.runtime._machine

    class Counting:
        def __getattr__(self, name: str) -> Any:
            turns.append(name)
            return getattr(machine, name)

    host.runtime._machine = Counting()  # type: ignore[assignment]
    for offset in range(5):
        host.offer(f"-{offset}")
    await settle()
    assert turns.count("turn") == 1
    host.runtime._machine = machine


async def test_events_offered_together_run_between_what_is_offered_alone(host: Host) -> None:
    host.assign(0)
    host.offer("a0")
    host.offer_events("a1", "b2", ahead=0, deadline=datetime.fromtimestamp(host.now + 1, UTC))
    host.offer("a3")
    await settle()
    await host.end("b2", "a0")
    assert host.take("start") == ["a0", "b2", "a1"]
    host.now += 1
    host.runtime._turn()
    await settle()
    assert host.take("expired", "start") == [("expired", "a1"), ("start", "a3")]
    await host.end("a3")
    assert host.take("commit") == [[(0, 4)]]
    host.check_nothing_is_left()


async def test_events_that_cannot_be_offered_leave_nothing_behind(host: Host) -> None:
    host.assign(0)
    with pytest.raises(ValueError, match="out of range"):
        host.offer_events("a0", "a-1")
    host.offer("a0")
    await settle()
    await host.end("a0")
    host.check_nothing_is_left()


# Time


async def test_a_run_past_its_deadline_is_canceled_and_its_lateness_published(host: Host) -> None:
    host.assign(0)
    host.offer("a0", deadline=host.runtime.now() + 500)
    await settle()
    host.now += 0.499
    host.runtime._turn()
    await settle()
    assert host.take() == [("start", "a0")]
    host.now += 0.001
    host.runtime._turn()
    await settle()
    assert host.take() == [
        ("canceled", "a0"),
        ("expired", "a0"),
        ("publish", ("a0", "late a0")),
        ("commit", [(0, 1)]),
    ]
    host.check_nothing_is_left()


async def test_a_deadline_that_passed_before_the_start_is_never_run(host: Host) -> None:
    host.assign(0)
    host.offer("a0", deadline=host.runtime.now())
    await settle()
    assert host.take() == [("expired", "a0"), ("publish", ("a0", "late a0")), ("commit", [(0, 1)])]
    host.check_nothing_is_left()


async def test_a_deadline_that_passes_while_it_waits_in_line(host: Host) -> None:
    host.assign(0)
    host.offer("-0", "-1")
    host.offer("-2", deadline=host.runtime.now() + 5)
    await settle()
    host.now += 0.005
    host.runtime._turn()
    await settle()
    assert host.take() == [
        ("start", "-0"),
        ("start", "-1"),
        ("expired", "-2"),
        ("publish", ("-2", "late -2")),
    ]


async def test_the_timer_wakes_the_machine_by_itself(host: Host) -> None:
    host.assign(0)
    late = asyncio.Event()
    host.expired = lambda work: late.set() or f"late {work}"  # type: ignore[func-returns-value,method-assign]
    host.offer("a0", deadline=host.runtime.now() + 60_000)
    await settle()
    timer = host.runtime._timer
    assert timer is not None
    assert 59 < timer.when() - asyncio.get_running_loop().time() <= 60
    host.now += 59.999
    host.runtime._turn()  # one millisecond is left, and the clock stands still meanwhile
    host.now += 0.001
    async with asyncio.timeout(5):
        await late.wait()


async def test_a_time_limit_cancels() -> None:
    host = a_host(timeout=0.25)
    host.assign(0)
    host.offer("a0")
    await settle()
    host.now += 0.25
    host.runtime._turn()
    await settle()
    assert host.take("publish") == [("a0", "late a0")]


async def test_a_run_that_takes_its_time_to_be_canceled_keeps_slot_and_lane(host: Host) -> None:
    host.stubborn["a0"] = asyncio.Event()
    host.assign(0)
    host.offer("a0", deadline=host.runtime.now() + 1)
    host.offer("a1", "-2", "-3")
    await settle()
    host.now += 1
    host.runtime._turn()
    await settle()
    assert host.take("start", "canceled") == [("start", "a0"), ("start", "-2"), ("canceled", "a0")]
    host.stubborn["a0"].set()
    await settle()
    # Its slot goes to who waited longest; its lane moves on once its result is acknowledged.
    assert host.take("start", "publish") == [("publish", ("a0", "late a0")), ("start", "-3")]
    await host.end("-2")
    assert host.take("start") == ["a1"]


# Rebalances


async def test_while_revoked_what_runs_goes_on_and_nothing_new_starts(host: Host) -> None:
    host.assign(0)
    host.offer("a0", "a1")
    await settle()
    host.runtime.revoke()
    host.offer("b2")
    await settle()
    await host.end("a0")
    assert host.take() == [
        ("start", "a0"),
        ("forget", "b2"),
        ("publish", ("a0", "did a0")),
        ("commit", [(0, 1)]),
    ]


async def test_draining_waits_for_the_last_acknowledgement(host: Host) -> None:
    host.acknowledges = False
    host.assign(0)
    host.offer("a0", "b1")
    await settle()
    host.runtime.revoke()
    drained = asyncio.create_task(host.runtime.drain(60))
    await host.end("a0", "b1")
    host.runtime.acknowledge([host.unacknowledged.pop()])
    await settle()
    assert not drained.done()
    host.runtime.acknowledge([host.unacknowledged.pop()])
    assert await drained
    assert host.take("commit") == [[(0, 2)]]


async def test_draining_gives_up_in_time_and_can_be_asked_again(host: Host) -> None:
    host.assign(0)
    host.offer("a0")
    await settle()
    host.runtime.revoke()
    assert not await host.runtime.drain(0)
    await host.end("a0")
    assert await host.runtime.drain(0)


async def test_draining_nothing_is_over_at_once(host: Host) -> None:
    host.runtime.revoke()
    assert await host.runtime.drain(0)


async def test_what_comes_back_is_adopted_and_goes_on(host: Host) -> None:
    host.assign(0)
    host.offer("a0", "b1", "a2")
    await settle()
    await host.end("b1")
    host.runtime.revoke()
    host.assign(0, epoch=2, adopt=True)
    host.offer("a0", "b1", "a2", epoch=2)  # delivered again, from the committed offset
    await settle()
    await host.end("a0")
    await host.end("a2")
    told = host.take()
    assert [what for kind, what in told if kind == "start"] == ["a0", "b1", "a2"]
    assert [what for kind, what in told if kind == "forget"] == ["a0", "b1", "a2"]
    assert [what for kind, what in told if kind == "publish"] == [
        ("b1", "did b1"),
        ("a0", "did a0"),
        ("a2", "did a2"),
    ]
    assert [what for kind, what in told if kind == "commit"] == [[(0, 2)], [(0, 3)]]
    host.check_nothing_is_left()


async def test_what_is_lost_is_canceled_and_never_published(host: Host) -> None:
    host.assign(0, 1)
    host.offer("a0", "a1")
    host.offer("b0", partition=1)
    await settle()
    host.runtime.revoke()
    host.assign(1, epoch=2, adopt=True)
    await settle()
    told = host.take()
    assert ("canceled", "a0") in told
    assert sorted(what for kind, what in told if kind == "forget") == ["a0", "a1"]
    assert not [what for kind, what in told if kind == "publish"]
    await host.end("b0")
    assert host.take() == [("publish", ("b0", "did b0")), ("commit", [(1, 1)])]
    host.check_nothing_is_left()


async def test_what_is_lost_is_not_said_to_be_late(host: Host) -> None:
    # Its host counts and logs a failure for what expires, and nothing failed here.
    host.assign(0)
    host.offer("a0")
    await settle()
    host.assign(0, epoch=2)
    await settle()
    assert "expired" not in [kind for kind, _ in host.take()]


async def test_a_lost_run_that_ends_by_itself_in_the_same_moment_is_not_published(host: Host) -> None:
    host.assign(0)
    host.offer("a0")
    await settle()
    host.running["a0"].set_result("did a0")
    host.assign(0, epoch=2)  # before its task had a chance to say so
    await settle()
    assert host.take("publish") == []
    host.check_nothing_is_left()


async def test_a_lost_result_that_is_acknowledged_late_commits_nothing(host: Host) -> None:
    host.acknowledges = False
    host.assign(0)
    host.offer("a0")
    await settle()
    await host.end("a0")
    host.assign(0, epoch=2)
    host.runtime.acknowledge([host.unacknowledged.pop()])
    await settle()
    assert host.take("commit") == []
    host.check_nothing_is_left()


async def test_a_lost_run_that_takes_its_time_blocks_its_lane_only(host: Host) -> None:
    host.stubborn["a0"] = asyncio.Event()
    host.assign(0)
    host.offer("a0")
    await settle()
    host.assign(0, epoch=2)
    host.take()
    host.offer("a0", "b1", epoch=2)
    await settle()
    assert host.take("start") == ["b1"]
    host.stubborn["a0"].set()
    await settle()
    assert host.take() == [("forget", "a0"), ("start", "a0")]


async def test_stale_offers_are_forgotten(host: Host) -> None:
    host.assign(0, epoch=2, position=5)
    host.offer("a5", epoch=1)
    host.offer("a4", epoch=2)
    host.offer("a6", epoch=2, partition=9)
    await settle()
    assert host.take() == [("forget", "a5"), ("forget", "a4"), ("forget", "a6")]
    host.check_nothing_is_left()


# Backpressure and the end


async def test_a_full_partition_is_paused_and_resumed() -> None:
    host = a_host(slots=1, max_queued_records=2)
    host.assign(0)
    host.offer(*(f"-{offset}" for offset in range(4)))
    await settle()
    for offset in range(3):
        await host.end(f"-{offset}")
    told = host.take("pause", "resume", "start")
    assert [(kind, what) for kind, what in told if kind != "start"] == [("pause", [0]), ("resume", [0])]
    assert told.index(("pause", [0])) < told.index(("start", "-1")) < told.index(("resume", [0]))
    await host.runtime.close()


async def test_reading_waits_while_every_slot_is_busy_and_enough_is_queued(host: Host) -> None:
    host.assign(0)
    host.offer(*(f"-{offset}" for offset in range(5)))
    await settle()
    reading = asyncio.create_task(host.runtime.room())
    await settle()
    assert not reading.done()  # two run and three wait, for two slots
    await host.end("-0")
    await reading


@pytest.mark.parametrize("after", [1e30, math.inf, math.nan, -1.0])
async def test_a_senseless_wait_is_nobody_elses_business(host: Host, after: float) -> None:
    host.assign(0)
    host.offer("a0", "b1")
    await settle()
    host.running["a0"].set_exception(TryAgain("refused", after))
    host.running["b1"].set_result("did b1")
    await settle()
    assert sorted(host.take("publish")) == [("a0", "refused"), ("b1", "did b1")]


async def test_a_senseless_bill_is_nobody_elses_business(host: Host) -> None:
    host.assign(0)
    host.offer("a0")
    await settle()
    host.runtime.spent(await host.runtime.ask(host.numbers["a0"], 5), 2**70)
    host.runtime.spent(await host.runtime.ask(host.numbers["a0"], 5), -3, micro_usd=2**64)
    await host.end("a0")
    assert host.take("publish") == [("a0", "did a0")]


async def test_what_was_just_offered_takes_room(host: Host) -> None:
    host.assign(0)
    host.offer(*(f"-{offset}" for offset in range(5)))
    reading = asyncio.create_task(host.runtime.room())
    await asyncio.sleep(0)
    assert not reading.done()
    assert host.runtime.stats()["running"] == 2  # nor does it wait for anything else to be started
    await settle()
    await host.end("-0")
    await reading


async def test_reading_goes_on_while_one_busy_key_is_all_that_waits(host: Host) -> None:
    host.assign(0)
    host.offer(*(f"a{offset}" for offset in range(50)))
    await settle()
    await host.runtime.room()


async def test_nobody_waits_for_room_once_it_is_closed() -> None:
    host = a_host(slots=1)
    host.assign(0)
    host.offer(*(f"-{offset}" for offset in range(5)))
    await settle()
    reading = asyncio.create_task(host.runtime.room())
    await settle()
    await host.runtime.close()
    await reading


async def test_closing_cancels_what_runs_and_publishes_nothing_of_it() -> None:
    host = a_host()
    host.assign(0)
    host.offer("a0", "b1", "a2", deadline=host.runtime.now() + 9_000)
    await settle()
    host.offer("c3")  # not seen by the machine yet
    await host.runtime.close()
    await settle()
    told = host.take()
    assert sorted(what for kind, what in told if kind == "canceled") == ["a0", "b1"]
    assert not [what for kind, what in told if kind in {"publish", "commit", "expired"}]
    assert host.runtime._timer is None
    host.check_nothing_is_left()


async def test_closing_waits_for_runs_that_take_their_time() -> None:
    host = a_host()
    host.stubborn["a0"] = asyncio.Event()
    host.assign(0)
    host.offer("a0")
    await settle()
    closed = asyncio.create_task(host.runtime.close())
    await settle()
    assert not closed.done()
    host.stubborn["a0"].set()
    await closed


async def test_a_host_that_breaks_its_word_and_raises_still_frees_the_slot() -> None:
    host = a_host(slots=1)
    host.assign(0)
    host.offer("a0", "b1")
    await settle()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    host.running["a0"].set_exception(RuntimeError("a host's fault"))
    await settle()
    # Nothing is known of its outcome, so nothing is published, and a restart brings it again.
    assert [str(complaint["exception"]) for complaint in complaints] == ["a host's fault"]
    assert host.take() == [("start", "a0"), ("start", "b1")]
    await host.end("b1")
    assert host.take() == [("publish", ("b1", "did b1"))]
    await host.runtime.close()


async def test_counts_are_the_machines(host: Host) -> None:
    host.assign(0, 1)
    host.offer("a0", "a1", "b2", "c3")
    await settle()
    stats = host.runtime.stats()
    assert (stats["running"], stats["queued_records"], stats["partitions"]) == (2, 2, 2)
