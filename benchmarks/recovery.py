"""How long a worker takes to go on where another one died, whatever had been done before that.

The journal and the results of all that ever ran are kept. What a restart costs must not grow with them.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.harness import PAYLOAD, WORKFLOW, Arena, Figures, Report, Spread, Way, in_turn, table
from streams.envelope import JOURNAL, RESULT, TASK, EncodedHeaders, Envelope, Headers, Record
from streams.kafka.reader import Place, Reader
from streams.restore import WINDOW

FINISHED = (1_000, 10_000, 100_000)
OPEN, AHEAD, CONCURRENCY = 50, 1_000, 100
SESSION_MS = 6_000
PARTITIONS = 6
MOST_TIMES = 1.5
AGENT = "worker"
YESTERDAY_MS, HOUR_MS, BATCH = 86_400_000, 3_600_000, 200


def measure(servers: str, rounds: int) -> Report:
    """Run all sizes with the hint, and the largest without it."""
    fields = {f"hint:{finished}": {"events": finished, "partitions": PARTITIONS} for finished in FINISHED}
    fields |= {way: fields[f"hint:{FINISHED[-1]}"] for way in WAYS if way != "hint"}
    runs = in_turn("recovery", servers, rounds, fields)
    found = {way: {name: Spread([run[name] for run in runs[way]]) for name in runs[way][0]} for way in fields}
    rows = [
        [
            f"{fields[way]['events']:,}",
            WAYS[way.partition(":")[0]].title,
            *(at[name].text(",.0f") for name in ("runs", "before")),
            *(at[name].text(".2f") for name in ("reading", "first", "last")),
        ]
        for way, at in found.items()
    ]
    head = [
        "runs finished before",
        "commit metadata",
        "records of results and journal read",
        "events before the position read",
        "s of reading",
        "s to the first new result",
        f"s to all {OPEN}",
    ]
    tenth, most = (found[f"hint:{size}"]["last"].median for size in FINISHED[-2:])
    slowest = max(found[way]["last"].median for way in WAYS if way != "hint")
    lines = [
        (
            f"A worker died with {OPEN} runs under way and {AHEAD:,} later ones finished; each run has a step"
            " in the journal, and those under way have a second one, in doubt. Times are from the start"
            " of the next worker, its connecting included. What was finished before is older than the minute"
            " by which clocks may differ. The events before the position, by which copies are recognized, are"
            f" at most {WINDOW:,} per partition, here {WINDOW * PARTITIONS:,}. {rounds} interleaved rounds."
        ),
        "",
        *table(head, rows),
    ]
    times, without = most / tenth, slowest / most
    return Report(
        "Recovery",
        lines,
        [
            (
                f"at {FINISHED[-1]:,} finished runs at most {MOST_TIMES} x the time at {FINISHED[-2]:,}",
                f"{times:.2f} x",
                times <= MOST_TIMES,
            ),
            (
                f"without a hint that helps at most {MOST_TIMES} x the time with it",
                f"{without:.2f} x",
                without <= MOST_TIMES,
            ),
        ],
    )


async def with_hint(arena: Arena) -> Figures:
    """As it was committed."""
    return await _take_over(arena, lambda text: text)


async def without_hint(arena: Arena) -> Figures:
    """Another tool moved the group: offsets alone."""
    return await _take_over(arena, lambda _: "")


async def foreign_hint(arena: Arena) -> Figures:
    """The group was copied from another cluster."""

    def elsewhere(text: str) -> str:
        version, _, *rest = text.split(" ")
        return " ".join([version, "another-cluster", *rest])

    return await _take_over(arena, elsewhere)


async def _take_over(arena: Arena, hint: Callable[[str], str]) -> Figures:
    from streams import restore

    await _make_topics(arena)
    await History(arena).write()
    await _let_the_broker_stamp(arena)
    await _publish_tasks(arena)
    await arena.elsewhere(die)
    await _replace_hints(arena, hint)
    restore.Reader = Counting  # type: ignore[attr-defined]  # what it reads is counted nowhere else
    results, before = f"{arena.prefix}results.{AGENT}", arena.events + AHEAD
    async with Reader(arena.connection) as reader:
        places = await reader.partitions([results])
        begin = time.perf_counter()
        app, _ = _application(arena, _at_once)
        async with app.start_lifespan_context():
            first = 0.0
            while (seen := sum((await reader.end_offsets(places)).values()) - before) < OPEN:
                first = first or (time.perf_counter() - begin if seen else 0.0)
                await asyncio.sleep(0.005)
            last = time.perf_counter() - begin
    if (seen := await arena.count(results)) != before + OPEN:
        raise SystemExit(f"{arena.name}: {before + OPEN} runs, {seen} results: no figure")
    return {
        "runs": sum(
            Counting.records.get(f"{arena.prefix}{kind}.{AGENT}", 0) for kind in ("results", "journal")
        ),
        "before": Counting.records.get(f"{arena.prefix}tasks.{AGENT}", 0),
        "reading": Counting.seconds,
        "first": first or last,
        "last": last,
    }


async def die(arena: Arena) -> Figures:
    """Work until only what hangs is left, and end without a word."""
    results = f"{arena.prefix}results.{AGENT}"
    app, hanging = _application(arena, _never)
    async with app.start_lifespan_context(), Reader(arena.connection) as reader:
        places = await reader.partitions([results])
        wanted = arena.events + AHEAD
        while len(hanging) < OPEN or sum((await reader.end_offsets(places)).values()) < wanted:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)  # the last commit is on its way
        print(json.dumps({}), flush=True)
        os._exit(0)


def _application(arena: Arena, second: Callable[[], Awaitable[str]]) -> tuple[Any, list[int]]:
    """Make the worker; gives also a list with an entry for each run that came to its second step."""
    from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
    from streams import AgentApp

    hanging: list[int] = []

    class Worker(Agent):
        """Does one step, or two."""

        async def execute(self, input_data: Any) -> AgentResult[Any]:
            """Give what the steps gave."""
            said = await self.step("look", _at_once)
            if input_data["slow"]:
                hanging.append(1)
                said = await self.step("act", second)
            return AgentResult(status=AgentStatus.COMPLETED, output=said)

    workflow = Workflow(WORKFLOW)
    workflow.step(Worker(AgentConfig(name=AGENT, concurrency=CONCURRENCY)))
    settings = arena.settings().model_copy(update={"session_timeout_ms": SESSION_MS})
    return AgentApp(workflow, name=arena.name, settings=settings), hanging


async def _at_once() -> str:
    return "done"


async def _never() -> str:
    await asyncio.Event().wait()
    return "never"


class Counting(Reader):
    """A reader that counts what it reads, and how long it is open."""

    records: dict[str, int] = {}  # noqa: RUF012 (one process measures once)
    seconds = 0.0

    async def __aenter__(self) -> Self:
        self._opened = time.perf_counter()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        Counting.seconds += time.perf_counter() - self._opened

    async def read(
        self, starts: Mapping[Place, int], *, ends: Mapping[Place, int] | None = None
    ) -> AsyncGenerator[Record]:
        """Read, and count."""
        async for record in super().read(starts, ends=ends):
            self.records[record.topic] = self.records.get(record.topic, 0) + 1
            yield record


class Put(NamedTuple):
    """A record that is about to be written."""

    key: bytes
    value: bytes
    headers: Headers


class History:
    """Runs that finished some time ago: task, a step in the journal, result, as the product writes them.

    Writing them takes a while, too, and the broker's stamp would make all of it look as if it had just
    happened. Results and journal are therefore stamped by us; tasks are not looked up by time.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._kinds = {kind: f"{arena.prefix}{kind}.{AGENT}" for kind in ("tasks", "results", "journal")}
        self._waiting: dict[Place, list[Put]] = {}
        self._ends = [0] * arena.partitions

    async def write(self) -> None:
        """Write all, and commit that it is done."""
        from streams.kafka.publisher import OwnPublisher

        now = int(time.time() * 1000)
        async with OwnPublisher(self._arena.connection) as publisher:
            for number in range(self._arena.events):
                self._run(number)
                at = now - YESTERDAY_MS + number * (YESTERDAY_MS - HOUR_MS) // self._arena.events
                if (
                    len(self._waiting.get((self._kinds["journal"], number % self._arena.partitions), ()))
                    >= BATCH
                ):
                    await self._send(publisher.producer, at)
            await self._send(publisher.producer, now - HOUR_MS)
        tasks = self._kinds["tasks"]
        await _commit(self._arena, {(tasks, n): (end, "") for n, end in enumerate(self._ends)})

    def _run(self, number: int) -> None:
        from streams import envelope as envelopes

        name, partition = envelopes.task_id(), number % self._arena.partitions
        task = Envelope(name, "/bench", TASK, name, workflow=WORKFLOW, round=name)
        run = envelopes.run_id(self._arena.name, AGENT, task.source, name)
        source, cause = f"/callboard/{self._arena.name}/{AGENT}", [(name, "0" * 64)]
        self._put("tasks", partition, name, PAYLOAD, envelopes.encode(task))
        step: dict[str, Any] = {
            "run": run,
            "agent": AGENT,
            "place": f"{self._kinds['tasks']}/{partition}/{self._ends[partition]}",
            "kind": "step",
            "name": "look",
            "request": "0" * 64,
            "occurrence": 0,
            "try": 1,
        }
        said: dict[str, dict[str, Any]] = {"started": {"question": {}}, "completed": {"answer": "done"}}
        for state, more in said.items():
            headers = envelopes.encode(
                Envelope(envelopes.result_id(f"{run}/{state}"), source, JOURNAL, name), causes=cause
            )
            written = {"state": state, "at": envelopes.now(), "instance": "bench"}
            self._put("journal", partition, run, step | more | written, headers)
        result = Envelope(
            envelopes.result_id(run),
            source,
            RESULT,
            name,
            workflow=WORKFLOW,
            round=name,
            status="completed",
            traceparent=envelopes.next_traceparent(None, run),
        )
        headers = envelopes.encode(result, causes=cause)
        value = {"agent": AGENT, "status": "completed", "output": "done", "run": run}
        self._put("results", partition, name, value, headers)
        self._ends[partition] += 1

    def _put(self, kind: str, partition: int, key: str, value: Any, headers: EncodedHeaders) -> None:
        record = Put(key.encode(), json.dumps(value).encode(), list(headers))
        self._waiting.setdefault((self._kinds[kind], partition), []).append(record)

    async def _send(self, producer: Any, at: int) -> None:
        waiting, self._waiting = self._waiting, {}
        sent = []
        for (topic, partition), records in waiting.items():
            batch = producer.create_batch()
            for key, value, headers in records:
                if batch.append(timestamp=at, key=key, value=value, headers=headers) is None:
                    batch.close()
                    sent.append(await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
                    batch.append(timestamp=at, key=key, value=value, headers=headers)
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)


async def _make_topics(arena: Arena) -> None:
    """Make the topics, those that are looked up by time such that history can be written into them."""
    from streams.kafka.admin import ensure_topics

    wanted = _topics(arena)
    for topic in _looked_up_by_time(arena):
        wanted[topic] = wanted[topic] | {"message.timestamp.type": "CreateTime"}
    await ensure_topics(arena.connection, wanted, partitions=arena.partitions, replication=1)


async def _let_the_broker_stamp(arena: Arena) -> None:
    """Make them what a worker asks for."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    admin = AIOKafkaAdminClient(**arena.connection.client_options)
    await admin.start()
    topics = _topics(arena)
    changes = [ConfigResource(ConfigResourceType.TOPIC, it, topics[it]) for it in _looked_up_by_time(arena)]
    for answer in await admin.alter_configs(changes):
        if any(code for code, *_ in answer.resources):
            raise SystemExit(f"{arena.name}: topics cannot be changed: {answer}")
    await admin.close()


def _topics(arena: Arena) -> dict[str, dict[str, str]]:
    from streams.topics import Topics

    topics = Topics(arena.prefix)
    return {topic: topics.config(topic) for topic in topics.of(AGENT)}


def _looked_up_by_time(arena: Arena) -> list[str]:
    return [f"{arena.prefix}{kind}.{AGENT}" for kind in ("results", "journal")]


async def _publish_tasks(arena: Arena) -> None:
    """Publish first those that hang, so that nothing is committed past them."""
    from streams.envelope import encode, task_id
    from streams.kafka.publisher import OwnPublisher

    async with OwnPublisher(arena.connection) as publisher:
        sent: list[asyncio.Future[Any]] = []
        for number in range(OPEN + AHEAD):
            name = task_id()
            envelope = Envelope(name, "/bench", TASK, name, workflow=WORKFLOW, round=name)
            value = json.dumps({"input": {"slow": number < OPEN}}).encode()
            sent.append(
                await publisher.send(
                    f"{arena.prefix}tasks.{AGENT}",
                    number % arena.partitions,
                    key=name.encode(),
                    value=value,
                    headers=encode(envelope),
                )
            )
        await asyncio.gather(*sent)


async def _replace_hints(arena: Arena, hint: Callable[[str], str]) -> None:
    """Commit anew what is committed, with another hint, as soon as the group lets others commit."""
    from streams.kafka.admin import committed_offsets

    known = await committed_offsets(arena.connection, f"{arena.name}.{AGENT}")
    places = {(tp.topic, tp.partition): (offset, hint(text)) for tp, (offset, text) in known.items()}
    await _commit(arena, places)


async def _commit(arena: Arena, places: Mapping[Place, tuple[int, str]]) -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.errors import KafkaError

    offsets = {TopicPartition(*place): commit for place, commit in places.items()}
    while True:
        consumer = AIOKafkaConsumer(
            **arena.connection.client_options, group_id=f"{arena.name}.{AGENT}", enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign(list(offsets))
            await consumer.commit(offsets)
        except KafkaError as error:  # the dead worker is a member until its session ends
            print(f"not yet: {error!r}", file=sys.stderr)
            await asyncio.sleep(0.5)
        else:
            return
        finally:
            await consumer.stop()


WAYS = {
    "hint": Way("as the dead worker wrote it", "", with_hint),
    "none": Way("none", "", without_hint),
    "foreign": Way("of another cluster", "", foreign_hint),
}
