"""The official CloudEvents SDK as the oracle of our binding, for valid events and in both directions.

It is an oracle for valid events only: it makes up what is missing, takes structured mode for binary if there
is any `ce_` header, and adds the record's key to the event. What it does there is written down below as well,
so that a newer SDK that does otherwise is noticed.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, from_kafka, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from streams.envelope import (
    RESULT,
    SCHEMAS,
    TASK,
    Envelope,
    EnvelopeError,
    decode,
    encode,
    result_id,
    task_id,
)
from tests.unit.worker_world import FakeRecord

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=40)


def theirs(headers: list[tuple[str, bytes]], value: bytes = b'{"input": 1}', key: bytes | None = None) -> Any:
    return from_binary(KafkaMessage(dict(headers), key, value), JSONFormat())


def ours(message: KafkaMessage) -> Envelope:
    return decode(FakeRecord("tasks.reader", 0, message.value, tuple(message.headers.items())))


def test_the_sdk_reads_what_we_write() -> None:
    deadline = datetime(2026, 1, 31, 12, tzinfo=UTC)
    envelope = Envelope(
        result_id("run"),
        "/callboard/app/reader",
        RESULT,
        "flow-1",
        workflow="improve",
        round="r",
        status="completed",
        deadline=deadline,
        hops=3,
        llm="off",
        traceparent=TRACE,
    )
    before = datetime.now(UTC) - timedelta(seconds=1)
    event = theirs(encode(envelope, causes=[("a", "d" * 64)]))
    assert (event.get_id(), event.get_source(), event.get_type()) == (envelope.id, envelope.source, RESULT)
    assert (event.get_specversion(), event.get_datacontenttype()) == ("1.0", "application/json")
    assert event.get_dataschema() == SCHEMAS[RESULT]
    assert before <= event.get_time() <= datetime.now(UTC)
    assert event.get_data() == {"input": 1}
    extensions = {name: event.get_extension(name) for name in event.get_attributes() if name not in KNOWN}
    assert extensions == {
        "correlationid": "flow-1",
        "workflow": "improve",
        "pass": "r",
        "causationid": "a",
        "causedigest": "d" * 64,
        "status": "completed",
        "deadline": "2026-01-31T12:00:00+00:00",
        "hops": "3",
        "llm": "off",
    }  # traceparent is a header of its own and no attribute, as W3C has it


KNOWN = {"id", "source", "type", "specversion", "time", "dataschema", "datacontenttype"}


@given(
    st.builds(
        Envelope,
        id=TEXT,
        source=TEXT,
        type=st.sampled_from([TASK, RESULT]),
        workflow_id=TEXT,
        hops=st.none() | st.integers(0, 9999),
    )
)
def test_we_read_what_the_sdk_writes_of_what_it_read_of_us(envelope: Envelope) -> None:
    event = theirs(encode(envelope))
    assert ours(to_binary(event, JSONFormat())) == envelope


def test_we_read_a_task_the_sdk_made() -> None:
    identity = task_id()
    attributes = {
        "id": identity,
        "source": "/shop",
        "type": TASK,
        "correlationid": "order-7",
        "hops": 5,
        "tenant": "x",
    }
    message = to_binary(CloudEvent(attributes, {"input": "do it"}), JSONFormat())
    assert ours(message) == Envelope(identity, "/shop", TASK, "order-7", hops=5)
    assert json.loads(message.value) == {"input": "do it"}


def test_a_time_zone_the_sdk_writes_is_a_deadline_we_read() -> None:
    deadline = datetime(2026, 1, 31, 12, tzinfo=UTC)
    attributes = {"id": "i", "source": "/s", "type": TASK, "deadline": deadline}
    assert ours(to_binary(CloudEvent(attributes, {}), JSONFormat())).deadline == deadline


def test_a_structured_event_is_refused_with_advice() -> None:
    message = to_structured(CloudEvent({"id": "i", "source": "/s", "type": TASK}, {"input": 1}), JSONFormat())
    with pytest.raises(EnvelopeError, match="binary mode"):
        ours(message)


# Where the SDK is no oracle


@pytest.mark.parametrize("name", ["ce_id", "ce_time"])
def test_the_sdk_makes_up_what_is_missing_and_we_do_not(name: str) -> None:
    headers = [pair for pair in encode(Envelope("i", "/s", TASK, "w")) if pair[0] != name]
    one, two = theirs(headers), theirs(headers)
    assert one.get_id() == "i" or one.get_id() != two.get_id()
    if name == "ce_id":
        with pytest.raises(EnvelopeError, match="header ce_id is missing"):
            ours(KafkaMessage(dict(headers), None, b"{}"))


def test_the_sdk_takes_the_key_for_an_attribute() -> None:
    assert theirs(encode(Envelope("i", "/s", TASK, "w")), key=b"k").get_extension("partitionkey") == "k"
    with pytest.raises(UnicodeDecodeError):
        theirs(encode(Envelope("i", "/s", TASK, "w")), key=b"\xff")


def test_the_sdk_takes_structured_for_binary_if_there_is_any_attribute_header() -> None:
    structured = to_structured(
        CloudEvent({"id": "i", "source": "/s", "type": TASK}, {"input": 1}), JSONFormat()
    )
    headers = {
        **structured.headers,
        "ce_id": b"i",
        "ce_source": b"/s",
        "ce_type": TASK.encode(),
        "ce_specversion": b"1.0",
    }
    message = KafkaMessage(headers, None, structured.value)
    assert "specversion" in str(from_kafka(message, JSONFormat()).get_data())
    with pytest.raises(EnvelopeError, match="structured mode"):
        ours(message)
