"""Writes what a run ended with: the result's JSON value and headers, from what the run was given.

Never publishes. Whatever an agent returns or raises, what comes out fits into one record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from agents.core.base import Agent, AgentResult, AgentStatus, ErrorDetail
from agents.core.errors import AgentError, InvalidOutputError, ResultTooLargeError, RoundsExhaustedError
from agents.core.task import ArtifactReference, Event, RepositoryReference, Root
from agents.core.workflow import Back
from streams import envelope as envelopes
from streams import rounds
from streams.dead_letters import Letter
from streams.envelope import Record
from streams.kafka.record_batch import EncodedRecord
from streams.payloads import BackPayload, ResultPayload, ResultWriter, RootValue, root_of, told_root
from streams.router import MAX_KEY_BYTES
from streams.topics import MAX_RECORD_BYTES
from streams.work import NO_SUCCESS, Work, failed, parse, parse_result, parse_task

MAX_ROOT_INPUT_BYTES = 64 * 1024
MAX_ERROR_CHARACTERS = 8_000
# Most runs are given none, and there may be tens of thousands at the same time.
NO_ARTIFACTS: Mapping[str, ArtifactReference] = MappingProxyType({})


@dataclass(slots=True)
class Given:
    """What came before: decoded once, inherited by the result.

    Attributes:
        root: None: the run's own task.
        repository: Of that task.
    """

    input: Any
    root: RootValue | None
    artifacts: Mapping[str, ArtifactReference]
    repository: RepositoryReference | None = None


@dataclass(slots=True)
class Outcome:
    """A result, encoded; published as it is however often that takes."""

    record: EncodedRecord
    status: AgentStatus
    error: ErrorDetail | None
    letters: Sequence[Letter] = ()  # published before the result


class Answers:
    """The results of one agent.

    Args:
        app: Name of the application.
        agent: Whose results these are.
        evidence_only: The agent asks no model; its results and all that follow from them say so.
    """

    def __init__(self, *, app: str, agent: Agent, evidence_only: bool) -> None:
        self._name = agent.name
        self._writer = ResultWriter(
            agent.name,
            agent.config.version,
            source=f"/callboard/{app}/{agent.name}",
            max_key_bytes=MAX_KEY_BYTES,
            llm="off" if evidence_only else None,
        )

    def given(self, work: Work) -> Given:
        """Decode what a run was given.

        Raises:
            InvalidInputError: If a record's value is not what its topic holds.
        """
        record = work.record
        if work.parts is not None:
            parts = work.parts
            inherited = {a.name: a for part in parts.values() for a in part.payload.artifacts}
            first = next(iter(parts.values()))
            return Given(
                input={name: part.payload.output for name, part in parts.items()},
                root=told_root(first.payload) or self._unknown_root(work, first.agent),
                artifacts=inherited,
            )
        if work.kind == "invalid":
            return Given(None, self._unknown_root(work), NO_ARTIFACTS)
        if work.source is None:
            task, repository, artifacts = parse_task(record)
            return Given(task, None, _by_name(artifacts), repository)
        result = parse_result(record)
        if work.kind == "run" and failed(result, work.envelope):
            work.kind = "upstream_failed"
        return Given(
            input=result.output,
            root=result.root or self._unknown_root(work),
            artifacts=_by_name(result.artifacts),
        )

    def root(self, work: Work, given: Given) -> Root:
        """Give the task the workflow began with, as agents see it."""
        return root_of(self._root(work, given), work.envelope.id)

    def _root(self, work: Work, given: Given | None) -> RootValue:
        """Give the root; it is not kept while a run is under way, if the run can tell."""
        if given is None:
            return self._unknown_root(work)
        if given.root is not None:
            return given.root
        too_large = len(work.record.value or b"") > MAX_ROOT_INPUT_BYTES
        kept = None if too_large else given.input
        return self._name, None, kept, too_large, given.repository

    def _unknown_root(self, work: Work, agent: str | None = None) -> RootValue:
        agent = agent or work.source or self._name
        return agent, work.envelope.round or work.envelope.id, None, False, None

    def encode(self, work: Work, given: Given | None, result: AgentResult[Any]) -> Outcome:
        """Write a result; one that cannot be written, or is too large, becomes a failure that says so."""
        # Each taken once: reading a field of a pydantic model costs more than what is done with most of them.
        status, verdict, error = result.status, result.verdict, result.error
        back = None if verdict is None else self._way_back(work, status, verdict)
        if back is not None and rounds.times(work.envelope.rounds, back) >= back.rounds:
            # Decided here, where the rounds and the workflow are known: nobody after this needs to agree.
            status, error, back = AgentStatus.FAILED, _exhausted(back), None
        if error is not None:
            error = _printable(error)
        try:
            outcome = self._outcome(work, given, status, result.output, verdict, error, back)
        except ValueError as problem:
            failure = InvalidOutputError(f"the output of {self._name} cannot be written as JSON: {problem}")
            outcome = self._failure(work, given, failure)
        if (size := outcome.record.value_size) > MAX_RECORD_BYTES:
            return self.too_large(work, given, size)
        return outcome

    def too_large(self, work: Work, given: Given | None, size: int) -> Outcome:
        """Write the failure that stands for a result no record holds."""
        large = ResultTooLargeError(
            f"the result of {self._name} has {size} bytes, a record at most {MAX_RECORD_BYTES} and what"
            " max.message.bytes of its topic allows; put the bulk into an artifact:"
            " AgentResult(artifacts=[Artifact(...)])"
        )
        agent, identity, _, _, repository = self._root(work, given)
        slim = Given(None, (agent, identity, None, True, repository), NO_ARTIFACTS)
        return self._failure(work, slim, large)

    def _failure(self, work: Work, given: Given | None, why: AgentError) -> Outcome:
        failure: AgentResult[Any] = AgentResult.failed(why)
        return self._outcome(work, given, failure.status, None, None, failure.error, None)

    def _outcome(  # noqa: PLR0913, PLR0917 (what a result says; keywords take their time)
        self,
        work: Work,
        given: Given | None,
        status: AgentStatus,
        output: Any,
        verdict: str | None,
        error: ErrorDetail | None,
        way: Back | None,
    ) -> Outcome:
        event, parts, workflow = work.envelope, work.parts, work.workflow
        root = self._root(work, given)
        back: BackPayload | None = None
        followers: tuple[str, ...] = ()
        if way is not None and workflow is not None:
            entry = rounds.entry(event.rounds) or root[0]
            back = BackPayload(to=way.to, without=workflow.without(way.step, entry=entry))
            followers = (way.to,)
        elif workflow is not None:
            followers = workflow.followers.get(self._name, ())
        budget = event.budget
        record = self._writer.write(
            event,
            work.record,
            [(part.envelope, part.record) for part in parts.values()] if parts else None,
            work.run_of,
            status,
            output,
            verdict,
            error,
            given.artifacts if given is not None else NO_ARTIFACTS,
            work.used,
            None if budget is None else budget.minus(work.spent),
            work.attempts,
            work.begun,
            envelopes.milliseconds(),
            root,
            followers,
            back,
        )
        return Outcome(record, status, error)

    def _way_back(self, work: Work, status: AgentStatus, verdict: str) -> Back | None:
        if work.workflow is None or status is not AgentStatus.COMPLETED:
            return None
        return work.workflow.way_back(self._name, verdict)


def _exhausted(back: Back) -> ErrorDetail:
    """Say that a result would go back once more than it may; what else it says stays, for people."""
    error = RoundsExhaustedError(
        f"{back.step} says {back.when!r} after it went back to {back.to} {back.rounds} times, which is all"
    )
    return ErrorDetail(type=error.type, message=str(error))


def why_timed_out(work: Work) -> str:
    """Say what a join waited for in vain."""
    have = ", ".join(work.parts or ()) or "nobody"
    return f"no result of {', '.join(work.missing)} came in time; there were those of {have}"


def why_upstream_failed(work: Work) -> str:
    """Say which of the agents before failed, and why."""
    if work.parts is None:
        results = {work.source: (parse(ResultPayload, work.record), work.envelope)}
    else:
        results = {name: (part.payload, part.envelope) for name, part in work.parts.items()}
    return "; ".join(
        f"{name} {payload.status if payload.status in NO_SUCCESS else envelope.status}:"
        f" {payload.error.message if payload.error else 'no reason given'}"
        for name, (payload, envelope) in results.items()
        if failed(payload, envelope)
    )


def _by_name(references: Sequence[ArtifactReference]) -> Mapping[str, ArtifactReference]:
    return {it.name: it for it in references} if references else NO_ARTIFACTS


def event_of(record: Record) -> Event:
    """Give a record as agents see it."""
    return Event(
        record.topic, record.partition, record.offset, record.key, tuple(record.headers), record.value
    )


def _printable(error: ErrorDetail) -> ErrorDetail:
    """Make an error fit for JSON and for a record: users' exceptions may say anything, at any length."""
    message = error.message[:MAX_ERROR_CHARACTERS].encode(errors="backslashreplace").decode()
    return error.model_copy(update={"message": message})
