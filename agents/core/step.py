"""Journaled side effects of a run: said before they happen, kept before they are used, so none is paid twice.

A step is found again by what it does (kind, name, request) and how many equal ones came before it in the same
attempt, never by a place in some order: steps that run at the same time are found again in any order.

    recorded as completed   its answer, and nothing happens
    recorded as started     in doubt: it may have happened. Repeated and logged, or the run is parked
    recorded as failed      it happens again
    not recorded            `started` is written, it happens, `completed` is written, its answer is used

A failure that is certain (the other side refused, the function raised) is written as `failed`. After one that
is not (a time-out, a connection lost after sending, a cancellation) nothing is written: the step is in doubt.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

import orjson
import structlog
from pydantic import BaseModel

from agents import metrics
from agents.core.errors import InDoubtError, InvalidOutputError

log = structlog.stdlib.get_logger()

State = Literal["started", "completed", "failed"]
InDoubt = Literal["retry", "park"]

MAX_ANSWER_BYTES = 1_536 * 1024  # with its envelope it fits into a record of 2 MiB
MAX_REQUEST_BYTES = 512 * 1024


class StepKey(NamedTuple):
    """What a step of a run is found again by.

    Attributes:
        kind: "llm" or "step".
        name: The model, or the name given to `Agent.step`.
        request: SHA-256 of the request's canonical JSON, hexadecimal.
        occurrence: How many steps with the same three came before it in the same attempt.
    """

    kind: str
    name: str
    request: str
    occurrence: int


class Recorded(NamedTuple):
    """The last word of the log on a step.

    Attributes:
        state: What it says.
        answer: JSON; of completed steps only.
        tries: How often the step was begun.
    """

    state: State
    answer: bytes | None = None
    tries: int = 1


class Journal(Protocol):
    """What the log knows of one run, and how it is told more; it lives through all attempts of the run.

    Each of the three writers returns when its record is acknowledged; only then does `recorded` tell of it.
    """

    def recorded(self, key: StepKey) -> Recorded | None:
        """Tell what the log knows of a step."""

    async def started(self, key: StepKey, *, tries: int, request: Any | None) -> None:
        """Write that a step is about to happen.

        Args:
            key: Which one.
            tries: How often it was begun, this time included.
            request: The request as plain JSON; none where it is larger than 512 KiB.
        """

    async def completed(self, key: StepKey, answer: bytes, *, tries: int) -> None:
        """Write a step's answer: JSON of at most 1.5 MiB."""

    async def failed(self, key: StepKey, *, tries: int, error_type: str, message: str) -> None:
        """Write that a step certainly did not give an answer that can be used."""


class Taken(NamedTuple):
    """How a step ended.

    Attributes:
        key: Which one it was.
        answer: JSON.
        replayed: Whether it came from the journal and nothing happened now.
    """

    key: StepKey
    answer: bytes
    replayed: bool


class Steps:
    """The steps of one attempt; a new one for each, or equal steps would not be found again.

    A context manager around `execute`: at its end no further step may begin, and those that were begun are
    waited for. A branch of `asyncio.gather` goes on when another one fails; its call must not be in doubt for
    the next attempt while it is still on its way. Where the run is canceled, they are canceled.

    Args:
        journal: Of the run; none outside of a worker: then steps just happen.
        agent: Name, for logs and metrics.
        run_id: For logs.
    """

    __slots__ = ("_agent", "_begun", "_ended", "_journal", "_over", "_run_id", "_seen")

    def __init__(self, journal: Journal | None = None, *, agent: str = "", run_id: str = "") -> None:
        self._journal, self._agent, self._run_id = journal, agent, run_id
        self._seen: dict[tuple[str, str, str], int] = {}
        self._begun: list[asyncio.Task[Any] | None] = []
        self._over = False
        self._ended: asyncio.Event | None = None

    async def take(  # noqa: PLR0913 (what a step is, and keyword-only how)
        self,
        kind: str,
        name: str,
        request: Any,
        act: Callable[[], Awaitable[bytes]],
        *,
        in_doubt: InDoubt = "retry",
        admission: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
    ) -> Taken:
        """Make a step happen, or find its answer in the journal.

        Args:
            kind: "llm" or "step".
            name: The model, or what the agent calls it.
            request: What names it among those of its kind and name; JSON or pydantic.
            act: Does it; gives JSON.
            in_doubt: What to do if nobody knows whether it happened before.
            admission: Entered before anything is written, and only if it is to happen.

        Raises:
            TypeError: If the request has no form in JSON.
            InDoubtError: If it is in doubt and the agent wants a person to look.
            InvalidOutputError: If the answer is too large.
            Exception: Whatever `act` raises.
        """
        canonical = canonical_json(request, f"the request of step {name!r}")
        if self._over:
            raise RuntimeError(
                f"step {name!r} began after execute had ended; await everything that execute starts"
            )
        equal = (kind, name, hashlib.sha256(canonical).hexdigest())
        # No await before this: steps that run at the same time are counted in the order they were called.
        occurrence = self._seen.get(equal, 0)
        self._seen[equal] = occurrence + 1
        key = StepKey(*equal, occurrence)
        known = None if self._journal is None else self._journal.recorded(key)
        if known is not None and known.state == "completed" and known.answer is not None:
            self._count(key, "replayed")
            return Taken(key, known.answer, replayed=True)
        task = asyncio.current_task()
        self._begun.append(task)
        try:
            if known is not None and known.state == "started":
                self._doubt(key, known, in_doubt)
            async with admission():
                answer = await self._happen(key, 1 if known is None else known.tries + 1, canonical, act)
        finally:
            self._begun.remove(task)
            if self._ended is not None and not self._begun:
                self._ended.set()
        return Taken(key, answer, replayed=False)

    def end(self) -> None:
        """Let no step begin any more."""
        self._over = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if not self._begun:
            return
        if isinstance(error, asyncio.CancelledError):
            self._cancel()
        self._ended = asyncio.Event()
        try:
            await self._ended.wait()
        except asyncio.CancelledError:
            self._cancel()
            raise

    def _cancel(self) -> None:
        for task in self._begun:
            if task is not None:
                task.cancel()

    def _doubt(self, key: StepKey, known: Recorded, in_doubt: InDoubt) -> None:
        if in_doubt == "park":
            self._count(key, "parked")
            raise InDoubtError(
                f"{_words(key)} was begun {_times(known.tries)} and nobody knows whether it happened;"
                " find out; a parked run does not go on, but its task can be published again"
                " (AgentConfig(in_doubt='retry') would repeat the step)"
            )
        self._count(key, "repeated")
        log.warning(
            "step is in doubt and happens again",
            agent=self._agent,
            run=self._run_id,
            kind=key.kind,
            name=key.name,
            occurrence=key.occurrence,
            tries=known.tries,
        )

    async def _happen(
        self, key: StepKey, tries: int, canonical: bytes, act: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        journal = self._journal
        if journal is not None:
            shown = None if len(canonical) > MAX_REQUEST_BYTES else orjson.loads(canonical)
            await journal.started(key, tries=tries, request=shown)
        try:
            answer = await act()
        except BaseException as error:
            if is_uncertain(error):
                self._count(key, "in_doubt")
            else:
                await self._failed(key, tries, error)
            raise
        if len(answer) > MAX_ANSWER_BYTES:
            too_large = InvalidOutputError(
                f"the answer of {_words(key)} has {len(answer)} bytes, and a journal keeps at most"
                f" {MAX_ANSWER_BYTES}; keep the bulk as an Artifact and answer with what names it"
            )
            await self._failed(key, tries, too_large)
            raise too_large
        if journal is not None:
            await journal.completed(key, answer, tries=tries)
        self._count(key, "completed")
        return answer

    async def _failed(self, key: StepKey, tries: int, error: BaseException) -> None:
        self._count(key, "failed")
        if self._journal is not None:
            kind = getattr(error, "type", None)
            name = kind if isinstance(kind, str) else type(error).__name__
            await self._journal.failed(key, tries=tries, error_type=name, message=str(error) or repr(error))

    def _count(self, key: StepKey, how: str) -> None:
        metrics.counter("steps", self._agent, key.kind, how).inc()


# Names of httpx's exceptions (and of httpx2's) that are raised before anything is sent.
_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})


def was_not_sent(error: BaseException) -> bool:
    """Tell whether a connection failed before anything was sent over it."""
    return isinstance(error, ConnectionRefusedError) or bool(_httpx_names(error) & _NOT_SENT)


def is_uncertain(error: BaseException) -> bool:
    """Tell whether what ended with `error` may have happened nevertheless.

    An error may say so itself, by an attribute `uncertain`. Otherwise time-outs and lost connections are,
    unless nothing was sent yet; so is cancellation.
    """
    said = getattr(error, "uncertain", None)
    if isinstance(said, bool):
        return said
    if was_not_sent(error):
        return False
    return (
        isinstance(error, TimeoutError | ConnectionError)
        or "TransportError" in _httpx_names(error)
        or not isinstance(error, Exception)
    )


def _httpx_names(error: BaseException) -> set[str]:
    # By name: agents use either of the two, or none, and this package needs neither.
    kinds = type(error).__mro__
    return {kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] in {"httpx", "httpx2"}}


def canonical_json(value: Any, what: str) -> bytes:
    """Give the one JSON text of a value: sorted keys, no spaces, UTF-8; pydantic models as their JSON.

    Args:
        value: To be encoded.
        what: Named in errors.

    Raises:
        TypeError: If it has no form in JSON: an unknown type, NaN, a set, keys that are no strings.
    """
    try:
        text = orjson.dumps(value, _plain, orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} has no form in JSON: {error}; use JSON values or pydantic models") from error
    # orjson writes null for NaN and infinity; most values have none, and need no second look.
    if b"null" in text and not _is_finite(value):
        raise TypeError(f"{what} has no form in JSON: it holds NaN or infinity")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, BaseModel):
        return _is_finite(value.model_dump())
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_finite, value))
    return True


def _words(key: StepKey) -> str:
    what = f"the question to {key.name!r}" if key.kind == "llm" else f"step {key.name!r}"
    return f"{what} ({key.request[:12]}, number {key.occurrence + 1})"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
