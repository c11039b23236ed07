"""Runs one program with a time limit, an output limit, a stated environment and a process group of its own.

Never blocks the event loop, never hands this process's environment on unasked, and leaves nothing of the
group running: not after success, not at a limit, not when the run is canceled, not when this process is
killed. What begins a session of its own leaves the group, and goes on. Code without an event loop gives `run`
to `asyncio.run`. Imports nothing but the standard library: commands that start quickly need it, too.
"""

import asyncio
import contextlib
import os
import signal
import site
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

KEPT = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ")
"""All of the worker's environment that another program gets to see; keys and tokens are not among it."""

SLACK = 1024 * 1024
ERRORS = 64 * 1024
"""Bytes kept of a program's standard error."""
FLOOD = 256 * 1024 * 1024
"""Bytes of output after which a program is taken to be running wild, and ended."""

WARDEN = """\
trap '' HUP INT TERM
read -r group || exit
read -r end
kill -s KILL -- "-$group"
"""
"""What waits in a shell for the end of its input, which comes with the end of whoever has the other end."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program ended with.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        output: Its standard output; if that was longer than the limit, its beginning and its end.
        errors: Its standard error, shortened the same way.
        cut: Whether its output is not all here: it was too long, or the program was ended for writing on.
        timed_out: Whether it was ended for taking too long.
    """

    code: int
    output: bytes
    errors: bytes
    cut: bool
    timed_out: bool

    def last_words(self, limit: int = 400) -> str:
        """Give the end of what it wrote to standard error (or else to standard output), on one line."""
        text = (self.errors.strip() or self.output.strip()).decode(errors="replace")
        words = " ".join(text.split())
        return "".join(letter for letter in words if letter.isprintable())[-limit:]


async def run(  # noqa: PLR0913 (all but the command are named)
    command: Sequence[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float,
    given: bytes = b"",
    output_limit: int = 8 * 1024 * 1024,
    flood: int = FLOOD,
    grace: float = 0.5,
) -> Finished:
    """Run a program to its end.

    Args:
        command: The program and its arguments; no shell is involved.
        folder: Where it runs.
        environment: All of its environment.
        seconds: How long it, and whoever else holds its output, may take.
        given: Its standard input.
        output_limit: Bytes kept of its output.
        flood: Bytes of output after which it is ended.
        grace: Seconds between asking it to end and ending it.

    Raises:
        OSError: If it cannot be run; FileNotFoundError if there is no such program.
    """
    loop = asyncio.get_running_loop()
    with ended_with_us() as end_with_us:
        program, told = await loop.subprocess_exec(
            lambda: _Told(output_limit, flood),
            *command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            start_new_session=True,
        )
        end_with_us(program.get_pid())
        timed_out = False
        try:
            _feed(program, given)
            async with asyncio.timeout(seconds):
                await told.enough.wait()
        except TimeoutError:
            timed_out = True
        finally:
            # A canceled run must not leave its program behind, so the ending itself cannot be canceled.
            await asyncio.shield(asyncio.ensure_future(_end(program, told, grace)))
    code = program.get_returncode()
    return Finished(
        -signal.SIGKILL if code is None else code,
        told.output.kept(),
        told.errors.kept(),
        told.output.cut or told.flooded,
        timed_out,
    )


@contextlib.contextmanager
def ended_with_us() -> Iterator[Callable[[int], None]]:
    """Have a process group ended when this process is gone before the context is left, however it went.

    A shell of its own does it, whose input ends with this process. A parent-death signal would reach the
    program alone and not what it started, would be lost where a program changes its user, and would have to
    be asked for between fork and exec, where a process with threads must run no Python.

    Yields:
        What to call with the group, as soon as there is one. A kill in the microseconds before that leaves
        the group to itself.
    """
    with subprocess.Popen(  # noqa: S603 (a text of ours and a fixed shell)
        ["/bin/sh", "-c", WARDEN, "callboard-warden"],
        bufsize=0,
        cwd="/",
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as warden:

        def end_with_us(group: int) -> None:
            with contextlib.suppress(BrokenPipeError):  # somebody ended the warden
                if warden.stdin is not None:
                    warden.stdin.write(b"%d\n" % group)

        try:
            yield end_with_us
        finally:
            warden.kill()  # before its input ends


def environment_for(home: Path, **more: str) -> dict[str, str]:
    """Give the environment another program may see: `KEPT`, and a home and temporary folder of its own."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    if site.ENABLE_USER_SITE:
        kept["PYTHONUSERBASE"] = site.getuserbase()  # Python finds user-installed packages by HOME otherwise
    return {"PATH": os.defpath, **kept, "HOME": str(home), "TMPDIR": str(home), **more}


class _Told(asyncio.SubprocessProtocol):
    """What a program says, and when there is no more to wait for."""

    def __init__(self, output_limit: int, flood: int) -> None:
        self.output = _Kept(output_limit, flood)
        self.errors = _Kept(ERRORS, FLOOD)
        self.flooded = False
        self.ended = asyncio.Event()
        self.enough = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        stream = self.output if fd == 1 else self.errors
        stream.add(data)
        if stream.seen > stream.flood:
            self.flooded = True
            self.enough.set()

    def process_exited(self) -> None:
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        # It has ended, and nobody else holds its output.
        del exc
        self.enough.set()


class _Kept:
    """The first and the last bytes of a stream, half of the limit each."""

    def __init__(self, limit: int, flood: int) -> None:
        self.half = limit // 2
        self.flood = flood
        self.head = bytearray()
        self.tail = bytearray()
        self.seen = 0

    def add(self, chunk: bytes) -> None:
        self.seen += len(chunk)
        room = self.half - len(self.head)
        self.head += chunk[:room]
        self.tail += chunk[room:]
        if len(self.tail) > self.half + SLACK:
            del self.tail[: -self.half]

    @property
    def cut(self) -> bool:
        return self.seen > 2 * self.half

    def kept(self) -> bytes:
        if not self.cut:
            return bytes(self.head + self.tail)
        left_out = f"\n[... {self.seen - 2 * self.half} bytes left out ...]\n".encode()
        return bytes(self.head + left_out + self.tail[-self.half :])


def _feed(program: asyncio.SubprocessTransport, given: bytes) -> None:
    if given:
        stdin = cast("asyncio.WriteTransport", program.get_pipe_transport(0))
        stdin.write(given)
        stdin.write_eof()


async def _end(program: asyncio.SubprocessTransport, told: _Told, grace: float) -> None:
    """End the whole process group, and wait until the program is gone.

    The group is signaled after a good end too: a program may leave children. Its number can belong to nobody
    else as long as one member lives; with none left, the signal finds nobody.
    """
    group = program.get_pid()
    try:
        if program.get_returncode() is None:
            _signal(group, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await told.ended.wait()
    except asyncio.CancelledError:
        # An event loop that is closed cancels even this, and who else would end the group is told not to.
        _signal(group, signal.SIGKILL)
        program.close()
        raise
    _signal(group, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace + 5):  # a killed program is gone at once, unless the kernel is stuck
            await told.ended.wait()
    program.close()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
