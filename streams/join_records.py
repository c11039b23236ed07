"""The records of the compacted topic `joins.<agent>`: how the state of joins is written, and read back.

One record per part, so that a worker that was fenced and writes late repeats something true, never undoes
something; one per join for what came of it; a null for what is no longer of interest.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agents.core.errors import AgentError
from agents.core.workflow import Awaiting
from streams.envelope import Record, place

Key = tuple[str, str]

Reason = Literal["complete", "went_on", "impossible", "timeout", "void"]

Name = Annotated[str, Field(min_length=1)]
Number = Annotated[int, Field(ge=0)]


class JoinStateError(AgentError):
    """A record of a topic of joins, or one that it refers to, is not what it should be."""

    type = "join_state"


class Value(BaseModel):
    """Unknown fields are ignored: a later version may write more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Reference(Value):
    """One agent's part of a join, and where its record is."""

    agent: Name
    topic: Name
    partition: Number
    offset: Number
    digest: str = Field(description="SHA-256 of the record, as in ce_causedigest")
    status: Literal["completed", "failed", "gone"] = Field(description="gone: it will not come in this round")
    at: int = Field(description="the record's time in milliseconds since 1970")


class AwaitingValue(Value):
    """What the join waits for, as it was declared when the part came."""

    agents: tuple[Name, ...]
    needed: Annotated[int, Field(ge=1)]
    patient: bool
    within_ms: int | None
    then: Literal["fail", "go_on"]


class PartRecord(Value):
    """A part came."""

    version: Literal[1] = 1
    state: Literal["part"] = "part"
    workflow: Name
    round: Name
    part: Reference
    awaiting: AwaitingValue


class OutcomeRecord(Value):
    """What came of a join: it fired, and later on its run was finished."""

    version: Literal[1] = 1
    state: Literal["fired", "finished"]
    workflow: Name
    round: Name
    reason: Reason
    at: int = Field(description="milliseconds since 1970")
    parts: tuple[Reference, ...] = Field(default=(), description="what it fired with")
    missing: tuple[Name, ...] = Field(default=(), description="who was still awaited then")
    came: tuple[Name, ...] = Field(default=(), description="whose parts were seen by now")
    awaited: tuple[Name, ...] = ()


READ: TypeAdapter[PartRecord | OutcomeRecord] = TypeAdapter(
    Annotated[PartRecord | OutcomeRecord, Field(discriminator="state")]
)


@dataclass(frozen=True, slots=True)
class Slot:
    """Whose record it is: a part's, or the join's own (`agent` is none)."""

    key: Key
    agent: str | None

    def encode(self) -> bytes:
        """Give the record's key."""
        return orjson.dumps([*self.key] if self.agent is None else [*self.key, self.agent])


def read(record: Record) -> tuple[Slot, PartRecord | OutcomeRecord | None]:
    """Read a record of a topic of joins; none in place of the value: the slot is empty from here on.

    Raises:
        JoinStateError: If it is none of ours; the message names its place.
    """
    slot = _slot(record)
    if record.value is None:
        return slot, None
    try:
        value = READ.validate_json(record.value)
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, what["loc"])) or "value"
        raise JoinStateError(f"{place(record)}: no state of a join: {where}: {what['msg']}") from None
    agent = value.part.agent if isinstance(value, PartRecord) else None
    if Slot((value.workflow, value.round), agent) != slot:
        raise JoinStateError(f"{place(record)}: the key {record.key!r} is not that of its value")
    return slot, value


def write(value: PartRecord | OutcomeRecord) -> bytes:
    """Give a record's value."""
    return orjson.dumps(value.model_dump(mode="json"))


def awaiting_value(awaiting: Awaiting) -> AwaitingValue:
    """Write down what a join waits for."""
    return AwaitingValue(
        agents=tuple(sorted(awaiting.agents)),
        needed=awaiting.needed,
        patient=awaiting.patient,
        within_ms=awaiting.within_ms,
        then=awaiting.then,
    )


def _slot(record: Record) -> Slot:
    try:
        parts: Any = orjson.loads(record.key or b"")
    except orjson.JSONDecodeError:
        parts = None
    match parts:
        case [str(workflow), str(round_)]:
            return Slot((workflow, round_), None)
        case [str(workflow), str(round_), str(agent)]:
            return Slot((workflow, round_), agent)
    raise JoinStateError(
        f"{place(record)}: the key {record.key!r} names no join: a JSON array of 2 or 3 texts"
    )
