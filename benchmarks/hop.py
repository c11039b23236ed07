"""Measures one hop (read an event, do nothing, publish an event, commit) on real Kafka, four ways in one run.

    python benchmarks/hop.py [--events N] [--rounds N] [--servers HOST:PORT]

Each way runs in a process of its own on uvloop, as `callboard run` does; rounds are interleaved. CPU is the
client process's (user + system), divided by events: the number to trust on a shared machine. What a process
takes for one event, start and stop included, is told apart and taken off. Wall rates include that, and
whatever else the machine does. The delivery of each way stands beside it, since a figure at most once is not
comparable to one at least once.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

PARTITIONS = 6
PAYLOAD = {"input": {"order": 4711, "note": "x" * 200, "lines": [{"sku": "A-1", "quantity": 2}] * 4}}
WAYS = {
    "raw": ("aiokafka: getmany, pipelined send, commit per batch", "at least once"),
    "callboard": ("callboard: a no-op agent, all of the runtime", "at least once, order per key, deadlines"),
    "faststream-batch": ("FastStream: batch handler on raw records", "at least once"),
    "faststream": ("FastStream: default handler and @publisher", "at most once"),
}
Runs = dict[str, list[dict[str, float]]]


class Hop(NamedTuple):
    """What one way runs on."""

    servers: str
    prefix: str
    events: int

    @property
    def connection(self) -> Any:
        """How Callboard's own parts reach Kafka."""
        from streams.kafka.connection import Connection

        return Connection.plaintext(self.servers)

    @property
    def source(self) -> str:
        """Where the events are."""
        return f"{self.prefix}tasks.noop"

    @property
    def target(self) -> str:
        """Where they go."""
        return f"{self.prefix}results.noop"

    @property
    def topics(self) -> list[str]:
        """Everything that is made for it."""
        return [self.source, self.target, f"{self.prefix}artifacts.noop"]


def main() -> None:
    """Run all ways and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--slow-events", type=int, default=6_000, help="for FastStream one by one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--servers", help="an existing Kafka; default: the local one")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--round", default="0", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        hop = Hop(options.servers, f"bench-{options.way}-{options.round}.", options.events)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(one(options.way, hop))))
        return
    servers = options.servers or local()
    starts: Runs = {way: [] for way in WAYS}
    runs: Runs = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS:
            events = options.slow_events if way == "faststream" else options.events
            starts[way].append(child(way, servers, 1, f"{os.getpid()}-{number}-start"))
            runs[way].append(child(way, servers, events, f"{os.getpid()}-{number}"))
            print(f"round {number + 1} {way}: {starts[way][-1]} {runs[way][-1]}", file=sys.stderr)
    report(starts, runs, options)


def local() -> str:
    """Bring the local Kafka up."""
    from streams.kafka.local_broker import LocalBroker
    from streams.settings import Settings

    settings = Settings()
    return LocalBroker(settings.home, settings.kafka_port).up(lambda _: None).bootstrap_servers


def child(way: str, servers: str, events: int, number: str) -> dict[str, float]:
    """Run one way in a process of its own."""
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "--way",
            way,
            "--servers",
            servers,
            "--events",
            str(events),
            "--round",
            number,
        ],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"CALLBOARD_LLM": "off"},
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


async def one(way: str, hop: Hop) -> dict[str, float]:
    """Publish the events, run one way over them, check that each came out once, and give seconds and CPU."""
    from aiokafka.admin import AIOKafkaAdminClient

    from streams.kafka.admin import ensure_topics

    ways = {
        "raw": raw,
        "callboard": callboard,
        "faststream-batch": faststream_batch,
        "faststream": faststream,
    }
    await ensure_topics(hop.connection, dict.fromkeys(hop.topics, {}), partitions=PARTITIONS, replication=1)
    try:
        await fill(hop)
        wall, cpu = await ways[way](hop)
        seen = await count(hop)
    finally:
        admin = AIOKafkaAdminClient(bootstrap_servers=hop.servers)
        await admin.start()
        await admin.delete_topics(hop.topics)
        await admin.close()
    if seen != hop.events:
        raise SystemExit(f"{way}: {hop.events} events in, {seen} out: no figure")
    return {"events": hop.events, "seconds": wall, "cpu": cpu}


async def fill(hop: Hop) -> None:
    """Publish task events over 1,000 keys."""
    from streams.envelope import TASK, Envelope, encode, task_id
    from streams.kafka.publisher import OwnPublisher, partition_for

    value = json.dumps(PAYLOAD).encode()
    async with OwnPublisher(hop.connection) as publisher:
        sent = []
        for number in range(hop.events):
            key = f"key-{number % 1000}".encode()
            identity = task_id()
            headers = encode(
                Envelope(id=identity, source="/bench", type=TASK, workflow_id=identity, round=identity)
            )
            partition = partition_for(key, PARTITIONS)
            sent.append(await publisher.send(hop.source, partition, key=key, value=value, headers=headers))
        await asyncio.gather(*sent)


async def count(hop: Hop) -> int:
    """Count the records that came out."""
    from streams.kafka.reader import Reader

    async with Reader(hop.connection) as reader:
        return sum((await reader.end_offsets(await reader.partitions([hop.target]))).values())


async def until_done(hop: Hop) -> None:
    """Wait until all records came out; asks the broker ten times a second."""
    from streams.kafka.reader import Reader

    async with Reader(hop.connection) as reader:
        places = await reader.partitions([hop.target])
        while sum((await reader.end_offsets(places)).values()) < hop.events:
            await asyncio.sleep(0.1)


class Meter:
    """Wall and CPU seconds of this process between `start` and `stop`."""

    def start(self) -> None:
        """Begin."""
        self.wall, self.cpu = time.perf_counter(), cpu()

    def stop(self) -> tuple[float, float]:
        """End."""
        return time.perf_counter() - self.wall, cpu() - self.cpu


def cpu() -> float:
    """Give the seconds of CPU this process used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def raw(hop: Hop) -> tuple[float, float]:
    """The least a correct loop can do."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    from streams.kafka.publisher import PRODUCER_OPTIONS

    consumer = AIOKafkaConsumer(
        hop.source,
        bootstrap_servers=hop.servers,
        group_id=f"{hop.prefix}raw",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=hop.servers, **PRODUCER_OPTIONS)
    await producer.start()
    meter = Meter()
    meter.start()
    await consumer.start()
    done = 0
    while done < hop.events:
        batches = await consumer.getmany(timeout_ms=10, max_records=500)
        sent = []
        for tp, records in batches.items():
            for record in records:
                sent.append(  # noqa: PERF401 (a comprehension cannot await in order)
                    await producer.send(
                        hop.target,
                        record.value,
                        record.key,
                        partition=tp.partition,
                        headers=list(record.headers),
                    )
                )
        if sent:
            await asyncio.gather(*sent)
            await consumer.commit()
            done += len(sent)
    measured = meter.stop()
    await consumer.stop()
    await producer.stop()
    return measured


async def callboard(hop: Hop) -> tuple[float, float]:
    """The product as a user runs it."""
    from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
    from streams import AgentApp
    from streams.settings import Settings

    class Noop(Agent):
        """Does nothing."""

        async def execute(self, input_data: Any) -> AgentResult[Any]:
            """Give the input back."""
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

    workflow = Workflow(f"{hop.prefix}app".strip("."))
    workflow.step(Noop(AgentConfig(name="noop", concurrency=200)))
    app = AgentApp(workflow, settings=Settings(bootstrap_servers=hop.servers, topic_prefix=hop.prefix))
    meter = Meter()
    meter.start()
    async with app.start_lifespan_context():
        await until_done(hop)
    return meter.stop()


async def faststream_batch(hop: Hop) -> tuple[float, float]:
    """FastStream at its best: raw records in batches, pipelined, committed per batch."""
    from faststream import AckPolicy, FastStream
    from faststream.kafka import KafkaBroker, KafkaMessage

    from streams.kafka.private_access import producer_of
    from streams.kafka.publisher import PRODUCER_OPTIONS

    broker = KafkaBroker(hop.servers, logger=None, apply_types=False, **PRODUCER_OPTIONS)

    async def parse(records: tuple[Any, ...]) -> KafkaMessage:
        return KafkaMessage(
            raw_message=records, body=records, message_id="b", correlation_id="b", consumer=handler.consumer
        )

    async def decode(message: KafkaMessage) -> Any:
        return message.body

    async def handle(records: Any) -> None:
        producer = producer_of(broker)
        await asyncio.gather(
            *[
                await producer.send(
                    hop.target, r.value, r.key, partition=r.partition, headers=list(r.headers)
                )
                for r in records
            ]
        )
        await handler.consumer.commit()

    handler = broker.subscriber(
        hop.source,
        group_id=f"{hop.prefix}fsb",
        batch=True,
        batch_timeout_ms=10,
        max_records=500,
        ack_policy=AckPolicy.MANUAL,
        no_reply=True,
        auto_offset_reset="earliest",
        parser=parse,
        decoder=decode,
    )
    handler(handle)
    app = FastStream(broker, logger=None)
    meter = Meter()
    meter.start()
    await app.start()
    await until_done(hop)
    await app.stop()
    return meter.stop()


async def faststream(hop: Hop) -> tuple[float, float]:
    """FastStream as its documentation begins: one handler, one publisher."""
    from faststream import FastStream
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(hop.servers, logger=None)

    @broker.publisher(hop.target)
    @broker.subscriber(hop.source, group_id=f"{hop.prefix}fs", auto_offset_reset="earliest")
    async def handle(message: dict[str, Any]) -> dict[str, Any]:
        return message

    app = FastStream(broker, logger=None)
    meter = Meter()
    meter.start()
    await app.start()
    await until_done(hop)
    await app.stop()
    return meter.stop()


def report(starts: Runs, runs: Runs, options: argparse.Namespace) -> None:
    """Print the table in Markdown."""
    first = {way: statistics.median(run["cpu"] for run in starts[way]) for way in WAYS}
    costs = {
        way: [(run["cpu"] - first[way]) / (run["events"] - 1) * 1e6 for run in runs[way]] for way in WAYS
    }
    middle = {way: statistics.median(costs[way]) for way in WAYS}
    print(
        f"{options.events} events of {len(json.dumps(PAYLOAD))} bytes"
        f" ({options.slow_events} for FastStream one by one), {PARTITIONS} partitions,"
        f" {options.rounds} interleaved rounds, all ways on uvloop,"
        f" Python {platform.python_version()}; Apache Kafka 4.3.1 shares the {os.cpu_count()} cores with the"
        " client; medians (min-max)\n"
    )
    print("| way | delivery | events/s | CPU us per event | x raw |")
    print("|---|---|---|---|---|")
    for way, (title, delivery) in WAYS.items():
        rates = [run["events"] / run["seconds"] for run in runs[way]]
        print(
            f"| {title} | {delivery} | {statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
            f" | {middle[way]:.1f} ({min(costs[way]):.1f}-{max(costs[way]):.1f})"
            f" | {middle[way] / middle['raw']:.2f} |"
        )
    print(
        f"\nCPU: callboard takes {middle['callboard'] / middle['raw']:.2f} x raw, FastStream one by one"
        f" {middle['faststream'] / middle['callboard']:.1f} x callboard. Start and stop with one event,"
        f" in CPU ms: {', '.join(f'{way} {seconds * 1e3:.0f}' for way, seconds in first.items())}."
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
