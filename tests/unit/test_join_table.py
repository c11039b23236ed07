"""Joins kept in a log: when they fire and with what, and that no crash makes them fire twice or never."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.workflow import Awaiting
from streams.envelope import record_digest
from streams.join_records import JoinStateError, Reference, Slot
from streams.join_table import KEEP_MS, KEEP_VOID_MS, Change, Firing, JoinTable, Loaded, records_of
from tests.unit.worker_world import TIME as NOW
from tests.unit.worker_world import FakeRecord

KEY, OTHER = ("flow", "round-1"), ("flow", "round-2")
ALL = Awaiting(frozenset("abc"), 3)
TWO = Awaiting(frozenset("abc"), 2, patient=False)
FIRST = Awaiting(frozenset("abc"), 1, patient=False)
SOON = replace(ALL, within_ms=1000)
GO_ON = replace(SOON, then="go_on")


def a_record(agent: str) -> FakeRecord:
    return FakeRecord(f"results.{agent}", 7, f"made by {agent}".encode())


def part(agent: str, *, at: int = 0, **fields: Any) -> Reference:
    record = a_record(agent)
    place = {"topic": record.topic, "partition": 0, "offset": 7, "digest": record_digest(record)}
    return Reference.model_validate(place | {"agent": agent, "status": "completed", "at": NOW + at} | fields)


def gone(*agents: str, at: int = 0) -> list[Reference]:
    return [part(agent, status="gone", topic="results.x", at=at) for agent in agents]


class Log:
    """The topic of joins: what was written, and what is left of it when it is compacted."""

    def __init__(self) -> None:
        self.records: list[FakeRecord] = []

    def write(self, changes: Iterable[Change]) -> list[Firing]:
        """Append, and give what fires now."""
        fires = []
        for change in changes:
            number = len(self.records)
            record = FakeRecord("joins.x", number, change.value, key=change.key, partition=change.partition)
            self.records.append(record)
            if change.firing is not None:
                fires.append(change.firing)
        return fires

    def compacted(self) -> list[FakeRecord]:
        last = {record.key: record.offset for record in self.records}
        return [record for record in self.records if record.offset == last[record.key] and record.value]

    def of(self, partition: int) -> list[FakeRecord]:
        return [record for record in self.records if record.partition == partition]


class World:
    """A table whose changes are all written."""

    def __init__(self, awaiting: Awaiting = ALL) -> None:
        self.awaiting, self.table, self.log = awaiting, JoinTable(), Log()
        self.fired: list[Firing] = []
        self.skipped: list[str | None] = []

    def take(self, *parts: Reference, key: tuple[str, str] = KEY, partition: int = 0) -> "World":
        for it in parts:
            taken = self.table.take(partition, key, it, self.awaiting, a_record(it.agent))
            self.skipped.append(taken.skipped)
            self.fired += self.log.write(taken.changes)
        return self

    def take_away(self, *agents: str) -> "World":
        taken = self.table.take_away(0, KEY, gone(*agents), self.awaiting)
        self.skipped.append(taken.skipped)
        self.fired += self.log.write(taken.changes)
        return self

    def go(self, milliseconds: int, behind: Iterable[int] = ()) -> "World":
        self.fired += self.log.write(self.table.due(NOW + milliseconds, behind=list(behind)))
        return self

    def finish(self) -> "World":
        self.log.write(self.table.finish(0, KEY, NOW))
        return self

    def sweep(self, milliseconds: int) -> "World":
        self.log.write(self.table.sweep(NOW + milliseconds))
        return self

    def restart(self) -> Loaded:
        """Go on from the log alone."""
        self.table = JoinTable()
        loaded = self.table.load(0, self.log.of(0))
        self.fired += self.log.write(loaded.changes)
        return loaded

    def said(self) -> tuple[str, str, str] | None:
        """Give reason, parts and missing of the only firing."""
        if not self.fired:
            return None
        (firing,) = self.fired
        return firing.reason, "".join(it.agent for it in firing.parts), "".join(firing.missing)


def a(**fields: Any) -> Reference:
    return part("a", **fields)


def b(**fields: Any) -> Reference:
    return part("b", **fields)


def c(**fields: Any) -> Reference:
    return part("c", **fields)


BAD = {"status": "failed"}


@pytest.mark.parametrize(
    ("awaiting", "parts", "expected"),
    [
        (ALL, [a(), b()], None),
        (ALL, [a(), b(), c()], ("complete", "abc", "")),
        (ALL, [a(**BAD), b()], None),  # what is still awaited may go back, and is told of as well
        (ALL, [a(**BAD), b(), c()], ("impossible", "abc", "")),
        (ALL, [c(**BAD), b(**BAD), a(**BAD)], ("impossible", "abc", "")),
        (TWO, [c(), a()], ("complete", "ac", "b")),
        (TWO, [a(**BAD), b(), c()], ("complete", "bc", "")),
        (TWO, [a(**BAD)], None),
        (TWO, [a(**BAD), b(**BAD)], ("impossible", "ab", "c")),
        (replace(TWO, patient=True), [a(**BAD), b(**BAD)], None),
        (replace(TWO, patient=True), [a(**BAD), b(**BAD), c()], ("impossible", "abc", "")),
        (FIRST, [b()], ("complete", "b", "ac")),
        (FIRST, [a(**BAD), b(**BAD)], None),
        (FIRST, [a(**BAD), b(**BAD), c(**BAD)], ("impossible", "abc", "")),
        (FIRST, [part("x")], None),  # one nobody awaits
    ],
)
def test_when_a_join_fires_and_with_what(
    awaiting: Awaiting, parts: list[Reference], expected: tuple[str, str, str] | None
) -> None:
    world = World(awaiting).take(*parts)
    assert world.said() == expected
    assert world.table.waiting == (expected is None)
    again = World(awaiting).take(*parts)
    again.fired.clear()
    assert [it.reason for it in again.restart().firings] == ([expected[0]] if expected else [])


def test_what_fires_is_written_before() -> None:
    table = JoinTable()
    taken = [table.take(0, KEY, it, TWO) for it in (a(), b())]
    assert [[change.firing is not None for change in it.changes] for it in taken] == [[False], [False, True]]
    assert [json.loads(change.key) for it in taken for change in it.changes] == [
        ["flow", "round-1", "a"],
        ["flow", "round-1", "b"],
        ["flow", "round-1"],
    ]
    assert all(it.skipped is None for it in taken)


def test_late_parts_and_copies_are_told_apart_and_change_nothing() -> None:
    world = World(FIRST).take(a(), a(offset=8), b(), b(offset=8))
    assert world.skipped == [None, "duplicate", "late", "duplicate"]
    assert world.said() == ("complete", "a", "bc")
    world.finish().take(c(), c(offset=8), b(offset=9))
    assert world.skipped[4:] == ["late", "late", "late"]
    assert len(world.fired) == 1


def test_rounds_and_partitions_never_meet() -> None:
    world = World(TWO).take(a()).take(b(), key=OTHER).take(b(), partition=1)
    assert (world.fired, world.table.waiting) == ([], 3)
    world.take(c(), partition=1)
    assert [(it.partition, it.key) for it in world.fired] == [(1, KEY)]
    world.take(c(), key=OTHER)
    assert [(it.partition, it.key) for it in world.fired] == [(1, KEY), (0, OTHER)]


def test_what_is_awaited_is_said_by_the_oldest_part_whatever_order_they_are_read_in() -> None:
    for parts in ([a(at=0), b(at=5)], [b(at=5), a(at=0)]):
        table, log = JoinTable(), Log()
        for it in parts:
            awaiting = ALL if it.agent == "a" else TWO
            log.write(table.take(0, KEY, it, awaiting).changes)
        assert table.waiting == 1  # `a` is the oldest, and was told to wait for all


# Time limits


@pytest.mark.parametrize(
    ("awaiting", "parts", "expected"),
    [
        (SOON, [a()], ("timeout", "a", "bc")),
        (SOON, [a(**BAD)], ("impossible", "a", "bc")),
        (GO_ON, [a(), c()], ("went_on", "ac", "b")),
        (GO_ON, [a(), c(**BAD)], ("impossible", "ac", "b")),
        (replace(GO_ON, needed=2), [a(), c(**BAD)], ("went_on", "a", "b")),
        (replace(GO_ON, needed=2), [c(**BAD)], ("impossible", "c", "ab")),
        (replace(SOON, needed=2), [c(**BAD)], ("timeout", "c", "ab")),
    ],
)
def test_what_happens_when_the_time_is_over(
    awaiting: Awaiting, parts: list[Reference], expected: tuple[str, str, str]
) -> None:
    world = World(awaiting).take(*parts)
    assert world.table.next_due() == NOW + 1000
    assert world.go(1000).said() is None  # the last moment still counts
    assert world.go(1001).said() == expected
    assert world.fired[0].at == NOW + 1000
    assert world.table.next_due() is None
    world.take(b())
    assert (world.skipped[-1], len(world.go(9999).fired)) == ("late", 1)


def test_the_time_begins_with_the_oldest_part_and_survives_a_restart() -> None:
    world = World(SOON).take(a(at=500), b(at=100))
    assert world.table.next_due() == NOW + 1100
    world.restart()
    assert world.table.next_due() == NOW + 1100
    assert world.go(1101).said() == ("timeout", "ab", "c")


def test_a_part_from_after_the_time_is_late_even_if_nobody_looked_at_the_clock() -> None:
    world = World(GO_ON).take(a(), b(), c(at=1001))
    assert (world.skipped, world.said()) == ([None, None, "late"], ("went_on", "ab", "c"))
    assert World(GO_ON).take(a(), b(), c(at=1000)).said() == ("complete", "abc", "")


def test_a_partition_that_is_not_read_to_its_end_waits_for_parts_that_came_in_time() -> None:
    world = World(SOON).take(a(), b()).take(a(), partition=1)
    world.go(60_000, behind=[0])
    assert [it.partition for it in world.fired] == [1]
    assert world.table.next_due() == NOW + 1000
    world.take(c(at=900))
    assert [it.reason for it in world.fired] == ["timeout", "complete"]


def test_no_limit_is_no_limit() -> None:
    world = World(ALL).take(a())
    assert (world.table.next_due(), world.go(10**12).fired) == (None, [])


# Ways back


def test_a_round_that_went_back_fires_nothing() -> None:
    world = World(SOON).take(a()).take_away("b").take(c(), a(offset=9)).go(9999)
    assert (world.fired, world.skipped) == ([], [None, "goes_back", "late", "duplicate"])
    world.restart()
    assert (world.take(c(), a()).go(9999).fired, world.skipped[-2:]) == ([], ["duplicate", "duplicate"])


def test_a_part_after_its_round_went_back() -> None:
    world = World(SOON).take_away("b", "c").take(a()).go(9999)
    assert (world.fired, world.skipped, world.table.waiting) == ([], ["goes_back", "late"], 0)


def test_a_quorum_of_the_others_fires_all_the_same() -> None:
    patient = replace(TWO, patient=True)
    assert World(patient).take(a()).take_away("b").take(c()).said() == ("complete", "ac", "")
    assert World(patient).take(a(**BAD)).take_away("b").take(c()).said() == ("impossible", "ac", "")
    assert World(patient).take(a(), c()).take_away("b").said() == ("complete", "ac", "b")


def test_what_went_back_alone_begins_no_time() -> None:
    world = World(replace(GO_ON, needed=2)).take_away("b")
    assert world.table.next_due() is None
    assert world.take(a(at=10)).table.next_due() == NOW + 1010


def test_a_round_that_went_back_is_remembered_for_parts_that_are_delivered_again() -> None:
    world = World().take(a(), c()).take_away("b")
    world.sweep(KEEP_VOID_MS).restart()
    world.take(a())
    assert (world.skipped[-1], world.table.waiting) == ("duplicate", 0)
    world.sweep(KEEP_VOID_MS + 1)
    assert world.log.compacted() == []


# What is left


@pytest.mark.parametrize("restart", [False, True])
def test_nothing_is_left_of_a_join_of_which_all_parts_came(restart: bool) -> None:  # noqa: FBT001 (a case)
    world = World().take(a(), b(), c())
    if restart:
        world.restart()
    world.finish()
    assert world.log.compacted() == []
    assert world.finish().log.compacted() == []
    assert world.restart() == Loaded([], [], [])


def test_a_join_that_fired_early_is_remembered_until_the_others_came() -> None:
    world = World(FIRST).take(a()).finish()
    assert len(world.log.compacted()) == 1
    assert world.restart() == Loaded([], [], [])
    world.take(b())
    assert (world.skipped[-1], len(world.log.compacted())) == ("late", 1)
    world.restart()
    world.take(c(), c(offset=8))
    assert world.skipped[-2:] == ["late", "late"]
    assert (world.log.compacted(), len(world.fired)) == ([], 1)


def test_parts_that_came_while_it_ran_are_counted_too() -> None:
    world = World(FIRST).take(a(), b(), c())
    world.finish()
    assert world.log.compacted() == []


def test_a_join_whose_parts_never_come_is_forgotten_after_a_while() -> None:
    world = World(FIRST).take(a()).finish().sweep(KEEP_MS)
    assert len(world.log.compacted()) == 1
    assert world.sweep(KEEP_MS + 1).log.compacted() == []


def test_waiting_and_running_joins_are_never_forgotten() -> None:
    world = World().take(a())
    assert len(world.sweep(10 * KEEP_MS).log.compacted()) == 1
    world = World(FIRST).take(a()).sweep(10 * KEEP_MS)
    assert len(world.restart().firings) == 1


def test_a_dropped_partition_is_not_known_any_more() -> None:
    world = World().take(a(), b()).take(a(), partition=1)
    world.table.drop(0)
    world.table.drop(2)
    assert world.table.waiting == 1
    assert world.take(c()).fired == []
    assert world.finish().fired == []


# Restarts


def test_a_join_goes_on_after_a_restart() -> None:
    world = World().take(a(), b())
    assert world.restart() == Loaded([], [], [])
    assert world.take(b()).skipped[-1] == "duplicate"
    assert world.take(c()).said() == ("complete", "abc", "")


def test_a_join_that_was_ready_fires_after_a_restart() -> None:
    world = World(TWO).take(a(), b())
    world.log.records.pop()  # the process died before this was written
    world.fired.clear()
    (change,) = world.restart().changes
    assert (change.firing, world.said()) == (world.fired[0], ("complete", "ab", "c"))


def test_a_run_that_was_not_finished_is_the_same_after_a_restart() -> None:
    world = World(TWO).take(a(), b())
    loaded = world.restart()
    assert loaded.firings == world.fired
    assert loaded.since == NOW
    assert world.restart().firings == world.fired
    world.finish()
    assert (world.restart().firings, world.restart().since) == ([], None)


def test_of_two_firings_the_first_counts() -> None:
    world, fenced = World(FIRST).take(a()), World(FIRST).take(b())
    world.log.records += fenced.log.records
    assert world.restart().firings == world.fired


@pytest.mark.parametrize("written", range(5))
@pytest.mark.parametrize("awaiting", [ALL, TWO])
def test_a_crash_while_the_end_is_written_leaves_nothing_that_fires_anew(
    awaiting: Awaiting, written: int
) -> None:
    world = World(awaiting).take(a(), b(), c())
    expected = [*world.fired]
    changes = world.table.finish(0, KEY, NOW)
    world.log.write(changes[:written])
    loaded = world.restart()
    assert (loaded.changes, loaded.firings) == ([], expected if written < len(changes) else [])
    world.finish().sweep(KEEP_MS + 1)  # that the third came while it ran was not written
    assert (world.log.compacted(), world.restart()) == ([], Loaded([], [], []))


@pytest.mark.parametrize("written", range(4))
def test_a_crash_while_a_round_that_went_back_is_written(written: int) -> None:
    world = World().take(a())
    world.log.write(world.table.take_away(0, KEY, gone("b"), ALL).changes[:written])
    world.restart()
    world.take_away("b").take(a(), c())
    assert (world.fired, world.table.waiting) == ([], 0)
    world.sweep(KEEP_VOID_MS + 1)
    assert world.log.compacted() == []


def test_a_worker_that_lost_a_partition_remembers_nothing_of_it() -> None:
    world = World().take(a(), b(), c()).finish()
    world.table.drop(0)
    world.table.load(0, [])
    assert world.take(a()).skipped[-1] is None  # its result is in the log: the router asks before


def test_a_fenced_worker_that_writes_late_undoes_nothing() -> None:
    world = World().take(a())
    late = World().take(a(offset=8)).log.records[0]
    world.take(b())
    world.log.records.append(replace(late, offset=9))
    world.restart()
    assert world.take(c()).said() == ("complete", "abc", "")
    assert world.fired[0].parts == (a(), b(), c())


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (b"x", b"{}", "names no join"),
        (None, b"{}", "names no join"),
        (b"[1,2]", b"{}", "names no join"),
        (b'["flow","round-1"]', b"x", "no state of a join: value: Invalid JSON"),
        (b'["flow","round-1"]', b"{}", "no state of a join: value: Unable to extract tag"),
        (b'["flow","round-1"]', b'{"state":"fired"}', "no state of a join: fired.workflow: Field required"),
        (b'["flow"]', None, "names no join"),
    ],
)
def test_foreign_records_are_named_and_passed_over(key: bytes | None, value: bytes | None, says: str) -> None:
    world = World(TWO).take(a())
    world.log.records.insert(0, FakeRecord("joins.x", 41, value, key=key))
    (problem,) = world.restart().problems
    assert str(problem).startswith("joins.x/0/41: ")
    assert says in str(problem)
    assert world.take(b()).said() == ("complete", "ab", "c")


def test_a_record_under_another_key_is_foreign() -> None:
    world = World(TWO).take(a())
    world.log.records[0] = replace(world.log.records[0], key=Slot(OTHER, "a").encode())
    (problem,) = world.restart().problems
    assert "is not that of its value" in str(problem)


def test_a_later_version_may_write_more() -> None:
    world = World(TWO).take(a())
    record = world.log.records[0]
    world.log.records[0] = replace(
        record, value=json.dumps(json.loads(record.value or b"") | {"x": 1}).encode()
    )
    assert world.restart().problems == []
    assert world.take(b()).said() == ("complete", "ab", "c")


# Order


def test_after_a_restart_joins_fire_in_the_order_in_which_they_were_complete() -> None:
    world, one, other = World(TWO), ("flow", "one"), ("flow", "other")
    world.take(a(), key=one).take(a(), key=other).take(b(), key=other).take(b(), key=one)
    live = [firing.key[1] for firing in world.fired]
    assert live == ["other", "one"]
    assert [firing.key[1] for firing in world.restart().firings] == live


# Records of the parts


def test_records_in_memory_are_not_read_again() -> None:
    world = World(TWO).take(a(), b())
    assert records_of(world.fired[0], {}) == {"a": a_record("a"), "b": a_record("b")}


def test_records_are_read_again_after_a_restart_and_compared() -> None:
    world = World(TWO).take(a(), b())
    (firing,) = world.restart().firings
    read = {("results.a", 0, 7): a_record("a"), ("results.b", 0, 7): a_record("b")}
    assert records_of(firing, read) == {"a": a_record("a"), "b": a_record("b")}
    read["results.b", 0, 7] = a_record("c")
    with pytest.raises(JoinStateError, match=r"results.b/0/7, the part of b of a join, is another record"):
        records_of(firing, read)
    del read["results.b", 0, 7]
    with pytest.raises(JoinStateError, match=r"results.b/0/7, the part of b of a join, is not kept any more"):
        records_of(firing, read)


async def test_what_waits_holds_no_more_memory_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.join_table.MAX_HELD_BYTES", 1500)
    world = World(TWO).take(a(), b())
    assert world.fired[0].records.keys() == {"a"}
    world.take(a(), b(), key=OTHER)  # what fired has given back its room
    assert world.fired[1].records.keys() == {"a"}
    world.take(a(), key=("flow", "3")).table.drop(0)
    assert world.take(b(), c(), key=("flow", "4")).fired[2].records.keys() == {"b"}


# Any order, and a crash anywhere

STATUS = st.sampled_from(["completed", "completed", "completed", "failed", "gone"])
AWAITING = st.builds(
    Awaiting,
    st.just(frozenset("abcd")),
    st.integers(1, 4),
    patient=st.just(value=True),
    within_ms=st.none() | st.just(50),
    then=st.sampled_from(["fail", "go_on"]),
)


class Crashing:
    """A worker that dies: what it was writing is cut off anywhere, and offsets of written parts are lost.

    What it cannot lose is the run's result, which the router looks for before it gives a part to a join.
    """

    def __init__(self, data: st.DataObject, awaiting: Awaiting) -> None:
        self._data, self._awaiting = data, awaiting
        self.table, self.log = JoinTable(), Log()
        self.committed: set[str] = set()
        self.acknowledged: set[str] = set()
        self.has_result = False
        self.fired: list[Firing] = []

    def give(self, it: Reference) -> None:
        changes = [] if self.has_result else give(self.table, it, self._awaiting)
        self._write(changes)
        self.acknowledged.add(it.agent)

    def give_and_die(self, it: Reference) -> None:
        changes = [] if self.has_result else give(self.table, it, self._awaiting)
        written = self._data.draw(st.integers(0, len(changes)), label="written")
        self._write(changes[:written])
        if written == len(changes):
            self.acknowledged.add(it.agent)
        self.committed = set(self._data.draw(st.lists(st.sampled_from([*sorted(self.acknowledged), "none"]))))
        self.acknowledged = set(self.committed)
        self.table = JoinTable()
        compacted = self._data.draw(st.booleans(), label="compacted")
        loaded = self.table.load(0, self.log.compacted() if compacted else self.log.of(0))
        assert loaded.problems == []
        self._run(loaded.firings)
        self._write(loaded.changes)

    def end(self) -> None:
        if not self.has_result:
            self._write(self.table.due(NOW + 10_000))

    def _write(self, changes: Iterable[Change]) -> None:
        self._run(self.log.write(changes))

    def _run(self, firings: Iterable[Firing]) -> None:
        for firing in firings:
            self.fired.append(firing)
            if self.has_result or self._data.draw(st.booleans(), label="finished"):
                self.has_result = True
                self.log.write(self.table.finish(0, firing.key, NOW))


def give(table: JoinTable, it: Reference, awaiting: Awaiting) -> list[Change]:
    if it.status == "gone":
        return table.take_away(0, KEY, [it], awaiting).changes
    return table.take(0, KEY, it, awaiting).changes


@settings(max_examples=300, deadline=None)
@given(st.data(), AWAITING, st.lists(STATUS, min_size=4, max_size=4))
def test_whatever_crashes_a_join_fires_once_if_it_would_have_fired_without(
    data: st.DataObject, awaiting: Awaiting, statuses: list[str]
) -> None:
    inputs = {
        agent: part(agent, at=10 * i, status=status)
        for i, (agent, status) in enumerate(zip("abcd", statuses, strict=True))
    }
    calm, world = Crashing(data, awaiting), Crashing(data, awaiting)
    for it in inputs.values():
        calm.give(it)
    calm.end()

    crashes = data.draw(st.integers(0, 5), label="crashes")
    ahead = data.draw(st.permutations([*inputs]))
    while ahead:
        it = inputs[ahead.pop()]
        if crashes and data.draw(st.booleans(), label="crash"):
            crashes -= 1
            world.give_and_die(it)
            ahead = data.draw(st.permutations([name for name in inputs if name not in world.committed]))
        else:
            world.give(it)
    world.end()

    assert len({(it.reason, it.parts, it.missing) for it in world.fired}) == len(calm.fired) <= 1
