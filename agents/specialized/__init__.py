"""Five agents that look after a Python repository; what they work with is loaded when they work."""

from agents.specialized.code_reviewer import CodeReviewerAgent
from agents.specialized.developer import DeveloperAgent
from agents.specialized.documentation import DocumentationAgent
from agents.specialized.researcher import ResearcherAgent
from agents.specialized.testing import TestingAgent

__all__ = ["CodeReviewerAgent", "DeveloperAgent", "DocumentationAgent", "ResearcherAgent", "TestingAgent"]
