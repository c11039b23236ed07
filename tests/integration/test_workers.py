"""Several workers on one machine: the killed get their partitions back, hung ones end, each runs its part."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from streams.command_line.output import ExitCode

from .deployment import AGENTS, PARTITIONS, Deployment, Worker

pytestmark = pytest.mark.kafka

LIMIT = 40.0
# Longer than the test: whoever had to wait for the end of a session would be too late.
LONG_SESSION_MS = "60000"


def memberships(workers: Worker) -> dict[tuple[int, str], tuple[int, int]]:
    """Give each worker's last generation and number of partitions in each group."""
    return {
        (line["worker"], line["group"]): (line["generation"], line["partitions"])
        for line in workers.lines()
        if line["event"] == "partitions assigned"
    }


async def shared(workers: Worker) -> dict[tuple[int, str], tuple[int, int]]:
    """Wait until two workers are members of the same generation of every group."""
    async with asyncio.timeout(LIMIT):
        while True:
            found = memberships(workers)
            generations = {(group, generation) for (_, group), (generation, _) in found.items()}
            if len(found) == 2 * len(AGENTS) and len(generations) == len(AGENTS):
                return found
            await asyncio.sleep(0.05)


def pid_of(workers: Worker, number: int) -> int:
    started = [it for it in workers.lines() if it["event"] == "worker started" and it["worker"] == number]
    return int(started[-1]["pid"])


async def test_a_killed_worker_gets_its_partitions_back_and_the_other_does_not_notice(
    kafka: str, tmp_path: Path
) -> None:
    deployment = Deployment(kafka, tmp_path)
    inputs = list(range(8 * PARTITIONS))
    with deployment.worker("--workers", "2", session_timeout_ms=LONG_SESSION_MS) as workers:
        before = await shared(workers)
        os.kill(pid_of(workers, 0), signal.SIGKILL)
        await deployment.publish(inputs, str)
        async with asyncio.timeout(LIMIT):
            results = await deployment.results("documentation", len(inputs))
        assert {result.partition for result in results} == set(range(PARTITIONS))
        assert await shared(workers) == before
        assert len([line for line in workers.lines() if line["event"] == "worker started"]) == 3
        assert await deployment.stop(workers.process) == 0
    # Told to stop, they left their groups: nobody waits for the end of their sessions.
    with deployment.worker() as successor:
        async with asyncio.timeout(LIMIT):
            await successor.joined()


async def test_each_process_runs_the_agents_it_is_told_to(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path)
    with (
        deployment.worker("--only", "researcher", "--only", "developer") as first,
        deployment.worker(only="code_reviewer, testing,documentation") as second,
    ):
        await deployment.publish(["anything"], str)
        (final,) = await deployment.results("documentation", 1)
        assert final.payload.output == {"code_reviewer": "anything", "testing": "anything"}
        groups = [
            {line["group"] for line in worker.lines() if line["event"] == "partitions assigned"}
            for worker in (first, second)
        ]
        assert groups == [
            {f"{deployment.name}.{agent}" for agent in AGENTS[:2]},
            {f"{deployment.name}.{agent}" for agent in AGENTS[2:]},
        ]


async def test_a_worker_that_hangs_says_where_and_ends_itself(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path)
    with deployment.worker(block_limit_seconds="1") as worker:  # at least the session, which is 6 s here
        await deployment.publish([{"block": "researcher"}], str)
        assert await asyncio.to_thread(worker.process.wait, LIMIT) == ExitCode.BLOCKED
        told, final = [it for it in worker.lines() if "stack" in it and it["agent"] == "researcher"]
        assert (told["level"], final["level"]) == ("warning", "critical")
        assert told["seconds"] < 1
        assert "time.sleep(3600)" in told["stack"]


async def test_a_worker_that_is_out_of_a_group_for_good_ends_in_order_and_says_so(
    kafka: str, tmp_path: Path
) -> None:
    deployment = Deployment(kafka, tmp_path)
    with deployment.worker() as worker:
        await deployment.publish([{"leave": "researcher"}], str)
        assert await asyncio.to_thread(worker.process.wait, LIMIT) == ExitCode.FAILED
        (said,) = [it for it in worker.lines() if it["level"] == "critical"]
        assert said["agents"] == ["researcher"]
    (result,) = await deployment.all_results("researcher")  # what ran could end, and is not done again
    with deployment.worker():
        await deployment.results("documentation", 1)
        assert await deployment.uncommitted() == {}
    assert await deployment.all_results("researcher") == [result]
