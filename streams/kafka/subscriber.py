"""One agent's consumer group membership: batches in, positions out, and what a rebalance does to both.

A FastStream batch subscriber with everything per message taken out: raw records go to the handler, nothing is
acknowledged by FastStream (`msg.ack()` would commit the position, finished or not), and only offsets that the
runtime calls done are committed.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.schemas import Topic

from streams.envelope import Record
from streams.kafka.admin import BrokerUnreachableError, committed_offsets, initial_offsets
from streams.kafka.connection import Connection
from streams.kafka.fetcher import Fetcher
from streams.kafka.private_access import (
    client_of,
    coordinator_answers,
    generation_of,
    left_for_good,
    make_dynamic,
    watch_heartbeats,
)

log = structlog.stdlib.get_logger()

POLL_SECONDS = 0.2  # it is over as soon as there is something
BATCH = 500
# A commit costs as much as reading an event, and what a process that dies had not committed, the next one
# knows again: nothing of it runs twice. But what it may have died of is told from its last commit, which
# therefore comes sooner where much ends.
COMMIT_PAUSE = 0.5
SHORT_COMMIT_PAUSE = 0.05
# What the last commit of partitions that go may take, after their runs had time to end.
LAST_COMMIT_SECONDS = 10.0
# What is left then for joining the group again, before it goes on without this member.
REJOIN_SECONDS = 10.0
RETRY_PAUSE = 0.5
# The client leaves the group when nobody polls for this long. Runs are bounded by their own deadlines.
NEVER_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading of one assigned partition begins.

    Attributes:
        topic: Its topic.
        partition: Its number.
        offset: What is read next.
        adopt: It was ours in the generation right before, and nobody else committed.
        metadata: What the last commit said beside the offset.
        end: Where the partition ended: nobody has seen what comes after that; none: not known.
    """

    topic: str
    partition: int
    offset: int
    adopt: bool
    metadata: str = ""
    end: int | None = None


class Handler(Protocol):
    """Who works on what a subscriber reads."""

    async def on_records(self, records: Sequence[Record], epoch: int) -> None:
        """Take a batch; while this does not return, nothing more is read."""

    async def on_revoked(self) -> None:
        """Finish what can be finished: all partitions may go elsewhere when this returns."""

    def metadata_at(self, position: Position) -> str:
        """Say what is committed beside a position before anything of its partition is worked on."""

    async def on_assigned(self, positions: Sequence[Position], epoch: int) -> None:
        """Own exactly these partitions from now on."""

    def commit_of(self, topic: str, partition: int) -> tuple[int, str]:
        """Give the next offset to read after a restart, and what is committed beside it."""


class Membership(Protocol):
    """What a handler may tell and ask its membership of the group."""

    def commit_soon(self, places: Iterable[tuple[str, int]], ended: int = 0) -> None:
        """Commit shortly what `commit_of` gives for these; `ended` runs are over since the last time."""

    async def commit_now(self) -> None:
        """Commit what is pending."""

    def is_certain(self) -> bool:
        """Tell whether this member owns its partitions for certain."""

    async def certainty(self) -> None:
        """Wait until it does; never, if they are lost."""

    def pause(self, places: Iterable[tuple[str, int]]) -> None:
        """Stop reading."""

    def resume(self, places: Iterable[tuple[str, int]]) -> None:
        """Read again."""


class AgentSubscriber(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Membership of one consumer group, for one agent.

    Args:
        broker: The application's FastStream broker.
        connection: To Kafka, for what the broker's consumer cannot ask.
        group: Consumer group.
        topics: Topics to read from their first record where the group has no position.
        late_topics: Topics to read from their end in that case.
        handler: Who works on the records.
        drain_seconds: What `handler.on_revoked` may take.
        slots: Runs at the same time; when as many ended, it is time for a commit.
        session_timeout_ms: After which a member that says nothing is replaced.
        instance_id: Makes the member static: started again within the session, it has its partitions back at
            once. No two processes may use the same.
    """

    def __init__(  # noqa: PLR0913 (one membership's facts, keyword-only)
        self,
        broker: KafkaBroker,
        connection: Connection,
        *,
        group: str,
        topics: Sequence[str],
        late_topics: Sequence[str],
        handler: Handler,
        drain_seconds: float,
        slots: int,
        session_timeout_ms: int,
        instance_id: str | None = None,
    ) -> None:
        self._handler = handler
        self._connection = connection
        self._late_topics = frozenset(late_topics)
        self._group = group
        self._epoch = 0
        self._generation = -1
        self._owned: set[TopicPartition] = set()
        self._committed: dict[TopicPartition, int] = {}
        self._pending: set[TopicPartition] = set()
        self._committer: asyncio.Task[None] | None = None
        self._slots, self._ended = slots, 0
        self._last_commit = 0.0
        self._commit_is_due = asyncio.Event()
        self._commits_now = False
        self._session_seconds = session_timeout_ms / 1000
        self._proven = 0.0
        self._proof = asyncio.Event()
        self._fetcher: Fetcher | None = None  # until the first assignment
        self._fetches = asyncio.Event()
        self._listens = 0.0  # when the client is asked next what is wrong
        self.out_of_range: dict[str, str] = {}
        self._subscriber = broker.subscriber(
            *(Topic(name, declare=False) for name in (*topics, *late_topics)),
            group_id=group,
            batch=True,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            auto_offset_reset="none",
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_poll_interval_ms=NEVER_MS,
            session_timeout_ms=session_timeout_ms,
            group_instance_id=instance_id,
            heartbeat_interval_ms=min(3_000, session_timeout_ms // 3),
            rebalance_timeout_ms=rebalance_timeout_ms(drain_seconds),
            isolation_level="read_committed",
            listener=self,
            title=group,
            description=f"Records for agent group {group}",
        )
        self._subscriber(self._handle)
        # FastStream's own sleeps after each wait in vain, and what comes meanwhile would wait with it.
        self._subscriber.get_msg = self._next_batch  # type: ignore[method-assign]
        # FastStream's own finds out for each batch what a user's handler may want of it, which takes longer
        # than an event of ours.
        self._subscriber.consume_one = self._take  # type: ignore[method-assign]
        self._stop_client, self._subscriber.stop = self._subscriber.stop, self._stop  # type: ignore[method-assign]

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """The running consumer.

        Raises:
            RuntimeError: Before the broker was started.
        """
        if self._subscriber.consumer is None:
            raise RuntimeError(f"group {self._group} has no consumer: the broker is not started")
        return self._subscriber.consumer

    @property
    def owned(self) -> int:
        """How many partitions this member owns."""
        return len(self._owned)

    @property
    def left_for_good(self) -> bool:
        """Whether this member is out of its group and the client does nothing about it."""
        return self._subscriber.consumer is not None and left_for_good(self._subscriber.consumer)

    def leave_when_stopped(self) -> None:
        """Give the partitions up when stopped, static or not: nobody comes back for them."""
        if self._subscriber.consumer is not None:
            make_dynamic(self._subscriber.consumer)

    def not_ready(self) -> str | None:
        """Say why this member does not read, or nothing if it does."""
        if self._subscriber.consumer is None:
            return "not started"
        if self.left_for_good:
            return "it is no member of its group any more, and this worker ends"
        if not self._owned:
            return "no partitions assigned"
        if not coordinator_answers(self._subscriber.consumer):
            return "Kafka does not answer"
        problems = self._fetcher.problems() if self._fetcher is not None else {}
        if problems := self.out_of_range | problems:
            return "; ".join(f"{place}: {why}" for place, why in problems.items())
        ended = all(task.done() for task in self._subscriber.tasks)
        return "its consumer loop ended" if ended else None

    def lag(self) -> dict[str, int]:
        """Give the records not read yet, per topic, as far as the last fetches told."""
        found: dict[str, int] = {}
        for tp in self._owned:
            position = self._committed.get(tp)
            end = None if self._fetcher is None else self._fetcher.end(tp)
            if end is not None and position is not None:
                found[tp.topic] = found.get(tp.topic, 0) + max(0, end - position)
        return found

    def commit_soon(self, places: Iterable[tuple[str, int]], ended: int = 0) -> None:
        """Commit shortly what the handler then says of these topics and partitions.

        Args:
            places: Topics and partitions.
            ended: How many runs are over since the last time.
        """
        self._pending.update(TopicPartition(*place) for place in places)
        self._ended += ended
        if self._ended >= self._slots:
            self._commit_is_due.set()
        if self._committer is None or self._committer.done():
            self._committer = asyncio.get_running_loop().create_task(self._commit_in_time())

    async def commit_now(self) -> None:
        """Commit what is pending; returns when it is committed, or is not ours to commit any more."""
        self._commits_now = True
        self._commit_is_due.set()
        try:
            # Not one that ended: a stop that gave up waiting canceled it, and awaiting it again would raise
            # that cancellation into the client's rebalance, which then ends for good.
            if self._committer is not None and not self._committer.done():
                await self._committer
            await self._commit_in_time()
        finally:
            self._commits_now = False
            self._commit_is_due.clear()

    def is_certain(self) -> bool:
        """Tell whether this member is in its group for certain: it was told so within the session."""
        return time.monotonic() - self._proven < self._session_seconds

    async def certainty(self) -> None:
        """Wait until it is certain again that this member is in its group.

        A process that was frozen does not know that others took its partitions, and goes on where it was: it
        would do again what they have done. The clock goes on meanwhile. If the partitions are lost, who waits
        here is canceled when the client hears of it.
        """
        while not self.is_certain():
            self._proof.clear()
            await self._proof.wait()

    def _prove(self, at: float) -> None:
        self._proven = at
        self._proof.set()

    def pause(self, places: Iterable[tuple[str, int]]) -> None:
        """Read nothing more of these partitions for now."""
        if self._fetcher is not None:
            self._fetcher.pause(TopicPartition(*place) for place in places)

    def resume(self, places: Iterable[tuple[str, int]]) -> None:
        """Read these partitions again."""
        if self._fetcher is not None:
            self._fetcher.resume(TopicPartition(*place) for place in places)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Take note that a rebalance begins."""
        if revoked:
            log.info("rebalance begins", group=self._group, partitions=len(revoked))
        if self._fetcher is not None:
            self._fetcher.assign({})
        await self._handler.on_revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Position what was assigned and hand it over.

        A partition that came back in the very next generation cannot have been anyone else's in between, so
        what runs of it goes on. If a generation is missing, this member was out of the group for a while.
        """
        joined = time.monotonic()
        # What ends from here on is not committed by the way: a commit after the positions were read would
        # make them look like another member's, and what is under way would be done again.
        owned, self._owned = self._owned, set()
        # The client itself fetches nothing, now or later: we do.
        self.consumer.pause(*assigned)
        generation = generation_of(self.consumer)
        straight_back = owned if generation == self._generation + 1 else set()
        starts, ends, metadata = await self._positions_at_last(assigned)
        adopted = adoptable(assigned, straight_back, self._committed, starts)
        positions = [
            Position(tp.topic, tp.partition, starts[tp], tp in adopted, metadata.get(tp, ""), ends[tp])
            for tp in sorted(assigned)
        ]
        await self._say_that_we_begin(positions)
        readable = {
            tp: starts[tp] for tp in assigned if f"{tp.topic}/{tp.partition}" not in self.out_of_range
        }
        for tp, start in readable.items():
            self.consumer.seek(tp, start)  # else it would look for a position itself
        fetcher = self._fetcher_of(self.consumer)
        self._prove(joined)
        self._epoch += 1
        self._generation, self._owned, self._committed = generation, set(assigned), dict(starts)
        fetcher.assign(readable)
        self._pending.clear()
        log.info(
            "partitions assigned",
            group=self._group,
            partitions=len(assigned),
            adopted=len(adopted),
            generation=generation,
        )
        await self._handler.on_assigned(positions, self._epoch)
        self.commit_soon((tp.topic, tp.partition) for tp in adopted)  # what ended meanwhile

    async def _say_that_we_begin(self, positions: Sequence[Position]) -> None:
        """Commit, before anything is worked on, that a member begins: if it dies, the next one can tell."""
        begun = {
            TopicPartition(p.topic, p.partition): (p.offset, self._handler.metadata_at(p))
            for p in positions
            if f"{p.topic}/{p.partition}" not in self.out_of_range
        }
        try:
            if begun:
                await self.consumer.commit(begun)
        except KafkaError as error:
            # Only a hint: if Kafka is away or the group moves on already, deaths are counted one short.
            log.warning("the beginning could not be noted", group=self._group, error=str(error))

    async def _positions_at_last(
        self, assigned: set[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int], dict[TopicPartition, str]]:
        # An error that left this callback would only be logged by the client, and the partitions would be
        # owned and never worked on. But once the membership is lost nothing succeeds, and the client joins
        # anew only after this callback.
        generation = generation_of(self.consumer)
        while True:
            try:
                return await self._positions(assigned)
            except (KafkaError, BrokerUnreachableError) as error:
                if generation_of(self.consumer) != generation:
                    raise
                log.warning("positions unknown, trying again", group=self._group, error=str(error))
                await asyncio.sleep(RETRY_PAUSE)

    async def _positions(
        self, assigned: set[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int], dict[TopicPartition, str]]:
        """Give where each partition goes on and ends and what was said about it; commits missing beginnings.

        A position before the first or after the last kept record is never moved: what lies between would be
        skipped in silence. Its partition stays paused, and readiness says why.
        """
        if not assigned:
            return {}, {}, {}
        consumer, partitions = self.consumer, sorted(assigned)
        known = await committed_offsets(self._connection, self._group)
        committed = {tp: known[tp][0] for tp in partitions if tp in known}
        missing = [tp for tp in partitions if tp not in committed]
        if missing:
            begin = await initial_offsets(consumer, missing, self._late_topics)
            await consumer.commit(begin)
            committed.update(begin)
        first = await consumer.beginning_offsets(partitions)
        last = await consumer.end_offsets(partitions)
        self.out_of_range = {}
        for tp in partitions:
            if not first[tp] <= committed[tp] <= last[tp]:
                consumer.seek(tp, last[tp])
                consumer.pause(tp)
                self.out_of_range[f"{tp.topic}/{tp.partition}"] = (
                    f"committed offset {committed[tp]} is outside of what is kept, {first[tp]} to {last[tp]}"
                )
                log.error(
                    "partition stopped: its committed offset is out of range; set the group's offset with"
                    " kafka-consumer-groups.sh --reset-offsets while no worker runs, then start again",
                    group=self._group,
                    topic=tp.topic,
                    partition=tp.partition,
                    committed=committed[tp],
                    first=first[tp],
                    end=last[tp],
                )
        return committed, last, {tp: metadata for tp, (_, metadata) in known.items()}

    async def _next_batch(self, consumer: AIOKafkaConsumer) -> tuple[Record, ...]:
        # What is wrong with the membership the client says here alone, and does nothing about it until it is
        # heard. It also waits here while it has no assignment.
        now = time.monotonic()
        if now >= self._listens:
            self._listens = now + POLL_SECONDS
            await consumer.getmany()
        if self._fetcher is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._fetches.wait()
            return ()
        return await self._fetcher.records(BATCH, POLL_SECONDS)

    def _fetcher_of(self, consumer: AIOKafkaConsumer) -> Fetcher:
        client = client_of(consumer)
        if self._fetcher is None or self._fetcher.client is not client:
            watch_heartbeats(consumer, self._prove)
            self._fetcher = Fetcher(client)
            self._fetches.set()
        return self._fetcher

    async def _stop(self) -> None:
        if self._subscriber.consumer is not None:
            # Before the connections end, which it would open again. Made for that if it is not there yet: a
            # consumer that stops lets a rebalance end first, whose assignment finds it closed.
            await self._fetcher_of(self._subscriber.consumer).close()
        await self._stop_client()

    async def _take(self, msg: tuple[Record, ...]) -> None:
        with self._subscriber.lock:  # what stops the subscriber waits for it
            if self._subscriber.running:
                await self._handle(msg)

    async def _handle(self, batch: Any) -> None:
        # Stamped here, with no await since the client handed the batch out: what is read before a rebalance
        # and handled after it carries the old epoch, and the runtime drops it.
        epoch = self._epoch
        try:
            await self._handler.on_records(batch, epoch)
        except Exception:
            # FastStream would begin anew with the next batch, and the records of this one would never be
            # done. Reading it again costs little: what was taken before the failure is recognised.
            log.exception("a batch could not be taken, reading it again", group=self._group)
            await asyncio.sleep(RETRY_PAUSE)
            self._read_again(batch, epoch)

    def _read_again(self, records: Sequence[Record], epoch: int) -> None:
        if epoch != self._epoch:
            return  # a rebalance came: whoever owns the partitions now reads from the committed offsets
        first: dict[TopicPartition, int] = {}
        for record in records:
            first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for tp, offset in first.items():
            if self._fetcher is not None:
                self._fetcher.seek(tp, offset)

    async def _commit_in_time(self) -> None:
        while self._pending:
            if not self._commits_now:
                await self._commit_pause()
            await self._commit_pending()

    async def _commit_pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._last_commit + COMMIT_PAUSE - time.monotonic()):
                await self._commit_is_due.wait()
        await asyncio.sleep(self._last_commit + SHORT_COMMIT_PAUSE - time.monotonic())

    async def _commit_pending(self) -> None:
        pending, self._pending = self._pending, set()
        self._last_commit, self._ended = time.monotonic(), 0
        self._commit_is_due.clear()
        offsets = {tp: self._handler.commit_of(tp.topic, tp.partition) for tp in pending & self._owned}
        try:
            if offsets:
                await self.consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            # Another member owns them by now: it reads from the last commit that worked.
            log.warning("commit refused: partitions moved", group=self._group, error=str(error))
        except KafkaError as error:
            log.warning("commit failed, trying again", group=self._group, error=str(error))
            self._pending |= pending
            await asyncio.sleep(RETRY_PAUSE)
        else:
            self._committed.update((tp, offset) for tp, (offset, _) in offsets.items())


def rebalance_timeout_ms(drain_seconds: float) -> int:
    """Give what the group waits for a member in a rebalance: longer than all it does before it joins again.

    Derived, so that no setting can make it too short: a member that is late loses what it was letting end.
    """
    return int((drain_seconds + LAST_COMMIT_SECONDS + REJOIN_SECONDS) * 1000)


def adoptable(
    assigned: Collection[TopicPartition],
    straight_back: Collection[TopicPartition],
    committed: Mapping[TopicPartition, int],
    starts: Mapping[TopicPartition, int],
) -> set[TopicPartition]:
    """Tell which partitions go on where they were: those that came straight back, as we left them.

    Partitions of one number go together: they share results, journal and joins. A commit whose answer got
    lost makes one of them look strange, and then what the others have under way cannot be told from what
    the next owner of that one would do again.
    """
    as_we_left_them = {
        tp for tp in assigned if tp in straight_back and committed.get(tp, starts[tp]) == starts[tp]
    }
    strange = {tp.partition for tp in assigned if tp not in as_we_left_them}
    return {tp for tp in as_we_left_them if tp.partition not in strange}
