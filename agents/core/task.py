"""What an agent works on: the event, what started the workflow, and the artifacts it may open."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from agents.core.budget import NOTHING, Allowance, Spent
from agents.core.errors import ArtifactError
from agents.core.step import Journal, StepKey, Steps


class ArtifactReference(BaseModel):
    """Where an artifact's bytes are, and what they must hash to.

    Contents never ride inside results: they are records of an artifacts topic, and this points at the first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(min_length=1, max_length=200)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="bytes")
    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0, description="offset of the first chunk")
    media_type: str = "application/octet-stream"


class RepositoryReference(BaseModel):
    """The repository a task is about: by URL and commit, or attached as the artifact `repository`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    commit: str = Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")
    url: str | None = Field(default=None, description="none: the bundle is attached as an artifact")
    name: str = Field(default="", description="for people, e.g. the folder's name")


class Root(BaseModel):
    """The task event a workflow began with; every result carries it to all that follow."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    agent: str = Field(description="the agent the task was for")
    id: str = Field(description="ce_id of the task event")
    input: Any = Field(default=None, description="the task's input, if it has at most 64 KiB")
    input_omitted: bool = Field(default=False, description="the input was larger than that")
    repository: RepositoryReference | None = None


class Event(NamedTuple):
    """One record an agent was given.

    Attributes:
        topic: Kafka topic it came from.
        partition: Its partition.
        offset: Its offset.
        key: The record's key as it is, `None` without one.
        headers: The record's headers as they are, in order; names may repeat.
        value: The record's value as it is, `None` without one.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None

    @property
    def payload(self) -> Any:
        """The decoded JSON value, decoded each time.

        Raises:
            ValueError: If it is none.
        """
        return json.loads(self.value or b"")


class ArtifactStore(Protocol):
    """Reads artifacts; the transport gives one to each task."""

    async def read(self, reference: ArtifactReference) -> bytes:
        """Give the artifact's bytes.

        Raises:
            ArtifactError: If it is gone, incomplete or does not match its digest.
        """


@dataclass(slots=True)
class Usage:
    """What the model calls of one run took, over all its attempts; tokens as the provider counts them.

    An answer out of the journal counts as well, once: whoever reads the result wants to know what the run
    took, and not which process paid. `fresh` is without what was paid before this process knew the run.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    # Underlined names do not become part of a result's JSON.
    _known: set[StepKey] | None = field(default=None, repr=False, compare=False)
    _earlier: Spent = field(default=NOTHING, repr=False, compare=False)

    def add(self, key: StepKey, spent: Spent, *, replayed: bool) -> bool:
        """Count what one call took, unless it is a replay of one that is counted.

        Returns:
            Whether it was counted.
        """
        if self._known is None:
            self._known = set()  # most runs ask nothing
        if replayed and key in self._known:
            return False
        self._known.add(key)
        self.calls += spent.calls
        self.input_tokens += spent.input_tokens
        self.output_tokens += spent.output_tokens
        if replayed:
            self._earlier += spent
        return True

    @property
    def fresh(self) -> Spent:
        """What this process paid for."""
        earlier = self._earlier
        return Spent(
            self.calls - earlier.calls,
            self.input_tokens - earlier.input_tokens,
            self.output_tokens - earlier.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class Task:
    """The work of one attempt of a run.

    Attributes:
        id: Identity of the event that caused the run (of the last one, for a join).
        agent: Name of the agent that runs.
        run_id: Names the run; the same after a restart. Hexadecimal SHA-256.
        workflow_id: Correlation id: all events of one workflow share it.
        input: What `execute` gets.
        root: The task event the workflow began with.
        events: The events this run answers: one, or one per joined agent.
        artifacts: Own and inherited artifacts by name.
        deadline: Absolute time after which the work is worthless, or none.
        usage: Adds up what the run's model calls took; the same for all attempts.
        journal: What the log knows of the run; none outside of a worker: then steps just happen.
        allowance: What the run may still spend; none: as much as it likes.
        steps: The steps of this attempt.
    """

    id: str
    agent: str
    run_id: str
    workflow_id: str
    input: Any
    root: Root
    events: tuple[Event, ...]
    artifacts: Mapping[str, ArtifactReference]
    deadline: datetime | None
    store: ArtifactStore
    usage: Usage = field(default_factory=Usage)
    journal: Journal | None = None
    allowance: Allowance | None = None
    steps: Steps = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Frozen for those who read it; made here, since it is of the other fields.
        object.__setattr__(self, "steps", Steps(self.journal, agent=self.agent, run_id=self.run_id))

    async def artifact(self, name: str) -> bytes:
        """Read one of `artifacts`.

        Raises:
            ArtifactError: If there is none of that name, or it cannot be read whole.
        """
        reference = self.artifacts.get(name)
        if reference is None:
            have = ", ".join(sorted(self.artifacts)) or "none"
            raise ArtifactError(f"no artifact named {name!r} came with this task; it has: {have}")
        return await self.store.read(reference)


class Attempt(ABC):
    """One attempt of a run, whose `Task` is made when somebody asks for it.

    Attributes:
        task: If somebody did.
    """

    __slots__ = ("_over", "task")

    def __init__(self) -> None:
        self._over = False
        self.task: Task | None = None

    @abstractmethod
    def make(self) -> Task:
        """Make the task; called once."""

    def __call__(self) -> Task:
        """Give the task, the same each time."""
        if self.task is None:
            self.task = self.make()
            if self._over:
                self.task.steps.end()
        return self.task

    def over(self) -> bool:
        """Let no step begin any more; tells whether there may be some to wait for: then call `end`."""
        self._over = True
        return self.task is not None

    async def end(self, error: BaseException | None) -> None:
        """Wait for the steps that were begun.

        Args:
            error: What `execute` raised.
        """
        if self.task is not None:
            await self.task.steps.__aexit__(type(error) if error is not None else None, error, None)


_current: ContextVar[Task | Attempt | None] = ContextVar("callboard_current_task", default=None)


def current_task() -> Task:
    """Give the task that the calling `execute` works on.

    Raises:
        LookupError: Outside of a run.
    """
    found = _current.get()
    if found is None:
        raise LookupError("current_task() works only inside an agent's execute")
    return found() if isinstance(found, Attempt) else found


def set_current_task(task: Task | Attempt | None) -> None:
    """Make `task` the current one in the calling context, or none; the runtime does this before `execute`."""
    _current.set(task)
