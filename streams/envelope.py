"""CloudEvents 1.0 over Kafka in binary mode: what the headers of an event say, and back.

Our own binding, because the official SDK invents a missing id or time on read, which an audit cannot have; it
is the oracle of our tests. Never looks into a record's value.
"""

import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from agents import _rust
from agents.core.budget import Budget
from agents.core.errors import InvalidInputError

TASK = "callboard.task.v1"
RESULT = "callboard.result.v1"
JOURNAL = "callboard.journal.v1"
# CloudEvents wants a URI in `dataschema`; the schema of that `$id` is in `schemas/`.
SCHEMAS = {
    TASK: "urn:callboard:schema:task:v1",
    RESULT: "urn:callboard:schema:result:v1",
    JOURNAL: "urn:callboard:schema:journal:v1",
}
REQUIRED = ("ce_specversion", "ce_id", "ce_source", "ce_type")
# What all events of a type have in common, encoded once.
COMMON = {
    kind: (
        ("ce_specversion", b"1.0"),
        ("ce_type", kind.encode()),
        ("ce_dataschema", schema.encode()),
        ("content-type", b"application/json"),
    )
    for kind, schema in SCHEMAS.items()
}

KEPT = frozenset({"ce_id", "ce_source", "ce_correlationid", "ce_workflow", "ce_pass", "ce_rounds", "ce_llm"})

# The headers whose text is read; an event may have any others.
READ = frozenset(
    {
        *REQUIRED,
        "ce_correlationid",
        "ce_workflow",
        "ce_pass",
        "ce_rounds",
        "ce_status",
        "ce_deadline",
        "ce_hops",
        "ce_budget",
        "ce_llm",
    }
)
# Of those in READ: they are repeated on the result, which must fit into a record too.
MAX_READ_BYTES = 4_096
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
MAX_TRACE_BYTES = 512  # of each of its headers
HOPS_DIGITS = 5  # fewer: up to 9,999 hops
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Envelope = _rust.Envelope
EncodedHeaders = _rust.EncodedHeaders
Headers = list[tuple[str, bytes]]


class Record(Protocol):
    """One Kafka record as it was read."""

    @property
    def topic(self) -> str: ...  # noqa: D102 (a record's parts are Kafka's words)
    @property
    def partition(self) -> int: ...  # noqa: D102 (as above)
    @property
    def offset(self) -> int: ...  # noqa: D102 (as above)
    @property
    def timestamp(self) -> int: ...  # noqa: D102 (as above)
    @property
    def timestamp_type(self) -> int: ...  # noqa: D102 (as above)
    @property
    def key(self) -> bytes | None: ...  # noqa: D102 (as above)
    @property
    def value(self) -> bytes | None: ...  # noqa: D102 (as above)
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102 (as above)


class EnvelopeError(InvalidInputError):
    """The headers of a record are not those of an event; the message names the header and the place."""

    type = "invalid_event"


# Divides records into those that come one after the other in one partition: of most batches, few. Its own
# docstring says more.
by_partition = _rust.by_partition


def place(record: Record) -> str:
    """Name where a record is: topic/partition/offset."""
    return f"{record.topic}/{record.partition}/{record.offset}"


def record_digest(record: Record) -> str:
    """Hash a record's exact key, headers and value; hexadecimal SHA-256.

    The lengths of all parts come first, so no two different records hash the same bytes; an absent key or
    value has a length that no part can have. The tests have it in Python.
    """
    return _rust.record_digest(record)


def decode(record: Record) -> Envelope:
    """Read the envelope of a record.

    A record without any CloudEvents header is a plain task, as any Kafka client can publish one; its place is
    its identity. With some of them, the required ones must all be there.

    Raises:
        EnvelopeError: If a header is missing, there twice, not UTF-8 or out of range.
    """
    # The way of nearly every record. Whatever is odd about one is left to the other, which can say it.
    return _rust.read_event(record) or _careful(record)


# Reads tasks as `decode` does, and tells which of some workflows each is of, as far as they leave nothing out
# and have been nowhere before: nearly every task is so. Its own docstring says more.
decode_usual_tasks = _rust.read_usual_tasks


def _careful(record: Record) -> Envelope:
    """Read any record, looking at each header by itself.

    Raises:
        EnvelopeError: As `decode`.
    """
    raw = dict(record.headers)
    if len(raw) != len(record.headers):
        _refuse_repeated(record)
    if (raw.get("content-type") or b"").startswith(b"application/cloudevents"):
        raise EnvelopeError(
            f"{place(record)}: header content-type says structured mode; send CloudEvents in binary mode:"
            " their attributes as ce_ headers, the data as the value"
        )
    traceparent, tracestate = _trace(raw) if "traceparent" in raw else (None, None)
    read = {name: value for name, value in raw.items() if name in READ and value is not None}
    if not all(map(read.get, REQUIRED)):
        present = min((name for name in raw if name.startswith("ce_")), default=None)
        if present is None:
            here = place(record)
            return Envelope(
                id=here,
                source="",
                type=TASK,
                workflow_id=here,
                traceparent=traceparent,
                tracestate=tracestate,
            )
        missing = next(name for name in REQUIRED if not read.get(name))
        raise EnvelopeError(
            f"{place(record)}: header {missing} is missing while {present} is present; an event has"
            f" {', '.join(REQUIRED)}, a plain task none of them"
        )
    if read["ce_specversion"] != b"1.0":
        version = read["ce_specversion"].decode(errors="replace")
        raise EnvelopeError(f"{place(record)}: header ce_specversion is {version!r}, this version reads 1.0")
    try:
        text = {name: value.decode() for name, value in read.items()}
    except UnicodeDecodeError:
        raise _binary(record, read) from None
    if sum(map(len, read.values())) > MAX_READ_BYTES:
        longest = max(read, key=lambda name: len(read[name]))
        raise EnvelopeError(
            f"{place(record)}: header {longest} has {len(read[longest])} bytes; the ce_ headers may have at"
            f" most {MAX_READ_BYTES} together"
        )
    known = text.get
    return Envelope(
        id=text["ce_id"],
        source=text["ce_source"],
        type=text["ce_type"],
        workflow_id=known("ce_correlationid") or text["ce_id"],
        workflow=known("ce_workflow") or None,
        round=known("ce_pass") or None,
        rounds=known("ce_rounds") or None,
        status=known("ce_status") or None,
        deadline=_moment(record, text["ce_deadline"]) if "ce_deadline" in text else None,
        hops=_hops(record, text["ce_hops"]) if "ce_hops" in text else None,
        budget=_budget(record, text["ce_budget"]) if "ce_budget" in text else None,
        llm=known("ce_llm"),
        traceparent=traceparent,
        tracestate=tracestate,
    )


def _trace(raw: dict[str, bytes]) -> tuple[str | None, str | None]:
    """Read the W3C trace context; a broken one is no reason to refuse an event, a new trace begins."""
    parent, state = raw.get("traceparent"), raw.get("tracestate")
    if parent is None or len(parent) > MAX_TRACE_BYTES or not TRACEPARENT.fullmatch(parent):
        return None, None
    if state is None or len(state) > MAX_TRACE_BYTES or not state.isascii():
        return parent.decode(errors="replace"), None
    return parent.decode(errors="replace"), state.decode()


def fallback(record: Record) -> Envelope:
    """Give what can be said about a record whose envelope cannot be read, so that its failure is visible."""
    known: dict[str, str] = {}
    for name, value in record.headers:
        if name in KEPT and value and len(value) <= MAX_READ_BYTES // len(KEPT):
            # What is no text says nothing: replaced by something that is, different ids would become one.
            with suppress(UnicodeDecodeError):
                known.setdefault(name, value.decode())
    traceparent, tracestate = _trace(dict(record.headers))
    here = place(record)
    return Envelope(
        id=known.get("ce_id") or here,
        source=known.get("ce_source", ""),
        type="",
        workflow_id=known.get("ce_correlationid") or known.get("ce_id") or here,
        workflow=known.get("ce_workflow"),
        round=known.get("ce_pass"),
        rounds=known.get("ce_rounds"),
        llm=known.get("ce_llm"),
        traceparent=traceparent,
        tracestate=tracestate,
    )


def encode(envelope: Envelope, *, causes: Sequence[tuple[str, str]] = ()) -> EncodedHeaders:
    """Make the headers of an event that is about to be published.

    Args:
        envelope: What the event is.
        causes: Identity and record digest of every event this one answers.
    """
    return _rust.write_event(common(envelope.type, envelope.source), envelope, milliseconds(), causes)


@lru_cache(1_000)
def common(kind: str, source: str) -> EncodedHeaders:
    """Give the headers that all events of one type from one source have."""
    return EncodedHeaders([*COMMON[kind], ("ce_source", source.encode())])


def milliseconds() -> int:
    """Give the present time, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


# Writes milliseconds since 1970 as CloudEvents wants a time: RFC 3339, UTC, with three digits of a fraction.
moment = _rust.moment


def now() -> str:
    """Give the present time as `moment` writes it."""
    return moment(milliseconds())


def task_id() -> str:
    """Make a UUIDv7 (RFC 9562): it begins with the time in milliseconds, so ids sort by age."""
    value = (milliseconds() << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def task_time(identity: str) -> int | None:
    """Read the milliseconds since 1970 out of a UUIDv7; none for any other identity."""
    try:
        parsed = uuid.UUID(identity)
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == 7 else None  # noqa: PLR2004 (the version asked for)


def run_id(app: str, agent: str, *identity: str) -> str:
    """Name a run: SHA-256 over app, agent and what it answers, length-prefixed; the same after a restart."""
    return _rust.run_id(run_prefix(app, agent), *identity)


@lru_cache(1_000)
def run_prefix(app: str, agent: str) -> bytes:
    """Give what the hash of every run of one agent begins with."""
    return b"callboard-run-v1" + _sized(app) + _sized(agent)


def _sized(part: str) -> bytes:
    data = part.encode()
    return len(data).to_bytes(4, "big") + data


def result_id(run: str, outcome: int = 1) -> str:
    """Name a run's result: a UUIDv8 (RFC 9562) of its hash, so a repeated publish has the same id."""
    return _rust.uuid_of(f"{run}/{outcome}")


def first_round(envelope: Envelope) -> str:
    """Name the round that a task without `ce_pass` begins.

    CloudEvents makes `ce_id` unique within its `ce_source` only; joins of two sources' tasks must not mix. A
    place or a UUID is unique by itself, and so it is the name as it is.
    """
    if not envelope.source or UUID.fullmatch(envelope.id):
        return envelope.id
    return result_id(run_id("", "", envelope.source, envelope.id))


def next_traceparent(current: str | None, run: str) -> str:
    """Continue a W3C trace, valid as `decode` gives it, with the run as its span, or begin one."""
    return _rust.next_traceparent(current, run)


def _refuse_repeated(record: Record) -> None:
    for name, times in Counter(name for name, _ in record.headers if name.startswith("ce_")).items():
        if times > 1:
            raise EnvelopeError(f"{place(record)}: header {name} is there {times} times")


def _binary(record: Record, read: dict[str, bytes]) -> EnvelopeError:
    for name, value in read.items():
        try:
            value.decode()
        except UnicodeDecodeError:
            return EnvelopeError(f"{place(record)}: header {name} is not UTF-8 text: {value[:40]!r}")
    raise AssertionError("called without a binary header")


def _moment(record: Record, text: str) -> datetime:
    try:
        moment: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise EnvelopeError(
            f"{place(record)}: header ce_deadline is {text!r}, which is no time with a zone like"
            " 2026-01-31T12:00:00Z"
        )
    return moment


def _budget(record: Record, text: str) -> Budget:
    try:
        return Budget.parse(text)
    except ValueError as error:
        raise EnvelopeError(f"{place(record)}: header ce_budget cannot be read: {error}") from None


def _hops(record: Record, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < HOPS_DIGITS):
        raise EnvelopeError(f"{place(record)}: header ce_hops is {text!r}, which is no number from 0 to 9999")
    return int(text)
