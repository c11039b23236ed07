"""The proxy does to requests what its rules say, and real clients never get around it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.coordination import FindCoordinatorResponse_v0, FindCoordinatorResponse_v1
from aiokafka.protocol.metadata import (
    MetadataResponse_v0,
    MetadataResponse_v1,
    MetadataResponse_v2,
    MetadataResponse_v5,
)

from .proxy import API_KEYS, Action, Blocked, Proxy, Rule, readdressed

PRODUCE, FETCH, METADATA = 0, 1, 3
CORRELATION = struct.pack(">i", 7)


class Broker:
    """Answers every frame with its correlation id and a word, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                frame = await reader.readexactly(size)
                self.asked.append(struct.unpack_from(">h", frame)[0])
                answer = frame[4:8] + b"done"
                writer.write(struct.pack(">i", len(answer)) + answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


class Client:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0

    def send(self, key: int) -> None:
        self._number += 1
        frame = struct.pack(">hhi", key, 0, self._number)
        self._writer.write(struct.pack(">i", len(frame)) + frame)

    async def receive(self) -> int:
        """Give the correlation id of the next answer."""
        async with asyncio.timeout(5):
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            correlation: int = struct.unpack_from(">i", await self._reader.readexactly(size))[0]
            return correlation

    async def is_broken(self) -> bool:
        try:
            await self.receive()
        except (asyncio.IncompleteReadError, ConnectionError):
            return True
        return False

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Broker, Proxy, Client]]:
    broker = Broker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    try:
        yield broker, proxy, client
    finally:
        client.close()
        await proxy.stop()
        server.close()


async def test_without_rules_everything_gets_through() -> None:
    async with connected() as (broker, _, client):
        for key in (PRODUCE, FETCH):
            client.send(key)
        assert [await client.receive(), await client.receive()] == [1, 2]
        assert broker.asked == [PRODUCE, FETCH]


async def test_an_answer_that_gets_lost_was_executed() -> None:
    async with connected() as (broker, proxy, client):
        rule = proxy.lose_answers("Produce", 1)
        client.send(FETCH)
        assert await client.receive() == 1
        client.send(PRODUCE)
        assert await client.is_broken()
        assert broker.asked == [FETCH, PRODUCE]
        assert proxy.applied == {(Action.LOSE_ANSWER, PRODUCE): 1}
        assert rule.times == 0


async def test_a_reset_happens_before_the_broker_knows() -> None:
    async with connected() as (broker, proxy, client):
        proxy.rules.append(Rule(Action.RESET, frozenset({PRODUCE})))
        client.send(PRODUCE)
        assert await client.is_broken()
        assert broker.asked == []


async def test_a_dropped_request_vanishes_and_later_ones_do_not() -> None:
    async with connected() as (broker, proxy, client):
        proxy.rules.append(Rule(Action.DROP, frozenset({PRODUCE}), times=1))
        client.send(PRODUCE)
        client.send(PRODUCE)
        assert await client.receive() == 2
        assert broker.asked == [PRODUCE]


async def test_a_delayed_answer_comes() -> None:
    async with connected() as (_, proxy, client):
        proxy.rules.append(Rule(Action.DELAY, seconds=0.2))
        began = asyncio.get_running_loop().time()
        client.send(FETCH)
        assert await client.receive() == 1
        assert asyncio.get_running_loop().time() - began >= 0.2


@pytest.mark.parametrize(
    ("way", "arrives"), [(Blocked.BOTH, False), (Blocked.TO_BROKER, False), (Blocked.TO_CLIENT, True)]
)
async def test_blocked_is_one_way_or_both_and_nothing_is_lost(way: Blocked, *, arrives: bool) -> None:
    async with connected() as (broker, proxy, client):
        proxy.block(way)
        client.send(FETCH)
        answer = asyncio.ensure_future(client.receive())
        done, _ = await asyncio.wait({answer}, timeout=0.2)
        assert not done
        assert broker.asked == ([FETCH] if arrives else [])
        proxy.block(Blocked.NONE)
        assert await answer == 1


def named(frame: bytes, kind: Any) -> Any:
    return kind.decode(frame[4:])


BROKERS_V0 = [(1, "somewhere", 9092), (2, "elsewhere.example", 9093)]
BROKERS_V1 = [(1, "somewhere", 9092, None), (2, "elsewhere.example", 9093, "rack")]
TOPICS = [(0, "t", False, [(0, 0, 1, [1], [1])])]


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        (0, MetadataResponse_v0(BROKERS_V0, [(0, "t", [(0, 0, 1, [1], [1])])])),
        (1, MetadataResponse_v1(BROKERS_V1, 1, TOPICS)),
        (2, MetadataResponse_v2(BROKERS_V1, "cluster", 1, TOPICS)),
        (5, MetadataResponse_v5(0, BROKERS_V1, "cluster", 1, [(0, "t", False, [(0, 0, 1, [1], [1], [])])])),
    ],
)
def test_metadata_names_the_proxy_and_nothing_else_changes(version: int, answer: Any) -> None:
    frame = CORRELATION + answer.encode()
    read = named(readdressed(frame, METADATA, version, 555), type(answer))
    assert [it[1:3] for it in read.brokers] == [("127.0.0.1", 555)] * 2
    assert [(it[0], *it[3:]) for it in read.brokers] == [(it[0], *it[3:]) for it in answer.brokers]
    assert read.topics == answer.topics


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        (0, FindCoordinatorResponse_v0(0, 1, "somewhere", 9092)),
        (1, FindCoordinatorResponse_v1(0, 0, None, 1, "somewhere", 9092)),
        (1, FindCoordinatorResponse_v1(0, 0, "a message", 1, "somewhere", 9092)),
    ],
)
def test_the_coordinator_is_the_proxy(version: int, answer: Any) -> None:
    frame = CORRELATION + answer.encode()
    read = named(readdressed(frame, API_KEYS["FindCoordinator"], version, 555), type(answer))
    assert (read.host, read.port, read.coordinator_id) == ("127.0.0.1", 555, 1)


def test_no_coordinator_stays_none() -> None:
    frame = CORRELATION + FindCoordinatorResponse_v0(15, -1, "", -1).encode()
    assert readdressed(frame, API_KEYS["FindCoordinator"], 0, 555) == frame


def test_a_shape_it_does_not_know_is_refused_loudly() -> None:
    with pytest.raises(ValueError, match="API 3 version 12"):
        readdressed(CORRELATION, METADATA, 12, 555)


@pytest.mark.kafka
async def test_real_clients_stay_on_it_and_survive_lost_answers(kafka: str) -> None:
    proxy = Proxy(int(kafka.rpartition(":")[2]))
    await proxy.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic("through-a-proxy", 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=proxy.servers, enable_idempotence=True, acks="all", retry_backoff_ms=20
    )
    consumer = AIOKafkaConsumer(
        bootstrap_servers=proxy.servers, auto_offset_reset="earliest", group_id="proxied"
    )
    try:
        await producer.start()
        proxy.lose_answers("Produce", 2)
        for number in range(5):
            await producer.send_and_wait("through-a-proxy", str(number).encode(), partition=0)
        consumer.assign([TopicPartition("through-a-proxy", 0)])
        proxy.lose_answers("Fetch", 1)
        proxy.lose_answers("OffsetCommit", 1)
        await consumer.start()
        values = [(await consumer.getone()).value for _ in range(5)]
        assert values == [b"0", b"1", b"2", b"3", b"4"]
        await consumer.commit()
        assert await consumer.committed(TopicPartition("through-a-proxy", 0)) == 5
    finally:
        await consumer.stop()
        await producer.stop()
        await proxy.stop()
    assert proxy.problems == []
    assert {key: times for (_, key), times in proxy.applied.items()} == {
        API_KEYS["Produce"]: 2,
        API_KEYS["Fetch"]: 1,
        API_KEYS["OffsetCommit"]: 1,
    }
