"""Drives the Rust machine from asyncio: what it decides is done here, once per turn of the event loop.

The machine decides what starts, is canceled, is committed and pauses; it holds only numbers. This side holds
the work itself, an asyncio task for each run that waits for something, and one timer. It never touches Kafka:
the host does, as it is told.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from agents._rust import AgentRuntime, Envelope, Offers, Turn

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)
R = TypeVar("R")
Spendable = tuple[int | None, int | None, int | None]  # calls, tokens, micro-dollars; each none for no limit

EXPIRED, EXHAUSTED = "expired", "exhausted"
# The machine refuses a whole turn with a number it cannot hold, and these come from others.
LONGEST_WAIT_SECONDS = 365 * 24 * 3_600
MOST_AMOUNT = 2**53
HOST_VARIABLES = 1  # see `Host.execute`


class TryAgain(Exception, Generic[R]):  # noqa: N818 (no error: it says what to do)
    """Raised by a host's `execute`: the work failed in a way that may pass.

    Attributes:
        result: What to publish if it is not tried again.
        after: Seconds to wait at least, or none.
    """

    def __init__(self, result: R, after: float | None) -> None:
        super().__init__(result, after)
        self.result, self.after = result, after


class RefusedError(Exception):
    """A run may not make a call: `calls`, `tokens` or `money` are used up, or it is over (`ended`)."""


class Host(Protocol[W_contra, R]):
    """What the runtime needs from its surroundings."""

    async def execute(self, work: W_contra, number: int) -> R:
        """Do the work; every failure but cancellation is a result.

        It may set one context variable, anew for each work.

        Args:
            work: What to do.
            number: By which the runtime knows the run: see `Runtime.ask`.

        Raises:
            TryAgain: If it failed and trying again may help.
        """

    def expired(self, work: W_contra) -> R:
        """Give the result of work whose deadline passed, before it started or while it ran."""

    def publish(self, done: Sequence[tuple[int, W_contra, R]]) -> None:
        """Begin to publish results; call `acknowledge` with the numbers of those that are durable."""

    def retrying(self, work: W_contra, attempt: int, seconds: float) -> None:
        """Take note that work failed, and is started again after a while."""

    def commit(self, partitions: Sequence[int], ended: int) -> None:
        """Commit soon what `Runtime.commit_of` gives for these partition numbers.

        Args:
            partitions: Their numbers.
            ended: How many runs are over since the last time.
        """

    def pause(self, partitions: Sequence[int]) -> None:
        """Stop reading these partitions for a while."""

    def resume(self, partitions: Sequence[int]) -> None:
        """Read these partitions again."""

    def forget(self, work: W_contra, reason: str) -> None:
        """Drop work that is not this member's any more: it runs elsewhere, or has run, or is a duplicate."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One partition this member owns from now on.

    Attributes:
        partition: Its number.
        epoch: Counts assignments.
        position: Offset that is read next.
        adopt: It came straight back: what runs, goes on.
        done: Finished offsets above `position`, as `Runtime.commit_of` gave them.
        careful_until: Offsets below it run one at a time.
    """

    partition: int
    epoch: int
    position: int
    adopt: bool
    done: bytes = b""
    careful_until: int = 0


class Commit(NamedTuple):
    """How far a partition is done.

    Attributes:
        offset: The next offset to read after a restart.
        reach: One after the highest offset that was ever started.
        done: Finished offsets above `offset`, encoded.
    """

    offset: int
    reach: int
    done: bytes


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed work is tried again.

    Attributes:
        retries: Further attempts after the first.
        backoff: Seconds before the first of them; doubles each time, with full jitter.
        max_backoff: Seconds it grows to.
    """

    retries: int = 0
    backoff: float = 0.5
    max_backoff: float = 60.0


class Runtime(Generic[W, R]):
    """Runs offered work in lanes, bounded, and tells the host what is finished.

    Args:
        host: See `Host`.
        slots: Runs at the same time.
        timeout: Seconds one run may take, or none.
        calls_per_minute: Of all runs together: see `ask`.
        tokens_per_minute: Likewise.
        retry: How failed work is tried again.
        seed: Of the jitter: workers with different ones do not retry in step.
        name: Of the asyncio tasks, for stacks.
        max_queued_records: Per partition, before it is paused.
        max_queued_bytes: Per partition, before it is paused.
        dedupe_records: Offsets of a partition within which a repeated identity is a duplicate.
        max_done_bytes: What `Commit.done` grows to.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 (limits are keyword-only and have defaults)
        self,
        host: Host[W, R],
        *,
        slots: int,
        timeout: float | None = None,
        calls_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        retry: RetryPolicy = RetryPolicy(),
        seed: int = 0,
        name: str = "run",
        max_queued_records: int = 2_000,
        max_queued_bytes: int = 16 * 1024 * 1024,
        dedupe_records: int | None = None,
        max_done_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._name = host, name
        self._clock = clock
        self._machine = AgentRuntime(
            slots=slots,
            max_queued_records=max_queued_records,
            max_queued_bytes=max_queued_bytes,
            timeout_ms=None if timeout is None else max(1, round(timeout * 1000)),
            calls_per_minute=calls_per_minute,
            tokens_per_minute=tokens_per_minute,
            retries=retry.retries,
            backoff_ms=max(1, round(retry.backoff * 1000)),
            max_backoff_ms=max(1, round(retry.max_backoff * 1000)),
            dedupe_records=dedupe_records,
            max_done_bytes=max_done_bytes,
            seed=seed,
        )
        self._next_number = 1
        self._work: dict[int, W] = {}
        self._runs: dict[int, asyncio.Task[None] | None] = {}  # none: it had no turn yet
        self._ready: deque[int] = deque()
        self._seats = 0  # that had no turn yet
        self._seated = 0
        self._results: dict[int, R] = {}
        self._canceled: set[int] = set()
        self._offered: list[Any] = []
        self._seen: list[tuple[int, int, bytes, int]] = []
        self._next_ask = 1
        self._asks: dict[int, asyncio.Future[str | None]] = {}
        self._asked: list[tuple[int, int, int, int]] = []
        self._spent: list[tuple[int, int, int]] = []
        self._executed: list[int] = []
        self._failed: list[tuple[int, int | None]] = []
        self._acknowledged: list[int] = []
        self._ended = 0
        # Turns are of no run: in the context of the one that asked for a turn, what it starts and logs would
        # carry that one's task.
        self._context = Context()
        self._turn_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._room = asyncio.Event()
        self._slots = slots
        self._over = False

    def now(self) -> int:
        """Give the machine's time: monotonic milliseconds."""
        return int(self._clock() * 1000)

    def offer(  # noqa: PLR0913, PLR0917 (what the machine wants to know of a record, in its order)
        self,
        work: W,
        partition: int,
        epoch: int,
        offset: int | None,
        lane: bytes | None,
        deadline: int | None,
        size: int,
        identity: bytes | None = None,
        timestamp: int = 0,
        budget: Spendable | None = None,
    ) -> None:
        """Take one record to run.

        Args:
            work: What to hand to the host.
            partition: Number of its partition.
            epoch: The assignment it was read in.
            offset: Its offset; none: it is no record, e.g. a join that fires.
            lane: Its key: one run at a time per key, in offset order; none: on its own.
            deadline: Monotonic milliseconds after which it is not worth running.
            size: Bytes it holds in memory.
            identity: What makes two records of a partition the same event, or none.
            timestamp: Of the record, in milliseconds.
            budget: What the run may spend, or none for no limit.
        """
        number, self._next_number = self._next_number, self._next_number + 1
        self._work[number] = work
        self._offered.append(
            (number, partition, epoch, offset, lane, deadline, size, identity, timestamp, budget)
        )
        self._soon()

    def offer_events(  # noqa: PLR0913 (as above)
        self,
        works: Sequence[W],
        partition: int,
        epoch: int,
        records: list[Any],
        envelopes: list[Envelope],
        *,
        size: int,
        ahead: int | None,
        in_lanes: bool,
        deduped: bool,
        budgets: list[Spendable | None] | None,
    ) -> None:
        """Take records to run, of which the machine finds out by itself what it wants to know.

        Args:
            works: What to hand to the host, for each.
            partition: Number of their partition.
            epoch: The assignment they were read in.
            records: In offset order.
            envelopes: What each of them says.
            size: Bytes that each holds in memory beside its value.
            ahead: Milliseconds that `now` is ahead of the time of day, by which they say their deadlines;
                none: those do not count.
            in_lanes: One run at a time per key, in offset order.
            deduped: Two of a partition that are the same event run once.
            budgets: Of each as in `offer`, or none for no limits.
        """
        first, self._next_number = self._next_number, self._next_number + len(works)
        offers = Offers(
            first,
            partition,
            epoch,
            records,
            envelopes,
            nbytes=size,
            ahead_ms=ahead,
            in_lanes=in_lanes,
            deduped=deduped,
            budgets=budgets,
        )
        self._work.update(enumerate(works, first))
        self._offered.append(offers)
        self._soon()

    def remember(self, events: Iterable[tuple[int, int, bytes, int]]) -> None:
        """Take events of before a restart, so that their duplicates are recognized.

        Args:
            events: Partition number, offset, identity and time in milliseconds of each, in offset order.
        """
        self._seen.extend(events)
        self._soon()

    def work_of(self, number: int) -> W | None:
        """Give the work of a run, if it is this member's."""
        return self._work.get(number)

    def commit_of(self, partition: int) -> Commit:
        """Tell how far a partition is done."""
        return Commit(*self._machine.commit_of(partition))

    async def ask(self, number: int, tokens: int) -> int:
        """Reserve one call of a run, waiting where a rate limit says so.

        Args:
            number: Of the run.
            tokens: Most that the call may take.

        Returns:
            The number to tell `spent` with; exactly once.

        Raises:
            RefusedError: If the run may not.
        """
        ask, self._next_ask = self._next_ask, self._next_ask + 1
        answer = self._asks[ask] = asyncio.get_running_loop().create_future()
        # What it will cost nobody knows. It is not nothing: with no money left, none is made.
        self._asked.append((ask, number, tokens, 1))
        self._soon()
        try:
            refused = await answer
        except asyncio.CancelledError:
            self.spent(ask, 0)
            raise
        finally:
            del self._asks[ask]
        if refused is not None:
            raise RefusedError(refused)
        return ask

    def spent(self, ask: int, tokens: int, micro_usd: int = 0) -> None:
        """Tell what a call really took."""
        self._spent.append((ask, _amount(tokens), _amount(micro_usd)))
        self._soon()

    def acknowledge(self, numbers: Collection[int]) -> None:
        """Take note that results are durable: their lanes move on and their offsets are done."""
        self._acknowledged.extend(numbers)
        for number in numbers:
            self._work.pop(number, None)
        self._soon()

    async def room(self) -> None:
        """Wait until reading on makes sense: a slot is free, or what is queued will soon be used up.

        With a free slot and a long queue, the queue is one busy key's; other keys must still come through.
        """
        if self._turn_is_due:
            self._turn_now()  # what was just offered counts, and need not wait for its turn
        while not self._has_room():
            self._room.clear()
            await self._room.wait()

    def _has_room(self) -> bool:
        return self._machine.running() < self._slots or self._machine.queued() <= self._slots

    def revoke(self, *, for_good: bool = False) -> None:
        """Start nothing more; what runs, goes on, until `assign`.

        Args:
            for_good: `assign` does not start anything either: it only says what is lost.
        """
        self._over = self._over or for_good
        self._turn(revoked=True)

    def assign(self, assignments: Sequence[Assignment]) -> None:
        """Own exactly these partitions from now on."""
        self._turn(
            revoked=self._over,
            assigned=[
                (a.partition, a.epoch, a.position, a.adopt, a.done or None, a.careful_until)
                for a in assignments
            ],
        )

    async def drain(self, seconds: float) -> bool:
        """Wait until nothing is in flight, at most `seconds`; call `revoke` first.

        Returns:
            Whether everything ended and is acknowledged.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._machine.in_flight():
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Cancel what still runs; nothing of it is published."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.assign([])
        runs = [run for run in self._runs.values() if run is not None]
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def stats(self) -> dict[str, int]:
        """Give the machine's counts, for metrics."""
        return self._machine.stats()

    def _soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._due, context=self._context)

    def _turn_now(self) -> None:
        self._context.run(self._turn)

    def _due(self) -> None:
        if self._turn_is_due:
            self._turn()

    def _turn(
        self,
        *,
        revoked: bool = False,
        assigned: list[tuple[int, int, int, bool, bytes | None, int]] | None = None,
    ) -> None:
        self._turn_is_due = False
        offered, self._offered = self._offered, []
        seen, self._seen = self._seen, []
        executed, self._executed = self._executed, []
        failed, self._failed = self._failed, []
        asked, self._asked = self._asked, []
        spent, self._spent = self._spent, []
        acknowledged, self._acknowledged = self._acknowledged, []
        self._ended += len(acknowledged)
        turn = self._machine.turn(
            self.now(),
            assigned=assigned,
            revoked=revoked,
            offered=offered,
            seen=seen,
            executed=executed,
            failed=failed,
            asked=asked,
            spent=spent,
            acknowledged=acknowledged,
        )
        self._obey(turn, executed)

    def _obey(self, turn: Turn, executed: list[int]) -> None:
        self._publish(turn, executed)
        if turn.commits:
            self._host.commit([partition for partition, _ in turn.commits], self._ended)
            self._ended = 0
        loop = asyncio.get_running_loop()
        if turn.start:
            self._runs.update(dict.fromkeys(turn.start))
            self._ready.extend(turn.start)
            self._seated = 0
            if not self._seats:
                self._seat()
        for number in turn.cancel:
            self._cancel(number)
        for ask, refused in (*((ask, None) for ask in turn.granted), *turn.refused):
            self._answer(ask, refused)
        if turn.pause:
            self._host.pause(turn.pause)
        if turn.resume:
            self._host.resume(turn.resume)
        self._wake(loop, turn.wake_at)
        if not self._idle.is_set() and not self._machine.in_flight():
            self._idle.set()
        if not self._room.is_set() and self._has_room():
            self._room.set()

    def _cancel(self, number: int) -> None:
        if number in self._runs:
            run = self._runs[number]
            if run is None:
                self._ended_by_cancel(number)
            else:
                run.cancel()

    def _ended_by_cancel(self, number: int) -> None:
        # The machine cancels for two reasons. Late: the host says so when the turn that hears of it
        # publishes. Lost partition: that turn settles the number as fenced, and it is dropped.
        self._canceled.add(number)
        del self._runs[number]
        self._executed.append(number)
        self._soon()

    def _answer(self, ask: int, refused: str | None) -> None:
        answer = self._asks.get(ask)
        if answer is not None and not answer.done():
            answer.set_result(refused)

    def _publish(self, turn: Turn, executed: list[int]) -> None:
        for number, attempt, milliseconds in turn.retries:
            self._results.pop(number, None)
            self._host.retrying(self._work[number], attempt, milliseconds / 1000)
        done: list[tuple[int, W, R]] = []
        for number, reason in turn.settled:
            if reason == EXPIRED:
                work = self._work[number]
                done.append((number, work, self._host.expired(work)))
                self._results.pop(number, None)
            elif reason == EXHAUSTED:
                done.append((number, self._work[number], self._results.pop(number)))
            else:
                self._results.pop(number, None)
                self._canceled.discard(number)
                dropped = self._work.pop(number, None)
                if dropped is not None:
                    self._host.forget(dropped, reason)
        # Without a result here, it was fenced while it ran: settled above, and must not be seen.
        for number in executed:
            if number in self._canceled:
                self._canceled.remove(number)
                done.append((number, self._work[number], self._host.expired(self._work[number])))
            elif number in self._results:
                done.append((number, self._work[number], self._results.pop(number)))
        if done:
            self._host.publish(done)

    def _wake(self, loop: asyncio.AbstractEventLoop, at: int | None) -> None:
        # Setting a timer costs more than a turn, and a turn that comes too early does no harm but to set it.
        if at is None:
            return
        delay = max(0.0, (at - self.now()) / 1000)
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay + 0.001:  # the machine counts whole milliseconds
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._woken, context=self._context)

    def _woken(self) -> None:
        self._timer = None
        self._turn()

    def _seat(self, seats: int = 1, *, relieves: bool = False) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(seats):
            self._seats += 1
            run = self._run_what_is_ready(relieves=relieves)
            # The loop refers to it until its first turn, and `_runs` while it waits.
            loop.create_task(run, name=self._name, context=Context())  # noqa: RUF006 (as said)

    async def _run_what_is_ready(self, *, relieves: bool) -> None:  # noqa: C901 (one coroutine: it is kept for each run)
        """Run what is ready, one after the other, until a run waits for something.

        A task costs as much as a short run, so runs that never wait share one. Whoever waits keeps its task:
        a relief is called before each run, comes to its turn before the run can go on, and takes the rest; so
        a run that waited finds another one seated, or nothing ready. What else a run can leave to the next,
        a cancellation or a context variable, ends the task as well.

        Args:
            relieves: It is called while another seat has its turn.
        """
        this = cast("asyncio.Task[None]", asyncio.current_task())
        self._seats -= 1
        if relieves and self._seated:
            # Its run waits. So may all the others, and none shall begin later for that.
            self._seat(len(self._ready) - 1)
        while self._ready:
            number = self._ready.popleft()
            if number not in self._runs:
                continue  # canceled before it had a turn
            self._runs[number], self._seated = this, number
            if self._ready and not self._seats:
                self._seat(relieves=True)
            try:
                self._results[number] = await self._host.execute(self._work[number], number)
            except TryAgain as again:
                self._results[number] = again.result
                self._failed.append((number, None if again.after is None else _wait(again.after)))
            except asyncio.CancelledError:
                self._ended_by_cancel(number)
                return
            except Exception as error:  # noqa: BLE001 (the host promised not to; its lane stops, others go on)
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a host raised instead of giving a result", "exception": error}
                )
                self._executed.append(number)
            else:
                self._executed.append(number)
            del self._runs[number]
            if not self._runs:
                self._turn_now()  # there is nobody to wait for
                break
            self._soon()
            if self._seated != number or this.cancelling() or len(copy_context()) > HOST_VARIABLES:
                return
        self._seated = 0


def _wait(seconds: float) -> int:
    """Give what somebody asks to wait, in milliseconds; what is no length of time is none."""
    return round(min(seconds, LONGEST_WAIT_SECONDS) * 1000) if seconds > 0 else 0


def _amount(given: int) -> int:
    return max(0, min(given, MOST_AMOUNT))
