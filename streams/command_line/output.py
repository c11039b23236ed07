"""How commands speak: data on stdout, everything else on stderr, one message per error, and an exit code.

Imports nothing heavy: `--help` of every command goes through here.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import traceback
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from streams.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

DEBUG = "CALLBOARD_DEBUG"
WIDE = 10_000

# What an event holds may come from a model or a stranger: it must not steer the reader's terminal. The last
# group turns text around, so that it reads as something else.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class ExitCode(IntEnum):
    """What the exit code of a command means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    TIMED_OUT = 5
    BLOCKED = 6
    INCOMPLETE = 7
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what it was asked for; the message says why and what to do.

    Args:
        message: For people.
        code: What the command exits with.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Make every expected error of a command one message on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 (unexpected ones are raised again)
            code = _report(error)
        raise typer.Exit(code)

    return run


@contextmanager
def when_interrupted(message: str) -> Iterator[None]:
    """Say what goes on without the user who presses Ctrl-C; also around `await`s."""
    from asyncio import CancelledError

    try:
        yield
    except (KeyboardInterrupt, CancelledError):
        raise CommandError(message, ExitCode.INTERRUPTED) from None


def say(message: str) -> None:
    """Tell the user something that is no data."""
    stderr().print(clean(message), markup=False, highlight=False, soft_wrap=True)


def write(text: str) -> None:
    """Put a line of data on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_json(value: Any, *, indent: int | None = None) -> None:
    """Put a JSON value on stdout; on one line unless `indent` is given."""
    # JSON escapes only the first of the characters that would steer a terminal.
    said = json.dumps(value, ensure_ascii=False, indent=indent)
    write(CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", said))


def clean(text: str) -> str:
    """Replace the characters that would steer a terminal."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str, limit: int) -> str:
    """Shorten text to one line of at most `limit` characters."""
    flat = " ".join(clean(text[: limit * 8]).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def stdout() -> Console:
    """Give a console for data that people read."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # a reader that has enough is no failure: see `_report`

    # A file or a pipe has no width at which lines would have to be cut.
    return Output(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else WIDE)


def stderr() -> Console:
    """Give a console for everything else."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False, markup=False)


@contextmanager
def progress(first: str) -> Iterator[Callable[[str], None]]:
    """Show what is going on: a spinner on a terminal, otherwise a line for every new sentence."""
    console = stderr()
    if console.is_terminal:
        with console.status(first) as status:
            yield status.update
        return
    said: set[str] = set()

    def tell(sentence: str) -> None:
        # Sentences come every other second; in a log, each is wanted once.
        if sentence not in said:
            said.add(sentence)
            say(sentence)

    yield tell


def settings() -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: If an environment variable does not hold what it should.
    """
    from streams.settings import Settings

    return Settings.from_environment()


def quiet_logging() -> None:
    """Send warnings of this process to stderr; what the Kafka client says is told in our words instead."""
    import logging

    from agents.logging_config import configure_logging

    configure_logging("DEBUG" if os.environ.get(DEBUG) else "WARNING")
    if not os.environ.get(DEBUG):
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _report(error: BaseException) -> ExitCode:
    """Say what went wrong; what nobody expected is raised again and shows its stack."""
    if isinstance(error, typer.Exit | typer.Abort):
        raise error
    if isinstance(error, BrokenPipeError):
        # `callboard tail | head`: the reader has what it wanted. What is still buffered has nowhere to go,
        # and the interpreter would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    code = expected_code(error)
    if code is None:
        raise error
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    if code == ExitCode.INTERRUPTED:
        say(str(error) or "interrupted")
    else:
        _say_error(str(error) or repr(error))
    return code


def _say_error(message: str) -> None:
    from rich.text import Text

    line = Text("error: ", style="bold red").append(clean(message), style="not bold default")
    stderr().print(line, soft_wrap=True)


def expected_code(error: BaseException) -> ExitCode | None:
    """Tell what a command that ends with `error` exits with; none if nobody expected it."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return next((code for kinds, code in _expected() if isinstance(error, kinds)), None)


def _expected() -> Iterator[tuple[tuple[type[Exception], ...], ExitCode]]:
    from agents.core.errors import (
        AgentError,
        ArtifactError,
        ConfigurationError,
        InvalidInputError,
        RepositoryError,
    )
    from streams.kafka.local_broker import LocalBrokerError

    yield (LocalBrokerError,), ExitCode.UNREACHABLE
    if "aiokafka" in sys.modules:  # if it was not imported, it has raised nothing
        from streams.kafka.admin import BrokerUnreachableError
        from streams.kafka.publisher import PublishError

        yield (BrokerUnreachableError, PublishError), ExitCode.UNREACHABLE
    yield (ArtifactError, ConfigurationError, InvalidInputError, RepositoryError), ExitCode.USAGE
    yield (AgentError,), ExitCode.FAILED
