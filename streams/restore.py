"""What happened before, read back from Kafka when a partition is taken over: nothing else is remembered.

Results tell which runs have an outcome: they never run again. The journal tells what the others have done: it
is not done again. Both are read from the time of the first record that is not committed, so it costs as much
as there is unfinished work, however long the topics are.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from streams import envelope as envelopes
from streams.envelope import EnvelopeError, Record
from streams.join_parts import RecordPlace
from streams.journal import learn
from streams.kafka.connection import Connection
from streams.kafka.reader import CLOCK_SKEW_MS, Place, Reader
from streams.work import RunHistory

if TYPE_CHECKING:
    from streams.kafka.subscriber import Position

# So many offsets back a second copy of an event is recognized, after a restart, too.
WINDOW = 2_000
# Records are read in one go if no more than this lie between two of them.
NEAR = 2_000

# Topic, partition, offset, identity and time in milliseconds of an event.
SeenEvent = tuple[str, int, int, bytes, int]


@dataclass(slots=True)
class Log:
    """What was read.

    Attributes:
        finished: Ids of results, per partition number.
        histories: What the journal knows, by run id, per partition number.
        events: Those before the position.
    """

    finished: dict[int, set[str]] = field(default_factory=dict)
    histories: dict[int, dict[str, RunHistory]] = field(default_factory=dict)
    events: list[SeenEvent] = field(default_factory=list)


class Restore(Protocol):
    """Reads what happened before."""

    async def __call__(self, since: Mapping[int, int], before: Mapping[Place, int]) -> Log:
        """Read results and journal per partition number since a time, and events before a position.

        Args:
            since: Milliseconds since 1970.
            before: The position of partitions whose last events are to be recognised.
        """


class KafkaRestore:
    """Reads the topics of one agent.

    Args:
        connection: To Kafka.
        results: Topic of the agent's results.
        journal: Topic of its journal.
    """

    def __init__(self, connection: Connection, *, results: str, journal: str) -> None:
        self._connection = connection
        self._results, self._journal = results, journal

    async def __call__(self, since: Mapping[int, int], before: Mapping[Place, int]) -> Log:
        """Read it all in one go."""
        log = Log({n: set() for n in since}, {n: {} for n in since})
        async with Reader(self._connection) as reader:
            topics = (self._results, self._journal)
            starts = await reader.first_offsets_since(
                {(topic, n): time for topic in topics for n, time in since.items()}
            )
            ends = await reader.end_offsets(starts)
            if before:
                first = await reader.first_offsets(before)
                starts |= {place: max(first[place], before[place] - WINDOW) for place in before}
                ends |= before
            async for record in reader.read(starts, ends=ends):
                if record.topic == self._results:
                    _note_result(log, record)
                elif record.topic == self._journal:
                    learn(log.histories[record.partition], record)
                elif (identity := identity_of(record)) is not None:
                    log.events.append(
                        (record.topic, record.partition, record.offset, identity, record.timestamp)
                    )
        return log


class KafkaJoinLog:
    """Reads what the joins of one agent need.

    Args:
        connection: To Kafka.
        topic: The agent's topic of joins.
    """

    def __init__(self, connection: Connection, *, topic: str) -> None:
        self._connection, self._topic = connection, topic

    async def states(self, partitions: Collection[int]) -> dict[int, list[Record]]:
        """Give all records of the topic of joins, per partition, in order."""
        found: dict[int, list[Record]] = {partition: [] for partition in partitions}
        async with Reader(self._connection) as reader:
            starts = await reader.first_offsets((self._topic, partition) for partition in partitions)
            async for record in reader.read(starts):
                found[record.partition].append(record)
        return found

    async def records(self, places: Collection[RecordPlace]) -> dict[RecordPlace, Record]:
        """Give the records at topics, partitions and offsets, without those that are not kept any more."""
        found: dict[RecordPlace, Record] = {}
        wanted = set(places)
        async with Reader(self._connection) as reader:
            first = await reader.first_offsets({(topic, partition) for topic, partition, _ in wanted})
            for near in _near(it for it in sorted(wanted) if it[2] >= first[it[:2]]):
                (topic, partition, start), end = near[0], near[-1][2] + 1
                place = topic, partition
                async for record in reader.read({place: start}, ends={place: end}):
                    if (here := (topic, partition, record.offset)) in wanted:
                        found[here] = record
        return found


def _near(places: Iterable[RecordPlace]) -> list[list[RecordPlace]]:
    """Put places, in order, into groups that are worth reading in one go."""
    groups: list[list[RecordPlace]] = []
    for place in places:
        last = groups[-1][-1] if groups else None
        if last is not None and place[:2] == last[:2] and place[2] - last[2] < NEAR:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


class Past:
    """What one worker knows of the past of its partitions, and of which partitions it knows it.

    As much as was written since the first event that was not finished when a partition came, an id for each
    result; it does not grow with the time for which the partition is owned.

    Args:
        restore: Reads it.
    """

    def __init__(self, restore: Restore) -> None:
        self._restore = restore
        self._reading = asyncio.Lock()
        self._epoch = -1  # what the client hands out during its first assignment is read again after it
        self._unseen: dict[Place, int] = {}
        self._since: dict[int, int] = {}
        self._finished: dict[int, set[str]] = {}
        self._histories: dict[int, dict[str, RunHistory]] = {}

    def assign(self, positions: Sequence["Position"], kept: Collection[int], epoch: int) -> None:
        """Own other partitions: forget the past of those that were lost, it may go on elsewhere.

        Args:
            positions: Of all that are owned now.
            kept: Numbers of the partitions that were never lost.
            epoch: Counts assignments.
        """
        self._epoch = epoch
        for known in (self._since, self._finished, self._histories):
            for partition in [n for n in known if n not in kept]:
                del known[partition]
        before, self._unseen = self._unseen, {}
        for position in positions:
            place = position.topic, position.partition
            if not position.adopt:
                self._unseen[place] = position.offset
            elif place in before:
                self._unseen[place] = before[place]

    async def read(self, records: Sequence[Record], epoch: int) -> Sequence[SeenEvent] | None:
        """Read what is not known yet of the past of records; none: their partitions were lost meanwhile.

        Returns:
            The last events before the positions of partitions that were not read before.
        """
        async with self._reading:  # records and joins ask for it, and one reading is enough for both
            if epoch != self._epoch:
                return None
            since = self._unknown(records)
            unseen = self._unseen.keys()
            places = unseen & {(record.topic, record.partition) for record in records} if unseen else ()
            if not since and not places:
                return ()
            log = await self._restore(since, {place: self._unseen[place] for place in places})
            if epoch != self._epoch:
                return None
            self._learn(log, since)
            for place in places:
                del self._unseen[place]
            return log.events

    def _unknown(self, records: Sequence[Record]) -> dict[int, int]:
        """Give the partition numbers whose past has to be read for these records, and since when.

        A result is not older than what it answers. Each input topic has a backlog of its own, and one may be
        hours older than another; looking again needs half of the skew, so that jitter of some seconds between
        clocks does not.
        """
        found: dict[int, int] = {}
        for _, partition, earliest, _ in envelopes.by_partition(records):
            known = self._since.get(partition)
            # A producer's clock may be anywhere, and what is looked for before is not found after: where it
            # stamped a record, the earliest time is 0, and everything is read.
            if known is None or max(0, earliest - CLOCK_SKEW_MS // 2) < known:
                since = max(0, earliest - CLOCK_SKEW_MS)
                found[partition] = min(since, found.get(partition, since))
        return found

    def _learn(self, log: Log, since: Mapping[int, int]) -> None:
        """Take note of what was read."""
        self._since |= since
        for partition, ids in log.finished.items():
            self._finished[partition] = ids | self._finished.get(partition, set())
        for partition, histories in log.histories.items():
            finished = self._finished.get(partition, set())
            self._histories[partition] = self._histories.get(partition, {}) | {
                run: history for run, history in histories.items() if envelopes.result_id(run) not in finished
            }

    def knows(self, partition: int) -> bool:
        """Tell whether anything is known of the runs of a partition: of most, nothing is."""
        return bool(self._finished.get(partition) or self._histories.get(partition))

    def has_outcome(self, partition: int, run: str) -> bool:
        """Tell whether a run's result is in the log."""
        finished = self._finished.get(partition)
        return finished is not None and bool(finished) and envelopes.result_id(run) in finished

    def history(self, partition: int, run: str) -> RunHistory | None:
        """Give what the journal knows of a run, if it knows anything, until the run is `over`.

        Not only once: what is offered while a rebalance goes on is dropped, and comes again.
        """
        histories = self._histories.get(partition)
        return histories.get(run) if histories else None

    def knows_of_runs(self) -> bool:
        """Tell whether the journal knows of runs that are not over."""
        return any(self._histories.values())

    def over(self, partition: int, run: str) -> None:
        """Forget what a run did: its result is in the log."""
        self._histories.get(partition, {}).pop(run, None)


def identity_of(record: Record) -> bytes | None:
    """Give what makes two records the same event; none for one that is only its place."""
    try:
        envelope = envelopes.decode(record)
    except EnvelopeError:
        return None
    return envelope.identity()


def _note_result(log: Log, record: Record) -> None:
    identity = next((value for name, value in record.headers if name == "ce_id"), None)
    if identity is not None:
        log.finished[record.partition].add(identity.decode(errors="replace"))
