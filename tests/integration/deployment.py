"""Workers of one application as processes of their own, and what its topics and groups hold."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from streams.envelope import TASK, EncodedHeaders, Envelope, Headers, Record, encode, task_id
from streams.kafka.connection import Connection
from streams.kafka.publisher import OwnPublisher, partition_for
from streams.kafka.reader import Reader
from streams.payloads import ResultPayload
from streams.topics import Topics

AGENTS = ("researcher", "developer", "code_reviewer", "testing", "documentation")
PARTITIONS = 4
LIMIT = 90.0
COMMAND = (sys.executable, "-m", "streams.command_line")


@dataclass(frozen=True)
class Result:
    """One record of a results topic."""

    id: str
    partition: int
    key: bytes | None
    headers: dict[str, bytes]
    payload: ResultPayload


@dataclass(frozen=True)
class Worker:
    """One worker's process and what it logs."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Give what was logged so far."""
        text = self.log.read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line[-1] == "}"]

    async def joined(self) -> None:
        """Wait until the worker owns partitions for each of its agents."""
        async with asyncio.timeout(LIMIT):
            while self.log.read_text(errors="replace").count('"partitions assigned"') < len(AGENTS):
                assert self.process.poll() is None
                await asyncio.sleep(0.05)


class Deployment:
    """One application under a topic prefix of its own."""

    def __init__(
        self,
        servers: str,
        logs: Path,
        *,
        seconds: float = 0,
        application: str = "trivial_agents:app",
        agents: Sequence[str] = AGENTS,
    ) -> None:
        self._application, self._agents = application, agents
        self.connection = Connection.plaintext(servers)
        self.name = f"t{uuid.uuid4().hex[:8]}"
        self.topics = Topics(f"{self.name}.")
        self._logs = logs
        self._environment = os.environ | {
            "CALLBOARD_BOOTSTRAP_SERVERS": servers,
            "CALLBOARD_TOPIC_PREFIX": self.topics.prefix,
            "CALLBOARD_PARTITIONS": str(PARTITIONS),
            "CALLBOARD_SESSION_TIMEOUT_MS": "6000",
            "CALLBOARD_LLM": "off",
            "TRIVIAL_NAME": self.name,
            "TRIVIAL_SECONDS": str(seconds),
        }

    @contextmanager
    def worker(self, *options: str, **settings: str) -> Iterator[Worker]:
        """Run a worker, or several; killed on leaving, unless they ended before."""
        log = self._logs / f"{self.name}-{uuid.uuid4().hex[:4]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "run", self._application, "--port", "0", *options],
                cwd=Path(__file__).parent,
                env=self._environment | {f"CALLBOARD_{name.upper()}": it for name, it in settings.items()},
                stdout=output,
                stderr=output,
            )
            try:
                yield Worker(process, log)
            finally:
                process.kill()
                process.wait()
                sys.stderr.write(log.read_text(errors="replace"))

    async def stop(self, worker: "subprocess.Popen[bytes]") -> int:
        """Ask a worker to stop and give its exit code."""
        worker.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(worker.wait, LIMIT)

    async def created(self) -> None:
        """Wait until the application made its topics."""
        wanted = {topic for agent in self._agents for topic in self.topics.of(agent)}
        async with Reader(self.connection) as reader, asyncio.timeout(LIMIT):
            while not wanted <= (await reader.topics()).keys():
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[OwnPublisher]:
        """Give a publisher, once the topics are there."""
        await self.created()
        async with OwnPublisher(self.connection) as publisher:
            yield publisher

    async def publish(
        self, inputs: Sequence[Any], key: Callable[[int], str], agent: str = "researcher"
    ) -> list[str]:
        """Publish task events in order and give their ids."""
        ids = []
        async with self.publisher() as publisher:
            for number, value in enumerate(inputs):
                identity = task_id()
                headers = encode(
                    Envelope(id=identity, source="/test", type=TASK, workflow_id=identity, round=identity)
                )
                await self.raw(
                    publisher, agent, key(number).encode(), json.dumps({"input": value}).encode(), headers
                )
                ids.append(identity)
        return ids

    async def raw(
        self,
        publisher: OwnPublisher,
        agent: str,
        key: bytes,
        value: bytes | None,
        headers: Headers | EncodedHeaders,
    ) -> str:
        """Publish any record to an agent's tasks and give its place."""
        topic, partition = self.topics.tasks(agent), partition_for(key, PARTITIONS)
        offset = await publisher.send_and_wait(topic, partition, key=key, value=value, headers=headers)
        return f"{topic}/{partition}/{offset}"

    async def results(self, agent: str, until: int) -> list[Result]:
        """Read an agent's results from the beginning until there are so many different ones."""
        found: list[Result] = []
        async with Reader(self.connection) as reader, asyncio.timeout(LIMIT):
            places = await reader.partitions([self.topics.results(agent)])
            async for record in reader.follow(await reader.first_offsets(places)):
                if record is not None:
                    found.append(_result(record))
                if len({result.id for result in found}) >= until:
                    return found
        raise AssertionError("the log ended")

    async def all_results(self, agent: str) -> list[Result]:
        """Read what an agent's results topic holds now."""
        async with Reader(self.connection) as reader:
            places = await reader.partitions([self.topics.results(agent)])
            return [_result(record) async for record in reader.read(await reader.first_offsets(places))]

    async def uncommitted(self) -> dict[str, int]:
        """Give the records no group has committed, by group and topic; waits for the last commits."""
        async with asyncio.timeout(10):
            while True:
                open_ones = await self._uncommitted()
                if not open_ones:
                    return {}
                try:
                    await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    return open_ones

    async def _uncommitted(self) -> dict[str, int]:
        found: dict[str, int] = {}
        admin = AIOKafkaAdminClient(**self.connection.client_options)
        await admin.start()
        try:
            async with Reader(self.connection) as reader:
                for agent in self._agents:
                    committed = await admin.list_consumer_group_offsets(f"{self.name}.{agent}")
                    ends = await reader.end_offsets([(tp.topic, tp.partition) for tp in committed])
                    for tp, position in committed.items():
                        if left := ends[tp.topic, tp.partition] - position.offset:
                            found[f"{agent}: {tp.topic}/{tp.partition}"] = left
        finally:
            await admin.close()
        return found


def _result(record: Record) -> Result:
    headers = dict(record.headers)
    return Result(
        id=headers["ce_id"].decode(),
        partition=record.partition,
        key=record.key,
        headers=headers,
        payload=ResultPayload.model_validate_json(record.value or b""),
    )
