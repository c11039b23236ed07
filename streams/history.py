"""What the log says about one workflow: cause and effect, who is done, and whose result is still to come.

A value without I/O. It takes the workflow's records in any order and from any source, so it never asks
whether something is true, only what was published.
"""

import heapq
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import ValidationError

from agents.core.base import AgentStatus, ErrorDetail
from agents.core.errors import InvalidInputError
from agents.core.task import ArtifactReference
from streams import envelope as envelopes
from streams.dead_letters import REDRIVE_OF, REDRIVE_REASON, letter_id
from streams.envelope import RESULT, Envelope, Record
from streams.payloads import BackPayload, ResultPayload, TaskPayload
from streams.topics import Topics

UNSUCCESSFUL = frozenset({AgentStatus.FAILED, AgentStatus.CANCELED})


def workflow_of(record: Record) -> str:
    """Tell which workflow a record belongs to, without decoding the rest of it."""
    known: dict[str, bytes] = {}
    for name, value in record.headers:
        if name in {"ce_correlationid", "ce_id"} and value:
            known.setdefault(name, value)
    identity = known.get("ce_correlationid") or known.get("ce_id")
    return identity.decode(errors="replace") if identity is not None else envelopes.place(record)


class State(StrEnum):
    """Where an agent is with its part of a workflow."""

    WAITING = "waiting"
    WORKING = "working"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Redrive:
    """Why an event was published again.

    Attributes:
        letter: The id of the dead letter it repeats.
        reason: What was said about it.
    """

    letter: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One event of the workflow.

    Attributes:
        record: As it was read.
        envelope: Its headers, as far as they can be read.
        agent: The agent a task is for, or whose result it is.
        is_task: Whether it lies in a topic of tasks; otherwise it lies in one of results.
        task: A task's payload; none for a result, and for a task that cannot be read.
        result: A result's payload; none for a task, and for a result that cannot be read.
        problem: Why headers or payload cannot be read, or none.
        answers: `ce_causationid` as it is, or none.
    """

    record: Record
    envelope: Envelope
    agent: str
    is_task: bool
    task: TaskPayload | None
    result: ResultPayload | None
    problem: str | None
    answers: str | None

    @property
    def round(self) -> str:
        """The round it belongs to: a task without one begins its own."""
        return self.envelope.round or envelopes.first_round(self.envelope)

    @property
    def status(self) -> str | None:
        """A result's status: the payload's word counts, its header's where the payload cannot be read."""
        return self.result.status.value if self.result is not None else self.envelope.status

    @property
    def error(self) -> ErrorDetail | None:
        """Why a result failed."""
        return self.result.error if self.result is not None else None

    @property
    def artifacts(self) -> tuple[ArtifactReference, ...]:
        """A task's artifacts, or a result's own and inherited ones."""
        payload = self.result or self.task
        return payload.artifacts if payload is not None else ()

    @property
    def followers(self) -> tuple[str, ...]:
        """The agents that answer this result."""
        return self.result.followers if self.result is not None else ()

    @property
    def back(self) -> BackPayload | None:
        """Where a result goes back to, if it does; then it begins a new round."""
        return self.result.back if self.result is not None else None

    @property
    def next_round(self) -> str:
        """The round of those who answer it."""
        return self.round if self.back is None else envelopes.first_round(self.envelope)

    @property
    def redriven(self) -> Redrive | None:
        """Which dead letter it repeats, if it does."""
        headers = dict(self.record.headers)
        if (letter := headers.get(REDRIVE_OF)) is None:
            return None
        reason = headers.get(REDRIVE_REASON) or b""
        return Redrive(letter.decode(errors="replace"), reason.decode(errors="replace"))

    @property
    def seconds(self) -> float | None:
        """How long the run took, if it ran and told."""
        if self.result is None or self.result.started_at is None or self.result.finished_at is None:
            return None
        try:
            begun = datetime.fromisoformat(self.result.started_at)
            ended = datetime.fromisoformat(self.result.finished_at)
            return max(0.0, (ended - begun).total_seconds())
        except (ValueError, TypeError):  # no times, or one with a zone and one without
            return None

    @property
    def letters(self) -> list[str]:
        """The ids of a result's dead letters, if it has any: one for each event it answers."""
        if self.result is None or self.result.run is None:
            return []
        # Ids are free text, and one with a comma in it counts as several: then some of these name nothing.
        return [letter_id(self.result.run, part) for part in range((self.answers or "").count(",") + 1)]

    @property
    def failed(self) -> bool:
        """Whether it is a result that those who follow cannot use."""
        return self.status in UNSUCCESSFUL


@dataclass(frozen=True, slots=True)
class Expected:
    """A result that is still to come.

    Attributes:
        agent: Whose.
        round: Of which round.
        causes: The events it will answer, as far as they are there.
        state: `PARKED` if the run waits for a person; `WAITING` if it may be a join with parts missing.
    """

    agent: str
    round: str
    causes: tuple[Entry, ...]
    state: State


@dataclass(frozen=True, slots=True)
class Progress:
    """One agent's part, for people to watch; `entry` is its result once there is one, parked or not."""

    agent: str
    state: State
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Links:
    """How the events of a workflow hang together.

    Attributes:
        ordered: All events: causes before effects, whatever clocks said, and otherwise by time.
        causes: Per event, those it answers, as far as they are there.
        effects: Per event, those that answer it, in order.
        absent: Per event, the ids it answers that are not there.
    """

    ordered: tuple[Entry, ...]
    causes: dict[Entry, tuple[Entry, ...]]
    effects: dict[Entry, list[Entry]]
    absent: dict[Entry, tuple[str, ...]]


class History:
    """The events of one workflow.

    Args:
        workflow_id: Its correlation id.
        topics: Topic names, which say whose tasks and results a record holds.

    Attributes:
        duplicates: Records that repeat an event; the first of the log is the one that counts.
    """

    def __init__(self, workflow_id: str, topics: Topics) -> None:
        self.workflow_id = workflow_id
        self.duplicates: list[Record] = []
        self._topics = topics
        self._by_identity: dict[tuple[str, str], Entry] = {}
        self._places: set[tuple[str, int, int]] = set()
        self._links: Links | None = None

    def add(self, record: Record) -> bool:
        """Take a record; tells whether it is a new event of this workflow."""
        agent = self._topics.agent_of(record.topic)
        here = (record.topic, record.partition, record.offset)
        if agent is None or here in self._places or workflow_of(record) != self.workflow_id:
            return False
        self._places.add(here)
        self._links = None
        entry = _entry(record, agent, is_task=record.topic == self._topics.tasks(agent))
        identity = entry.envelope.source, entry.envelope.id
        known = self._by_identity.get(identity)
        if known is None:
            self._by_identity[identity] = entry
            return True
        first, repeated = (entry, known) if _age(entry) < _age(known) else (known, entry)
        self._by_identity[identity] = first
        self.duplicates.append(repeated.record)
        return False

    def __len__(self) -> int:
        return len(self._by_identity)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All events: causes before effects, whatever clocks said, and otherwise by time."""
        return self._linked().ordered

    @property
    def records(self) -> list[Record]:
        """All records, repeated ones too: causes before effects, a repetition after what it repeats."""
        repeated: dict[tuple[str, str], list[Record]] = {}
        for record in self.duplicates:
            envelope, _ = _envelope(record)
            repeated.setdefault((envelope.source, envelope.id), []).append(record)
        return [
            record
            for entry in self.entries
            for record in (entry.record, *repeated.get((entry.envelope.source, entry.envelope.id), ()))
        ]

    def causes(self, entry: Entry) -> tuple[Entry, ...]:
        """Give the events that `entry` answers, as far as they are there."""
        return self._linked().causes[entry]

    def absent_causes(self, entry: Entry) -> tuple[str, ...]:
        """Give the ids that `entry` answers but that are not there: not published, or no longer kept."""
        return self._linked().absent[entry]

    def effects(self, entry: Entry) -> list[Entry]:
        """Give the events that answer `entry`, in order."""
        return self._linked().effects[entry]

    @property
    def roots(self) -> list[Entry]:
        """The events that answer nothing that is there: the root task, and whatever lost its cause."""
        return [entry for entry in self.entries if not self.causes(entry)]

    @property
    def results(self) -> list[Entry]:
        """All results, in order."""
        return [entry for entry in self.entries if not entry.is_task]

    @property
    def leaves(self) -> list[Entry]:
        """The results nobody answers: what the workflow comes to."""
        return [entry for entry in self.results if not entry.followers and entry.status != AgentStatus.PARKED]

    @property
    def expected(self) -> list[Expected]:
        """The results that are still to come, in the order in which they became due."""
        ended = {(entry.agent, entry.round) for entry in self.results if entry.status != AgentStatus.PARKED}
        # The joins of a round that went back get nothing more, so they say nothing.
        ended |= {(name, entry.round) for entry in self.results if entry.back for name in entry.back.without}
        due: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            for agent in (entry.agent,) if entry.is_task else entry.followers:
                answered = any(
                    effect.agent == agent and not effect.is_task and effect.status != AgentStatus.PARKED
                    for effect in self.effects(entry)
                )
                # A join runs once per round, so a second result of one of its parts is never answered itself.
                # Tasks are, each by a run of its own.
                if not answered and (entry.is_task or (agent, entry.next_round) not in ended):
                    due.setdefault((agent, entry.next_round), []).append(entry)
        parked = {(entry.agent, entry.round) for entry in self.results if entry.status == AgentStatus.PARKED}
        return [
            Expected(agent, round_, tuple(causes), _state((agent, round_), due, parked))
            for (agent, round_), causes in due.items()
        ]

    @property
    def parked(self) -> list[Entry]:
        """The runs that wait for a person, in order."""
        parked = [entry for entry in self.results if entry.status == AgentStatus.PARKED]
        if not parked:
            return []
        waiting = {(each.agent, each.round) for each in self.expected if each.state == State.PARKED}
        return [entry for entry in parked if (entry.agent, entry.round) in waiting]

    @property
    def stuck(self) -> bool:
        """Whether nothing more can come: all that is expected are parked runs, and who follows only them."""
        return bool(self.parked) and all(
            cause.status == AgentStatus.PARKED or self._parked_at(cause, each.agent)
            for each in self.expected
            for cause in each.causes
        )

    @property
    def perhaps_stuck(self) -> bool:
        """Whether a run is parked and nobody is known to work: who is left may be a join that waits for it.

        The log does not say which steps are joins, nor whether they are content with fewer parts.
        """
        return bool(self.parked) and all(each.state != State.WORKING for each in self.expected)

    def _parked_at(self, cause: Entry, agent: str) -> bool:
        return any(
            effect.agent == agent and effect.status == AgentStatus.PARKED for effect in self.effects(cause)
        )

    @property
    def finished(self) -> bool:
        """Whether there is something, and nothing more is to come."""
        return bool(self._by_identity) and not self.expected

    @property
    def succeeded(self) -> bool:
        """Whether it is finished and no leaf failed, but for failures that were published again since."""
        if not self.finished:
            return False
        failures = [leaf for leaf in self.leaves if leaf.failed]
        letters = self._redriven_letters() if failures else frozenset()
        return all(self._redriven(leaf, letters) for leaf in failures)

    def _redriven_letters(self) -> frozenset[str]:
        return frozenset(
            value.decode(errors="replace")
            for entry in self.entries
            for name, value in entry.record.headers
            if name == "ce_redriveof" and value
        )

    def _redriven(self, failure: Entry, letters: frozenset[str]) -> bool:
        """Tell whether what failed, here or upstream, was published again: what came of that counts now."""
        behind, seen = [failure], set()
        while letters and behind:
            entry = behind.pop()
            if entry in seen or not entry.failed:
                continue
            seen.add(entry)
            if not letters.isdisjoint(entry.letters):
                return True
            behind += self.causes(entry)
        return False

    @property
    def progress(self) -> list[Progress]:
        """One line per agent, in the order in which they came into play; what is expected counts most."""
        found: dict[str, Progress] = {}
        for entry in self.results:
            if entry.status != AgentStatus.PARKED:
                state = State.FAILED if entry.failed else State.DONE
                found[entry.agent] = Progress(entry.agent, state, entry)
        parked = {(entry.agent, entry.round): entry for entry in self.parked}
        for expected in self.expected:
            run = parked.get((expected.agent, expected.round))
            found[expected.agent] = Progress(expected.agent, expected.state, run)
        return list(found.values())

    def _linked(self) -> Links:
        if self._links is None:
            self._links = _links(sorted(self._by_identity.values(), key=_age))
        return self._links


def _links(entries: list[Entry]) -> Links:
    # An id is unique within its source only, but `ce_causationid` names no source.
    by_id = {entry.envelope.id: entry for entry in entries}
    causes: dict[Entry, tuple[Entry, ...]] = {}
    absent: dict[Entry, tuple[str, ...]] = {}
    effects: dict[Entry, list[Entry]] = {entry: [] for entry in entries}
    for entry in entries:
        ids = _cause_ids(entry, by_id)
        causes[entry] = tuple(by_id[i] for i in ids if i in by_id and by_id[i] is not entry)
        absent[entry] = tuple(i for i in ids if i not in by_id)
        for cause in causes[entry]:
            effects[cause].append(entry)
    missing = {entry: len(found) for entry, found in causes.items()}
    ready = [(_age(entry), entry) for entry in entries if not missing[entry]]
    ordered: list[Entry] = []
    while ready:
        entry = heapq.heappop(ready)[1]
        ordered.append(entry)
        for effect in effects[entry]:
            missing[effect] -= 1
            if not missing[effect]:
                heapq.heappush(ready, (_age(effect), effect))
    # Foreign publishers can write events that cause each other; these are not left out because of that.
    return Links((*ordered, *(entry for entry in entries if missing[entry])), causes, effects, absent)


def _entry(record: Record, agent: str, *, is_task: bool) -> Entry:
    envelope, problem = _envelope(record)
    task: TaskPayload | None = None
    result: ResultPayload | None = None
    try:
        if is_task and envelope.type == RESULT:
            pass  # a result that was published again, for one agent alone
        elif is_task:
            task = TaskPayload.model_validate_json(record.value or b"")
        else:
            result = ResultPayload.model_validate_json(record.value or b"")
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem = problem or f"{'.'.join(map(str, what['loc'])) or 'value'}: {what['msg']}"
    answers = next((value for name, value in record.headers if name == "ce_causationid"), None)
    text = answers.decode(errors="replace") if answers else None
    return Entry(record, envelope, agent, is_task, task, result, problem, text)


def _envelope(record: Record) -> tuple[Envelope, str | None]:
    try:
        return envelopes.decode(record), None
    except InvalidInputError as error:
        return envelopes.fallback(record), str(error)


def _cause_ids(entry: Entry, by_id: dict[str, Entry]) -> tuple[str, ...]:
    if entry.answers is None:
        return ()
    # Ids are free text: one with a comma in it is told from a join's list by being there.
    return (entry.answers,) if entry.answers in by_id else tuple(dict.fromkeys(entry.answers.split(",")))


def _age(entry: Entry) -> tuple[int, str, int, int]:
    record = entry.record
    return record.timestamp, record.topic, record.partition, record.offset


def _state(
    wanted: tuple[str, str], due: dict[tuple[str, str], list[Entry]], parked: set[tuple[str, str]]
) -> State:
    if wanted in parked:
        return State.PARKED
    if all(cause.status == AgentStatus.PARKED for cause in due[wanted]):
        return State.WAITING
    # The log does not say which steps are joins. While another agent of the round works on what the causes of
    # this one came from, this one may be waiting for it.
    origins = {cause.answers for cause in due[wanted] if cause.answers is not None}
    for other, causes in due.items():
        if other != wanted and other[1] == wanted[1] and origins & {cause.envelope.id for cause in causes}:
            return State.WAITING
    return State.WORKING
