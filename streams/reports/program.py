"""Runs another program for a report: by a list of arguments, for a bounded time, and for a bounded answer."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_ERROR_BYTES: Final = 16 * 1024


class TooLateError(Exception):
    """It did not end in time, and was ended."""


class TooMuchError(Exception):
    """It printed more than was wanted, and was ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended by itself.

    Attributes:
        code: Its exit code.
        output: All it printed.
        errors: The beginning of what it wrote to stderr.
    """

    code: int
    output: bytes
    errors: str


def run(
    command: Sequence[str], *, seconds: float, max_bytes: int, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a program to its end; whatever it started ends with it if it has to be ended.

    Args:
        command: The program's path, and its arguments.
        seconds: What it may take.
        max_bytes: What it may print.
        environment: All that it gets of one; none: this process's.

    Raises:
        OSError: If it cannot be run.
        TooLateError: If it takes longer.
        TooMuchError: If it prints more.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 (an argument list made here, no shell)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            pipe = process.stdout
            output = pipe.read(max_bytes + 1) if pipe is not None else b""
            if len(output) > max_bytes:
                _kill(process)
            code = process.wait()
        except BaseException:
            _kill(process)
            process.wait()
            raise
        finally:
            timer.cancel()
            if process.stdout is not None:
                process.stdout.close()
        if len(output) > max_bytes:
            raise TooMuchError
        if late.is_set():
            raise TooLateError
        errors.seek(0)
        return Ended(code, output, errors.read(MAX_ERROR_BYTES).decode(errors="replace").strip())


def _kill(process: subprocess.Popen[bytes]) -> None:
    # It may have ended, and what it started go on with its output; or all of them have ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
