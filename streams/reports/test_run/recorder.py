"""A pytest plugin that writes down, while tests run, what a JUnit report lacks; one line of JSON per event.

It is copied into a scratch folder, where it also finds what it is told and leaves what it writes, and runs in
the interpreter of the tests, whatever that is: so it imports nothing but pytest and the standard library, and
is written for Python 3.8 and pytest 7. It changes no outcome; all it may do to a run is to leave tests out of
a repetition. Under pytest-xdist, workers select and name causes, and the controller does the rest.
"""

from __future__ import annotations

import builtins
import json
import os
import platform
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

FOLDER = Path(__file__).resolve().parent
EVENTS = FOLDER / "events.jsonl"
ONLY = FOLDER / "only.json"
GROUP = getattr(builtins, "BaseExceptionGroup", ())  # since Python 3.11
MOST_LINES = 12
MOST_LETTERS = 300


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    _leave_environment()
    config.pluginmanager.register(_Recorder(config), "callboard-recorder")


class _Recorder:
    """Writes down what happens in one pytest process."""

    def __init__(self, config: pytest.Config) -> None:
        self.is_worker = hasattr(config, "workerinput")
        self.root = str(config.rootpath)
        self.found = 0
        self.deselected = 0
        self.file = EVENTS.open("a", encoding="ascii")
        if self.is_worker:
            return
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # What was started in the background ignores it, and could not be interrupted at a time limit.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.tell(
            "session",
            pytest=pytest.__version__,
            python=platform.python_version(),
            root=self.root,
            coverage=config.pluginmanager.hasplugin("_cov"),
        )

    def tell(self, event: str, **more: Any) -> None:
        # Several processes append to this file; a line that is written at once stays whole.
        self.file.write(json.dumps({"event": event, **more}) + "\n")
        self.file.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if ONLY.exists():
            wanted = set(json.loads(ONLY.read_text(encoding="ascii")))
            items[:] = [item for item in items if item.nodeid in wanted]

    def pytest_itemcollected(self) -> None:
        self.found += 1

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.deselected += len(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        # xdist's controller collects nothing; each of its workers collects everything.
        if self.is_worker or session.items:
            # A plugin may take tests away without a word.
            left_out = max(self.deselected, self.found - len(session.items))
            self.tell("selected", tests=len(session.items), deselected=left_out)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, Any, None]:
        report = (yield).get_result()
        call = getattr(report, "call", None)
        if report.failed and call is not None and call.excinfo is not None:
            report.callboard_cause = self.cause(call.excinfo.value)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, call: Any) -> Generator[None, Any, None]:
        report = (yield).get_result()
        if report.failed and call.excinfo is not None:
            report.callboard_cause = self.cause(call.excinfo.value)

    def pytest_collectreport(self, report: Any) -> None:
        if not report.passed and not self.is_worker:
            more = self.told(report) if report.failed else {}
            self.tell("report", test=report.nodeid, phase="collection", outcome=report.outcome, **more)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if not self.is_worker:
            self.tell("start", test=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if self.is_worker:
            return
        outcome = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
        more = self.told(report) if outcome in {"failed", "rerun"} else {}
        self.tell("report", test=report.nodeid, phase=report.when, outcome=outcome, **more)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if not self.is_worker:
            self.tell("end", test=nodeid)

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        if not self.is_worker:
            self.tell("interrupted", **self.cause(excinfo.value))

    def told(self, report: Any) -> dict[str, Any]:
        """Give the cause of a failed report, from the exception or else from what pytest says of it."""
        cause: dict[str, Any] = dict(getattr(report, "callboard_cause", None) or {})
        text = getattr(report.longrepr, "errorstring", None)  # how pytest tells that a fixture is missing
        if text or "message" not in cause:
            cause["message"] = _first_lines(str(text or report.longrepr or ""))
        if not cause.get("file"):
            file, line = report.location[:2]
            cause.update(file=file, line=None if line is None else line + 1)
        return cause

    def cause(self, error: BaseException) -> dict[str, Any]:
        if type(error).__name__ == "CollectError" and error.__cause__ is not None:
            error = error.__cause__  # pytest wraps what a module raised
        kind = type(error)
        try:
            parts = error.exceptions[:MOST_LINES] if isinstance(error, GROUP) else ()
            text = "\n".join([str(error), *map(repr, parts)])
        except Exception:  # noqa: BLE001 (it is the project's code)
            text = "its text cannot be shown: its __str__ raised"
        module = "" if kind.__module__ in {"builtins", "__main__"} else kind.__module__ + "."
        file, line = self.place(error)
        return {
            "exception": (module + kind.__qualname__)[:MOST_LETTERS],
            "message": _first_lines(text),
            "file": file,
            "line": line,
        }

    def place(self, error: BaseException) -> tuple[str | None, int | None]:
        """Find the line of the project's own code that is nearest to where it was raised."""
        places = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if not frame.f_locals.get("__tracebackhide__")
        ]
        if isinstance(error, SyntaxError) and error.filename:
            places.append((error.filename, error.lineno or 1))
        for file, line in reversed(places):
            path = os.path.realpath(file)
            inside = path.startswith(os.path.realpath(self.root) + os.sep)
            if inside and "site-packages" not in path and not path.startswith(sys.prefix + os.sep):
                return os.path.relpath(path, os.path.realpath(self.root)), line
        return None, None


def _first_lines(text: str) -> list[str]:
    lines = [
        line[:MOST_LETTERS] for line in text[: MOST_LINES * MOST_LETTERS * 2].splitlines() if line.strip()
    ]
    return lines[:MOST_LINES]


def _leave_environment() -> None:
    """Take the way to this file out of what the tests, and what they start, get to see."""
    rest = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if rest[0] == str(FOLDER):
        os.environ["PYTHONPATH"] = os.pathsep.join(rest[1:])
        if not os.environ["PYTHONPATH"]:
            del os.environ["PYTHONPATH"]
