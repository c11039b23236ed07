"""Asks a language model; the only importer of `anthropic`, and only when the first question is asked.

Backends are chosen openly, never by silent fallback: `AgentConfig(llm=...)`, else `CALLBOARD_LLM`, else
`anthropic` if `ANTHROPIC_API_KEY`, `ANTHROPIC_AUTH_TOKEN` or `ANTHROPIC_BASE_URL` is set, else an error.
Never retries: the runtime is the one owner of retries.
"""

import os
from dataclasses import dataclass
from functools import cache
from json import JSONDecodeError
from typing import TYPE_CHECKING, Literal, Protocol, Self, get_args

from agents.core.errors import ConfigurationError, LLMIncompleteError, LLMOffError, LLMUnavailableError
from agents.core.task import current_task

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

Backend = Literal["anthropic", "off"]

CHOICE = "CALLBOARD_LLM"
CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")
WHOLE_ANSWERS = frozenset({"end_turn", "stop_sequence"})
ADVICE = {
    "max_tokens": "raise AgentConfig(max_tokens=...) or ask for less",
    "model_context_window_exceeded": "shorten the question",
    "refusal": "it declined to answer this question",
}


@dataclass(frozen=True, slots=True)
class ReplyDetails:
    """What came with a model's text; `cost` in USD, none where the price is unknown."""

    model: str
    stop_reason: str
    input_tokens: int
    output_tokens: int
    cost: float | None = None
    replayed: bool = False


class LLMReply(str):
    """The model's text; also carries `details`."""

    __slots__ = ("details",)
    details: ReplyDetails

    def __new__(cls, text: str, details: ReplyDetails) -> Self:
        """Make a string that knows where it came from."""
        reply = super().__new__(cls, text)
        reply.details = details
        return reply


class Provider(Protocol):
    """One way to ask a model."""

    @property
    def asks(self) -> bool:
        """Whether a model is there to be asked; false in evidence mode."""

    async def ask(self, prompt: str, *, system: str | None, model: str, max_tokens: int) -> LLMReply:
        """Put one question.

        Raises:
            LLMError: As its subclasses say.
        """


def chosen_backend(configured: str | None = None) -> Backend:
    """Tell which backend a worker of this environment uses.

    Args:
        configured: The agent's own choice, which wins over the environment.

    Raises:
        ConfigurationError: If nothing is chosen and no credential is set, the choice is unknown, or it needs
            a credential that is not there.
    """
    choice = configured or os.environ.get(CHOICE, "").strip().lower()
    has_credential = any(os.environ.get(name) for name in CREDENTIALS)
    if choice == "anthropic" and not has_credential:
        raise ConfigurationError(
            f"the language model backend 'anthropic' needs one of {', '.join(CREDENTIALS)}, and none is set;"
            f" set one, or {CHOICE}=off (`--llm off`) to run without a model"
        )
    if choice == "anthropic" or (not choice and has_credential):
        return "anthropic"
    if choice == "off":
        return "off"
    if choice:
        raise ConfigurationError(
            f"{CHOICE}={choice!r} is unknown; choose one of: {', '.join(get_args(Backend))}"
        )
    raise ConfigurationError(
        "no language model is chosen: set ANTHROPIC_API_KEY (or ANTHROPIC_BASE_URL for a server of your own),"
        f" or {CHOICE}=off (`--llm off`) to run without one: agents then give evidence without judgement"
    )


def provider_for(configured: str | None) -> Provider:
    """Give the provider of the chosen backend; one per process.

    Raises:
        ConfigurationError: As `chosen_backend`.
    """
    return _provider(chosen_backend(configured))


@cache
def _provider(backend: Backend) -> Provider:
    return AnthropicProvider() if backend == "anthropic" else NoProvider()


class NoProvider:
    """Evidence mode: every question is an error that says so."""

    asks = False

    async def ask(self, prompt: str, *, system: str | None, model: str, max_tokens: int) -> LLMReply:
        """Refuse.

        Raises:
            LLMOffError: Always.
        """
        del prompt, system, max_tokens
        raise LLMOffError(
            f"this worker runs without a language model ({CHOICE}=off), so {model!r} was not asked;"
            " set ANTHROPIC_API_KEY and start it with `--llm anthropic`"
        )


class AnthropicProvider:
    """The Anthropic Messages API, or any server that speaks it at `ANTHROPIC_BASE_URL`."""

    asks = True

    def __init__(self) -> None:
        self._client: AsyncAnthropic | None = None

    async def ask(self, prompt: str, *, system: str | None, model: str, max_tokens: int) -> LLMReply:
        """Put one question and add its usage to the current task.

        Raises:
            LLMIncompleteError: If the answer is not whole.
            LLMUnavailableError: If the provider refused or could not be reached.
        """
        import anthropic  # noqa: PLC0415 (takes a second to import: paid by the first question only)

        if self._client is None:
            # A server of one's own often needs no key, yet the client insists on one.
            key = None if any(os.environ.get(name) for name in CREDENTIALS[:2]) else "none"
            self._client = anthropic.AsyncAnthropic(api_key=key, max_retries=0)
        try:
            message = await self._client.messages.create(
                model=model,
                max_tokens=max_tokens,
                system=system or anthropic.omit,
                messages=[{"role": "user", "content": prompt}],
            )
        except anthropic.APIStatusError as error:
            retryable = error.status_code in {408, 409, 429} or error.status_code >= 500  # noqa: PLR2004 (HTTP)
            raise LLMUnavailableError(
                f"the provider answered {error.status_code} for model {model!r}: {error.message}",
                retryable=retryable,
            ) from error
        except anthropic.APIConnectionError as error:
            raise LLMUnavailableError(
                f"the provider could not be reached for model {model!r}: {error}", retryable=True
            ) from error
        except (anthropic.APIError, JSONDecodeError) as error:
            raise LLMUnavailableError(
                f"the provider's answer for model {model!r} cannot be read: {error}", retryable=False
            ) from error
        try:
            # The client does not check what it was sent: a proxy's login page arrives here as well.
            text = "".join(block.text for block in message.content if block.type == "text")
            details = ReplyDetails(
                model=message.model,
                stop_reason=message.stop_reason or "none",
                input_tokens=message.usage.input_tokens,
                output_tokens=message.usage.output_tokens,
            )
        except (AttributeError, TypeError) as error:
            raise LLMUnavailableError(
                f"the provider's answer for model {model!r} is no message of the Messages API;"
                " is ANTHROPIC_BASE_URL the right address?",
                retryable=False,
            ) from error
        _count(details)
        if details.stop_reason not in WHOLE_ANSWERS:
            advice = ADVICE.get(details.stop_reason, "so its answer is not whole")
            raise LLMIncompleteError(
                f"model {details.model!r} stopped with {details.stop_reason!r} after"
                f" {details.output_tokens} tokens; {advice}",
                partial=text,
            )
        return LLMReply(text, details)


def _count(details: ReplyDetails) -> None:
    try:
        usage = current_task().usage
    except LookupError:  # asked outside of a run, by a test or a script: nobody counts
        return
    usage.calls += 1
    usage.input_tokens += details.input_tokens
    usage.output_tokens += details.output_tokens
