"""The application under test: the five-agent workflow with a join, each agent asking the model once.

What a task's input says is done to it: `{"number": 7, "poison": "exit", "at": "developer"}`. Prompts are JSON
that names the run, the agent and the number of the call, so that the checker can tell whose call is whose.
"""

import asyncio
import json
import os
import time
from typing import Any

from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow, all_of, current_task
from streams import AgentApp

from . import crash_points

CALLERS = frozenset(
    os.environ.get("CHAOS_CALLERS", "researcher,developer,code_reviewer,testing,documentation").split(",")
)
OPTIONS: dict[str, Any] = json.loads(os.environ.get("CHAOS_AGENT_OPTIONS", "{}"))

crash_points.install()


class Tester(Agent):
    """Asks the model once and hands the answer on; misbehaves when the task says so."""

    async def execute(self, input_data: Any) -> AgentResult[Any]:
        del input_data  # what it does is said by the task the workflow began with
        task = current_task()
        asked = task.root.input if isinstance(task.root.input, dict) else {}
        if asked.get("at") == self.name:
            await misbehave(asked["poison"])
        answers = []
        if self.name in CALLERS:
            prompt = {"run": task.run_id, "agent": self.name, "call": 0, "number": asked.get("number")}
            answers.append(str(await self._call_llm(json.dumps(prompt))))
            crash_points.reached("journal")
        return AgentResult(
            status=AgentStatus.COMPLETED, output={"number": asked.get("number"), "answers": answers}
        )


async def misbehave(how: str) -> None:
    """Do what no agent should."""
    if how == "raise":
        raise ValueError("this task always fails")
    if how == "exit":
        os._exit(3)
    if how == "hang":
        await asyncio.Event().wait()
    if how == "block":
        time.sleep(3)  # noqa: ASYNC251 (that is the point)


def tester(name: str) -> Tester:
    """Make one agent."""
    return Tester(AgentConfig(name=name, **OPTIONS))


workflow = Workflow(os.environ.get("CHAOS_NAME", "chaos"))
research = workflow.step(tester("researcher"))
patch = workflow.step(tester("developer"), after=research)
review = workflow.step(tester("code_reviewer"), after=patch)
tests = workflow.step(tester("testing"), after=patch)
workflow.step(tester("documentation"), after=all_of(review, tests))

app = AgentApp(workflow)
