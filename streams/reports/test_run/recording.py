"""What the recorder has written so far: which tests run, which ended how, and what failed where."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agents.specialized.facts import clean_block
from streams.reports.test_run.report import Cause, Failure, Phase

CHUNK: Final = 1024 * 1024
MOST_BYTES: Final = 256 * CHUNK
"""Of all events; more than that no test run has, so what comes then is somebody else's."""

LINE_LIMIT: Final = 300
# What counts of several outcomes, as in JUnit's report: a test with a skipped subtest did not simply pass.
OUTCOMES: Final = ("failed", "skipped", "xfailed", "passed")
NEXT: Final[dict[Phase, Phase]] = {"setup": "call", "call": "teardown", "teardown": "teardown"}


@dataclass(slots=True)
class Running:
    """A test that has begun."""

    since: float
    phase: Phase = "setup"
    outcomes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Recording:
    """Follows one recorder's file.

    Attributes:
        session: Versions of `pytest` and `python`, and the `root`; empty until pytest began.
        failures: All that failed, in order; a test may be in here several times.
        interrupted: What ended the run early, and where.
        retried: How tests failed that a plugin of the project then ran again.
        ended: How often each test, or each module that was skipped as a whole, had which outcome.
        done: How many tests had one.
    """

    file: Path
    session: dict[str, str] = field(default_factory=dict)
    measures_coverage: bool = False
    selected: int = 0
    deselected: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    retried: dict[str, Failure] = field(default_factory=dict)
    ended: dict[str, Counter[str]] = field(default_factory=dict)
    interrupted: Failure | None = None
    done: int = 0
    _read: int = 0
    _rest: bytes = b""

    def follow(self, now: float) -> None:
        """Read what is new; tests that have begun since the last time are taken to have begun `now`."""
        if not self.file.is_file():
            return
        with self.file.open("rb") as events:
            events.seek(self._read)
            while self._read < MOST_BYTES and (chunk := events.read(CHUNK)):
                self._read += len(chunk)
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    self._take(line, now)

    @property
    def outcomes(self) -> Counter[str]:
        """How many tests ended how."""
        return sum(self.ended.values(), Counter())

    def passed(self, test: str) -> bool:
        """Tell whether a test ended, and did nothing but pass."""
        return set(self.ended.get(test, ())) == {"passed"}

    def _take(self, line: bytes, now: float) -> None:
        try:
            event = _printable(json.loads(line))
            if not isinstance(event.get("test", ""), str):
                return
            match event["event"]:
                case "session":
                    self.session = {name: str(event[name]) for name in ("pytest", "python", "root")}
                    self.measures_coverage = bool(event["coverage"])
                case "selected":
                    self.selected, self.deselected = int(event["tests"]), int(event["deselected"])
                case "start":
                    self.running[event["test"]] = Running(now)
                case "report":
                    self._report(event)
                case "end":
                    self._end(event["test"])
                case "interrupted":
                    self.interrupted = failure_of(event, "call")
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # a test wrote into the file; what is missing then shows in the comparison with JUnit's

    def _report(self, event: dict[str, Any]) -> None:
        test, phase, outcome = event["test"], event["phase"], event["outcome"]
        running = self.running.get(test)
        if phase == "collection" and outcome == "skipped":
            self.ended.setdefault(test, Counter())["skipped"] += 1
        elif outcome == "failed":
            # Of a test in which a worker of xdist died, nobody knows the phase.
            known = phase in {"collection", *NEXT}
            self.failures.append(failure_of(event, phase) if known else failure_of(event, "call", "crash"))
        elif outcome == "rerun":
            self.retried[test] = failure_of(event, phase)
        if running is not None:
            running.phase = NEXT.get(phase, running.phase)
            if outcome != "passed" or phase == "call":
                running.outcomes.append(outcome)

    def _end(self, test: str) -> None:
        running = self.running.pop(test, None)
        seen = running.outcomes if running else []
        if "rerun" in seen:
            return  # by a plugin of the project, which runs it again now
        outcome = next((outcome for outcome in OUTCOMES if outcome in seen), "none")
        self.ended.setdefault(test, Counter())[outcome] += 1
        self.done += outcome != "none"


def failure_of(event: dict[str, Any], phase: Phase, cause: Cause = "exception") -> Failure:
    """Make what a recorder told into a failure."""
    return Failure(
        test=event.get("test", ""),
        phase=phase,
        cause=cause,
        exception=event.get("exception"),
        file=event.get("file"),
        line=event.get("line"),
        message=tuple(clean_block(line, LINE_LIMIT).rstrip() for line in event.get("message", ())),
    )


def _printable(value: Any) -> Any:
    """Write halves of surrogate pairs out, which are no characters and cannot be encoded."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_printable(each) for each in value]
    if isinstance(value, dict):
        return {name: _printable(each) for name, each in value.items()}
    return value
