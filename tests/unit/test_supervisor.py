"""Supervision: when workers are started again, how all are stopped, and that no two have one id."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streams.supervised import LINK, Link
from streams.supervisor import (
    FUTILE_STARTS,
    LONGEST_PAUSE_SECONDS,
    STABLE_SECONDS,
    Backoff,
    Ended,
    Spares,
    Supervisor,
    WorkerRefusedError,
    forward,
    hold_slots,
    instance_prefix,
    place_of,
)

LIMIT = 30.0


def pauses(lives: Sequence[float], chance: float = 1.0) -> list[float]:
    backoff = Backoff(lambda: chance)
    return [backoff.pause(lived) for lived in lives]


def test_pauses_double_up_to_a_limit() -> None:
    assert pauses([0] * 5) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])
    assert pauses([0] * 50)[-1] == LONGEST_PAUSE_SECONDS


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    assert pauses([0] * 3, chance=0.0) == pytest.approx([0.05, 0.1, 0.2])


def test_a_stable_minute_makes_pauses_short_again() -> None:
    assert pauses([0, 0, 0, STABLE_SECONDS, 0, 0]) == pytest.approx([0.1, 0.2, 0.4, 0.1, 0.1, 0.2])


def test_a_worker_that_worked_for_a_while_does_not_wait_longer() -> None:
    assert pauses([15, 15, 15, 0, 15]) == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2])


class FakeWorker:
    def __init__(self, host: "Host", slot: int) -> None:
        self.pid = len(host.started)
        self.host, self.slot = host, slot
        self.end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.told: list[str] = []

    async def ended(self) -> Ended:
        return await self.end

    def stop(self) -> None:
        self.told.append("stop")
        if self.host.obedient:
            self.ends(0)

    def kill(self) -> None:
        self.told.append("kill")
        self.ends(-signal.SIGKILL)

    def ends(self, code: int, *, ran: bool = True, problem: str | None = None) -> None:
        if not self.end.done():
            self.end.set_result(Ended(code, ran, problem))


class Host:
    """A supervisor of workers that a test plays, in a time that the test makes."""

    def __init__(self, slots: Sequence[int] = (0, 1), *, obedient: bool = True) -> None:
        self.now = 0.0
        self.obedient = obedient
        self.started: list[FakeWorker] = []
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.failures = 0
        self.supervisor = Supervisor(
            self._start, slots, patience=20, clock=lambda: self.now, sleep=self._sleep, chance=lambda: 1.0
        )
        self.running = asyncio.create_task(self.supervisor.run())

    async def _start(self, slot: int) -> FakeWorker:
        if self.failures:
            self.failures -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.started.append(FakeWorker(self, slot))
        return self.started[-1]

    async def _sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, future))
        await future

    async def pass_time(self, seconds: float) -> None:
        await self.settle()  # what happened before comes before
        self.now += seconds
        for at, future in self.sleepers:
            if at <= self.now + 1e-9 and not future.done():
                future.set_result(None)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def slots(self) -> list[int]:
        return [worker.slot for worker in self.started]


async def started(slots: Sequence[int] = (0, 1), *, obedient: bool = True) -> Host:
    host = Host(slots, obedient=obedient)
    await host.settle()
    assert host.slots() == list(slots)
    return host


async def stopped(host: Host) -> None:
    host.supervisor.stop()
    async with asyncio.timeout(LIMIT):
        await host.running


async def test_the_one_that_dies_is_started_again_in_its_slot_and_the_other_left_alone() -> None:
    host = await started((2, 5))
    with capture_logs() as logs:
        host.started[1].ends(-signal.SIGKILL)
        await host.pass_time(0)
        assert host.slots() == [2, 5]
        await host.pass_time(0.1)
    assert host.slots() == [2, 5, 5]
    assert [(it["worker"], it["how"]) for it in logs if "how" in it] == [(5, "SIGKILL")]
    assert host.started[0].told == []
    await stopped(host)


async def test_each_slot_has_pauses_of_its_own() -> None:
    host = await started()
    for pause in (0.1, 0.2, 0.4):
        host.started[-1].ends(1)
        await host.pass_time(pause - 0.05)
        before = len(host.started)
        await host.pass_time(0.05)
        assert len(host.started) == before + 1
    host.started[0].ends(1)
    await host.pass_time(0.1)
    assert host.slots() == [0, 1, 1, 1, 1, 0]
    await stopped(host)


async def test_all_are_stopped_at_once_and_none_is_started_again() -> None:
    host = await started(obedient=False)
    host.supervisor.stop()
    host.supervisor.stop()
    await host.settle()
    assert [worker.told for worker in host.started] == [["stop"], ["stop"]]
    assert not host.running.done()
    for worker in host.started:
        worker.ends(0)
    async with asyncio.timeout(LIMIT):
        await host.running
    assert host.slots() == [0, 1]


async def test_a_stop_does_not_wait_for_a_pause() -> None:
    host = await started((0,))
    host.started[0].ends(1)
    await host.settle()
    await stopped(host)
    assert host.slots() == [0]


async def test_one_that_does_not_end_in_time_is_killed() -> None:
    host = await started(obedient=False)
    host.supervisor.stop()
    host.started[0].ends(0)
    await host.pass_time(19.9)
    assert host.started[1].told == ["stop"]
    await host.pass_time(0.1)
    assert host.started[1].told == ["stop", "kill"]
    async with asyncio.timeout(LIMIT):
        await host.running


async def test_told_twice_all_end_at_once() -> None:
    host = await started(obedient=False)
    host.supervisor.stop()
    host.supervisor.kill()
    async with asyncio.timeout(LIMIT):
        await host.running
    assert [worker.told for worker in host.started] == [["stop", "kill"], ["stop", "kill"]]


async def test_a_problem_at_the_start_ends_everything_with_what_it_says() -> None:
    host = await started((0, 1, 2))
    host.started[1].ends(2, ran=False, problem="no such module")
    host.started[2].ends(2, ran=False, problem="no such module")
    with pytest.raises(WorkerRefusedError, match="no such module") as caught:
        await host.running
    assert caught.value.code == 2
    assert host.started[0].told == ["stop"]
    assert host.slots() == [0, 1, 2]


async def test_once_any_ran_a_problem_is_an_accident() -> None:
    host = await started()
    host.started[0].ends(-signal.SIGKILL)
    await host.pass_time(0.1)
    for pause in (0.2, 0.4):
        host.started[-1].ends(2, ran=False, problem="the file was being replaced")
        await host.pass_time(pause)
    assert host.slots() == [0, 1, 0, 0, 0]
    await stopped(host)


async def test_an_end_without_a_word_is_an_accident_even_at_the_start() -> None:
    host = await started((0,))
    host.started[0].ends(-signal.SIGSEGV, ran=False)
    await host.pass_time(0.1)
    assert host.slots() == [0, 0]
    await stopped(host)


async def test_workers_that_never_run_are_spoken_of_once() -> None:
    host = await started((0,))
    with capture_logs() as logs:
        for _ in range(2 * FUTILE_STARTS):
            host.started[-1].ends(3, ran=False)
            await host.pass_time(LONGEST_PAUSE_SECONDS)
    ends = [line for line in logs if line["event"] == "a worker ended and is started again"]
    assert len(ends) == 2 * FUTILE_STARTS
    assert all("problem" not in line for line in ends)
    (advice,) = [line for line in logs if line["log_level"] == "error"]
    assert "without --workers" in advice["event"]
    assert (advice["starts"], advice["how"]) == (FUTILE_STARTS, "exit code 3")
    await stopped(host)


async def test_workers_that_ran_need_no_advice() -> None:
    host = await started((0,))
    with capture_logs() as logs:
        for _ in range(2 * FUTILE_STARTS):
            host.started[-1].ends(1)
            await host.pass_time(LONGEST_PAUSE_SECONDS)
    assert [line for line in logs if line["log_level"] == "error"] == []
    await stopped(host)


async def test_a_machine_without_room_for_a_process() -> None:
    host = await started((0,))
    host.failures = 1
    host.started[0].ends(1)
    await host.pass_time(0.1)
    assert host.slots() == [0]
    await host.pass_time(0.2)
    assert host.slots() == [0, 0]
    await stopped(host)


# Slots -------------------------------------------------------------------------------------------


def numbers(folder: Path, count: int, then: Callable[[], None] = lambda: None) -> list[int]:
    with hold_slots(folder, count) as slots:
        then()
        return [slot.number for slot in slots]


def test_slots_in_use_are_passed_over(tmp_path: Path) -> None:
    found: list[int] = []
    assert numbers(tmp_path / "app", 2, lambda: found.extend(numbers(tmp_path / "app", 3))) == [0, 1]
    assert found == [2, 3, 4]
    assert numbers(tmp_path / "app", 2) == [0, 1]


def test_a_worker_that_outlives_its_supervisor_keeps_its_slot(tmp_path: Path) -> None:
    with hold_slots(tmp_path, 1) as (slot,):
        worker = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[slot.lock]
        )
    try:
        assert numbers(tmp_path, 1) == [1]
    finally:
        worker.communicate(b"\n")
    assert numbers(tmp_path, 1) == [0]


def test_an_id_stays_and_names_machine_home_and_application(tmp_path: Path) -> None:
    prefix = instance_prefix(tmp_path, "shop.agents:app")
    assert instance_prefix(tmp_path, "shop.agents:app") == prefix
    assert prefix.endswith("-shop.agents_app")
    others = {
        instance_prefix(tmp_path, "shop.agents:other"),
        instance_prefix(tmp_path / "elsewhere", "shop.agents:app"),
    }
    assert len({prefix, *others}) == 3


def test_an_id_is_short_and_plain_whatever_the_names_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "höst name " * 30)
    prefix = instance_prefix(tmp_path, "a/../b:" + "x" * 300)
    assert len(prefix) < 249 - len("-9999")
    assert set(prefix) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-h")
    assert place_of(tmp_path, "../../etc:app").parent == tmp_path / "workers"


# A worker and its supervisor ---------------------------------------------------------------------


async def test_lines_are_shown_whole_with_their_worker(tmp_path: Path) -> None:
    reader = asyncio.StreamReader()
    for chunk in (b"on", b"e\ntwo\n\nthr", b"ee"):
        reader.feed_data(chunk)
    reader.feed_eof()
    with (tmp_path / "shown").open("wb") as target:
        await forward(reader, target, lambda: b"3 | ")
    assert (tmp_path / "shown").read_bytes() == b"3 | one\n3 | two\n3 | \n3 | three\n"


def test_a_process_without_a_supervisor_has_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LINK, raising=False)
    assert Link.of_this_process() is None


WORKER = """
import sys, threading
from streams.supervised import Link
link = Link.of_this_process()
assert Link.of_this_process() is None
told = threading.Event()
link.when_told_to_leave(told.set)
link.tell_running()
link.tell_problem("none so far")
assert told.wait(30)
print("left", flush=True)
threading.Event().wait(30)
"""


def test_a_worker_hears_its_supervisor_and_does_not_outlive_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        given = {
            "slot": 1,
            "socket": theirs.fileno(),
            "terminal": False,
        }
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=os.environ | {LINK: json.dumps(given)},
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        timer = threading.Timer(LIMIT, worker.kill)
        timer.start()
        with ours.makefile("rb") as said:
            assert [json.loads(said.readline()) for _ in range(2)] == [
                {"runs": True},
                {"problem": "none so far"},
            ]
        ours.sendall(b"leave\n")
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"left\n"
        timer.cancel()
    with worker:
        assert worker.wait(LIMIT) == -signal.SIGKILL


def supervised(*, parent: int, order: dict[str, object] | None) -> "subprocess.CompletedProcess[str]":
    """Run a worker's process, and tell it what to be, or nothing."""
    ours, theirs = socket.socketpair()
    with theirs, ours:
        ours.sendall(b"" if order is None else json.dumps(order).encode() + b"\n")
        ours.shutdown(socket.SHUT_WR)
        given = {"socket": theirs.fileno(), "locks": [], "parent": parent}
        return subprocess.run(
            [sys.executable, "-P", "-m", "streams.supervised"],
            env=os.environ | {LINK: json.dumps(given)},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )


def test_a_worker_whose_supervisor_went_before_it_looked_ends_at_once() -> None:
    assert supervised(parent=1, order=None).returncode == 1


def test_a_spare_process_that_is_not_needed_ends() -> None:
    ended = supervised(parent=os.getpid(), order=None)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_spare_process_becomes_the_command_it_is_told_to_be() -> None:
    order = {
        "slot": 3,
        "lock": -1,
        "terminal": False,
        "arguments": ["--version"],
        "environment": {"CALLBOARD_LLM": "off"},
    }
    ended = supervised(parent=os.getpid(), order=order)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, version("callboard"), "")


class FakeProcess:
    def __init__(self) -> None:
        self.alive = True

    def kill(self) -> None:
        self.alive = False

    async def ended(self) -> Ended:
        return Ended(-signal.SIGKILL)


class Factory:
    def __init__(self) -> None:
        self.made: list[FakeProcess] = []
        self.spares = Spares(self._make)  # type: ignore[arg-type]

    async def _make(self) -> FakeProcess:
        await asyncio.sleep(0)
        self.made.append(FakeProcess())
        return self.made[-1]

    async def refilled(self) -> None:
        for _ in range(3):
            self.spares.refill()
            for _ in range(5):
                await asyncio.sleep(0)


async def test_one_process_is_kept_for_the_next_worker() -> None:
    factory = Factory()
    first: object = await factory.spares.take()
    assert factory.made == [first]
    await factory.refilled()
    assert len(factory.made) == 2
    second: object = await factory.spares.take()
    assert second is factory.made[1]
    await factory.spares.take()
    assert len(factory.made) == 3


async def test_a_spare_that_died_is_no_spare() -> None:
    factory = Factory()
    await factory.refilled()
    factory.made[0].alive = False
    taken: object = await factory.spares.take()
    assert taken is factory.made[1]


async def test_the_spare_ends_with_the_supervisor_and_no_other_is_made() -> None:
    factory = Factory()
    factory.spares.refill()
    await factory.spares.close()
    assert [it.alive for it in factory.made] == [False]
    await factory.refilled()
    assert len(factory.made) == 1
