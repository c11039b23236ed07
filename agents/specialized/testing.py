"""Runs a repository's tests on the patched tree, apart from the rest of the machine."""

import asyncio
from typing import Any, ClassVar

from agents.core.base import AgentConfig, AgentResult, AgentStatus
from agents.core.task import Task, current_task
from agents.specialized.evidence import EvidenceAgent
from agents.specialized.facts import Outcome, Patch, Suite, goal_of, told
from agents.specialized.repository import PATCH, checked_out
from agents.specialized.sandbox import Isolation, Limits, failing, isolation, names, run_tests


class TestingAgent(EvidenceAgent):
    """Says which tests pass, and which failures a patch is to blame for.

    Input: `Patch`, or the goal as text. Output: `Suite`; its verdict is the result's. Without a patch the
    plain tree is tested; with one, that is tested too, so that old failures are not blamed on the patch.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes named Test... for tests, also in users' projects

    def __init__(self, config: AgentConfig | None = None, *, limits: Limits | None = None) -> None:
        super().__init__(config)
        self.limits = limits or Limits()

    @property
    def system_prompt(self) -> str:
        """What the model is told about its role."""
        return (
            "You read the outcome of a Python test suite for a team of engineers. Say what the failures have"
            " in common, what most likely causes each, and what to look at first. At most fifteen lines."
        )

    async def execute(self, input_data: Any) -> AgentResult[dict[str, Any]]:
        """Run the tests.

        Raises:
            RepositoryError: If the repository cannot be opened.
            ArtifactError: If the patch does not apply.
        """
        task = current_task()
        goal = goal_of(input_data, task)
        kept = await isolation()
        outcome, baseline = await self._outcomes(task, kept)
        suite = _suite(goal, outcome, baseline, kept).model_copy(update={"patch": told(input_data, Patch)})
        evidence = suite.model_dump_json(
            include={"passed", "failed", "errors", "failures", "problem", "newly_failing", "fixed"}, indent=1
        )
        judgement = await self._judgement(
            "Explain this outcome.", goal=goal or "none was given", outcome=evidence
        )
        suite = suite.model_copy(update={"judgement": judgement})
        return AgentResult(
            status=AgentStatus.COMPLETED, output=suite.model_dump(mode="json"), verdict=suite.verdict
        )

    async def _outcomes(self, task: Task, kept: Isolation) -> tuple[Outcome, Outcome | None]:
        if PATCH not in task.artifacts:
            return await self._run(task, kept, patched=False), None
        if kept.network == "open":
            # Two runs that share a network could take each other's ports.
            outcome = await self._run(task, kept, patched=True)
            return outcome, await self._run(task, kept, patched=False)
        outcome, baseline = await asyncio.gather(
            self._run(task, kept, patched=True), self._run(task, kept, patched=False)
        )
        return outcome, baseline

    async def _run(self, task: Task, kept: Isolation, *, patched: bool) -> Outcome:
        # Tests may need the repository's links, and run code that could make any link anyway.
        async with checked_out(task, patched=patched, links=True) as checkout:
            return await run_tests(checkout, self.limits, kept)


def _suite(goal: str, outcome: Outcome, baseline: Outcome | None, kept: Isolation) -> Suite:
    now, before = failing(outcome), failing(baseline) if baseline else set()
    ran = outcome.passed + outcome.failed + outcome.errors
    good = not outcome.failed and not outcome.errors and not outcome.problem
    unknown = outcome.failures_left_out or (baseline and baseline.failures_left_out)
    return Suite(
        **dict(outcome),
        goal=goal,
        verdict="failed" if not good else "passed" if ran else "no_tests",
        patched=baseline is not None,
        network=kept.network,
        isolation=kept.description,
        baseline=baseline,
        newly_failing=names(now - before) if baseline else (),
        still_failing=names(now & before),
        fixed=names(before - now) if not outcome.problem else (),
        notes=("only the first failures were compared: there are very many",) if unknown else (),
    )
