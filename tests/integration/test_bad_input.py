"""Bad records on the real log: each ends as a failed result that says what and where; the next one works."""

import json
from pathlib import Path

import pytest

from agents.core.base import AgentStatus
from streams.envelope import RESULT, TASK, Envelope, Headers, encode, task_id
from streams.kafka.publisher import partition_for
from streams.topics import MAX_RECORD_BYTES

from .deployment import PARTITIONS, Deployment

pytestmark = pytest.mark.kafka

GOOD = json.dumps({"input": "fine"}).encode()


def headers_of(kind: str = TASK) -> Headers:
    identity = task_id()
    return encode(Envelope(id=identity, source="/test", type=kind, workflow_id=identity, round=identity))


def without(name: str) -> Headers:
    return [(key, value) for key, value in headers_of() if key != name]


def changed(name: str, value: bytes) -> Headers:
    return [(key, value if key == name else old) for key, old in headers_of()]


# What is wrong, the record, and the words by which the result must tell.
BAD: list[tuple[str, bytes | None, Headers, str]] = [
    ("no JSON", b"{not json", headers_of(), "no valid callboard.task.v1"),
    ("no object", b"[1, 2]", headers_of(), "no valid callboard.task.v1"),
    ("no input", b'{"goal": "x"}', headers_of(), "input: Field required"),
    ("plain and no JSON", b"hello", [], "no valid callboard.task.v1"),
    ("unknown type", GOOD, changed("ce_type", b"callboard.task.v9"), "'callboard.task.v9' is unknown"),
    ("a result among tasks", GOOD, headers_of(RESULT), "'callboard.result.v1' is unknown"),
    ("half of the headers", GOOD, without("ce_source"), "header ce_source is missing"),
    ("binary header", GOOD, changed("ce_correlationid", b"\xff\xfe"), "header ce_correlationid is not UTF-8"),
    ("another version", GOOD, changed("ce_specversion", b"0.3"), "ce_specversion is '0.3'"),
    ("null", None, headers_of(), "the value is null"),
    ("too large", b'{"input": "' + b"x" * MAX_RECORD_BYTES + b'"}', headers_of(), "bytes, at most"),
    ("unknown workflow", GOOD, [*headers_of(), ("ce_workflow", b"other")], "workflow 'other'"),
]


async def test_bad_records_end_as_failed_results(kafka: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path)
    with deployment.worker() as worker:
        places = {}
        async with deployment.publisher() as publisher:
            for what, value, headers, told in BAD:
                # One key for all: had one of them stopped its lane, the others would never end.
                place = await deployment.raw(publisher, "researcher", b"one", value, headers)
                places[place] = what, told
            await deployment.raw(publisher, "researcher", b"one", GOOD, headers_of())
        results = await deployment.results("researcher", len(BAD) + 1)
        assert results[-1].payload.status is AgentStatus.COMPLETED
        assert results[-1].payload.output == "fine"
        assert {result.partition for result in results} == {partition_for(b"one", PARTITIONS)}
        for (place, (what, told)), result in zip(places.items(), results, strict=False):
            assert result.payload.status is AgentStatus.FAILED, what
            assert result.payload.error is not None, what
            assert told in result.payload.error.message, what
            assert place in result.payload.error.message, what
            assert result.headers["ce_correlationid"], what
        # Whoever waits for a leaf gets it: what is announced to flow on does.
        announced = sum(bool(result.payload.followers) for result in results)
        assert announced > len(BAD) // 2
        assert len(await deployment.results("documentation", announced)) == announced
        assert await deployment.uncommitted() == {}
        assert worker.process.poll() is None
