"""Five agents in a row that do nothing: how long a workflow takes when one begins every 20 ms.

The loop is open: each workflow has an intended time, and its latency counts from that, so that a stall is not
hidden by asking less meanwhile.
"""

import asyncio
import json
import re
import time
from typing import Any

from benchmarks.harness import (
    PAYLOAD,
    WORKFLOW,
    Arena,
    Figures,
    Meter,
    Report,
    Spread,
    Way,
    in_turn,
    quantile,
    table,
)

AGENTS = ("one", "two", "three", "four", "five")
RATE, WARM, SECONDS = 50, 2, 12
NUMBER = re.compile(rb'"number": ?(\d+)')


def measure(servers: str, rounds: int) -> Report:
    """Run both in turn."""
    events = RATE * (WARM + SECONDS)
    runs = in_turn("chain", servers, rounds, {way: {"events": events, "keys": events} for way in WAYS})
    found = {
        way: {name: Spread([run[name] for run in runs[way]]) for name in ("p50", "p99", "cpu")}
        for way in WAYS
    }
    rows = [
        [
            way.title,
            way.delivery,
            found[name]["p50"].text(),
            found[name]["p99"].text(),
            f"{found[name]['cpu'].median / events * 1000:.1f}",
        ]
        for name, way in WAYS.items()
    ]
    lines = [
        (
            f"{len(AGENTS)} agents in one process, {RATE} workflows/s for {SECONDS} s after {WARM} s to warm"
            f" up, {rounds} interleaved rounds; ms from the intended start to reading the last result."
        ),
        "",
        *table(["way", "delivery", "p50 ms", "p99 ms", "CPU ms per workflow"], rows),
    ]
    ours, theirs = found["callboard"], found["faststream"]
    aims = [
        (
            f"{name} not above FastStream's default",
            f"{ours[name].median:.1f} ms against {theirs[name].median:.1f}",
            ours[name].median <= theirs[name].median,
        )
        for name in ("p50", "p99")
    ]
    return Report("Five in a row", lines, aims)


async def drive(arena: Arena) -> Figures:
    """Begin workflows at their times, see them end, and give the latencies."""
    from aiokafka import AIOKafkaConsumer

    from streams.envelope import TASK, Envelope, encode, task_id
    from streams.kafka.publisher import OwnPublisher, partition_for

    consumer = AIOKafkaConsumer(
        f"{arena.prefix}results.{AGENTS[-1]}",
        bootstrap_servers=arena.servers,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    begin = time.perf_counter() + 1
    latencies: list[float] = []

    async def listen() -> None:
        seen: set[int] = set()
        while len(seen) < arena.events:
            record = await consumer.getone()
            now = time.perf_counter()
            number = int(NUMBER.findall(record.value)[0])
            if number in seen:
                raise SystemExit(f"workflow {number} ended twice")
            seen.add(number)
            if number >= RATE * WARM:
                latencies.append((now - begin - number / RATE) * 1000)

    listening = asyncio.create_task(listen())
    async with OwnPublisher(arena.connection) as publisher:
        for number in range(arena.events):
            await asyncio.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
            key, name = str(number).encode(), task_id()
            await publisher.send(
                f"{arena.prefix}tasks.{AGENTS[0]}",
                partition_for(key, arena.partitions),
                key=key,
                value=json.dumps({"input": {"number": number} | PAYLOAD["input"]}).encode(),
                headers=encode(Envelope(name, "/bench", TASK, name, workflow=WORKFLOW, round=name)),
            )
        async with asyncio.timeout(60):
            await listening
    await consumer.stop()
    return {"p50": quantile(latencies, 0.5), "p99": quantile(latencies, 0.99)}


async def callboard(arena: Arena) -> Figures:
    """The product: a workflow of five steps."""
    from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
    from streams import AgentApp

    class Noop(Agent):
        """Does nothing."""

        async def execute(self, input_data: Any) -> AgentResult[Any]:
            """Give the input back."""
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

    workflow = Workflow(WORKFLOW)
    step: Any = None
    for name in AGENTS:
        step = workflow.step(Noop(AgentConfig(name=name)), **({"after": step} if step is not None else {}))
    app = AgentApp(workflow, name=arena.name, settings=arena.settings())
    async with app.start_lifespan_context():
        while app.not_ready():
            await asyncio.sleep(0.05)
        meter = Meter()
        return await arena.elsewhere(drive) | meter.read()


async def faststream(arena: Arena) -> Figures:
    """FastStream: five default handlers, each with a publisher."""
    from faststream import FastStream
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(arena.servers, logger=None)
    source = f"{arena.prefix}tasks.{AGENTS[0]}"
    for name in AGENTS:
        target = f"{arena.prefix}results.{name}"
        _handler(broker, source, target, f"{arena.name}.{name}")
        source = target
    app = FastStream(broker, logger=None)
    await app.start()
    meter = Meter()
    found = await arena.elsewhere(drive) | meter.read()
    await app.stop()
    return found


def _handler(broker: Any, source: str, target: str, group: str) -> None:
    @broker.publisher(target)  # type: ignore[untyped-decorator]
    @broker.subscriber(source, group_id=group, auto_offset_reset="earliest")  # type: ignore[untyped-decorator]
    async def handle(message: dict[str, Any]) -> dict[str, Any]:
        return message


WAYS = {
    "callboard": Way("Callboard: five agents", "at least once, deduped, order per key", callboard, AGENTS),
    "faststream": Way("FastStream: five default handlers", "at most once", faststream, AGENTS),
}
