"""What the shipped agents tell each other: plain JSON, bounded, with a `kind` that says what it is.

Each of them hands on what those after it need, so nobody has to look for earlier results. All text in here
comes out of somebody's repository: it is cut to a length, freed of control characters, and stays untrusted.
"""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.core.errors import InvalidInputError
from agents.core.task import Task

NO_JUDGEMENT = "none: no language model was asked"
GOAL_LIMIT = 4_000
Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")


class Fact(BaseModel):
    """Base of all that is told."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Line(Fact):
    """A line of a file that matched."""

    line: int
    text: str


class RankedFile(Fact):
    """A file that matters; the best score of a repository is 1."""

    path: str
    score: float
    why: str
    lines: tuple[Line, ...] = ()


class LeftOut(Fact):
    """Files that were not read."""

    why: str
    count: int
    examples: tuple[str, ...] = ()


class RepositoryMap(Fact):
    """A repository at one commit; `lines` are those of text files that were read."""

    name: str
    commit: str
    files: int
    python_files: int
    lines: int
    languages: dict[str, int] = Field(default_factory=dict, description="files by language")
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    entry_points: tuple[str, ...] = ()


class ResearchSummary(Fact):
    """What travels on from the research to the end of the workflow."""

    repository: RepositoryMap
    files: tuple[str, ...] = ()
    tests: int = 0
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    judgement: str = NO_JUDGEMENT


class Research(Fact):
    """Output of the researcher."""

    kind: Literal["research"] = "research"
    goal: str
    repository: RepositoryMap
    files: tuple[RankedFile, ...]
    tests: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    judgement: str = NO_JUDGEMENT

    def summary(self) -> ResearchSummary:
        """Cut it down to what later agents need."""
        return ResearchSummary(
            repository=self.repository.model_copy(update={"modules": ()}),
            files=tuple(file.path for file in self.files[:20]),
            tests=len(self.tests),
            left_out=self.left_out,
            notes=self.notes,
            judgement=self.judgement,
        )


class ChangedFile(Fact):
    """A file the patch touches; a binary one has no counts."""

    path: str
    insertions: int | None
    deletions: int | None


class Patch(Fact):
    """Output of the developer; the patch itself is the artifact named by `artifact`, none if it is empty."""

    kind: Literal["patch"] = "patch"
    goal: str
    summary: str
    artifact: str | None
    rules: str = Field(description="which rules were applied, and who chose them")
    changed: tuple[ChangedFile, ...]
    changed_left_out: int = 0
    fixes: dict[str, int] = Field(description="findings that are gone, by rule")
    remaining: int = Field(description="findings of the same rules that are left")
    notes: tuple[str, ...] = ()
    judgement: str = NO_JUDGEMENT
    research: ResearchSummary | None = None


class Finding(Fact):
    """One thing a tool found."""

    tool: str
    rule: str
    severity: Severity
    path: str
    line: int
    message: str
    on_changed_line: bool = False


class Review(Fact):
    """Output of the code reviewer."""

    kind: Literal["review"] = "review"
    goal: str
    verdict: Literal["approved", "changes_requested"]
    verdict_rule: str
    scope: str
    reviewed: tuple[str, ...]
    counts: dict[str, int] = Field(description="findings by severity")
    findings: tuple[Finding, ...]
    findings_left_out: int = 0
    notes: tuple[str, ...] = ()
    judgement: str = NO_JUDGEMENT
    patch: Patch | None = None


class Failure(Fact):
    """A test that failed, or could not run; `test` is its node id as far as the report tells it."""

    test: str
    file: str
    line: int | None
    message: str


class Outcome(Fact):
    """What one run of a test suite ended with."""

    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    duration_seconds: float = 0.0
    exit_code: int | None = None
    timed_out: bool = False
    problem: str = Field(default="", description="why the counts are not the whole story; empty if they are")
    left_running: int = Field(default=0, description="processes the tests left behind, which were ended")
    failures: tuple[Failure, ...] = ()
    failures_left_out: int = 0
    output_tail: str = Field(default="", description="only if there is a problem")


class Suite(Outcome):
    """Output of the testing agent: the run with the patch, and how it compares to the one without."""

    kind: Literal["tests"] = "tests"
    goal: str
    verdict: Literal["passed", "failed", "no_tests"]
    patched: bool
    network: Literal["cut", "open"]
    isolation: str
    baseline: Outcome | None = None
    newly_failing: tuple[str, ...] = ()
    still_failing: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    judgement: str = NO_JUDGEMENT
    patch: Patch | None = None


class Undocumented(Fact):
    """Something public without a docstring."""

    path: str
    line: int
    what: str
    name: str


class Coverage(Fact):
    """How much of the public API has a docstring."""

    public: int
    documented: int
    percent: float
    missing: tuple[Undocumented, ...]
    missing_left_out: int = 0


class Report(Fact):
    """Output of the documentation agent; the whole report is the artifact `report.md`."""

    kind: Literal["report"] = "report"
    goal: str
    summary: str
    verdicts: dict[str, str]
    coverage: Coverage | None
    changelog: str
    report: str
    notes: tuple[str, ...] = ()
    judgement: str = NO_JUDGEMENT


FactT = TypeVar("FactT", Research, Patch, Review, Suite)


def told(value: Any, kind: type[FactT]) -> FactT | None:
    """Find one kind of fact in an input: the input itself, or one of its entries after a join.

    Raises:
        InvalidInputError: If it is there but is not what it says it is.
    """
    if not isinstance(value, dict):
        return None
    wanted = kind.model_fields["kind"].default
    for candidate in (value, *value.values()):
        if isinstance(candidate, dict) and candidate.get("kind") == wanted:
            try:
                return kind.model_validate(candidate)
            except ValidationError as error:
                places = "; ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
                raise InvalidInputError(f"the input's {wanted} is not valid at: {places[:500]}") from None
    return None


def goal_of(value: Any, task: Task) -> str:
    """Find the goal: the input, an entry `goal` of it or of its parts, or what the workflow began with.

    Raises:
        InvalidInputError: If the input is neither text nor an object nor nothing.
    """
    if value is not None and not isinstance(value, str | dict):
        raise InvalidInputError(
            f"agent {task.agent!r} takes the goal as text or an object, not {value!r:.99}"
        )
    candidates: list[Any] = [value]
    if isinstance(value, dict):
        parts = [part for part in value.values() if isinstance(part, dict)]
        candidates = [part.get("goal") for part in (value, *parts)]
    for goal in (*candidates, task.root.input):
        if isinstance(goal, str):
            return clean(goal, GOAL_LIMIT)
    return ""


def clean(text: str, limit: int = 300) -> str:
    """Make text of unknown origin safe to print: one line, no control characters, at most `limit` long."""
    valid = text[: limit * 4].encode(errors="replace").decode()
    printable = "".join(
        letter if letter.isprintable() else " " if letter in "\n\t\r" else "" for letter in valid
    )
    return shortened(" ".join("".join(printable).split()), limit)


def clean_block(text: str, limit: int) -> str:
    """Do as `clean`, but keep the lines; of a text that is too long, keep the end."""
    valid = text[-limit:].encode(errors="replace").decode().replace("\r\n", "\n")
    return "".join(letter for letter in valid if letter.isprintable() or letter in "\n\t")


def shortened(text: str, limit: int) -> str:
    """Cut a text to `limit` characters, visibly."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
