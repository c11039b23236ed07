"""Joins and ways back on real Kafka: they survive the death of their worker, and they end."""

import asyncio
from pathlib import Path

import pytest

from streams.kafka.reader import Reader

from .deployment import LIMIT, Deployment

pytestmark = pytest.mark.kafka

AGENTS = ("writer", "quick", "slow", "editor", "printer")


def a_deployment(kafka: str, logs: Path) -> Deployment:
    return Deployment(kafka, logs, application="disagreeing_agents:app", agents=AGENTS)


async def joins(deployment: Deployment) -> list[bytes | None]:
    """Give the values in the editor's topic of joins."""
    async with Reader(deployment.connection) as reader:
        places = await reader.partitions([deployment.topics.joins("editor")])
        return [record.value async for record in reader.read(await reader.first_offsets(places))]


async def test_agents_that_never_agree_end_after_their_rounds(kafka: str, tmp_path: Path) -> None:
    deployment = a_deployment(kafka, tmp_path)
    with deployment.worker():
        await deployment.publish([{"verdict": "no"}, {"verdict": "yes"}], str, "writer")
        printed = await deployment.results("printer", 2)
        told = sorted(result.payload.error.message if result.payload.error else "" for result in printed)
        assert told == [
            "",
            "editor failed: editor says 'no' after it went back to writer 3 times, which is all",
        ]
        edited = await deployment.all_results("editor")
        assert sorted(result.headers.get("ce_rounds", b"").decode() for result in edited) == [
            "",
            "",
            "editor:no>writer=1",
            "editor:no>writer=2",
            "editor:no>writer=3",
        ]
        assert len({result.headers["ce_pass"] for result in edited}) == len(edited)
        assert await deployment.uncommitted() == {}
        assert len(await deployment.all_results("printer")) == 2


async def test_a_join_survives_the_death_of_its_worker_between_the_parts(kafka: str, tmp_path: Path) -> None:
    deployment = a_deployment(kafka, tmp_path)
    until = tmp_path / "go"
    with deployment.worker() as first:
        await deployment.publish([{"verdict": "yes", "until": str(until)}], str, "writer")
        async with asyncio.timeout(LIMIT):
            while not await joins(deployment):
                await asyncio.sleep(0.05)
        first.process.kill()
    until.touch()
    with deployment.worker():
        (printed,) = await deployment.results("printer", 1)
        assert printed.payload.output["verdict"] == "yes"
        assert await deployment.uncommitted() == {}
        assert len(await deployment.all_results("editor")) == 1
