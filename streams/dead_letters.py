"""Events nobody could process, kept in `dead.<agent>` as they came, with the reason: for people, and redrive.

The original key, value and headers byte for byte; what is known about the failure goes into headers beside
them, some of them named as Spring Kafka and Kafka Connect users know them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agents.core.errors import InvalidInputError
from streams import envelope as envelopes
from streams.envelope import Headers, Record
from streams.kafka.publisher import Outgoing
from streams.kafka.record_batch import EncodedRecord
from streams.topics import MAX_RECORD_BYTES
from streams.work import Kind

ORIGINAL = "kafka_dlt-original-"
OWN = "dlt-"
# What `write` adds. Only these are taken off again: an original may have others that begin like them.
OWN_NAMES = (
    "id",
    "run",
    "parts",
    "agent",
    "agent-version",
    "reason",
    "error-type",
    "error-message",
    "attempts",
    "first-time",
    "time",
    "omitted-bytes",
)
ORIGINAL_NAMES = ("topic", "partition", "offset", "timestamp")
ADDED = frozenset({*(OWN + name for name in OWN_NAMES), *(ORIGINAL + name for name in ORIGINAL_NAMES)})
OMITTED = OWN + "omitted-bytes"
MAX_MESSAGE_BYTES = 8_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event became a dead letter.

    Attributes:
        reason: One of `REASONS`.
        error_type: As in the failed result.
        message: For people.
        attempts: How often it was tried.
        first_time: When it was tried first, RFC 3339, or none.
    """

    reason: str
    error_type: str
    message: str
    attempts: int
    first_time: str | None


# On the event that repeats a letter: which one, and why.
REDRIVE_OF, REDRIVE_REASON = "ce_redriveof", "ce_redrivereason"
RETRIES_EXHAUSTED = "retries_exhausted"
NOT_RETRYABLE = "not_retryable"
INVALID = "invalid_event"
REFUSED = "refused"
POISON = "poison"
REASONS = (RETRIES_EXHAUSTED, NOT_RETRYABLE, INVALID, REFUSED, POISON)
OF_KIND: Mapping[Kind, str] = {"invalid": INVALID, "refused": REFUSED, "poison": POISON}


class Letter(NamedTuple):
    """One dead letter, ready to be published."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def reason_of(kind: Kind, raised: BaseException, *, again: bool) -> str:
    """Name why a run makes dead letters.

    Args:
        kind: Of the work.
        raised: What it ended with.
        again: Whether trying again might have helped.
    """
    if again:
        return RETRIES_EXHAUSTED
    return INVALID if isinstance(raised, InvalidInputError) else OF_KIND.get(kind, NOT_RETRYABLE)


def write(
    records: Sequence[Record], failure: Failure, *, run: str, agent: str, agent_version: str
) -> list[Letter]:
    """Make the dead letters of a run: one for each event it answers."""
    letters = []
    for number, record in enumerate(records):
        known = {
            "id": letter_id(run, number),
            "run": run,
            "parts": str(len(records)),
            "agent": agent,
            "agent-version": agent_version,
            "reason": failure.reason,
            "error-type": failure.error_type,
            "error-message": failure.message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore"),
            "attempts": str(failure.attempts),
            "first-time": failure.first_time or "",
            "time": envelopes.now(),
            "omitted-bytes": "",
        }
        value = record.value
        if value is not None and len(value) > MAX_RECORD_BYTES:
            # No topic of the application takes it. It stays where it is, and the letter says where.
            known["omitted-bytes"] = str(len(value))
            value = None
        original = {
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "timestamp": str(record.timestamp),
        }
        headers: Headers = [
            *record.headers,
            *((OWN + name, text.encode()) for name, text in known.items()),
            *((ORIGINAL + name, text.encode()) for name, text in original.items()),
        ]
        letters.append(Letter(record.key, value, headers))
    return letters


def shorten(letter: Outgoing) -> Outgoing:
    """Give a letter that Kafka refuses without its value, and the second time without the other's headers."""
    number, record = letter
    if record.value is not None:
        size = (OMITTED, str(record.value_size).encode())
        headers = [*(header for header in record.headers if header[0] != OMITTED), size]
        return number, EncodedRecord(record.key, None, headers)
    headers = [header for header in record.headers if header[0] in ADDED]
    return number, EncodedRecord(None, None, headers)


def letter_id(run: str, number: int) -> str:
    """Name a letter: a UUIDv8 of its run, so a repeated publish has the same id."""
    return envelopes.result_id(f"{run}/dead", number)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it was read.

    Attributes:
        id: `dlt-id`.
        agent: Who could not process it.
        agent_version: Its version then.
        run: Run id.
        parts: How many letters the run has: one for each event it answers.
        failure: Why.
        time: When it was written, RFC 3339.
        origin: topic/partition/offset of the event.
        size: Bytes of the original value; none: it was null.
        omitted_bytes: The same if it was too large to be kept.
        headers: The original headers.
        record: The letter itself, with the original key and value.
    """

    id: str
    agent: str
    agent_version: str
    run: str
    parts: int
    failure: Failure
    time: str
    origin: str
    size: int | None
    omitted_bytes: int | None
    headers: Headers
    record: Record


def read(record: Record) -> DeadLetter | None:
    """Read a letter; none if the record in a dead-letter topic is no letter of ours."""
    # The original may itself have such headers, being a letter that somebody sent on: the last ones are ours.
    last = {name: number for number, (name, _) in enumerate(record.headers) if name in ADDED}
    text = {
        name: (record.headers[number][1] or b"").decode(errors="replace") for name, number in last.items()
    }
    own = {name: text.get(OWN + name, "") for name in OWN_NAMES}
    at = [text.get(ORIGINAL + name, "") for name in ORIGINAL_NAMES[:3]]
    if not own["id"] or not at[0] or None in map(_number, at[1:]):
        return None
    ours = set(last.values())
    omitted = _number(own["omitted-bytes"])
    return DeadLetter(
        id=own["id"],
        agent=own["agent"],
        agent_version=own["agent-version"],
        run=own["run"],
        parts=_number(own["parts"]) or 1,
        failure=Failure(
            reason=own["reason"],
            error_type=own["error-type"],
            message=own["error-message"],
            attempts=_number(own["attempts"]) or 0,
            first_time=own["first-time"] or None,
        ),
        time=own["time"],
        origin="/".join(at),
        size=omitted if record.value is None else len(record.value),
        omitted_bytes=omitted,
        headers=[header for number, header in enumerate(record.headers) if number not in ours],
        record=record,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None
