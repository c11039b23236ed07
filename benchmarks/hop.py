"""One hop (read an event, do nothing, publish an event, commit): CPU per event beside the raw client.

What a process takes for one event, start and stop included, is measured as well and taken off.
"""

import asyncio
from typing import Any

from benchmarks.harness import WORKFLOW, Arena, Figures, Meter, Report, Run, Spread, Way, in_turn, table

EVENTS, FEW = 100_000, 4_000
SLOW = ("faststream", "faststream_acknowledged")
CONCURRENCY = 500
# What `streams.kafka.publisher` gives the product's own; importing it would change the client.
PRODUCER_OPTIONS: Any = {
    "acks": "all",
    "enable_idempotence": True,
    "max_batch_size": 128 * 1024,
    "max_request_size": (2 * 1024 + 128) * 1024,
    "request_timeout_ms": 30_000,
}


def measure(servers: str, rounds: int) -> Report:
    """Run all ways in turn."""
    ways: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        ways |= {f"{way}:start": {"events": 1}, way: {"events": FEW if way in SLOW else EVENTS}}
    runs = in_turn("hop", servers, rounds, ways)
    starts = {way: Spread([run["cpu"] for run in runs[f"{way}:start"]]) for way in WAYS}
    costs = {
        way: Spread(
            [(run["cpu"] - starts[way].median) / (ways[way]["events"] - 1) * 1e6 for run in runs[way]]
        )
        for way in WAYS
    }
    rates = {way: Spread([ways[way]["events"] / run["seconds"] for run in runs[way]]) for way in WAYS}
    raw, ours, theirs = costs["raw"].median, costs["callboard"].median, costs["faststream"].median
    rows = [
        [
            way.title,
            way.delivery,
            costs[name].text(),
            f"{costs[name].median / raw:.2f}",
            rates[name].text(",.0f"),
            f"{starts[name].median * 1000:.0f}",
        ]
        for name, way in WAYS.items()
    ]
    head = ["way", "delivery", "CPU us per event", "x raw", "events/s", "CPU ms of start and stop"]
    lines = [
        (
            f"{EVENTS:,} events with 11 headers ({FEW:,} for FastStream one by one), 6 partitions, 1,000"
            f" keys, {rounds} interleaved rounds; medians (least-most). Callboard writes 15 headers and 1.1"
            " KB, the others what they read."
        ),
        "",
        *table(head, rows),
    ]
    return Report(
        "One hop",
        lines,
        [
            ("at most 1.5 x the raw loop", f"{ours / raw:.2f} x", ours <= 1.5 * raw),
            ("FastStream's default at least 15 x ours", f"{theirs / ours:.1f} x", theirs >= 15 * ours),
        ],
    )


async def callboard(arena: Arena) -> Figures:
    """The product as a user runs it."""
    from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
    from streams import AgentApp

    class Noop(Agent):
        """Does nothing."""

        async def execute(self, input_data: Any) -> AgentResult[Any]:
            """Give the input back."""
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

    workflow = Workflow(WORKFLOW)
    workflow.step(Noop(AgentConfig(name="noop", concurrency=CONCURRENCY)))
    app = AgentApp(workflow, name=arena.name, settings=arena.settings())
    meter = Meter()
    async with app.start_lifespan_context():
        await arena.until_full(f"{arena.prefix}results.noop")
    return meter.read()


async def raw(arena: Arena) -> Figures:
    """The least a correct loop can do: forward each record with its headers, pipelined, commit per batch."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    source, target = _topics(arena)
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=arena.servers,
        group_id=arena.name,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=arena.servers, **PRODUCER_OPTIONS)
    meter = Meter()
    await producer.start()
    await consumer.start()
    done = 0
    while done < arena.events:
        batches = await consumer.getmany(timeout_ms=10, max_records=500)
        sent = []
        for tp, records in batches.items():
            for record in records:
                sent.append(  # noqa: PERF401 (a comprehension cannot await in order)
                    await producer.send(
                        target,
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
    await consumer.stop()
    await producer.stop()
    return meter.read()


async def faststream_batch(arena: Arena) -> Figures:
    """FastStream at its best: raw records in batches, pipelined, committed per batch."""
    from faststream import AckPolicy, FastStream
    from faststream.kafka import KafkaBroker, KafkaMessage

    source, target = _topics(arena)
    broker = KafkaBroker(arena.servers, logger=None, apply_types=False, **PRODUCER_OPTIONS)
    state: Any = broker.config.producer

    handler: Any

    async def parse(records: tuple[Any, ...]) -> KafkaMessage:
        return KafkaMessage(
            raw_message=records, body=records, message_id="b", correlation_id="b", consumer=handler.consumer
        )

    async def decode(message: KafkaMessage) -> Any:
        return message.body

    async def handle(records: Any) -> None:
        # Its own producer: FastStream itself publishes one record at a time and waits for it.
        producer = state._producer.producer  # noqa: SLF001 (there is no public way to it)
        await asyncio.gather(
            *[
                await producer.send(target, r.value, r.key, partition=r.partition, headers=list(r.headers))
                for r in records
            ]
        )
        await handler.consumer.commit()

    handler = broker.subscriber(
        source,
        group_id=arena.name,
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
    return await _until_done(arena, FastStream(broker, logger=None), target)


async def faststream(arena: Arena) -> Figures:
    """FastStream as its documentation begins: one handler, one publisher."""
    return await _one_by_one(arena)


async def faststream_acknowledged(arena: Arena) -> Figures:
    """The same, with each record committed after its handler, so that a failure repeats it."""
    from faststream import AckPolicy

    return await _one_by_one(arena, ack_policy=AckPolicy.NACK_ON_ERROR)


async def _one_by_one(arena: Arena, **options: Any) -> Figures:
    from faststream import FastStream
    from faststream.kafka import KafkaBroker

    source, target = _topics(arena)
    broker = KafkaBroker(arena.servers, logger=None)

    @broker.publisher(target)
    @broker.subscriber(source, group_id=arena.name, auto_offset_reset="earliest", **options)  # type: ignore[untyped-decorator]
    async def handle(message: dict[str, Any]) -> dict[str, Any]:
        return message

    return await _until_done(arena, FastStream(broker, logger=None), target)


def _topics(arena: Arena) -> tuple[str, str]:
    return f"{arena.prefix}tasks.noop", f"{arena.prefix}results.noop"


async def _until_done(arena: Arena, app: Any, target: str) -> Figures:
    meter = Meter()
    await app.start()
    await arena.until_full(target)
    await app.stop()
    return meter.read()


def _way(title: str, delivery: str, run: Run) -> Way:
    return Way(title, delivery, run, agents=("noop",), filled=True)


WAYS = {
    "raw": _way("aiokafka: `getmany`, `send` of value, key and headers", "at least once", raw),
    "callboard": _way(
        "Callboard: a no-op agent, everything on",
        "at least once, deduped, order per key, deadlines",
        callboard,
    ),
    "faststream_batch": _way("FastStream: a batch of raw records", "at least once", faststream_batch),
    "faststream": _way("FastStream: default handler and `@publisher`", "at most once", faststream),
    "faststream_acknowledged": _way(
        "FastStream: the same with `NACK_ON_ERROR`", "at least once", faststream_acknowledged
    ),
}
