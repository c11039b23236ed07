"""Events nobody could process, kept in `dead.<agent>` as they came, with the reason: for people, and redrive.

The original key, value and headers byte for byte; what is known about the failure goes into headers beside
them, some of them named as Spring Kafka and Kafka Connect users know them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from streams import envelope as envelopes
from streams.envelope import Headers, Record
from streams.kafka.publisher import Outgoing
from streams.topics import MAX_RECORD_BYTES

ORIGINAL = "kafka_dlt-original-"
OWN = "dlt-"
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


RETRIES_EXHAUSTED = "retries_exhausted"
NOT_RETRYABLE = "not_retryable"
INVALID = "invalid_event"
REFUSED = "refused"
POISON = "poison"
REASONS = (RETRIES_EXHAUSTED, NOT_RETRYABLE, INVALID, REFUSED, POISON)


class Letter(NamedTuple):
    """One dead letter, ready to be published."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def write(
    records: Iterable[Record], failure: Failure, *, run: str, agent: str, agent_version: str
) -> list[Letter]:
    """Make the dead letters of a run: one for each event it answers."""
    letters = []
    for number, record in enumerate(records):
        known = {
            "id": letter_id(run, number),
            "run": run,
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
    if letter.value is not None:
        size = ("dlt-omitted-bytes", str(len(letter.value)).encode())
        headers = [*(it for it in letter.headers if it[0] != size[0]), size]
        return letter._replace(value=None, headers=headers)
    return letter._replace(
        key=None, headers=[(name, it) for name, it in letter.headers if name.startswith((OWN, ORIGINAL))]
    )


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
        failure: Why.
        time: When it was written, RFC 3339.
        origin: topic/partition/offset of the event.
        omitted_bytes: Size of the original value if it was too large to be kept.
        headers: The original headers.
        record: The letter itself, with the original key and value.
    """

    id: str
    agent: str
    agent_version: str
    run: str
    failure: Failure
    time: str
    origin: str
    omitted_bytes: int | None
    headers: Headers
    record: Record


def read(record: Record) -> DeadLetter | None:
    """Read a letter; none if the record in a dead-letter topic is no letter of ours."""
    # The original may itself carry such names, being a redriven letter: the last ones are ours.
    last = {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
    own = {name.removeprefix(OWN): text for name, text in last.items() if name.startswith(OWN)}
    at = {name.removeprefix(ORIGINAL): text for name, text in last.items() if name.startswith(ORIGINAL)}
    if not own.get("id") or not {"topic", "partition", "offset"} <= at.keys():
        return None
    names = [OWN + name for name in own] + [ORIGINAL + name for name in at]
    original = list(record.headers)
    for name in names:
        index = max(i for i, (header, _) in enumerate(original) if header == name)
        del original[index]
    attempts, omitted = own.get("attempts", ""), own.get("omitted-bytes", "")
    return DeadLetter(
        id=own["id"],
        agent=own.get("agent", ""),
        agent_version=own.get("agent-version", ""),
        run=own.get("run", ""),
        failure=Failure(
            reason=own.get("reason", ""),
            error_type=own.get("error-type", ""),
            message=own.get("error-message", ""),
            attempts=int(attempts) if attempts.isdecimal() else 0,
            first_time=own.get("first-time") or None,
        ),
        time=own.get("time", ""),
        origin="/".join((at["topic"], at["partition"], at["offset"])),
        omitted_bytes=int(omitted) if omitted.isdecimal() else None,
        headers=original,
        record=record,
    )
