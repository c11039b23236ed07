"""Runs pytest in a process group of its own, watches its time limits, and leaves nothing of it running.

Time is watched from outside, because nothing inside works for every test: an alarm is lost in native code and
taken by tests that set their own, and a thread cannot stop another. So a test over its limit ends the run:
pytest is interrupted, which lets it write its report, and killed if it does not end then.
"""

import contextlib
import json
import math
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from agents.specialized.junit import Case, JUnitError, read_cases
from agents.subprocesses import ended_with_us
from streams.reports.test_run.recording import Recording

MIB: Final = 1024 * 1024
JUNIT_LIMIT: Final = 128 * MIB
TAIL: Final = 64 * 1024
POLL: Final = 0.1
"""Seconds between two looks at a run; so exact are its time limits."""

PLUGIN: Final = "callboard_recorder"
OPTIONS: Final = (
    *("-p", PLUGIN),
    "--color=no",
    # With the family xunit2 pytest warns of each use of `record_property`, and a warning can be a failure.
    *("-o", "junit_family=xunit1"),
    *("-o", "junit_logging=no"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that one test may take, all of them, and an interrupted pytest to write its report."""

    test: float
    run: float
    grace: float = 5.0


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks on.

    Attributes:
        show: Gets pytest's output as it comes.
        watch: Gets what is known so far, some times a second.
        tell: Gets what begins now, for people.
    """

    show: Callable[[bytes], None] = lambda _: None
    watch: Callable[[Recording], None] = lambda _: None
    tell: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of pytest ended.

    Attributes:
        code: pytest's exit code; negative if a signal ended it.
        cases: What its JUnit report says, or why it says nothing.
        stopped: Which limit ended it.
        late: Tests that were over their limit.
        output: The end of what it wrote.
    """

    code: int
    cases: list[Case] | str
    recording: Recording
    stopped: Literal["test", "run"] | None
    late: tuple[str, ...]
    output: str
    seconds: float


def run_pytest(  # noqa: PLR0913 (all but the first two are named)
    python: str,
    arguments: Sequence[str],
    *,
    limits: Limits,
    scratch: Path,
    viewer: Viewer,
    clock: Callable[[], float] = time.monotonic,
    only: Sequence[str] | None = None,
) -> Ended:
    """Run pytest to its end, in the current folder and environment.

    Args:
        python: The interpreter that has the project's pytest.
        arguments: What pytest is given.
        limits: What it may take.
        scratch: An empty folder.
        viewer: Who looks on.
        clock: Tells the time, in seconds.
        only: Node ids to choose from what `arguments` select.
    """
    recording = _prepared(scratch, only)
    report = scratch / "junit.xml"
    # Ours come first, since all after a `--` of the user's would be taken for files.
    command: list[str | Path] = [python, "-m", "pytest", *OPTIONS, f"--junitxml={report}", *arguments]
    path = os.pathsep.join(filter(None, (str(scratch), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    if only is not None:
        environment["COVERAGE_FILE"] = str(scratch / "coverage")
    started = clock()
    # The program is the interpreter the user named; no shell is involved.
    with (
        ended_with_us() as end_with_us,
        subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        end_with_us(process.pid)
        watcher = _Watcher(process, recording, limits, viewer, clock)
        try:
            watcher.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    watcher.look()
    try:
        cases: list[Case] | str = read_cases(report, JUNIT_LIMIT)
    except JUnitError as error:
        cases = str(error)
    output = bytes(watcher.tail).decode(errors="replace")
    seconds = round(clock() - started, 3)
    return Ended(code, cases, recording, watcher.stopped, watcher.late, output, seconds)


def _prepared(scratch: Path, only: Sequence[str] | None) -> Recording:
    shutil.copyfile(Path(__file__).with_name("recorder.py"), scratch / f"{PLUGIN}.py")
    if only is not None:
        (scratch / "only.json").write_text(json.dumps(list(only)), encoding="ascii")
    return Recording(scratch / "events.jsonl")


class _Watcher:
    """Reads what a process writes until it has ended, and ends it in time."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        recording: Recording,
        limits: Limits,
        viewer: Viewer,
        clock: Callable[[], float],
    ) -> None:
        self.process = process
        self.recording = recording
        self.limits = limits
        self.viewer = viewer
        self.clock = clock
        self.tail = bytearray()
        self.stopped: Literal["test", "run"] | None = None
        self.late: tuple[str, ...] = ()

    def wait(self) -> None:
        """Read until the process has ended."""
        begun = self.clock()
        kill_at = math.inf
        pipe = self.process.stdout
        assert pipe is not None  # noqa: S101 (it was asked for)
        os.set_blocking(pipe.fileno(), False)
        while self.process.poll() is None:
            self.read(pipe)
            now = self.look()
            if self.stopped is None and self.is_over_limit(now, now - begun):
                kill_at = now + self.limits.grace
                self.process.send_signal(signal.SIGINT)
            if now > kill_at:
                self.process.kill()
                break
        self.read(pipe)

    def read(self, pipe: IO[bytes]) -> None:
        """Take what was written; wait for it a little while."""
        if not select.select([pipe], [], [], POLL)[0]:
            return
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(pipe.fileno(), TAIL):
                self.viewer.show(chunk)
                self.tail = (self.tail + chunk)[-TAIL:]
            # What it wrote to is closed: now there is only its end to wait for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(POLL)

    def look(self) -> float:
        """Take what was recorded; tells the time."""
        now = self.clock()
        self.recording.follow(now)
        self.viewer.watch(self.recording)
        return now

    def is_over_limit(self, now: float, seconds: float) -> bool:
        running = self.recording.running.items()
        self.late = tuple(test for test, each in running if now - each.since > self.limits.test)
        if self.late:
            self.stopped = "test"
        elif seconds > self.limits.run:
            self.stopped = "run"
        return self.stopped is not None
