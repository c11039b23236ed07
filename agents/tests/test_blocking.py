"""Coroutines that block: their own thread and loop, the caller's context, and what canceling them means."""

import asyncio
import contextvars
import threading

import pytest
from structlog.testing import capture_logs

from agents.core.blocking import at_home, in_thread

LIMIT = 30.0

marked: contextvars.ContextVar[str] = contextvars.ContextVar("marked")


async def test_it_runs_elsewhere_and_gives_what_it_returns() -> None:
    here, loop = threading.get_ident(), asyncio.get_running_loop()

    async def work() -> tuple[bool, bool, str, bool]:
        await asyncio.sleep(0)
        this = threading.current_thread()
        return this.ident != here, asyncio.get_running_loop() is not loop, this.name, this.daemon

    assert await in_thread(work, name="mine") == (True, True, "mine", True)


async def test_the_loop_goes_on_meanwhile() -> None:
    turned = threading.Event()

    async def work() -> bool:
        return turned.wait(LIMIT)  # blocks: only the caller's loop can end it

    asyncio.get_running_loop().call_soon(turned.set)
    assert await in_thread(work)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt("k")])
async def test_what_it_raises_is_raised(error: BaseException) -> None:
    async def work() -> None:
        raise error

    async def call() -> BaseException | None:
        try:
            await in_thread(work)
        except BaseException as raised:  # noqa: BLE001 (the subject)
            return raised
        return None

    assert await call() is error


async def test_a_coroutine_that_raises_its_own_cancellation_does_not_cancel_the_caller() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await in_thread(work)
    this = asyncio.current_task()
    assert this is not None
    assert not this.cancelling()


async def test_context_goes_in_and_does_not_come_out() -> None:
    marked.set("outside")

    async def work() -> str:
        found = marked.get()
        marked.set("inside")
        return found

    assert await in_thread(work) == "outside"
    assert marked.get() == "outside"


async def test_at_home_runs_on_the_callers_loop_in_the_coroutines_context() -> None:
    home = asyncio.get_running_loop()

    async def ask() -> tuple[bool, str]:
        return asyncio.get_running_loop() is home, marked.get()

    async def work() -> tuple[tuple[bool, str], tuple[bool, str]]:
        marked.set("inside")
        return await at_home(ask), await ask()

    assert await in_thread(work) == ((True, "inside"), (False, "inside"))


async def test_at_home_is_right_here_for_those_who_are_there() -> None:
    async def ask() -> int:
        return threading.get_ident()

    assert await at_home(ask) == threading.get_ident()


async def test_at_home_raises_what_it_raises_there() -> None:
    async def ask() -> None:
        raise ValueError("no")

    async def work() -> None:
        await at_home(ask)

    with pytest.raises(ValueError, match="no"):
        await in_thread(work)


async def test_canceling_reaches_the_coroutine_and_waits_for_its_end() -> None:
    loop = asyncio.get_running_loop()
    begun, ended = asyncio.Event(), threading.Event()

    async def work() -> None:
        try:
            loop.call_soon_threadsafe(begun.set)
            await asyncio.sleep(LIMIT)
        finally:
            ended.set()

    call = asyncio.create_task(in_thread(work, grace=LIMIT))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()


async def test_canceling_reaches_what_runs_at_home() -> None:
    begun, canceled = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        begun.set()
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            canceled.set()
            raise

    async def work() -> None:
        await at_home(ask)

    call = asyncio.create_task(in_thread(work, grace=LIMIT))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(LIMIT):
        await canceled.wait()


async def test_a_thread_that_does_not_come_back_is_given_up_and_its_result_dropped() -> None:
    loop = asyncio.get_running_loop()
    begun, release, over = asyncio.Event(), threading.Event(), asyncio.Event()

    async def work() -> str:
        loop.call_soon_threadsafe(begun.set)
        release.wait(LIMIT)
        loop.call_soon_threadsafe(over.set)
        return "too late"

    call = asyncio.create_task(in_thread(work, name="stuck", grace=0))
    await begun.wait()
    call.cancel()
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await call
    assert [each["thread"] for each in logs] == ["stuck"]
    release.set()
    await over.wait()


async def test_a_second_cancellation_does_not_wait() -> None:
    loop = asyncio.get_running_loop()
    begun, release = asyncio.Event(), threading.Event()

    async def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(LIMIT)

    call = asyncio.create_task(in_thread(work, grace=LIMIT))
    await begun.wait()
    for _ in range(2):
        call.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not release.is_set()
    release.set()


async def test_a_coroutine_that_ends_although_it_was_canceled_changes_nothing() -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    async def work() -> str:
        try:
            loop.call_soon_threadsafe(begun.set)
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            return "finished all the same"
        raise AssertionError

    call = asyncio.create_task(in_thread(work, grace=LIMIT))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_a_caller_whose_loop_is_gone_is_nobody_to_tell() -> None:
    release = threading.Event()

    async def call() -> threading.Thread:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[threading.Thread] = loop.create_future()

        async def work() -> None:
            loop.call_soon_threadsafe(begun.set_result, threading.current_thread())
            release.wait(LIMIT)

        running = asyncio.create_task(in_thread(work, grace=0))
        thread = await begun
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return thread

    thread = asyncio.run(call())
    release.set()
    thread.join(LIMIT)
    assert not thread.is_alive()
