"""The smallest application: an agent of your own, and one that follows it.

callboard run examples.hello:app --llm off
callboard publish my_custom 'Say hello' --wait
"""

from agents.core import Agent, AgentResult, AgentStatus, Workflow
from streams import AgentApp


class MyCustomAgent(Agent):
    @property
    def system_prompt(self) -> str:
        return "You do what you are asked, in one sentence."

    async def execute(self, input_data: str) -> AgentResult:
        if not self.llm.asks:  # `--llm off`: say what can be said without a model
            return AgentResult(status=AgentStatus.COMPLETED, output=f"I was asked: {input_data}")
        response = await self._call_llm(f"{self.system_prompt}\n\nTask: {input_data}")
        return AgentResult(status=AgentStatus.COMPLETED, output=response)


class WordCountAgent(Agent[str]):
    async def execute(self, input_data: str) -> AgentResult:
        return AgentResult(
            status=AgentStatus.COMPLETED, output={"text": input_data, "words": len(input_data.split())}
        )


workflow = Workflow("hello")
answer = workflow.step(MyCustomAgent())
workflow.step(WordCountAgent(), after=answer)

app = AgentApp(workflow)
