"""Which agent follows which: a value that is declared once, checks itself, and never does I/O."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import combinations
from types import MappingProxyType
from typing import Literal, get_args

from agents.core.base import Agent
from agents.core.errors import WorkflowError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MAX_ROUNDS = 1000
MAX_VERDICT_CHARACTERS = 100
YEAR = timedelta(days=365)

Then = Literal["fail", "go_on"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One agent's place in a workflow; give it to `after=` of the steps that follow.

    Attributes:
        workflow: Where it belongs.
        agent: What runs.
        after: The agents whose results it answers.
        join: How it waits for them, if there are several.
    """

    workflow: "Workflow"
    agent: Agent
    after: tuple[str, ...]
    join: "Join | None" = None

    @property
    def name(self) -> str:
        """The agent's name, which is the step's."""
        return self.agent.name

    @property
    def joins(self) -> bool:
        """Whether the step waits for several agents."""
        return self.join is not None


@dataclass(frozen=True, slots=True)
class Join:
    """Several steps of which enough must have a result before the next one runs; made by `all_of` and others.

    Attributes:
        steps: Which.
        needed: How many of them must succeed; none: every one.
        within_ms: How long after the first result the others may come; none: as long as it takes.
        then: What happens to the step when that time has passed.
    """

    steps: tuple["Step | str", ...]
    needed: int | None = None
    within_ms: int | None = None
    then: Then = "fail"

    def __post_init__(self) -> None:
        names = [_name(step) for step in self.steps]
        given = ", ".join(names) or "none"
        if len(names) < 2 or len(set(names)) != len(names):  # noqa: PLR2004 (a join of one is no join)
            what = "all_of" if self.needed is None else "first_of" if self.needed == 1 else "quorum"
            raise WorkflowError(f"{what} needs two or more different steps, got: {given}")
        if self.needed is not None and not 1 <= self.needed <= len(names):
            raise WorkflowError(
                f"quorum({self.needed}, ...) of {len(names)} steps ({given}) can never be met: give a number"
                f" from 1 to {len(names)}"
            )
        if self.then not in get_args(Then):
            raise WorkflowError(f"then={self.then!r} is unknown: use 'fail' or 'go_on'")
        if self.then == "go_on" and self.within_ms is None:
            raise WorkflowError("then='go_on' says what happens after a time limit: give within= too")


@dataclass(frozen=True, slots=True)
class Awaiting:
    """What a joining step waits for in one round of a workflow.

    Attributes:
        agents: Whose results.
        needed: How many of them must succeed.
        patient: Whether a failure is told only once nothing more can come. It is for `all_of`, and where a
            result that is still to come may go back: then the round is void, and no failure of it is told.
        within_ms: The time limit, from the first result on.
        then: What happens when it has passed.
    """

    agents: frozenset[str]
    needed: int
    patient: bool = True
    within_ms: int | None = None
    then: Then = "fail"


@dataclass(frozen=True, slots=True)
class Back:
    """A way back: the results of `step` with one verdict begin a new round at `to`.

    Attributes:
        step: Whose results.
        to: Who answers them.
        when: Which verdict.
        rounds: How often, in all of one workflow.
    """

    step: str
    to: str
    when: str
    rounds: int


def all_of(*steps: Step | str, within: float | timedelta | None = None, then: Then = "fail") -> Join:
    """Wait for every one of `steps`: the follower's input is an object with one output per agent name.

    A failed one fails the follower, once the others are there too.

    Args:
        steps: Which.
        within: Seconds that may pass after the first result; none: no limit.
        then: What comes after that: "fail", or "go_on" with those that are there.

    Raises:
        WorkflowError: With fewer than two steps, or one of them twice, or a limit that is none.
    """
    return Join(steps, None, _milliseconds(within), then)


def quorum(n: int, *steps: Step | str, within: float | timedelta | None = None, then: Then = "fail") -> Join:
    """Wait for `n` of `steps` to succeed: the follower's input has one output per agent name, of these.

    It fails when so many have failed that `n` cannot be reached. What comes later is counted and changes
    nothing.

    Args:
        n: How many.
        steps: Of which.
        within: As in `all_of`.
        then: As in `all_of`.

    Raises:
        WorkflowError: As `all_of`, or if there are fewer than `n`.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise WorkflowError(f"quorum takes a number of steps first, got {n!r}")
    return Join(steps, n, _milliseconds(within), then)


def first_of(*steps: Step | str, within: float | timedelta | None = None, then: Then = "fail") -> Join:
    """Wait for the first of `steps` that succeeds: `quorum(1, ...)`.

    Raises:
        WorkflowError: As `all_of`.
    """
    return Join(steps, 1, _milliseconds(within), then)


@dataclass(eq=False)
class Workflow:
    """A graph of agents, named; each agent has one step.

    Edges made by `after=` are acyclic; `back` adds ways back, each for a number of rounds.

    Args:
        name: Names the application and, with each agent, its consumer groups.
    """

    name: str
    _steps: dict[str, Step] = field(default_factory=dict, init=False, repr=False)
    _backs: list[Back] = field(default_factory=list, init=False, repr=False)

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

    @property
    def backs(self) -> tuple[Back, ...]:
        """The ways back, in the order they were declared; only `back` adds one."""
        return tuple(self._backs)

    def step(self, agent: Agent, *, after: Step | str | Join | None = None) -> Step:
        """Add an agent.

        Args:
            agent: What runs.
            after: The step (or its agent's name) whose results this one answers, or a join of several;
                none: only tasks published for the agent itself.

        Raises:
            WorkflowError: If the name is taken, or `after` names a step this workflow does not have (yet:
                which is also why these edges cannot form a cycle), or a join could never be met.
        """
        if not isinstance(agent, Agent):
            raise WorkflowError(f"a step takes an Agent, got {agent!r}; construct the class first")
        if agent.name in self.steps:
            raise WorkflowError(
                f"workflow {self.name!r} already has a step named {agent.name!r};"
                " give this agent another name: AgentConfig(name=...)"
            )
        join = after if isinstance(after, Join) else None
        sources = () if after is None else after.steps if isinstance(after, Join) else (after,)
        step = Step(self, agent, tuple(self._known(source, agent.name) for source in sources), join)
        self._expect_join_can_be_met(step)
        self._steps[step.name] = step
        self.__dict__.pop("followers", None)
        try:
            self._expect_rounds_stay_apart()
        except WorkflowError:
            del self._steps[step.name]
            self.__dict__.pop("followers", None)
            raise
        return step

    def back(self, step: Step | str, *, to: Step | str, when: str, rounds: int) -> Back:
        """Let completed results of `step` with the verdict `when` go back and begin a new round.

        Such a result is the input of `to`, which runs again, as does everything after it. The other
        followers of `step` do not get it. After `rounds` of these, all rounds of a workflow counted, a
        further one is a failed result `rounds_exhausted`, which does reach them.

        Args:
            step: Whose results.
            to: Who takes them: a step before `step`, or `step` itself.
            when: The verdict (`AgentResult.verdict`) that goes back.
            rounds: How often at most.

        Raises:
            WorkflowError: If that could not work, or something could run twice in one round.
        """
        source, target = self._own(step), self._own(to)
        if source not in self._reached(target):
            raise WorkflowError(
                f"a way back leads to a step before its own: {source!r} of workflow {self.name!r} does not"
                f" follow {target!r}, at no distance"
            )
        if not isinstance(when, str) or not when or len(when) > MAX_VERDICT_CHARACTERS:
            raise WorkflowError(
                f"when={when!r} is no verdict: give a word of 1 to {MAX_VERDICT_CHARACTERS} characters"
            )
        if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= MAX_ROUNDS:
            raise WorkflowError(f"rounds={rounds!r} is not a number from 1 to {MAX_ROUNDS}")
        if (taken := self.way_back(source, when)) is not None:
            raise WorkflowError(
                f"results of {source!r} with the verdict {when!r} go back to {taken.to!r} already; a verdict"
                " has one way back"
            )
        back = Back(source, target, when, rounds)
        self._backs.append(back)
        try:
            self._expect_rounds_stay_apart()
        except WorkflowError:
            self._backs.pop()
            raise
        return back

    @cached_property
    def followers(self) -> dict[str, tuple[str, ...]]:
        """Per agent, the agents that answer its results, unless they go back."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.steps:
            found[name] = tuple(step.name for step in self.steps.values() if name in step.after)
        return found

    def way_back(self, step: str, verdict: str | None) -> Back | None:
        """Tell where a completed result of `step` goes back to; none: it goes on."""
        return next((back for back in self._backs if (back.step, back.when) == (step, verdict)), None)

    def reads(self, agent: str) -> tuple[str, ...]:
        """Give the agents whose results `agent` has to read.

        These are the ones it answers, those that come back to it, and, if it joins, those whose going back
        means that a result it waits for will not come.
        """
        after = self.steps[agent].after
        backs = [back.step for back in self._backs if back.to == agent]
        return tuple(dict.fromkeys([*after, *backs, *self._watched(agent)]))

    def awaited(self, follower: str, *, entry: str) -> frozenset[str]:
        """Tell which results a joining step gets when the workflow was entered at agent `entry`.

        A task may be published for any agent; agents upstream of it then never run, and waiting for them
        would be for ever. A way back enters the workflow too: at the step it leads to.
        """
        return frozenset(name for name in self.steps[follower].after if name in self._reached(entry))

    def awaiting(self, follower: str, *, entry: str, source: str) -> Awaiting:
        """Tell what a joining step waits for.

        Args:
            follower: The step.
            entry: Where the round began.
            source: An agent of which a result is there, so it is among them whatever the entry.
        """
        join = self.steps[follower].join
        agents = self.awaited(follower, entry=entry) | {source}
        if join is None:
            return Awaiting(agents, 1)
        return Awaiting(
            agents,
            needed=len(agents) if join.needed is None else min(join.needed, len(agents)),
            patient=join.needed is None or bool(self._watched(follower)),
            within_ms=join.within_ms,
            then=join.then,
        )

    def without(self, step: str, *, entry: str) -> tuple[str, ...]:
        """Tell which steps do not run in a round because `step`'s result goes back.

        They follow it alone, or join too few others.

        Args:
            step: Whose result.
            entry: Where the round began.
        """
        return tuple(self._without(step, entry, can_go_on=False))

    def _without(self, step: str, entry: str, *, can_go_on: bool) -> list[str]:
        reached = self._reached(entry)
        missing: list[str] = []
        for follower in self.steps.values():  # as declared: what comes before it has been looked at
            sources = [name for name in follower.after if name in reached]
            gone = [name for name in sources if name == step or name in missing]
            needed = 1 if follower.join is None else follower.join.needed or len(sources)
            if can_go_on and follower.join is not None and follower.join.then == "go_on":
                needed = 1
            if gone and len(sources) - len(gone) < min(needed, len(sources)):
                missing.append(follower.name)
        return missing

    def _watched(self, follower: str) -> tuple[str, ...]:
        """Name the steps with a way back whose going back takes a result away from a join."""
        step = self.steps[follower]
        if not step.joins:
            return ()
        return tuple(
            source
            for source in dict.fromkeys(back.step for back in self._backs)
            if source in step.after
            or any(name in step.after for entry in self.steps for name in self.without(source, entry=entry))
        )

    def _reached(self, entry: str) -> frozenset[str]:
        reached: set[str] = set()
        ahead = [entry]
        while ahead:
            name = ahead.pop()
            if name not in reached:
                reached.add(name)
                ahead.extend(self.followers.get(name, ()))
        return frozenset(reached)

    # What is refused ----------------------------------------------------------------------------

    def _own(self, given: Step | str) -> str:
        name = _name(given)
        if isinstance(given, Step) and given.workflow is not self:
            raise WorkflowError(
                f"step {name!r} of workflow {given.workflow.name!r} is no step of workflow {self.name!r}"
            )
        if name not in self.steps:
            have = ", ".join(self.steps) or "none"
            raise WorkflowError(f"workflow {self.name!r} has no step {name!r}; it has: {have}")
        return name

    def _known(self, source: Step | str, follower: str) -> str:
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
                " they cannot form a cycle; workflow.back(...) declares a way back"
            )
        return name

    def _expect_join_can_be_met(self, step: Step) -> None:
        if step.join is None:
            return
        needed = step.join.needed or len(step.after)
        most = max(len(self._reached(entry).intersection(step.after)) for entry in self.steps)
        if most < needed:
            what = "all" if needed == len(step.after) else str(needed)
            raise WorkflowError(
                f"step {step.name!r} can never run: it joins {', '.join(step.after)}, but no single task of"
                f" workflow {self.name!r} leads to {what} of them; let them follow a common step"
            )

    def _expect_rounds_stay_apart(self) -> None:
        for back in self._backs:
            self._expect_joins_repeat_whole(back)
        for one, other in combinations(self._backs, 2):
            if one.step != other.step and (twice := self._may_run_twice(one, other)):
                raise WorkflowError(
                    f"{one.step!r} and {other.step!r} may both go back in one round, and {twice!r} would run"
                    " twice: let one step join them, and go back from there"
                )

    def _expect_joins_repeat_whole(self, back: Back) -> None:
        again = self._reached(back.to)
        for step in self.steps.values():
            kept = [name for name in step.after if name not in again]
            if step.joins and 0 < len(kept) < len(step.after):
                repeated = [name for name in step.after if name in again]
                raise WorkflowError(
                    f"step {step.name!r} joins {', '.join(repeated)}, repeated by the way back from"
                    f" {back.step!r} to {back.to!r}, with {', '.join(kept)}, which is not: a join never mixes"
                    f" rounds; let the way back begin at a step before all of them, or hand on the output of"
                    f" {', '.join(kept)} through {back.to!r}"
                )

    def _may_run_twice(self, one: Back, other: Back) -> str | None:
        """Name a step that two ways back would both repeat after one and the same round."""
        both = self._reached(one.to) & self._reached(other.to)
        for entry in self.steps if both else ():
            if (
                {one.step, other.step} <= self._reached(entry)
                and other.step not in self._without(one.step, entry, can_go_on=True)
                and one.step not in self._without(other.step, entry, can_go_on=True)
            ):
                return next(name for name in self.steps if name in both)
        return None


def _name(step: object) -> str:
    if isinstance(step, str):
        return step
    if isinstance(step, Step):
        return step.name
    raise WorkflowError(f"an edge takes a step, its agent's name or all_of(...) of several, got {step!r}")


def _milliseconds(within: object) -> int | None:
    if within is None:
        return None
    seconds = within.total_seconds() if isinstance(within, timedelta) else within
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise WorkflowError(f"within={within!r} is no time limit: give seconds or a timedelta")
    if not 0.001 <= seconds <= YEAR.total_seconds():  # noqa: PLR2004 (it is kept in milliseconds)
        raise WorkflowError(f"within={within!r} is out of range: from a millisecond to a year")
    return round(seconds * 1000)
