"""What comes between: rebalances in the middle of a batch, of reading joins, of a start; Kafka that fails."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from agents.core import Workflow
from agents.core.budget import Budget
from agents.core.step import Recorded, StepKey
from streams.work import RunHistory
from tests.unit.worker_world import (
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


async def test_a_join_runs_although_kafka_was_away_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.join_runs.RETRY_PAUSE", 0)
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    await world.give(LEFT, RIGHT)
    away: list[Exception] = [KafkaConnectionError("away"), OSError("away")]
    record = world.record

    async def flaky(topic: str, partition: int, offset: int) -> FakeRecord | None:
        if away:
            raise away.pop()
        return await record(topic, partition, offset)

    world.record = flaky  # type: ignore[method-assign]
    await world.assign(7)
    world.agent.hold = None
    await world.assign(0)
    await settle()
    await settle()
    assert len(world.results()) == 1


async def test_a_join_of_a_workflow_that_is_gone_does_not_hold_up_others() -> None:
    agent = Worker()
    before = await a_world(diamond(agent), diamond(agent, "other"), agent=agent)
    agent.hold = asyncio.Event()
    await before.give(LEFT, RIGHT, *(result(it, 1, it, workflow="other") for it in ("left", "right")))
    assert len(before.kept_joins()) == 6
    after = Worker()
    world = await a_world(diamond(after, "other"), agent=after, joins=before.joins, given=before.given)
    await settle()
    assert (after.inputs, world.worker.not_ready()) == ([{"left": "left", "right": "right"}], None)


async def test_a_join_whose_workflow_is_another_one_now_does_not_hold_up_others() -> None:
    agent = Worker()
    before = await a_world(diamond(agent), diamond(agent, "other"), agent=agent)
    agent.hold = asyncio.Event()
    left = result("left", 0, "L", budget=Budget(calls=5))
    await before.give(left, RIGHT, *(result(it, 1, it, workflow="other") for it in ("left", "right")))
    assert len(before.kept_joins()) == 6
    after = Worker()
    flow = Workflow("flow")
    flow.step(after)
    world = await a_world(flow, diamond(after, "other"), agent=after, joins=before.joins, given=before.given)
    await settle()
    assert after.inputs == [{"left": "left", "right": "right"}]
    assert "a join of 'flow' cannot run" in (world.worker.not_ready() or "")
    agent.hold.set()
    await settle()


async def test_two_joins_of_one_partition_begin_after_a_restart() -> None:
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    second = [result(name, 1, name, key=b"b", round="id-1") for name in ("left", "right")]
    await world.give(LEFT, RIGHT, *second)
    await world.assign(7)
    await settle()
    world.agent.hold, world.asking = None, asyncio.Event()
    await world.assign(0)
    await settle()
    world.asking.set()
    await settle()
    assert len(world.results()) == 2


async def test_joins_of_one_key_run_in_the_order_they_fired() -> None:
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    second = [result(name, 1, name, round="id-1") for name in ("left", "right")]
    await world.give(LEFT, RIGHT, *second)
    await world.assign(7)
    await settle()
    record, slow = world.record, asyncio.Event()

    async def first_last(topic: str, partition: int, offset: int) -> FakeRecord | None:
        if offset == 0:
            await slow.wait()
        return await record(topic, partition, offset)

    world.record = first_last  # type: ignore[method-assign]
    world.agent.hold = None
    world.agent.inputs.clear()
    await world.assign(0)
    await settle()
    slow.set()
    await settle()
    assert world.agent.inputs == [{"left": "L", "right": "R"}, {"left": "left", "right": "right"}]


async def test_a_join_that_fires_during_a_rebalance_is_not_offered_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await a_joiner()
    world.producer.waiting = []
    await world.give(LEFT, RIGHT)
    await world.worker.on_revoked()
    offered: list[object] = []
    offer = world.worker.runtime.offer

    def counted(*facts: Any, **more: Any) -> None:
        offered.append(facts)
        offer(*facts, **more)

    monkeypatch.setattr(world.worker.runtime, "offer", counted)
    waiting, world.producer.waiting = world.producer.waiting, None
    for it in waiting:
        it.set_result(None)
    await settle()
    assert len(offered) <= 1
    await world.assign(0, adopt=True)
    await settle()
    assert len(world.results()) == 1


async def test_a_join_that_waited_to_begin_when_its_partition_went_runs_when_it_comes_back() -> None:
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    await world.give(LEFT, RIGHT)
    await world.assign(7)
    await settle()
    world.agent.hold = None
    world.agent.inputs.clear()
    record, reads = world.record, asyncio.Event()

    async def slowly(topic: str, partition: int, offset: int) -> FakeRecord | None:
        await reads.wait()
        return await record(topic, partition, offset)

    world.record = slowly  # type: ignore[method-assign]
    await world.assign(0)  # the first is being read, the second waits behind it
    await settle()
    await world.give(*(result(name, 1, name, key=b"b", round="id-1") for name in ("left", "right")))
    assert world.worker.joins_to_begin == 2
    await world.worker.on_revoked()
    await world.assign(7)
    reads.set()
    await settle()
    assert (world.agent.inputs, world.worker.not_ready(), world.worker.joins_to_begin) == ([], None, 0)
    await world.assign(0)
    await settle()
    assert world.agent.inputs == [{"left": "L", "right": "R"}, {"left": "left", "right": "right"}]


async def test_a_join_that_fires_when_its_partition_is_being_lost_runs_when_it_comes_back() -> None:
    world = await a_joiner()
    world.producer.waiting = []
    await world.give(LEFT, RIGHT)
    world.worker.runtime.revoke()
    waiting, world.producer.waiting = world.producer.waiting, None
    for it in waiting:
        it.set_result(None)
    await settle()
    await world.assign(7)
    await settle()
    assert (world.agent.inputs, world.worker.not_ready()) == ([], None)
    await world.assign(0)
    await settle()
    assert world.agent.inputs == [{"left": "L", "right": "R"}]


async def two_joins_of_one_key(world: World) -> None:
    """Let one run, and another one of its key wait for it."""
    world.agent.hold, world.agent.linger = asyncio.Event(), asyncio.Event()
    await world.give(LEFT, RIGHT, *(result(name, 1, name, round="id-1") for name in ("left", "right")))
    assert world.agent.inputs == [{"left": "L", "right": "R"}]
    world.agent.inputs.clear()


async def test_joins_of_one_key_keep_their_order_while_a_lost_run_of_the_first_still_ends() -> None:
    world = await a_joiner()
    await two_joins_of_one_key(world)
    await world.assign(7)  # the second is forgotten at once, the first is canceled, which takes time
    await settle()
    linger, world.agent.hold = world.agent.linger, None
    await world.assign(0)
    await settle()
    assert world.worker.joins_to_begin == 2
    assert linger is not None
    linger.set()
    await settle()
    assert world.agent.inputs == [{"left": "L", "right": "R"}, {"left": "left", "right": "right"}]
    assert world.worker.joins_to_begin == 0


async def test_a_join_begins_again_although_its_partition_came_straight_back_meanwhile() -> None:
    world = await a_joiner()
    await two_joins_of_one_key(world)
    await world.assign(7)
    await settle()
    linger, world.agent.hold = world.agent.linger, None
    await world.assign(0)
    await settle()
    await world.assign(0, adopt=True)
    await settle()
    assert linger is not None
    linger.set()
    await settle()
    assert world.agent.inputs == [{"left": "L", "right": "R"}, {"left": "left", "right": "right"}]


# Starts


async def test_a_run_that_is_lost_before_its_first_step_frees_its_slot() -> None:
    world = await a_world(single(Worker(concurrency=1)), agent=Worker(concurrency=1))
    await world.worker.on_records([event(0)], world.epoch)
    world.worker.runtime._turn()  # starts it
    world.worker.runtime.assign([])  # and it is lost before it had its turn
    await settle()
    assert world.worker.runtime.stats()["running"] == 0


# Publishing


async def test_nothing_ends_the_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kafka.publisher.RETRY_PAUSE", 0)
    world = await a_world()
    world.producer.refuse = [OSError("no such host")]
    await world.give(event(0))
    await settle()
    assert (len(world.results()), world.committed()) == (1, 1)


# Ends


async def test_nothing_begins_in_a_worker_that_stops() -> None:
    agent = Worker()
    world = await a_world(agent=agent)
    world.worker._drain_seconds = 60
    agent.hold = asyncio.Event()
    await world.give(event(0))
    stopping = asyncio.create_task(world.worker.stop())
    await settle()
    await world.assign(0, adopt=True)  # another member came or went
    await world.give(event(0), event(1, key=b"other"))
    assert agent.inputs == ["input 0"]
    agent.hold.set()
    await stopping
    await settle()
    assert len(world.results()) == 1
    await world.assign(0, 1)
    await world.give(event(2))
    assert agent.inputs == ["input 0"]


async def test_a_letter_of_a_lost_partition_is_not_kept() -> None:
    world = await a_world()

    def answer(_: Any) -> Any:
        raise ValueError("no")

    world.agent.answer = answer
    world.producer.waiting = []
    await world.give(event(0))
    assert len(world.worker._buried) == 1
    await world.assign(1)
    assert world.worker._buried == {}
