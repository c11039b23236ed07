"""Says what a test run proved, from pytest's exit code, its JUnit report and the recording; runs nothing.

A pass needs all three to agree: exit code 0, a report in which nothing failed and something passed, and a
recording of the same numbers in which every selected test ended.
"""

import ast
import re
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agents.specialized.facts import clean, clean_block
from agents.specialized.junit import Case
from streams.reports.test_run.pytest_process import Ended, Limits
from streams.reports.test_run.recording import Recording
from streams.reports.test_run.report import (
    MOST_LISTED,
    Counts,
    Failure,
    Rerun,
    Skips,
    SuiteReport,
    Verdict,
)

OUTPUT_LIMIT: Final = 4_000
FINE: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 2
NO_TESTS: Final = 5
USAGE_ERROR: Final = 4
TOO_MANY_WARNINGS: Final = 6
MEANINGS: Final = {
    INTERRUPTED: "pytest was interrupted",
    3: "pytest itself failed, or a plugin did",
    USAGE_ERROR: "pytest does not accept its arguments, or the project's configuration",
}
COMPLAINT: Final = re.compile(r"^(?:ERROR|[^\n:]+: error): (?!usage: )(.*)$", re.MULTILINE)
"""How pytest says what is wrong with its arguments."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many tests ended how, as one witness has it."""

    passed: int
    failed: int
    errors: int
    skipped: int
    xfailed: int

    def agrees_with(self, other: "Tally") -> bool:
        """Compare; whether a test failed or had an error is not always told alike, as of a dead worker."""
        mine, theirs = (replace(each, failed=each.failed + each.errors, errors=0) for each in (self, other))
        return mine == theirs


def to_run_again(first: Ended) -> list[str]:
    """Give the tests that failed in a run that came to its end, in order, each once."""
    if first.stopped or first.code not in {FINE, FAILED} or isinstance(first.cases, str):
        return []
    failures = first.recording.failures
    return list(dict.fromkeys(failure.test for failure in failures if failure.phase != "collection"))


def report_of(first: Ended, again: Ended | None, arguments: Sequence[str], limits: Limits) -> SuiteReport:
    """Judge a run, and the repetition of what failed in it if there was one."""
    recording, recorded = first.recording, _recorded(first.recording)
    told = None if isinstance(first.cases, str) else _told(first.cases)
    flaky = _flaky(recording, again)
    failures = [each for each in recording.failures if each.test not in flaky] + list(
        _cut_short(first, limits)
    )
    count, blamed = _tally_of(failures), {each.test for each in failures}
    counts = Counts(
        selected=recording.selected,
        deselected=recording.deselected,
        passed=recorded.passed - sum(map(recording.passed, blamed | flaky.keys())),
        failed=count["failed"],
        errors=count["errors"],
        skipped=recorded.skipped,
        xfailed=recorded.xfailed,
        flaky=len(flaky),
        # A test that took its process down, or had to be ended, began and has failed.
        not_run=max(0, recording.selected - recording.done - len(recording.running.keys() & blamed)),
    )
    problems = list(_problems(first, counts, limits))
    if again and again.stopped:
        problems.append("a time limit ended the repetition, so what is flaky may not be known")
    # A plugin that runs tests again leaves a test case for each try, as if it had passed.
    if told is not None and not told.agrees_with(recorded) and not problems and not recording.retried:
        problems.append(
            f"pytest's JUnit report ({_numbers(told)}) and what was recorded while it ran"
            f" ({_numbers(recorded)}) disagree"
        )
    failed = list(_failed(counts, told, first.code))
    verdict: Verdict = (
        "fail" if failed else "incomplete" if problems else "pass" if counts.passed else "nothing_proven"
    )
    reasons = failed + problems or ([] if verdict == "pass" else [_nothing(counts)])
    is_explained = told is not None and (
        first.code in {FINE, NO_TESTS} or (first.code in {FAILED, INTERRUPTED} and (failures or flaky))
    )
    return SuiteReport(
        verdict=verdict,
        reasons=tuple(reasons),
        counts=counts,
        failures=tuple(failures[:MOST_LISTED]),
        failures_left_out=max(0, len(failures) - MOST_LISTED),
        flaky=tuple(flaky.values())[:MOST_LISTED],
        flaky_left_out=max(0, len(flaky) - MOST_LISTED),
        skipped=tuple(_skips(first.cases)),
        timed_out=first.stopped,
        running=tuple(recording.running)[:MOST_LISTED],
        rerun=_rerun(first, again),
        pytest_exit_code=first.code,
        output_end="" if is_explained or first.stopped else clean_block(first.output, OUTPUT_LIMIT),
        arguments=tuple(arguments),
        root=recording.session.get("root"),
        python=recording.session.get("python"),
        pytest=recording.session.get("pytest"),
        duration_seconds=round(first.seconds + (again.seconds if again else 0), 3),
    )


def _recorded(recording: Recording) -> Tally:
    ended, failures = recording.outcomes, _tally_of(recording.failures)
    return Tally(
        passed=ended["passed"],
        failed=failures["failed"],
        errors=failures["errors"],
        skipped=ended["skipped"],
        xfailed=ended["xfailed"],
    )


def _told(cases: Sequence[Case]) -> Tally:
    kinds = Counter(_kind(case) for case in cases)
    return Tally(
        passed=kinds["passed"],
        failed=kinds["failure"],
        errors=kinds["error"],
        skipped=kinds["skipped"],
        xfailed=kinds["xfailed"],
    )


def _kind(case: Case) -> str:
    if (case.place, case.name) == ("pytest", "internal"):
        return "internal"  # an error of pytest's own; its exit code says so
    return "xfailed" if case.kind == "skipped" and case.skip == "pytest.xfail" else case.kind


def _tally_of(failures: Sequence[Failure]) -> Counter[str]:
    """Count tests that failed in their call, and those that failed elsewhere; one can be both."""
    tests = {(each.test, "failed" if _is_failed(each) else "errors") for each in failures}
    return Counter(kind for _, kind in tests)


def _is_failed(failure: Failure) -> bool:
    return failure.phase == "call" or failure.cause != "exception"


def _flaky(recording: Recording, again: Ended | None) -> dict[str, Failure]:
    """Give how tests failed that passed when they were run again, by us or by a plugin of the project."""
    found = {test: failure for test, failure in recording.retried.items() if recording.passed(test)}
    for failure in recording.failures if again else ():
        if again and again.recording.passed(failure.test):
            found.setdefault(failure.test, failure)
    return found


def _rerun(first: Ended, again: Ended | None) -> Rerun | None:
    if again is None:
        return None
    tests = to_run_again(first)
    passed = sum(map(again.recording.passed, tests))
    return Rerun(tests=len(tests), passed=passed, pytest_exit_code=again.code)


def _cut_short(first: Ended, limits: Limits) -> Iterator[Failure]:
    """Give the failures of tests that never ended, if it is known that they are to blame."""
    running = first.recording.running
    if first.stopped == "run":
        return
    if first.stopped == "test":
        place = first.recording.interrupted if len(first.late) == 1 else None
        for test in first.late:
            yield Failure(
                test=test,
                phase=running[test].phase if test in running else "call",
                cause="time_limit",
                exception=None,
                file=place.file if place else None,
                line=place.line if place else None,
                message=(f"did not end within {limits.test:g} s",),
            )
    elif first.recording.interrupted is None and isinstance(first.cases, str) and len(running) == 1:
        for test, each in running.items():
            how = f"the interpreter ended while this test ran: {_end(first.code)}"
            yield Failure(
                test=test,
                phase=each.phase,
                cause="crash",
                exception=None,
                file=None,
                line=None,
                message=(how,),
            )


def _failed(counts: Counts, told: Tally | None, code: int) -> Iterator[str]:
    if counts.failed:
        yield f"{_tests(counts.failed)} failed"
    if counts.errors:
        errors = "1 error" if counts.errors == 1 else f"{counts.errors} errors"
        yield f"{errors} in collection, setup or teardown"
    if counts.flaky:
        yield f"{_tests(counts.flaky)} failed and passed when run again: flaky"
    if not counts.failed + counts.errors + counts.flaky:
        if told and told.failed + told.errors:
            yield f"pytest's JUnit report has failures: {_numbers(told)}"
        elif code == FAILED:
            yield "pytest says the run failed, although no test did: a threshold like coverage's, or a plugin"
        elif code == TOO_MANY_WARNINGS:
            yield "pytest says there were too many warnings"


def _problems(first: Ended, counts: Counts, limits: Limits) -> Iterator[str]:
    """Say why the run is not the whole story."""
    interrupted = first.recording.interrupted
    if first.stopped == "run":
        yield f"the run took longer than {limits.run:g} s and was ended"
    elif first.stopped == "test":
        yield f"a test took longer than {limits.test:g} s, which ended the run"
    elif first.code == INTERRUPTED and any(each.phase == "collection" for each in first.recording.failures):
        yield "not all could be collected, so pytest ran nothing"
    elif first.code in MEANINGS or interrupted:
        said = clean(" ".join(interrupted.message if interrupted else COMPLAINT.findall(first.output)[-1:]))
        yield MEANINGS.get(first.code, "the tests ended the run early") + f": {said}" * bool(said)
    elif first.code not in {FINE, FAILED, NO_TESTS, TOO_MANY_WARNINGS}:
        yield f"the run ended unexpectedly: {_end(first.code)}"
    if isinstance(first.cases, str) and first.code != USAGE_ERROR:
        yield f"there is no JUnit report of pytest's to confirm the counts: {first.cases}"
    if counts.not_run:
        yield f"{counts.not_run} of {_tests(counts.selected)} did not run"


def _nothing(counts: Counts) -> str:
    named = (
        (counts.skipped, "skipped"),
        (counts.xfailed, "failed as expected"),
        (counts.deselected, "deselected"),
    )
    others = ", ".join(f"{number} {what}" for number, what in named if number)
    return f"no test passed: {others}" if others else "no test passed: there were none to run"


def _skips(cases: Sequence[Case] | str) -> list[Skips]:
    skipped = () if isinstance(cases, str) else (case for case in cases if _kind(case) == "skipped")
    reasons = Counter(clean(_reason(case)) or "no reason was given" for case in skipped)
    return [Skips(reason=reason, tests=tests) for reason, tests in reasons.most_common(MOST_LISTED)]


def _reason(case: Case) -> str:
    if case.message != "collection skipped":
        return case.message
    try:
        # Of a module, pytest writes down its tuple of file, line and reason as it is.
        _, _, reason = ast.literal_eval(case.text)
        return str(reason).removeprefix("Skipped: ")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return case.text


def _end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _tests(number: int) -> str:
    return f"{number} {'test' if number == 1 else 'tests'}"


def _numbers(tally: Tally) -> str:
    return (
        f"{tally.passed} passed, {tally.failed} failed, {tally.errors} errors, {tally.skipped} skipped,"
        f" {tally.xfailed} xfailed"
    )
