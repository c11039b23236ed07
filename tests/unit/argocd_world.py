"""Applications in every state, and a time that passes only when it is told to."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from streams.reports.argocd.application import Application, parse
from streams.reports.argocd.report import ArgocdReport, Source
from streams.reports.argocd.source import ReadError
from streams.reports.argocd.watch import Time
from streams.schemas import schemas

FOLDER = Path(__file__).parent / "fixtures" / "argocd"
BASE: dict[str, Any] = json.loads((FOLDER / "application.json").read_text())
SHA: str = BASE["status"]["sync"]["revision"]
OLD: str = BASE["status"]["history"][0]["revision"]
NOW = datetime(2026, 1, 31, 12, 5, tzinfo=UTC)
VALIDATOR = Draft202012Validator(json.loads(schemas()["reports/argocd.json"]))


def merged(target: Any, patch: Any) -> Any:
    """Apply a JSON Merge Patch."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def states() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every recorded state by name."""
    for file in sorted((FOLDER / "states").glob("*.json")):
        yield file.stem, json.loads(file.read_text())


def state(name: str) -> dict[str, Any]:
    """Give the Application of one state."""
    merge = json.loads((FOLDER / "states" / f"{name}.json").read_text())["merge"]
    found = merged(BASE, merge)
    assert isinstance(found, dict)
    return found


def valid(report: ArgocdReport) -> dict[str, Any]:
    """Expect that the report's JSON is what the schema says."""
    found = json.loads(report.model_dump_json())
    VALIDATOR.validate(found)
    assert isinstance(found, dict)
    return found


@dataclass(slots=True)
class FakeTime:
    """Passes by sleeping alone."""

    passed: float = 0.0
    slept: list[float] = field(default_factory=list)
    draw: float = 0.5

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.passed += seconds

    @property
    def time(self) -> Time:
        """What the code under test is given."""
        return Time(
            lambda: NOW + timedelta(seconds=self.passed), lambda: self.passed, self.sleep, lambda: self.draw
        )


@dataclass(slots=True)
class Recorded:
    """A source that gives one reading after the other, and the last one for ever."""

    readings: list[dict[str, Any] | ReadError]
    reads: int = 0
    described: Source = field(default_factory=lambda: Source(via="kubectl", command=("kubectl", "get")))

    def read(self) -> Application:
        """Give the next reading."""
        found = self.readings[min(self.reads, len(self.readings) - 1)]
        self.reads += 1
        if isinstance(found, ReadError):
            raise found
        return parse(json.dumps(found).encode())
