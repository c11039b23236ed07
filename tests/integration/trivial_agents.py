"""The five-agent workflow with agents that do next to nothing: the application under test."""

import asyncio
import os
import time
from typing import Any

from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow, all_of
from streams import AgentApp


class Trivial(Agent):
    """Hands its input on after a while; fails when told to."""

    async def execute(self, input_data: Any) -> AgentResult[Any]:
        await asyncio.sleep(float(os.environ.get("TRIVIAL_SECONDS", "0")))
        if isinstance(input_data, dict) and input_data.get("block") == self.name:
            time.sleep(3600)  # noqa: ASYNC251 (what a handler must not do)
        if isinstance(input_data, dict) and input_data.get("leave") == self.name:
            await leave_group(self.name)
        if isinstance(input_data, dict) and input_data.get("fail") == self.name:
            raise ValueError(f"{self.name} was told to fail")
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


async def leave_group(agent: str) -> None:
    """End what keeps an agent in its group, as an error in the client would; run on until it shows."""
    _, subscriber = app._members[agent]
    subscriber.consumer._coordinator._coordination_task.cancel()
    while app.failure is None:
        await asyncio.sleep(0.01)


def trivial(name: str) -> Trivial:
    return Trivial(AgentConfig(name=name))


workflow = Workflow(os.environ.get("TRIVIAL_NAME", "trivial"))
research = workflow.step(trivial("researcher"))
patch = workflow.step(trivial("developer"), after=research)
review = workflow.step(trivial("code_reviewer"), after=patch)
tests = workflow.step(trivial("testing"), after=patch)
workflow.step(trivial("documentation"), after=all_of(review, tests))

app = AgentApp(workflow)
