"""Records as JSON: exactly, for those who check them, and conveniently, for those who filter them."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from streams.envelope import Record, record_digest


def exact(record: Record) -> dict[str, Any]:
    """Give all of a record; headers as pairs in their order, because names may repeat."""
    return {
        **_where(record),
        "key": text(record.key),
        "headers": [[name, text(value)] for name, value in record.headers],
        "value": value_of(record),
        "digest": record_digest(record),
    }


def convenient(record: Record) -> dict[str, Any]:
    """Give a record with its headers as an object; the first of a repeated name counts, as everywhere."""
    headers: dict[str, Any] = {}
    for name, value in record.headers:
        headers.setdefault(name, text(value))
    return {**_where(record), "key": text(record.key), "headers": headers, "value": value_of(record)}


def text(data: bytes | None) -> str | dict[str, str] | None:
    """Give text as a string, and what is none as {"base64": ...}."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def value_of(record: Record) -> Any:
    """Give the value parsed, or as {"base64": ...} if it is no JSON."""
    if record.value is None:
        return None
    try:
        return json.loads(record.value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {"base64": base64.b64encode(record.value).decode()}


def iso(milliseconds: int) -> str:
    """Write a record's timestamp as RFC 3339, UTC."""
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"  # a publisher may write anything
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _where(record: Record) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": iso(record.timestamp),
    }


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
