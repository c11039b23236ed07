"""Writes the final report: what was looked at, changed, found and tested, and what is left for people."""

from typing import Any

from agents.core.base import AgentResult, AgentStatus, Artifact
from agents.core.task import current_task
from agents.specialized.evidence import EvidenceAgent
from agents.specialized.facts import (
    Coverage,
    Patch,
    Report,
    Review,
    Suite,
    Undocumented,
    clean,
    goal_of,
    told,
)
from agents.specialized.inspection import Inspection, inspect
from agents.specialized.report import Story, changelog, headline, markdown
from agents.specialized.repository import Checkout, checked_out
from agents.specialized.researcher import is_test

REPORT = "report.md"
REPORT_LIMIT = 100_000
"""Characters of the report that go into the output; the artifact has all of it."""
MOST_FILES = 1_000
MOST_MISSING = 200
KINDS = {"Module": "module", "ClassDef": "class"}


class DocumentationAgent(EvidenceAgent):
    """Finds public API without docstrings, drafts a changelog entry, and writes the report.

    Input: `Review` and `Suite` as a join gives them, either of them, or the goal as text. Output: `Report`;
    the report is also the artifact `report.md`.
    """

    @property
    def system_prompt(self) -> str:
        """What the model is told about its role."""
        return (
            "You write the closing words of a report on a Python repository, for the person who has to"
            " decide what happens next. Use only the facts of the report. At most ten lines, plain words, no"
            " headings."
        )

    async def execute(self, input_data: Any) -> AgentResult[dict[str, Any]]:
        """Write the report.

        Raises:
            RepositoryError: If the repository cannot be opened.
        """
        task = current_task()
        goal = goal_of(input_data, task)
        review, suite = told(input_data, Review), told(input_data, Suite)
        patch = (review and review.patch) or (suite and suite.patch) or told(input_data, Patch)
        async with checked_out(task) as checkout:
            inspection = await inspect(checkout, _api_files(checkout), ["docstrings"])
            coverage = _coverage(inspection)
            story = Story(
                goal=goal,
                repository=checkout.name,
                commit=checkout.commit,
                files=len(checkout.files),
                python_files=sum(file.path.endswith(".py") for file in checkout.files),
                patched=bool(checkout.patch),
                patch=patch,
                review=review,
                suite=suite,
                coverage=coverage,
            )
        judgement = await self._judgement("Write the closing words.", report=markdown(story))
        text = markdown(story, judgement)
        report = Report(
            goal=goal,
            summary=headline(story),
            verdicts={
                agent: fact.verdict for agent, fact in (("code_reviewer", review), ("testing", suite)) if fact
            },
            coverage=coverage,
            changelog=changelog(story),
            report=text[:REPORT_LIMIT],
            notes=tuple(clean(note) for note in inspection.notes),
            judgement=judgement,
        )
        return AgentResult(
            status=AgentStatus.COMPLETED,
            output=report.model_dump(mode="json"),
            artifacts=(Artifact(name=REPORT, content=text.encode(), media_type="text/markdown"),),
        )


def _api_files(checkout: Checkout) -> list[str]:
    return [path for path in checkout.python_files() if not is_test(path)][:MOST_FILES]


def _coverage(inspection: Inspection) -> Coverage:
    public = 0
    count = 0
    missing: list[Undocumented] = []
    for path, report in inspection.reports.items():
        found = report.get("docstrings")
        if not found:
            continue
        public += found["public"]
        count += found["missing_count"]
        missing += [
            Undocumented(
                path=path,
                line=entry["line"],
                what=KINDS.get(entry["what"], "function"),
                name=clean(entry["name"], 100),
            )
            for entry in found["missing"]
        ]
    documented = public - count
    return Coverage(
        public=public,
        documented=documented,
        percent=round(100 * documented / public, 1) if public else 100.0,
        missing=tuple(missing[:MOST_MISSING]),
        missing_left_out=max(0, count - MOST_MISSING),
    )
