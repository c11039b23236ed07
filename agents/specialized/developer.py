"""Improves a repository in a scratch worktree and hands on what changed as a patch."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from agents.core.base import AgentConfig, AgentResult, AgentStatus, Artifact
from agents.core.errors import AgentError
from agents.core.task import current_task
from agents.specialized.evidence import JUDGEMENT_LIMIT, EvidenceAgent
from agents.specialized.facts import (
    NO_JUDGEMENT,
    Finding,
    Outcome,
    Patch,
    Research,
    Suite,
    clean,
    clean_block,
    goal_of,
    told,
)
from agents.specialized.git import checked
from agents.specialized.inspection import inspect
from agents.specialized.linting import lint, reformat, rules_of
from agents.specialized.patch import MOST_CHANGED, changed_files, lines_of, patch_in, total
from agents.specialized.repository import PATCH, Checkout, checked_out
from agents.specialized.sandbox import Limits, isolation, run_tests

PATCH_TYPE = "text/x-diff"
PATCH_LIMIT = 16 * 1024 * 1024
MOST_RULES = 100
SHOWN_FILES = 12
SHOWN_BYTES = 12_000
SHOWN_FINDINGS = 40
MOST_FILES = 1_000
"""Files that are worked on at most."""


class DeveloperAgent(EvidenceAgent):
    """Applies what linters fix safely, and asks the model, if there is one, to do what is left.

    Input: `Research`, or the goal as text (then all Python files are worked on). Output: `Patch`. The patch
    is the artifact `patch`, complete: a patch that came with the task is part of it. An empty patch is a
    valid outcome, and no artifact.
    """

    def __init__(self, config: AgentConfig | None = None, *, test_limits: Limits | None = None) -> None:
        super().__init__(config)
        self.test_limits = test_limits or Limits()

    @property
    def system_prompt(self) -> str:
        """What the model is told about its role."""
        return (
            "You are a careful Python developer. You answer with one unified diff in a ```diff block, with a/"
            " and b/ path prefixes and three lines of context, that `git apply` accepts; or with the word"
            " NONE if nothing should change. You make the smallest change that reaches the goal, and leave"
            " the tests as they are unless the goal is about them."
        )

    async def execute(self, input_data: Any) -> AgentResult[dict[str, Any]]:
        """Make the patch.

        Raises:
            RepositoryError: If the repository cannot be opened.
            AgentError: If the linter cannot do its work, or makes a patch that does not apply.
        """
        task = current_task()
        goal = goal_of(input_data, task)
        research = told(input_data, Research)
        async with checked_out(task) as checkout:
            paths, remark = _paths(checkout, research)
            rules = await asyncio.to_thread(rules_of, checkout)
            before = await lint(checkout, paths, rules)
            after = await lint(checkout, paths, before.rules, fix=True)
            notes = [*after.rules.notes, remark]
            if await reformat(checkout, paths, after.rules):
                notes.append("files were formatted, as the repository's configuration says")
            judgement = await self._ask(checkout, goal, input_data, after.findings)
            left = await lint(checkout, paths, after.rules)
            changed = await changed_files(checkout)
            content = await checkout.difference("--binary")
            await _verify(checkout, content)
        fixes = _fixes(before.findings, left.findings)
        patch = Patch(
            goal=goal,
            summary=f"{total(changed)}; {sum(fixes.values())} findings fixed, {len(left.findings)} left",
            artifact=PATCH if content else None,
            rules=after.rules.chosen_by,
            changed=tuple(changed[:MOST_CHANGED]),
            changed_left_out=max(0, len(changed) - MOST_CHANGED),
            fixes=dict(fixes.most_common(MOST_RULES)),
            remaining=len(left.findings),
            notes=tuple(clean(note) for note in notes if note),
            judgement=judgement,
            research=research.summary() if research else None,
        )
        artifacts = (Artifact(name=PATCH, content=content, media_type=PATCH_TYPE),) if content else ()
        return AgentResult(
            status=AgentStatus.COMPLETED, output=patch.model_dump(mode="json"), artifacts=artifacts
        )

    async def _ask(self, checkout: Checkout, goal: str, input_data: Any, findings: Sequence[Finding]) -> str:
        """Let the model do what is left; its patch counts only if it applies and leaves valid Python."""
        if not self.llm.asks:
            return NO_JUDGEMENT
        question = "Make the change that the goal asks for and that the tools have not made yet."
        listed = [f"{finding.path}:{finding.line}: {finding.rule} {finding.message}" for finding in findings]
        answer = await self._answer(
            question,
            goal=goal or "make the tests pass, and fix what the linter still finds",
            failing_tests=await self._failing_tests(checkout, told(input_data, Suite)),
            findings_left="\n".join(listed[:SHOWN_FINDINGS]) or "none",
            files=await asyncio.to_thread(_shown, checkout, told(input_data, Research)),
        )
        fate = await _take(checkout, patch_in(answer or ""))
        return clean_block(f"the model's patch {fate}\n\n{answer}"[:JUDGEMENT_LIMIT], JUDGEMENT_LIMIT)

    async def _failing_tests(self, checkout: Checkout, known: Outcome | None) -> str:
        outcome = known
        if outcome is None:
            # Tests may change files, so they get a tree of their own.
            async with checked_out(current_task(), patched=False, links=True) as copy:
                await copy.apply(await checkout.difference("--binary"))
                outcome = await run_tests(copy, self.test_limits, await isolation())
        lines = [f"{failure.test} line {failure.line}: {failure.message}" for failure in outcome.failures]
        return "\n".join(filter(None, [*lines, outcome.problem])) or "none"


def _paths(checkout: Checkout, research: Research | None) -> tuple[list[str], str]:
    """Give the Python files to work on, and a remark if that is not all of them."""
    there = checkout.python_files()
    wanted = {file.path for file in research.files} if research else set()
    paths = [path for path in there if path in wanted] or list(there)
    chosen = paths[:MOST_FILES]
    others = len(there) - len(chosen)
    return chosen, f"{others} other Python files were not worked on" if others else ""


async def _take(checkout: Checkout, patch: bytes) -> str:
    """Apply a model's patch if it is any good; says in words what became of it."""
    if not patch:
        return "is empty: it proposes no change"
    if len(patch) > PATCH_LIMIT:
        return "was not taken: it is too large"
    await checkout.git("add", "--all")
    # Models count lines badly, so git counts for itself; it still refuses what does not fit or leads outside.
    applied = await checkout.apply(patch, "--recount")
    if applied.code:
        return f"was not taken, it does not apply: {applied.last_words()}"
    touched = [path for path in lines_of(patch) if path.endswith(".py") and (checkout.root / path).is_file()]
    broken = (await inspect(checkout, touched, [])).broken() if touched else {}
    if broken:
        checked(await checkout.apply(patch, "--recount", "--reverse"), "a model's patch cannot be taken back")
        return f"was not taken, it leaves {', '.join(sorted(broken))} broken: {next(iter(broken.values()))}"
    return f"was taken; it touches {', '.join(sorted(lines_of(patch)))}"


async def _verify(checkout: Checkout, patch: bytes) -> None:
    """Make sure that a patch applies to a clean tree of the commit."""
    if not patch:
        return
    which = f"the tree of {checkout.name!r} cannot be cleaned"
    checked(await checkout.git("reset", "--quiet", "--hard", checkout.commit), which)
    checked(await checkout.git("clean", "--quiet", "-d", "--force"), which)
    applied = await checkout.apply(patch, "--check")
    if applied.code:
        raise AgentError(f"the patch for {checkout.name!r} does not apply: {applied.last_words()}")


def _shown(checkout: Checkout, research: Research | None) -> str:
    """Give the content of the files that matter most, for a model to read."""
    paths, _ = _paths(checkout, research)
    ranks = {file.path: rank for rank, file in enumerate(research.files)} if research else {}
    parts = []
    for path in sorted(paths, key=lambda path: ranks.get(path, len(ranks)))[:SHOWN_FILES]:
        content = checkout.read(path)[:SHOWN_BYTES].decode(errors="replace")
        parts.append(f"=== {path}\n{content}")
    return "\n".join(parts)


def _fixes(before: Sequence[Finding], left: Sequence[Finding]) -> "Counter[str]":
    """Count the findings that are gone, by rule."""
    return Counter(finding.rule for finding in before) - Counter(finding.rule for finding in left)
