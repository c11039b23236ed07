"""Asks a language model; the only importer of `anthropic`, and only when the first question is asked.

Backends are chosen openly, never by silent fallback: `AgentConfig(llm=...)`, else `CALLBOARD_LLM`, else
`anthropic` if `ANTHROPIC_API_KEY`, `ANTHROPIC_AUTH_TOKEN` or `ANTHROPIC_BASE_URL` is set, else an error.
Never retries: the runtime is the one owner of retries.
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_args

import orjson

from agents.core.budget import MOST, NOTHING, Allowance, Spent
from agents.core.errors import ConfigurationError, LLMIncompleteError, LLMOffError, LLMUnavailableError
from agents.core.step import InDoubt, Steps, was_not_sent
from agents.core.task import Task, current_task

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

Backend = Literal["anthropic", "off"]

CHOICE = "CALLBOARD_LLM"
CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")
TIMEOUT = 600.0
# Longer than the client's 5 s: a busy event loop is no provider that cannot be reached.
CONNECT_SECONDS = 30.0
# A guess that errs upward, for what a call may take before anybody counted it.
BYTES_PER_TOKEN = 3
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

    @property
    def replayed(self) -> bool:
        """Whether it came out of the journal, and nothing was asked now."""
        return self.details.replayed


class Provider(Protocol):
    """One way to ask a model."""

    @property
    def asks(self) -> bool:
        """Whether a model is there to be asked; false in evidence mode."""

    async def ask(  # noqa: PLR0913 (a question, and keyword-only how)
        self,
        prompt: str,
        *,
        system: str | None,
        model: str,
        max_tokens: int,
        timeout: float = ...,  # noqa: ASYNC109 (the client's own: it knows whether anything was sent)
        in_doubt: InDoubt = ...,
    ) -> LLMReply:
        """Put one question, or find its answer in the journal of the current run.

        Args:
            prompt: What to ask.
            system: What the model is told about its role.
            model: Its name.
            max_tokens: Most tokens of the answer.
            timeout: Seconds to wait for the answer.
            in_doubt: What to do if nobody knows whether the question was put before.

        Raises:
            LLMError: As its subclasses say.
            InDoubtError: As `in_doubt` says.
            BudgetExceededError: If the run may not spend what the answer may take.
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

    async def ask(
        self, prompt: str, *, system: str | None, model: str, max_tokens: int, **options: object
    ) -> LLMReply:
        """Refuse.

        Raises:
            LLMOffError: Always.
        """
        del prompt, system, max_tokens, options
        raise LLMOffError(
            f"this worker runs without a language model ({CHOICE}=off), so {model!r} was not asked;"
            " set ANTHROPIC_API_KEY and start it with `--llm anthropic`"
        )


class AnthropicProvider:
    """The Anthropic Messages API, or any server that speaks it at `ANTHROPIC_BASE_URL`."""

    asks = True

    def __init__(self) -> None:
        self._client: AsyncAnthropic | None = None

    async def ask(  # noqa: PLR0913 (a question, and keyword-only how)
        self,
        prompt: str,
        *,
        system: str | None,
        model: str,
        max_tokens: int,
        timeout: float = TIMEOUT,  # noqa: ASYNC109 (the client's own: it knows whether anything was sent)
        in_doubt: InDoubt = "retry",
    ) -> LLMReply:
        """Put one question, or find its answer in the journal; add its usage to the current task.

        The answer is journaled as it came, before it is judged: one that is not whole is paid once, too.

        Raises:
            LLMIncompleteError: If the answer is not whole.
            LLMUnavailableError: If the provider refused or could not be reached.
            InDoubtError: If nobody knows whether the question was put before, and `in_doubt` is "park".
            BudgetExceededError: If the run may not spend what the answer may take.
        """
        task = _task()
        request: dict[str, Any] = {
            "model": model,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": prompt}],
        }
        if system:
            request["system"] = system
        most = max_tokens + len(f"{prompt}{system or ''}".encode(errors="replace")) // BYTES_PER_TOKEN
        admission = _Admission(self._connect, None if task is None else task.allowance, most)

        async def send() -> bytes:
            # From here on it may be paid for, whatever comes back.
            admission.spent = Spent(calls=1, input_tokens=most)
            try:
                answer = await self._send(request, timeout)
            except LLMUnavailableError as error:
                if not error.uncertain:
                    admission.spent = NOTHING
                raise
            admission.spent = _spent(orjson.loads(answer))
            return answer

        steps = Steps() if task is None else task.steps
        taken = await steps.take("llm", model, request, send, in_doubt=in_doubt, admission=lambda: admission)
        message = orjson.loads(taken.answer)
        spent = _spent(message)
        if task is not None:
            is_news = task.usage.add(taken.key, spent, replayed=taken.replayed)
            # What an earlier attempt of this process paid is in the allowance already.
            if is_news and taken.replayed and task.allowance is not None:
                task.allowance.charge(spent)
        return _read(message, asked=model, replayed=taken.replayed)

    async def _send(self, request: dict[str, Any], timeout: float) -> bytes:  # noqa: ASYNC109 (as above)
        import anthropic  # noqa: PLC0415 (see `_connect`)

        model = request["model"]
        client = await self._connect()
        try:
            # Raw: the client's own reading costs time, and drops what it does not know.
            response = await client.messages.with_raw_response.create(
                **request, timeout=anthropic.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
            )
            answer: bytes = await response.read()
            orjson.loads(answer)
        except anthropic.APIStatusError as error:
            raise LLMUnavailableError(
                f"the provider answered {error.status_code} for model {model!r}: {error.message}",
                retryable=_may_be_asked_again(error),
                retry_after=_retry_after(error.response.headers),
            ) from error
        except anthropic.APIConnectionError as error:
            raise LLMUnavailableError(
                f"the provider could not be reached for model {model!r}: {error}",
                retryable=True,
                uncertain=error.__cause__ is None or not was_not_sent(error.__cause__),
            ) from error
        except orjson.JSONDecodeError as error:
            # It begins like an answer and ends too early: lost on its way, as by a broken connection. What a
            # proxy sends in its place begins otherwise.
            broken_off = answer.lstrip()[:1] == b"{"
            raise LLMUnavailableError(
                f"the provider's answer for model {model!r} cannot be read"
                f" ({len(answer)} bytes{', broken off' if broken_off else ''}): {error}",
                retryable=broken_off,
                uncertain=broken_off,
            ) from error
        except anthropic.APIError as error:
            raise LLMUnavailableError(
                f"the provider's answer for model {model!r} cannot be read: {error}", retryable=False
            ) from error
        return answer

    async def _connect(self) -> "AsyncAnthropic":
        if self._client is None:
            # Takes a second or two: paid by the first question only, and not by the others on this loop.
            await asyncio.to_thread(import_module, "anthropic")
        if self._client is None:
            self._client = _make_client()
        return self._client


class _Admission:
    """One call's part of what the run may spend, from before it is begun until it is known what it took."""

    def __init__(
        self, prepare: Callable[[], Awaitable[object]], allowance: Allowance | None, tokens: int
    ) -> None:
        self._prepare, self._allowance, self._tokens = prepare, allowance, tokens
        self._number = 0
        self.spent = NOTHING

    async def __aenter__(self) -> None:
        await self._prepare()
        if self._allowance is not None:
            self._number = await self._allowance.reserve(self._tokens)

    async def __aexit__(self, *_: object) -> None:
        if self._allowance is not None:
            self._allowance.settle(self._number, self.spent)


def _task() -> Task | None:
    try:
        return current_task()
    except LookupError:  # asked outside of a run, by a test or a script: nobody counts
        return None


def _make_client() -> "AsyncAnthropic":
    import anthropic  # noqa: PLC0415 (as above)
    import httpx2  # noqa: PLC0415 (comes with it)

    # A server of one's own often needs no key, yet the client insists on one.
    key = None if any(os.environ.get(name) for name in CREDENTIALS[:2]) else "none"
    # The agents' concurrency is the limit; a second one in here would let calls time out while they queue.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    return anthropic.AsyncAnthropic(
        api_key=key, max_retries=0, http_client=anthropic.DefaultAsyncHttpxClient(limits=limits)
    )


def _may_be_asked_again(error: "APIStatusError") -> bool:
    if (error.error_code or "").endswith("spend_limit_reached"):
        return False  # comes as 429 as well, and waiting does not help
    said = error.response.headers.get("x-should-retry")
    if said in {"true", "false"}:
        return bool(said == "true")
    return error.status_code in {408, 409, 429} or error.status_code >= 500  # noqa: PLR2004 (HTTP)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < math.inf else None
    try:
        at = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    except (KeyError, ValueError, TypeError):  # none, no date, or a date without a zone
        return None


def spent_on(answer: bytes) -> Spent:
    """Tell what an answer in the journal took."""
    return _spent(orjson.loads(answer))


def _spent(message: Any) -> Spent:
    usage = message.get("usage") if isinstance(message, dict) else None
    counts = [
        usage.get(name) if isinstance(usage, dict) else None for name in ("input_tokens", "output_tokens")
    ]
    # Nobody has checked these either, and results have no words for every number.
    return Spent(1, *(min(count, MOST) if isinstance(count, int) and count > 0 else 0 for count in counts))


def _read(message: Any, *, asked: str, replayed: bool) -> LLMReply:
    try:
        # Nobody has checked what was sent: a proxy's login page arrives here as well.
        text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
        details = ReplyDetails(
            model=message["model"],
            stop_reason=message.get("stop_reason") or "none",
            input_tokens=message["usage"]["input_tokens"],
            output_tokens=message["usage"]["output_tokens"],
            replayed=replayed,
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise LLMUnavailableError(
            f"the provider's answer for model {asked!r} is no message of the Messages API;"
            " is ANTHROPIC_BASE_URL the right address?",
            retryable=False,
        ) from error
    if details.stop_reason not in WHOLE_ANSWERS:
        advice = ADVICE.get(details.stop_reason, "so its answer is not whole")
        raise LLMIncompleteError(
            f"model {details.model!r} stopped with {details.stop_reason!r} after"
            f" {details.output_tokens} tokens; {advice}",
            partial=text,
        )
    return LLMReply(text, details)
