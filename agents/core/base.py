"""The class users write agents with, and what they put in and get out."""

import re
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any, ClassVar, Generic, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypeVar

from agents.core.errors import AgentError, ConfigurationError, InvalidInputError
from agents.core.llm import LLMReply, Provider, provider_for

InputT = TypeVar("InputT", default=Any)
OutputT = TypeVar("OutputT", default=Any)

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
    version: str = Field(default="1", description="goes into every result")
    model: str = Field(default="claude-sonnet-5-5", description="model that `_call_llm` asks")
    max_tokens: int = Field(default=4096, ge=1, le=21_333, description="most tokens of one answer")
    concurrency: int = Field(default=16, ge=1, le=100_000, description="runs at the same time in one worker")
    timeout: float | None = Field(default=None, gt=0, le=YEAR, description="seconds one run may take")
    llm: Literal["anthropic", "off"] | None = Field(default=None, description="overrides CALLBOARD_LLM")


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
            detail = ErrorDetail(type=type(error).__name__, message=str(error) or repr(error))
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

    async def _call_llm(self, prompt: str, *, system: str | None = None) -> LLMReply:
        """Ask the model.

        Raises:
            LLMOffError: In evidence mode.
            LLMIncompleteError: If the model stopped before its answer was whole.
            LLMUnavailableError: If the provider refused or could not be reached.
        """
        return await self.llm.ask(
            prompt, system=system, model=self.config.model, max_tokens=self.config.max_tokens
        )


def _default_name(cls: type) -> str:
    words = cls.__name__.removesuffix("Agent") or cls.__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words).lower()
