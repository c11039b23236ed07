"""The parts of one agent's joins: what they come to is written to `joins.<agent>`, what fires is handed on.

Does what `JoinTable` says: a part is done when its change is in the log, and a join begins to run when the
change that says so is. Never touches the Kafka clients.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Protocol

import structlog

from agents import metrics
from streams.envelope import Record, record_digest
from streams.join_records import Key, Reference
from streams.join_table import Change, Firing, JoinTable
from streams.kafka.publisher import RETRY_PAUSE
from streams.kafka.record_batch import EncodedRecord
from streams.outboxes import Outboxes
from streams.work import Part, failed

log = structlog.stdlib.get_logger()

# A time limit is told late by this much: what came in time may still be on its way here.
GRACE_MS = 1_000
# A partition of which older records than this come in is catching up: parts that came in time may be next.
OLD_MS = 5_000
CATCHING_UP_SECONDS = 2.0
SWEEP_SECONDS = 600.0


RecordPlace = tuple[str, int, int]


class JoinLog(Protocol):
    """Reads what joins need from Kafka."""

    async def states(self, partitions: Collection[int]) -> Mapping[int, Sequence[Record]]:
        """Give all records of the topic of joins, per partition, in order."""

    async def records(self, places: Collection[RecordPlace]) -> Mapping[RecordPlace, Record]:
        """Give the records at topics, partitions and offsets, without those that are not kept any more."""


class JoinParts:
    """The joins of one agent, until they fire.

    Args:
        agent: Name of the agent.
        source: Reads the log.
        outboxes: Makes those of the topic of joins, given what to tell.
        fire: Called with what fires.
        acknowledge: Called with the numbers of parts whose changes are in the log.
        clock: Milliseconds since 1970.
    """

    def __init__(  # noqa: PLR0913 (its surroundings, keyword-only)
        self,
        *,
        agent: str,
        source: JoinLog,
        outboxes: Callable[..., Outboxes],
        fire: Callable[[Firing], None],
        acknowledge: Callable[[Sequence[int]], None],
        clock: Callable[[], int],
    ) -> None:
        self._agent, self._source = agent, source
        self.outboxes = outboxes(acknowledged=self._acknowledged)
        self._fire, self._acknowledge, self._clock = fire, acknowledge, clock
        self.table = JoinTable()
        self._written: dict[int, tuple[int, Firing | None, int | None]] = {}
        self._numbers = count(1)
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._caught_up: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._swept = time.monotonic()

    def assign(self, partitions: Collection[int], kept: Collection[int]) -> None:
        """Own exactly these partitions: read the state of those that were not ours, forget that of others."""
        self.outboxes.keep_only(kept)
        for partition in self._loading.keys() - set(kept):
            loading = self._loading.pop(partition)
            if loading not in self._loading.values():
                loading.cancel()  # while some of what it reads is still ours, it goes on for that
            self.table.drop(partition)
        self._written = {sent: it for sent, it in self._written.items() if it[0] in kept}
        new = [partition for partition in partitions if partition not in self._loading]
        if new:
            loading = asyncio.get_running_loop().create_task(self._load(new))
            self._loading |= dict.fromkeys(new, loading)

    async def ready(self, partition: int) -> None:
        """Wait until the state of a partition is known, or the partition is lost.

        Not even a cancellation ends that: a part that is too late is taken nevertheless, and taken before the
        state is known it would be forgotten by the reading of it.
        """
        while (loading := self._loading.get(partition)) is not None and not loading.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([loading])

    def note(self, records: Iterable[Record]) -> None:
        """Take note of what is being read: time limits of a partition that is catching up wait."""
        old = self._clock() - OLD_MS
        now = time.monotonic()
        for record in records:
            if record.timestamp < old:
                self._caught_up[record.partition] = now + CATCHING_UP_SECONDS

    def take(self, number: int, part: Part) -> None:
        """Take a part; `acknowledge` is called with its number when it need not come again."""
        partition = part.record.partition
        if part.gone:
            gone = [_reference(part, agent, "gone") for agent in part.gone]
            taken = self.table.take_away(partition, part.key, gone, part.awaiting)
        else:
            status = "failed" if failed(part.payload, part.envelope) else "completed"
            reference = _reference(part, part.agent, status)
            taken = self.table.take(partition, part.key, reference, part.awaiting, part.record)
        if taken.skipped is not None:
            metrics.counter("skipped", self._agent, taken.skipped).inc()
        self._write(taken.changes, number)
        self._set_timer()

    def finish(self, partition: int, key: Key) -> None:
        """Take note that the result of a join that fired is in the log."""
        self._write(self.table.finish(partition, key, self._clock()))

    def close(self) -> None:
        """Stop; what is not written is done again by whoever comes next."""
        self.assign((), ())
        if self._timer is not None:
            self._timer.cancel()

    # Writing ------------------------------------------------------------------------------------

    def _write(self, changes: Sequence[Change], number: int | None = None) -> None:
        if not changes and number is not None:
            self._acknowledge([number])
        for position, change in enumerate(changes, 1):
            sent = next(self._numbers)
            last = position == len(changes)
            self._written[sent] = change.partition, change.firing, number if last else None
            self.outboxes.put(change.partition, [(sent, EncodedRecord(change.key, change.value, []))])

    def _acknowledged(self, numbers: Sequence[int]) -> None:
        done: list[int] = []
        for sent in numbers:
            _, firing, number = self._written.pop(sent)
            if firing is not None:
                self._fire(firing)
            if number is not None:
                done.append(number)
        if done:
            self._acknowledge(done)

    # Reading back -------------------------------------------------------------------------------

    async def _load(self, partitions: Sequence[int]) -> None:
        while True:
            try:
                states = await self._source.states(partitions)
                break
            except Exception as error:  # noqa: BLE001 (whatever it is, its joins cannot go on without)
                log.warning("joins cannot be read, trying again", agent=self._agent, error=repr(error))
                await asyncio.sleep(RETRY_PAUSE)
        now = time.monotonic()
        for partition in partitions:
            if self._loading.get(partition) is not asyncio.current_task():
                continue  # lost meanwhile, and perhaps being read anew
            loaded = self.table.load(partition, states.get(partition, ()))
            for problem in loaded.problems:
                metrics.counter("skipped", self._agent, "join_state").inc()
                log.error("not a state of a join, passing over it", agent=self._agent, problem=str(problem))
            self._caught_up[partition] = now + CATCHING_UP_SECONDS
            self._write(loaded.changes)
            for firing in loaded.firings:
                self._fire(firing)
        self._set_timer()

    # Time ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Fire what is due, and forget what is over."""
        now = time.monotonic()
        behind = [partition for partition, until in self._caught_up.items() if until > now]
        self._write(self.table.due(self._clock() - GRACE_MS, behind=behind))
        if now - self._swept > SWEEP_SECONDS:
            self._swept = now
            self._write(self.table.sweep(self._clock()))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.table.next_due()
        if due is not None:
            # Never sooner than in a second: a limit that has to wait for old records is looked at again.
            seconds = max(1.0, (due + GRACE_MS - self._clock()) / 1000)
            self._timer = asyncio.get_running_loop().call_later(min(seconds, SWEEP_SECONDS), self.tick)


def _reference(part: Part, agent: str, status: str) -> Reference:
    record = part.record
    return Reference.model_validate(
        {
            "agent": agent,
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "digest": record_digest(record),
            "status": status,
            "at": max(0, record.timestamp),  # -1: its producer gave none
        }
    )
