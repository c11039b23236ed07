"""Says whether a history kept the promises; it trusts nothing but what is in the log and in the ledger.

Knows topics and headers as any outsider could, reads them with its own code, and shares not a line with the
product (a test holds it to that). What it looks for:

    I1   every task, and every result for every agent that follows it, is answered
    I2   one result per run: no second copy, no second outcome
    I3   no model call is made again once its answer was journaled; one in doubt is repeated only after a
         disruption; each call is in the journal before it is made; a result uses the journaled answer
    I4   per agent and key: one at a time, in the order of the tasks
    I5   every result names its causes by their digests, and these records exist; published records exist
    I6   a committed offset never passes a record that is not finished
    I7   no more calls in flight than allowed (where nothing was killed)
    I9   nothing begins after its deadline
    I10  a dead letter is its original, byte for byte, with a reason and a failed result; none is missing
    I11  nobody writes for a run that another worker has taken over

    python -m tests.chaos.checker FOLDER
"""

import argparse
import hashlib
import json
import struct
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from .history import Application, Call, History, Record

NO_BYTES = 0xFFFFFFFF
NEVER = float("inf")
# Records have times in milliseconds, and a fault has its time from another clock call than what it hits.
SLACK = 0.05
# Three in a row, of which the last two are known to have had it under way.
CONDEMNING_DEATHS = 2
LETTER = ("dlt-", "kafka_dlt-original-")

Identity = tuple[bytes, bytes] | str


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: which one, in short words, where, and what was found."""

    invariant: str
    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.invariant} {self.kind} at {self.where}: {self.what}"


@dataclass(frozen=True)
class Report:
    """What the checker found.

    Attributes:
        violations: Every broken promise.
        counts: What there was, and what may be but is worth a number.
    """

    violations: list[Violation]
    counts: Counter[str]

    def number(self, *kinds: str) -> int:
        """Count violations of some kinds."""
        return sum(violation.kind in kinds for violation in self.violations)


@dataclass(slots=True)
class Result:
    """One record of a results topic, read."""

    record: Record
    agent: str
    id: str
    run: str
    causes: tuple[Record, ...]
    unknown: tuple[str, ...]
    status: str
    executed: bool
    begun: float | None
    ended: float | None
    deadline: float | None
    workflow: str
    round: str
    answers: tuple[str, ...]

    @property
    def at(self) -> float:
        """When it was in the log; seconds."""
        return self.record.timestamp / 1000


@dataclass(slots=True)
class Entry:
    """One record of a journal, read."""

    record: Record
    run: str
    step: tuple[str, str, str, int]
    state: str
    instance: str
    call: int | None
    answer: str | None

    @property
    def at(self) -> float:
        """When it was in the log; seconds."""
        return self.record.timestamp / 1000


@dataclass(frozen=True, slots=True)
class Gap:
    """Where records of a compacted topic are gone: between which times they came, and the next offset."""

    since: float
    until: float
    end: int


@dataclass
class Step:
    """Everything about one model call of one run, by time; `closed` is when the run had a result."""

    entries: list[Entry] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    closed: float = NEVER

    @cached_property
    def answered(self) -> float:
        """When its answer was in the journal; never: infinity."""
        return min((entry.at for entry in self.entries if entry.state == "completed"), default=NEVER)

    def is_open(self, at: float, process: int | None = None) -> bool:
        """Tell whether it was begun, by a process, and not answered in the journal, around a moment."""
        for moment_ in (at - SLACK, at + SLACK):
            known = [entry for entry in self.entries if entry.at <= moment_]
            if known and known[-1].state == "started" and self.closed > moment_:
                return process is None or known[-1].instance.endswith(f"-{process}")
        return False

    def raced(self, call: Call, moments: list[float]) -> bool:
        """Tell whether a successor made a call whose first caller survived a fault and wrote its answer."""
        writer = next(entry.instance for entry in self.entries if entry.state == "completed")
        buyers = [it.instance for it in self.entries if it.state == "started" and it.at <= call.at]
        return buyers[-1:] != [writer] and any(map(self.is_open, moments))


def check(history: History) -> Report:
    """Look for everything listed at the top of this file."""
    facts = Facts(history)
    violations = [
        *_unanswered(facts),
        *_repeated_results(facts),
        *_repeated_calls(facts),
        *_wrong_answers(facts),
        *_order_breaks(facts),
        *_broken_causes(facts),
        *_early_commits(facts),
        *_too_many_at_once(facts),
        *_late_work(facts),
        *_bad_letters(facts),
        *_fenced_writes(facts),
    ]
    return Report(violations, facts.counts)


class Facts:
    """A history, read and indexed once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.app: Application = history.application
        self.counts: Counter[str] = Counter(records=len(history.records), tasks=len(history.published))
        self.by_topic: dict[str, list[Record]] = defaultdict(list)
        self.by_place: dict[str, Record] = {}
        for record in history.records:
            self.by_topic[record.topic].append(record)
            self.by_place[record.place] = record
        for records in self.by_topic.values():
            records.sort(key=lambda it: (it.partition, it.offset))
        self.by_digest: dict[str, list[Record]] = defaultdict(list)
        for agent in self.app.follows:
            for kind in ("tasks", "results"):
                for record in self.of(kind, agent):
                    self.by_digest[digest(record)].append(record)
        self.results: dict[str, list[Result]] = {
            agent: [self._result(agent, record) for record in self.of("results", agent)]
            for agent in self.app.follows
        }
        self.entries: list[Entry] = [
            entry
            for agent in self.app.follows
            for record in self.of("journal", agent)
            if (entry := _entry(record)) is not None
        ]
        self.counts["results"] = sum(map(len, self.results.values()))
        self.counts["journal"] = len(self.entries)

    def of(self, kind: str, agent: str) -> list[Record]:
        """Give the records of one topic of an agent."""
        return self.by_topic.get(self.app.topic(kind, agent), [])

    def inputs(self, agent: str) -> Iterator[list[Record]]:
        """Give what an agent works on, topic by topic."""
        yield self.of("tasks", agent)
        for source in self.app.follows[agent]:
            yield self.of("results", source)

    @cached_property
    def good(self) -> set[str]:
        """Workflows in which nothing should have failed."""
        places = [it.place for it in self.history.published if it.expect == "result"]
        return {workflow_of(self.by_place[place]) for place in places if place in self.by_place}

    @cached_property
    def first(self) -> dict[str, list[Result]]:
        """Every agent's results without second copies."""
        found: dict[str, list[Result]] = {}
        for agent, results in self.results.items():
            once: dict[str, Result] = {}
            for result in sorted(results, key=lambda it: (it.at, it.record.offset)):
                once.setdefault(result.id, result)
            found[agent] = [*once.values()]
        return found

    @cached_property
    def finished(self) -> dict[tuple[str, Identity], float]:
        """When an event was first answered by an agent."""
        found: dict[tuple[str, Identity], float] = {}
        for agent, results in self.results.items():
            for result in results:
                for cause in result.causes:
                    key = agent, identity(cause)
                    found[key] = min(found.get(key, NEVER), result.at)
        return found

    def condemned(self, letter: dict[str, bytes]) -> bool:
        """Tell whether workers died with what a letter is about under way, often enough to give it up."""
        deaths = {f"-{event.process}" for event in self.history.events if event.process is not None}
        began = {it.instance for it in self.begun.get(letter.get("dlt-run", b"").decode(), ())}
        died = sum(any(map(instance.endswith, deaths)) for instance in began)
        return letter.get("dlt-reason") == b"poison" and died >= CONDEMNING_DEATHS

    @cached_property
    def begun(self) -> dict[str, list[Entry]]:
        """What the journal says of the beginning of runs, by run."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.state == "started":
                found[entry.run].append(entry)
        return found

    @cached_property
    def joined(self) -> dict[tuple[str, str, str], float]:
        """When a joining agent answered for a round of a workflow."""
        found: dict[tuple[str, str, str], float] = {}
        for agent in self.app.joins:
            for result in self.results[agent]:
                key = agent, result.workflow, result.round
                found[key] = min(found.get(key, NEVER), result.at)
        return found

    @cached_property
    def copies(self) -> dict[tuple[str, Identity], list[Record]]:
        """All records of one event, by topic and event."""
        found: dict[tuple[str, Identity], list[Record]] = defaultdict(list)
        for agent in self.app.joins:
            for records in self.inputs(agent):
                for record in records:
                    found[record.topic, identity(record)].append(record)
        return found

    @cached_property
    def kept_parts(self) -> dict[str, float]:
        """When a part of a join was in the join's own log, by what names it: a digest, an id or a place."""
        found: dict[str, float] = {}
        for agent in self.app.joins:
            for record in self.of("joins", agent):
                for name in _names(record):
                    found[name] = min(found.get(name, NEVER), record.timestamp / 1000)
        return found

    @cached_property
    def gaps(self) -> dict[tuple[str, int], list[Gap]]:
        """Where a join's own log was compacted, by agent and partition, in order."""
        found: dict[tuple[str, int], list[Gap]] = defaultdict(list)
        for agent in self.app.joins:
            before: Record | None = None
            for record in self.of("joins", agent):
                if before is not None and before.partition != record.partition:
                    before = None
                if record.offset > (before.offset + 1 if before else 0):
                    since = before.timestamp / 1000 if before else 0.0
                    gap = Gap(since, record.timestamp / 1000, record.offset)
                    found[agent, record.partition].append(gap)
                before = record
        return found

    @cached_property
    def written_over(self) -> dict[tuple[str, int, tuple[str, ...]], int]:
        """The last offset of each part's key in a join's own log: such a key ends with round and agent."""
        return {
            (agent, record.partition, tuple(_strings(_json(record.key)))[-2:]): record.offset
            for agent in self.app.joins
            for record in self.of("joins", agent)
        }

    def unseen(self, agent: str, part: Record) -> float:
        """Tell from when on a part may have been in the join's own log, though it is not there any more.

        What was compacted away proves nothing. But a record goes only when a later one of its key is there,
        and it was between its neighbors in time as in the log; where that does not fit, there never was one.
        """
        source = part.topic.removeprefix(self.app.topic("results", ""))
        last = self.written_over.get((agent, part.partition, (text(part, "ce_pass"), source)), -1)
        gaps = self.gaps.get((agent, part.partition), [])
        came = part.timestamp / 1000
        first = bisect_left(gaps, came, key=lambda gap: gap.until)
        if first == len(gaps) or gaps[first].end > last:
            return NEVER
        return max(gaps[first].since, came)

    def ended(self, agent: str, record: Record) -> float:
        """Tell when an agent had answered a record, or a round it is a part of."""
        at = self.finished.get((agent, identity(record)), NEVER)
        if agent in self.app.joins:
            workflow, passed = workflow_of(record), text(record, "ce_pass")
            at = min(at, self.joined.get((agent, workflow, passed), NEVER))
        return at

    @cached_property
    def steps(self) -> dict[tuple[str, int], Step]:
        """Model calls by run and number, with what journal and ledger say of them."""
        found: dict[tuple[str, int], Step] = defaultdict(Step)
        numbers = {entry.step: entry.call for entry in self.entries if entry.call is not None}
        for entry in sorted(self.entries, key=lambda it: (it.at, it.record.offset)):
            if entry.step[1] == "llm":
                found[entry.run, numbers.get(entry.step, 0)].entries.append(entry)
        for call in sorted(self.history.calls, key=lambda it: it.at):
            asked = json.loads(call.prompt)
            found[asked["run"], asked["call"]].calls.append(call)
        closed = {result.run: result.at for results in self.first.values() for result in results}
        for (run, _), step in found.items():
            step.closed = closed.get(run, NEVER)
        return dict(found)

    def _result(self, agent: str, record: Record) -> Result:
        payload = json.loads(record.value or b"{}")
        named = [it for it in text(record, "ce_causedigest").split(",") if it]
        places = text(record, "ce_causationid").split(",")
        output = payload.get("output")
        return Result(
            record=record,
            agent=agent,
            id=text(record, "ce_id"),
            run=payload.get("run") or "",
            causes=tuple(_told_apart(self.by_digest[it], places) for it in named if it in self.by_digest),
            unknown=tuple(it for it in named if it not in self.by_digest) if named else ("no cause",),
            status=text(record, "ce_status"),
            executed=bool(payload.get("attempts")) and payload.get("started_at") is not None,
            begun=moment(payload.get("started_at")),
            ended=moment(payload.get("finished_at")),
            deadline=moment(text(record, "ce_deadline") or None),
            workflow=workflow_of(record),
            round=text(record, "ce_pass"),
            answers=tuple(output.get("answers", ())) if isinstance(output, dict) else (),
        )


# The invariants ---------------------------------------------------------------------------------


def _unanswered(facts: Facts) -> Iterator[Violation]:
    lost: dict[tuple[str, str], list[str]] = defaultdict(list)
    for agent in facts.app.follows:
        for records in facts.inputs(agent):
            for record in records:
                if facts.ended(agent, record) == NEVER:
                    lost[agent, workflow_of(record)].append(record.place)
    facts.counts["lost"] = len({workflow for _, workflow in lost})
    for (agent, workflow), places in lost.items():
        yield Violation("I1", "lost", places[0], f"{agent} never answered workflow {workflow}")


def _repeated_results(facts: Facts) -> Iterator[Violation]:
    for agent, results in facts.results.items():
        copies: dict[str, list[Result]] = defaultdict(list)
        for result in results:
            copies[result.id].append(result)
        for name, same in copies.items():
            for result in same[1:]:
                yield Violation("I2", "duplicate result", result.record.place, f"{name} is there already")
        outcomes: dict[Any, set[str]] = defaultdict(set)
        for result in facts.first[agent]:
            if result.causes:
                outcomes[frozenset(map(identity, result.causes)), result.round].add(result.id)
        for ids in outcomes.values():
            if len(ids) > 1:
                places = [same.record.place for name in sorted(ids) for same in copies[name][:1]]
                yield Violation(
                    "I2", "second outcome", places[-1], f"{agent} answered one event with {places}"
                )


def _repeated_calls(facts: Facts) -> Iterator[Violation]:
    doubtful = 0
    faults = [event for event in facts.history.events if event.disrupts]
    moments = [fault.at for fault in faults]
    for (run, number), step in facts.steps.items():
        here = f"run {run[:16]} call {number}"
        late = [call for call in step.calls if call.at > step.answered + SLACK]
        for call in late:
            kind = "repeated call, zombie" if step.raced(call, moments) else "repeated call, journaled"
            yield Violation("I3", kind, here, f"{call.answer} was bought though it had one")
        bought = [call for call in step.calls if call.outcome == "ok" and call not in late]
        doubtful += max(0, len(bought) - 1)
        begun = sum(entry.state == "started" for entry in step.entries)
        if step.calls and begun < len(step.calls) - len(late):
            yield Violation("I3", "unlogged call", here, f"{len(step.calls)} calls, journaled {begun}")
        for earlier, later in pairwise(step.calls):
            if earlier.retry_after and later.at < earlier.until + 0.9 * earlier.retry_after:
                waited = later.at - earlier.until
                yield Violation(
                    "I3", "too early", here, f"{waited:.2f} s after retry-after {earlier.retry_after}"
                )
        if facts.app.attempts and len(step.calls) - max(0, len(bought) - 1) > facts.app.attempts:
            yield Violation("I3", "too many attempts", here, f"{len(step.calls)} calls")
    allowed = sum(step.is_open(it.at, it.process) for it in faults for step in facts.steps.values())
    facts.counts["in doubt"], facts.counts["in flight at faults"] = doubtful, allowed
    facts.counts["calls"] = len(facts.history.calls)
    if doubtful > allowed:
        yield Violation("I3", "repeated call", "ledger", f"{doubtful} repeats, {allowed} in flight at faults")


def _wrong_answers(facts: Facts) -> Iterator[Violation]:
    bought = {call.answer for call in facts.history.calls if call.outcome == "ok"}
    journaled: dict[str, set[str]] = defaultdict(set)
    for (run, number), step in facts.steps.items():
        answers = {entry.answer for entry in step.entries if entry.answer is not None}
        journaled[run] |= answers
        if len(answers) > 1:
            yield Violation(
                "I3", "two answers", f"run {run[:16]} call {number}", f"journaled {sorted(answers)}"
            )
    for results in facts.first.values():
        for result in results:
            for answer in result.answers:
                if answer not in bought:
                    yield Violation("I3", "invented answer", result.record.place, f"nobody bought {answer}")
                elif answer not in journaled[result.run]:
                    yield Violation(
                        "I3", "unjournaled answer", result.record.place, f"{answer} is in no journal"
                    )


def _order_breaks(facts: Facts) -> Iterator[Violation]:
    begun: dict[str, float] = {}
    for entry in facts.entries:
        begun[entry.run] = min(begun.get(entry.run, NEVER), entry.at)
    for results in facts.first.values():
        for lane in _lanes(facts, results):
            for one, two in pairwise(lane):
                # Rounds of one workflow have no order among the tasks.
                if one.workflow != two.workflow:
                    yield from _out_of_order(one, two, begun.get(two.run))


def _lanes(facts: Facts, results: list[Result]) -> Iterator[list[Result]]:
    """Give what one agent executed key by key, in the order of the tasks."""
    roots: dict[str, Record] = {}
    for agent in facts.app.follows:
        for record in facts.of("tasks", agent):
            roots.setdefault(workflow_of(record), record)
    lanes: dict[Any, dict[str, tuple[int, Result]]] = defaultdict(dict)
    for result in results:
        root = roots.get(result.workflow)
        if root is not None and result.record.key is not None and result.executed:
            # The first of a run: a second outcome is told as such.
            lane = lanes[root.topic, root.partition, result.record.key]
            lane.setdefault(result.run, (root.offset, result))
    for lane in lanes.values():
        yield [result for _, result in sorted(lane.values(), key=lambda it: it[0])]


def _out_of_order(one: Result, two: Result, start: float | None) -> Iterator[Violation]:
    """Compare two runs of one agent and key, the first one's task being the earlier one."""
    where = f"{two.record.place} (key {two.record.key!r})"
    early = 0.0
    if one.record.offset > two.record.offset:
        yield Violation("I4", "order break", where, f"before {one.record.place}, of an earlier task")
    elif start is not None:
        early = one.at - start
    elif two.begun is not None and one.ended is not None:
        early = one.ended - two.begun
    if early > 0:
        yield Violation("I4", "overlap", where, f"began {early:.3f} s before {one.record.place} was there")


def _broken_causes(facts: Facts) -> Iterator[Violation]:
    for results in facts.results.values():
        for result in results:
            for unknown in result.unknown:
                yield Violation("I5", "unknown cause", result.record.place, f"no record hashes to {unknown}")
    for published in facts.history.published:
        if published.place not in facts.by_place:
            yield Violation("I5", "missing record", published.place, "its publish was acknowledged")


def _early_commits(facts: Facts) -> Iterator[Violation]:
    samples: dict[tuple[str, str, int], list[tuple[float, int]]] = defaultdict(list)
    for commit in facts.history.commits:
        samples[commit.agent, commit.topic, commit.partition].append((commit.at, commit.offset))
    for (agent, topic, partition), seen in samples.items():
        offsets: list[int] = []
        ends: list[tuple[float, str]] = []  # of all up to here: the latest end, and whose it is
        for record in facts.by_topic.get(topic, []):
            if record.partition == partition:
                end = _let_go(facts, agent, record), record.place
                offsets.append(record.offset)
                ends.append(max(ends[-1], end) if ends else end)
        for at, offset in seen:
            passed = bisect_left(offsets, offset)
            if passed and ends[passed - 1][0] > at + SLACK:
                place = ends[passed - 1][1]
                yield Violation(
                    "I6", "early commit", place, f"group of {agent} committed {offset} of {topic}"
                )
                break


def _let_go(facts: Facts, agent: str, record: Record) -> float:
    """Tell from when on an agent's committed offset may pass a record."""
    at = facts.ended(agent, record)
    if agent in facts.app.joins:
        # A second copy of a part is done with the first.
        same = facts.copies[record.topic, identity(record)]
        names = (name for it in same for name in (digest(it), text(it, "ce_id"), it.place))
        at = min(at, *(facts.kept_parts.get(name, NEVER) for name in names))
        if (unseen := min(facts.unseen(agent, it) for it in same)) < at:
            facts.counts["parts compacted away"] += 1
            at = unseen
    return at


def _too_many_at_once(facts: Facts) -> Iterator[Violation]:
    if facts.app.limits is None or any(event.disrupts for event in facts.history.events):
        return  # what a killed worker had asked goes on at the provider
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for call in facts.history.calls:
        agent = json.loads(call.prompt)["agent"]
        changes[agent] += (call.at, 1), (call.until, -1)
    for agent, limit in facts.app.limits.items():
        running = most = 0
        for _, change in sorted(changes[agent]):
            running += change
            most = max(most, running)
        facts.counts["most at once"] = max(facts.counts["most at once"], most)
        if most > limit:
            yield Violation("I7", "too many at once", agent, f"{most} calls in flight, {limit} allowed")


def _late_work(facts: Facts) -> Iterator[Violation]:
    grace = facts.app.grace
    last_calls: dict[str, float] = {}
    for (run, _), step in facts.steps.items():
        if step.calls:
            last_calls[run] = max(last_calls.get(run, 0.0), step.calls[-1].at)
    for results in facts.first.values():
        for result in results:
            if result.deadline is not None:
                last = max(result.begun or 0.0, last_calls.get(result.run, 0.0))
                if (late := last - result.deadline) > grace:
                    where = result.record.place
                    yield Violation("I9", "late work", where, f"begun {late:.1f} s after its deadline")


def _bad_letters(facts: Facts) -> Iterator[Violation]:
    kept: set[tuple[str, str]] = set()
    for agent in facts.app.follows:
        letters: set[str] = set()
        for letter in facts.of("dead", agent):
            known = {name: value or b"" for name, value in letter.headers if name.startswith(LETTER)}
            name = known.get("dlt-id", b"").decode()
            if name in letters:
                yield Violation("I10", "duplicate letter", letter.place, f"{name} is there already")
                continue
            letters.add(name)
            place = [
                known.get(f"{LETTER[1]}{part}", b"").decode() for part in ("topic", "partition", "offset")
            ]
            original = facts.by_place.get("/".join(place))
            if original is None:
                yield Violation("I10", "letter of nothing", letter.place, f"{'/'.join(place)} does not exist")
                continue
            kept |= {(agent, original.place), (agent, workflow_of(original))}
            if workflow_of(original) in facts.good:
                if facts.condemned(known):
                    facts.counts["condemned"] += 1
                else:
                    yield Violation(
                        "I10", "unexpected letter", letter.place, f"{original.place} is a good record"
                    )
            yield from _unlike(facts, agent, letter, original, known)
        facts.counts["dead letters"] += len(letters)
    for published in facts.history.published:
        kind, _, agent = published.expect.partition(":")
        record = facts.by_place.get(published.place)
        if kind == "dead" and record is not None:
            agent = agent or published.agent
            if not kept & {(agent, record.place), (agent, workflow_of(record))}:
                yield Violation("I10", "no letter", published.place, f"nothing of it is in dead.{agent}")


def _unlike(
    facts: Facts, agent: str, letter: Record, original: Record, known: dict[str, bytes]
) -> Iterator[Violation]:
    """Compare a dead letter with what it was."""
    headers, added = letter.headers[: len(original.headers)], letter.headers[len(original.headers) :]
    if (letter.key, letter.value, headers) != (original.key, original.value, original.headers):
        yield Violation("I10", "changed letter", letter.place, f"is not what {original.place} is")
    elif not known.get("dlt-reason") or not all(name.startswith(LETTER) for name, _ in added):
        yield Violation("I10", "letter without reason", letter.place, f"of {original.place}")
    elif facts.ended(agent, original) == NEVER:
        yield Violation("I10", "letter without result", letter.place, f"of {original.place}")


def _fenced_writes(facts: Facts) -> Iterator[Violation]:
    by_step: dict[Any, list[Entry]] = defaultdict(list)
    for entry in facts.entries:
        by_step[entry.run, entry.step].append(entry)
    for (run, _), entries in by_step.items():
        entries.sort(key=lambda it: it.record.offset)
        owner: str | None = None
        for entry in entries:
            if entry.state == "started":
                owner = entry.instance
            elif owner is not None and entry.instance != owner:
                taken = f"{entry.instance} wrote {entry.state!r} for run {run[:16]}, which {owner} had begun"
                yield Violation("I11", "fenced write", entry.record.place, taken)


# Reading ----------------------------------------------------------------------------------------


def text(record: Record, name: str) -> str:
    """Read a header; empty if it is not there, or no text."""
    for known, value in record.headers:
        if known == name:
            with suppress(UnicodeDecodeError):
                return (value or b"").decode()
    return ""


def workflow_of(record: Record) -> str:
    """Name the workflow of a task or result."""
    return text(record, "ce_correlationid") or text(record, "ce_id") or record.place


def identity(record: Record) -> Identity:
    """Tell which event a record is: two records of one identity are one event."""
    name = text(record, "ce_id").encode()
    return (dict(record.headers).get("ce_source") or b"", name) if name else record.place


def digest(record: Record) -> str:
    """Hash a record as the wire contract says: SHA-256 over all lengths, then all parts."""
    parts = [record.key, record.value, *(value for _, value in record.headers)]
    names = [name.encode() for name, _ in record.headers]
    sizes = [NO_BYTES if part is None else len(part) for part in parts] + [len(name) for name in names]
    exact = [b"callboard-record-v1", struct.pack(f">{len(sizes)}I", *sizes)]
    exact += [part for part in parts if part]
    return hashlib.sha256(b"".join(exact + names)).hexdigest()


def moment(value: str | None) -> float | None:
    """Read a time; none if there is none, or it is no time."""
    try:
        return None if value is None else datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None


def _told_apart(same: list[Record], names: list[str]) -> Record:
    """Choose among records of the same bytes: those without an id are named by their place."""
    return next((record for record in same if record.place in names), same[0])


def _entry(record: Record) -> Entry | None:
    if record.value is None:
        return None
    value = json.loads(record.value)
    run = value["run"]
    step = run, value["kind"], value.get("request", ""), value.get("occurrence", 0)
    asked = next(_asked(value.get("question")), None)
    answer = next((it for it in _strings(value.get("answer")) if it.startswith("msg_")), None)
    return Entry(record, run, step, value["state"], value.get("instance", ""), asked, answer)


def _asked(question: Any) -> Iterator[int]:
    """Find the number of the call in a journaled request: prompts of the application under test are JSON."""
    for string in _strings(question):
        if string.startswith('{"') and '"call"' in string:
            yield json.loads(string)["call"]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _names(record: Record) -> Iterable[str]:
    """Give all by which a join's log may name a part: strings of its value, causes in its headers."""
    yield from text(record, "ce_causationid").split(",")
    yield from _strings(_json(record.value))


def _json(raw: bytes | None) -> Any:
    """Read JSON; none if it is none."""
    try:
        return json.loads(raw or b"null")
    except ValueError:
        return None


def main() -> int:
    """Check a kept history."""
    parser = argparse.ArgumentParser(description="Check a history that was kept in a folder.")
    parser.add_argument("folder", type=Path)
    report = check(History.load(parser.parse_args().folder))
    for violation in report.violations:
        print(violation)
    print(", ".join(f"{number} {what}" for what, number in sorted(report.counts.items())))
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
