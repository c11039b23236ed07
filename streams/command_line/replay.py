"""`callboard replay`: what is in the log, record by record, exactly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from streams.command_line.output import (
    CommandError,
    ExitCode,
    progress,
    quiet_logging,
    reported,
    settings,
    when_interrupted,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streams.envelope import Record
    from streams.kafka.reader import Reader
    from streams.settings import Settings
    from streams.topics import Topics

RANGE = re.compile(r"(?P<topic>[^/]+)(/(?P<partition>\d{1,9})(/(?P<first>\d{1,18})(-(?P<last>\d{1,18}))?)?)?")


@reported
def replay(
    records: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC[/PARTITION[/FROM[-TO]]]]", help="What to read; offsets FROM and TO are included."
        ),
    ] = None,
    *,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Read one workflow instead: its id, a part of it, or a place."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
) -> None:
    """Read records back, in order, as lines of JSON. Publishes nothing and runs nothing.

    A topic comes partition by partition; a workflow comes with causes before effects. The digest is SHA-256
    over the record's exact bytes, as `ce_causedigest` of the events that answer it has it.

    \b
    Example:
        callboard replay results.documentation/0
        callboard replay tasks.researcher/3/17-17
        callboard replay --workflow 0199c3a1 | jq -r .digest
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    if (records is None) == (workflow is None):
        raise CommandError(
            "give either what to read, as TOPIC/PARTITION/FROM-TO, or --workflow ID", ExitCode.USAGE
        )
    matched = RANGE.fullmatch(records or "")
    if records is not None and matched is None:
        raise CommandError(
            f"{records!r} is no range of records: give TOPIC, TOPIC/PARTITION, TOPIC/PARTITION/FROM or"
            " TOPIC/PARTITION/FROM-TO, e.g. tasks.researcher/3/17-20",
            ExitCode.USAGE,
        )
    with when_interrupted(""):
        quiet_logging()
        import asyncio

        asyncio.run(_replay(settings(), matched, workflow, limit))


async def _replay(
    chosen: Settings, records: re.Match[str] | None, workflow: str | None, limit: int | None
) -> None:
    from streams.command_line.log_search import find_workflow
    from streams.command_line.record_json import exact
    from streams.kafka.reader import Reader
    from streams.topics import Topics

    names = Topics(chosen.topic_prefix)
    async with Reader(chosen.connection) as reader:
        if workflow is not None:
            with progress("searching") as tell:
                history = await find_workflow(reader, names, workflow, tell)
            for record in history.records[:limit]:
                write_json(exact(record))
            return
        shown = 0
        assert records is not None  # noqa: S101 (one of the two is given)
        async for record in _range(reader, names, records):
            write_json(exact(record))
            shown += 1
            if shown == limit:
                return


async def _range(reader: Reader, names: Topics, matched: re.Match[str]) -> AsyncIterator[Record]:
    from streams.command_line.log_search import select_topics

    topics = await select_topics(reader, names, [matched["topic"]])
    places = await reader.partitions(topics)
    if matched["partition"] is not None:
        places = [place for place in places if place[1] == int(matched["partition"])]
        if not places:
            raise CommandError(
                f"topic {', '.join(topics)} has no partition {matched['partition']}", ExitCode.NOT_FOUND
            )
    firsts, ends = await reader.first_offsets(places), await reader.end_offsets(places)
    found = False
    for place in places:
        start, end = firsts[place], ends[place]
        if matched["first"] is not None:
            start = max(start, int(matched["first"]))
            end = min(end, int(matched["last"]) + 1) if matched["last"] is not None else end
        # One partition after the other, because their order among each other is not in the log.
        async for record in reader.read({place: start}, ends={place: end}):
            found = True
            yield record
    if not found and matched["first"] is not None:
        (place,) = places
        raise CommandError(
            f"no record of {matched[0]} is there: {place[0]}/{place[1]} keeps offsets {firsts[place]} to"
            f" {ends[place] - 1}",
            ExitCode.NOT_FOUND,
        )
