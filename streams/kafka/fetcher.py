"""Asks Kafka for records: at each broker, one request waits for what brings something and one for the rest.

The client's own fetcher asks for all partitions with each request, and a broker looks through all of them for
each, as the client does through the answer. An agent reads its tasks and the results of others, of which
usually some bring everything and the rest nothing.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from contextvars import Context
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import KafkaError, NoError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest

from streams.kafka.fetched import Record, Unread

log = structlog.stdlib.get_logger()

# How long Kafka keeps a request for which there is nothing, in milliseconds. What is asked for by neither
# request, since it was paused or not read yet, waits at most as long as the shorter one.
LIVELY_WAIT_MS, QUIET_WAIT_MS = 100, 500
# A partition counts as lively for so long after it brought something.
LIVELY_SECONDS = 1.0
# As much of one partition, and of all, as the client asks for by default.
MAX_PARTITION_BYTES, MAX_BYTES = 1024 * 1024, 50 * 1024 * 1024
# After so many turns of the event loop, the result of an event that takes no time is on its way, and more is
# asked for; no later than that, since many events together take longer.
TURNS_OF_AN_EVENT = 10
TURNS_SECONDS = 0.01
# How long the next request waits for what the last one brought to be handed out, to ask for it as well.
PATIENCE_SECONDS = 0.1
RETRY_PAUSE = 0.1
# When a partition is asked for again that has an error which will hardly pass by itself.
ERROR_PAUSE = 5.0
# The answer says in this version and later, beside the aborted transactions, which replica it prefers.
WITH_PREFERRED_REPLICA = 11


class _Partition:
    """What is read of one partition.

    Args:
        place: Which one.
        position: What is handed out next.
        lively_until: See `LIVELY_SECONDS`.
    """

    __slots__ = ("end", "lively_until", "node", "paused", "place", "position", "problem", "rests", "unread")

    def __init__(self, place: TopicPartition, position: int, lively_until: float) -> None:
        self.place, self.position, self.lively_until = place, position, lively_until
        self.node = -1  # that leads it, as far as known
        self.unread: Unread | None = None
        self.paused = False
        self.rests = False  # until it may be asked for again after an error
        self.end: int | None = None
        self.problem: str | None = None


class _Request:
    """What one of the two requests at a broker is about, again and again.

    Args:
        node: The broker.
        lively: Whether it is the one for what brings something.
    """

    def __init__(self, node: int, *, lively: bool) -> None:
        self.node, self.lively = node, lively
        self.wait_ms = LIVELY_WAIT_MS if lively else QUIET_WAIT_MS
        # A broker answers one request of a connection after the other.
        self.connection: Any = ConnectionGroup.DEFAULT if lively else "quiet"
        self.other = self
        self.asked: dict[_Partition, int] = {}  # what waits at the broker, and from which position on
        self.problem: str | None = None  # why there was no answer the last time
        self.changed = asyncio.Event()
        self.turn = 0

    def is_about(self, it: _Partition, now: float) -> bool:
        """Tell whether it asks for a partition.

        What changes between the two is asked for twice rather than by none, and what comes twice is taken
        once: the lively one keeps what became quiet until the other has it, and the quiet one what became
        lively for as long as the other waits without it.
        """
        other = self.other.asked
        if now < it.lively_until:
            return self.lively or (bool(other) and it not in other)
        return not self.lively or it not in other


class Fetcher:
    """Reads the partitions it is given, each from its position on, in order.

    A partition that cannot be read is asked for again after a while, and never passed over; others go on.

    Args:
        client: Of the consumer. Whoever started it stops it, after `close`.
        clock: Monotonic seconds.
    """

    def __init__(self, client: AIOKafkaClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._fetched: dict[TopicPartition, _Partition] = {}  # with something unread, in turn
        self._requests: dict[tuple[int, bool], _Request] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._learns = False
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._is_closed = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions from now on; what was read of others, or before, is dropped."""
        if self._is_closed:
            return
        for it in self._fetched.values():
            it.unread = None  # so that nobody waits for it to be handed out
        until = self._lively_until()
        self._partitions = {place: _Partition(place, at, until) for place, at in positions.items()}
        self._fetched.clear()
        if not self._knows_leaders():
            self._learn_leaders()

    def pause(self, places: Iterable[TopicPartition]) -> None:
        """Hand out nothing more of these partitions for now."""
        for it in self._of(places):
            it.paused = True
        self._ask_anew()  # nobody waits for it to be handed out

    def resume(self, places: Iterable[TopicPartition]) -> None:
        """Hand out records of these partitions again."""
        for it in self._of(places):
            it.paused, it.lively_until = False, self._lively_until()
        self._hand_out()
        self._ask_anew()

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Go on from another position, if the partition is still one of ours."""
        for it in self._of([place]):
            it.position, it.lively_until = offset, self._lively_until()
            self._drop(it)
        self._ask_anew()

    def end(self, place: TopicPartition) -> int | None:
        """Tell the offset that the next record of a partition will have, as the last answer said it."""
        it = self._partitions.get(place)
        return None if it is None else it.end

    def problems(self) -> dict[str, str]:
        """Say which partitions cannot be read, as topic/partition, and why; or that none can."""
        if self._failure is not None:
            return {"all partitions": f"reading ended: {self._failure!r}"}
        asking = {r.node: r.problem for r in self._requests.values() if r.problem is not None}
        found = {
            it.place: it.problem or asking.get(it.node) or ("no broker leads it" if it.node == -1 else None)
            for it in self._partitions.values()
        }
        return {f"{place.topic}/{place.partition}": why for place, why in found.items() if why is not None}

    async def records(self, most: int, seconds: float) -> tuple[Record, ...]:
        """Hand out the next records.

        Args:
            most: How many.
            seconds: To wait for the first one.

        Raises:
            KafkaError: Nothing can be read any more, by a fault of ours.
        """
        if self._failure is not None:
            raise KafkaError("reading ended") from self._failure
        found = self._take(most)
        if not found:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._hand_out)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            found = self._take(most)
        return tuple(found)

    async def close(self) -> None:
        """Ask for nothing more, whatever is assigned later."""
        self.assign({})
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Handing out ------------------------------------------------------------------------------------

    def _take(self, most: int) -> list[Record]:
        found: list[Record] = []
        emptied = False
        for place, it in list(self._fetched.items()):
            if it.paused or it.unread is None:
                continue
            try:
                found += it.unread.take(most - len(found))
            except KafkaError as error:
                self._rest(it, f"cannot be read at {it.position}: {error}", ERROR_PAUSE)
                continue
            if it.unread.was_nothing:
                self._rest(it, f"Kafka sends no whole batch at {it.position}", ERROR_PAUSE)
                continue
            self._mend(it)
            it.position = it.unread.position
            del self._fetched[place]
            if it.unread.is_over:
                it.unread, emptied = None, True
            else:
                self._fetched[place] = it  # behind the others
            if len(found) >= most:
                break
        if emptied:
            self._ask_anew()
        return found

    def _hand_out(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drop(self, it: _Partition) -> None:
        it.unread = None
        self._fetched.pop(it.place, None)

    def _of(self, places: Iterable[TopicPartition]) -> list[_Partition]:
        return [self._partitions[place] for place in places if place in self._partitions]

    def _lively_until(self) -> float:
        return self._clock() + LIVELY_SECONDS

    # Asking -----------------------------------------------------------------------------------------

    def _ask_anew(self) -> None:
        for request in self._requests.values():
            request.changed.set()

    async def _ask(self, request: _Request) -> None:
        while True:
            wanted = self._wanted(request)
            if not wanted:
                request.changed.clear()
                await request.changed.wait()
                continue
            request.asked = {it: it.position for it in wanted}
            try:
                answer = await self._answer(request)
            except Exception as error:  # out of a connection may come what gets it a token, too
                if request.problem is None:
                    ours = None if isinstance(error, KafkaError) else error
                    log.warning(
                        "Kafka gives no records, trying again",
                        broker=request.node,
                        error=str(error) or repr(error),
                        exc_info=ours,
                    )
                request.problem, request.asked = str(error) or repr(error), {}
                self._learn_leaders()
                await asyncio.sleep(RETRY_PAUSE)
                continue
            asked, request.asked, request.problem = request.asked, {}, None
            brought = self._keep(asked, answer)
            del answer  # it may have megabytes, and the next one may not come for long
            if brought:
                self._hand_out()
                await self._let_be_handed_out(request, brought)

    async def _answer(self, request: _Request) -> Any:
        answer = await self.client.send(request.node, _fetch_request(request), group=request.connection)
        if code := getattr(answer, "error_code", 0):  # since version 7
            raise for_code(code)
        return answer

    def _wanted(self, request: _Request) -> list[_Partition]:
        now = self._clock()
        wanted = [
            it
            for it in self._partitions.values()
            if it.node == request.node
            and it.unread is None
            and not it.paused
            and not it.rests
            and request.is_about(it, now)
        ]
        if request.lively and any(now >= it.lively_until for it in wanted):
            request.other.changed.set()
        # The one before which there is no room for others changes, so that each comes to its turn.
        first = request.turn = (request.turn + 1) % (len(wanted) or 1)
        return wanted[first:] + wanted[:first]

    async def _let_be_handed_out(self, request: _Request, brought: Collection[_Partition]) -> None:
        """Let what came be worked on first; then wait, not for long, until all of it was handed out."""
        begin, worked_on = self._loop.time(), self._loop.create_future()

        def turn(left: int) -> None:
            if left and self._loop.time() < begin + TURNS_SECONDS:
                self._loop.call_soon(turn, left - 1)
            elif not worked_on.done():
                worked_on.set_result(None)

        turn(TURNS_OF_AN_EVENT)
        await worked_on
        if _is_waited_for(brought):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(begin + PATIENCE_SECONDS):
                    while _is_waited_for(brought):
                        request.changed.clear()
                        await request.changed.wait()

    def _keep(self, asked: Mapping[_Partition, int], answer: Any) -> list[_Partition]:
        """Keep what an answer brought, and give the partitions that have something to hand out."""
        aborted_at = 2 if answer.API_VERSION >= WITH_PREFERRED_REPLICA else -2
        brought = []
        for topic, partitions in answer.topics:
            for number, code, end, *rest in partitions:
                it = self._partitions.get(TopicPartition(topic, number))
                if it is None or asked.get(it) != it.position:
                    continue  # it was assigned anew or sought meanwhile, or the other request was quicker
                if code != NoError.errno:
                    self._fail(it, for_code(code))
                    continue
                it.end, data = end, rest[-1]
                if not data:
                    self._mend(it)
                else:
                    it.unread = Unread(data, it.place, rest[aborted_at], it.position)
                    it.lively_until = self._lively_until()
                    self._fetched[it.place] = it
                    brought.append(it)
        return brought

    def _fail(self, it: _Partition, error: type[KafkaError]) -> None:
        if error.invalid_metadata:
            self._learn_leaders()
        why = f"Kafka answers {error.__name__}: {error.description}"
        if error is OffsetOutOfRangeError:
            why = (
                f"its position {it.position} is outside of what is kept; set the group's offset with"
                " kafka-consumer-groups.sh --reset-offsets while no worker runs, then start again"
            )
        self._rest(it, why, RETRY_PAUSE if error.retriable else ERROR_PAUSE)

    def _rest(self, it: _Partition, why: str, seconds: float) -> None:
        """Ask for a partition again only after a while."""
        if it.problem != why:
            log.warning(
                "partition cannot be read", topic=it.place.topic, partition=it.place.partition, why=why
            )
        it.problem, it.rests = why, True
        self._drop(it)
        self._ask_anew()  # nobody waits for it to be handed out
        self._loop.call_later(seconds, self._try_again, it)

    def _mend(self, it: _Partition) -> None:
        if it.problem is not None:
            log.info("partition can be read again", topic=it.place.topic, partition=it.place.partition)
            it.problem = None

    def _try_again(self, it: _Partition) -> None:
        it.rests, it.lively_until = False, self._lively_until()
        self._ask_anew()

    # Brokers ----------------------------------------------------------------------------------------

    def _knows_leaders(self) -> bool:
        """Send requests to every broker that leads a partition, and tell whether each is led by one."""
        for it in self._partitions.values():
            leader = self.client.cluster.leader_for_partition(it.place)
            it.node = -1 if leader is None else leader
            if it.node != -1 and (it.node, True) not in self._requests:
                lively, quiet = _Request(it.node, lively=True), _Request(it.node, lively=False)
                lively.other, quiet.other = quiet, lively
                for request in (lively, quiet):
                    self._requests[it.node, request.lively] = request
                    self._begin(self._ask(request))
        self._ask_anew()
        return all(it.node != -1 for it in self._partitions.values())

    def _learn_leaders(self) -> None:
        if not self._learns:
            self._learns = True
            self._begin(self._learn())

    async def _learn(self) -> None:
        pause = RETRY_PAUSE
        try:
            await self.client.force_metadata_update()
            while not self._knows_leaders():
                await asyncio.sleep(pause)
                pause = min(2 * pause, ERROR_PAUSE)
                await self.client.force_metadata_update()
        finally:
            self._learns = False

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: what it hands out is nothing that whoever began it asked for.
        task = self._loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = failure
            self._hand_out()


def _is_waited_for(partitions: Iterable[_Partition]) -> bool:
    return any(it.unread is not None and not it.paused for it in partitions)


def _fetch_request(request: _Request) -> FetchRequest:
    topics: dict[str, list[tuple[int, int, int]]] = {}
    for it, position in request.asked.items():
        topics.setdefault(it.place.topic, []).append((it.place.partition, position, MAX_PARTITION_BYTES))
    return FetchRequest(request.wait_ms, 1, MAX_BYTES, READ_COMMITTED, list(topics.items()))
