"""The watchdog: what it makes of a loop that answers late, and whom it names."""

import asyncio
import queue
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import structlog
from structlog.testing import capture_logs

from agents import metrics
from agents.core import Agent, AgentConfig, AgentResult, AgentStatus
from streams import watchdog
from streams.command_line.output import ExitCode
from streams.watchdog import EXIT_CODE, TICK_SECONDS, Pulse, Watchdog, look_at


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("yyyyyy", ""),
        ("y---y", "3: blocked, 4: over"),
        ("y--y", ""),
        ("y----------y-", "3: blocked, 11: over"),
        ("y---yy---y", "3: blocked, 4: over, 8: blocked, 9: over"),
        ("y" + "-" * 15, "3: blocked, 15: hangs"),
        ("y" + "-" * 14 + "y", "3: blocked, 15: over"),
    ],
)
def test_a_pulse(answers: str, expected: str) -> None:
    pulse = Pulse(limit=3.0)
    news = {n: pulse.tick(n * TICK_SECONDS + 1e-6 * n, answered=it == "y") for n, it in enumerate(answers)}
    assert ", ".join(f"{n}: {it}" for n, it in news.items() if it) == expected


def test_a_process_that_was_stopped_itself_did_not_hang() -> None:
    pulse = Pulse(limit=3.0)
    pulse.tick(0, answered=True)
    assert pulse.tick(3600, answered=False) is None
    assert pulse.still == 2 * TICK_SECONDS


class Host:
    """A watchdog whose ticks a test makes, over the test's own loop."""

    def __init__(self, limit: float) -> None:
        self.now = 100.0
        self.codes: list[int] = []
        self.dog = Watchdog(limit, clock=lambda: self.now, end=self.codes.append)
        self.dog._watch(asyncio.get_running_loop())

    def tick(self) -> None:
        self.now += TICK_SECONDS
        self.dog.look()

    def block(self, ticks: int) -> None:
        """Be a handler that does not come back for some ticks, which another thread makes."""
        with ThreadPoolExecutor(1) as thread:
            for _ in range(ticks):
                thread.submit(self.tick).result()


class BlockingAgent(Agent):
    def __init__(self, host: Host, ticks: int) -> None:
        super().__init__(AgentConfig(name="sleepy"))
        self.host, self.ticks = host, ticks

    async def execute(self, input_data: object) -> AgentResult:
        del input_data
        self.host.block(self.ticks)
        return AgentResult(status=AgentStatus.COMPLETED)


async def turn(host: Host) -> None:
    """Let the loop turn, and the watchdog see it."""
    await asyncio.sleep(0)
    host.tick()


async def test_a_block_is_told_once_with_its_stack_and_again_when_it_ended() -> None:
    host = Host(limit=60)
    counter = metrics.counter("loop_blocked_seconds", "sleepy")
    before = counter._value.get()
    with capture_logs() as logs:
        await turn(host)
        begun = host.now
        await asyncio.create_task(BlockingAgent(host, 10).execute(None), name="a run")
        assert host.dog.not_ready() == "agent sleepy blocked the event loop for 2.0 s"
        await turn(host)
    blocked, over = logs
    assert (blocked["agent"], blocked["task"], blocked["log_level"]) == ("sleepy", "a run", "warning")
    assert blocked["seconds"] <= 1
    assert re.search(r"in execute\n.*in block\n", blocked["stack"], re.DOTALL)
    assert "test_a_block_is_told" not in blocked["stack"]
    assert over["agent"] == "sleepy"
    assert over["seconds"] == pytest.approx(host.now - TICK_SECONDS - begun)
    assert counter._value.get() - before == pytest.approx(2.0)
    host.now += watchdog.ECHO_SECONDS
    assert host.dog.not_ready() is None
    assert host.codes == []


async def test_a_hang_ends_the_process() -> None:
    host = Host(limit=2)
    with capture_logs() as logs:
        await turn(host)
        await BlockingAgent(host, 10).execute(None)
    assert [each["log_level"] for each in logs] == ["warning", "critical"]
    assert "in block" in logs[1]["stack"]
    assert host.codes == [EXIT_CODE]
    assert ExitCode(EXIT_CODE) is ExitCode.BLOCKED


async def test_what_is_no_agent_is_said_to_be_none() -> None:
    host = Host(limit=60)
    with capture_logs() as logs:
        await turn(host)
        host.block(5)
    assert [each["agent"] for each in logs] == [""]
    assert "test_what_is_no_agent" in logs[0]["stack"]
    assert host.dog.not_ready() == "code outside of any agent blocked the event loop for 1.2 s"


async def test_a_loop_that_turns_is_left_alone() -> None:
    host = Host(limit=60)
    with capture_logs() as logs:
        for _ in range(50):
            await turn(host)
    assert logs == []
    assert host.dog.not_ready() is None


async def test_its_thread_notices_by_itself_and_carries_what_lines_are_marked_with() -> None:
    structlog.contextvars.bind_contextvars(worker=7)
    told = threading.Event()
    seen: list[object] = []

    class Told(Watchdog):
        def _tell(self, news: watchdog.News) -> None:
            seen.extend((news, structlog.contextvars.get_contextvars()))
            told.set()

    dog = Told(60)
    dog.start()
    try:
        began = time.monotonic()
        assert told.wait(30)  # in the loop's thread: this is the block
        assert time.monotonic() - began >= watchdog.NOTICE_SECONDS - TICK_SECONDS
    finally:
        dog.stop()
        structlog.contextvars.clear_contextvars()
    assert seen[:2] == ["blocked", {"worker": 7}]


def test_a_closed_loop_ends_its_thread() -> None:
    threads: list[threading.Thread] = []

    async def watch() -> None:
        dog = Watchdog(60)
        dog.start()
        assert dog._thread is not None
        threads.append(dog._thread)

    asyncio.run(watch())
    threads[0].join(30)
    assert not threads[0].is_alive()


@contextmanager
def thread_in(what: str) -> Iterator[int]:
    """Have a thread wait inside of a function."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name=what)
    thread.start()
    try:
        assert thread.ident is not None
        yield thread.ident
    finally:
        release.set()
        thread.join()


def test_looking_at_a_thread_without_a_task() -> None:
    loop = asyncio.new_event_loop()
    try:
        with thread_in("waits") as thread:
            sight = look_at(loop, thread)
        assert (sight.agent, sight.task) == ("", "")
        assert "in wait" in sight.stack
        assert look_at(loop, -1).stack == ""
    finally:
        loop.close()


def test_an_end_that_gets_stuck_is_ended() -> None:
    codes: queue.Queue[int] = queue.Queue()
    Watchdog(60, end=codes.put).end_at_latest(0, code=1)
    assert codes.get(timeout=10) == 1
