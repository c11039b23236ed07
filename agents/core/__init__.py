"""What an agent is made of: import from here."""

from agents.core.base import Agent, AgentConfig, AgentResult, AgentStatus, Artifact
from agents.core.budget import Budget
from agents.core.errors import AgentError
from agents.core.task import Task, current_task
from agents.core.workflow import Workflow, all_of, first_of, quorum

__all__ = [
    "Agent",
    "AgentConfig",
    "AgentError",
    "AgentResult",
    "AgentStatus",
    "Artifact",
    "Budget",
    "Task",
    "Workflow",
    "all_of",
    "current_task",
    "first_of",
    "quorum",
]
