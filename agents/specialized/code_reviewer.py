"""Reviews what a patch touches: lint, complexity and security, and a verdict by a stated rule."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

from agents.core.base import AgentResult, AgentStatus
from agents.core.task import current_task
from agents.specialized.evidence import EvidenceAgent
from agents.specialized.facts import SEVERITIES, Finding, Patch, Review, Severity, clean, goal_of, told
from agents.specialized.inspection import Inspection, inspect
from agents.specialized.linting import Rules, lint, rules_of
from agents.specialized.patch import changed_lines
from agents.specialized.repository import Checkout, checked_out
from agents.specialized.researcher import is_test

MOST_FILES = 500
"""Files that are reviewed at most."""
MOST_FINDINGS = 200
"""Findings that are told; all are counted."""
SHOWN_FINDINGS = 60

VERDICT_RULE = (
    "changes are requested for any finding of high severity in the reviewed files, and for any of medium"
    " severity on a changed line"
)
RANKS: dict[str, Severity] = {"C": "low", "D": "medium", "E": "high", "F": "high"}
BANDIT: dict[str, Severity] = {"low": "low", "medium": "medium", "high": "high"}
ASSERT_USED = "B101"


class CodeReviewerAgent(EvidenceAgent):
    """Says what tools find in the files a patch touches, or in all of them if there is no patch.

    Input: `Patch`, or the goal as text. Output: `Review`; its verdict is the result's.
    """

    @property
    def system_prompt(self) -> str:
        """What the model is told about its role."""
        return (
            "You review a patch to a Python repository. Tools have found what is listed; say what they cannot"
            " see: whether the change is right, what it may break, and what must be done before it is merged."
            " At most fifteen lines, the most important first."
        )

    async def execute(self, input_data: Any) -> AgentResult[dict[str, Any]]:
        """Review.

        Raises:
            RepositoryError: If the repository cannot be opened.
            AgentError: If a tool cannot do its work.
        """
        task = current_task()
        goal = goal_of(input_data, task)
        async with checked_out(task) as checkout:
            lines = await changed_lines(checkout) if checkout.patch else {}
            review = await _review(checkout, goal, lines)
            patch = checkout.patch.decode(errors="replace")
        review = review.model_copy(update={"patch": told(input_data, Patch)})
        judgement = await self._judgement(
            "Review this patch.",
            goal=goal or "none was given",
            patch=patch or "there is none: all files were reviewed",
            findings=_listed(review.findings[:SHOWN_FINDINGS]),
        )
        review = review.model_copy(update={"judgement": judgement})
        return AgentResult(
            status=AgentStatus.COMPLETED, output=review.model_dump(mode="json"), verdict=review.verdict
        )


async def _review(checkout: Checkout, goal: str, lines: dict[str, set[int]]) -> Review:
    python = checkout.python_files()
    touched = [path for path in python if path in lines] if checkout.patch else list(python)
    paths = touched[:MOST_FILES]
    rules: Rules = await asyncio.to_thread(rules_of, checkout)
    linted, inspection = await asyncio.gather(
        lint(checkout, paths, rules), inspect(checkout, paths, ["complexity", "security"])
    )
    found = [*linted.findings, *_inspected(inspection, {finding.path for finding in linted.findings})]
    findings = [
        finding.model_copy(update={"on_changed_line": finding.line in lines.get(finding.path, ())})
        for finding in found
    ]
    findings.sort(key=_weight)
    blocking = [
        finding
        for finding in findings
        if finding.severity == "high" or (finding.severity == "medium" and finding.on_changed_line)
    ]
    counts = Counter(finding.severity for finding in findings)
    notes = [*linted.rules.notes, *inspection.notes]
    if len(touched) > len(paths):
        notes.append(f"{len(touched) - len(paths)} more files were not reviewed")
    return Review(
        goal=goal,
        verdict="changes_requested" if blocking else "approved",
        verdict_rule=VERDICT_RULE,
        scope="files of the patch" if checkout.patch else "all Python files: there is no patch",
        reviewed=tuple(paths),
        counts={severity: counts[severity] for severity in SEVERITIES},
        findings=tuple(findings[:MOST_FINDINGS]),
        findings_left_out=max(0, len(findings) - MOST_FINDINGS),
        notes=tuple(clean(note) for note in notes),
    )


def _inspected(inspection: Inspection, linted: set[str]) -> Iterable[Finding]:
    for path, report in inspection.reports.items():
        # Ruff has said already what is wrong with a file it cannot parse.
        if report["error"] and path not in linted:
            line = report.get("line") or 1
            yield _found("python", "syntax", "high", path, line, report["error"])
        for block in report.get("complexity", ()):
            message = (
                f"{block['name']} has a cyclomatic complexity of {block['complexity']} (rank {block['rank']})"
            )
            yield _found(
                "radon", block["rank"], RANKS.get(block["rank"], "high"), path, block["line"], message
            )
        for issue in report.get("security", ()):
            if issue["rule"] != ASSERT_USED or not is_test(path):
                severity = BANDIT.get(issue["severity"], "low")
                yield _found("bandit", issue["rule"], severity, path, issue["line"], issue["message"])


def _found(tool: str, rule: str, severity: Severity, path: str, line: int, message: str) -> Finding:  # noqa: PLR0913, PLR0917
    return Finding(tool=tool, rule=rule, severity=severity, path=path, line=line, message=clean(message))


def _weight(finding: Finding) -> tuple[int, bool, str, int, str]:
    severity = SEVERITIES.index(finding.severity)
    return severity, not finding.on_changed_line, finding.path, finding.line, finding.rule


def _listed(findings: Iterable[Finding]) -> str:
    return (
        "\n".join(
            f"{finding.severity} {finding.path}:{finding.line} {finding.rule}: {finding.message}"
            for finding in findings
        )
        or "none"
    )
