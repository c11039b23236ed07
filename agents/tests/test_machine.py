"""The Rust machine, as Python sees it: examples to read, and random histories against its naive twin."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from agents import _rust
from agents._rust import AgentRuntime, Turn
from agents.tests.naive_machine import Held, NaiveMachine, Offered

ANSWERS = (
    "start",
    "cancel",
    "settled",
    "retries",
    "granted",
    "refused",
    "commits",
    "pause",
    "resume",
    "wake_at",
)
FIRST = [(0, 1, 0, False)]


def machine(**limits: Any) -> AgentRuntime:
    defaults = {"slots": 2, "max_queued_records": 100, "max_queued_bytes": 10_000}
    return AgentRuntime(**defaults | limits)


def offer(token: int, **differing: Any) -> Offered:
    """Give a record of partition 0 whose offset is its token."""
    fields = {"partition": 0, "epoch": 1, "offset": token, "lane": None, "deadline": None, "nbytes": 10}
    fields |= {"covers": ()} | differing
    return (token, *fields.values())  # type: ignore[return-value]


def check(turn: Turn, **expected: Any) -> None:
    """Compare a whole turn; what is not named is empty."""
    empty: dict[str, Any] = {name: [] for name in ANSWERS} | {"wake_at": None}
    assert {name: getattr(turn, name) for name in ANSWERS} == empty | expected


def test_a_record_runs_and_is_committed() -> None:
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, offered=[offer(0), offer(1), offer(2)]), start=[0, 1])
    check(runtime.turn(1, executed=[1]), start=[2])
    check(runtime.turn(2, acknowledged=[1]), commits=[(0, 0)])  # 1 is done above it
    assert runtime.stats()["done_above_base"] == 1
    check(runtime.turn(3, executed=[0], acknowledged=[0]), commits=[(0, 2)])
    assert (runtime.in_flight(), runtime.running(), runtime.queued()) == (1, 1, 0)


def test_a_lane_waits_for_the_acknowledgement_and_others_do_not() -> None:
    runtime = machine()
    records = [offer(0, lane=b"a"), offer(1, lane=b"a"), offer(2, lane=b"b")]
    check(runtime.turn(0, assigned=FIRST, offered=records), start=[0, 2])
    check(runtime.turn(1, executed=[0]))
    check(runtime.turn(2, acknowledged=[0]), start=[1], commits=[(0, 1)])


def test_gaps_in_the_log_are_harmless() -> None:
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, offered=[offer(4), offer(9)]), start=[4, 9], commits=[(0, 4)])
    check(runtime.turn(1, executed=[4, 9], acknowledged=[4]), commits=[(0, 9)])
    check(runtime.turn(2, acknowledged=[9]), commits=[(0, 10)])


def test_a_run_is_cancelled_once_and_keeps_its_slot_until_it_ends() -> None:
    runtime = machine(slots=1, timeout_ms=100)
    records = [offer(0, deadline=150), offer(1, deadline=150)]
    check(runtime.turn(0, assigned=FIRST, offered=records), start=[0], wake_at=100)
    check(runtime.turn(100), cancel=[0], wake_at=150)
    check(runtime.turn(120), wake_at=150)
    check(runtime.turn(149, executed=[0]), start=[1], wake_at=150)
    check(runtime.turn(150, acknowledged=[0]), cancel=[1], commits=[(0, 1)])


def test_an_expired_record_takes_no_slot_but_keeps_its_lane_and_offset() -> None:
    runtime = machine(slots=1)
    records = [offer(0, lane=b"a"), offer(1, lane=b"a", deadline=5), offer(2, lane=b"a")]
    check(runtime.turn(0, assigned=FIRST, offered=records), start=[0])  # 1 is not the head of its lane
    check(runtime.turn(9, executed=[0]))
    check(runtime.turn(9, acknowledged=[0]), settled=[(1, "expired")], commits=[(0, 1)])
    check(runtime.turn(9, acknowledged=[1]), start=[2], commits=[(0, 2)])


def test_adopted_partitions_go_on_where_they_were() -> None:
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, offered=[offer(0), offer(1), offer(2)]), start=[0, 1])
    check(runtime.turn(1, revoked=True, executed=[1], acknowledged=[1]), commits=[(0, 0)])
    check(runtime.turn(2, offered=[offer(3)]), settled=[(3, "stale")])
    again = [offer(10 + offset, epoch=2, offset=offset) for offset in range(4)]
    known = [(10, "redelivered"), (11, "redelivered"), (12, "redelivered")]
    turn = runtime.turn(3, assigned=[(0, 2, 0, True)], offered=again)
    check(turn, start=[2], settled=known, commits=[(0, 0)])
    check(runtime.turn(4, executed=[0], acknowledged=[0]), start=[13], commits=[(0, 2)])


def test_a_commit_lost_in_a_rebalance_is_told_again() -> None:
    runtime = machine()
    runtime.turn(0, assigned=FIRST, offered=[offer(0)])
    check(runtime.turn(1, executed=[0], acknowledged=[0], revoked=True), commits=[(0, 1)])
    redelivered = [offer(7, epoch=2, offset=0)]
    turn = runtime.turn(2, assigned=[(0, 2, 0, True)], offered=redelivered)
    check(turn, settled=[(7, "redelivered")], commits=[(0, 1)])


def test_lost_partitions_are_fenced() -> None:
    runtime = machine()
    records = [offer(0, lane=b"a"), offer(1), offer(2)]
    check(runtime.turn(0, assigned=FIRST, offered=records, held=[(3, 0, 1, 3)]), start=[0, 1])
    check(runtime.turn(1, executed=[1]), start=[2])
    turn = runtime.turn(2, assigned=[(0, 2, 0, False)], offered=[offer(4, epoch=2, offset=0, lane=b"a")])
    check(turn, cancel=[0, 2], settled=[(1, "fenced"), (3, "fenced")])
    check(runtime.turn(3, executed=[2], acknowledged=[1, 2]), settled=[(2, "fenced")])
    # 4 has the key of 0, whose task still winds down.
    check(runtime.turn(4, executed=[0]), start=[4], settled=[(0, "fenced")])
    check(runtime.turn(5, executed=[4], acknowledged=[4]), commits=[(0, 1)])


def test_a_join_finishes_the_parts_it_covers() -> None:
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, held=[(0, 0, 1, 0)], offered=[offer(1, covers=(0,))]), start=[1])
    second = runtime.turn(1, offered=[offer(2, covers=(0,))])  # 0 belongs to 1 already
    check(second, settled=[(2, "fenced")])
    check(runtime.turn(2, executed=[1], acknowledged=[1]), commits=[(0, 2)])
    # 2 was refused, so nothing is committed past it until someone brings it again.
    check(runtime.turn(3, offered=[offer(3)]), start=[3])
    check(runtime.turn(4, executed=[3], acknowledged=[3]), commits=[(0, 2)])
    check(runtime.turn(5, offered=[offer(4, offset=2)]), start=[4])
    check(runtime.turn(6, executed=[4], acknowledged=[4]), commits=[(0, 4)])


def test_a_partition_pauses_above_its_limit_and_resumes_at_half() -> None:
    runtime = machine(slots=1, max_queued_records=2)
    check(runtime.turn(0, assigned=FIRST, offered=[offer(n) for n in range(4)]), start=[0], pause=[0])
    check(runtime.turn(1, executed=[0]), start=[1])
    check(runtime.turn(2, executed=[1]), start=[2], resume=[0])


def test_a_flood_pauses_every_partition_that_has_something_queued() -> None:
    runtime = machine(slots=1, max_queued_bytes=10)
    assigned = [(number, 1, 0, False) for number in range(6)]
    records = [offer(number, partition=number, offset=0, nbytes=10) for number in range(6)]
    check(runtime.turn(0, assigned=assigned, offered=records), start=[0], pause=[1, 2, 3, 4, 5])


def test_pauses_are_issued_anew_after_a_rebalance() -> None:
    runtime = machine(slots=1, max_queued_records=1)
    check(runtime.turn(0, assigned=FIRST, offered=[offer(n) for n in range(3)]), start=[0], pause=[0])
    check(runtime.turn(1, revoked=True, executed=[0]))
    check(runtime.turn(2, assigned=[(0, 2, 0, True)]), start=[1])
    more = [offer(n, epoch=2) for n in (3, 4)]
    check(runtime.turn(3, offered=more), pause=[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"now": -1}, ValueError, "the turn before was at 0"),
        ({"offered": [offer(0)]}, ValueError, "token 0 is in use"),
        ({"offered": [offer(5)], "held": [(5, 0, 1, 5)]}, ValueError, "token 5 is in use"),
        ({"assigned": FIRST * 2}, ValueError, "partition 0 is assigned twice"),
        ({"executed": [0, -1]}, ValueError, r"executed\[1\] is -1"),
        ({"offered": [offer(5)[:7]]}, ValueError, r"offered\[0\] is .*length 10"),
        ({"offered": [offer(5, nbytes=2**32)]}, ValueError, r"offered\[0\]"),
        ({"offered": [offer(5, lane="a")]}, TypeError, r"offered\[0\]"),
        ({"held": ((5, 0, 1, 5),)}, TypeError, "held"),
        ({"now": 1.5}, TypeError, "now is 1.5"),
    ],
)
def test_misuse_is_an_exception_and_changes_nothing(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    runtime = machine()
    runtime.turn(0, assigned=FIRST, offered=[offer(0)])
    defaults: dict[str, Any] = {"now": 0, "executed": [0]}
    with pytest.raises(error, match=message):
        runtime.turn(**defaults | arguments)
    assert runtime.running() == 1


@pytest.mark.parametrize(
    "limits",
    [
        {"slots": 0},
        {"slots": -1},
        {"slots": 2**70},
        {"max_queued_records": 0},
        {"max_queued_bytes": 2**60},
        {"timeout_ms": 0},
    ],
)
def test_absurd_limits_are_refused_by_name(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        machine(**limits)


def test_the_stub_and_the_extension_agree() -> None:
    stub = ast.parse((Path(_rust.__file__).parent / "_rust.pyi").read_text())
    written = {
        node.name: {
            item.name: [argument.arg for argument in (*item.args.args, *item.args.kwonlyargs)][1:]
            for item in node.body
            if isinstance(item, ast.FunctionDef)
        }
        for node in stub.body
        if isinstance(node, ast.ClassDef)
    }

    def parameters(found: object) -> list[str]:
        if not callable(found):
            return []
        return [name for name in inspect.signature(found).parameters if name != "self"]

    real = {
        name: {
            attribute: parameters(AgentRuntime if attribute == "__new__" else found)
            for attribute, found in vars(getattr(_rust, name)).items()
            if attribute == "__new__" or not attribute.startswith("__")
        }
        for name in _rust.__all__
    }
    assert real == written


class AgainstTheTwin(RuleBasedStateMachine):
    """Random histories: machine and twin must make equal turns, in the same order in every list."""

    @initialize(
        slots=st.integers(1, 3),
        records=st.integers(1, 4),
        nbytes=st.integers(1, 40),
        timeout=st.sampled_from([None, 5, 20]),
    )
    def begin(self, slots: int, records: int, nbytes: int, timeout: int | None) -> None:
        limits: dict[str, Any] = {"slots": slots, "timeout_ms": timeout}
        limits |= {"max_queued_records": records, "max_queued_bytes": nbytes}
        self.machine, self.twin = AgentRuntime(**limits), NaiveMachine(**limits)
        self.now, self.token, self.epoch = 0, 0, 1
        self.read = {0: 0, 1: 0, 2: 0}  # what the consumer reads next, by partition
        self.turn(assigned=[(number, 1, 0, False) for number in self.read])

    def turn(self, **arguments: Any) -> None:
        ours, theirs = self.machine.turn(self.now, **arguments), self.twin.turn(self.now, **arguments)
        check(ours, **vars(theirs))
        assert self.machine.stats() == self.twin.stats()
        assert self.machine.in_flight() == self.twin.in_flight()
        assert not set(ours.pause) & set(ours.resume)

    def place(self, number: int, skip: int, age: int) -> Held:
        """Name the next record of a partition; sometimes after a gap, out of order, or stale."""
        self.token += 1
        offset = max(0, self.read[number] + skip)
        self.read[number] = max(self.read[number], offset + 1)
        return (self.token, number, max(0, self.epoch - age), offset)

    def tokens(self, *states: str) -> list[int]:
        return [it.token for it in self.twin.records.values() if it.state in states]

    partitions = st.integers(0, 2)
    skips = st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1, -3])
    ages = st.sampled_from([0] * 15 + [1])

    @rule(
        places=st.lists(st.tuples(partitions, skips, ages), min_size=1, max_size=4),
        lane=st.sampled_from([None, b"a", b"b"]),
        wait=st.sampled_from([None, None, -1, 0, 3, 12]),
        nbytes=st.integers(0, 30),
    )
    def offer(
        self, places: list[tuple[int, int, int]], lane: bytes | None, wait: int | None, nbytes: int
    ) -> None:
        deadline = None if wait is None else self.now + wait
        self.turn(offered=[(*self.place(*place), lane, deadline, nbytes, ()) for place in places])

    @rule(place=st.tuples(partitions, skips, ages))
    def hold(self, place: tuple[int, int, int]) -> None:
        self.turn(held=[self.place(*place)])

    @rule(place=st.tuples(partitions, skips, ages), data=st.data())
    def join(self, place: tuple[int, int, int], data: st.DataObject) -> None:
        held = self.place(*place)
        parts = [*self.tokens("held"), held[0], self.token + 5]
        covers = tuple(data.draw(st.lists(st.sampled_from(parts), min_size=1, max_size=2)))
        firing = (*self.place(place[0], 0, 0), b"a", None, 5, covers)
        self.turn(held=[held], offered=[firing])

    @rule(after=st.sampled_from([0, 1, 5, 20]), data=st.data())
    def finish(self, after: int, data: st.DataObject) -> None:
        self.now += after
        any_token = st.integers(0, self.token + 1)
        executing = self.tokens("executing", "fenced")
        executed = data.draw(st.lists(st.sampled_from(executing) if executing else any_token, max_size=3))
        ended = [*executed, *self.tokens("unacknowledged")]
        acknowledged = data.draw(st.lists(st.sampled_from(ended) if ended else any_token, max_size=4))
        self.turn(executed=executed, acknowledged=acknowledged)

    @rule(after=st.integers(0, 20))
    def wait(self, after: int) -> None:
        self.now += after
        self.turn()

    @rule()
    def revoke(self) -> None:
        self.turn(revoked=True)

    @rule(
        assigned=st.lists(
            st.tuples(partitions, st.booleans(), st.sampled_from([0, 0, 0, -1, 2])),
            unique_by=lambda it: it[0],
        ),
        revoked=st.booleans(),
    )
    def assign(self, assigned: list[tuple[int, bool, int]], *, revoked: bool) -> None:
        self.epoch += 1
        complete = []
        for number, adopt, drift in assigned:
            known = self.twin.partitions.get(number)
            self.read[number] = max(0, (known.told if known else self.read[number]) + drift)
            complete.append((number, self.epoch, self.read[number], adopt))
        self.turn(assigned=complete, revoked=revoked)


TestAgainstTheTwin = AgainstTheTwin.TestCase
TestAgainstTheTwin.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
