"""Runs ruff on a checkout: with the rules the repository chose for itself, else with a stated set.

Of a repository's own configuration only the one at its top counts, and only as far as it stays inside: one
that extends another file is not followed, caches are never written, unsafe fixes never applied.
"""

import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from agents.core.errors import AgentError, ConfigurationError
from agents.specialized.facts import Finding, Severity, clean
from agents.specialized.repository import Checkout
from agents.subprocesses import Finished, environment_for, run

LIMIT = 60.0
"""Seconds one ruff run may take."""
DEFAULT_RULES = ("E4", "E7", "E9", "F", "W", "I", "B", "C4", "PIE", "SIM")
MODERN_RULES = ("UP",)
"""Only where the repository says which Python it needs: newer syntax breaks older ones."""
OWN_FILES = (".ruff.toml", "ruff.toml", "pyproject.toml")  # in the order ruff looks for them
OLDEST, NEWEST = 7, 14
REFUSED = 2

SEVERITIES: tuple[tuple[str, Severity], ...] = (
    ("invalid-syntax", "high"),
    ("E9", "high"),
    ("F82", "high"),  # undefined names
    ("F63", "medium"),  # comparisons that are always true
    ("F70", "medium"),  # statements where they cannot stand
    ("E722", "medium"),  # bare except
    ("BLE", "medium"),
    ("B", "medium"),
    ("S", "medium"),
)
"""By the longest beginning of a rule's name that fits; everything else is low."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How ruff is called for one repository."""

    options: tuple[str, ...]
    chosen_by: str
    formats: bool = False
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Lint:
    """Findings, and the rules they were found by: the given ones, unless ruff refused those."""

    findings: tuple[Finding, ...]
    rules: Rules


def rules_of(checkout: Checkout) -> Rules:
    """Find out which rules a repository wants to be checked by; reads files, so call it in a thread."""
    regular = {file.path for file in checkout.files if file.size < 1024 * 1024}
    project = _toml(checkout, "pyproject.toml") if "pyproject.toml" in regular else {}
    for name in OWN_FILES:
        if name not in regular:
            continue
        own = project.get("tool", {}).get("ruff") if name == "pyproject.toml" else _toml(checkout, name)
        if not isinstance(own, dict) or not own:
            continue
        if "extend" in own:
            note = f"its ruff configuration in {name} extends another file, which is not followed"
            return default_rules(project, note)
        options = ("--config", str(checkout.root / name))
        return Rules(options, f"the repository's own ({name})", formats="format" in own)
    return default_rules(project)


def default_rules(project: dict[str, Any], *notes: str) -> Rules:
    """Give the stated set, for the oldest Python the project says it needs."""
    wanted = project.get("project", {})
    required = wanted.get("requires-python", "") if isinstance(wanted, dict) else ""
    minor = re.search(r">=?\s*3\.(\d+)", required) if isinstance(required, str) else None
    selected = DEFAULT_RULES if minor is None else (*DEFAULT_RULES, *MODERN_RULES)
    options = ["--isolated", "--select", ",".join(selected)]
    if minor is not None:
        options += ["--target-version", f"py3{min(max(int(minor.group(1)), OLDEST), NEWEST)}"]
    return Rules(tuple(options), f"a default set: {', '.join(selected)}", notes=notes)


async def lint(checkout: Checkout, paths: Sequence[str], rules: Rules, *, fix: bool = False) -> Lint:
    """Check files, and fix what can be fixed safely.

    Args:
        checkout: Where they are.
        paths: Which ones.
        rules: Which rules apply; if ruff does not accept them, the stated set does, with a note.
        fix: Whether to apply safe fixes; what is left is then given.

    Raises:
        AgentError: If ruff cannot do it.
    """
    if not paths:
        return Lint((), rules)
    options = ("--fix", "--no-unsafe-fixes") if fix else ("--no-fix",)
    fixed = ("check", "--no-cache", "--force-exclude", "--exit-zero", "--output-format", "json")
    finished = await _ruff(
        checkout, paths, *fixed, *options, "--no-fix-only", "--no-show-fixes", *rules.options
    )
    if finished.code == REFUSED and "--config" in rules.options:
        note = f"ruff does not accept {rules.chosen_by} rules, so the default set was used"
        return await lint(checkout, paths, default_rules({}, note), fix=fix)
    if finished.code or finished.cut or finished.timed_out:
        why = "took too long" if finished.timed_out else "had too much to say" if finished.cut else ""
        raise AgentError(f"ruff cannot check {checkout.name!r}: {why or finished.last_words()}")
    return Lint(tuple(_finding(entry, checkout.root) for entry in orjson.loads(finished.output)), rules)


async def reformat(checkout: Checkout, paths: Sequence[str], rules: Rules) -> bool:
    """Format files, if the repository says how; tells whether ruff did."""
    if not rules.formats or not paths:
        return False
    finished = await _ruff(
        checkout, paths, "format", "--quiet", "--no-cache", "--force-exclude", *rules.options
    )
    return not finished.code and not finished.timed_out


async def _ruff(checkout: Checkout, paths: Sequence[str], *arguments: str) -> Finished:
    beside = Path(sys.executable).with_name("ruff")
    program = str(beside) if beside.exists() else shutil.which("ruff")
    if program is None:
        raise ConfigurationError("ruff is not installed: pip install 'callboard[specialized]'")
    # `./` keeps a file named like an option, or like ruff's @arguments, from being taken for one.
    return await run(
        [program, *arguments, "--", *(f"./{path}" for path in paths)],
        folder=checkout.root,
        environment=environment_for(checkout.scratch, NO_COLOR="1"),
        seconds=LIMIT,
        output_limit=32 * 1024 * 1024,
    )


def _finding(entry: dict[str, Any], root: Path) -> Finding:
    rule = entry["code"] or entry.get("name") or "invalid-syntax"
    place = Path(entry["filename"])
    return Finding(
        tool="ruff",
        rule=rule,
        severity=_severity(rule),
        path=str(place.relative_to(root)) if place.is_relative_to(root) else str(place),
        line=entry["location"]["row"],
        message=clean(entry["message"]),
    )


def _severity(rule: str) -> Severity:
    if rule.startswith("SIM"):
        return "low"
    fitting = [(len(start), severity) for start, severity in SEVERITIES if rule.startswith(start)]
    return max(fitting)[1] if fitting else "low"


def _toml(checkout: Checkout, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(checkout.read(name).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return {}
