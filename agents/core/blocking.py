"""Lets a coroutine that blocks run in a thread with its own event loop, and reach back to the first one.

Threads are daemons: one that never comes back does not keep the process from ending.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import structlog

log = structlog.stdlib.get_logger()

T = TypeVar("T")

GRACE_SECONDS = 5.0

_home: ContextVar[asyncio.AbstractEventLoop] = ContextVar("home")


async def in_thread(
    work: Callable[[], Coroutine[Any, Any, T]],
    *,
    name: str = "callboard-blocking",
    grace: float = GRACE_SECONDS,
) -> T:
    """Run a coroutine that may block in a thread of its own, with its own event loop.

    It sees a copy of the caller's context variables; what it sets there, the caller does not see. What is
    bound to the caller's loop (clients, locks, journaled steps) it reaches through `at_home`.

    Canceling cancels the coroutine at its next `await` and waits for it to end, so that nothing of a canceled
    run goes on beside its successor. A thread cannot be stopped from outside: one that has not come back
    `grace` seconds later, or by the second cancellation, is given up. It goes on until it returns, and what
    it returns is dropped.

    Args:
        work: Makes the coroutine; called in the thread.
        name: Of the thread, for stacks.
        grace: Seconds a canceled coroutine gets to end.

    Raises:
        BaseException: What the coroutine raised.
    """
    call = _Call(work)
    context = contextvars.copy_context()
    threading.Thread(target=call.run, args=(context,), name=name, daemon=True).start()
    try:
        return await asyncio.shield(call.done)
    except asyncio.CancelledError:
        if call.done.done():  # the coroutine itself ended so; nobody canceled the caller
            raise
        call.cancel()
        try:
            async with asyncio.timeout(grace):
                with suppress(Exception):
                    await asyncio.shield(call.done)
        except TimeoutError:
            log.warning("a canceled handler did not come back from its thread; it is given up", thread=name)
        finally:
            call.done.cancel()
        raise


async def at_home(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on the loop that `in_thread` was called on; where there is none, right here.

    Canceling the caller cancels the coroutine.
    """
    home = _home.get(None)
    if home is None or home is asyncio.get_running_loop():
        return await work()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), home))


class _Call(Generic[T]):
    """One coroutine on its way through a thread."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._caller = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._caller.create_future()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self._canceled = False

    def run(self, context: contextvars.Context) -> None:
        """Be the thread."""
        context.run(_home.set, self._caller)
        try:
            with asyncio.Runner() as runner:
                result = runner.run(self._main(), context=context)
        except BaseException as error:  # noqa: BLE001 (it is the caller's: raised again there)
            self._tell(self._fail, error)
        else:
            self._tell(self._succeed, result)

    def cancel(self) -> None:
        """Cancel the coroutine, from the caller's thread."""
        with self._lock:
            self._canceled = True
            loop, task = self._loop, self._task
        if loop is not None and task is not None:
            # A loop that was closed in between has nothing left to cancel.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

    async def _main(self) -> T:
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            canceled = self._canceled
        if canceled:
            raise asyncio.CancelledError
        return await self._work()

    def _tell(self, how: Callable[[Any], None], what: object) -> None:
        # The caller's loop may be closed by now: then nobody waits any more.
        with suppress(RuntimeError):
            self._caller.call_soon_threadsafe(how, what)

    def _succeed(self, result: T) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if self.done.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.done.cancel()
        elif isinstance(error, StopIteration):
            self.done.set_exception(RuntimeError(f"the handler raised {error!r}"))
        else:
            self.done.set_exception(error)
