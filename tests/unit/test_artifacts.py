"""Artifacts: into chunks and back, and every way in which they are not what their reference says."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import pytest

from agents.core import Artifact
from agents.core.errors import ArtifactError
from agents.core.task import ArtifactReference
from streams import artifacts
from streams.artifacts import CHUNK_BYTES, MAX_ARTIFACT_BYTES, KafkaArtifacts
from streams.kafka.connection import Connection
from streams.kafka.publisher import Publisher
from tests.unit.worker_world import FakeRecord

TOPIC = "artifacts.reader"


class Log:
    """One partition, written by a producer and read by a reader."""

    def __init__(self) -> None:
        self.records: list[FakeRecord] = []
        self.first = 0

    async def send_and_wait(
        self, topic: str, partition: int, *, key: bytes | None, value: bytes, headers: Any
    ) -> int:
        assert len(value) <= CHUNK_BYTES
        self.records.append(FakeRecord(topic, len(self.records), value, tuple(headers), key, partition))
        return len(self.records) - 1


class LogPublisher(Publisher):
    def __init__(self, log: Log) -> None:
        self.log = log

    async def send_and_wait(self, *args: Any, **fields: Any) -> int:
        return await self.log.send_and_wait(*args, **fields)


class LogReader:
    def __init__(self, log: Log) -> None:
        self.log = log

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def partitions(self, topics: Iterable[str]) -> list[tuple[str, int]]:
        return [(TOPIC, 0)] if TOPIC in topics else []

    async def first_offsets(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return dict.fromkeys(places, self.log.first)

    async def end_offsets(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return dict.fromkeys(places, len(self.log.records))

    async def read(
        self, starts: Mapping[tuple[str, int], int], *, ends: Mapping[tuple[str, int], int]
    ) -> AsyncIterator[FakeRecord]:
        for place, start in starts.items():
            for record in self.log.records[start : ends[place]]:
                yield record


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(artifacts, "Reader", lambda _connection: LogReader(log))
    return log


async def publish(log: Log, content: bytes, name: str = "report.md") -> ArtifactReference:
    artifact = Artifact(name=name, content=content, media_type="text/markdown")
    return await artifacts.publish(LogPublisher(log), artifact, topic=TOPIC, partition=0, key=b"k")


async def read(reference: ArtifactReference, **differing: Any) -> bytes:
    return await KafkaArtifacts(Connection.plaintext("unused:1"), [TOPIC]).read(
        reference.model_copy(update=differing)
    )


async def check_refused(reference: ArtifactReference, says: str, **differing: Any) -> None:
    with pytest.raises(ArtifactError, match=says) as caught:
        await read(reference, **differing)
    assert "artifact 'report.md' at" in str(caught.value)


@pytest.mark.parametrize(
    ("size", "chunks"), [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (3 * CHUNK_BYTES, 3)]
)
async def test_contents_are_cut_into_chunks_and_put_together_again(size: int, chunks: int, log: Log) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    reference = await publish(log, content)
    assert [dict(it.headers)["chunk"] for it in log.records] == [
        f"{n}/{chunks}".encode() for n in range(chunks)
    ]
    assert {dict(it.headers)["content-type"] for it in log.records} == {b"text/markdown"}
    assert (reference.size, reference.offset, reference.media_type) == (size, 0, "text/markdown")
    assert reference.sha256 == hashlib.sha256(content).hexdigest()
    assert await read(reference) == content


async def test_chunks_of_several_artifacts_may_lie_between_each_other(log: Log) -> None:
    one, two = b"1" * (CHUNK_BYTES + 5), b"2" * (CHUNK_BYTES + 6)
    first, second = await publish(log, one), await publish(log, two)
    a, b, c, d = log.records
    log.records = [a, c, b, d]
    assert await read(first) == one
    assert await read(second, offset=1) == two


async def test_the_same_contents_twice_at_the_same_time(log: Log) -> None:
    content = b"x" * (CHUNK_BYTES + 5)
    first, second = await publish(log, content), await publish(log, content)
    a, b, c, d = log.records
    log.records = [a, c, b, d]
    assert await read(first) == content
    assert await read(second, offset=1) == content


async def test_an_artifact_too_large_is_refused_before_anything_is_published(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_ARTIFACT_BYTES", 10)
    with pytest.raises(ArtifactError, match=r"'report.md' has 11 bytes, at most 10 are possible"):
        await publish(log, b"x" * 11)
    assert log.records == []


async def test_a_reference_that_is_too_large_reads_nothing(log: Log) -> None:
    reference = await publish(log, b"abc")
    await check_refused(reference, f"at most {MAX_ARTIFACT_BYTES} are possible", size=MAX_ARTIFACT_BYTES + 1)


async def test_only_topics_of_the_application_are_read(log: Log) -> None:
    reference = await publish(log, b"abc")
    await check_refused(reference, "holds no artifacts of this application", topic="tasks.reader")


async def test_a_partition_that_is_not_there(log: Log) -> None:
    await check_refused(await publish(log, b"abc"), "there is no such partition", partition=3)


async def test_changed_bytes_are_found(log: Log) -> None:
    reference = await publish(log, b"abc")
    log.records[0] = FakeRecord(TOPIC, 0, b"abd", log.records[0].headers)
    await check_refused(reference, "3 bytes that do not match its digest")


async def test_another_length_is_found(log: Log) -> None:
    await check_refused(await publish(log, b"abc"), "3 bytes that do not match", size=4)


async def test_another_artifact_in_its_place(log: Log) -> None:
    reference = await publish(log, b"abc")
    await check_refused(reference, "incomplete: 0 of 1 chunks", sha256="0" * 64)


async def test_a_missing_chunk(log: Log) -> None:
    reference = await publish(log, b"x" * (2 * CHUNK_BYTES + 1))
    del log.records[1]
    await check_refused(reference, "incomplete: 1 of 3 chunks are there")


async def test_a_null_chunk(log: Log) -> None:
    reference = await publish(log, b"abc")
    log.records[0] = FakeRecord(TOPIC, 0, None, log.records[0].headers)
    await check_refused(reference, "0 bytes that do not match")


async def test_an_artifact_that_was_deleted(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = await publish(log, b"abc")
    await check_refused(reference, "is gone: the partition keeps offsets 0 to 0", offset=1)
    for _ in range(40):
        await publish(log, b"def")
    log.first = 30
    monkeypatch.setattr(artifacts, "MAX_RECORDS_BETWEEN", 5)
    await check_refused(reference, "is gone: the partition keeps offsets 30 to 40")


async def test_one_does_not_look_for_ever(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = await publish(log, b"x" * (CHUNK_BYTES + 1))
    last = log.records.pop()
    for _ in range(10):
        await publish(log, b"other")
    log.records.append(last)
    monkeypatch.setattr(artifacts, "MAX_RECORDS_BETWEEN", 5)
    await check_refused(reference, "incomplete: 1 of 2 chunks")
