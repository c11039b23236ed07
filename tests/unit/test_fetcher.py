"""What is asked for and handed out: each record once and in order, and no partition by nobody."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.kafka import fetcher as fetcher_module
from streams.kafka.fetcher import LIVELY_SECONDS, Fetcher
from streams.kafka.record_batch import EncodedRecord, RecordBatch

TASKS, RESULTS = [[TopicPartition(topic, n) for n in range(2)] for topic in ("tasks.a", "results.b")]
PLACES = TASKS + RESULTS
COMMIT_MARKER = b"\0\0\0\1"
OUT_OF_RANGE, NOT_LEADER, UNKNOWN_TOPIC = 1, 6, 3


class Answer:
    """What a broker answers."""

    API_VERSION = 11

    def __init__(self, topics: list[Any]) -> None:
        self.topics, self.error_code = topics, 0


class Waiting:
    """A request that waits at the broker."""

    def __init__(self, node: int, request: Any, connection: Any) -> None:
        self.node, self.connection = node, connection
        self.asked = {
            TopicPartition(topic, n): position
            for topic, partitions in request.topics
            for n, position, _ in partitions
        }
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class Kafka:
    """Brokers in memory, in place of the client: they keep a request until there is something to answer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.logs: dict[TopicPartition, list[bytes]] = {place: [] for place in PLACES}
        self.first: dict[TopicPartition, list[int]] = {place: [] for place in PLACES}
        self.ends = dict.fromkeys(PLACES, 0)
        self.leaders: dict[TopicPartition, int | None] = dict.fromkeys(PLACES, 1)
        self.known = dict(self.leaders)  # by the client
        self.errors: dict[TopicPartition, int] = {}
        self.waiting: list[Waiting] = []
        self.refused: list[Exception] = []
        self.cluster = SimpleNamespace(leader_for_partition=self.known.get)

    async def force_metadata_update(self) -> None:
        self.known.update(self.leaders)

    async def send(self, node: int, request: Any, *, group: Any) -> Any:
        if self.refused:
            raise self.refused.pop(0)
        it = Waiting(node, request, group)
        if any(self._code(place, node) or self.ends[place] > at for place, at in it.asked.items()):
            return self._answer(it)
        assert group not in {other.connection for other in self.waiting if other.node == node}
        self.waiting.append(it)
        try:
            return await it.answer
        finally:
            self.waiting.remove(it)

    def _code(self, place: TopicPartition, node: int) -> int:
        return NOT_LEADER if self.leaders[place] != node else self.errors.get(place, 0)

    def move(self, place: TopicPartition, node: int) -> None:
        """Let another broker lead a partition."""
        self.leaders[place] = node
        self.tell(place)

    def publish(self, place: TopicPartition, records: int = 1, gap: int = 0, key: bytes = b"k") -> None:
        """Publish a batch; a gap before it is of records that were compacted away."""
        begin = self.ends[place] + gap
        values = [(n, EncodedRecord(key, str(begin + n).encode(), [])) for n in range(records)]
        batch = RecordBatch(values, limit=10_000, timestamp=5).sealed(-1, -1, 0)
        self.logs[place].append(begin.to_bytes(8, "big") + batch[8:])
        self.first[place].append(begin)
        self.ends[place] = begin + records
        self.tell(place)

    def tell(self, place: TopicPartition) -> None:
        """Answer who asks for a partition."""
        for it in self.waiting:
            if place in it.asked and not it.answer.done():
                it.answer.set_result(self._answer(it))

    def give_up_waiting(self) -> None:
        """Answer all that there is nothing."""
        for it in self.waiting:
            if not it.answer.done():
                it.answer.set_result(self._answer(it))

    def _answer(self, it: Waiting) -> Any:
        topics: dict[str, list[Any]] = {}
        for (topic, n), position in it.asked.items():
            place = TopicPartition(topic, n)
            code = self._code(place, it.node)
            data = b"" if code else self._from(place, position)
            topics.setdefault(topic, []).append((n, code, self.ends[place], 0, 0, [], -1, data))
        return Answer(list(topics.items()))

    def _from(self, place: TopicPartition, position: int) -> bytes:
        if position >= self.ends[place]:
            return b""
        begins = [begin for begin in self.first[place] if begin <= position] or self.first[place][:1]
        return b"".join(self.logs[place][self.first[place].index(begins[-1]) :])

    def asked(self) -> list[tuple[Any, set[TopicPartition]]]:
        """Say what waits, by connection."""
        return [(it.connection, set(it.asked)) for it in self.waiting]


async def settle() -> None:
    """Let everything happen that can happen without time going by."""
    for _ in range(30):
        await asyncio.sleep(0)


async def passed(condition: Callable[[], bool]) -> None:
    """Wait for what a pause of no length lets happen."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def of(records: Any) -> list[tuple[str, int, int]]:
    return [(it.topic, it.partition, it.offset) for it in records]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    for name in ("RETRY_PAUSE", "ERROR_PAUSE", "PATIENCE_SECONDS"):
        monkeypatch.setattr(fetcher_module, name, 0)
    return Kafka()


@pytest.fixture
async def fetcher(kafka: Kafka) -> AsyncIterator[Fetcher]:
    it = Fetcher(kafka, clock=lambda: kafka.now)
    yield it
    await it.close()
    await settle()
    assert kafka.waiting == []


async def test_records_are_handed_out_from_the_position_on_and_never_more_than_asked_for(
    kafka: Kafka, fetcher: Fetcher
) -> None:
    kafka.publish(TASKS[0], 5)
    kafka.publish(TASKS[0], 2, gap=3)
    fetcher.assign({TASKS[0]: 2})
    await settle()
    assert of(await fetcher.records(4, 0)) == [(*TASKS[0], n) for n in (2, 3, 4, 8)]
    assert of(await fetcher.records(4, 0)) == [(*TASKS[0], 9)]
    assert await fetcher.records(4, 0) == ()
    assert fetcher.end(TASKS[0]) == 10


async def test_who_waits_is_given_what_comes(kafka: Kafka, fetcher: Fetcher) -> None:
    fetcher.assign({TASKS[0]: 0})
    reading = asyncio.create_task(fetcher.records(10, 3600))
    await settle()
    kafka.publish(TASKS[0])
    assert of(await reading) == [(*TASKS[0], 0)]


async def test_what_brings_nothing_is_asked_for_by_a_request_of_its_own(
    kafka: Kafka, fetcher: Fetcher
) -> None:
    fetcher.assign(dict.fromkeys(PLACES, 0))
    await settle()
    for _ in range(2):
        kafka.publish(TASKS[0])
        await settle()
        assert len(await fetcher.records(10, 0)) == 1
        await settle()
        kafka.now += LIVELY_SECONDS * 0.6
    kafka.give_up_waiting()
    await settle()
    kafka.give_up_waiting()  # now that the other request has them
    await settle()
    asked = dict(kafka.asked())
    assert asked.pop("quiet") == {*PLACES} - {TASKS[0]}
    assert list(asked.values()) == [{TASKS[0]}]
    reading = asyncio.create_task(fetcher.records(10, 3600))
    await settle()
    kafka.publish(RESULTS[1])  # it brings something again
    assert of(await reading) == [(*RESULTS[1], 0)]
    await settle()
    assert RESULTS[1] in set.union(*(places for _, places in kafka.asked()))


async def test_when_all_is_quiet_one_request_waits(kafka: Kafka, fetcher: Fetcher) -> None:
    fetcher.assign(dict.fromkeys(PLACES, 0))
    await settle()
    kafka.now += LIVELY_SECONDS
    for _ in range(2):
        kafka.give_up_waiting()
        await settle()
    assert kafka.asked() == [("quiet", set(PLACES))]


async def test_who_is_paused_keeps_what_it_has_and_others_go_on(kafka: Kafka, fetcher: Fetcher) -> None:
    fetcher.assign(dict.fromkeys(TASKS, 0))
    kafka.publish(TASKS[0])
    await settle()
    fetcher.pause([TASKS[0]])
    await settle()
    assert await fetcher.records(10, 0) == ()
    kafka.publish(TASKS[1])
    await settle()
    assert of(await fetcher.records(10, 0)) == [(*TASKS[1], 0)]
    kafka.logs[TASKS[0]].clear()  # so that it is not read anew
    fetcher.resume([TASKS[0]])
    assert of(await fetcher.records(10, 0)) == [(*TASKS[0], 0)]


async def test_an_answer_is_kept_by_nobody(
    kafka: Kafka, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[weakref.ref[Any]] = []
    answer_to = kafka._answer

    def watched(request: Waiting) -> Any:
        answer = answer_to(request)
        answers.append(weakref.ref(answer))
        return answer

    monkeypatch.setattr(kafka, "_answer", watched)
    kafka.publish(TASKS[0])
    fetcher.assign({TASKS[0]: 0})
    await settle()
    assert len(await fetcher.records(9, 0)) == 1
    await settle()
    assert [answer() for answer in answers] == [None] * len(answers)
    assert answers


async def test_partitions_take_turns(kafka: Kafka, fetcher: Fetcher) -> None:
    for place in TASKS:
        kafka.publish(place, 4)
    fetcher.assign(dict.fromkeys(TASKS, 0))
    await settle()
    taken = [{it.partition for it in await fetcher.records(2, 0)} for _ in range(4)]
    assert taken[0] != taken[1]
    assert taken[:2] == taken[2:]


async def test_the_next_request_waits_until_what_came_is_handed_out(
    kafka: Kafka, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "PATIENCE_SECONDS", 3600)
    fetcher.assign(dict.fromkeys(TASKS, 0))
    kafka.publish(TASKS[0], 2)
    await settle()
    kafka.give_up_waiting()
    await settle()
    assert kafka.waiting == []
    await fetcher.records(1, 0)
    await settle()
    assert kafka.waiting == []
    await fetcher.records(2, 0)
    await settle()
    assert set.union(*(places for _, places in kafka.asked())) == set(TASKS)


async def test_what_was_sought_is_read_again(kafka: Kafka, fetcher: Fetcher) -> None:
    fetcher.assign({TASKS[0]: 0})
    kafka.publish(TASKS[0], 3)
    await settle()
    assert len(await fetcher.records(2, 0)) == 2
    fetcher.seek(TASKS[0], 1)
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 1), (*TASKS[0], 2)]
    fetcher.seek(TASKS[1], 0)  # not ours any more
    assert await fetcher.records(9, 0) == ()


async def test_what_was_asked_for_before_it_was_sought_is_not_handed_out(
    kafka: Kafka, fetcher: Fetcher
) -> None:
    fetcher.assign({TASKS[0]: 0})
    kafka.publish(TASKS[0])
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 0)]
    await settle()
    fetcher.seek(TASKS[0], 0)
    kafka.publish(TASKS[0])  # it answers those who ask for what comes behind the first record
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 0), (*TASKS[0], 1)]


async def test_nobody_waits_for_what_is_not_ours_any_more_to_be_handed_out(
    kafka: Kafka, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "PATIENCE_SECONDS", 3600)
    kafka.publish(TASKS[0])
    for assigned in ({TASKS[0]: 0}, {TASKS[1]: 0}):
        fetcher.assign(assigned)
        await settle()
    assert any(TASKS[1] in it.asked for it in kafka.waiting)


async def test_nothing_of_another_assignment_is_handed_out(kafka: Kafka, fetcher: Fetcher) -> None:
    fetcher.assign(dict.fromkeys(TASKS, 0))
    kafka.publish(TASKS[0])
    await settle()
    fetcher.assign({})
    assert await fetcher.records(9, 0) == ()
    kafka.publish(TASKS[1])  # somebody asks for it still
    await settle()
    fetcher.assign({TASKS[1]: 0})
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[1], 0)]
    assert fetcher.end(TASKS[0]) is None


async def test_a_partition_that_moves_is_read_where_it_went(kafka: Kafka, fetcher: Fetcher) -> None:
    fetcher.assign(dict.fromkeys(TASKS, 0))
    await settle()
    kafka.move(TASKS[0], 2)
    await passed(lambda: bool(fetcher.problems()))
    assert list(fetcher.problems()) == ["tasks.a/0"]
    await passed(lambda: any(it.node == 2 for it in kafka.waiting))
    kafka.publish(TASKS[0])
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 0)]
    assert fetcher.problems() == {}


async def test_a_partition_nobody_leads_is_read_as_soon_as_somebody_does(
    kafka: Kafka, fetcher: Fetcher
) -> None:
    kafka.leaders[TASKS[0]] = kafka.known[TASKS[0]] = None
    fetcher.assign(dict.fromkeys(TASKS, 0))
    kafka.publish(TASKS[1])
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[1], 0)]
    assert fetcher.problems() == {"tasks.a/0": "no broker leads it"}
    kafka.publish(TASKS[0])
    kafka.leaders[TASKS[0]] = 3
    await passed(lambda: fetcher.end(TASKS[0]) == 1)
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 0)]


@pytest.mark.parametrize("code", [OUT_OF_RANGE, UNKNOWN_TOPIC])
async def test_what_cannot_be_read_is_said_and_asked_for_again_and_others_go_on(
    kafka: Kafka, fetcher: Fetcher, code: int
) -> None:
    kafka.errors[TASKS[0]] = code
    fetcher.assign(dict.fromkeys(TASKS, 0))
    await passed(lambda: bool(fetcher.problems()))
    ((place, why),) = fetcher.problems().items()
    assert place == "tasks.a/0"
    assert ("--reset-offsets" in why) is (code == OUT_OF_RANGE)
    kafka.publish(TASKS[1])
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[1], 0)]
    del kafka.errors[TASKS[0]]
    kafka.publish(TASKS[0])
    await passed(lambda: fetcher.end(TASKS[0]) == 1)
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 0)]
    assert fetcher.problems() == {}


async def test_a_broken_batch_is_never_passed_over_and_what_is_before_it_is_not_lost(
    kafka: Kafka, fetcher: Fetcher
) -> None:
    for place in (TASKS[0], TASKS[0], TASKS[1]):
        kafka.publish(place)
    whole = kafka.logs[TASKS[0]][1]
    kafka.logs[TASKS[0]][1] = whole[:-1] + b"?"
    fetcher.assign(dict.fromkeys(TASKS, 0))
    await settle()
    found = [*of(await fetcher.records(9, 0)), *of(await fetcher.records(9, 0))]
    assert sorted(found) == [(*TASKS[0], 0), (*TASKS[1], 0)]
    assert await fetcher.records(9, 0) == ()
    assert "cannot be read at 1" in fetcher.problems()["tasks.a/0"]
    await settle()
    assert await fetcher.records(9, 0) == ()  # it was asked for again, and is as broken
    assert list(fetcher.problems()) == ["tasks.a/0"]
    kafka.logs[TASKS[0]][1] = whole
    found = []
    while not found:
        await settle()
        found = of(await fetcher.records(9, 0))
    assert found == [(*TASKS[0], 1)]
    assert fetcher.problems() == {}


async def test_what_is_no_whole_batch_is_not_asked_for_again_and_again(
    kafka: Kafka, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "ERROR_PAUSE", 3600)
    kafka.publish(TASKS[0])
    kafka.logs[TASKS[0]][0] = kafka.logs[TASKS[0]][0][:40]
    fetcher.assign({TASKS[0]: 0})
    await settle()
    assert await fetcher.records(9, 0) == ()
    await settle()
    assert fetcher.problems() == {"tasks.a/0": "Kafka sends no whole batch at 0"}
    assert kafka.waiting == []


async def test_what_has_no_records_is_passed_over(kafka: Kafka, fetcher: Fetcher) -> None:
    kafka.publish(TASKS[0], key=COMMIT_MARKER)
    marker = bytearray(kafka.logs[TASKS[0]][0])
    marker[22] |= 0x20
    kafka.logs[TASKS[0]][0] = bytes(marker[:17]) + _checksum(marker) + bytes(marker[21:])
    fetcher.assign({TASKS[0]: 0})
    await settle()
    assert await fetcher.records(9, 0) == ()
    kafka.publish(TASKS[0])
    await settle()
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 1)]


def _checksum(batch: bytearray) -> bytes:
    checksum: int = calc_crc32c(bytes(batch[21:]))
    return checksum.to_bytes(4, "big")


@pytest.mark.parametrize("error", [KafkaConnectionError("gone"), ZeroDivisionError("gone")])
async def test_a_broker_that_does_not_answer_is_asked_again(
    kafka: Kafka, fetcher: Fetcher, error: Exception
) -> None:
    kafka.refused = [error] * 5
    kafka.publish(TASKS[0])
    fetcher.assign({TASKS[0]: 0})
    await passed(lambda: bool(fetcher.problems()))
    assert "gone" in fetcher.problems()["tasks.a/0"]
    await passed(lambda: fetcher.end(TASKS[0]) == 1)
    assert of(await fetcher.records(9, 0)) == [(*TASKS[0], 0)]
    assert fetcher.problems() == {}


async def test_a_fault_of_ours_is_told_and_not_waited_for(
    kafka: Kafka, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(*_: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(fetcher, "_keep", keep)
    kafka.publish(TASKS[0])
    fetcher.assign({TASKS[0]: 0})
    assert await fetcher.records(9, 3600) == ()
    assert list(fetcher.problems()) == ["all partitions"]
    with pytest.raises(KafkaError, match="reading ended"):
        await fetcher.records(9, 3600)


async def test_nothing_is_asked_for_once_it_is_closed(kafka: Kafka, fetcher: Fetcher) -> None:
    fetcher.assign({TASKS[0]: 0})
    await settle()
    await fetcher.close()
    kafka.leaders[TASKS[1]] = kafka.known[TASKS[1]] = 2  # a broker that nothing was asked of before
    fetcher.assign(dict.fromkeys(PLACES, 0))
    await settle()
    assert kafka.waiting == []


# What may happen, in any order

places = st.sampled_from([TASKS[0], TASKS[0], RESULTS[0], RESULTS[1]])
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), places, st.integers(1, 5)),
        st.tuples(st.just("take"), st.integers(1, 7)),
        st.tuples(st.just("pause"), places),
        st.tuples(st.just("resume"), places),
        st.tuples(st.just("go_back"), places),
        st.tuples(st.just("nothing_comes")),
        st.tuples(st.just("time_goes_by"), st.sampled_from([0.3, 1.0])),
        st.tuples(st.just("move"), places, st.integers(1, 2)),
        st.tuples(st.just("refuse")),
        st.tuples(st.just("assign"), st.sets(places)),
    ),
    max_size=40,
)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(happenings)
def test_each_record_is_handed_out_once_and_in_order_whatever_happens(steps: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RETRY_PAUSE", "ERROR_PAUSE", "PATIENCE_SECONDS"):
            patch.setattr(fetcher_module, name, 0)
        asyncio.run(whatever_happens(steps))


async def whatever_happens(steps: list[Any]) -> None:
    kafka = Kafka()
    reading = Reading(kafka)
    for name, *given_ in steps:
        await getattr(reading, name)(*given_)
        await settle()
    await reading.to_the_end()
    await reading.fetcher.close()
    await settle()
    assert kafka.waiting == []


class Reading:
    """Somebody who reads, and knows what must come next."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.fetcher = Fetcher(kafka, clock=lambda: kafka.now)
        self.expected = dict.fromkeys(PLACES, 0)
        self.paused: set[TopicPartition] = set()
        self.fetcher.assign(self.expected)

    async def take(self, most: int) -> int:
        records = await self.fetcher.records(most, 0)
        assert len(records) <= most
        for it in records:
            place = TopicPartition(it.topic, it.partition)
            assert place not in self.paused
            assert it.offset == self.expected[place]
            self.expected[place] += 1
        return len(records)

    async def publish(self, place: TopicPartition, number: int) -> None:
        self.kafka.publish(place, number)

    async def pause(self, place: TopicPartition) -> None:
        self.fetcher.pause([place])
        self.paused |= {place} & self.expected.keys()

    async def resume(self, *places: TopicPartition) -> None:
        self.fetcher.resume(places)
        self.paused -= set(places)

    async def go_back(self, place: TopicPartition) -> None:
        if place in self.expected:
            self.expected[place] = max(0, self.expected[place] - 1)
            self.fetcher.seek(place, self.expected[place])

    async def nothing_comes(self) -> None:
        self.kafka.give_up_waiting()

    async def time_goes_by(self, seconds: float) -> None:
        self.kafka.now += seconds

    async def move(self, place: TopicPartition, node: int) -> None:
        self.kafka.move(place, node)

    async def refuse(self) -> None:
        self.kafka.refused.append(KafkaConnectionError("gone"))
        self.kafka.give_up_waiting()

    async def assign(self, wanted: set[TopicPartition]) -> None:
        self.expected = {place: self.expected.get(place, 0) for place in wanted}
        self.paused.clear()
        self.fetcher.assign(self.expected)

    async def to_the_end(self) -> None:
        """Read all there is; what brought all it has is then asked for."""
        await self.resume(*PLACES)
        for _ in range(400):
            await settle()
            if not await self.take(100) and self.is_at_the_end():
                break
            self.kafka.give_up_waiting()
        assert self.is_at_the_end()
        self.kafka.give_up_waiting()
        await settle()
        assert set().union(*(it.asked for it in self.kafka.waiting)) >= self.expected.keys()

    def is_at_the_end(self) -> bool:
        return self.expected == {place: self.kafka.ends[place] for place in self.expected}
