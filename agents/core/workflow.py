"""Which agent follows which: a value that is declared once, checks itself, and never does I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from agents.core.base import Agent
from agents.core.errors import WorkflowError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One agent's place in a workflow; give it to `after=` of the steps that follow."""

    workflow: "Workflow"
    agent: Agent
    after: tuple[str, ...]

    @property
    def name(self) -> str:
        """The agent's name, which is the step's."""
        return self.agent.name

    @property
    def joins(self) -> bool:
        """Whether the step waits for several agents."""
        return len(self.after) > 1


@dataclass(frozen=True, slots=True)
class Join:
    """Several steps that must all have a result before the next one runs."""

    steps: tuple["Step | str", ...]

    def __post_init__(self) -> None:
        names = [_name(step) for step in self.steps]
        if len(names) < 2 or len(set(names)) != len(names):  # noqa: PLR2004 (a join of one is no join)
            raise WorkflowError(
                f"all_of needs two or more different steps, got: {', '.join(names) or 'none'}"
            )


def all_of(*steps: "Step | str") -> Join:
    """Wait for every one of `steps`: the follower's input is an object with one output per agent name.

    Raises:
        WorkflowError: With fewer than two steps, or one of them twice.
    """
    return Join(steps)


@dataclass(eq=False)
class Workflow:
    """A graph of agents, named; edges are acyclic and each agent has one step.

    Args:
        name: Names the application and, with each agent, its consumer groups.
    """

    name: str
    _steps: dict[str, Step] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise WorkflowError(
                f"workflow name {self.name!r} cannot name a consumer group: use lower-case letters, digits,"
                " '.', '_' and '-', at most 63 in all"
            )

    @property
    def steps(self) -> Mapping[str, Step]:
        """The steps by agent name, in the order they were declared; only `step` adds one."""
        return MappingProxyType(self._steps)

    def step(self, agent: Agent, *, after: "Step | str | Join | None" = None) -> Step:
        """Add an agent.

        Args:
            agent: What runs.
            after: The step (or its agent's name) whose results this one answers, or a join of several;
                none: only tasks published for the agent itself.

        Raises:
            WorkflowError: If the name is taken, or `after` names a step this workflow does not have (yet:
                which is also why edges cannot form a cycle).
        """
        if not isinstance(agent, Agent):
            raise WorkflowError(f"a step takes an Agent, got {agent!r}; construct the class first")
        if agent.name in self.steps:
            raise WorkflowError(
                f"workflow {self.name!r} already has a step named {agent.name!r};"
                " give this agent another name: AgentConfig(name=...)"
            )
        sources = () if after is None else after.steps if isinstance(after, Join) else (after,)
        step = Step(self, agent, tuple(self._known(source, agent.name) for source in sources))
        if step.joins and not any(self._reached(entry).issuperset(step.after) for entry in self.steps):
            raise WorkflowError(
                f"step {step.name!r} can never run: it joins {', '.join(step.after)}, but no single task of"
                f" workflow {self.name!r} leads to all of them; let them follow a common step"
            )
        self._steps[agent.name] = step
        self.__dict__.pop("followers", None)
        return step

    def _known(self, source: "Step | str", follower: str) -> str:
        name = _name(source)
        if name == follower:
            raise WorkflowError(
                f"step {name!r} cannot follow itself: edges made by after= must not form a cycle"
            )
        if isinstance(source, Step) and source.workflow is not self:
            raise WorkflowError(
                f"step {follower!r} of workflow {self.name!r} cannot follow step {name!r} of workflow"
                f" {source.workflow.name!r}: add the agent to this workflow too"
            )
        if name not in self.steps:
            have = ", ".join(self.steps) or "none"
            raise WorkflowError(
                f"step {follower!r} follows {name!r}, which workflow {self.name!r} does not have yet (it has:"
                f" {have}); declare the earlier step first: edges made by after= only point forward, so that"
                " they cannot form a cycle"
            )
        return name

    @cached_property
    def followers(self) -> dict[str, tuple[str, ...]]:
        """Per agent, the agents that answer its results."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.steps:
            found[name] = tuple(step.name for step in self.steps.values() if name in step.after)
        return found

    def awaited(self, follower: str, *, entry: str) -> frozenset[str]:
        """Tell which results a joining step gets when the workflow was entered at agent `entry`.

        A task may be published for any agent; agents upstream of it then never run, and waiting for them
        would be for ever.
        """
        return frozenset(name for name in self.steps[follower].after if name in self._reached(entry))

    def _reached(self, entry: str) -> frozenset[str]:
        reached: set[str] = set()
        ahead = [entry]
        while ahead:
            name = ahead.pop()
            if name not in reached:
                reached.add(name)
                ahead.extend(self.followers.get(name, ()))
        return frozenset(reached)


def _name(step: object) -> str:
    if isinstance(step, str):
        return step
    if isinstance(step, Step):
        return step.name
    raise WorkflowError(f"an edge takes a step, its agent's name or all_of(...) of several, got {step!r}")
