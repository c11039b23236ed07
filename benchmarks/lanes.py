"""Order per key at ten thousand keys: one partition, each event a little work, a hundred at a time."""

import asyncio
import random
from typing import Any

from benchmarks.harness import WORKFLOW, Arena, Figures, Meter, Report, Spread, Way, in_turn, table

KEYS, EACH, MOST_WORK = 10_000, 3, 0.005
CONCURRENCY = 100
MOST_SECONDS = 1.0


def measure(servers: str, rounds: int) -> Report:
    """Run both in turn."""
    fields = {"events": KEYS * EACH, "keys": KEYS, "partitions": 1}
    few = fields | {"events": KEYS // 10, "keys": KEYS // 10}
    ways = {"callboard": fields, "faststream": few}
    runs = in_turn("lanes", servers, rounds, ways)
    seconds = {
        way: Spread([run["seconds"] / ways[way]["events"] * 10_000 for run in runs[way]]) for way in WAYS
    }
    rows = [[way.title, way.delivery, seconds[name].text(".2f")] for name, way in WAYS.items()]
    ours = seconds["callboard"].median
    lines = [
        (
            f"{KEYS:,} keys, {EACH} events each, 0-{MOST_WORK * 1000:.0f} ms of work, one partition; order is"
            f" checked as it runs ({KEYS // 10:,} events for FastStream); {rounds} interleaved rounds. No"
            f" scheduler of {CONCURRENCY} slots can be faster than"
            f" {MOST_WORK / 2 * 10_000 / CONCURRENCY:.2f} s."
        ),
        "",
        *table(["way", "delivery", "s per 10,000 events"], rows),
    ]
    aim = f"at most {MOST_SECONDS:.1f} s per 10,000 events at {CONCURRENCY} at a time"
    return Report("Order per key", lines, [(aim, f"{ours:.2f} s", ours <= MOST_SECONDS)])


class Order:
    """Does the work, and checks that no two events of a key overlap or change places."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}
        self._busy: set[bytes] = set()
        self._random = random.Random(1)  # noqa: S311 (no secret)

    async def work(self, key: bytes, offset: int) -> None:
        """Work on one event."""
        if key in self._busy or self._last.get(key, -1) >= offset:
            raise SystemExit(f"{key!r} at {offset} is out of order")
        self._busy.add(key)
        self._last[key] = offset
        await asyncio.sleep(self._random.uniform(0, MOST_WORK))
        self._busy.remove(key)


async def callboard(arena: Arena) -> Figures:
    """The product: lanes."""
    from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
    from agents.core.task import current_task
    from streams import AgentApp

    order = Order()

    class Worker(Agent):
        """Works a little."""

        async def execute(self, input_data: Any) -> AgentResult[Any]:
            """Give the input back, a little later."""
            event = current_task().events[0]
            await order.work(event.key or b"", event.offset)
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

    workflow = Workflow(WORKFLOW)
    workflow.step(Worker(AgentConfig(name="worker", concurrency=CONCURRENCY)))
    app = AgentApp(workflow, name=arena.name, settings=arena.settings())
    async with app.start_lifespan_context():
        meter = Meter()
        await arena.until_full(f"{arena.prefix}results.worker", pause=0.02)
        return meter.read()


async def faststream(arena: Arena) -> Figures:
    """FastStream one by one: what it takes to keep order there, since `max_workers` does not."""
    from faststream import FastStream
    from faststream.kafka import KafkaBroker, KafkaMessage

    source, target = f"{arena.prefix}tasks.worker", f"{arena.prefix}results.worker"
    order = Order()
    broker = KafkaBroker(arena.servers, logger=None)

    @broker.publisher(target)
    @broker.subscriber(source, group_id=arena.name, auto_offset_reset="earliest")
    async def handle(body: dict[str, Any], message: KafkaMessage) -> dict[str, Any]:
        record: Any = message.raw_message
        await order.work(record.key, record.offset)
        return body

    app = FastStream(broker, logger=None)
    await app.start()
    meter = Meter()
    await arena.until_full(target, pause=0.02)
    figures = meter.read()
    await app.stop()
    return figures


WAYS = {
    "callboard": Way(
        f"Callboard: lanes, `concurrency={CONCURRENCY}`", "at least once", callboard, ("worker",), filled=True
    ),
    "faststream": Way("FastStream: one by one", "at most once", faststream, ("worker",), filled=True),
}
