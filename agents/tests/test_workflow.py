"""The graph: what it refuses while it is declared, and what it tells when asked."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from agents.core import (
    Agent,
    AgentConfig,
    AgentResult,
    AgentStatus,
    Workflow,
    all_of,
    first_of,
    quorum,
)
from agents.core.errors import ConfigurationError, WorkflowError
from agents.core.workflow import Awaiting, Back, Join, Step


class Named(Agent):
    async def execute(self, input_data: Any) -> AgentResult:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


def agent(name: str) -> Agent:
    return Named(AgentConfig(name=name))


def diamond() -> Workflow:
    """Declare a -> (b, c) -> d -> e."""
    workflow = Workflow("diamond")
    a = workflow.step(agent("a"))
    b, c = workflow.step(agent("b"), after=a), workflow.step(agent("c"), after=a)
    d = workflow.step(agent("d"), after=all_of(b, c))
    workflow.step(agent("e"), after=d)
    return workflow


def check_refused(workflow: Workflow, name: str, after: Any, says: str) -> None:
    """A refused step leaves the workflow as it was."""
    before, followers = dict(workflow.steps), dict(workflow.followers)
    with pytest.raises(WorkflowError, match=says):
        workflow.step(agent(name), after=after)
    assert (workflow.steps, workflow.followers) == (before, followers)


@pytest.mark.parametrize("name", ["", "Upper", "a b", "-a", ".a", "a/b", "a" * 64, "a\n", "ä"])
def test_a_name_that_cannot_name_a_group_is_refused(name: str) -> None:
    with pytest.raises(WorkflowError, match="cannot name a consumer group"):
        Workflow(name)


def test_a_workflow_error_is_a_configuration_error() -> None:
    assert issubclass(WorkflowError, ConfigurationError)


@pytest.mark.parametrize("thing", [Named, "named", None, object()])
def test_a_step_takes_a_constructed_agent(thing: Any) -> None:
    with pytest.raises(WorkflowError, match="construct the class first"):
        Workflow("w").step(thing)


def test_two_steps_with_one_name() -> None:
    check_refused(diamond(), "a", None, "already has a step named 'a'; give this agent another name")


def test_an_unknown_step() -> None:
    check_refused(diamond(), "x", "nobody", "follows 'nobody', which workflow 'diamond' does not have yet")


def test_a_step_of_another_workflow() -> None:
    foreign = Workflow("other").step(agent("a"))  # by chance of a name that is here too
    check_refused(diamond(), "x", foreign, "cannot follow step 'a' of workflow 'other'")
    check_refused(diamond(), "x", all_of("b", foreign), "cannot follow step 'a' of workflow 'other'")


# Every way to a cycle


def test_a_step_cannot_follow_itself() -> None:
    check_refused(diamond(), "x", "x", "cannot follow itself")
    check_refused(diamond(), "x", all_of("a", "x"), "cannot follow itself")


def test_a_step_cannot_follow_what_comes_later() -> None:
    workflow = Workflow("w")
    check_refused(workflow, "first", "second", "it has: none.*; declare the earlier step first")


def test_a_step_cannot_be_declared_again_with_an_edge_back() -> None:
    workflow = diamond()
    check_refused(workflow, "a", "e", "already has a step named 'a'")
    check_refused(workflow, "a", all_of("d", "e"), "already has a step named 'a'")


def test_a_step_does_not_change_once_it_is_declared() -> None:
    step = diamond().steps["a"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.after = ("e",)  # type: ignore[misc]
    assert isinstance(step.after, tuple)


def test_the_declared_steps_cannot_be_rewired_from_outside() -> None:
    workflow = diamond()
    with pytest.raises(TypeError, match="item assignment"):
        workflow.steps["a"] = dataclasses.replace(workflow.steps["a"], after=("e",))  # type: ignore[index]


# Joins


@pytest.mark.parametrize("steps", [(), ("a",), ("a", "a"), ("a", "b", "a")])
def test_a_join_of_less_than_two_different_steps(steps: tuple[str, ...]) -> None:
    with pytest.raises(WorkflowError, match="all_of needs two or more different steps"):
        all_of(*steps)


@pytest.mark.parametrize("after", [["b", "c"], ("b", "c"), {"b", "c"}, 3, Named, agent("a")])
def test_after_takes_a_step_a_name_or_a_join(after: Any) -> None:
    check_refused(diamond(), "x", after, "takes a step, its agent's name")


@pytest.mark.parametrize("inner", [all_of("b", "c"), ["b", "c"], None, agent("b")])
def test_all_of_takes_steps_and_names(inner: Any) -> None:
    with pytest.raises(WorkflowError, match="takes a step, its agent's name"):
        all_of("a", inner)


def test_a_join_that_no_single_task_leads_to() -> None:
    workflow = Workflow("w")
    left, right = workflow.step(agent("left")), workflow.step(agent("right"))
    workflow.step(agent("more"), after=right)
    check_refused(
        workflow, "x", all_of(left, right), "can never run: it joins left, right, but no single task"
    )
    check_refused(workflow, "x", all_of(left, "more"), "can never run")


def test_a_join_of_a_step_and_what_leads_to_it_can_run() -> None:
    workflow = diamond()
    assert workflow.step(agent("x"), after=all_of("a", "e")).joins


def test_a_join_made_by_hand_is_checked_the_same() -> None:
    with pytest.raises(WorkflowError, match="two or more different steps"):
        Join(("b", "b"))


# What it tells


def test_followers() -> None:
    workflow = diamond()
    assert workflow.followers == {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ("e",), "e": ()}
    workflow.step(agent("f"), after="a")
    assert (workflow.followers["a"], workflow.followers["f"]) == (("b", "c", "f"), ())


def test_steps_know_their_names_and_whether_they_join() -> None:
    steps = diamond().steps
    assert [step.name for step in steps.values()] == ["a", "b", "c", "d", "e"]
    assert [step.joins for step in steps.values()] == [False, False, False, True, False]
    assert steps["d"].after == ("b", "c")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("a", {"b", "c"}), ("b", {"b"}), ("c", {"c"}), ("d", set()), ("e", set()), ("nobody", set())],
)
def test_a_join_awaits_what_its_entry_leads_to(entry: str, expected: set[str]) -> None:
    assert diamond().awaited("d", entry=entry) == expected


def test_a_join_awaits_through_other_joins() -> None:
    workflow = diamond()
    workflow.step(agent("x"), after=all_of("a", "e"))
    assert workflow.awaited("x", entry="a") == {"a", "e"}
    assert workflow.awaited("x", entry="b") == {"e"}


def test_one_agent_may_be_a_step_of_two_workflows() -> None:
    shared = agent("shared")
    one, two = Workflow("one"), Workflow("two")
    one.step(shared)
    two.step(shared)
    assert one.steps["shared"].agent is two.steps["shared"].agent


def test_workflows_are_told_apart_by_identity_and_can_be_printed() -> None:
    assert diamond() != diamond()
    assert "diamond" in repr(diamond())


# Quorums and time limits


@pytest.mark.parametrize("n", [0, -1, 3])
def test_a_quorum_that_can_never_be_met(n: int) -> None:
    with pytest.raises(WorkflowError, match=rf"quorum\({n}, ...\) of 2 steps \(a, b\) can never be met"):
        quorum(n, "a", "b")


@pytest.mark.parametrize("n", [True, 1.0, "a", None])
def test_a_quorum_begins_with_a_number(n: Any) -> None:
    with pytest.raises(WorkflowError, match="quorum takes a number of steps first"):
        quorum(n, "a", "b")


def test_every_kind_of_join_names_itself() -> None:
    says = "{} needs two or more different steps"
    with pytest.raises(WorkflowError, match=says.format("first_of")):
        first_of("a")
    with pytest.raises(WorkflowError, match=says.format("quorum")):
        quorum(2, "a", "a")
    with pytest.raises(WorkflowError, match=says.format("all_of")):
        all_of()


@pytest.mark.parametrize(
    ("within", "milliseconds"),
    [(None, None), (1, 1000), (0.001, 1), (1.5, 1500), (timedelta(hours=1), 3_600_000)],
)
def test_a_time_limit_is_seconds_or_a_timedelta(within: Any, milliseconds: int | None) -> None:
    for join in (
        all_of("a", "b", within=within),
        quorum(2, "a", "b", within=within),
        first_of("a", "b", within=within),
    ):
        assert join.within_ms == milliseconds


@pytest.mark.parametrize("within", [True, "1", float("nan"), float("inf"), object()])
def test_a_time_limit_that_is_none(within: Any) -> None:
    with pytest.raises(WorkflowError, match="is no time limit"):
        all_of("a", "b", within=within)


@pytest.mark.parametrize("within", [0, -1, 0.0001, 366 * 24 * 3600, timedelta(0)])
def test_a_time_limit_out_of_range(within: Any) -> None:
    with pytest.raises(WorkflowError, match="is out of range"):
        first_of("a", "b", within=within)


def test_what_follows_a_time_limit_has_to_be_known_and_there() -> None:
    with pytest.raises(WorkflowError, match="then='stop' is unknown: use 'fail' or 'go_on'"):
        all_of("a", "b", within=1, then="stop")  # type: ignore[arg-type]
    with pytest.raises(WorkflowError, match="give within= too"):
        all_of("a", "b", then="go_on")
    assert all_of("a", "b", within=1, then="go_on").then == "go_on"


def test_a_quorum_no_single_task_leads_to() -> None:
    workflow = Workflow("w")
    workflow.step(agent("left"))
    workflow.step(agent("right"))
    check_refused(workflow, "x", quorum(2, "left", "right"), "can never run")
    # The first of two entries is one that comes whichever it is.
    assert workflow.step(agent("x"), after=first_of("left", "right")).joins


def three_ways(join: Join | None = None) -> Workflow:
    """Declare a -> (b, c, d) -> e."""
    workflow = Workflow("three")
    a = workflow.step(agent("a"))
    for name in "bcd":
        workflow.step(agent(name), after=a)
    workflow.step(agent("e"), after=join or quorum(2, "b", "c", "d", within=3, then="go_on"))
    return workflow


def test_a_join_tells_what_it_waits_for() -> None:
    awaiting = three_ways().awaiting("e", entry="a", source="b")
    assert awaiting == Awaiting(frozenset("bcd"), 2, patient=False, within_ms=3000, then="go_on")
    everything = three_ways(all_of("b", "c", "d")).awaiting("e", entry="a", source="b")
    assert everything == Awaiting(frozenset("bcd"), 3, patient=True)


def test_a_join_entered_half_way_waits_for_what_comes() -> None:
    for join in (quorum(2, "b", "c", "d"), all_of("b", "c", "d")):
        awaiting = three_ways(join).awaiting("e", entry="b", source="b")
        assert (awaiting.agents, awaiting.needed) == (frozenset("b"), 1)
    # A result of an agent that the entry does not lead to counts all the same: it is there.
    awaiting = three_ways().awaiting("e", entry="b", source="c")
    assert (awaiting.agents, awaiting.needed) == (frozenset("bc"), 2)


def test_a_step_that_does_not_join_waits_for_one() -> None:
    assert diamond().awaiting("b", entry="a", source="a") == Awaiting(frozenset("a"), 1)


# Ways back


def loop() -> Workflow:
    """Declare write -> review -> print."""
    workflow = Workflow("loop")
    write = workflow.step(agent("write"))
    review = workflow.step(agent("review"), after=write)
    workflow.step(agent("print"), after=review)
    return workflow


def check_no_way_back(  # noqa: PLR0913 (what is given, and what it says)
    workflow: Workflow, step: Any, to: Any, says: str, *, when: Any = "no", rounds: Any = 3
) -> None:
    before = workflow.backs
    with pytest.raises(WorkflowError, match=says):
        workflow.back(step, to=to, when=when, rounds=rounds)
    assert workflow.backs == before


def test_a_way_back() -> None:
    workflow = loop()
    back = workflow.back(workflow.steps["review"], to="write", when="no", rounds=3)
    assert back == Back("review", "write", "no", 3)
    assert workflow.backs == (back,)
    assert workflow.way_back("review", "no") == back
    assert [workflow.way_back("review", verdict) for verdict in ("yes", "", None)] == [None, None, None]
    assert workflow.way_back("write", "no") is None
    assert [workflow.reads(name) for name in workflow.steps] == [("review",), ("write",), ("review",)]
    assert workflow.followers["review"] == ("print",)  # ways back are no edges forward
    assert workflow.without("review", entry="write") == ("print",)


def test_a_step_may_go_back_to_itself() -> None:
    workflow = loop()
    workflow.back("write", to="write", when="again", rounds=1)
    assert workflow.reads("write") == ("write",)
    assert workflow.without("write", entry="write") == ("review", "print")


def test_a_step_may_have_several_verdicts() -> None:
    workflow = loop()
    workflow.back("print", to="review", when="unclear", rounds=1)
    workflow.back("print", to="write", when="wrong", rounds=2)
    assert workflow.reads("write") == ("print",)
    assert workflow.reads("review") == ("write", "print")
    check_no_way_back(workflow, "print", "write", "'wrong' go back to 'write' already", when="wrong")
    check_no_way_back(workflow, "print", "write", "'unclear' go back to 'review' already", when="unclear")


@pytest.mark.parametrize(
    ("step", "to"), [("write", "review"), ("write", "print"), ("other", "print"), ("print", "other")]
)
def test_a_way_back_leads_upstream(step: str, to: str) -> None:
    workflow = loop()
    workflow.step(agent("other"))
    check_no_way_back(workflow, step, to, f"'{step}' of workflow 'loop' does not follow '{to}'")


@pytest.mark.parametrize(("step", "to"), [("nobody", "write"), ("review", "nobody")])
def test_a_way_back_of_unknown_steps(step: str, to: str) -> None:
    check_no_way_back(loop(), step, to, "workflow 'loop' has no step 'nobody'; it has: write, review, print")


def test_a_way_back_of_steps_of_another_workflow() -> None:
    foreign: Step = loop().steps["review"]
    check_no_way_back(loop(), foreign, "write", "is no step of workflow 'loop'")
    check_no_way_back(loop(), "review", foreign, "is no step of workflow 'loop'")
    check_no_way_back(loop(), all_of("write", "review"), "write", "takes a step, its agent's name")


@pytest.mark.parametrize("when", ["", None, 1, True, "x" * 101])
def test_a_verdict_is_a_word(when: Any) -> None:
    check_no_way_back(loop(), "review", "write", "is no verdict", when=when)


@pytest.mark.parametrize("rounds", [0, -1, 1001, True, 1.0, "3", None])
def test_rounds_are_a_number(rounds: Any) -> None:
    check_no_way_back(loop(), "review", "write", "is not a number from 1 to 1000", rounds=rounds)


# Ways back and joins


def repeated_diamond() -> Workflow:
    """Declare a -> b -> (c, d) -> e, d going back to b."""
    workflow = Workflow("tested")
    workflow.step(agent("a"))
    workflow.step(agent("b"), after="a")
    workflow.step(agent("c"), after="b")
    workflow.step(agent("d"), after="b")
    workflow.step(agent("e"), after=all_of("c", "d"))
    workflow.back("d", to="b", when="failed", rounds=3)
    return workflow


def test_a_join_whose_part_goes_back_does_not_run_in_that_round() -> None:
    workflow = repeated_diamond()
    assert workflow.without("d", entry="a") == ("e",)
    assert workflow.without("d", entry="c") == ()  # never reached
    assert workflow.reads("e") == ("c", "d")


def test_a_quorum_of_the_others_runs_all_the_same() -> None:
    workflow = three_ways()
    workflow.back("d", to="a", when="again", rounds=1)
    assert workflow.without("d", entry="a") == ()
    assert workflow.awaiting("e", entry="a", source="b").patient  # no failure is told while d may go back


def test_a_join_reads_those_whose_going_back_keeps_a_result_away_from_it() -> None:
    workflow = Workflow("w")
    workflow.step(agent("a"))
    workflow.step(agent("b"), after="a")
    workflow.step(agent("test"), after="a")
    workflow.step(agent("publish"), after="test")
    workflow.step(agent("sign"), after="publish")
    workflow.step(agent("end"), after=all_of("b", "sign"))
    workflow.back("test", to="a", when="failed", rounds=2)
    assert workflow.reads("end") == ("b", "sign", "test")
    assert workflow.reads("sign") == ("publish",)  # it does not wait, so nothing is to be told to it
    assert workflow.without("test", entry="a") == ("publish", "sign", "end")
    assert workflow.without("test", entry="test") == ("publish", "sign", "end")


MIXED = "step 'e' joins d, repeated by the way back from 'd' to 'b'.*, with a, which is not"


def test_a_join_never_mixes_rounds() -> None:
    workflow = repeated_diamond()
    check_refused(workflow, "f", all_of("a", "d"), MIXED.replace("'e'", "'f'"))
    check_refused(workflow, "f", first_of("a", "d"), "a join never mixes rounds")
    assert workflow.step(agent("f"), after=all_of("b", "d")).joins
    other = Workflow("other")
    for name, after in (("a", None), ("b", "a"), ("d", "b"), ("e", all_of("a", "d"))):
        other.step(agent(name), after=after)
    check_no_way_back(other, "d", "b", MIXED)
    other.back("d", to="a", when="no", rounds=3)


def test_a_join_may_itself_be_gone_back_to_and_go_back() -> None:
    workflow = diamond()
    workflow.back("d", to="a", when="no", rounds=1)
    workflow.back("e", to="d", when="no", rounds=1)
    assert workflow.reads("d") == ("b", "c", "e")


def test_two_steps_of_one_round_cannot_both_go_back() -> None:
    workflow = repeated_diamond()
    check_no_way_back(
        workflow, "c", "b", "'d' and 'c' may both go back in one round, and 'b' would run twice"
    )
    check_no_way_back(workflow, "c", "a", "would run twice")
    workflow.back("e", to="a", when="rejected", rounds=2)  # it runs only if d went on
    assert workflow.reads("a") == ("e",)


def test_a_join_that_goes_on_after_a_time_may_go_back_beside_another() -> None:
    workflow = Workflow("w")
    for name, after in (("a", None), ("b", "a"), ("c", "a")):
        workflow.step(agent(name), after=after)
    workflow.step(agent("d"), after=all_of("b", "c", within=1, then="go_on"))
    workflow.back("c", to="a", when="no", rounds=1)
    check_no_way_back(workflow, "d", "a", "'c' and 'd' may both go back")


def test_loops_that_do_not_touch_may_go_round_at_the_same_time() -> None:
    workflow = Workflow("w")
    workflow.step(agent("root"))
    for side in ("left", "right"):
        workflow.step(agent(f"{side}_write"), after="root")
        workflow.step(agent(f"{side}_review"), after=f"{side}_write")
        workflow.back(f"{side}_review", to=f"{side}_write", when="no", rounds=2)
    assert len(workflow.backs) == 2


def test_a_step_that_makes_two_ways_back_meet_is_refused() -> None:
    workflow = Workflow("w")
    workflow.step(agent("root"))
    for side in ("left", "right"):
        workflow.step(agent(side), after="root")
        workflow.back(side, to=side, when="no", rounds=2)
    check_refused(workflow, "x", all_of("left", "right"), "a join never mixes rounds")
