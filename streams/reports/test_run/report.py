"""What `callboard report-tests` says about a test run; the schema `tests` is made of it."""

from typing import Final, Literal

from pydantic import ConfigDict, Field

from streams.reports.part import Part

Verdict = Literal["pass", "fail", "incomplete", "nothing_proven"]
Cause = Literal["exception", "time_limit", "crash"]
Phase = Literal["collection", "setup", "call", "teardown"]

MOST_LISTED: Final = 100
"""Failures, flaky tests or skip reasons that a report lists; it counts all."""


class Counts(Part):
    """How many tests ended how; a test that failed and then broke its teardown is in two of these."""

    selected: int = Field(description="tests pytest was to run, after deselection")
    deselected: int = Field(
        description="tests that were found and left out: by options like -k and -m, also from the project's"
        " settings, or by a plugin"
    )
    passed: int = Field(description="without flaky ones")
    failed: int = Field(description="failed in their call, ran out of time, or took the interpreter down")
    errors: int = Field(description="failed in setup or teardown, or could not be collected")
    skipped: int = Field(description="a module that was skipped as a whole is one of them, but not selected")
    xfailed: int = Field(description="failed as they were expected to")
    flaky: int = Field(description="failed, and passed when they were run once more; in no other count")
    not_run: int = Field(description="selected, but the run ended before they did")


class Failure(Part):
    """One thing that failed."""

    test: str = Field(
        description="pytest's node id, exactly as pytest takes it; a file if it could not be collected"
    )
    phase: Phase
    cause: Cause
    exception: str | None = Field(description="the exception's type with its module, if there is one")
    file: str | None = Field(description="relative to `root` if it is in there")
    line: int | None = Field(description="of the project's code that is nearest to the failure; from 1")
    message: tuple[str, ...] = Field(
        description="the first lines of the assertion or exception; untrusted text"
    )


class Skips(Part):
    """Tests that were skipped for one reason."""

    reason: str
    tests: int


class Rerun(Part):
    """The one repetition of what failed."""

    tests: int = Field(description="how many were run again")
    passed: int = Field(description="how many of them passed then")
    pytest_exit_code: int


class SuiteReport(Part):
    """What one test run proved."""

    model_config = ConfigDict(title="callboard.report.tests.v1")

    verdict: Verdict = Field(
        description="pass: every selected test ended, one or more passed, none failed. fail: something failed"
        " or is flaky. incomplete: nothing is known to have failed, but not all that was selected ran to its"
        " end. nothing_proven: no test passed, since none was there or all were skipped"
    )
    reasons: tuple[str, ...] = Field(description="why the verdict is not pass; empty if it is")
    counts: Counts
    failures: tuple[Failure, ...] = Field(description=f"at most {MOST_LISTED}")
    failures_left_out: int
    flaky: tuple[Failure, ...] = Field(description=f"how flaky tests failed; at most {MOST_LISTED}")
    flaky_left_out: int
    skipped: tuple[Skips, ...] = Field(
        description=f"by reason, the most frequent first; at most {MOST_LISTED}"
    )
    timed_out: Literal["test", "run"] | None = Field(description="which time limit ended the run, if one did")
    running: tuple[str, ...] = Field(
        description="tests that were running when the run was cut short, if known"
    )
    rerun: Rerun | None = Field(description="null if nothing was run again")
    pytest_exit_code: int = Field(
        description="pytest's own, of the first run; or minus the number of the signal that ended it"
    )
    output_end: str = Field(
        description="of pytest, where nothing else here explains what went wrong; untrusted text"
    )
    arguments: tuple[str, ...] = Field(description="what pytest was given")
    root: str | None = Field(description="pytest's root folder, which node ids and files are relative to")
    python: str | None = Field(
        description="version of the Python that ran the tests; null if pytest never began"
    )
    pytest: str | None = Field(description="version of pytest")
    duration_seconds: float = Field(description="of both runs")
