"""Measures one hop (read an event, do nothing, publish an event, commit) on real Kafka, four ways in one run.

    python benchmarks/hop.py [--events N] [--rounds N] [--servers HOST:PORT]

Each way runs in a process of its own, rounds are interleaved. CPU is the client process's (user + system),
divided by events: the number to trust on a shared machine. Wall rates include whatever else the machine does.
The delivery of each way stands beside it, since a figure at most once is not comparable to one at least once.
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
from typing import Any

PARTITIONS = 6
PAYLOAD = {"input": {"order": 4711, "note": "x" * 200, "lines": [{"sku": "A-1", "quantity": 2}] * 4}}
WAYS = {
    "raw": ("aiokafka: getmany, pipelined send, commit per batch", "at least once"),
    "callboard": ("callboard: a no-op agent, all of the runtime", "at least once, order per key, deadlines"),
    "faststream-batch": ("FastStream: batch handler on raw records", "at least once"),
    "faststream": ("FastStream: default handler and @publisher", "at most once"),
}


def main() -> None:
    """Run all ways and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--slow-events", type=int, default=6_000, help="for FastStream one by one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--servers", help="an existing Kafka; default: the local one")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--round", default="0", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(asyncio.run(one(options.way, options.servers, options.events, options.round))))
        return
    servers = options.servers or local()
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS:
            events = options.slow_events if way == "faststream" else options.events
            runs[way].append(child(way, servers, events, f"{os.getpid()}-{number}"))
            print(f"round {number + 1} {way}: {runs[way][-1]}", file=sys.stderr)
    report(runs, options)


def local() -> str:
    """Bring the local Kafka up."""
    from streams.kafka.local_broker import LocalBroker
    from streams.settings import Settings

    settings = Settings()
    return LocalBroker(settings.home, settings.kafka_port).up(lambda _: None).bootstrap_servers


def child(way: str, servers: str, events: int, number: str) -> dict[str, float]:
    """Run one way in a process of its own."""
    done = subprocess.run(  # noqa: S603 (this very file)
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


async def one(way: str, servers: str, events: int, number: str) -> dict[str, float]:
    """Publish the events, run one way over them, check that each came out once, and give rate and CPU."""
    prefix = f"bench-{way}-{number}."
    source, target = f"{prefix}tasks.noop", f"{prefix}results.noop"
    from streams.kafka.admin import ensure_topics

    await ensure_topics(
        servers, [source, target, f"{prefix}artifacts.noop"], partitions=PARTITIONS, replication=1
    )
    await fill(servers, source, events)
    run = {
        "raw": raw,
        "callboard": callboard,
        "faststream-batch": faststream_batch,
        "faststream": faststream,
    }[way]
    wall, cpu = await run(servers, prefix, source, target, events)
    seen = await count(servers, target)
    if seen != events:
        raise SystemExit(f"{way}: {events} events in, {seen} out: no figure")
    return {"rate": events / wall, "cpu_us": cpu / events * 1e6}


async def fill(servers: str, topic: str, events: int) -> None:
    """Publish task events over 1,000 keys."""
    from streams.envelope import TASK, Envelope, encode, task_id
    from streams.kafka.publisher import OwnPublisher, partition_for

    value = json.dumps(PAYLOAD).encode()
    async with OwnPublisher(servers) as publisher:
        sent = []
        for number in range(events):
            key = f"key-{number % 1000}".encode()
            identity = task_id()
            headers = encode(
                Envelope(id=identity, source="/bench", type=TASK, workflow_id=identity, round=identity)
            )
            partition = partition_for(key, PARTITIONS)
            sent.append(await publisher.send(topic, partition, key=key, value=value, headers=headers))
        await asyncio.gather(*sent)


async def count(servers: str, topic: str) -> int:
    """Count a topic's records."""
    from streams.kafka.reader import Reader

    async with Reader(servers) as reader:
        return sum((await reader.end_offsets(await reader.partitions([topic]))).values())


async def until(servers: str, topic: str, events: int) -> None:
    """Wait until a topic has so many records; asks the broker ten times a second."""
    from streams.kafka.reader import Reader

    async with Reader(servers) as reader:
        places = await reader.partitions([topic])
        while sum((await reader.end_offsets(places)).values()) < events:
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


async def raw(servers: str, prefix: str, source: str, target: str, events: int) -> tuple[float, float]:
    """The least a correct loop can do."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    from streams.kafka.publisher import PRODUCER_OPTIONS

    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=servers,
        group_id=f"{prefix}raw",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=servers, **PRODUCER_OPTIONS)
    await producer.start()
    meter = Meter()
    meter.start()
    await consumer.start()
    done = 0
    while done < events:
        batches = await consumer.getmany(timeout_ms=10, max_records=500)
        sent = []
        for tp, records in batches.items():
            for record in records:
                sent.append(  # noqa: PERF401 (a comprehension cannot await in order)
                    await producer.send(
                        target, record.value, record.key, partition=tp.partition, headers=list(record.headers)
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


async def callboard(servers: str, prefix: str, source: str, target: str, events: int) -> tuple[float, float]:
    """The product as a user runs it."""
    from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
    from streams import AgentApp
    from streams.settings import Settings

    class Noop(Agent):
        """Does nothing."""

        async def execute(self, input_data: Any) -> AgentResult[Any]:
            """Give the input back."""
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

    workflow = Workflow(f"{prefix}app".strip("."))
    workflow.step(Noop(AgentConfig(name="noop", concurrency=200)))
    app = AgentApp(workflow, settings=Settings(bootstrap_servers=servers, topic_prefix=prefix))
    meter = Meter()
    meter.start()
    async with app.start_lifespan_context():
        await until(servers, target, events)
    return meter.stop()


async def faststream_batch(
    servers: str, prefix: str, source: str, target: str, events: int
) -> tuple[float, float]:
    """FastStream at its best: raw records in batches, pipelined, committed per batch."""
    from faststream import AckPolicy, FastStream
    from faststream.kafka import KafkaBroker, KafkaMessage

    from streams.kafka.private_access import producer_of
    from streams.kafka.publisher import PRODUCER_OPTIONS

    broker = KafkaBroker(servers, logger=None, apply_types=False, **PRODUCER_OPTIONS)

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
                await producer.send(target, r.value, r.key, partition=r.partition, headers=list(r.headers))
                for r in records
            ]
        )
        await handler.consumer.commit()

    handler = broker.subscriber(
        source,
        group_id=f"{prefix}fsb",
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
    await until(servers, target, events)
    await app.stop()
    return meter.stop()


async def faststream(servers: str, prefix: str, source: str, target: str, events: int) -> tuple[float, float]:
    """FastStream as its documentation begins: one handler, one publisher."""
    from faststream import FastStream
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(servers, logger=None)

    @broker.publisher(target)
    @broker.subscriber(source, group_id=f"{prefix}fs", auto_offset_reset="earliest")
    async def handle(message: dict[str, Any]) -> dict[str, Any]:
        return message

    app = FastStream(broker, logger=None)
    meter = Meter()
    meter.start()
    await app.start()
    await until(servers, target, events)
    await app.stop()
    return meter.stop()


def report(runs: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    """Print the table in Markdown."""
    base = statistics.median(run["cpu_us"] for run in runs["raw"])
    print(
        f"{options.events} events of {len(json.dumps(PAYLOAD))} bytes ({options.slow_events} for FastStream one by"
        f" one), {PARTITIONS} partitions, {options.rounds} interleaved rounds, Apache Kafka 4.3.1 on the same"
        f" {os.cpu_count()} cores, Python {platform.python_version()}; medians (min-max)\n"
    )
    print("| way | delivery | events/s | CPU us per event | x raw |")
    print("|---|---|---|---|---|")
    for way, (title, delivery) in WAYS.items():
        rates = [run["rate"] for run in runs[way]]
        costs = [run["cpu_us"] for run in runs[way]]
        print(
            f"| {title} | {delivery} | {statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
            f" | {statistics.median(costs):.1f} ({min(costs):.1f}-{max(costs):.1f})"
            f" | {statistics.median(costs) / base:.2f} |"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
