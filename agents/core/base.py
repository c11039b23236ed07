"""The class users write agents with, and what they put in and get out."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction
from types import FunctionType
from typing import Any, ClassVar, Generic, Literal, ParamSpec, get_args, get_origin

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypeVar

from agents.core.blocking import at_home
from agents.core.budget import Budget
from agents.core.errors import (
    AgentError,
    ConfigurationError,
    InvalidInputError,
    InvalidOutputError,
    is_retryable,
)
from agents.core.llm import TIMEOUT, LLMReply, Provider, provider_for
from agents.core.step import InDoubt, Steps, canonical_json
from agents.core.task import current_task

InputT = TypeVar("InputT", default=Any)
OutputT = TypeVar("OutputT", default=Any)
P = ParamSpec("P")

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
YEAR = 365 * 24 * 3600


class AgentStatus(StrEnum):
    """What a run ended with."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    PARKED = "parked"


class AgentConfig(BaseModel):
    """How an agent runs; every field is optional and given by keyword."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(default=None, description="names topics and group; default: from the class name")
    version: str = Field(default="1", max_length=255, description="goes into every result")
    model: str = Field(default="claude-sonnet-5-5", description="model that `_call_llm` asks")
    max_tokens: int = Field(default=4096, ge=1, le=21_333, description="most tokens of one answer")
    concurrency: int = Field(default=16, ge=1, le=100_000, description="runs at the same time in one worker")
    timeout: float | None = Field(default=None, gt=0, le=YEAR, description="seconds one run may take")
    blocking: bool = Field(default=False, description="run it in a thread: it holds the event loop up")
    retries: int = Field(default=2, ge=0, le=100, description="attempts after the first, where they may help")
    backoff: float = Field(default=0.5, gt=0, le=3600, description="seconds before the first; then doubled")
    max_backoff: float = Field(default=60, gt=0, le=YEAR, description="most seconds between two attempts")
    in_doubt: InDoubt = Field(
        default="retry", description="a step that may or may not have happened: repeat it, or park the run"
    )
    budget: Budget | None = Field(default=None, description="most that one run may spend on models")
    calls_per_minute: int | None = Field(default=None, ge=1, description="model calls of one worker")
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="tokens of one worker's model calls"
    )
    llm: Literal["anthropic", "off"] | None = Field(default=None, description="overrides CALLBOARD_LLM")
    llm_timeout: float = Field(default=TIMEOUT, gt=0, le=YEAR, description="seconds to wait for an answer")


class ErrorDetail(BaseModel):
    """Why a run failed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    message: str
    retryable: bool = False


class Artifact(BaseModel):
    """A file an agent hands on; it is published as records of its own, before the result that lists it."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1, max_length=200)
    content: bytes = Field(repr=False)
    media_type: str = "application/octet-stream"


class AgentResult(BaseModel, Generic[OutputT]):
    """What `execute` gives back.

    Attributes:
        output: Any JSON value or pydantic model; becomes the followers' `input_data`.
        verdict: A word on a completed result that edges can match, e.g. "passed".
        error: Required for people when the status is FAILED; filled in from an exception by the runtime.
        artifacts: Files to hand on; they replace inherited ones of the same name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: AgentStatus
    output: OutputT | None = None
    verdict: str | None = None
    error: ErrorDetail | None = None
    artifacts: tuple[Artifact, ...] = ()

    @classmethod
    def failed(cls, error: BaseException) -> "AgentResult[OutputT]":
        """Make the failed result that says what `error` says."""
        if isinstance(error, AgentError):
            detail = ErrorDetail(type=error.type, message=str(error), retryable=error.retryable)
        else:
            detail = ErrorDetail(
                type=type(error).__name__, message=str(error) or repr(error), retryable=is_retryable(error)
            )
        return cls(status=AgentStatus.FAILED, error=detail)


class Agent(ABC, Generic[InputT, OutputT]):
    """One capability: takes an input, gives an `AgentResult`.

    Subclass it, write `execute`, and name the types if you want them checked: `Agent[Ticket, Verdict]`.
    An agent keeps no state between runs that matters: many runs share one instance, on several machines.
    """

    _input_type: ClassVar[Any] = Any
    _input: ClassVar[TypeAdapter[Any] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in cls.__dict__.get("__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Agent):
                # A generic class between may have parameters of its own, in an order of its own.
                given = dict(zip(getattr(origin, "__parameters__", ()), get_args(base), strict=False))
                inherited = origin._input_type  # noqa: SLF001 (a subclass of this very class)
                wanted = get_args(base)[0] if origin is Agent else given.get(inherited, inherited)
                cls._input_type = wanted
                cls._input = None if isinstance(wanted, TypeVar) or wanted is Any else TypeAdapter(wanted)

    def __init__(self, config: AgentConfig | None = None) -> None:
        self.config = config or AgentConfig()
        self.name = self.config.name or _default_name(type(self))
        if not NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"agent name {self.name!r} cannot name a topic: use lower-case letters, digits, _ and -,"
                " starting with a letter, at most 63 in all"
            )
        if _certainly_not_awaitable(type(self).execute):
            raise ConfigurationError(
                f"{type(self).__name__}.execute gives nothing that can be awaited, so every task would fail:"
                " write `async def execute` (without `yield`)"
            )

    @property
    def system_prompt(self) -> str:
        """What the model is told about its role; empty for agents that ask none."""
        return ""

    @abstractmethod
    async def execute(self, input_data: InputT) -> AgentResult[OutputT]:
        """Do the work.

        Args:
            input_data: The task's input, or the output of the agent this one follows; after a join an
                object with one output per agent name.

        Raises:
            Exception: Anything raised ends the run with a failed result of that type and message.
        """

    def parse_input(self, value: Any) -> Any:
        """Turn decoded JSON into what `execute` takes.

        Raises:
            InvalidInputError: If the agent names an input type and `value` does not fit it.
        """
        if self._input is None:
            return value
        try:
            return self._input.validate_python(value)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'input'}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            )
            if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
                problems += "; it is text that looks like JSON: publish it as JSON (`--input-json`)"
            raise InvalidInputError(f"the input of agent {self.name!r} is not valid: {problems}") from None

    @property
    def llm(self) -> Provider:
        """The chosen way to ask a model.

        Raises:
            ConfigurationError: If none is chosen and no key is set.
        """
        return provider_for(self.config.llm)

    async def step(self, name: str, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Do a side effect whose answer survives a crash: `rate = await self.step("fx", fetch_rate, "EUR")`.

        A run that is repeated gets the answer out of the journal, and `fn` is not called. A step is found
        again by its name and its arguments, so everything it depends on belongs into these, and nothing that
        differs from attempt to attempt: no times, no random ids.

        Args:
            name: What the agent calls it. It is kept in the log: do not change it while runs are under way.
            fn: Does it; a coroutine function, or a function that is called as it is, on the event loop.
            args: For `fn`; JSON values or pydantic models.
            kwargs: Likewise.

        Returns:
            What `fn` gave, after its way through JSON, the first time as well: a tuple is a list, a pydantic
            model is a dict.

        Raises:
            TypeError: If an argument has no form in JSON.
            InvalidOutputError: If the answer has none, or more than 1.5 MiB; it happened all the same.
            InDoubtError: If nobody knows whether it happened before, and the agent's `in_doubt` is "park".
            Exception: Whatever `fn` raises. After a time-out or a lost connection the step is in doubt.
        """
        here = asyncio.get_running_loop()

        async def act() -> bytes:
            answer = fn(*args, **kwargs)
            if isawaitable(answer):
                answer = await answer
            try:
                return canonical_json(answer, f"the answer of step {name!r}")
            except TypeError as error:
                raise InvalidOutputError(str(error)) from None

        def act_here() -> Awaitable[bytes]:
            if asyncio.get_running_loop() is here:
                return act()
            return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(act(), here))

        # The journal lives on the worker's loop; `fn` on the agent's own, which is another one if it blocks.
        request = {"args": args, "kwargs": kwargs}
        taken = await at_home(
            lambda: self._steps().take("step", name, request, act_here, in_doubt=self.config.in_doubt)
        )
        return orjson.loads(taken.answer)

    async def _call_llm(self, prompt: str, *, system: str | None = None) -> LLMReply:
        """Ask the model; a step as well, so a run that is repeated does not pay for the same answer twice.

        Raises:
            LLMOffError: In evidence mode.
            LLMIncompleteError: If the model stopped before its answer was whole.
            LLMUnavailableError: If the provider refused or could not be reached.
            InDoubtError: If nobody knows whether it was asked before, and the agent's `in_doubt` is "park".
            BudgetExceededError: If the run may not spend what the answer may take.
        """
        provider = self.llm
        config = self.config
        return await at_home(
            lambda: provider.ask(
                prompt,
                system=system,
                model=config.model,
                max_tokens=config.max_tokens,
                timeout=config.llm_timeout,
                in_doubt=config.in_doubt,
            )
        )

    def _steps(self) -> Steps:
        try:
            return current_task().steps
        except LookupError:  # outside of a run nothing is kept
            return Steps(agent=self.name)


def _certainly_not_awaitable(execute: object) -> bool:
    """Tell whether calling it cannot give an awaitable; a plain `def` that says nothing of the kind may."""
    if not isinstance(execute, FunctionType) or hasattr(execute, "__wrapped__"):
        return False  # a decorator's, which may give anything, whatever the function in it says
    if iscoroutinefunction(execute):
        return False
    if isasyncgenfunction(execute):
        return True
    with suppress(NameError):  # raised by newer Pythons for names that are there for type checkers alone
        returns = execute.__annotations__.get("return", Any)
        if isinstance(returns, str):
            return returns == "None" or returns.startswith("AgentResult")
        return returns is None or (isinstance(returns, type) and issubclass(returns, AgentResult))
    return False


def _default_name(cls: type) -> str:
    words = cls.__name__.removesuffix("Agent") or cls.__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words).lower()
