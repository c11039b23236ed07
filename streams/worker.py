"""One agent at work: what Kafka brings goes through the runtime to the agent, and what it says goes back.

The router says what a record means, the answers say how a result is written; this runs what is in between.
Never touches the Kafka clients, and never raises for what a record holds.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from inspect import isawaitable
from itertools import count, groupby
from math import floor
from operator import attrgetter
from typing import Any, cast

import structlog

from agents import metrics
from agents.core.base import Agent, AgentResult, AgentStatus
from agents.core.blocking import in_thread
from agents.core.budget import Budget
from agents.core.errors import (
    AgentError,
    DeadlineExceededError,
    InDoubtError,
    InvalidOutputError,
    JoinTimeoutError,
    PoisonError,
    UpstreamFailedError,
    all_errors,
    is_retryable,
    retry_after,
)
from agents.core.llm import chosen_backend
from agents.core.runtime import Assignment, RetryPolicy, Runtime, Spendable, TryAgain
from agents.core.task import ArtifactStore, Attempt, Task, set_current_task
from agents.core.workflow import Workflow
from streams import artifacts, dead_letters, hint
from streams import envelope as envelopes
from streams.allowance import RunAllowance, spent_before
from streams.answers import Answers, Given, Outcome, event_of, why_timed_out, why_upstream_failed
from streams.envelope import Record, place
from streams.join_parts import JoinLog, JoinParts
from streams.join_runs import JoinRuns
from streams.journal import JournalWriter
from streams.kafka.publisher import Outgoing, Publisher
from streams.kafka.record_batch import EncodedRecord
from streams.kafka.subscriber import LAST_COMMIT_SECONDS, Membership, Position
from streams.outboxes import Outboxes
from streams.restore import WINDOW, Past, Restore
from streams.router import Router
from streams.topics import Topics
from streams.work import Part, Work

log = structlog.stdlib.get_logger()

BESIDE_VALUE = 512  # bytes that a record which waits takes, more or less
KIND, BUDGET = attrgetter("kind"), attrgetter("envelope.budget")

ERROR_TYPES = frozenset(kind.type for kind in all_errors())


class AgentWorker:
    """Host of one agent of one application.

    Args:
        app: Name of the application; part of every run id.
        agent: Who does the work.
        workflows: The application's workflows by name; those without the agent are ignored.
        topics: Topic names.
        restore: Reads what happened before, after an assignment.
        joins: Reads what joins need.
        store: Reads artifacts.
        drain_seconds: What runs get to end when partitions go or the worker stops.
        instance: Names this worker in the journal, for people.
        alone: Held while something runs that may take the process down; one for all agents of the process,
            else the next process could not tell which of several it died of.
        wall_clock: The present time, with zone.
        seed: Of the retries' jitter; none: another one for each worker.
    """

    def __init__(  # noqa: PLR0913 (its surroundings, keyword-only)
        self,
        *,
        app: str,
        agent: Agent,
        workflows: Mapping[str, Workflow],
        topics: Topics,
        restore: Restore,
        joins: JoinLog,
        store: ArtifactStore,
        drain_seconds: float,
        instance: str = "",
        alone: asyncio.Lock | None = None,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        seed: int | None = None,
    ) -> None:
        self.agent = agent
        self._topics = topics
        self._store = store
        self._alone = alone or asyncio.Lock()
        self._drain_seconds = drain_seconds
        self._wall_clock = wall_clock
        self._numbers: dict[tuple[str, int], int] = {}
        self._places: list[tuple[str, int]] = []
        self._hints: dict[tuple[str, int], hint.Hint] = {}
        self._past = Past(restore)
        self._orderly = False
        self._stops = False
        self._cluster = ""
        self._buried: dict[int, tuple[int, Work, Outcome]] = {}
        self._letter_numbers = count(1)
        self._publisher: Publisher
        self._membership: Membership
        self.runtime: Runtime[Work | Part, Outcome | None] = Runtime(
            self,
            slots=agent.config.concurrency,
            timeout=agent.config.timeout,
            calls_per_minute=agent.config.calls_per_minute,
            tokens_per_minute=agent.config.tokens_per_minute,
            retry=RetryPolicy(agent.config.retries, agent.config.backoff, agent.config.max_backoff),
            dedupe_records=WINDOW,
            max_done_bytes=hint.MAX_DONE_BYTES,
            seed=int.from_bytes(os.urandom(8), "big") if seed is None else seed,
            name=f"run of {agent.name}",
        )
        self.router = Router(
            app=app,
            agent=agent.name,
            workflows=workflows,
            topics=topics,
            past=self._past,
        )
        self._join_parts = JoinParts(
            agent=agent.name,
            source=joins,
            outboxes=self._outboxes_of(topics.joins(agent.name)),
            fire=lambda firing: self._join_runs.fire(firing),  # noqa: PLW0108 (which does not exist yet)
            acknowledge=self.runtime.acknowledge,
            clock=lambda: int(self._wall_clock().timestamp() * 1000),
        )
        self._join_runs = JoinRuns(
            agent=agent.name,
            source=joins,
            router=self.router,
            knows_past=self._knows_past_of,
            offer=self._offer_join,
            finish=self._join_parts.finish,
        )
        self._journal = JournalWriter(
            agent=agent.name,
            source=f"/callboard/{app}/{agent.name}",
            instance=instance,
            outboxes=self._outboxes_of(topics.journal(agent.name)),
            certainty=lambda: self._membership.certainty(),  # noqa: PLW0108 (it comes with the broker)
        )
        self._results = self._outboxes_of(topics.results(agent.name))(
            acknowledged=self._on_published, too_large=self._result_too_large
        )
        self._dead_letters = self._outboxes_of(topics.dead(agent.name))(
            acknowledged=self._on_buried, too_large=dead_letters.shorten
        )
        self._answers = Answers(app=app, agent=agent, evidence_only=chosen_backend(agent.config.llm) == "off")
        name = agent.name
        self._count_record = {
            topic: metrics.counter("records", name, topic)
            for topic in (topics.tasks(name), *(topics.results(source) for source in self.router.sources))
        }
        self._count_status = {status: metrics.counter("runs", name, status.value) for status in AgentStatus}
        self._seconds = metrics.histogram("run_seconds", name)

    def join_group(self, publisher: Publisher, membership: Membership, *, cluster: str) -> None:
        """Take what only exists once the broker is connected."""
        self._publisher, self._membership, self._cluster = publisher, membership, cluster

    # What the subscriber tells ------------------------------------------------------------------

    async def on_records(self, records: Sequence[Record], epoch: int) -> None:
        """Take a batch."""
        if not await self._knows_past_of(records, epoch):
            return  # a rebalance came while we read; the batch is delivered again to whoever owns it now
        if self.router.joins:
            self._join_parts.note(records)
        ahead, care = self._ahead(), self._follows_a_death()
        for topic, partition, _, these in envelopes.by_partition(records):
            self._count_record[topic].inc(len(these))
            works = self.router.meanings_of(these)
            if care:
                works = [self._with_care(work) for work in works]
            self._offer(works, self._number_of(topic, partition), epoch, ahead)
        await self.runtime.room()

    async def _knows_past_of(self, records: Sequence[Record], epoch: int) -> bool:
        """Read the past of partitions that is not known yet; false if they were lost meanwhile."""
        events = await self._past.read(records, epoch)
        if events is None:
            return False
        if events:
            self.runtime.remember(
                (self._number_of(topic, partition), offset, identity, timestamp)
                for topic, partition, offset, identity, timestamp in events
            )
        return True

    def _with_care(self, work: Work | Part) -> Work | Part:
        """Mark work that a process may have died of, and refuse to run what one certainly did."""
        if isinstance(work, Work) and work.kind == "run":
            record = work.record
            known = self._hints[record.topic, record.partition]
            # A join's run has no offset of its own, so nobody knows how far it got.
            if (record.offset < known.until or work.parts) and hint.marks(known):
                begun = frozenset() if work.history is None else frozenset(work.history.begun)
                work.marked, work.alone = known.starts, hint.careful(known) and bool(begun)
                if hint.isolates(known, begun):
                    work.kind = "poison"
                    work.error = PoisonError(
                        f"{place(record)} was being worked on when {known.starts - 1} workers in a row ended"
                        " without a word, and is not tried again; if they were killed from outside, publish"
                        " it again with `callboard dead redrive`"
                    )
        return work

    def _follows_a_death(self) -> bool:
        """Tell whether a member died before this one, on any of its partitions."""
        return any(map(hint.marks, self._hints.values()))

    async def on_revoked(self) -> None:
        """Let runs end, as far as they do in time, and commit."""
        self._join_runs.pause()
        self.runtime.revoke()
        drained = await self.runtime.drain(self._drain_seconds)
        self._orderly = True
        self._membership.commit_soon(self._hints)
        if not drained:
            log.warning("some runs did not end before their partitions went", agent=self.agent.name)
        try:
            async with asyncio.timeout(LAST_COMMIT_SECONDS):
                await self._membership.commit_now()
        except TimeoutError:
            # Without a broker this would never end, and a stop must. What is not committed comes again.
            log.warning("finished offsets could not be committed in time", agent=self.agent.name)

    def metadata_at(self, position: Position) -> str:
        """Count that a worker begins on a partition, before anything of it is begun."""
        return self._hint_at(position).text()

    def _hint_at(self, position: Position) -> hint.Hint:
        known = self._hints.get((position.topic, position.partition))
        if position.adopt and known is not None:
            return known  # it came straight back: the same member goes on
        before = hint.read(position.metadata, self._cluster)
        return hint.begin(before, position.offset, slots=self.agent.config.concurrency)

    async def on_assigned(self, positions: Sequence[Position], epoch: int) -> None:
        """Own exactly these partitions."""
        self._hints = {(p.topic, p.partition): self._hint_at(p) for p in positions}
        self._orderly = self._stops
        owned = {p.partition for p in positions}
        kept = owned - {p.partition for p in positions if not p.adopt}
        for outboxes in (self._results, self._dead_letters, self._journal.outboxes):
            outboxes.keep_only(kept)
        self._past.assign(positions, kept, epoch)
        metrics.counter("rebalances", self.agent.name).inc()
        assignments = [self._assignment(p, epoch) for p in positions]
        if careful := sum(it.careful_until > it.position and not it.adopt for it in assignments):
            log.warning(
                "workers ended here without a word, again and again: what they may have died of runs one at a"
                " time, until it is done",
                agent=self.agent.name,
                partitions=careful,
            )
        self.runtime.assign(assignments)
        self._buried = {
            number: buried for number, buried in self._buried.items() if buried[1].record.partition in kept
        }
        self._join_runs.assign(kept, epoch, begins=not self._stops)
        if self.router.joins:
            self._join_parts.assign(owned, kept)
        if self._stops:
            self._membership.commit_soon(self._hints)  # nothing of it begins, so nobody will have died

    def _assignment(self, position: Position, epoch: int) -> Assignment:
        known = self._hints[position.topic, position.partition]
        careful_until = known.until if hint.careful(known) else 0
        if position.end is not None:
            # What comes after the end, no dead worker has seen. Joins wait until all below is done: without
            # this, one at a time for as long as nobody publishes enough tasks to their agent.
            careful_until = min(careful_until, position.end)
        return Assignment(
            self._number_of(position.topic, position.partition),
            epoch,
            position.offset,
            position.adopt,
            known.done,
            careful_until,
        )

    def commit_of(self, topic: str, partition: int) -> tuple[int, str]:
        """Give how far a partition is done, and what its next owner may like to know."""
        done = self.runtime.commit_of(self._number_of(topic, partition))
        known = hint.go_on(self._hints[topic, partition], done.offset, reach=done.reach, done=done.done)
        self._hints[topic, partition] = known
        return done.offset, (hint.end(known) if self._orderly else known).text()

    def not_ready(self) -> str | None:
        """Say why results do not get out, or nothing if they do."""
        every = (self._results, self._dead_letters, self._journal.outboxes, self._join_parts.outboxes)
        problems = [problem for outboxes in every for problem in outboxes.problems()]
        return "; ".join([*problems, *self._join_runs.problems()]) or None

    @property
    def joins_waiting(self) -> int:
        """How many joins wait for further parts."""
        return self._join_parts.table.waiting

    @property
    def joins_to_begin(self) -> int:
        """How many joins fired and are not even queued."""
        return self._join_runs.waiting

    async def stop(self) -> None:
        """Drain, commit, and cancel what is left.

        A member that stops is still one for a while, and others come and go: what it is assigned meanwhile,
        it does not begin.
        """
        self._stops = True
        self.runtime.revoke(for_good=True)
        await self.on_revoked()
        self._join_parts.close()
        self._join_runs.close()
        await self.runtime.close()
        for outboxes in (self._results, self._dead_letters, self._journal.outboxes):
            outboxes.close()

    # What the runtime asks ----------------------------------------------------------------------

    def execute(self, work: Work | Part, number: int) -> Coroutine[Any, Any, Outcome | None]:
        """Run the agent on a piece of work; gives the encoded result, or none where nothing is to be said.

        Raises:
            TryAgain: If it failed in a way that may pass.
        """
        if isinstance(work, Part) or work.kind != "run" or work.marked or not self._membership.is_certain():
            return self._execute_with_care(work, number)
        return self._execute(work, number)  # with no coroutine around it: nearly all work comes this way

    async def _execute_with_care(self, work: Work | Part, number: int) -> Outcome | None:
        set_current_task(None)  # not the one before, in the same asyncio task: what is logged here is not its
        if isinstance(work, Part):
            await self._join_parts.ready(work.record.partition)
            return None
        if work.kind == "skip":
            return None
        await self._membership.certainty()
        if work.kind != "run" or not work.marked:
            return await self._execute(work, number)
        async with self._alone if work.alone else nullcontext():
            await self._journal.begin(work)
            return await self._execute(work, number)

    async def _execute(self, work: Work, number: int) -> Outcome:
        # Tens of thousands of runs may wait in here, so there is no coroutine between this and the agent's.
        given: Given | None = None
        raised: BaseException | None = work.error
        try:
            given = self._answers.given(work)
            result = _without_running(work)
            if result is None:
                started = time.monotonic()
                work.begun = work.begun or envelopes.milliseconds()
                work.attempts += 1
                attempt = WorkerAttempt(self, work, given, number)
                set_current_task(attempt)
                try:
                    try:
                        said = await self._execution(given)
                    except BaseException as error:
                        if attempt.over():
                            await attempt.end(error)
                        raise
                    if attempt.over():
                        await attempt.end(None)
                    result = self._checked(said)
                except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 (users' code)
                    result, raised = self._failure(work, error)
                self._seconds.observe(time.monotonic() - started)
            if result.artifacts:
                await self._publish_artifacts(work, given, result)
            outcome = self._answers.encode(work, given, result)
        except AgentError as error:
            raised = error
            outcome = self._answers.encode(work, given, AgentResult.failed(error))
        except Exception as error:
            log.exception("run failed outside of its agent", at=place(work.record))
            raised = error
            outcome = self._answers.encode(work, given, AgentResult.failed(error))
        if outcome.status is AgentStatus.FAILED:
            self._follow_up(work, outcome, raised)
        return outcome

    def _follow_up(self, work: Work, outcome: Outcome, raised: BaseException | None) -> None:
        """Decide what comes of a failure: another attempt, a dead letter, or the result alone.

        Raises:
            TryAgain: If another attempt may help.
        """
        again = work.kind == "run" and (
            is_retryable(raised)
            if raised is not None
            else outcome.error is not None and outcome.error.retryable
        )
        if raised is not None:
            outcome.letters = self._letters(
                work, outcome, dead_letters.reason_of(work.kind, raised, again=again)
            )
        if again:
            raise TryAgain(outcome, retry_after(raised) if raised is not None else None)

    def _letters(self, work: Work, outcome: Outcome, reason: str) -> Sequence[dead_letters.Letter]:
        return dead_letters.write(
            work.records,
            dead_letters.Failure(
                reason=reason,
                error_type=outcome.error.type if outcome.error else "",
                message=outcome.error.message if outcome.error else "",
                attempts=work.attempts,
                first_time=None if work.begun is None else envelopes.moment(work.begun),
            ),
            run=work.run,
            agent=self.agent.name,
            agent_version=self.agent.config.version,
        )

    def expired(self, work: Work | Part) -> Outcome | None:
        """Give the failed result of work that is too late."""
        if not isinstance(work, Work) or work.kind == "skip":
            return None
        deadline, limit = work.envelope.deadline, self.agent.config.timeout
        if deadline is not None and (limit is None or self._wall_clock() >= deadline):
            message = f"the deadline of {place(work.record)} passed at {deadline.isoformat()}"
        else:
            message = f"{self.agent.name} took longer than its time limit of {limit} s"
        result: AgentResult[Any] = AgentResult.failed(DeadlineExceededError(message))
        try:
            given = self._answers.given(work)
        except AgentError:
            given = None
        return self._answers.encode(work, given, result)

    def retrying(self, work: Work | Part, attempt: int, seconds: float) -> None:
        """Say that a run failed and is tried again."""
        metrics.counter("retries", self.agent.name).inc()
        log.info(
            "run failed, trying again",
            agent=self.agent.name,
            at=place(work.record),
            workflow_id=work.envelope.workflow_id,
            attempt=attempt,
            seconds=seconds,
        )

    def publish(self, done: Sequence[tuple[int, Work | Part, Outcome | None]]) -> None:
        """Begin to publish results."""
        silent: list[int] = []
        results: list[tuple[int, Work, Outcome]] = []
        for number, work, outcome in done:
            if isinstance(work, Part):
                self._join_parts.take(number, work)
            elif outcome is None:
                silent.append(number)
            else:
                if outcome.error is not None or work.used is not None:
                    self._note(work, outcome)
                if outcome.letters:
                    self._bury(number, work, outcome)
                else:
                    results.append((number, work, outcome))
        if silent:
            self.runtime.acknowledge(silent)
        self._send(results)
        for status, ended in Counter(outcome.status for _, _, outcome in done if outcome).items():
            self._count_status[status].inc(ended)

    def _send(self, results: Iterable[tuple[int, Work, Outcome]]) -> None:
        outgoing: dict[int, list[Outgoing]] = {}
        for number, work, outcome in results:
            record = work.record
            if work.parts is not None:
                self._join_runs.publish(number, work)
            outgoing.setdefault(record.partition, []).append((number, outcome.record))
        for partition, records in outgoing.items():
            self._results.put(partition, records)

    def _on_published(self, numbers: Sequence[int]) -> None:
        if self._past.knows_of_runs():
            for number in numbers:
                work = self.runtime.work_of(number)
                if isinstance(work, Work):
                    self._past.over(work.record.partition, work.run)
        self._join_runs.acknowledge(numbers)
        self.runtime.acknowledge(numbers)

    def _bury(self, number: int, work: Work, outcome: Outcome) -> None:
        """Publish the dead letters of a run, and when they are in the log, its result."""
        numbers = [next(self._letter_numbers) for _ in outcome.letters]
        self._buried[numbers[-1]] = number, work, outcome
        metrics.counter("dead_letters", self.agent.name).inc(len(numbers))
        letters = zip(numbers, outcome.letters, strict=True)
        self._dead_letters.put(
            work.record.partition,
            [(letter_number, EncodedRecord(*letter)) for letter_number, letter in letters],
        )

    def _on_buried(self, numbers: Sequence[int]) -> None:
        self._send(buried for number in numbers if (buried := self._buried.pop(number, None)) is not None)

    def commit(self, partitions: Sequence[int], ended: int) -> None:
        """Commit soon."""
        if self._follows_a_death():
            # Who dies before a commit past it says nothing about what others died of, and it stays suspect.
            ended = self.agent.config.concurrency
        self._membership.commit_soon((self._places[number] for number in partitions), ended)

    def pause(self, partitions: Sequence[int]) -> None:
        """Stop reading."""
        self._membership.pause([self._places[number] for number in partitions])

    def resume(self, partitions: Sequence[int]) -> None:
        """Read again."""
        self._membership.resume([self._places[number] for number in partitions])

    def forget(self, work: Work | Part, reason: str) -> None:
        """Drop what another member works on now, what is read again, or what came twice."""
        if reason == "duplicate":
            metrics.counter("skipped", self.agent.name, reason).inc()
        if isinstance(work, Work) and work.parts is not None:
            self._join_runs.forget(work, reason)

    # Offering -----------------------------------------------------------------------------------

    def _offer(self, works: Iterable[Work | Part], partition: int, epoch: int, ahead: int) -> None:
        """Offer what records of one partition mean, in their order."""
        for kind, alike in groupby(works, KIND):
            these = list(alike)
            runs = kind == "run"
            self.runtime.offer_events(
                these,
                partition,
                epoch,
                [work.record for work in these],
                [work.envelope for work in these],
                size=BESIDE_VALUE,
                ahead=ahead if runs else None,
                in_lanes=kind not in {"skip", "part"},
                deduped=kind not in {"skip", "invalid"},  # what cannot be read is no copy of anything
                budgets=self._budgets(cast("list[Work]", these)) if runs else None,
            )

    def _offer_join(self, work: Work, epoch: int) -> None:
        """Offer what fires a join, which is no record."""
        self._with_care(work)
        record, until = work.record, work.envelope.deadline_ms
        self.runtime.offer(
            work,
            self._number_of(self._topics.tasks(self.agent.name), record.partition),
            epoch,
            None,
            record.key,
            until + self._ahead() if until is not None and work.kind == "run" else None,
            len(record.value or b"") + BESIDE_VALUE,
            budget=self._budget(work) if work.kind == "run" else None,
        )

    def _ahead(self) -> int:
        """Give the milliseconds that the runtime's clock is ahead of the time of day."""
        return floor(self.runtime.now() - self._wall_clock().timestamp() * 1000)

    def _budgets(self, works: list[Work]) -> list[Spendable | None] | None:
        """Give what runs may spend; none if that is no matter of any."""
        if self.agent.config.budget is None and not any(map(BUDGET, works)):
            return None
        return [self._budget(work) for work in works]

    def _budget(self, work: Work) -> Spendable | None:
        given, own = work.envelope.budget, self.agent.config.budget
        if given is None and own is None:
            return None
        left = (given or Budget()).within(own or Budget()).minus(spent_before(work))
        return left.calls, left.tokens, left.micro_usd

    def _number_of(self, topic: str, partition: int) -> int:
        number = self._numbers.get((topic, partition))
        if number is None:
            number = self._numbers[topic, partition] = len(self._places)
            self._places.append((topic, partition))
        return number

    # Running the agent --------------------------------------------------------------------------

    def _execution(self, given: Given) -> Awaitable[object]:
        """Begin to execute the agent."""
        parsed = self.agent.parse_input(given.input)
        if self.agent.config.blocking:
            return in_thread(lambda: self._awaited(parsed), name=f"run of {self.agent.name}")
        return self._begun(parsed)

    async def _awaited(self, parsed: Any) -> object:
        return await self._begun(parsed)

    def _begun(self, parsed: Any) -> Awaitable[object]:
        running: object = self.agent.execute(parsed)
        if not isawaitable(running):
            raise InvalidOutputError(
                f"{type(self.agent).__name__}.execute is no coroutine: write `async def execute`"
            )
        return running

    def _checked(self, said: object) -> AgentResult[Any]:
        if isinstance(said, AgentResult):
            return said
        raise InvalidOutputError(
            f"{type(self.agent).__name__}.execute returned {type(said).__name__}, not an AgentResult"
        )

    def _failure(self, work: Work, error: BaseException) -> tuple[AgentResult[Any], BaseException | None]:
        """Turn what ended a run into its result, and what counts as raised.

        Raises:
            BaseException: The error itself, if it is no outcome of the run.
        """
        if isinstance(error, InDoubtError):
            log.warning("run parked", at=place(work.record), reason=str(error))
            return AgentResult.failed(error).model_copy(update={"status": AgentStatus.PARKED}), None
        if isinstance(error, asyncio.CancelledError):
            this = asyncio.current_task()
            if this is None or this.cancelling():
                raise error
            return AgentResult.failed(error), error  # nobody canceled this run: the agent raised it by itself
        if not isinstance(error, AgentError):
            # The boundary to users' code: whatever it raises is the run's outcome, told with its stack.
            log.error("agent raised", at=place(work.record), exc_info=error)
        return AgentResult.failed(error), error

    def task_of(self, work: Work, given: Given, number: int) -> Task:
        """Make the task of one attempt, as the agent sees it."""
        return Task(
            id=work.envelope.id,
            agent=self.agent.name,
            run_id=work.run,
            workflow_id=work.envelope.workflow_id,
            input=given.input,
            root=self._answers.root(work, given),
            events=tuple(map(event_of, work.records)),
            artifacts=dict(given.artifacts),
            deadline=work.envelope.deadline,
            store=self._store,
            usage=work.usage,
            journal=self._journal.of(work),
            allowance=RunAllowance(self.runtime, number, work),
        )

    async def _publish_artifacts(self, work: Work, given: Given, result: AgentResult[Any]) -> None:
        for artifact in result.artifacts:
            published = await artifacts.publish(
                self._publisher,
                artifact,
                topic=self._topics.artifacts(self.agent.name),
                partition=work.record.partition,
                key=work.record.key,
            )
            given.artifacts = {**given.artifacts, artifact.name: published}

    def _note(self, work: Work, outcome: Outcome) -> None:
        name = self.agent.name
        if (paid := work.usage.fresh).calls:  # what came out of the journal was paid and counted before
            metrics.counter("llm_calls", name).inc(paid.calls)
            metrics.counter("llm_tokens", name, "input").inc(paid.input_tokens)
            metrics.counter("llm_tokens", name, "output").inc(paid.output_tokens)
        if outcome.status is not AgentStatus.FAILED or outcome.error is None:
            return
        metrics.counter("errors", name, _known_type(outcome.error.type)).inc()
        log.warning(
            "run failed",
            agent=name,
            at=place(work.record),
            workflow_id=work.envelope.workflow_id,
            error=outcome.error.type,
            message=outcome.error.message,
        )

    # Publishing ---------------------------------------------------------------------------------

    def _outboxes_of(self, topic: str) -> "partial[Outboxes]":
        return partial(Outboxes, topic, lambda: self._publisher, self._publish_failed)

    def _result_too_large(self, refused: Outgoing) -> Outgoing | None:
        """Say in place of a result that Kafka does not take it: the topic's limit is lower than ours."""
        number, record = refused
        work = self.runtime.work_of(number)
        if not isinstance(work, Work):
            return None  # lost meanwhile
        return number, self._answers.too_large(work, None, record.value_size).record

    def _publish_failed(self, reason: str) -> None:
        metrics.counter("publish_retries", self.agent.name).inc()
        log.warning("publish failed, trying again", agent=self.agent.name, reason=reason)


class WorkerAttempt(Attempt):
    """One attempt of a run; tens of thousands may be under way.

    Args:
        worker: Makes the task.
        work: As `AgentWorker.task_of` wants it.
        given: Likewise.
        number: Likewise.
    """

    __slots__ = ("_given", "_number", "_work", "_worker")

    def __init__(self, worker: AgentWorker, work: Work, given: Given, number: int) -> None:
        super().__init__()
        self._worker, self._work, self._given, self._number = worker, work, given, number

    def make(self) -> Task:
        """Make the task."""
        return self._worker.task_of(self._work, self._given, self._number)


def _without_running(work: Work) -> AgentResult[Any] | None:
    """Give the result of work that the agent is not asked about; none if it is."""
    if work.error is not None:
        return AgentResult.failed(work.error)
    if work.kind == "upstream_failed":
        return AgentResult.failed(UpstreamFailedError(why_upstream_failed(work)))
    if work.kind == "timed_out":
        return AgentResult.failed(JoinTimeoutError(why_timed_out(work)))
    return None


def _known_type(name: str) -> str:
    """Keep a metric's label a closed set: agents' own exceptions count as one."""
    return name if name in ERROR_TYPES else "exception"
