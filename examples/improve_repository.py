"""Five agents that improve a repository: researched, patched, reviewed, tested and reported on.

callboard run examples.improve_repository:app --llm off
callboard publish researcher 'Improve this repository' --repository PATH --wait
"""

from agents.core import Workflow, all_of
from agents.specialized import (
    CodeReviewerAgent,
    DeveloperAgent,
    DocumentationAgent,
    ResearcherAgent,
    TestingAgent,
)
from streams import AgentApp

workflow = Workflow("improve-repository")
research = workflow.step(ResearcherAgent())
patch = workflow.step(DeveloperAgent(), after=research)
review = workflow.step(CodeReviewerAgent(), after=patch)
tests = workflow.step(TestingAgent(), after=patch)
workflow.step(DocumentationAgent(), after=all_of(review, tests))

app = AgentApp(workflow)
