"""Topics that somebody else made: what an application needs of them is checked before it starts."""

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.command_line.output import ExitCode
from tests.integration.test_commands import SLOW, Commands

pytestmark = pytest.mark.kafka

BY_PRODUCERS = {"message.timestamp.type": "CreateTime"}


def test_what_a_restart_looks_for_is_stamped_by_the_broker(kafka: str, tmp_path: Path) -> None:
    (tmp_path / "slow_app.py").write_text(SLOW)
    commands = Commands(kafka, tmp_path)
    commands.environment["CALLBOARD_TOPIC_PREFIX"] = "clocks."
    asyncio.run(make(kafka, "clocks.journal.slow", "clocks.results.afterwards", "clocks.tasks.slow"))
    out, errors = commands.run("run", "slow_app:app", "--port", "0", code=ExitCode.USAGE)
    assert out == ""
    said = " ".join(errors.split())
    assert "clocks.journal.slow, clocks.results.afterwards: message.timestamp.type is CreateTime" in said
    for topic in ("clocks.journal.slow", "clocks.results.afterwards", "clocks.tasks.slow"):
        assert f"--entity-name {topic} --add-config message.timestamp.type=LogAppendTime" in said

    asyncio.run(change(kafka, "clocks.journal.slow", "clocks.results.afterwards"))
    process = commands.start("run", "slow_app:app", "--port", "0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK
    (told,) = [line for line in errors.splitlines() if "producers stamp" in line]
    assert "clocks.tasks.slow" in told
    assert "clocks.journal.slow" not in told


async def make(servers: str, *topics: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 6, 1, topic_configs=BY_PRODUCERS) for topic in topics])
    finally:
        await admin.close()


async def change(servers: str, *topics: str) -> None:
    settings = {"message.timestamp.type": "LogAppendTime"}
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, settings) for topic in topics]
        )
    finally:
        await admin.close()
