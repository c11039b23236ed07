"""Notices when a handler blocks the event loop, says which agent's and where, and ends a process that hangs.

While the loop stands still nothing else in the process works: no heartbeat, no other run, no health page. So
a thread of its own asks the loop to turn, and looks at the loop's stack when it does not. What it sees is
told once per block and again, with the time it took, when it ended. It changes nothing else, and never tells
what a handler works on.
"""

import asyncio
import contextvars
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Literal, NamedTuple

import structlog

from agents import metrics
from agents.core.base import Agent

log = structlog.stdlib.get_logger()

EXIT_CODE = 6
TICK_SECONDS = 0.2
# With a tick before the question and one after the answer is due, a block is told within a second.
NOTICE_SECONDS = 0.6
# How long after a block readiness still speaks of it: a probe that came while it lasted is answered then.
ECHO_SECONDS = 1.0
STARVED_SECONDS = 0.8
LAST_RESORT_SECONDS = 5.0
FRAMES = 20

News = Literal["blocked", "over", "hangs"]


class Pulse:
    """Decides what a loop that answers late means; told the time, it has no clock and no thread.

    Args:
        limit: Seconds of standing still after which the process hangs.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._last: float | None = None
        self._told = False
        self.still = 0.0

    def tick(self, now: float, *, answered: bool) -> News | None:
        """Take note whether the loop turned since the last call, and say what is new.

        A process that was itself stopped (Ctrl-Z, a paused container) did not hang for that long: each call
        counts two ticks at most.
        """
        passed = 0.0 if self._last is None else min(now - self._last, 2 * TICK_SECONDS)
        self._last = now
        if answered:
            was_told, self._told, self.still = self._told, False, 0.0
            return "over" if was_told else None
        self.still += passed
        if self.still >= self._limit:
            return "hangs"
        if self.still >= NOTICE_SECONDS and not self._told:
            self._told = True
            return "blocked"
        return None


@dataclass
class Block:
    """One time the event loop stood still.

    Attributes:
        agent: Whose handler it was; empty if it was no agent's.
        since: When the loop turned for the last time, on the watchdog's clock.
        until: When it ended; none while it lasts.
    """

    agent: str
    since: float
    until: float | None = None


class Watchdog:
    """Watches the running event loop from a thread of its own.

    Args:
        limit: Seconds the loop may stand still before the process ends itself.
        clock: Monotonic seconds.
        end: Ends the process at once.
    """

    def __init__(
        self,
        limit: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._end = end
        self._pulse = Pulse(limit)
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread = 0
        self._turned = 0.0
        self._answered: float | None = None
        self._block: Block | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the loop this is called from."""
        self._watch(asyncio.get_running_loop())
        # The context carries what log lines are marked with, e.g. which worker this is.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="callboard-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        if self._thread is not None:
            self._stopped.set()
            self._thread.join()
            self._thread = None

    def end_at_latest(self, seconds: float, *, code: int) -> None:
        """End the process after some time, if it did not end in order by then."""
        last = threading.Timer(seconds, self._end, [code])
        last.daemon = True
        last.start()

    def not_ready(self) -> str | None:
        """Say that the loop stands still, or did a moment ago, or nothing."""
        block = self._block
        if block is None:
            return None
        until = self._clock() if block.until is None else block.until
        if self._clock() - until > ECHO_SECONDS:
            return None
        whose = f"agent {block.agent}" if block.agent else "code outside of any agent"
        return f"{whose} blocked the event loop for {until - block.since:.1f} s"

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._loop_thread = loop, threading.get_ident()
        self._turned = self._answered = self._clock()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(TICK_SECONDS) and not self._loop.is_closed():
                self._arm_last_resort()
                self.look()
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.setitimer(signal.ITIMER_REAL, 0)

    def look(self) -> None:
        """Ask the loop to turn, or see why it does not; called every `TICK_SECONDS`."""
        now, answered = self._clock(), self._answered
        news = self._pulse.tick(now, answered=answered is not None)
        if answered is not None:
            if news == "over":
                self._tell_end(answered)
            self._turned, self._answered = answered, None
            with suppress(RuntimeError):  # it was closed in between: nothing is left to watch
                self._loop.call_soon_threadsafe(self._answer)
        elif news is not None:
            self._tell(news)

    def _answer(self) -> None:
        self._answered = self._clock()

    def _tell(self, news: News) -> None:
        seen = look_at(self._loop, self._loop_thread)
        fields = {"agent": seen.agent, "task": seen.task, "seconds": round(self._pulse.still, 1)}
        if news == "blocked":
            self._block = Block(seen.agent, self._turned)
            log.warning(
                "the event loop stands still, and every other run with it: use `await`, or give the agent"
                " AgentConfig(blocking=True)",
                **fields,
                stack=seen.stack,
            )
            return
        log.critical(
            "the event loop stood still for too long: this process ends itself, the next one does its work",
            **fields,
            limit=self._limit,
            stack=seen.stack,
        )
        self._end(EXIT_CODE)

    def _tell_end(self, answered: float) -> None:
        block = self._block
        if block is None:
            return
        block.until = answered
        seconds = answered - block.since
        metrics.counter("loop_blocked_seconds", block.agent).inc(seconds)
        log.warning("the event loop turns again", agent=block.agent, seconds=round(seconds, 1))

    def _arm_last_resort(self) -> None:
        # Native code that keeps the interpreter's lock (a regular expression that backtracks for ever) stops
        # this thread, too. The interpreter's own timer prints the stacks without that lock, and the system's
        # alarm, for which there is no handler, ends the process.
        faulthandler.dump_traceback_later(STARVED_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, self._limit + LAST_RESORT_SECONDS)


class Sight(NamedTuple):
    """What a loop does right now.

    Attributes:
        agent: Whose code runs; empty if it is no agent's.
        task: Name of the asyncio task.
        stack: From the agent's handler inwards, as tracebacks show it.
    """

    agent: str
    task: str
    stack: str


def look_at(loop: asyncio.AbstractEventLoop, thread: int) -> Sight:
    """See what a loop does, from another thread."""
    innermost = sys._current_frames().get(thread)  # noqa: SLF001 (the documented way, for debuggers)
    task = asyncio.current_task(loop)
    frames = list(_outwards(innermost))
    agent, depth = "", len(frames)
    # The outermost agent is the one whose handler it is; inside, it may use others as it likes.
    for number, frame in reversed(list(enumerate(frames, 1))):
        it = frame.f_locals.get("self")
        if isinstance(it, Agent) and hasattr(it, "name"):
            agent, depth = it.name, number
            break
    stack = "".join(traceback.format_stack(innermost, min(depth, FRAMES))) if innermost is not None else ""
    return Sight(agent, task.get_name() if task is not None else "", stack.rstrip())


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
