"""`callboard tail`: watch events as they come."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from streams.command_line.output import (
    one_line,
    quiet_logging,
    reported,
    say,
    settings,
    stdout,
    when_interrupted,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rich.console import Console

    from streams.envelope import Record
    from streams.kafka.reader import Place, Reader
    from streams.settings import Settings

# Partitions come one after the other; what is there already is put into order in portions of this size.
SORTED_RECORDS = 50_000
SORTED_BYTES = 64 * 1024 * 1024

STYLES = {"completed": "green", "failed": "red", "canceled": "red", "parked": "yellow"}


@reported
def tail(
    topics: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC]...", help="Topics or patterns like 'results.*'; default: all tasks and results."
        ),
    ] = None,
    *,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="beginning|latest|TIME",
            help="Where to begin; TIME is ISO 8601, or how long ago: 10m, 2h, 3d.",
        ),
    ] = "latest",
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print each record as one line of JSON.")] = False,
) -> None:
    """Follow topics: one line per event, until Ctrl-C.

    \b
    Example:
        callboard tail results.documentation
        callboard tail --from 1h 'results.*'
        callboard tail --from beginning --json | jq -r .headers.ce_status
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    with when_interrupted(""):
        since = _since(start)
        quiet_logging()
        import asyncio

        asyncio.run(_tail(settings(), topics or [], since, limit, json=json))


async def _tail(
    chosen: Settings, wanted: list[str], since: int | None, limit: int | None, *, json: bool
) -> None:
    from streams.command_line.log_search import event_topics, select_topics
    from streams.kafka.reader import Reader
    from streams.topics import Topics

    names = Topics(chosen.topic_prefix)
    console = stdout()
    async with Reader(chosen.connection) as reader:
        found = await select_topics(reader, names, wanted) if wanted else await event_topics(reader, names)
        places = await reader.partitions(found)
        if since is None and sys.stdout.isatty():
            say(f"waiting for events in {', '.join(found)}; Ctrl-C ends it")
        shown = 0
        async with aclosing(_events(reader, places, since)) as records:
            async for record in records:
                if json:
                    _print_json(record)
                else:
                    _print_line(console, record)
                shown += 1
                if shown == limit:
                    return


async def _events(reader: Reader, places: list[Place], since: int | None) -> AsyncGenerator[Record]:
    """Give what is there since a moment by time, as far as memory allows, and then what comes."""
    ends = await reader.end_offsets(places)
    if since is not None:
        waiting: list[Record] = []
        size = 0
        starts = await reader.first_offsets(places, since=since or None)
        async with aclosing(reader.read(starts, ends=ends)) as records:
            async for record in records:
                waiting.append(record)
                size += len(record.value or b"")
                if len(waiting) == SORTED_RECORDS or size > SORTED_BYTES:
                    for each in sorted(waiting, key=_time):
                        yield each
                    waiting, size = [], 0
        for each in sorted(waiting, key=_time):
            yield each
    async with aclosing(reader.follow(ends)) as coming:
        async for new in coming:
            if new is not None:
                yield new


def _time(record: Record) -> int:
    return record.timestamp


def _since(start: str) -> int | None:
    """Give milliseconds since 1970, or none for the end."""
    from streams.command_line.times import moment

    if start == "latest":
        return None
    return 0 if start == "beginning" else moment(start)


def _print_json(record: Record) -> None:
    from streams.command_line.record_json import convenient

    write_json(convenient(record))


def _print_line(console: Console, record: Record) -> None:
    from rich.text import Text

    from streams.command_line.record_json import iso, value_of
    from streams.envelope import place
    from streams.history import workflow_of

    status = next(
        (value.decode(errors="replace") for name, value in record.headers if name == "ce_status"), None
    )
    value = value_of(record)
    line = Text(iso(record.timestamp)[:-1].replace("T", " "), style="dim")
    line.append(f"  {place(record):<28}", style="not dim")
    line.append(
        f"  {one_line(status or _kind(record.topic), 10):<10}",
        style=f"not dim {STYLES.get(status or '', 'cyan')}",
    )
    line.append(f"  {short(workflow_of(record))}", style="dim")
    line.append(f"  {one_line(_gist(value), 100)}", style="not dim")
    console.print(line, soft_wrap=True)


def short(workflow: str) -> str:
    """Shorten a workflow's id to what is usually enough to name it; the time in it fills the first 13."""
    from streams.command_line.output import clean

    return clean(workflow) if "/" in workflow else clean(workflow[:18])


def _kind(topic: str) -> str:
    return "task" if "tasks." in topic else "record"


def _gist(value: object) -> str:
    """Say the most telling part of a payload."""
    import json

    if not isinstance(value, dict):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    error = value.get("error")
    if isinstance(error, dict):
        return f"{error.get('type')}: {error.get('message')}"
    told = value.get("output", value.get("input", value))
    if isinstance(told, dict):
        told = next((told[name] for name in ("summary", "report") if isinstance(told.get(name), str)), told)
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
