"""Runs one program with a time limit, an output limit, a scrubbed environment and a process group of its own.

Never blocks the event loop, never inherits the worker's environment, and leaves nothing running: not after
success, not at the time limit, not when the run is canceled.
"""

import asyncio
import contextlib
import os
import signal
import site
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEPT = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ")
"""All of the worker's environment that another program gets to see; keys and tokens are not among it."""

CHUNK = 64 * 1024
FLOOD = 256 * 1024 * 1024
"""Bytes of output after which a program is taken to be running wild, and ended."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program ended with.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        output: Its standard output; if that was longer than the limit, its beginning and its end.
        errors: Its standard error, cut the same way.
        cut: Whether anything was left out of either.
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
    grace: float = 0.5,
) -> Finished:
    """Run a program to its end.

    Args:
        command: The program and its arguments; no shell is involved.
        folder: Where it runs.
        environment: All of its environment.
        seconds: How long it may take.
        given: Its standard input.
        output_limit: Bytes kept of each output stream.
        grace: Seconds between asking it to end and ending it.

    Raises:
        FileNotFoundError: If there is no such program.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=dict(environment),
        stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    output, errors = _Kept(output_limit), _Kept(output_limit)
    work = asyncio.gather(
        _feed(process.stdin, given),
        output.read(process.stdout),
        errors.read(process.stderr),
        process.wait(),
    )
    timed_out = False
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        timed_out = True
    except _FloodError:
        pass
    finally:
        # A canceled run must not leave its program behind, so the ending itself cannot be canceled.
        await asyncio.shield(asyncio.ensure_future(_end(process, work, grace)))
    code = process.returncode if process.returncode is not None else -signal.SIGKILL
    return Finished(code, output.kept(), errors.kept(), output.cut or errors.cut, timed_out)


def environment_for(home: Path, **more: str) -> dict[str, str]:
    """Give the environment another program may see: `KEPT`, and a home and temporary folder of its own."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    if site.ENABLE_USER_SITE:
        kept["PYTHONUSERBASE"] = site.getuserbase()  # Python finds user-installed packages by HOME otherwise
    return {"PATH": os.defpath, **kept, "HOME": str(home), "TMPDIR": str(home), **more}


class _FloodError(Exception):
    """A program writes without end."""


class _Kept:
    """The first and the last bytes of a stream, half of the limit each."""

    def __init__(self, limit: int) -> None:
        self.half = limit // 2
        self.head = bytearray()
        self.tail = bytearray()
        self.seen = 0

    async def read(self, stream: asyncio.StreamReader | None) -> None:
        while stream is not None and (chunk := await stream.read(CHUNK)):
            self.seen += len(chunk)
            if self.seen > FLOOD:
                raise _FloodError
            room = self.half - len(self.head)
            self.head += chunk[:room]
            self.tail += chunk[room:]
            if len(self.tail) > self.half + CHUNK * 16:
                del self.tail[: -self.half]

    @property
    def cut(self) -> bool:
        return self.seen > 2 * self.half

    def kept(self) -> bytes:
        if not self.cut:
            return bytes(self.head + self.tail)
        left_out = f"\n[... {self.seen - 2 * self.half} bytes left out ...]\n".encode()
        return bytes(self.head + left_out + self.tail[-self.half :])


async def _feed(stream: asyncio.StreamWriter | None, given: bytes) -> None:
    if stream is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(given)
        await stream.drain()
    stream.close()


async def _end(process: asyncio.subprocess.Process, work: "asyncio.Future[Any]", grace: float) -> None:
    """End the whole process group, and wait until the program is gone.

    The group is signaled after a good end too: a program may leave children. Its number can belong to nobody
    else as long as one member lives; with none left, the signal finds nobody.
    """
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await process.wait()
    _signal(process.pid, signal.SIGKILL)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError, _FloodError):
        await work
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace + 5):  # a killed program is gone at once, unless the kernel is stuck
            await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
