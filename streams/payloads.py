"""The JSON values of task and result events; the schemas in `schemas/` are made from these types."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from agents import _rust
from agents.core.base import AgentStatus, ErrorDetail
from agents.core.budget import Budget
from agents.core.task import ArtifactReference, RepositoryReference, Root, Usage
from streams import envelope as envelopes
from streams.envelope import Envelope, Record

Names = tuple[Annotated[str, Field(min_length=1)], ...]
NO_USAGE = orjson.dumps(Usage())
NO_ARTIFACTS = orjson.dumps(())


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


class BackPayload(BaseModel):
    """A result that goes back begins a new round, named by its own id."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    to: str = Field(min_length=1, description="the agent that answers it")
    without: Names = Field(default=(), description="agents that therefore have no result in this round")


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
    back: BackPayload | None = Field(default=None, description="none: it does not go back")


# What `TaskPayload` says, without being one: next to nothing is checked in the usual task.
TaskValue = tuple[Any, RepositoryReference | None, tuple[ArtifactReference, ...]]


def read_task(value: bytes) -> TaskValue:
    """Read a task's JSON.

    Returns:
        Its input, repository and artifacts.

    Raises:
        ValidationError: If it is none.
    """
    try:
        read = from_json(value)  # pydantic's own parser: numbers of any size stay what they are
    except ValueError:
        read = None
    if isinstance(read, dict) and "input" in read and "repository" not in read and "artifacts" not in read:
        return read["input"], None, ()
    task = TaskPayload.model_validate_json(value)
    return task.input, task.repository, task.artifacts


# What `Root` says, in the order of its fields, without being one: most agents never ask for it. Without an
# id, it is what a run answers. The input is JSON as it was read if it is bytes, which no value out of JSON
# is.
RootValue = tuple[str, str | None, Any, bool, RepositoryReference | None]


class ResultValue(NamedTuple):
    """What `ResultPayload` says to those a result is handed on to, without being one."""

    status: AgentStatus
    output: Any
    artifacts: tuple[ArtifactReference, ...]
    root: RootValue | None


def read_result(value: bytes) -> ResultValue:
    """Read a result's JSON.

    Raises:
        ValidationError: If it is none.
    """
    usual = _rust.read_result(value)
    if usual is not None:
        output, agent, identity, root_input, input_omitted = usual
        with suppress(ValueError):  # said by the other way
            root = agent, identity, root_input, input_omitted, None
            return ResultValue(AgentStatus.COMPLETED, from_json(output), (), root)
    result = ResultPayload.model_validate_json(value)
    return ResultValue(result.status, result.output, result.artifacts, told_root(result))


def told_root(result: ResultPayload) -> RootValue | None:
    """Give the root that a result names, if it names one."""
    told = result.root
    if told is None:
        return None
    return told.agent, told.id, told.input, told.input_omitted, told.repository


def root_of(told: RootValue, answered: str) -> Root:
    """Give a root as agents see it, to a run that answers an event of that id."""
    agent, identity, given, omitted, repository = told
    if isinstance(given, bytes):
        given = from_json(given)
    named = answered if identity is None else identity
    return Root(agent=agent, id=named, input=given, input_omitted=omitted, repository=repository)


class ResultWriter:
    """Writes the results of one agent: the JSON of `ResultPayload`, without making one, and headers and key.

    Values that may be anything are written by orjson, each by itself; Rust puts them and the texts together.

    Args:
        agent: Its name.
        version: Its version.
        source: As in `Envelope`.
        max_key_bytes: A longer key is left out, since there would be no room for the result.
        llm: As in `Envelope`; none: as what is answered has it.
    """

    def __init__(
        self, agent: str, version: str, *, source: str, max_key_bytes: int, llm: str | None = None
    ) -> None:
        start = orjson.dumps({"agent": agent, "agent_version": version})[:-1]
        writer = _rust.ResultWriter(start, envelopes.common(envelopes.RESULT, source), max_key_bytes, llm)
        self._write = writer.write

    def write(  # noqa: PLR0913, PLR0917 (what a result says; keywords take their time)
        self,
        given: Envelope,
        record: Record,
        joined: Sequence[tuple[Envelope, Record]] | None,
        run: str | bytes,
        status: AgentStatus,
        output: Any,
        verdict: str | None,
        error: ErrorDetail | None,
        artifacts: Mapping[str, ArtifactReference],
        usage: Usage | None,
        budget: Budget | None,
        attempts: int,
        started_at: int | None,
        finished_at: int,
        root: RootValue,
        followers: tuple[str, ...],
        back: BackPayload | None = None,
    ) -> _rust.EncodedRecord:
        """Write one: what the agent said, and what it was given or took.

        It answers `given`, whose record is `record`, or all of `joined`; `run` is its run's id, or what that
        begins with, and `budget` what is left of it.

        Raises:
            ValueError: If the output, or what is said about it, holds what JSON has no words for.
        """
        root_agent, root_id, root_input, root_input_omitted, root_repository = root
        written = root_input if isinstance(root_input, bytes) else _input(root_input)
        try:
            return self._write(
                given,
                record,
                joined,
                run,
                status._value_,
                # An agent that hands its input on gives the very object it was given.
                # But small bytes are one object everywhere, and no output.
                _output(output, None if output is not root_input or isinstance(output, bytes) else written),
                verdict,
                None if error is None else orjson.dumps(error, _plain),
                orjson.dumps([*artifacts.values()], _plain) if artifacts else NO_ARTIFACTS,
                orjson.dumps(usage) if usage is not None and usage.calls else NO_USAGE,
                budget,
                attempts,
                started_at,
                finished_at,
                root_agent,
                root_id,
                written,
                root_input_omitted or written is None,
                None if root_repository is None else orjson.dumps(root_repository, _plain),
                followers,
                None if back is None else orjson.dumps(back, _plain),
            )
        except UnicodeEncodeError:
            raise ValueError("str is not valid UTF-8: surrogates not allowed") from None  # as orjson says it
        except TypeError as problem:
            raise ValueError(str(problem)) from None


def _input(value: Any) -> bytes | None:
    try:
        return orjson.dumps(value)
    except TypeError:  # numbers larger than 64 bits can be read and not be written
        return None


def _output(output: Any, written: bytes | None) -> bytes:
    if written is None:
        try:
            written = orjson.dumps(output, _plain)
        except TypeError:  # the option alone makes every object slower
            written = orjson.dumps(output, _plain, orjson.OPT_NON_STR_KEYS)
    # orjson writes null for NaN and infinity; most outputs have none, and need no second look.
    if _rust.says_null(written) and not _is_finite(output):
        raise ValueError("NaN and infinity have no form in JSON")
    return written


def _plain(value: Any) -> Any:
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
