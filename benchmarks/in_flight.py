"""Ten thousand tasks at once, each asleep for two seconds: when all are done, and what memory each takes.

So it is with agents: next to all of their time they wait for a model. Memory is taken in runs of their own,
in which nobody wakes up before all are asleep: a way that begins slowly never has all of them at once
otherwise, and would seem to need little for each.
"""

import asyncio
import gc
import time
from functools import partial
from typing import Any

from benchmarks.harness import WORKFLOW, Arena, Figures, Meter, Report, Spread, Way, in_turn, table

EVENTS, SLEEP = 10_000, 2.0
MOST_SECONDS, MOST_KIB = 3.0, 6.0


def measure(servers: str, rounds: int) -> Report:
    """Run both in turn."""
    runs = in_turn("in_flight", servers, rounds, {way: {"events": EVENTS, "keys": EVENTS} for way in WAYS})
    found = {
        way: {name: Spread([run[name] for run in runs[way]]) for name in ("last", "most", "micros")}
        | {"kib": Spread([run["kib"] for run in runs[f"{way}_held"]])}
        for way in TIMED
    }
    rows = [
        [
            way.title,
            way.delivery,
            found[name]["last"].text(".2f"),
            found[name]["most"].text(",.0f"),
            found[name]["kib"].text(),
            found[name]["micros"].text(".0f"),
        ]
        for name, way in TIMED.items()
    ]
    head = [
        "way",
        "delivery",
        "s from the last read to the last done",
        "most at once",
        "KiB each, all asleep",
        "CPU us each",
    ]
    last, kib = found["callboard"]["last"].median, found["callboard"]["kib"].median
    lines = [
        f"{EVENTS} tasks that sleep {SLEEP:.0f} s, {rounds} interleaved rounds; medians (least-most).",
        "",
    ]
    return Report(
        "Ten thousand in flight",
        [*lines, *table(head, rows)],
        [
            (
                f"done within {MOST_SECONDS:.0f} s after the last was read",
                f"{last:.2f} s",
                last <= MOST_SECONDS,
            ),
            (f"at most {MOST_KIB:.0f} KiB each", f"{kib:.1f} KiB", kib <= MOST_KIB),
        ],
    )


class Watch:
    """Counts who sleeps, and notes when the last went to sleep and what memory that took.

    Args:
        holds: Nobody wakes up before all are asleep.
    """

    def __init__(self, *, holds: bool) -> None:
        self.begun = self.asleep = self.most = 0
        self.last_begun = 0.0
        self._holds = holds
        gc.collect()
        self._before, self._full, self._meter = resident_kib(), 0.0, Meter()

    async def sleep(self) -> None:
        """Be one of them."""
        self.begun += 1
        self.asleep += 1
        self.most = max(self.most, self.asleep)
        if self.begun == EVENTS:
            self.last_begun, self._full = time.perf_counter(), resident_kib()
        await asyncio.sleep(SLEEP)
        while self._holds and self.begun < EVENTS:
            await asyncio.sleep(SLEEP)
        self.asleep -= 1

    def figures(self, last_read: float) -> Figures:
        """Give what was seen, at the end."""
        return {
            "last": time.perf_counter() - last_read,
            "most": self.most,
            "kib": (self._full - self._before) / EVENTS,  # of all: to be believed if none woke up before
            "micros": self._meter.read()["cpu"] / EVENTS * 1e6,
        }


def resident_kib() -> float:
    """Give the memory this process has now."""
    with open("/proc/self/statm") as statm:  # noqa: PTH123 (a line of the kernel's)
        return int(statm.read().split()[1]) * 4.0


async def callboard(arena: Arena, *, holds: bool = False) -> Figures:
    """The product: when a record was read is what its own metric says."""
    from agents import metrics
    from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
    from streams import AgentApp

    watch: Watch

    class Sleeper(Agent):
        """Waits."""

        async def execute(self, input_data: Any) -> AgentResult[Any]:
            """Give the input back, later."""
            await watch.sleep()
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

    workflow = Workflow(WORKFLOW)
    workflow.step(Sleeper(AgentConfig(name="sleeper", concurrency=EVENTS)))
    app = AgentApp(workflow, name=arena.name, settings=arena.settings())
    tasks, results = f"{arena.prefix}tasks.sleeper", f"{arena.prefix}results.sleeper"
    labels = {"agent": "sleeper", "topic": tasks}
    async with app.start_lifespan_context():
        while app.not_ready():
            await asyncio.sleep(0.05)
        watch = Watch(holds=holds)
        filling = asyncio.create_task(arena.elsewhere(fill))
        while (metrics.REGISTRY.get_sample_value("callboard_records_total", labels) or 0) < EVENTS:
            await asyncio.sleep(0.01)
        last_read = time.perf_counter()
        await arena.until_full(results, pause=0.02)
        figures = watch.figures(last_read)
        await filling
    return figures


async def faststream(arena: Arena, *, holds: bool = False) -> Figures:
    """FastStream with as many workers; when a record was read is when its handler began."""
    from faststream import AckPolicy, FastStream
    from faststream.kafka import KafkaBroker

    source, target = f"{arena.prefix}tasks.sleeper", f"{arena.prefix}results.sleeper"
    broker = KafkaBroker(arena.servers, logger=None)
    watch: Watch

    @broker.publisher(target)
    @broker.subscriber(
        source,
        group_id=arena.name,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK_FIRST,
        max_workers=EVENTS,
    )
    async def handle(message: dict[str, Any]) -> dict[str, Any]:
        await watch.sleep()
        return message

    app = FastStream(broker, logger=None)
    await app.start()
    watch = Watch(holds=holds)
    filling = asyncio.create_task(arena.elsewhere(fill))
    while watch.begun < EVENTS:
        await asyncio.sleep(0.01)
    await arena.until_full(target, pause=0.02)
    figures = watch.figures(watch.last_begun)
    await filling
    await app.stop()
    return figures


async def fill(arena: Arena) -> Figures:
    """Publish the tasks."""
    await arena.fill(f"{arena.prefix}tasks.sleeper")
    return {}


TIMED = {
    "callboard": Way("Callboard: `concurrency=10000`", "at least once", callboard, ("sleeper",)),
    "faststream": Way("FastStream: `max_workers=10000`", "at most once", faststream, ("sleeper",)),
}
WAYS = TIMED | {
    f"{name}_held": way._replace(run=partial(way.run, holds=True))  # type: ignore[call-arg]
    for name, way in TIMED.items()
}
