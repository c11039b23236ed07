"""Finds topics, moments and workflows in the log, for the commands that read it."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from streams.command_line.output import CommandError, ExitCode
from streams.envelope import Record, place, task_time
from streams.history import History, workflow_of
from streams.kafka.reader import CLOCK_SKEW_MS, Place, Reader
from streams.topics import Topics

PLACE = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)/(?P<partition>\d{1,9})/(?P<offset>\d{1,18})")

SHORTEST_PREFIX = 4
MOST_CANDIDATES = 10
TELL_SECONDS = 1.0
# No id of ours is older. A prefix whose time would be before is no UUIDv7's.
EPOCH_MS = 1_735_689_600_000

Tell = Callable[[str], None]


async def event_topics(reader: Reader, names: Topics) -> list[str]:
    """Give all topics of tasks and results.

    Raises:
        CommandError: If there is none.
    """
    found = sorted(topic for topic in await reader.topics() if names.has_events(topic))
    if not found:
        raise CommandError(
            "there are no topics of tasks or results yet: an application makes them when it starts, e.g. with"
            " `callboard run examples.hello:app --llm off`",
            ExitCode.NOT_FOUND,
        )
    return found


async def select_topics(reader: Reader, names: Topics, wanted: Sequence[str]) -> list[str]:
    """Give the topics that `wanted` names: exactly, without the prefix, or by a pattern like `results.*`.

    Raises:
        CommandError: If one of them names none.
    """
    existing = sorted(await reader.topics())
    found: dict[str, None] = {}
    for pattern in wanted:
        matching = [pattern] if pattern in existing else []
        matching = matching or [
            topic
            for topic in existing
            if fnmatchcase(topic, pattern) or fnmatchcase(topic, names.prefix + pattern)
        ]
        if not matching:
            have = ", ".join(topic for topic in existing if not topic.startswith("__")) or "none"
            raise CommandError(f"there is no topic {pattern!r}; there are: {have}", ExitCode.NOT_FOUND)
        found |= dict.fromkeys(matching)
    return list(found)


@dataclass(slots=True)
class Search:
    """What a scan for one workflow has found; many ids may begin with what was typed."""

    wanted: str
    searched: int = 0
    records: dict[str, list[Record]] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """Look at a record."""
        self.searched += 1
        found = workflow_of(record)
        if not found.startswith(self.wanted):
            return
        if found in self.records or found == self.wanted or len(self.records) <= MOST_CANDIDATES:
            self.records.setdefault(found, []).append(record)

    def only(self, topics: Sequence[str]) -> str:
        """Give the one workflow that was meant.

        Raises:
            CommandError: If there is none, or several; `topics` says where it was looked for.
        """
        if self.wanted in self.records:
            return self.wanted
        if len(self.records) == 1:
            return next(iter(self.records))
        if self.records:
            shown = ", ".join(sorted(self.records)[:MOST_CANDIDATES])
            more = " and more" if len(self.records) > MOST_CANDIDATES else ""
            raise CommandError(
                f"several workflows begin with {self.wanted!r}: {shown}{more}; give more of the id",
                ExitCode.USAGE,
            )
        raise CommandError(
            f"no workflow {self.wanted!r}: none of {self.searched:,} records in {', '.join(topics)}"
            " belongs to it",
            ExitCode.NOT_FOUND,
        )


async def find_workflow(reader: Reader, names: Topics, wanted: str, tell: Tell) -> History:
    """Rebuild a workflow from the log.

    Args:
        reader: Reads the log.
        names: Topic names.
        wanted: A correlation id, the beginning of just one, or the place of one of its events.
        tell: Receives a sentence when it takes long.

    Raises:
        CommandError: If there is none, or several.
    """
    topics = await event_topics(reader, names)
    places = await reader.partitions(topics)
    starts: Iterable[int | None]
    if matched := PLACE.fullmatch(wanted):
        record = await record_at(
            reader, names, matched["topic"], int(matched["partition"]), int(matched["offset"])
        )
        if not names.has_events(record.topic):
            raise CommandError(f"{place(record)} is no task or result", ExitCode.NOT_FOUND)
        wanted = workflow_of(record)
        # A workflow named by its first event's place begins there. Any other name tells at most a time.
        starts = [record.timestamp if wanted == place(record) else task_time(wanted)]
    else:
        starts = search_starts(wanted)
    search = Search(wanted)
    for start in starts:
        search = Search(wanted)
        since = None if start is None else max(0, start - CLOCK_SKEW_MS)
        await _scan(reader, places, since, search, tell)
        if search.records:
            break
    chosen = search.only(topics)
    history = History(chosen, names)
    for record in search.records[chosen]:
        history.add(record)
    return history


async def record_at(reader: Reader, names: Topics, topic: str, partition: int, offset: int) -> Record:
    """Read one record.

    Raises:
        CommandError: If it is not there.
    """
    (topic,) = await select_topics(reader, names, [topic])
    where = (topic, partition)
    if where not in (partitions := await reader.partitions([topic])):
        raise CommandError(
            f"topic {topic} has {len(partitions)} partitions, none has number {partition}", ExitCode.NOT_FOUND
        )
    first = (await reader.first_offsets([where]))[where]
    end = (await reader.end_offsets([where]))[where]
    if first <= offset < end:
        async for record in reader.read({where: offset}, ends={where: offset + 1}):
            return record
    kept = f"the partition keeps offsets {first} to {end - 1}" if first < end else "the partition is empty"
    raise CommandError(f"there is no record at {topic}/{partition}/{offset}: {kept}", ExitCode.NOT_FOUND)


def search_starts(wanted: str) -> list[int | None]:
    """Tell where to begin to search: where the id's time says, and for a part of an id also everywhere.

    Raises:
        CommandError: If it is too short to mean one.
    """
    if len(wanted) < SHORTEST_PREFIX:
        raise CommandError(
            f"{wanted!r} is too short: give at least {SHORTEST_PREFIX} characters of the workflow's id",
            ExitCode.USAGE,
        )
    if (exact := task_time(wanted)) is not None:
        return [exact]
    # The first 48 bits of a UUIDv7 are its time, so the beginning of an id is the earliest time it can mean.
    digits = wanted.replace("-", "")[:12].lower()
    if re.fullmatch("[0-9a-f]+", digits):
        earliest = int(digits.ljust(12, "0"), 16)
        if EPOCH_MS < earliest < time.time() * 1000 + CLOCK_SKEW_MS:
            return [earliest, None]
    return [None]


async def _scan(
    reader: Reader, places: Sequence[Place], since: int | None, search: Search, tell: Tell
) -> None:
    told = time.monotonic()
    async for record in reader.read(await reader.first_offsets(places, since=since)):
        search.take(record)
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            tell(f"searched {search.searched:,} records so far")
