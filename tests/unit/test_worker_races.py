"""What comes between: rebalances in the middle of a batch, of reading joins, of a start; Kafka that fails."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from agents.core import Workflow
from agents.core.budget import Budget
from agents.core.step import Recorded, StepKey
from streams.hint import Hint
from streams.work import RunHistory
from tests.unit.worker_world import (
    CLUSTER,
    FakeRecord,
    Worker,
    World,
    a_world,
    diamond,
    event,
    result,
    settle,
    single,
)

LEFT, RIGHT = result("left", 0, "L"), result("right", 0, "R")


async def a_joiner(**options: Any) -> World:
    agent = Worker(**options)
    return await a_world(diamond(agent), agent=agent)


# Answers of a process before


async def journaled() -> tuple[World, list[str]]:
    """Give a worker that took a partition over, of which the journal has an answer for event 0."""
    first = await a_world()
    happened: list[str] = []

    def stepping(world: World) -> None:
        async def act(word: str) -> str:
            happened.append(word)
            return f"{word}!"

        async def answer(value: Any) -> Any:
            return await world.agent.step("act", act, value)

        world.agent.answer = answer

    stepping(first)
    await first.give(event(0))
    body = first.journal()[0].body
    key = StepKey("step", "act", body["request"], 0)
    world = await a_world(
        histories={0: {body["run"]: RunHistory({key: Recorded("completed", b'"known"', 1)})}}
    )
    stepping(world)
    happened.clear()
    return world, happened


async def test_an_answer_is_known_after_a_batch_that_a_rebalance_made_stale() -> None:
    world, happened = await journaled()
    await world.worker.on_revoked()
    await world.give(event(0))  # handed over while partitions are taken away: dropped
    await world.assign(0, adopt=True)
    await world.give(event(0))
    assert (happened, world.result().body["output"]) == ([], "known")


async def test_an_answer_is_known_after_a_batch_of_an_older_assignment() -> None:
    world, happened = await journaled()
    await world.give(event(0, id="another"))
    happened.clear()
    await world.assign(0, adopt=True)
    again = event(1, {"input": "input 0"}, id="id-0")
    await world.give(again, epoch=world.epoch - 1)
    await world.give(again)
    assert (happened, world.results()[-1].body["output"]) == ([], "known")


async def test_an_answer_is_known_after_a_batch_that_could_not_be_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, happened = await journaled()
    with monkeypatch.context() as broken:
        broken.setattr(world.worker, "_offer", None)
        with pytest.raises(TypeError):
            await world.give(event(0))
    await world.give(event(0))
    assert (happened, world.result().body["output"]) == ([], "known")


async def test_what_the_journal_knows_of_a_run_goes_when_its_result_is_in_the_log() -> None:
    world, _ = await journaled()
    await world.give(event(0))
    assert world.worker._past._histories == {0: {}}


# Joins


async def test_part_of_a_loading_assignment_goes_and_the_rest_is_loaded() -> None:
    world = await a_joiner()
    await world.give(LEFT)
    await world.assign(7)
    read, states = asyncio.Event(), world.states

    async def slowly(partitions: Collection[int]) -> dict[int, list[FakeRecord]]:
        found = await states(partitions)
        await read.wait()
        return found

    world.states = slowly  # type: ignore[method-assign]
    await world.assign(0, 1)
    await settle()
    await world.assign(0, adopt=True)
    read.set()
    await settle()
    await world.give(RIGHT)
    assert world.agent.inputs == [{"left": "L", "right": "R"}]


async def test_a_part_waits_for_the_state_of_its_join_longer_than_runs_may_take() -> None:
    world = await a_joiner(timeout=5)
    await world.give(LEFT)
    await world.assign(7)
    read, states = asyncio.Event(), world.states

    async def slowly(partitions: Collection[int]) -> dict[int, list[FakeRecord]]:
        found = await states(partitions)
        await read.wait()
        return found

    world.states = slowly  # type: ignore[method-assign]
    await world.assign(0)
    await world.give(RIGHT)
    await world.go(6)
    read.set()
    await settle()
    assert world.agent.inputs == [{"left": "L", "right": "R"}]
    await world.go(6)
    assert len(world.results()) == 1
