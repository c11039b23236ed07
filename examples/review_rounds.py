"""A writer and a reviewer that go back and forth until the reviewer is pleased, or three rounds are over.

callboard run examples.review_rounds:app --llm off
callboard publish writer 'Kafka keeps events. It keeps them in order. It is very very good.' --wait
callboard publish writer 'No.' --wait

The first task comes to an end after two rounds. The second one cannot be made longer by removing words, so it
ends as a failed result: `rounds_exhausted` at the reviewer, `upstream_failed` at the publisher.
"""

from agents.core import Agent, AgentResult, AgentStatus, Workflow
from streams import AgentApp

FILLERS = ("very ", "really ")
FEWEST_WORDS = 5


class WriterAgent(Agent):
    async def execute(self, input_data: str | dict[str, str]) -> AgentResult[str]:
        if isinstance(input_data, str):  # the task itself: the first draft
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)
        draft = input_data["draft"].replace(input_data["remove"], "", 1)  # back from the reviewer
        return AgentResult(status=AgentStatus.COMPLETED, output=draft)


class ReviewerAgent(Agent[str]):
    async def execute(self, input_data: str) -> AgentResult:
        filler = next((word for word in FILLERS if word in input_data), "")
        pleased = not filler and len(input_data.split()) >= FEWEST_WORDS
        return AgentResult(
            status=AgentStatus.COMPLETED,
            output={"draft": input_data, "remove": filler},
            verdict="fine" if pleased else "again",
        )


class PublisherAgent(Agent):
    async def execute(self, input_data: dict[str, str]) -> AgentResult:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data["draft"])


workflow = Workflow("review-rounds")
draft = workflow.step(WriterAgent())
review = workflow.step(ReviewerAgent(), after=draft)
workflow.step(PublisherAgent(), after=review)
workflow.back(review, to=draft, when="again", rounds=3)

app = AgentApp(workflow)
