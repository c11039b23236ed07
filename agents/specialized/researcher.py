"""Maps a repository and finds the files that matter for a goal."""

import asyncio
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from agents.core.base import AgentResult, AgentStatus
from agents.core.errors import RepositoryError
from agents.core.task import current_task
from agents.specialized.evidence import EvidenceAgent
from agents.specialized.facts import (
    LeftOut,
    RankedFile,
    RepositoryMap,
    Research,
    clean,
    goal_of,
)
from agents.specialized.inspection import Inspection, inspect
from agents.specialized.repository import Checkout, checked_out
from agents.specialized.text_index import Document, Hit, search, words_of

MIB = 1024 * 1024
FILE_LIMIT = MIB
"""Bytes of a file that is read at most; larger ones are left out."""
READ_LIMIT = 32 * MIB
"""Bytes that are read in all."""
READ_FILES = 5_000
"""Files that are read in all."""
MOST_FILES = 100
MOST_TESTS = 200
MOST_MODULES = 300
MOST_EXAMPLES = 5
MOST_NAMES = 50
NEIGHBOUR = 0.5
"""What importing a file that matters is worth, compared to that file."""

# A goal of these words alone is about the whole repository, not about some of its files.
GENERAL = frozenset(
    words_of(
        "a all also an and any are as be better bug bugs by can clean cleanup code codebase do everything"
        " failing find fix for from get good green has have high i improve in is issue issues it its lint"
        " linter linting list low make me more my of on or our package pass passes passing please problem"
        " problems project python quality refactor repo repository review run see should so some style"
        " tell test tested tests that the them there these they this tidy to up update us use we what"
        " where which with work working would you your"
    )
)
LANGUAGES = {
    ".c": "C",
    ".cpp": "C++",
    ".css": "CSS",
    ".go": "Go",
    ".h": "C",
    ".html": "HTML",
    ".java": "Java",
    ".js": "JavaScript",
    ".json": "JSON",
    ".md": "Markdown",
    ".py": "Python",
    ".pyi": "Python",
    ".pyx": "Cython",
    ".rs": "Rust",
    ".rst": "reStructuredText",
    ".sh": "Shell",
    ".sql": "SQL",
    ".toml": "TOML",
    ".ts": "TypeScript",
    ".txt": "Text",
    ".yaml": "YAML",
    ".yml": "YAML",
}


@dataclass(slots=True)
class Reading:
    """The text files of a checkout, and what was not read, by reason."""

    texts: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    not_utf8: int = 0


class ResearcherAgent(EvidenceAgent):
    """Looks at the repository a task is about; needs a goal, or ranks by size and complexity.

    Input: the goal as text. Output: `Research`. Reads bounded amounts, and says what it left out.
    """

    @property
    def system_prompt(self) -> str:
        """What the model is told about its role."""
        return (
            "You research a code repository for a team of engineers. You get facts that tools collected."
            " Be short, name files, and say so where the facts do not suffice."
        )

    async def execute(self, input_data: Any) -> AgentResult[dict[str, Any]]:
        """Map the repository and rank its files.

        Raises:
            RepositoryError: If it cannot be opened, or has no Python files.
        """
        task = current_task()
        goal = goal_of(input_data, task)
        async with checked_out(task) as checkout:
            research = await _research(checkout, goal)
        question = (
            "Given the goal and the map of the repository below, say in at most ten lines which files matter"
            " and why, what to do in which order, and which risks you see."
        )
        evidence = research.model_dump_json(exclude={"judgement"}, indent=1)
        judgement = await self._judgement(question, goal=goal or "none was given", research=evidence)
        research = research.model_copy(update={"judgement": judgement})
        return AgentResult(status=AgentStatus.COMPLETED, output=research.model_dump(mode="json"))


async def _research(checkout: Checkout, goal: str) -> Research:
    reading = await asyncio.to_thread(_read, checkout)
    languages = Counter(_language(file.path) for file in checkout.files)
    python = checkout.python_files(FILE_LIMIT)[:READ_FILES]
    if not python:
        found = (
            ", ".join(f"{count} {language}" for language, count in languages.most_common(5))
            or "no files at all"
        )
        raise RepositoryError(
            f"repository {checkout.name!r} has no Python files at {checkout.commit[:12]}; found: {found}"
        )
    inspection = await inspect(checkout, python, ["outline"])
    terms = _terms(goal)
    documents = [
        Document(path, text, tuple(_outline(inspection, path).get("defined", ())))
        for path, text in reading.texts.items()
    ]
    hits = await asyncio.to_thread(search, documents, terms, MOST_FILES) if terms else []
    notes = [*inspection.notes, *_notes(checkout, reading, inspection)]
    if hits:
        ranked = _by_words(hits, inspection)
    else:
        ranked = _by_weight(reading, inspection)
        why = f"no file has any of: {', '.join(terms)}" if terms else "the goal is about the whole repository"
        notes.append(f"{why}; Python files are ranked by size and decisions")
    tests = [path for path in python if is_test(path)]
    return Research(
        goal=goal,
        repository=_map(checkout, reading, inspection, languages),
        files=tuple(ranked[:MOST_FILES]),
        tests=tuple(tests[:MOST_TESTS]),
        left_out=tuple(_left_out(reading)),
        notes=tuple(clean(note) for note in notes[:MOST_NAMES]),
    )


def is_test(path: str) -> bool:
    """Whether pytest would take a file for one with tests, or it lies among them."""
    place = PurePosixPath(path)
    named = place.name.startswith("test_") or place.stem.endswith("_test") or place.name == "conftest.py"
    return place.suffix == ".py" and (named or bool({"test", "tests"} & set(place.parts[:-1])))


def _read(checkout: Checkout) -> Reading:
    reading = Reading()
    budget = READ_LIMIT

    def leave(why: str, path: str) -> None:
        reading.left_out.setdefault(why, []).append(path)

    for link in checkout.links:
        leave("symbolic link, not followed", link)
    for submodule in checkout.submodules:
        leave("submodule, not fetched", submodule)
    for file in checkout.files:
        if file.size > FILE_LIMIT:
            leave(f"larger than {FILE_LIMIT // 1024} KiB", file.path)
            continue
        if file.size > budget or len(reading.texts) >= READ_FILES:
            leave(f"more than {READ_FILES} files or {READ_LIMIT // MIB} MiB in all", file.path)
            continue
        content = checkout.read(file.path)
        if b"\0" in content[:8192]:
            leave("binary", file.path)
            continue
        budget -= len(content)
        try:
            reading.texts[file.path] = content.decode()
        except UnicodeDecodeError:
            reading.not_utf8 += 1
            reading.texts[file.path] = content.decode(errors="replace")
    return reading


def _terms(goal: str) -> list[str]:
    words = (word for word in words_of(goal) if word not in GENERAL and len(word) > 1)
    return list(dict.fromkeys(words))[:MOST_NAMES]


def _by_words(hits: list[Hit], inspection: Inspection) -> list[RankedFile]:
    best = max(hit.score for hit in hits)
    ranked = {
        hit.path: RankedFile(
            path=hit.path,
            score=round(hit.score / best, 3),
            why=f"has {', '.join(hit.terms[:10])}" if hit.terms else "has some of the goal's words",
            lines=hit.lines,
        )
        for hit in hits
    }
    by_module = {module_name(path): path for path in inspection.reports}
    for path in inspection.reports:
        for imported in _outline(inspection, path).get("imported", ()):
            other = ranked.get(by_module.get(_absolute(imported, path), ""))
            score = round(other.score * NEIGHBOUR, 3) if other and other.lines else 0.0
            if other and score > 0 and path not in ranked:
                ranked[path] = RankedFile(path=path, score=score, why=f"imports {other.path}")
    return sorted(ranked.values(), key=lambda file: (-file.score, file.path))


def _by_weight(reading: Reading, inspection: Inspection) -> list[RankedFile]:
    weights: dict[str, tuple[float, str]] = {}
    for path, report in inspection.reports.items():
        lines = reading.texts.get(path, "").count("\n")
        decisions = _outline(inspection, path).get("decisions", 0)
        # A decision costs a reader about as much as ten plain lines.
        why = f"lines: {lines}, decisions: {decisions}"
        weights[path] = (lines + 10 * decisions, f"{why}; {report['error']}" if report["error"] else why)
    most = max((weight for weight, _ in weights.values()), default=0) or 1
    ranked = [
        RankedFile(path=path, score=round(weight / most, 3), why=clean(why))
        for path, (weight, why) in weights.items()
    ]
    return sorted(ranked, key=lambda file: (-file.score, file.path))


def _map(
    checkout: Checkout, reading: Reading, inspection: Inspection, languages: "Counter[str]"
) -> RepositoryMap:
    python = [file.path for file in checkout.files if file.path.endswith(".py")]
    packages = sorted({module_name(path) for path in python if path.endswith("__init__.py")} - {""})
    modules = sorted(
        module_name(path) for path in python if not is_test(path) and not path.endswith("__init__.py")
    )
    scripts = [path for path in inspection.reports if _outline(inspection, path).get("runs_itself")]
    return RepositoryMap(
        name=checkout.name,
        commit=checkout.commit,
        files=len(checkout.files),
        python_files=len(python),
        lines=sum(text.count("\n") for text in reading.texts.values()),
        languages=dict(languages.most_common(20)),
        packages=tuple(clean(name) for name in packages[:MOST_NAMES]),
        modules=tuple(clean(name) for name in modules[:MOST_MODULES]),
        entry_points=tuple(clean(name) for name in [*_declared(reading), *scripts][:MOST_NAMES]),
    )


def _declared(reading: Reading) -> Iterable[str]:
    """Give the commands that pyproject.toml declares."""
    try:
        project = tomllib.loads(reading.texts.get("pyproject.toml", "")).get("project", {})
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    scripts = project.get("scripts", {}) if isinstance(project, dict) else {}
    if isinstance(scripts, dict):
        for name, target in scripts.items():
            yield f"{name} = {target}"


def _notes(checkout: Checkout, reading: Reading, inspection: Inspection) -> Iterable[str]:
    if checkout.unreadable_names:
        yield f"{checkout.unreadable_names} paths are not UTF-8 and were left out"
    if reading.not_utf8:
        yield f"{reading.not_utf8} text files are not UTF-8; what could not be decoded was replaced"
    for path, why in list(inspection.broken().items())[:MOST_EXAMPLES]:
        yield f"{path} is no Python {sys.version_info.major}.{sys.version_info.minor}: {why}"


def _left_out(reading: Reading) -> Iterable[LeftOut]:
    for why, paths in reading.left_out.items():
        yield LeftOut(
            why=why, count=len(paths), examples=tuple(clean(path) for path in paths[:MOST_EXAMPLES])
        )


def module_name(path: str) -> str:
    """Give the name a Python file is imported by, from the root or from src."""
    parts = PurePosixPath(path).with_suffix("").parts
    parts = parts[1:] if parts[:1] == ("src",) else parts
    return ".".join(parts[:-1] if parts[-1:] == ("__init__",) else parts)


def _absolute(imported: str, path: str) -> str:
    """Resolve a relative import."""
    level = len(imported) - len(imported.lstrip("."))
    if not level:
        return imported
    package = module_name(path).split(".")
    kept = package[: len(package) - level + path.endswith("__init__.py")]
    return ".".join([*kept, imported[level:]]).strip(".")


def _outline(inspection: Inspection, path: str) -> dict[str, Any]:
    outline = inspection.reports.get(path, {}).get("outline")
    return outline if isinstance(outline, dict) else {}


def _language(path: str) -> str:
    return LANGUAGES.get(PurePosixPath(path).suffix.lower(), "other")
