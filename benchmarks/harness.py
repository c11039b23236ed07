"""What all measurements share: a real Kafka, processes of their own for each way, and figures side by side.

Each way runs in a process of its own on uvloop, as `callboard run` does. Those of others import nothing of
Callboard, which changes the Kafka client. CPU is that process's (user and system): the number to trust on a
shared machine. Never compare figures of two runs, only ratios within one.
"""

import asyncio
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import uvloop

if TYPE_CHECKING:
    from streams.kafka.connection import Connection

Figures = dict[str, float]
Run = Callable[["Arena"], Awaitable[Figures]]

PAYLOAD = {"input": {"order": 4711, "note": "x" * 200, "lines": [{"sku": "A-1", "quantity": 2}] * 4}}
WORKFLOW = "bench"


class Way(NamedTuple):
    """One of the ways that are compared.

    Attributes:
        title: What it is.
        delivery: What it promises: a figure at most once is not comparable to one at least once.
        run: Does it.
        agents: Whose topics it needs; if there are some, the last one's results are counted in the end.
        filled: The first one's tasks are there before it begins.
    """

    title: str
    delivery: str
    run: Run
    agents: tuple[str, ...] = ()
    filled: bool = False


@dataclass(frozen=True)
class Arena:
    """What one run of one way has to itself.

    Attributes:
        servers: The Kafka all ways share.
        name: Of this run; part of every topic and group.
        events: How many there are.
        partitions: Of each topic.
        keys: How many keys the events have, one after the other.
    """

    servers: str
    name: str
    events: int
    partitions: int = 6
    keys: int = 1000

    @property
    def connection(self) -> "Connection":
        """How Kafka is reached."""
        from streams.kafka.connection import Connection

        return Connection.plaintext(self.servers)

    @property
    def prefix(self) -> str:
        """Before every topic."""
        return f"{self.name}."

    async def make(self, *agents: str) -> None:
        """Make the topics of some agents."""
        from streams.kafka.admin import ensure_topics
        from streams.topics import Topics

        topics = Topics(self.prefix)
        wanted = {name: topics.config(name) for agent in agents for name in topics.of(agent)}
        await ensure_topics(self.connection, wanted, partitions=self.partitions, replication=1)

    async def remove(self) -> None:
        """Delete every topic of this run."""
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(**self.connection.client_options)
        await admin.start()
        await admin.delete_topics(
            [name for name in await admin.list_topics() if name.startswith(self.prefix)]
        )
        await admin.close()

    def settings(self) -> Any:
        """Give an application's settings."""
        from streams.settings import Settings

        return Settings(bootstrap_servers=self.servers, topic_prefix=self.prefix, partitions=self.partitions)

    async def fill(self, topic: str) -> None:
        """Publish the events, with every header a task of a workflow has."""
        from streams.envelope import TASK, Envelope, encode, task_id
        from streams.kafka.publisher import Outgoing, OwnPublisher, partition_for
        from streams.kafka.record_batch import EncodedRecord

        value, until = json.dumps(PAYLOAD).encode(), datetime.now(UTC) + timedelta(hours=1)
        waiting: dict[int, list[Outgoing]] = {}
        for number in range(self.events):
            key, name = f"key-{number % self.keys}".encode(), task_id()
            envelope = Envelope(name, "/bench", TASK, name, workflow=WORKFLOW, round=name, deadline=until)
            record = EncodedRecord(key, value, encode(envelope))
            waiting.setdefault(partition_for(key, self.partitions), []).append((number, record))
        left, done = self.events, asyncio.Event()

        def acknowledged(numbers: Sequence[int]) -> None:
            nonlocal left
            left -= len(numbers)
            if not left:
                done.set()

        async with OwnPublisher(self.connection) as publisher:
            for partition, records in waiting.items():
                publisher.outbox(topic, partition, acknowledged, print).put(records)
            await done.wait()

    async def elsewhere(self, work: Run) -> Figures:
        """Do a part of a measurement in another process, so that this one's memory and CPU are its own."""
        process = await asyncio.create_subprocess_exec(
            *command(work.__module__, work.__name__, vars(self)), stdout=subprocess.PIPE
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"{work.__name__} failed")
        figures: Figures = json.loads(said.splitlines()[-1])
        return figures

    async def count(self, topic: str) -> int:
        """Count the records of a topic."""
        from streams.kafka.reader import Reader

        async with Reader(self.connection) as reader:
            return sum((await reader.end_offsets(await reader.partitions([topic]))).values())

    async def until_full(self, topic: str, *, pause: float = 0.1) -> None:
        """Wait until a topic has as many records as there are events, asking the broker now and then."""
        from aiokafka import AIOKafkaConsumer, TopicPartition

        places = [TopicPartition(topic, number) for number in range(self.partitions)]
        async with AIOKafkaConsumer(bootstrap_servers=self.servers) as consumer:
            while sum((await consumer.end_offsets(places)).values()) < self.events:
                await asyncio.sleep(pause)

    async def expect(self, topic: str) -> None:
        """Check that each event came out once: a figure of anything else is none."""
        if (seen := await self.count(topic)) != self.events:
            raise SystemExit(f"{self.name}: {self.events} events in, {seen} out: no figure")


class Meter:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def read(self) -> Figures:
        """Give both."""
        return {"seconds": time.perf_counter() - self._wall, "cpu": cpu_seconds() - self._cpu}


def cpu_seconds() -> float:
    """Give the seconds of CPU this process used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Report:
    """What one measurement found.

    Attributes:
        title: What was measured.
        lines: Markdown.
        aims: What was aimed at, what was reached, and whether that is enough.
    """

    title: str
    lines: list[str]
    aims: list[tuple[str, str, bool]] = field(default_factory=list)

    def text(self) -> str:
        """Give the section."""
        met = [f"- {'met' if ok else '**missed**'}: {aim}; measured: {found}" for aim, found, ok in self.aims]
        return "\n".join([f"## {self.title}", "", *self.lines, "", *met, ""])


class Spread:
    """Median, least and most of some runs."""

    def __init__(self, values: Sequence[float]) -> None:
        self.median, self.least, self.most = statistics.median(values), min(values), max(values)

    def text(self, form: str = ".1f") -> str:
        """Give all three."""
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


def quantile(values: Sequence[float], part: float) -> float:
    """Give the value that `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def in_turn(
    module: str, servers: str, rounds: int, ways: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Figures]]:
    """Run each way once per round, one after the other, each in a process of its own.

    Args:
        module: The measurement, whose `WAYS` are run.
        servers: The Kafka.
        rounds: How often.
        ways: Fields of `Arena` for each way; what follows a colon in a name tells two runs of a way apart.
    """
    found: dict[str, list[Figures]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, fields in ways.items():
            found[way].append(child(module, way.partition(":")[0], servers, fields))
            print(f"{module} round {number + 1} {way}: {found[way][-1]}", file=sys.stderr)
    return found


def child(module: str, name: str, servers: str, fields: Mapping[str, Any]) -> Figures:
    """Run one way in a process of its own, with its topics made and filled before and checked behind it."""
    way: Way = importlib.import_module(f"benchmarks.{module}").WAYS[name]
    arena = Arena(servers, f"bench-{name}-{uuid4().hex[:8]}", **fields)
    try:
        asyncio.run(_prepare(arena, way))
        done = subprocess.run(
            command(f"benchmarks.{module}", name, vars(arena)),
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"CALLBOARD_LLM": "off"},
        )
        if done.returncode:
            raise SystemExit(f"{module} {name} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
        if way.agents:
            asyncio.run(arena.expect(f"{arena.prefix}results.{way.agents[-1]}"))
    finally:
        asyncio.run(arena.remove())
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


async def _prepare(arena: Arena, way: Way) -> None:
    if way.agents:
        await arena.make(*way.agents)
    if way.filled:
        await arena.fill(f"{arena.prefix}tasks.{way.agents[0]}")


def command(module: str, work: str, arena: Mapping[str, Any]) -> list[str]:
    """Give the command of a process that does one thing in one arena."""
    return [sys.executable, "-m", "benchmarks.harness", module, work, json.dumps(arena)]


def local_kafka() -> str:
    """Bring the local Kafka up, and say where it is."""
    from streams.kafka.local_broker import LocalBroker
    from streams.settings import Settings

    settings = Settings()
    if settings.bootstrap_servers is None:
        LocalBroker(settings.home, settings.kafka_port).up(lambda _: None)
    return settings.connection.servers


def main() -> None:
    """Do what `command` says, in this process."""
    module_name, work, fields = sys.argv[1:]
    module, arena = importlib.import_module(module_name), Arena(**json.loads(fields))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run = module.WAYS[work].run if work in module.WAYS else getattr(module, work)
        print(json.dumps(runner.run(run(arena))))


if __name__ == "__main__":
    main()
