"""The main job on real Kafka: 200 tasks through five agents, with workers that stop, die and come along."""

from collections import defaultdict
from pathlib import Path

import pytest

from agents.core.base import AgentStatus

from .deployment import AGENTS, Deployment, Result

pytestmark = pytest.mark.kafka

TASKS = 200
KEYS = 20
INPUTS = list(range(TASKS))


def key_of(number: int) -> str:
    return f"key-{number % KEYS}"


def check_order(results: list[Result]) -> None:
    """Per key, results stand in the order in which the tasks were published; copies of one count once."""
    seen: set[str] = set()
    order: dict[bytes | None, list[int]] = defaultdict(list)
    for result in results:
        if result.id not in seen:
            seen.add(result.id)
            assert result.payload.root is not None
            order[result.key].append(result.payload.root.input)
    assert len(order) == KEYS
    for numbers in order.values():
        assert numbers == sorted(numbers)


async def test_200_tasks_over_20_keys(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path)
    with deployment.worker() as worker:
        ids = await deployment.publish(INPUTS, key_of)
        final = await deployment.results("documentation", TASKS)
        for agent in AGENTS:
            results = await deployment.all_results(agent)
            assert len(results) == TASKS
            assert {result.headers["ce_correlationid"].decode() for result in results} == set(ids)
            check_order(results)
        assert all(result.payload.status is AgentStatus.COMPLETED for result in final)
        assert sorted(result.payload.output["testing"] for result in final) == INPUTS
        assert await deployment.uncommitted() == {}
        assert await deployment.stop(worker.process) == 0


async def test_a_failure_flows_to_every_leaf(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path)
    with deployment.worker():
        await deployment.publish([{"fail": "testing"}, {"fail": "researcher"}, {"fail": ""}], str)
        final = await deployment.results("documentation", 3)
        told = sorted(result.payload.error.message if result.payload.error else "" for result in final)
        upstream = "developer failed: researcher failed: researcher was told to fail"
        assert told == [
            "",
            f"code_reviewer failed: {upstream}; testing failed: {upstream}",
            "testing failed: testing was told to fail",
        ]
        assert await deployment.uncommitted() == {}


async def publish_half(deployment: Deployment, half: int) -> None:
    """Publish the first or the second hundred: what is "half-way" must not depend on anyone's speed."""
    begin = half * TASKS // 2
    await deployment.publish(INPUTS[begin : begin + TASKS // 2], lambda number: key_of(begin + number))


async def test_a_worker_that_stops_half_way_loses_and_repeats_nothing(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path, seconds=0.02)
    with deployment.worker() as first:
        await publish_half(deployment, 0)
        await deployment.results("documentation", TASKS // 4)
        assert await deployment.stop(first.process) == 0
    await publish_half(deployment, 1)
    with deployment.worker():
        await deployment.results("documentation", TASKS)
        for agent in AGENTS:
            results = await deployment.all_results(agent)
            assert len(results) == TASKS
            check_order(results)
        assert await deployment.uncommitted() == {}


async def test_a_worker_that_is_killed_half_way_loses_nothing(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path, seconds=0.02)
    with deployment.worker() as first:
        await publish_half(deployment, 0)
        await deployment.results("documentation", TASKS // 4)
        first.process.kill()
    await publish_half(deployment, 1)
    with deployment.worker():
        await deployment.results("documentation", TASKS)
        for agent in AGENTS:
            results = await deployment.results(agent, TASKS)
            assert len({result.id for result in results}) == TASKS
            check_order(results)
        assert await deployment.uncommitted() == {}


async def test_a_worker_that_comes_along_takes_its_share(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path, seconds=0.02)
    with deployment.worker() as first:
        await publish_half(deployment, 0)
        await deployment.results("researcher", TASKS // 4)
        with deployment.worker() as second:
            await second.joined()
            await publish_half(deployment, 1)
            await deployment.results("documentation", TASKS)
            for agent in AGENTS:
                results = await deployment.all_results(agent)
                assert len(results) == TASKS
                check_order(results)
            assert await deployment.stop(first.process) == 0
            assert await deployment.stop(second.process) == 0
    assert await deployment.uncommitted() == {}
