"""Joins that need not wait for all, time limits, and ways back: what a worker makes of them."""

import asyncio
from typing import Any

import pytest

from agents import metrics
from agents.core import Agent, AgentResult, AgentStatus, Workflow, all_of, first_of, quorum
from agents.core.workflow import Join
from streams import dead_letters, hint, redrive
from tests.unit.worker_world import (
    CLUSTER,
    TIME,
    FakeRecord,
    Sent,
    Worker,
    World,
    a_world,
    diamond,
    result,
    settle,
)

UUID = "9a1f6a5e-0000-8000-8000-000000000000"
LEFT, RIGHT = result("left", 0, "L"), result("right", 0, "R")


# Joins that need not wait for all


def quorum_of(agent: Agent, join: Join, *, beside: str = "middle") -> Workflow:
    """Declare first -> (left, right, middle) -> agent."""
    workflow = Workflow("flow")
    workflow.step(Worker("first"))
    for name in ("left", "right", beside):
        workflow.step(Worker(name), after="first")
    workflow.step(agent, after=join)
    return workflow


async def a_quorum(join: Join) -> World:
    agent = Worker()
    return await a_world(quorum_of(agent, join), agent=agent)


def skipped(reason: str) -> float:
    labels = {"agent": "reader", "reason": reason}
    return metrics.REGISTRY.get_sample_value("callboard_skipped_total", labels) or 0


async def test_a_quorum_runs_with_those_that_came_and_counts_the_late() -> None:
    world = await a_quorum(quorum(2, "left", "right", "middle"))
    late = skipped("late")
    await world.give(LEFT, result("middle", 0, "M"), RIGHT)
    assert world.agent.inputs == [{"left": "L", "middle": "M"}]
    assert world.result().headers["ce_causationid"] == "left-0,middle-0"
    assert (skipped("late"), world.kept_joins()) == (late + 1, {})
    assert [world.committed(f"results.{name}") for name in ("left", "right", "middle")] == [1, 1, 1]


async def test_a_quorum_that_cannot_be_met_fails() -> None:
    world = await a_quorum(quorum(2, "left", "right", "middle"))
    bad = {"error": {"type": "x", "message": "too blue"}}
    await world.give(LEFT, *(result(it, 0, None, status="failed", body=bad) for it in ("right", "middle")))
    assert world.failure() == ("upstream_failed", "middle failed: too blue; right failed: too blue")


async def test_the_first_of_several_is_enough() -> None:
    world = await a_quorum(first_of("left", "right", "middle"))
    await world.give(RIGHT, LEFT)
    assert world.agent.inputs == [{"right": "R"}]
    assert len(world.results()) == 1


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("then", ["fail", "go_on"])
async def test_a_time_limit(then: Any, restart: bool) -> None:  # noqa: FBT001 (a case)
    world = await a_quorum(all_of("left", "right", "middle", within=60, then=then))
    await world.give(LEFT, RIGHT)
    if restart:
        await world.assign(0)
        await settle()
    await world.go(62)
    world.worker._join_parts._caught_up.clear()  # nothing old was read for a while
    world.worker._join_parts.tick()
    await settle()
    if then == "fail":
        says = "no result of middle came in time; there were those of left, right"
        assert world.failure() == ("join_timeout", says)
    else:
        assert world.agent.inputs == [{"left": "L", "right": "R"}]
        assert world.result().body["status"] == "completed"
    assert world.letters() == []
    late = skipped("late")
    await world.give(result("middle", 0, timestamp=TIME + 99_000))
    assert (skipped("late"), world.results(), world.kept_joins()) == (late + 1, [], {})


# Ways back


def loop(agent: Agent, *, rounds: int = 2) -> Workflow:
    """Declare write -> review -> last, agent being one of them; review goes back to write."""
    workflow = Workflow("flow")
    for name, after in (("write", None), ("review", "write"), ("last", "review")):
        workflow.step(agent if agent.name == name else Worker(name), after=after)
    workflow.back("review", to="write", when="no", rounds=rounds)
    return workflow


async def in_loop(name: str, **options: Any) -> World:
    agent = Worker(name)
    return await a_world(loop(agent, **options), agent=agent)


def review(offset: int, verdict: str | None = "no", **fields: Any) -> FakeRecord:
    return result("review", offset, "better!", entry="write", body={"verdict": verdict}, **fields)


async def test_a_verdict_sends_a_result_back_as_a_new_round() -> None:
    world = await in_loop("write")
    await world.give(review(0, id=UUID))
    assert world.agent.inputs == ["better!"]
    headers = world.result().headers
    assert (headers["ce_pass"], headers["ce_rounds"]) == (UUID, "review:no>write=1")
    assert headers["ce_causationid"] == UUID
    await world.give(
        review(1, "yes"), review(2, None), review(3, status="failed"), review(4, status="parked")
    )
    assert (world.results(), world.committed("results.review")) == ([], 5)


async def test_what_goes_back_does_not_go_on() -> None:
    world = await in_loop("last")
    await world.give(review(0), review(1, "yes"), review(2, None))
    assert [it.headers["ce_causationid"] for it in world.results()] == ["review-1", "review-2"]
    await world.give(review(3, status="failed"))
    assert world.failure()[0] == "upstream_failed"


@pytest.mark.parametrize(
    ("taken", "goes"), [(None, True), ("review:no>write=1", True), ("review:no>write=2", False)]
)
async def test_the_rounds_end_as_a_failure_that_goes_on(taken: str | None, goes: bool) -> None:  # noqa: FBT001 (a case)
    world = await in_loop("review")
    answer = AgentResult(status=AgentStatus.COMPLETED, output="better!", verdict="no")
    world.agent.answer = lambda _: answer
    await world.give(result("write", 0, entry="write", rounds=taken))
    done = world.result()
    assert (done.body["output"], done.body["verdict"]) == ("better!", "no")
    assert done.headers.get("ce_rounds") == taken
    if goes:
        assert done.body["status"] == "completed"
        assert (done.body["followers"], done.body["back"]) == (
            ["write"],
            {"to": "write", "without": ["last"]},
        )
    else:
        says = "review says 'no' after it went back to write 2 times, which is all"
        assert (done.headers["ce_status"], done.error) == ("failed", ("rounds_exhausted", says))
        assert (done.body["followers"], done.body.get("back")) == (["last"], None)
    assert world.letters() == []


async def test_rounds_nobody_counted_end_where_they_would_begin() -> None:
    # Another program wrote this result, or one that still allows more rounds.
    world = await in_loop("write")
    await world.give(review(0, rounds="review:no>write=2"))
    assert world.failure()[0] == "rounds_exhausted"
    assert world.agent.inputs == []


async def test_a_header_of_rounds_that_cannot_be_read() -> None:
    world = await in_loop("review")
    await world.give(result("write", 0, entry="write", rounds="often"))
    kind, message = world.failure()
    assert kind == "invalid_input"
    assert "header ce_rounds is 'often'" in message


async def test_a_join_learns_that_a_round_went_back() -> None:
    agent = Worker()
    workflow = diamond(agent)
    workflow.back("right", to="first", when="no", rounds=3)
    world = await a_world(workflow, agent=agent)
    await world.give(LEFT, result("right", 0, id=UUID, body={"verdict": "no"}))
    assert (world.results(), world.worker.joins_waiting) == ([], 0)
    again = {"round": UUID, "rounds": "right:no>first=1"}
    await world.give(result("left", 1, "L", **again), result("right", 1, "R", **again))
    assert world.agent.inputs == [{"left": "L", "right": "R"}]
    assert world.result().headers["ce_rounds"] == "right:no>first=1"
    assert [world.committed(f"results.{name}") for name in ("left", "right")] == [2, 2]


async def test_a_round_begins_where_it_went_back_to_wherever_the_task_entered() -> None:
    agent = Worker()
    workflow = diamond(agent)
    workflow.back("right", to="first", when="no", rounds=3)
    world = await a_world(workflow, agent=agent)
    again = {"round": UUID, "rounds": "right:no>first=1", "entry": "right"}
    await world.give(result("right", 1, "R", **again))
    assert world.results() == []
    await world.give(result("left", 1, "L", **again))
    assert world.agent.inputs == [{"left": "L", "right": "R"}]


# Joins that are published again


async def test_a_join_after_one_that_was_published_again_waits_for_nothing_that_lies_before_it() -> None:
    def workflow(agent: Worker) -> Workflow:
        """Declare first -> (left, right, beside), (left, right) -> reader, (reader, beside) -> last."""
        steps = {name: agent if agent.name == name else Worker(name) for name in ("reader", "last")}
        found = quorum_of(steps["reader"], all_of("left", "right"), beside="beside")
        found.step(steps["last"], after=all_of("reader", "beside"))
        return found

    reader = Worker()
    reader.answer = lambda _: 1 / 0
    world = await a_world(workflow(reader), agent=reader)
    rounds = {"round": UUID, "rounds": "a:no>first=1"}
    await world.give(result("left", 0, "L", **rounds), result("right", 0, "R", **rounds))
    assert world.failure()[0] == "ZeroDivisionError"
    reader.answer = lambda value: value
    await world.give(*published_again(world))
    done = world.result()
    assert done.body["output"] == {"left": "L", "right": "R"}

    last = Worker("last")
    behind = await a_world(workflow(last), agent=last)
    await behind.give(FakeRecord(done.topic, 0, done.value, tuple(as_headers(done))))
    assert last.inputs == [{"reader": {"left": "L", "right": "R"}}]
    assert behind.result().body["status"] == "completed"


def published_again(world: World) -> list[FakeRecord]:
    """Give what a redrive makes of all letters a worker has written."""
    letters = []
    for number, it in enumerate(world.letters()):
        letter = dead_letters.read(FakeRecord(it.topic, number, it.value, tuple(as_headers(it)), it.key))
        assert letter is not None
        letters.append(letter)
    (together,) = redrive.rounds(letters, letters, {})
    return [
        FakeRecord(
            f"tasks.{letter.agent}",
            number,
            letter.record.value,
            tuple(redrive.headers_of(letter, together.number, "mended")),
        )
        for number, letter in enumerate(together.letters)
    ]


def as_headers(sent: Sent) -> list[tuple[str, bytes]]:
    return [(name, value.encode()) for name, value in sent.headers.items()]


# Care


async def test_joins_do_not_run_one_at_a_time_for_ever_after_deaths() -> None:
    agent = Worker()
    world = World(agent, (diamond(agent),))
    known = hint.Hint(CLUSTER)
    for _ in range(2):
        known = hint.begin(known, 0, slots=16)
    tasks = "tasks.reader", 0
    # Nobody publishes tasks to an agent that joins: none of them may have to come before joins run as ever.
    world.membership.metadata[tasks], world.ends[tasks] = known.text(), 0
    await world.assign(0)
    agent.hold = asyncio.Event()
    await world.give(
        *(result(it, n, n, key=bytes([n]), round=f"id-{n}") for n in (0, 1) for it in ("left", "right"))
    )
    assert agent.inputs == [{"left": n, "right": n} for n in (0, 1)]
    agent.hold.set()
    await settle()
