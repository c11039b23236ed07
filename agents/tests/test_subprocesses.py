"""Other programs: what is known of them afterwards, and that nothing of them goes on."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from agents.subprocesses import ERRORS, FLOOD, Finished, environment_for, run

ROOT = Path(__file__).parents[2]
ENOUGH = 30.0
MEANT_TO_HANG = 600


async def python(
    source: str, *, seconds: float = ENOUGH, output_limit: int = FLOOD, flood: int = FLOOD
) -> Finished:
    """Run a Python program."""
    return await run(
        [sys.executable, "-I", "-S", "-c", source],
        folder=Path("/"),
        environment=environment_for(Path("/")),
        seconds=seconds,
        output_limit=output_limit,
        flood=flood,
        grace=0.0,
    )


def starting(folder: Path, how: str = "") -> str:
    """Give a program that starts another one, and says which."""
    return f"""\
import os, subprocess
child = subprocess.Popen(["/bin/sleep", "{MEANT_TO_HANG}"], {how})
with open("{folder}/new", "w") as file:
    file.write(str(child.pid))
os.rename("{folder}/new", "{folder}/child")
"""


async def started(folder: Path) -> int:
    """Wait until there is that other one."""
    while not (folder / "child").exists():  # noqa: ASYNC110 (another process's doing)
        await asyncio.sleep(0.005)
    return int((folder / "child").read_text())


async def gone(process: int) -> None:
    """Wait until a process is not there, or only for somebody to collect how it ended."""
    async with asyncio.timeout(ENOUGH):
        while is_running(process):  # noqa: ASYNC110 (another process's doing)
            await asyncio.sleep(0.005)


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def test_output_errors_and_exit_code_are_told() -> None:
    finished = await python("import sys; print('said'); print('\\x1bwhy', file=sys.stderr); sys.exit(3)")
    assert finished == Finished(3, b"said\n", b"\x1bwhy\n", cut=False, timed_out=False)
    assert finished.last_words() == "why"


async def test_of_long_output_the_beginning_and_the_end_are_kept() -> None:
    finished = await python("print('a' * 1000 + 'b' * 1000, end='')", output_limit=10)
    assert finished.output == b"aaaaa\n[... 1990 bytes left out ...]\nbbbbb"
    assert (finished.code, finished.cut) == (0, True)


async def test_errors_are_kept_within_bounds_and_do_not_count_as_output() -> None:
    finished = await python(
        f"import sys; sys.stderr.write('a' * {ERRORS} + 'the end'); print('whole')",
        output_limit=100,
        flood=100,
    )
    assert finished.errors.endswith(b"the end")
    assert len(finished.errors) < ERRORS + 100
    assert (finished.code, finished.output, finished.cut) == (0, b"whole\n", False)


async def test_one_that_writes_more_than_it_may_is_ended_at_once() -> None:
    source = f"import time; print('a' * 2_000_000, flush=True); time.sleep({MEANT_TO_HANG})"
    finished = await python(source, output_limit=1_000_000, flood=1_000_000)
    assert finished.code < 0
    assert (finished.cut, finished.timed_out) == (True, False)


@pytest.mark.parametrize("then", ["child.wait()", "pass"])
async def test_at_the_time_limit_all_that_it_started_is_ended(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With "pass" the program itself is gone; its output is still held by what it started.
    running = asyncio.ensure_future(python(starting(tmp_path) + then, seconds=3600))
    process = await started(tmp_path)
    loop = asyncio.get_running_loop()
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + 3600)
    finished = await running
    assert finished.timed_out
    assert not finished.cut
    await gone(process)


async def test_a_canceled_one_is_ended_with_all_it_started(tmp_path: Path) -> None:
    running = asyncio.ensure_future(python(starting(tmp_path) + "child.wait()"))
    process = await started(tmp_path)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(process)


async def test_one_whose_ending_is_canceled_is_ended_at_once(tmp_path: Path) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    command = [sys.executable, "-c", stubborn + starting(tmp_path) + "child.wait()"]
    runner = f"""\
import asyncio, pathlib
from agents.subprocesses import run
async def canceled():
    folder, child = pathlib.Path("/"), pathlib.Path({str(tmp_path / "child")!r})
    ending = run({command}, folder=folder, environment={{}}, seconds=3600, grace=3600)
    running = asyncio.ensure_future(ending)
    while not child.exists():
        await asyncio.sleep(0.005)
    for _ in range(2):
        running.cancel()
        await asyncio.sleep(0)
asyncio.run(canceled())  # which cancels all that is under way
"""
    canceling = await asyncio.create_subprocess_exec(sys.executable, "-c", runner, cwd=ROOT)
    process = await started(tmp_path)
    assert await canceling.wait() == 0
    await gone(process)


async def test_it_ends_with_whoever_ran_it_even_if_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", starting(tmp_path) + "child.wait()"]
    runner = f"""\
import asyncio, pathlib
from agents.subprocesses import run
asyncio.run(run({command}, folder=pathlib.Path("/"), environment={{}}, seconds=3600))
"""
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", runner, cwd=ROOT)
    process = await started(tmp_path)
    running.kill()
    await running.wait()
    await gone(process)


async def test_what_it_leaves_behind_is_ended_after_a_good_end_as_well(tmp_path: Path) -> None:
    finished = await python(starting(tmp_path, "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"))
    assert (finished.code, finished.timed_out) == (0, False)
    await gone(await started(tmp_path))


async def test_it_sees_nothing_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a secret")
    finished = await python("import os; print(sorted(os.environ))")
    assert b"ANTHROPIC_API_KEY" not in finished.output
    assert b"'HOME'" in finished.output


def test_code_without_an_event_loop_can_run_one(tmp_path: Path) -> None:
    running = run(["/bin/pwd"], folder=tmp_path, environment=os.environ, seconds=ENOUGH)
    assert asyncio.run(running).output == os.fsencode(tmp_path) + b"\n"


async def test_one_that_is_not_there_or_cannot_be_run_is_said(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.touch()
    for program, kind in (("/no/such/program", FileNotFoundError), (text, PermissionError)):
        with pytest.raises(kind):
            await run([program], folder=tmp_path, environment={}, seconds=ENOUGH)
