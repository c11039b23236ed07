"""Writes the history of a run: all records of the application, and its committed offsets over time.

Uses plain aiokafka consumers that belong to no group and read committed records only, so it sees what any
outsider sees, and disturbs nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, KafkaError

from .history import Application, Commit, Record

SAMPLE_SECONDS = 0.25
POLL_MS = 200
REWIND_SECONDS = 60.0


async def drain(servers: str, application: Application) -> list[Record]:
    """Read every record of the application's topics, up to what is there now."""
    partitions = await _all_partitions(servers, application.prefix)
    records: list[Record] = []
    async with _consumer(servers) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        behind = {tp for tp in partitions if ends[tp]}
        while behind:
            for batch in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                records += map(_record, batch)
            for tp in list(behind):
                if await consumer.position(tp) >= ends[tp]:
                    behind.discard(tp)
        return records


class CommitSampler:
    """Looks at the committed offsets of every group again and again.

    Args:
        servers: Bootstrap servers.
        application: Whose groups.
        name: Its name, the first part of a group's.
    """

    def __init__(self, servers: str, application: Application, name: str) -> None:
        self._servers = servers
        self._application = application
        self._name = name
        self._seen: dict[tuple[str, TopicPartition], int] = {}
        self.commits: list[Commit] = []

    async def run(self) -> None:
        """Sample until canceled; what cannot be asked right now is asked later."""
        while True:
            with suppress(KafkaError, OSError):
                async with _admin(self._servers) as admin:
                    while True:
                        await self.sample(admin)
                        await asyncio.sleep(SAMPLE_SECONDS)
            await asyncio.sleep(SAMPLE_SECONDS)

    def forget(self) -> None:
        """Forget where the groups were: somebody moved them."""
        self._seen.clear()

    async def last(self) -> None:
        """Sample once more."""
        async with _admin(self._servers) as admin:
            await self.sample(admin)

    async def sample(self, admin: AIOKafkaAdminClient) -> None:
        """Ask for every group's offsets and keep those that changed."""
        for agent in self._application.follows:
            offsets = await admin.list_consumer_group_offsets(f"{self._name}.{agent}")
            at = time.time()
            for tp, committed in offsets.items():
                if committed.offset >= 0 and self._seen.get((agent, tp)) != committed.offset:
                    self._seen[agent, tp] = committed.offset
                    self.commits.append(Commit(at, agent, tp.topic, tp.partition, committed.offset))

    async def lag(self) -> dict[str, int]:
        """Give the records that are not committed yet, by agent and partition.

        Nothing means that all work is done: an agent's results are in the log before its offsets are
        committed, and the ends of the log are read after the committed offsets.
        """
        async with _admin(self._servers) as admin:
            await self.sample(admin)
        partitions = await _all_partitions(self._servers, self._application.prefix)
        async with _consumer(self._servers) as consumer:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
        found: dict[str, int] = {}
        for agent, sources in self._application.follows.items():
            topics = {self._application.topic("tasks", agent)}
            topics |= {self._application.topic("results", source) for source in sources}
            for tp in partitions:
                if tp.topic in topics and (left := ends[tp] - self._seen.get((agent, tp), 0)) > 0:
                    found[f"{agent} {tp.topic}/{tp.partition}"] = left
        return found


class Answers:
    """Which workflows an agent has answered, read on from where it was read before.

    Args:
        servers: Bootstrap servers.
        topic: The agent's results.
    """

    def __init__(self, servers: str, topic: str) -> None:
        self._servers = servers
        self._topic = topic
        self._next: dict[TopicPartition, int] = {}
        self.workflows: set[str] = set()

    async def read_on(self) -> None:
        """Read what is new."""
        partitions = [
            tp for tp in await _all_partitions(self._servers, self._topic) if tp.topic == self._topic
        ]
        async with _consumer(self._servers) as consumer:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for tp in partitions:
                consumer.seek(tp, self._next.get(tp, 0))
            while any(ends[tp] > self._next.get(tp, 0) for tp in partitions):
                for tp, batch in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                    self._next[tp] = batch[-1].offset + 1
                    for record in batch:
                        said = dict(record.headers).get("ce_correlationid")
                        if said is not None:
                            self.workflows.add(said.decode(errors="replace"))


async def topics_exist(servers: str, topics: Collection[str]) -> None:
    """Wait until an application has made its topics."""
    async with _consumer(servers) as consumer:
        while not set(topics) <= await consumer.topics():
            await asyncio.sleep(0.2)


async def rewind(servers: str, group: str) -> None:
    """Commit the first offsets for a group whose members have stopped; static ones take a session to go."""
    async with _admin(servers) as admin:
        known = await admin.list_consumer_group_offsets(group)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([*known])
        beginnings = await consumer.beginning_offsets([*known])
        async with asyncio.timeout(REWIND_SECONDS):
            while True:
                try:
                    await consumer.commit(beginnings)
                except CommitFailedError:
                    await asyncio.sleep(SAMPLE_SECONDS)
                else:
                    return
    finally:
        await consumer.stop()


async def _all_partitions(servers: str, prefix: str) -> list[TopicPartition]:
    async with _admin(servers) as admin:
        return [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in await admin.describe_topics()
            if topic["topic"].startswith(prefix)
            for partition in topic["partitions"]
        ]


def _record(it: Any) -> Record:
    return Record(it.topic, it.partition, it.offset, it.timestamp, it.key, it.value, tuple(it.headers))


@asynccontextmanager
async def _consumer(servers: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def _admin(servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=5_000)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
