"""The runs of one agent's joins, from when a join fires until its result is in the log.

What fired is offered in the order in which the log says it did: two joins of one key run in that order. It
is offered when the records of its parts are read, and again where partitions that go and come back need it.
Never touches the Kafka clients.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import structlog

from agents import metrics
from agents.core.errors import ConfigurationError
from streams.envelope import Record
from streams.join_parts import JoinLog
from streams.join_records import JoinStateError, Key
from streams.join_table import Firing, records_of
from streams.kafka.publisher import RETRY_PAUSE, PublishError
from streams.router import Router
from streams.work import Work

log = structlog.stdlib.get_logger()


@dataclass(slots=True)
class _Fired:
    """A join that fired and whose result is not in the log yet.

    Attributes:
        firing: What it runs with.
        offered: It was handed over to be run.
        again: It fired anew while it is: the state of its partition was read once more. Either its run goes
            on, and that is all right, or that was lost and ends only now: then the join begins after it.
    """

    firing: Firing
    offered: bool = False
    again: bool = False


class JoinRuns:
    """What came of the joins that fired.

    Args:
        agent: Name of the agent.
        source: Reads the parts' records.
        router: Says what a firing means.
        knows_past: Reads what is known of the runs of records; false if their partitions were lost meanwhile,
            that is, if its second argument is not the present epoch any more.
        offer: Called with a run and its epoch.
        finish: Called with the partition and the key of a join whose result is in the log.
    """

    def __init__(  # noqa: PLR0913 (its surroundings, keyword-only)
        self,
        *,
        agent: str,
        source: JoinLog,
        router: Router,
        knows_past: Callable[[Sequence[Record], int], Awaitable[bool]],
        offer: Callable[[Work, int], None],
        finish: Callable[[int, Key], None],
    ) -> None:
        self._agent, self._source, self._router = agent, source, router
        self._knows_past, self._offer, self._finish = knows_past, offer, finish
        self._epoch = 0
        self._assigned = asyncio.Event()
        self._fired: dict[tuple[int, Key], _Fired] = {}  # per partition in the order of the log
        self._beginning: asyncio.Task[None] | None = None
        self._published: dict[int, Work] = {}
        self._stuck: dict[int, str] = {}

    # What partitions do -------------------------------------------------------------------------

    def pause(self) -> None:
        """Begin nothing until `assign`: it would be dropped."""
        self._assigned.clear()

    def assign(self, kept: Collection[int], epoch: int, *, begins: bool) -> None:
        """Forget what is of other partitions: whoever owns those reads the log.

        Args:
            kept: Those that are still ours.
            epoch: Counts assignments.
            begins: Whether anything is begun.
        """
        self._epoch = epoch
        self._published = {n: work for n, work in self._published.items() if work.record.partition in kept}
        self._stuck = {n: why for n, why in self._stuck.items() if n in kept}
        for join, fired in [it for it in self._fired.items() if it[0][0] not in kept]:
            fired.again = False
            if not fired.offered:
                del self._fired[join]
        if begins:
            self._assigned.set()

    @property
    def waiting(self) -> int:
        """How many joins fired and were not offered yet, or have to be once more."""
        return sum(fired.again or not fired.offered for fired in self._fired.values())

    def problems(self) -> Iterable[str]:
        """Say which joins cannot run, and why."""
        return self._stuck.values()

    def close(self) -> None:
        """Begin nothing more."""
        if self._beginning is not None:
            self._beginning.cancel()

    # From firing to the result ------------------------------------------------------------------

    def fire(self, firing: Firing) -> None:
        """Run a join, once it may begin."""
        join = firing.partition, firing.key
        before = self._fired.pop(join, None)
        offered = before is not None and before.offered
        self._fired[join] = _Fired(firing, offered, again=offered)  # as the last one: so it is in the log
        self._begin_soon()

    def forget(self, work: Work, reason: str) -> None:
        """Take note that a run will not be finished, at least not here and now."""
        fired = self._fired.get(_join_of(work))
        if fired is None:
            return
        # Stale: it was offered while a rebalance came of which its partition came straight back, so its state
        # is not read again.
        if fired.again or reason == "stale":
            fired.offered = fired.again = False
        else:
            del self._fired[_join_of(work)]
        self._begin_soon()

    def publish(self, number: int, work: Work) -> None:
        """Take note that a run's result is on its way."""
        self._published[number] = work

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Take note that results, of joins and others, are in the log."""
        for number in numbers if self._published else ():
            if (work := self._published.pop(number, None)) is not None:
                self._over(*_join_of(work))

    def _over(self, partition: int, key: Key) -> None:
        self._fired.pop((partition, key), None)
        self._finish(partition, key)
        self._begin_soon()

    # Beginning ----------------------------------------------------------------------------------

    def _next(self) -> list[Firing]:
        """Give what may begin: nothing behind a join of its partition that waits for a lost run to end."""
        found, held = [], set()
        for (partition, _), fired in self._fired.items():
            if fired.again:
                held.add(partition)
            elif not fired.offered and partition not in held:
                found.append(fired.firing)
        return found

    def _begin_soon(self) -> None:
        if (self._beginning is None or self._beginning.done()) and self._next():
            self._beginning = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        while self._next():
            await self._assigned.wait()  # in between, what is offered is dropped
            try:
                await self._offer_all(self._next(), self._epoch)
            except (PublishError, ConfigurationError) as error:
                log.warning("parts of joins cannot be read, trying again", error=str(error) or repr(error))
                await asyncio.sleep(RETRY_PAUSE)
            except Exception:
                # What it may be, these and all later joins would wait in silence until the process ends.
                log.exception("joins cannot begin, trying again", agent=self._agent)
                await asyncio.sleep(RETRY_PAUSE)

    async def _offer_all(self, firings: Sequence[Firing], epoch: int) -> None:
        """Read what the parts said, and offer them, unless partitions may have been lost meanwhile."""
        firings = [it for it in firings if self._is_ours(it)]
        absent = {
            (part.topic, part.partition, part.offset)
            for firing in firings
            for part in firing.parts
            if part.agent not in firing.records
        }
        there = await self._source.records(absent) if absent else {}
        complete: list[tuple[Firing, dict[str, Record]]] = []
        for firing in firings:
            try:
                complete.append((firing, records_of(firing, there)))
            except JoinStateError as error:
                # Its results were not kept. Said loudly and left as it is: what they said cannot be made up.
                self._fired.pop((firing.partition, firing.key), None)
                self._stuck[firing.partition] = str(error)
                log.error("a join cannot run", agent=self._agent, round=firing.key, reason=str(error))  # noqa: TRY400 (no fault of the program)
        parts = [record for _, records in complete for record in records.values()]
        if not await self._knows_past(parts, epoch) or epoch != self._epoch:
            return
        for firing, records in complete:
            try:
                self._offer_one(firing, self._router.work_of(firing, records), epoch)
            except Exception as error:
                # The workflow is another one by now, perhaps. The other joins go on.
                self._fired.pop((firing.partition, firing.key), None)
                self._stuck[firing.partition] = f"a join of {firing.key[0]!r} cannot run: {error!r}"
                log.exception("a join cannot run", agent=self._agent, round=firing.key)

    def _is_ours(self, firing: Firing) -> bool:
        """Tell whether a join is of a workflow that is here; others are passed over, as their events are."""
        if self._router.knows(firing.key[0]):
            return True
        metrics.counter("skipped", self._agent, "other_workflow").inc()
        log.warning("a join of another workflow is left as it is", agent=self._agent, round=firing.key)
        self._fired.pop((firing.partition, firing.key), None)
        return False

    def _offer_one(self, firing: Firing, work: Work, epoch: int) -> None:
        if work.kind == "skip":
            self._over(firing.partition, firing.key)
        else:
            self._offer(work, epoch)
            self._fired[firing.partition, firing.key].offered = True


def _join_of(work: Work) -> tuple[int, Key]:
    """Name the join that a run is of."""
    return work.record.partition, (work.envelope.workflow or "", work.envelope.round or "")
