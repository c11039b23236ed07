"""The JSON values of task and result events; the schemas in `schemas/` are made from these types."""

import math
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from agents.core.base import AgentStatus, ErrorDetail
from agents.core.task import ArtifactReference, RepositoryReference, Root

Names = tuple[Annotated[str, Field(min_length=1)], ...]


class TaskPayload(BaseModel):
    """Work for an agent; any Kafka client can publish `{"input": ...}`."""

    model_config = ConfigDict(frozen=True, extra="ignore", title="callboard.task.v1")

    input: Any = Field(description="what the agent gets; a string as it is, other JSON as its input type")
    repository: RepositoryReference | None = Field(default=None, description="the repository it is about")
    artifacts: tuple[ArtifactReference, ...] = Field(default=(), description="files that came with it")


class UsagePayload(BaseModel):
    """What the model calls of a run took."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = Field(default=None, description="none: the price is not known")


class ResultPayload(BaseModel):
    """What a run ended with."""

    model_config = ConfigDict(frozen=True, extra="ignore", title="callboard.result.v1")

    agent: str
    agent_version: str = "1"
    status: AgentStatus
    output: Any = None
    verdict: str | None = None
    error: ErrorDetail | None = None
    artifacts: tuple[ArtifactReference, ...] = Field(default=(), description="own and inherited ones")
    usage: UsagePayload = UsagePayload()
    attempts: int = Field(
        default=1, ge=0, description="0: never executed, e.g. because an agent before it failed"
    )
    started_at: str | None = Field(default=None, description="RFC 3339; none: never executed")
    finished_at: str | None = None
    run: str | None = Field(default=None, description="run id")
    root: Root | None = Field(default=None, description="the task the workflow began with")
    followers: Names = Field(default=(), description="agents that answer this result; empty: a leaf")


def write_result(**fields: Any) -> bytes:
    """Write a result's JSON from the fields of `ResultPayload`, without making one: this is the hot path.

    Raises:
        ValueError: If the output holds what JSON has no words for.
    """
    try:
        output = orjson.dumps(fields["output"], _plain, orjson.OPT_NON_STR_KEYS)
        # orjson writes null for NaN and infinity; most outputs have none, and need no second look.
        if b"null" in output and not _is_finite(fields["output"]):
            raise ValueError("NaN and infinity have no form in JSON")
        return orjson.dumps(fields | {"output": orjson.Fragment(output)}, _plain)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Root):  # on every result: spelled out, it costs a fifth
        return {
            "agent": value.agent,
            "id": value.id,
            "input": value.input,
            "input_omitted": value.input_omitted,
            "repository": value.repository,
        }
    if isinstance(value, BaseModel):
        plain = value.model_dump(mode="json")
        if not _is_finite(plain):
            raise TypeError("NaN and infinity have no form in JSON")
        return plain
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_finite, value))
    return True
