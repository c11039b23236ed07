"""Writes what a run ended with: the result's JSON value and headers, from what the run was given.

Never publishes. Whatever an agent returns or raises, what comes out fits into one record.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from agents.core.base import Agent, AgentResult, AgentStatus, ErrorDetail
from agents.core.errors import InvalidOutputError, ResultTooLargeError, RoundsExhaustedError
from agents.core.task import ArtifactReference, Event, Root
from agents.core.workflow import Back
from streams import envelope as envelopes
from streams import rounds
from streams.dead_letters import Letter
from streams.envelope import EncodedHeaders, Record
from streams.payloads import BackPayload, ResultPayload, ResultWriter, RootValue
from streams.topics import MAX_RECORD_BYTES
from streams.work import NO_SUCCESS, Part, Work, failed, parse, parse_task

MAX_ROOT_INPUT_BYTES = 64 * 1024
MAX_ERROR_CHARACTERS = 8_000
# Most runs are given none, and there may be tens of thousands at the same time.
NO_ARTIFACTS: Mapping[str, ArtifactReference] = MappingProxyType({})


@dataclass(slots=True)
class Given:
    """What came before: decoded once, inherited by the result."""

    input: Any
    root: Root | RootValue
    artifacts: Mapping[str, ArtifactReference]

    @property
    def task_root(self) -> Root:
        """The root as agents see it."""
        return self.root if isinstance(self.root, Root) else Root(**self.root._asdict())


@dataclass(slots=True)
class Outcome:
    """A result, encoded; published as it is however often that takes."""

    value: bytes
    headers: EncodedHeaders
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
        self._agent = agent
        self._source = f"/callboard/{app}/{agent.name}"
        self._writer = ResultWriter(agent.name, agent.config.version)
        self._evidence_only = evidence_only

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
                root=first.payload.root or RootValue(first.agent, work.envelope.round or work.envelope.id),
                artifacts=inherited,
            )
        if work.kind == "invalid":
            return Given(None, self._unknown_root(work), NO_ARTIFACTS)
        if work.source is None:
            task = parse_task(record)
            too_large = len(record.value or b"") > MAX_ROOT_INPUT_BYTES
            given = None if too_large else task.input
            root = RootValue(self._agent.name, work.envelope.id, given, too_large, task.repository)
            return Given(task.input, root, _by_name(task.artifacts))
        result = parse(ResultPayload, record)
        if work.kind == "run" and failed(result, work.envelope):
            work.kind = "upstream_failed"
        return Given(
            input=result.output,
            root=result.root or self._unknown_root(work),
            artifacts=_by_name(result.artifacts),
        )

    def _unknown_root(self, work: Work) -> RootValue:
        return RootValue(work.source or self._agent.name, work.envelope.round or work.envelope.id)

    def encode(self, work: Work, given: Given | None, result: AgentResult[Any]) -> Outcome:
        """Write a result; one that cannot be written, or is too large, becomes a failure that says so."""
        back = self._way_back(work, result)
        if back is not None and rounds.times(work.envelope.rounds, back) >= back.rounds:
            # Decided here, where the rounds and the workflow are known: nobody after this needs to agree.
            result, back = _exhausted(result, back), None
        if result.error is not None:
            result = result.model_copy(update={"error": _printable(result.error)})
        try:
            value = self._written(work, given, result, back)
        except ValueError as error:
            failure = InvalidOutputError(
                f"the output of {self._agent.name} cannot be written as JSON: {error}"
            )
            result = AgentResult.failed(failure)
            value = self._written(work, given, result)
        if len(value) > MAX_RECORD_BYTES:
            return self.too_large(work, given, len(value))
        return Outcome(value, self._headers(work, result.status), result.status, result.error)

    def too_large(self, work: Work, given: Given | None, size: int) -> Outcome:
        """Write the failure that stands for a result no record holds."""
        large = ResultTooLargeError(
            f"the result of {self._agent.name} has {size} bytes, a record at most {MAX_RECORD_BYTES} and what"
            " max.message.bytes of its topic allows; put the bulk into an artifact:"
            " AgentResult(artifacts=[Artifact(...)])"
        )
        root = given.root if given is not None else self._unknown_root(work)
        slim = Given(
            None,
            RootValue(root.agent, root.id, input_omitted=True, repository=root.repository),
            NO_ARTIFACTS,
        )
        result: AgentResult[Any] = AgentResult.failed(large)
        return Outcome(
            self._written(work, slim, result), self._headers(work, result.status), result.status, result.error
        )

    def _written(
        self, work: Work, given: Given | None, result: AgentResult[Any], way: Back | None = None
    ) -> bytes:
        root = given.root if given is not None else self._unknown_root(work)
        back: BackPayload | None = None
        followers: tuple[str, ...] = ()
        if way is not None and work.workflow is not None:
            entry = rounds.entry(work.envelope.rounds) or root.agent
            back = BackPayload(to=way.to, without=work.workflow.without(way.step, entry=entry))
            followers = (way.to,)
        elif work.workflow is not None:
            followers = work.workflow.followers.get(self._agent.name, ())
        return self._writer.write(
            status=result.status,
            output=result.output,
            verdict=result.verdict,
            error=result.error,
            artifacts=list(given.artifacts.values()) if given is not None and given.artifacts else (),
            usage=work.used,
            attempts=work.attempts,
            started_at=work.begun,
            finished_at=envelopes.now(),
            run=work.run,
            root=root,
            followers=followers,
            back=back,
        )

    def _way_back(self, work: Work, result: AgentResult[Any]) -> Back | None:
        if result.verdict is None or work.workflow is None or result.status is not AgentStatus.COMPLETED:
            return None
        return work.workflow.way_back(self._agent.name, result.verdict)

    def _headers(self, work: Work, status: AgentStatus) -> EncodedHeaders:
        given, parts = work.envelope, work.parts
        answered: Collection[Work | Part] = parts.values() if parts else (work,)
        return envelopes.answer(
            given,
            work.run,
            source=self._source,
            answered=[(it.envelope, it.record) for it in answered],
            status=status.value,
            budget=None if given.budget is None else given.budget.minus(work.spent),
            llm="off" if self._evidence_only else given.llm,
        )


def _exhausted(result: AgentResult[Any], back: Back) -> AgentResult[Any]:
    """Turn a result that would go back once more into a failure; what it says stays, for people."""
    error = RoundsExhaustedError(
        f"{back.step} says {back.when!r} after it went back to {back.to} {back.rounds} times, which is all"
    )
    detail = ErrorDetail(type=error.type, message=str(error))
    return result.model_copy(update={"status": AgentStatus.FAILED, "error": detail})


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
