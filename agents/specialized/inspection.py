"""Asks `library_tools` about files, and survives what those do to it."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from agents.core.errors import ConfigurationError
from agents.specialized.repository import Checkout
from agents.subprocesses import environment_for, run

Tool = Literal["complexity", "docstrings", "outline", "security"]
PROGRAM = Path(__file__).with_name("library_tools.py")
MEMORY = 1024 * 1024 * 1024
MOST_DEATHS = 3
"""Files that may bring the program down before the rest is given up."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """Reports by path, and what could not be looked at."""

    reports: dict[str, dict[str, Any]]
    notes: tuple[str, ...]

    def broken(self) -> dict[str, str]:
        """Give the files that could not be parsed, each with the reason."""
        return {path: report["error"] for path, report in self.reports.items() if report["error"]}


async def inspect(
    checkout: Checkout, paths: Sequence[str], tools: Sequence[Tool], *, seconds: float = 60.0
) -> Inspection:
    """Run tools over Python files, each file on its own.

    Args:
        checkout: Where the files are.
        paths: Which ones.
        tools: What to run; a syntax check is always done.
        seconds: How long all of it may take.

    Raises:
        ConfigurationError: If a tool is not installed.
    """
    reports: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    left = list(paths)
    while left and len(notes) < MOST_DEATHS:
        asked = {"tools": tools, "paths": left, "memory": MEMORY, "cpu": math.ceil(seconds)}
        finished = await run(
            [sys.executable, "-P", "-B", PROGRAM],
            folder=checkout.root,
            environment=environment_for(checkout.scratch),
            seconds=seconds,
            given=orjson.dumps(asked),
            output_limit=64 * 1024 * 1024,
        )
        if b"ModuleNotFoundError" in finished.errors:
            raise ConfigurationError(f"{finished.last_words(100)}: pip install 'callboard[specialized]'")
        # The last line is incomplete if the program died writing it.
        for line in finished.output.split(b"\n")[:-1]:
            if line.startswith(b"{"):
                report = orjson.loads(line)
                reports[report["path"]] = report
        left = [path for path in left if path not in reports]
        if left:
            why = "took too long" if finished.timed_out else f"ended the tools ({finished.code})"
            notes.append(f"{left.pop(0)} {why} and was not looked at")
    if left:
        notes.append(f"{len(left)} more files were not looked at")
    return Inspection(reports, tuple(notes))
