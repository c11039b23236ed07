"""The whole check: one run of pytest, one repetition of what failed, one report."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from streams.reports.test_run.pytest_process import Ended, Limits, Viewer, run_pytest
from streams.reports.test_run.report import SuiteReport
from streams.reports.test_run.verdict import report_of, to_run_again


def check_tests(  # noqa: PLR0913 (all but the first two are named)
    python: str,
    arguments: Sequence[str] = (),
    *,
    limits: Limits,
    rerun: bool = True,
    viewer: Viewer | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SuiteReport:
    """Run the tests of the project in the current folder.

    Args:
        python: The interpreter that has its pytest.
        arguments: What pytest is given; no `--junitxml`, which is ours.
        limits: For both runs together, and for each test.
        rerun: Run what failed once more, to tell what is flaky.
        viewer: Who looks on.
        clock: Tells the time, in seconds.
    """
    viewer = viewer or Viewer()

    def run(folder: Path, options: Sequence[str], seconds: float, only: Sequence[str] | None = None) -> Ended:
        folder.mkdir()
        return run_pytest(
            python,
            [*options, *arguments],
            limits=replace(limits, run=seconds),
            scratch=folder.resolve(),
            viewer=viewer,
            clock=clock,
            only=only,
        )

    with tempfile.TemporaryDirectory(prefix="callboard-tests-", ignore_cleanup_errors=True) as folder:
        first = run(Path(folder, "first"), (), limits.run)
        failed = to_run_again(first) if rerun else []
        left = limits.run - first.seconds
        if not failed or left <= 0:
            return report_of(first, None, arguments, limits)
        viewer.tell(f"{len(failed)} failed; running {'it' if len(failed) == 1 else 'them'} once more")
        # The coverage of a few tests must not replace that of all.
        options = ["--no-cov"] if first.recording.measures_coverage else []
        again = run(Path(folder, "again"), options, left, failed)
        return report_of(first, again, arguments, limits)
