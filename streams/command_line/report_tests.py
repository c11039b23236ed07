"""`callboard report-tests`: run a project's tests, and say what that proved."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from streams.command_line.output import (
    CommandError,
    ExitCode,
    clean,
    progress,
    reported,
    say,
    stderr,
    stdout,
    when_interrupted,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from streams.reports.test_run.pytest_process import Viewer
    from streams.reports.test_run.recording import Recording
    from streams.reports.test_run.report import SuiteReport

USAGE_ERROR = 4
"""pytest's exit code for arguments it does not accept."""


@reported
def report_tests(  # noqa: PLR0913 (one parameter per option)
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="PYTEST_ARG", help="What pytest is given, as it is; its options after --."),
    ] = None,
    *,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The interpreter to test with, e.g. .venv/bin/python; default: this command's.",
        ),
    ] = None,
    test_limit: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="A test that takes longer fails and ends the run."),
    ] = 120.0,
    limit: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="What all may take, with the repetition.")
    ] = 1800.0,
    rerun: Annotated[
        bool, typer.Option("--rerun/--no-rerun", help="Run what failed once more, to tell what is flaky.")
    ] = True,
    show_output: Annotated[
        bool, typer.Option("--show-output", help="Show pytest's output on stderr as it comes.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, as schemas/reports/tests.json says.")
    ] = False,
) -> None:
    """Run the tests of the project in this folder, and report what that proved.

    The verdict: pass (exit code 0) if all that was selected ran, something passed and nothing failed;
    fail (1), also if a test is flaky: it failed, and passed when it was run once more; nothing_proven (7)
    if there was nothing to run or all was skipped; incomplete (7) if the run did not come to its end, or 2
    if pytest did not accept its arguments. Running tests is running their code.

    \b
    Example:
        callboard report-tests
        callboard report-tests --json -- tests/unit -k 'not slow'
        callboard report-tests --python .venv/bin/python --test-limit 10 -- -n 4
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    given = arguments or []
    _refuse_own_report(given)
    interpreter = _with_pytest(python)

    from streams.reports.test_run.check import check_tests
    from streams.reports.test_run.pytest_process import Limits

    signal.signal(signal.SIGTERM, _interrupt)  # the tests would go on without us
    with when_interrupted("interrupted; the tests were ended"), _viewer(show_output=show_output) as viewer:
        report = check_tests(
            interpreter, given, limits=Limits(test=test_limit, run=limit), rerun=rerun, viewer=viewer
        )
    if json:
        write_json(report.model_dump(mode="json"))
    else:
        from streams.command_line.test_run_view import print_report

        print_report(stdout(), report)
    raise typer.Exit(_exit_code(report))


def _exit_code(report: SuiteReport) -> ExitCode:
    if report.verdict == "pass":
        return ExitCode.OK
    if report.verdict == "fail":
        return ExitCode.FAILED
    return ExitCode.USAGE if report.pytest_exit_code == USAGE_ERROR else ExitCode.INCOMPLETE


def _refuse_own_report(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if argument.partition("=")[0] in {"--junitxml", "--junit-xml"}:
            raise CommandError(
                f"leave {argument!r} out: the verdict rests on a JUnit report elsewhere, and"
                " pytest writes only one; run pytest itself for yours",
                ExitCode.USAGE,
            )


def _with_pytest(python: str | None) -> str:
    """Find the interpreter, and see that it has pytest."""
    import os
    import subprocess

    # A name alone is looked for as a shell would. Links stay: what they stand beside makes an environment.
    interpreter = python or sys.executable
    interpreter = os.path.abspath(interpreter) if os.sep in interpreter else interpreter  # noqa: PTH100
    program = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pytest') is None)"
    try:
        # The user's own interpreter; no shell is involved.
        found = subprocess.run(  # noqa: S603
            [interpreter, "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it did not answer"
        raise CommandError(
            f"cannot run {interpreter!r}: {reason}; give --python the interpreter of the project's"
            " environment, e.g. .venv/bin/python",
            ExitCode.USAGE,
        ) from None
    if found.returncode:
        raise CommandError(
            f"{interpreter!r} has no pytest: install it ({interpreter} -m pip install pytest), or give"
            " --python the interpreter of the project's environment, e.g. .venv/bin/python",
            ExitCode.USAGE,
        )
    return interpreter


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


@contextmanager
def _viewer(*, show_output: bool) -> Iterator[Viewer]:
    from streams.reports.test_run.pytest_process import Viewer

    if show_output:
        yield Viewer(show=_relay(), tell=say)
        return
    with progress("running pytest") as tell:
        # In a log, each test would be a line.
        yield Viewer(watch=_progress_of(tell), tell=tell) if stderr().is_terminal else Viewer(tell=tell)


def _relay() -> Callable[[bytes], None]:
    """Show what pytest and the tests write, without what would steer a terminal."""
    import codecs

    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def show(output: bytes) -> None:
        sys.stderr.write(clean(decode(output)))
        sys.stderr.flush()

    return show


def _progress_of(tell: Callable[[str], None]) -> Callable[[Recording], None]:
    def watch(recording: Recording) -> None:
        from rich.markup import escape

        failed = f", {len(recording.failures)} failed" if recording.failures else ""
        test = next(reversed(recording.running), "")
        counted = (
            f"{recording.done} of {recording.selected} tests" if recording.selected else "collecting tests"
        )
        tell(f"{counted}{failed}  {escape(clean(test))}")

    return watch
