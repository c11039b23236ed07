"""The graph: what it refuses while it is declared, and what it tells when asked."""

import dataclasses
from typing import Any

import pytest

from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow, all_of
from agents.core.errors import ConfigurationError, WorkflowError
from agents.core.workflow import Join


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
