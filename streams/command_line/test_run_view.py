"""How people see what a test run proved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from streams.command_line.output import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from streams.reports.test_run.report import Failure, SuiteReport

STYLES = {
    "pass": "bold green",
    "fail": "bold red",
    "incomplete": "bold yellow",
    "nothing_proven": "bold yellow",
}


def print_report(console: Console, report: SuiteReport) -> None:
    """Print the verdict first, then what led to it."""
    verdict = Text(report.verdict.replace("_", " "), style=STYLES[report.verdict])
    console.print(verdict + Text(f": {_numbers(report)} in {report.duration_seconds:.1f} s"), soft_wrap=True)
    for reason in report.reasons:
        _line(console, f"  {reason}")
    for title, failures in (("", report.failures), ("flaky ", report.flaky)):
        for failure in failures:
            _print_failure(console, title, failure)
    if hidden := report.failures_left_out + report.flaky_left_out:
        _line(console, f"\nand {hidden:,} more")
    _print_list(console, "running when it ended", report.running)
    _print_list(console, "skipped", [f"{skips.tests:,} x {skips.reason}" for skips in report.skipped])
    _print_list(console, "the end of pytest's output", report.output_end.splitlines())


def _numbers(report: SuiteReport) -> str:
    counts = report.counts
    named = (
        (counts.failed, "failed"),
        (counts.errors, "with errors"),
        (counts.flaky, "flaky"),
        (counts.passed, "passed"),
        (counts.skipped, "skipped"),
        (counts.xfailed, "failed as expected"),
        (counts.deselected, "deselected"),
        (counts.not_run, "not run"),
    )
    return ", ".join(f"{number:,} {what}" for number, what in named if number) or "no tests"


def _print_failure(console: Console, title: str, failure: Failure) -> None:
    console.print()
    console.print(Text(f"{title}{clean(failure.test)}", style="bold"), soft_wrap=True)
    place = f"{failure.file}:{failure.line}" if failure.line else failure.file or "place unknown"
    what = failure.exception or failure.cause.replace("_", " ").replace("exception", "failed")
    _line(console, f"  {place}: {what} in {failure.phase}")
    for line in failure.message:
        _line(console, f"    {line}")


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        _line(console, f"\n{title}:")
    for line in lines:
        _line(console, f"  {line}")


def _line(console: Console, text: str) -> None:
    console.print(Text(clean(text)), soft_wrap=True)
