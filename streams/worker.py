"""One agent at work: what Kafka brings goes through the runtime to the agent, and what it says goes back.

The router says what a record means, the answers say how a result is written; this runs what is in between.
Never touches the Kafka clients, and never raises for what a record holds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any, Protocol

import structlog

from agents import metrics
from agents.core.base import Agent, AgentResult, AgentStatus
from agents.core.errors import (
    AgentError,
    DeadlineExceededError,
    InvalidOutputError,
    UpstreamFailedError,
    all_errors,
)
from agents.core.llm import chosen_backend
from agents.core.runtime import Assignment, Offer, Runtime
from agents.core.task import ArtifactStore, Task, set_current_task
from agents.core.workflow import Workflow
from streams import artifacts
from streams import envelope as envelopes
from streams.answers import Answers, Given, Outcome, why_upstream_failed
from streams.envelope import Record, place
from streams.kafka.publisher import Outbox, Outgoing, Publisher
from streams.kafka.subscriber import Position
from streams.router import MAX_KEY_BYTES, Router
from streams.topics import Topics
from streams.work import Part, Work

log = structlog.stdlib.get_logger()

COMMIT_SECONDS = 10.0

ERROR_TYPES = frozenset(kind.type for kind in all_errors())


class Outcomes(Protocol):
    """Knows which results are in the log already."""

    async def __call__(self, topic: str, since: Mapping[int, int]) -> dict[int, set[str]]:
        """Give the ids of results per partition, published since a time in milliseconds each."""


class AgentWorker:
    """Host of one agent of one application.

    Args:
        app: Name of the application; part of every run id.
        agent: Who does the work.
        workflows: The application's workflows by name; those without the agent are ignored.
        topics: Topic names.
        outcomes: Reads which runs have a result, after an assignment.
        store: Reads artifacts.
        drain_seconds: What runs get to end when partitions go or the worker stops.
        wall_clock: The present time, with zone.
    """

    def __init__(  # noqa: PLR0913 (its surroundings, keyword-only)
        self,
        *,
        app: str,
        agent: Agent,
        workflows: Mapping[str, Workflow],
        topics: Topics,
        outcomes: Outcomes,
        store: ArtifactStore,
        drain_seconds: float,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.agent = agent
        self._topics = topics
        self._outcomes = outcomes
        self._store = store
        self._drain_seconds = drain_seconds
        self._wall_clock = wall_clock
        self._results_topic = topics.results(agent.name)
        self._epoch = 0
        self._numbers: dict[tuple[str, int], int] = {}
        self._places: list[tuple[str, int]] = []
        self._outboxes: dict[int, Outbox] = {}
        self._publisher: Publisher
        self._membership: Membership
        self.runtime: Runtime[Work | Part, Outcome | None] = Runtime(
            self, slots=agent.config.concurrency, timeout=agent.config.timeout
        )
        self.router = Router(
            app=app, agent=agent.name, workflows=workflows, topics=topics, holds=self.runtime.holds
        )
        self._answers = Answers(app=app, agent=agent, evidence_only=chosen_backend(agent.config.llm) == "off")
        name = agent.name
        self._count_record = {
            topic: metrics.counter("records", name, topic)
            for topic in (topics.tasks(name), *(topics.results(source) for source in self.router.sources))
        }
        self._count_status = {status: metrics.counter("runs", name, status.value) for status in AgentStatus}
        self._seconds = metrics.histogram("run_seconds", name)

    def join_group(self, publisher: Publisher, membership: "Membership") -> None:
        """Take what only exists once the broker is connected."""
        self._publisher, self._membership = publisher, membership

    # What the subscriber tells ------------------------------------------------------------------

    async def on_records(self, records: Sequence[Record], epoch: int) -> None:
        """Take a batch."""
        if since := self.router.unknown_pasts(records):
            finished = await self._outcomes(self._results_topic, since)
            if epoch != self._epoch:
                return  # a rebalance came while we read; the batch is delivered again to whoever owns it now
            self.router.learn(finished, since)
        offers = []
        for topic, number in Counter(record.topic for record in records).items():
            self._count_record[topic].inc(number)
        for record in records:
            work = self.router.meaning_of(record)
            if isinstance(work, Part):
                number = self._number(record)
                work.number = self.runtime.hold(number, epoch, record.offset, work)
            else:
                offers.append(self._offer(work, epoch))
        if offers:
            self.runtime.offer(offers)
            await self.runtime.room()

    async def on_revoked(self) -> None:
        """Let runs end, as far as they do in time, and commit."""
        self.runtime.revoke()
        if not await self.runtime.drain(self._drain_seconds):
            log.warning("some runs did not end before their partitions went", agent=self.agent.name)
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._membership.commit_now()
        except TimeoutError:
            # Without a broker this would never end, and a stop must. What is not committed comes again.
            log.warning("finished offsets could not be committed in time", agent=self.agent.name)

    async def on_assigned(self, positions: Sequence[Position], epoch: int) -> None:
        """Own exactly these partitions."""
        self._epoch = epoch
        kept = {p.partition for p in positions} - {p.partition for p in positions if not p.adopt}
        for partition in [n for n in self._outboxes if n not in kept]:
            self._outboxes.pop(partition).close()
        metrics.counter("rebalances", self.agent.name).inc()
        self.runtime.assign(
            [Assignment(self._number_of(p.topic, p.partition), epoch, p.offset, p.adopt) for p in positions]
        )
        self.router.assign(kept, {(p.topic, p.partition) for p in positions if p.adopt})

    def not_ready(self) -> str | None:
        """Say why results do not get out, or nothing if they do."""
        problems = {n: outbox.problem for n, outbox in self._outboxes.items() if outbox.problem}
        return "; ".join(f"{self._results_topic}/{n} is not published: {why}" for n, why in problems.items())

    async def stop(self) -> None:
        """Drain, commit, and cancel what is left."""
        await self.on_revoked()
        await self.runtime.close()
        for outbox in self._outboxes.values():
            outbox.close()

    # What the runtime asks ----------------------------------------------------------------------

    async def execute(self, work: Work | Part) -> Outcome | None:
        """Run the agent on a piece of work; gives the encoded result, or none where nothing is to be said."""
        if not isinstance(work, Work) or work.kind == "skip":
            return None
        started = time.monotonic()
        given: Given | None = None
        try:
            given = self._answers.given(work)
            if work.error is not None:
                result: AgentResult[Any] = AgentResult.failed(work.error)
            elif work.kind == "upstream_failed":
                result = AgentResult.failed(UpstreamFailedError(why_upstream_failed(work)))
            else:
                work.begun = envelopes.now()
                result = await self._run_agent(work, given)
            outcome = await self._outcome(work, given, result)
        except AgentError as error:
            result = AgentResult.failed(error)
            outcome = self._answers.encode(work, given, result)
        except Exception as error:
            log.exception("run failed outside of its agent", at=place(work.record))
            result = AgentResult.failed(error)
            outcome = self._answers.encode(work, given, result)
        self._note(work, outcome, time.monotonic() - started)
        return outcome

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
        outcome = self._answers.encode(work, given, result)
        self._note(work, outcome, None)
        return outcome

    def publish(self, done: Sequence[tuple[int, Work | Part, Outcome | None]]) -> None:
        """Begin to publish results."""
        silent: list[int] = []
        outgoing: dict[int, list[Outgoing]] = {}
        for number, work, outcome in done:
            if outcome is None:
                silent.append(number)
            else:
                record = work.record
                outgoing.setdefault(record.partition, []).append(
                    Outgoing(number, _key_of(record), outcome.value, outcome.headers)
                )
        if silent:
            self.runtime.acknowledge(silent)
        for partition, records in outgoing.items():
            self._outbox(partition).put(records)
        for status, ended in Counter(outcome.status for _, _, outcome in done if outcome).items():
            self._count_status[status].inc(ended)

    def commit(self, positions: Sequence[tuple[int, int]]) -> None:
        """Commit soon."""
        self._membership.commit_soon((*self._places[number], offset) for number, offset in positions)

    def pause(self, partitions: Sequence[int]) -> None:
        """Stop reading."""
        self._membership.pause([self._places[number] for number in partitions])

    def resume(self, partitions: Sequence[int]) -> None:
        """Read again."""
        self._membership.resume([self._places[number] for number in partitions])

    def forget(self, work: Work | Part) -> None:
        """Drop what another member works on now, or what is read again."""
        self.router.forget(work)

    # Offering -----------------------------------------------------------------------------------

    def _offer(self, work: Work, epoch: int) -> Offer[Work | Part]:
        record = work.record
        deadline: int | None = None
        if work.kind == "run" and work.envelope.deadline is not None:
            left = (work.envelope.deadline - self._wall_clock()).total_seconds()
            deadline = self.runtime.now() + int(left * 1000)
        return Offer(
            partition=self._number(record),
            epoch=epoch,
            offset=record.offset,
            lane=None if work.kind == "skip" else record.key,
            deadline=deadline,
            size=len(record.value or b"") + 512,
            work=work,
            covers=tuple(part.number for part in work.parts.values() if part.number) if work.parts else (),
        )

    def _number(self, record: Record) -> int:
        return self._number_of(record.topic, record.partition)

    def _number_of(self, topic: str, partition: int) -> int:
        number = self._numbers.get((topic, partition))
        if number is None:
            number = self._numbers[topic, partition] = len(self._places)
            self._places.append((topic, partition))
        return number

    # Running the agent --------------------------------------------------------------------------

    async def _run_agent(self, work: Work, given: Given) -> AgentResult[Any]:
        set_current_task(
            Task(
                id=work.envelope.id,
                agent=self.agent.name,
                run_id=work.run,
                workflow_id=work.envelope.workflow_id,
                input=given.input,
                root=given.root,
                events=given.events,
                artifacts=given.artifacts,
                deadline=work.envelope.deadline,
                store=self._store,
                usage=work.usage,
            )
        )
        try:
            running: object = self.agent.execute(self.agent.parse_input(given.input))
            if not isawaitable(running):
                return AgentResult.failed(
                    InvalidOutputError(
                        f"{type(self.agent).__name__}.execute is no coroutine: write `async def execute`"
                    )
                )
            result: object = await running
        except AgentError as error:
            return AgentResult.failed(error)
        except asyncio.CancelledError as error:
            this = asyncio.current_task()
            if this is None or this.cancelling():
                raise
            return AgentResult.failed(error)  # nobody canceled this run: the agent raised it by itself
        except (Exception, SystemExit) as error:
            # The boundary to users' code: whatever it raises is the run's outcome, told with its stack.
            log.exception("agent raised", at=place(work.record))
            return AgentResult.failed(error)
        if not isinstance(result, AgentResult):
            return AgentResult.failed(
                InvalidOutputError(
                    f"{type(self.agent).__name__}.execute returned {type(result).__name__},"
                    " not an AgentResult"
                )
            )
        return result

    async def _outcome(self, work: Work, given: Given, result: AgentResult[Any]) -> Outcome:
        for artifact in result.artifacts:
            given.artifacts[artifact.name] = await artifacts.publish(
                self._publisher,
                artifact,
                topic=self._topics.artifacts(self.agent.name),
                partition=work.record.partition,
                key=work.record.key,
            )
        return self._answers.encode(work, given, result)

    def _note(self, work: Work, outcome: Outcome, seconds: float | None) -> None:
        name = self.agent.name
        if seconds is not None:
            self._seconds.observe(seconds)
        if (usage := work.usage).calls:
            metrics.counter("llm_calls", name).inc(usage.calls)
            metrics.counter("llm_tokens", name, "input").inc(usage.input_tokens)
            metrics.counter("llm_tokens", name, "output").inc(usage.output_tokens)
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

    def _outbox(self, partition: int) -> Outbox:
        outbox = self._outboxes.get(partition)
        if outbox is None:
            outbox = self._outboxes[partition] = self._publisher.outbox(
                self._results_topic, partition, self.runtime.acknowledge, self._publish_failed
            )
        return outbox

    def _publish_failed(self, reason: str) -> None:
        metrics.counter("publish_retries", self.agent.name).inc()
        log.warning("publish failed, trying again", agent=self.agent.name, reason=reason)


class Membership(Protocol):
    """The consumer group membership a worker steers."""

    def commit_soon(self, positions: Any) -> None:
        """Commit (topic, partition, next offset) shortly."""

    async def commit_now(self) -> None:
        """Commit what is pending."""

    def pause(self, places: Any) -> None:
        """Stop reading."""

    def resume(self, places: Any) -> None:
        """Read again."""


def _key_of(record: Record) -> bytes | None:
    """Give the key of a record's result: the same, unless it would leave no room for the result."""
    return record.key if record.key is None or len(record.key) <= MAX_KEY_BYTES else None


def _known_type(name: str) -> str:
    """Keep a metric's label a closed set: agents' own exceptions count as one."""
    return name if name in ERROR_TYPES else "exception"
