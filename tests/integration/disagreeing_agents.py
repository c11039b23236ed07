"""A writer, two readers, and an editor who is never pleased if told so: the application under test."""

import asyncio
import os
from pathlib import Path
from typing import Any

from agents.core import Agent, AgentResult, AgentStatus, Workflow, all_of
from streams import AgentApp


class WriterAgent(Agent):
    async def execute(self, input_data: Any) -> AgentResult[Any]:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


class QuickAgent(WriterAgent):
    pass


class SlowAgent(Agent):
    """Does not end before a file is there, if told which."""

    async def execute(self, input_data: Any) -> AgentResult[Any]:
        while input_data.get("until") and not Path(input_data["until"]).exists():  # noqa: ASYNC240 (a test's own file)
            await asyncio.sleep(0.05)
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


class EditorAgent(Agent):
    async def execute(self, input_data: Any) -> AgentResult[Any]:
        draft = input_data["quick"]
        return AgentResult(status=AgentStatus.COMPLETED, output=draft, verdict=draft["verdict"])


class PrinterAgent(WriterAgent):
    pass


workflow = Workflow(os.environ.get("TRIVIAL_NAME", "disagreeing"))
write = workflow.step(WriterAgent())
quick, slow = workflow.step(QuickAgent(), after=write), workflow.step(SlowAgent(), after=write)
edit = workflow.step(EditorAgent(), after=all_of(quick, slow))
workflow.step(PrinterAgent(), after=edit)
workflow.back(edit, to=write, when="no", rounds=3)

app = AgentApp(workflow)
