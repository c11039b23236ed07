"""What one record (or one complete join) means for an agent, and what it was given with it.

Values that the router makes, the runtime carries around and the answers are written from.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from agents.core.base import AgentStatus
from agents.core.budget import NOTHING, Spent
from agents.core.errors import AgentError, InvalidInputError
from agents.core.step import Recorded, StepKey
from agents.core.task import Usage
from agents.core.workflow import Awaiting, Workflow
from streams.envelope import Envelope, Record, place
from streams.join_records import Key
from streams.payloads import ResultPayload, ResultValue, TaskPayload, TaskValue, read_result, read_task
from streams.topics import MAX_RECORD_BYTES

P = TypeVar("P", TaskPayload, ResultPayload)
T = TypeVar("T")

NO_SUCCESS = frozenset({AgentStatus.FAILED, AgentStatus.CANCELED})

# `run` is the only kind that executes the agent; `refused`, `invalid` and `poison` also become dead letters.
Kind = Literal["run", "upstream_failed", "timed_out", "refused", "invalid", "poison", "skip"]


@dataclass(slots=True)
class RunHistory:
    """What the journal knows of one run.

    Attributes:
        steps: The last word on each step.
        begun: By which of the workers that died in a row it was begun, as far as they wrote it down.
    """

    steps: dict[StepKey, Recorded] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Work:
    """What one record (or one complete join) means for this agent."""

    kind: Kind
    record: Record
    envelope: Envelope
    run_of: str | bytes = ""  # the run's id, or what that begins with
    workflow: Workflow | None = None
    source: str | None = None
    error: AgentError | None = None
    parts: "dict[str, Part] | None" = None
    missing: tuple[str, ...] = ()
    begun: int | None = None  # milliseconds since 1970
    attempts: int = 0
    marked: int = 0  # begun in the journal first, by this worker of those that died in a row
    alone: bool = False  # run alone in its process
    history: RunHistory | None = None
    spent: Spent = NOTHING  # unlike `usage`, with calls nobody knows the answer of
    used: Usage | None = None  # most runs ask no model

    @property
    def run(self) -> str:
        """The run's id; made when somebody asks, since many runs wait and few are asked about."""
        if isinstance(self.run_of, bytes):
            self.run_of = self.envelope.run_id(self.run_of)
        return self.run_of

    @property
    def usage(self) -> Usage:
        """What the run's model calls took, to add to."""
        if self.used is None:
            self.used = Usage()
        return self.used

    @property
    def records(self) -> tuple[Record, ...]:
        """What is answered: one record, or one per joined agent."""
        return tuple(part.record for part in self.parts.values()) if self.parts else (self.record,)


@dataclass(slots=True)
class Part:
    """One agent's result that waits in a join.

    Attributes:
        key: Workflow and round.
        agent: Whose.
        record: As it was read.
        envelope: Its headers.
        payload: Its value.
        awaiting: What the join waits for.
        gone: If the result goes back: the agents whose parts will not come because of that. Then it is none
            itself.
    """

    kind: ClassVar[Literal["part"]] = "part"

    key: Key
    agent: str
    record: Record
    envelope: Envelope
    payload: ResultPayload
    awaiting: Awaiting
    gone: tuple[str, ...] = ()


def parse(kind: type[P], record: Record) -> P:
    """Read a record's value.

    Raises:
        InvalidInputError: If it is null, too large, no JSON or not of this type.
    """
    return _read(kind, kind.model_validate_json, record)


def parse_task(record: Record) -> TaskValue:
    """Read a task's value.

    Raises:
        InvalidInputError: As `parse`.
    """
    return _read(TaskPayload, read_task, record)


def parse_result(record: Record) -> ResultValue:
    """Read what a result hands on.

    Raises:
        InvalidInputError: As `parse`.
    """
    return _read(ResultPayload, read_result, record)


def _read(kind: type[BaseModel], read: Callable[[bytes], T], record: Record) -> T:
    value = record.value
    if value is None:
        raise InvalidInputError(f"{place(record)}: the value is null; a {_title(kind)} is a JSON object")
    if len(value) > MAX_RECORD_BYTES:
        raise InvalidInputError(
            f"{place(record)}: the value has {len(value)} bytes, at most {MAX_RECORD_BYTES} are taken;"
            " put the bulk into an artifact"
        )
    try:
        return read(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise InvalidInputError(f"{place(record)}: no valid {_title(kind)}: {problems}") from None


def failed(payload: ResultPayload | ResultValue, envelope: Envelope) -> bool:
    """Tell whether a result is a failure; where header and payload differ, the failure counts."""
    return payload.status in NO_SUCCESS or envelope.status in NO_SUCCESS


def _title(kind: type[BaseModel]) -> str:
    return str(kind.model_config.get("title", kind.__name__))
