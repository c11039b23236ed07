"""One worker with the real runtime, and all around it faked: what it sent and committed is on record."""

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from aiokafka.record.memory_records import MemoryRecords

from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow, all_of
from agents.core.errors import ArtifactError
from agents.core.task import ArtifactReference
from streams.envelope import RESULT, TASK, Envelope, encode
from streams.kafka.private_access import Sendable
from streams.kafka.publisher import Publisher
from streams.kafka.subscriber import Position
from streams.payloads import ResultPayload
from streams.restore import Log
from streams.topics import MAX_LETTER_BYTES, Topics
from streams.work import RunHistory
from streams.worker import AgentWorker

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
TIME = int(START.timestamp() * 1000)
DIGEST = "0" * 64
CLUSTER = "cluster"


@dataclass(unsafe_hash=True)  # a record's headers are put in again, in less memory
class FakeRecord:
    topic: str = "tasks.a"
    offset: int = 0
    value: bytes | None = b'{"input": 1}'
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = b"key"
    partition: int = 0
    timestamp: int = TIME
    timestamp_type: int = 1  # the topic's


@dataclass(frozen=True)
class Sent:
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.value or b"")
        return body

    @property
    def error(self) -> tuple[str, str]:
        return self.body["error"]["type"], self.body["error"]["message"]


class FakeProducer:
    """Takes everything; a test can make the next sends fail, at once or later, or answer them by itself."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.artifacts: list[Sent] = []
        self.order: list[str] = []
        self.refuse: list[Exception] = []
        self.fail: list[Exception] = []
        self.waiting: list[asyncio.Future[Any]] | None = None

    async def send_batch(self, batch: Sendable, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        if self.refuse:
            raise self.refuse.pop(0)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.fail:
            future.set_exception(self.fail.pop(0))
            return future
        for key, value, headers in records_of(batch):
            size = (
                len(key or b"")
                + len(value or b"")
                + sum(len(name) + len(it or b"") + 10 for name, it in headers)
                + 100
            )
            assert size <= MAX_LETTER_BYTES
            # A dead letter has the headers of its original, whatever they are.
            assert topic.startswith("dead.") or len(dict(headers)) == len(headers)
            self.sent.append(Sent(topic, partition, key, value, text(headers)))
        self.order.append(topic)
        if self.waiting is None:
            future.set_result(None)
        else:
            self.waiting.append(future)
        return future

    async def send(
        self, topic: str, value: bytes, key: bytes | None, *, partition: int, headers: Any
    ) -> "asyncio.Future[Any]":
        self.artifacts.append(Sent(topic, partition, key, value, text(headers)))
        self.order.append(topic)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=100 + len(self.artifacts)))
        return future


def records_of(batch: Sendable) -> list[tuple[bytes | None, bytes | None, Any]]:
    read = MemoryRecords(batch._build()).next_batch()
    assert read is not None
    return [(record.key, record.value, record.headers) for record in read]


class FakeMembership:
    def __init__(self) -> None:
        self.worker: AgentWorker
        self.committed: dict[tuple[str, int], int] = {}
        self.metadata: dict[tuple[str, int], str] = {}
        self.paused: set[tuple[str, int]] = set()
        self.commits_now = self.ended = 0
        self.certain = asyncio.Event()
        self.certain.set()

    def commit_soon(self, places: Iterable[tuple[str, int]], ended: int = 0) -> None:
        self.ended += ended
        for topic, partition in places:
            self.committed[topic, partition], self.metadata[topic, partition] = self.worker.commit_of(
                topic, partition
            )

    async def commit_now(self) -> None:
        self.commits_now += 1

    def is_certain(self) -> bool:
        return self.certain.is_set()

    async def certainty(self) -> None:
        await self.certain.wait()

    def pause(self, places: Iterable[tuple[str, int]]) -> None:
        self.paused |= set(places)

    def resume(self, places: Iterable[tuple[str, int]]) -> None:
        self.paused -= set(places)


class NoArtifacts:
    async def read(self, reference: ArtifactReference) -> bytes:
        raise ArtifactError(f"{reference.name} is gone")


class Worker(Agent):
    """Does what the test says, and remembers what it was given."""

    def __init__(self, name: str = "reader", **options: Any) -> None:
        super().__init__(AgentConfig(name=name, **options))
        self.inputs: list[Any] = []
        self.answer: Callable[[Any], Any] = lambda value: {"echo": value}
        self.hold: asyncio.Event | None = None
        self.linger: asyncio.Event | None = None

    async def execute(self, input_data: Any) -> AgentResult:
        self.inputs.append(input_data)
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                if self.linger is not None:
                    await self.linger.wait()
                raise
        answer = self.answer(input_data)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, Passed):
            return answer.value  # type: ignore[no-any-return]
        if isinstance(answer, AgentResult):
            return answer
        return AgentResult(status=AgentStatus.COMPLETED, output=answer)


@dataclass
class Passed:
    """A value `execute` returns as it is."""

    value: Any


def single(agent: Agent | None = None) -> Workflow:
    """Declare a workflow of one step."""
    workflow = Workflow("flow")
    workflow.step(agent or Worker())
    return workflow


def chain(agent: Agent) -> Workflow:
    """Declare first -> agent -> last."""
    workflow = Workflow("flow")
    workflow.step(Worker("first"))
    workflow.step(agent, after="first")
    workflow.step(Worker("last"), after=agent.name)
    return workflow


def diamond(agent: Agent, name: str = "flow") -> Workflow:
    """Declare first -> (left, right) -> agent."""
    workflow = Workflow(name)
    workflow.step(Worker("first"))
    workflow.step(Worker("left"), after="first")
    workflow.step(Worker("right"), after="first")
    workflow.step(agent, after=all_of("left", "right"))
    return workflow


@dataclass
class World:
    """A worker and its surroundings."""

    agent: Worker
    workflows: tuple[Workflow, ...]
    app: str = "app"
    wall: datetime = START
    seconds: float = 1000.0
    outcomes: dict[int, set[str]] = field(default_factory=dict)
    histories: dict[int, dict[str, RunHistory]] = field(default_factory=dict)
    events: list[tuple[str, int, int, bytes, int]] = field(default_factory=list)
    asked: list[dict[int, int]] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    epoch: int = 0
    asking: asyncio.Event | None = None
    joins: list[Sent] = field(default_factory=list)
    given: dict[tuple[str, int, int], FakeRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.producer, self.membership = FakeProducer(), FakeMembership()
        self.worker = AgentWorker(
            app=self.app,
            agent=self.agent,
            workflows={workflow.name: workflow for workflow in self.workflows},
            topics=Topics(),
            restore=self._restore,
            joins=self,
            store=NoArtifacts(),
            drain_seconds=0,
            wall_clock=lambda: self.wall,
            seed=1,  # with another one, a retry might wait for nothing
        )
        self.worker.runtime._clock = lambda: self.seconds
        self.membership.worker = self.worker
        self.worker.join_group(Publisher(self.producer), self.membership, cluster=CLUSTER)

    async def _restore(self, since: Mapping[int, int], before: Mapping[tuple[str, int], int]) -> Log:
        if since:
            self.asked.append(dict(since))
        if self.asking is not None:
            await self.asking.wait()
        return Log(
            {partition: set(self.outcomes.get(partition, ())) for partition in since},
            {partition: dict(self.histories.get(partition, {})) for partition in since},
            [event for event in self.events if event[:2] in before],
        )

    # Kafka, as joins read it

    async def states(self, partitions: Collection[int]) -> dict[int, list[FakeRecord]]:
        """Give what was written to the topic of joins, by this worker or one before it."""
        topic = f"joins.{self.agent.name}"
        self.joins += self._sent("joins")
        return {
            n: [
                FakeRecord(topic, offset, it.value, key=it.key, partition=n)
                for offset, it in enumerate(self.joins)
                if it.partition == n
            ]
            for n in partitions
        }

    async def records(self, places: Iterable[tuple[str, int, int]]) -> dict[tuple[str, int, int], FakeRecord]:
        return {place: record for place in places if (record := await self.record(*place)) is not None}

    async def record(self, topic: str, partition: int, offset: int) -> FakeRecord | None:
        return self.given.get((topic, partition, offset))

    @property
    def inputs(self) -> list[str]:
        return [f"tasks.{self.agent.name}", *(f"results.{source}" for source in self.worker.router.sources)]

    async def assign(self, *partitions: int, adopt: bool = False, keep: Iterable[str] = ()) -> None:
        """Assign the partitions of all inputs; topics in `keep` are adopted even if the others are not."""
        self.epoch += 1
        known = self.membership
        positions = [
            Position(
                topic,
                n,
                known.committed.get((topic, n), 0),
                adopt or topic in keep,
                known.metadata.get((topic, n), ""),
                self.ends.get((topic, n)),
            )
            for topic in self.inputs
            for n in partitions or (0,)
        ]
        for position in positions:  # as the subscriber does, before anything is worked on
            known.metadata[position.topic, position.partition] = self.worker.metadata_at(position)
        await self.worker.on_assigned(positions, self.epoch)

    async def give(self, *records: FakeRecord, epoch: int | None = None) -> None:
        self.given |= {(it.topic, it.partition, it.offset): it for it in records}
        await self.worker.on_records(records, self.epoch if epoch is None else epoch)
        await settle()

    async def go(self, seconds: float) -> None:
        """Let time go by."""
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)
        self.worker.runtime._turn()
        await settle()

    def results(self) -> list[Sent]:
        """Give the results published since the last time."""
        sent = self._sent("results")
        for it in sent:
            ResultPayload.model_validate_json(it.value or b"")
        return sent

    def letters(self) -> list[Sent]:
        """Give the dead letters published since the last time."""
        return self._sent("dead")

    def journal(self) -> list[Sent]:
        """Give the records of the journal written since the last time."""
        return self._sent("journal")

    def kept_joins(self) -> dict[bytes | None, Any]:
        """Give what a compacted topic of joins holds."""
        self.joins += self._sent("joins")
        last = {it.key: it.value for it in self.joins}
        return {key: json.loads(value) for key, value in last.items() if value}

    def _sent(self, kind: str) -> list[Sent]:
        topic = f"{kind}.{self.agent.name}"
        found = [it for it in self.producer.sent if it.topic == topic]
        self.producer.sent = [it for it in self.producer.sent if it.topic != topic]
        return found

    def result(self) -> Sent:
        """Give the only one."""
        (result,) = self.results()
        return result

    def failure(self) -> tuple[str, str]:
        """Give type and message of the only one, which failed."""
        result = self.result()
        assert (result.body["status"], result.headers["ce_status"]) == ("failed", "failed")
        assert result.body["output"] is None
        return result.error

    def committed(self, topic: str | None = None, partition: int = 0) -> int | None:
        return self.membership.committed.get((topic or f"tasks.{self.agent.name}", partition))


async def a_world(*workflows: Workflow, agent: Worker | None = None, **fields: Any) -> World:
    """Make one that owns partition 0 of everything."""
    worker = agent or Worker()
    world = World(worker, workflows or (single(worker),), **fields)
    await world.assign(0)
    return world


def task(offset: int, value: Any = None, *, agent: str = "reader", **fields: Any) -> FakeRecord:
    """Give a plain task: no CloudEvents headers."""
    body = {"input": f"input {offset}"} if value is None else value
    return FakeRecord(f"tasks.{agent}", offset, as_bytes(body), **fields)


def event(offset: int, value: Any = None, *, agent: str = "reader", **fields: Any) -> FakeRecord:
    """Give a task with all its headers; `fields` are the envelope's, or the record's where it has them."""
    body = {"input": f"input {offset}"} if value is None else value
    return _record(f"tasks.{agent}", offset, body, {"id": f"id-{offset}", "type": TASK} | fields)


def result(source: str, offset: int, output: Any = "made", **fields: Any) -> FakeRecord:
    """Give a result of `source`, of the round `id-0` that began at `first`."""
    body: dict[str, Any] = {
        "agent": source,
        "status": fields.get("status", "completed"),
        "output": output,
        "root": {"agent": fields.pop("entry", "first"), "id": "id-0", "input": "the root's"},
    }
    body |= fields.pop("body", {})
    defaults = {
        "id": f"{source}-{offset}",
        "type": RESULT,
        "status": body["status"],
        "workflow": "flow",
        "round": "id-0",
        "workflow_id": "id-0",
    }
    return _record(f"results.{source}", offset, fields.pop("raw", body), defaults | fields)


def _record(topic: str, offset: int, body: Any, fields: dict[str, Any]) -> FakeRecord:
    place = {name: fields.pop(name) for name in ("key", "partition", "timestamp") if name in fields}
    envelope = Envelope(**{"source": "/test", "workflow_id": fields["id"]} | fields)
    return FakeRecord(topic, offset, as_bytes(body), tuple(encode(envelope)), **place)


def without(record: FakeRecord, *names: str) -> FakeRecord:
    """Give the record without some headers."""
    return replaced(record, headers=tuple(pair for pair in record.headers if pair[0] not in names))


def with_header(record: FakeRecord, name: str, value: Any) -> FakeRecord:
    """Give the record with another value of one header."""
    return replaced(record, headers=(*without(record, name).headers, (name, value)))


def replaced(record: FakeRecord, **fields: Any) -> FakeRecord:
    return FakeRecord(**vars(record) | fields)


def as_bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else json.dumps(value).encode()


def text(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


async def settle() -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(30):
        await asyncio.sleep(0)
