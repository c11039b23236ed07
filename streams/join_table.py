"""Joins that wait: which parts are there, until enough of them are, and that no join fires twice.

A state machine without I/O. Every step gives the records that make it last (`Change`); the worker writes them
to `joins.<agent>` in that order, and acts on one only when it is acknowledged: a part's offset is done when
its change is, and a run begins when the change that carries its `Firing` is. Because of that order whatever
is in the log after a crash is a state this machine was in, and `load` goes on from there.

Each partition has a state of its own: keys of different partitions never meet. A part that comes after its
join fired, or a second time, changes nothing. What fired stays known until every part that was awaited came,
or `KEEP_MS` passed: only a part that is later than that can begin a join anew.
"""

import heapq
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from agents.core.workflow import Awaiting
from streams.envelope import Record, record_digest
from streams.join_records import (
    JoinStateError,
    Key,
    OutcomeRecord,
    PartRecord,
    Reason,
    Reference,
    Slot,
    awaiting_value,
    read,
    write,
)

# How long a join that fired is remembered for parts that did not come.
KEEP_MS = 7 * 24 * 3600 * 1000
# How long a round that went back is remembered although all is known: no result in the log says that it is
# over, so a part that is delivered again after a crash would wait for the others in vain.
KEEP_VOID_MS = 3600 * 1000
# What waiting joins of one agent may hold of their parts' records in memory; the rest is read again.
MAX_HELD_BYTES = 64 * 1024 * 1024
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Firing:
    """What a join runs with, or fails with; the same however often it is tried.

    Attributes:
        partition: Its partition number.
        key: Workflow and round.
        reason: `complete` and `went_on` run the agent, with what came; `impossible`: too many failed;
            `timeout`: its time passed.
        parts: What was there, by agent; of a run the successful ones.
        missing: Who was still awaited.
        at: When the last of it happened, in milliseconds since 1970.
        records: Those of the parts that are still in memory.
    """

    partition: int
    key: Key
    reason: Reason
    parts: tuple[Reference, ...]
    missing: tuple[str, ...]
    at: int
    records: dict[str, Record] = field(default_factory=dict, compare=False, repr=False)

    @property
    def runs(self) -> bool:
        """Whether the agent is executed."""
        return self.reason in {"complete", "went_on"}


@dataclass(frozen=True, slots=True)
class Change:
    """One record to write to the topic of joins; `firing` begins when it is acknowledged."""

    partition: int
    key: bytes
    value: bytes | None
    firing: Firing | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a part leads to.

    Attributes:
        changes: What to write, in this order; the part's offset is done when all are acknowledged.
        skipped: Why it counts for nothing: `late`, `duplicate` or `goes_back`; none: it counts.
    """

    changes: list[Change]
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the log says of a partition.

    Attributes:
        changes: What to write first: joins that were ready to fire.
        firings: Joins that fired and are not known to be finished: to be run again, unless their result is
            in the log; then `JoinTable.finish` them.
        problems: Records that say nothing, each with its place. They are passed over: only this machine
            writes there, so they are somebody else's, and stopping would cost every join behind them.
    """

    changes: list[Change]
    firings: list[Firing]
    problems: list[JoinStateError]

    @property
    def since(self) -> int | None:
        """Since when results have to be known, to tell which firings are finished; none: of no time."""
        return min((firing.at for firing in self.firings), default=None)


@dataclass(slots=True)
class _Join:
    """One join of one partition."""

    parts: dict[str, Reference] = field(default_factory=dict)
    awaiting: dict[str, Awaiting] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    outcome: OutcomeRecord | None = None

    @property
    def awaits(self) -> Awaiting:
        """What was declared when its first part came, whatever order they are read in."""
        return self.awaiting[min(self.parts.values(), key=lambda part: (part.at, part.agent)).agent]

    @property
    def deadline(self) -> int | None:
        """Until when it waits, by the clock that stamps the records."""
        came = [part.at for part in self.parts.values() if part.status != "gone"]
        if self.outcome is not None or not came or self.awaits.within_ms is None:
            return None
        return min(came) + self.awaits.within_ms

    def with_status(self, *statuses: str) -> tuple[Reference, ...]:
        """Give the parts with one of these, by agent."""
        return tuple(part for _, part in sorted(self.parts.items()) if part.status in statuses)

    def reason(self) -> Reason | None:
        """Tell what it comes to by its parts alone; none: it waits."""
        awaits = self.awaits
        statuses = {name: part.status for name, part in self.parts.items() if name in awaits.agents}
        counts = [*statuses.values()]
        if len(awaits.agents) - counts.count("gone") < awaits.needed:
            return "void"
        if counts.count("completed") >= awaits.needed:
            return "complete"
        pending = len(awaits.agents) - len(counts)
        if counts.count("completed") + pending < awaits.needed and not (awaits.patient and pending):
            return "impossible"
        return None

    def reason_after_time(self) -> Reason:
        """Tell what it comes to when its time has passed."""
        awaits = self.awaits
        failed = [part for part in self.with_status("failed", "gone") if part.agent in awaits.agents]
        if len(awaits.agents) - len(failed) < awaits.needed:
            return "impossible"
        if awaits.then == "fail":
            return "timeout"
        return "went_on" if self.with_status("completed") else "impossible"


class JoinTable:
    """All joins of one agent in the partitions this worker owns."""

    def __init__(self) -> None:
        self._partitions: dict[int, dict[Key, _Join]] = {}
        self._deadlines: list[tuple[int, int, Key]] = []
        self._held_bytes = 0
        # Keys of joins of which nothing is left to know, for copies of their parts.
        self._over: dict[int, OrderedDict[Key, None]] = {}

    @property
    def waiting(self) -> int:
        """How many joins have parts and did not fire."""
        return sum(join.outcome is None for joins in self._partitions.values() for join in joins.values())

    # Parts --------------------------------------------------------------------------------------

    def take(
        self, partition: int, key: Key, part: Reference, awaiting: Awaiting, record: Record | None = None
    ) -> Taken:
        """Take an agent's part.

        Args:
            partition: The number of the partition it came on, which may be another than the record's own
                after a redrive.
            key: Workflow and round.
            part: What it is.
            awaiting: What the join waits for, as it is declared now.
            record: The part's record, kept for the run as long as there is room.
        """
        if key in self._over.get(partition, ()):
            return Taken([], "late")
        join = self._partitions.setdefault(partition, {}).setdefault(key, _Join())
        if (known := self._known(partition, key, join, part.agent)) is not None:
            return known
        if (deadline := join.deadline) is not None and part.at > deadline:
            # It is too late by the broker's clock, although nobody looked at the time until now.
            changes = [self._fire(partition, key, join, join.reason_after_time(), deadline)]
            self._known(partition, key, join, part.agent)
            return Taken(changes, "late")
        self._add(partition, key, join, part, awaiting)
        self._hold(join, part.agent, record)
        changes = [_part_change(partition, key, join, part)]
        return Taken([*changes, *self._decide(partition, key, join, part.at)])

    def take_away(self, partition: int, key: Key, parts: Iterable[Reference], awaiting: Awaiting) -> Taken:
        """Take note that some parts will not come in this round, because a result went back.

        Args:
            partition: Its partition number.
            key: Workflow and round.
            parts: One per agent, of status `gone`, that refers to the result.
            awaiting: As in `take`.
        """
        changes: list[Change] = []
        for part in parts:
            if key in self._over.get(partition, ()):
                break
            join = self._partitions.setdefault(partition, {}).setdefault(key, _Join())
            if (known := self._known(partition, key, join, part.agent)) is not None:
                changes += known.changes
                continue
            self._add(partition, key, join, part, awaiting)
            changes += _part_change(partition, key, join, part), *self._decide(partition, key, join, part.at)
        return Taken(changes, "goes_back")

    def _known(self, partition: int, key: Key, join: _Join, agent: str) -> Taken | None:
        """Tell that a part counts for nothing, because it is there or because all is over."""
        outcome = join.outcome
        if agent in join.parts or (outcome is not None and agent in outcome.came):
            return Taken([], "duplicate")
        if outcome is None:
            return None
        join.outcome = outcome.model_copy(update={"came": (*outcome.came, agent)})
        if outcome.state == "fired":
            return Taken([], "late")  # it is written with the next word on this join
        return Taken(self._settle(partition, key, join), "late")

    def _add(self, partition: int, key: Key, join: _Join, part: Reference, awaiting: Awaiting) -> None:
        join.parts[part.agent], join.awaiting[part.agent] = part, awaiting
        if (deadline := join.deadline) is not None:
            heapq.heappush(self._deadlines, (deadline, partition, key))

    def _hold(self, join: _Join, agent: str, record: Record | None) -> None:
        size = _size(record)
        if record is not None and self._held_bytes + size <= MAX_HELD_BYTES:
            self._held_bytes += size
            join.records[agent] = record

    def _let_go(self, join: _Join) -> dict[str, Record]:
        records, join.records = join.records, {}
        self._held_bytes -= sum(map(_size, records.values()))
        return records

    # Firing -------------------------------------------------------------------------------------

    def _decide(self, partition: int, key: Key, join: _Join, at: int) -> list[Change]:
        if join.outcome is not None or (reason := join.reason()) is None:
            return []
        if reason == "void":
            self._let_go(join)
            join.outcome = _outcome(join, key, "finished", reason="void", parts=(), at=at)
            return self._settle(partition, key, join)
        return [self._fire(partition, key, join, reason, at)]

    def _fire(self, partition: int, key: Key, join: _Join, reason: Reason, at: int) -> Change:
        runs = reason in {"complete", "went_on"}
        parts = join.with_status("completed") if runs else join.with_status("completed", "failed")
        join.outcome = _outcome(join, key, "fired", reason=reason, parts=parts, at=at)
        records = self._let_go(join)
        kept = {part.agent: records[part.agent] for part in parts if part.agent in records}
        firing = _firing(partition, join.outcome, kept)
        return _outcome_change(partition, join.outcome, firing)

    def next_due(self) -> int | None:
        """Tell when the next time limit passes, in milliseconds since 1970."""
        while self._deadlines:
            deadline, partition, key = self._deadlines[0]
            join = self._partitions.get(partition, {}).get(key)
            if join is not None and join.deadline == deadline:
                return deadline
            heapq.heappop(self._deadlines)
        return None

    def due(self, now: int, *, behind: Collection[int] = ()) -> list[Change]:
        """Fire the joins whose time limit has passed.

        Args:
            now: Milliseconds since 1970.
            behind: Partition numbers that still have records to be read from before `now`: parts may be among
                them that came in time, so their joins wait.
        """
        changes: list[Change] = []
        later: list[tuple[int, int, Key]] = []
        while (deadline := self.next_due()) is not None and deadline < now:
            _, partition, key = entry = heapq.heappop(self._deadlines)
            if partition in behind:
                later.append(entry)
            else:
                join = self._partitions[partition][key]
                changes.append(self._fire(partition, key, join, join.reason_after_time(), deadline))
        for entry in later:
            heapq.heappush(self._deadlines, entry)
        return changes

    # Afterwards ---------------------------------------------------------------------------------

    def finish(self, partition: int, key: Key, now: int) -> list[Change]:
        """Take note that the result of a join that fired is in the log."""
        join = self._partitions.get(partition, {}).get(key)
        if join is None or join.outcome is None or join.outcome.state == "finished":
            return []
        join.outcome = join.outcome.model_copy(
            update={"state": "finished", "parts": (), "missing": (), "at": now}
        )
        return self._settle(partition, key, join)

    def sweep(self, now: int) -> list[Change]:
        """Forget joins that are over for so long that nothing of them comes any more; called at times."""
        return [
            change
            for partition, joins in self._partitions.items()
            for key, join in [*joins.items()]
            if join.outcome is not None
            and join.outcome.state == "finished"
            and now - join.outcome.at > (KEEP_VOID_MS if _all_came(join.outcome) else KEEP_MS)
            for change in self._remove(partition, key, join)
        ]

    def _settle(self, partition: int, key: Key, join: _Join) -> list[Change]:
        """Write what is left to know of a finished join: nothing, once every part came."""
        outcome = join.outcome
        assert outcome is not None  # noqa: S101 (for the type checker; it is finished)
        if _all_came(outcome) and outcome.reason != "void":
            return self._remove(partition, key, join)
        # The marker first: should the process die in between, the parts must not be able to fire again.
        changes = [_outcome_change(partition, outcome)]
        changes += [_empty(partition, key, agent) for agent in sorted(join.parts)]
        join.parts, join.awaiting = {}, {}
        return changes

    def _remove(self, partition: int, key: Key, join: _Join) -> list[Change]:
        """Empty all slots of a join, that of its outcome last: until then it says that all is over."""
        del self._partitions[partition][key]
        over = self._over.setdefault(partition, OrderedDict())
        over[key] = None
        if len(over) > REMEMBERED:
            over.popitem(last=False)
        return [_empty(partition, key, agent) for agent in (*sorted(join.parts), None)]

    # Restarts -----------------------------------------------------------------------------------

    def load(self, partition: int, records: Iterable[Record]) -> Loaded:
        """Take over a partition: its records in the topic of joins, in order, from the first to the last."""
        self.drop(partition)
        joins = self._partitions[partition] = {}
        problems = []
        for record in records:
            try:
                slot, value = read(record)
            except JoinStateError as error:
                problems.append(error)
                continue
            join = joins.setdefault(slot.key, _Join())
            if join.outcome is None:
                # In the order in which they fired, or had their last part: two of one key run in that order.
                joins[slot.key] = joins.pop(slot.key)
            _apply(join, slot, value)
        changes: list[Change] = []
        firings: list[Firing] = []
        for key, join in [*joins.items()]:
            if join.outcome is None and not join.parts:
                del joins[key]
            elif join.outcome is None:
                changes += self._decide(partition, key, join, max(part.at for part in join.parts.values()))
                if (deadline := join.deadline) is not None:
                    heapq.heappush(self._deadlines, (deadline, partition, key))
            elif join.outcome.state == "fired":
                firings.append(_firing(partition, join.outcome, {}))
            elif join.parts:
                changes += self._settle(partition, key, join)
        return Loaded(changes, firings, problems)

    def drop(self, partition: int) -> None:
        """Forget a partition: another member has it, or it is loaded anew."""
        self._over.pop(partition, None)
        for join in self._partitions.pop(partition, {}).values():
            self._let_go(join)


def records_of(firing: Firing, there: Mapping[tuple[str, int, int], Record]) -> dict[str, Record]:
    """Give the records of a firing's parts, by agent.

    Args:
        firing: Whose.
        there: What was read of those that are not in memory, by topic, partition and offset.

    Raises:
        JoinStateError: If one is not kept any more, or is another one than the part was.
    """
    found: dict[str, Record] = {}
    for part in firing.parts:
        record = firing.records.get(part.agent)
        if record is None:
            record = there.get((part.topic, part.partition, part.offset))
            here = f"{part.topic}/{part.partition}/{part.offset}"
            if record is None:
                raise JoinStateError(f"{here}, the part of {part.agent} of a join, is not kept any more")
            if record_digest(record) != part.digest:
                raise JoinStateError(f"{here}, the part of {part.agent} of a join, is another record by now")
        found[part.agent] = record
    return found


def _apply(join: _Join, slot: Slot, value: PartRecord | OutcomeRecord | None) -> None:
    if isinstance(value, OutcomeRecord):
        # Of two firings the first counts: a fenced worker may have written the second.
        if value.state == "finished" or join.outcome is None:
            join.outcome = value
    elif isinstance(value, PartRecord):
        awaiting = value.awaiting
        join.parts.setdefault(value.part.agent, value.part)
        join.awaiting.setdefault(
            value.part.agent,
            Awaiting(
                frozenset(awaiting.agents),
                awaiting.needed,
                awaiting.patient,
                awaiting.within_ms,
                awaiting.then,
            ),
        )
    elif slot.agent is None:
        join.outcome = None
    else:
        join.parts.pop(slot.agent, None)
        join.awaiting.pop(slot.agent, None)


def _outcome(  # noqa: PLR0913 (a record's fields)
    join: _Join, key: Key, state: str, *, reason: Reason, parts: tuple[Reference, ...], at: int
) -> OutcomeRecord:
    awaited = join.awaits.agents
    return OutcomeRecord.model_validate(
        {
            "state": state,
            "workflow": key[0],
            "round": key[1],
            "reason": reason,
            "at": at,
            "parts": parts,
            "missing": sorted(awaited - join.parts.keys()),
            "came": sorted(join.parts),
            "awaited": sorted(awaited),
        }
    )


def _all_came(outcome: OutcomeRecord) -> bool:
    return set(outcome.came).issuperset(outcome.awaited)


def _firing(partition: int, outcome: OutcomeRecord, records: dict[str, Record]) -> Firing:
    key = outcome.workflow, outcome.round
    return Firing(partition, key, outcome.reason, outcome.parts, outcome.missing, outcome.at, records)


def _part_change(partition: int, key: Key, join: _Join, part: Reference) -> Change:
    awaiting = awaiting_value(join.awaiting[part.agent])
    value = PartRecord(workflow=key[0], round=key[1], part=part, awaiting=awaiting)
    return Change(partition, Slot(key, part.agent).encode(), write(value))


def _outcome_change(partition: int, outcome: OutcomeRecord, firing: Firing | None = None) -> Change:
    return Change(partition, Slot((outcome.workflow, outcome.round), None).encode(), write(outcome), firing)


def _empty(partition: int, key: Key, agent: str | None) -> Change:
    return Change(partition, Slot(key, agent).encode(), None)


def _size(record: Record | None) -> int:
    return 0 if record is None else len(record.value or b"") + len(record.key or b"") + 1024
