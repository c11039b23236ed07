"""One agent at work: what Kafka brings goes through the runtime to the agent, and what it says goes back.

Decides per record: run it, fail it, keep it for a join, or pass it over. Never touches the Kafka clients, and
never raises for what a record holds: bad input ends as a failed result like any other failure.
"""

import asyncio
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from agents import metrics
from agents.core.base import Agent, AgentResult, AgentStatus, ErrorDetail
from agents.core.errors import (
    AgentError,
    DeadlineExceededError,
    HopsExhaustedError,
    InvalidInputError,
    ResultTooLargeError,
    UpstreamFailedError,
    all_errors,
)
from agents.core.llm import chosen_backend
from agents.core.runtime import Assignment, Offer, Runtime
from agents.core.task import ArtifactReference, ArtifactStore, Event, Root, Task, Usage, set_current_task
from agents.core.workflow import Workflow
from streams import artifacts
from streams import envelope as envelopes
from streams.envelope import RESULT, TASK, Envelope, Headers, Record, first_round, place
from streams.joins import Joins, Key
from streams.kafka.publisher import Outbox, Outgoing, Publisher
from streams.kafka.subscriber import Position
from streams.payloads import ResultPayload, TaskPayload, write_result
from streams.topics import MAX_RECORD_BYTES, Topics

log = structlog.stdlib.get_logger()

MAX_ROOT_INPUT_BYTES = 64 * 1024
MAX_ERROR_CHARACTERS = 8_000
COMMIT_SECONDS = 10.0
# With it and the headers, whose size the envelope bounds, every result up to its limit fits into a record.
MAX_KEY_BYTES = 32 * 1024
REMEMBERED_JOINS = 10_000
REMEMBERED_RUNS = 10_000
# Producers stamp records by their own clocks. A result older than its cause by more than this is not found.
CLOCK_SKEW_MS = 60_000

P = TypeVar("P", TaskPayload, ResultPayload)

ERROR_TYPES = frozenset(kind.type for kind in all_errors())

NO_SUCCESS = frozenset({AgentStatus.FAILED, AgentStatus.CANCELED})

Kind = Literal["run", "upstream_failed", "refused", "invalid", "skip"]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Work:
    """What one record (or one complete join) means for this agent."""

    kind: Kind
    record: Record
    envelope: Envelope
    run: str = ""
    workflow: Workflow | None = None
    source: str | None = None
    error: AgentError | None = None
    parts: "dict[str, Part] | None" = None
    begun: str | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Part:
    """One agent's result that waits in a join."""

    key: Key
    agent: str
    record: Record
    envelope: Envelope
    payload: ResultPayload
    awaited: frozenset[str]
    number: int = 0


@dataclass(slots=True)
class Given:
    """What came before: decoded once, inherited by the result."""

    input: Any
    root: Root
    artifacts: dict[str, ArtifactReference]
    events: tuple[Event, ...]


@dataclass(slots=True)
class Outcome:
    """A result, encoded; published as it is however often that takes."""

    value: bytes
    headers: Headers
    status: AgentStatus
    error: ErrorDetail | None


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
        self._app = app
        self._workflows = {name: w for name, w in workflows.items() if agent.name in w.steps}
        self._all_workflows = frozenset(workflows)
        self._topics = topics
        self._outcomes = outcomes
        self._store = store
        self._drain_seconds = drain_seconds
        self._wall_clock = wall_clock
        self._evidence_only = chosen_backend(agent.config.llm) == "off"
        self._source = f"/callboard/{app}/{agent.name}"
        self._tasks_topic, self._results_topic = topics.tasks(agent.name), topics.results(agent.name)
        # The workflows by name in which this agent answers a source's results, or tasks (none).
        self._answering: dict[str | None, dict[str, Workflow]] = {
            source: {n: w for n, w in self._workflows.items() if source in (None, *w.steps[agent.name].after)}
            for source in (None, *self.sources)
        }
        self._epoch = 0
        self._numbers: dict[tuple[str, int], int] = {}
        self._places: list[tuple[str, int]] = []
        self._joins: Joins[Part] = Joins()
        self._fired: OrderedDict[Key, weakref.ref[Work]] = OrderedDict()
        self._seen: OrderedDict[str, tuple[str, int, int]] = OrderedDict()
        self._finished: dict[int, set[str]] = {}
        self._finished_since: dict[int, int] = {}
        self._outboxes: dict[int, Outbox] = {}
        self._publisher: Publisher
        self._membership: Membership
        self.runtime: Runtime[Work | Part, Outcome | None] = Runtime(
            self, slots=agent.config.concurrency, timeout=agent.config.timeout
        )
        name = agent.name
        self._count_record = {
            topic: metrics.counter("records", name, topic)
            for topic in (topics.tasks(name), *(topics.results(source) for source in self.sources))
        }
        self._count_status = {status: metrics.counter("runs", name, status.value) for status in AgentStatus}
        self._seconds = metrics.histogram("run_seconds", name)

    @property
    def sources(self) -> tuple[str, ...]:
        """The agents whose results this one answers, in any workflow."""
        found: dict[str, None] = {}
        for workflow in self._workflows.values():
            found |= dict.fromkeys(workflow.steps[self.agent.name].after)
        return tuple(found)

    def join_group(self, publisher: Publisher, membership: "Membership") -> None:
        """Take what only exists once the broker is connected."""
        self._publisher, self._membership = publisher, membership

    # What the subscriber tells ------------------------------------------------------------------

    async def on_records(self, records: Sequence[Record], epoch: int) -> None:
        """Take a batch."""
        if since := self._unknown_pasts(records):
            finished = await self._outcomes(self._results_topic, since)
            if epoch != self._epoch:
                return  # a rebalance came while we read; the batch is delivered again to whoever owns it now
            for partition, ids in finished.items():
                self._finished[partition] = ids | self._finished.get(partition, set())
            self._finished_since |= since
        offers = []
        for topic, number in Counter(record.topic for record in records).items():
            self._count_record[topic].inc(number)
        for record in records:
            work = self._classify(record)
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
        self._finished = {n: ids for n, ids in self._finished.items() if n in kept}
        self._finished_since = {n: since for n, since in self._finished_since.items() if n in kept}
        for partition in [n for n in self._outboxes if n not in kept]:
            self._outboxes.pop(partition).close()
        metrics.counter("rebalances", self.agent.name).inc()
        self.runtime.assign(
            [Assignment(self._number_of(p.topic, p.partition), epoch, p.offset, p.adopt) for p in positions]
        )
        # A lost join may take its time to end, and its parts may be here again before that.
        adopted = {(p.topic, p.partition) for p in positions if p.adopt}
        for key, fired in list(self._fired.items()):
            work = fired()  # none: it is done, and its result is in the log
            if work is not None and (work.record.topic, work.record.partition) not in adopted:
                self._take_back(key, work)

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
            given = self._given(work)
            if work.error is not None:
                result: AgentResult[Any] = AgentResult.failed(work.error)
            elif work.kind == "upstream_failed":
                result = AgentResult.failed(UpstreamFailedError(_why_upstream_failed(work)))
            else:
                work.begun = envelopes.now()
                result = await self._run_agent(work, given)
            outcome = await self._outcome(work, given, result)
        except AgentError as error:
            result = AgentResult.failed(error)
            outcome = self._encode(work, given, result)
        except Exception as error:
            log.exception("run failed outside of its agent", at=place(work.record))
            result = AgentResult.failed(error)
            outcome = self._encode(work, given, result)
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
            given = self._given(work)
        except AgentError:
            given = None
        outcome = self._encode(work, given, result)
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
        """Drop what another member works on now."""
        if isinstance(work, Part):
            self._joins.forget(work.key, work.agent, work)
        elif work.parts is not None and work.workflow is not None:
            self._take_back((work.workflow.name, work.envelope.round or ""), work)

    def _take_back(self, key: Key, work: Work) -> None:
        """Undo that a join fired: the parts that are still held wait again for those that went away."""
        fired = self._fired.get(key)
        if fired is None or fired() is not work:
            return  # it was taken back before, and may have fired again since
        del self._fired[key]
        for part in (work.parts or {}).values():
            if part.number and self.runtime.holds(part.number):
                self._joins.wait(key, part.agent, part, part.awaited)

    # Deciding what a record means ---------------------------------------------------------------

    def _classify(self, record: Record) -> Work | Part:
        is_task = record.topic == self._tasks_topic
        source = None if is_task else self._topics.agent_of(record.topic)
        try:
            _expect_key(record)
            envelope = envelopes.decode(record)
        except AgentError as error:
            return self._invalid(record, envelopes.fallback(record), source, error)
        try:
            _expect_type(record, envelope, TASK if is_task else RESULT)
            workflow = self._workflow_of(record, envelope, source)
        except AgentError as error:
            return self._invalid(record, envelope, source, error)
        if workflow is None:
            return self._skip(record, envelope, "other_workflow")
        if source is not None and envelope.status is None:
            envelope.status = _status_of(record)
        if envelope.status == AgentStatus.PARKED:
            return self._skip(record, envelope, "parked")
        envelope.workflow, envelope.round = workflow.name, envelope.round or first_round(envelope)
        if source is not None and workflow.steps[self.agent.name].joins:
            return self._join(record, envelope, workflow, source)
        work = Work("run", record, envelope, self._run_id(envelope), workflow, source)
        if envelope.hops == 0:
            self._refuse(work)
        elif source is not None and envelope.status in NO_SUCCESS:
            work.kind = "upstream_failed"
        return self._once(work)

    def _skip(self, record: Record, envelope: Envelope, reason: str) -> Work:
        metrics.counter("skipped", self.agent.name, reason).inc()
        return Work("skip", record, envelope)

    def _refuse(self, work: Work) -> None:
        work.kind = "refused"
        work.error = HopsExhaustedError(
            f"{place(work.record)} may go through no more agents (ce_hops is 0); its publisher set the limit"
        )

    def _once(self, work: Work) -> Work:
        """Pass over what has an outcome, and the same event at a higher offset of the same partition."""
        record = work.record
        here = (record.topic, record.partition, record.offset)
        first = self._seen.get(work.run)
        if first is not None and first[:2] == here[:2] and first[2] < here[2]:
            return self._skip(record, work.envelope, "duplicate")
        if self._has_outcome(work):
            return self._skip(record, work.envelope, "answered")
        self._seen[work.run] = here
        if len(self._seen) > REMEMBERED_RUNS:
            self._seen.popitem(last=False)
        return work

    def _workflow_of(self, record: Record, envelope: Envelope, source: str | None) -> Workflow | None:
        """Tell which workflow's edges apply; none if the event is another application's business."""
        candidates = self._answering[source]
        if not envelope.workflow:
            if len(candidates) == 1:
                return next(iter(candidates.values()))
            raise InvalidInputError(
                f"{place(record)}: several workflows fit ({', '.join(candidates)}); say which with the header"
                " ce_workflow"
            )
        named = candidates.get(envelope.workflow)
        if named is None and source is None:
            raise InvalidInputError(
                f"{place(record)}: workflow {envelope.workflow!r} (header ce_workflow) has no step"
                f" {self.agent.name!r} in application {self._app!r}; it has:"
                f" {', '.join(self._workflows)}"
            )
        return named

    def _join(self, record: Record, envelope: Envelope, workflow: Workflow, source: str) -> Work | Part:
        try:
            payload = _parse(ResultPayload, record)
        except InvalidInputError as error:
            return self._invalid(record, envelope, source, error)
        return self._take_part(record, envelope, workflow, source, payload)

    def _take_part(
        self, record: Record, envelope: Envelope, workflow: Workflow, source: str, payload: ResultPayload
    ) -> Work | Part:
        key: Key = (workflow.name, envelope.round or "")
        work = Work("run", record, envelope, self._join_id(key), workflow, source)
        entry = payload.root.agent if payload.root is not None else source
        awaited = workflow.awaited(self.agent.name, entry=entry) | {source}
        missing = self._joins.missing(key, source, awaited)
        if missing is None or key in self._fired:
            return self._skip(record, envelope, "duplicate")
        if self._has_outcome(work):
            return self._skip(record, envelope, "answered")
        part = Part(key, source, record, envelope, payload, awaited)
        if missing:
            self._joins.wait(key, source, part, awaited)
            return part
        work.parts = dict(sorted({**self._joins.complete(key), source: part}.items()))
        self._fired[key] = weakref.ref(work)
        while len(self._fired) > REMEMBERED_JOINS:
            self._fired.popitem(last=False)
        work.envelope = _merged(envelope, [p.envelope for p in work.parts.values()])
        if work.envelope.hops == 0:
            self._refuse(work)
        elif any(_failed(p.payload, p.envelope) for p in work.parts.values()):
            work.kind = "upstream_failed"
        return work

    def _invalid(
        self, record: Record, envelope: Envelope, source: str | None, error: AgentError
    ) -> Work | Part:
        """Make a failure of a record that cannot be read; at a join it is a failed part, so nobody waits."""
        try:
            workflow = self._workflow_of(record, envelope, source)
        except AgentError:
            workflow = None
        if workflow is None and envelope.workflow and source is not None:
            return self._skip(record, envelope, "other_workflow")
        if workflow is not None:
            envelope.workflow = workflow.name
            if source is not None and envelope.round and workflow.steps[self.agent.name].joins:
                detail = ErrorDetail(type=error.type, message=str(error))
                payload = ResultPayload(agent=source, status=AgentStatus.FAILED, error=detail)
                return self._take_part(record, envelope, workflow, source, payload)
        envelope.round = envelope.round or first_round(envelope)
        return self._once(Work("invalid", record, envelope, self._run_id(envelope), workflow, source, error))

    def _join_id(self, key: Key) -> str:
        return envelopes.run_id(self._app, self.agent.name, "join", *key)

    def _run_id(self, envelope: Envelope) -> str:
        return envelopes.run_id(self._app, self.agent.name, envelope.source, envelope.id)

    def _has_outcome(self, work: Work) -> bool:
        finished = self._finished.get(work.record.partition)
        return finished is not None and bool(finished) and envelopes.result_id(work.run) in finished

    def _unknown_pasts(self, records: Sequence[Record]) -> dict[int, int]:
        """Give the partitions whose results have to be looked at, and since when.

        A result is not older than what it answers. Each input topic has a backlog of its own, and one may be
        hours older than another; looking again needs half of the skew, so that jitter of some seconds between
        producers' clocks does not.
        """
        found: dict[int, int] = {}
        for record in records:
            known = self._finished_since.get(record.partition)
            if known is None or max(0, record.timestamp - CLOCK_SKEW_MS // 2) < known:
                since = max(0, record.timestamp - CLOCK_SKEW_MS)
                found[record.partition] = min(since, found.get(record.partition, since))
        return found

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

    def _given(self, work: Work) -> Given:
        record = work.record
        if work.parts is not None:
            parts = work.parts
            inherited = {a.name: a for part in parts.values() for a in part.payload.artifacts}
            first = next(iter(parts.values()))
            return Given(
                input={name: part.payload.output for name, part in parts.items()},
                root=first.payload.root
                or Root(agent=first.agent, id=work.envelope.round or work.envelope.id),
                artifacts=inherited,
                events=tuple(_event(p.record) for p in parts.values()),
            )
        if work.kind == "invalid":
            return Given(None, self._unknown_root(work), {}, ())
        if work.source is None:
            task = _parse(TaskPayload, record)
            too_large = len(record.value or b"") > MAX_ROOT_INPUT_BYTES
            root = Root(
                agent=self.agent.name,
                id=work.envelope.id,
                input=None if too_large else task.input,
                input_omitted=too_large,
                repository=task.repository,
            )
            return Given(task.input, root, {a.name: a for a in task.artifacts}, (_event(record),))
        result = _parse(ResultPayload, record)
        if work.kind == "run" and _failed(result, work.envelope):
            work.kind = "upstream_failed"
        return Given(
            input=result.output,
            root=result.root or self._unknown_root(work),
            artifacts={a.name: a for a in result.artifacts},
            events=(_event(record),),
        )

    def _unknown_root(self, work: Work) -> Root:
        return Root(agent=work.source or self.agent.name, id=work.envelope.round or work.envelope.id)

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
            result: object = await self.agent.execute(self.agent.parse_input(given.input))
        except AgentError as error:
            return AgentResult.failed(error)
        except asyncio.CancelledError as error:
            running = asyncio.current_task()
            if running is None or running.cancelling():
                raise
            return AgentResult.failed(error)  # nobody canceled this run: the agent raised it by itself
        except (Exception, SystemExit) as error:
            # The boundary to users' code: whatever it raises is the run's outcome, told with its stack.
            log.exception("agent raised", at=place(work.record))
            return AgentResult.failed(error)
        if not isinstance(result, AgentResult):
            return AgentResult.failed(
                TypeError(
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
        return self._encode(work, given, result)

    def _encode(self, work: Work, given: Given | None, result: AgentResult[Any]) -> Outcome:
        """Write a result; one that cannot be written, or is too large, becomes a failure that says so."""
        if result.error is not None:
            result = result.model_copy(update={"error": _printable(result.error)})
        try:
            value = self._written(work, given, result)
        except ValueError as error:
            failure = InvalidInputError(f"the output of {self.agent.name} cannot be written as JSON: {error}")
            result = AgentResult.failed(failure)
            value = self._written(work, given, result)
        if len(value) > MAX_RECORD_BYTES:
            large = ResultTooLargeError(
                f"the result of {self.agent.name} has {len(value)} bytes, a record at most"
                f" {MAX_RECORD_BYTES}; put the bulk into an artifact: AgentResult(artifacts=[Artifact(...)])"
            )
            root = given.root if given is not None else self._unknown_root(work)
            slim = Given(None, root.model_copy(update={"input": None, "input_omitted": True}), {}, ())
            result = AgentResult.failed(large)
            value = self._written(work, slim, result)
        return Outcome(value, self._headers(work, result.status), result.status, result.error)

    def _written(self, work: Work, given: Given | None, result: AgentResult[Any]) -> bytes:
        workflow = work.workflow
        return write_result(
            agent=self.agent.name,
            agent_version=self.agent.config.version,
            status=result.status,
            output=result.output,
            verdict=result.verdict,
            error=result.error,
            artifacts=list(given.artifacts.values()) if given is not None else [],
            usage=work.usage,
            attempts=0 if work.begun is None else 1,
            started_at=work.begun,
            finished_at=envelopes.now(),
            run=work.run,
            root=given.root if given is not None else self._unknown_root(work),
            followers=workflow.followers.get(self.agent.name, ()) if workflow is not None else (),
        )

    def _headers(self, work: Work, status: AgentStatus) -> Headers:
        given = work.envelope
        answered: Sequence[Work | Part] = list(work.parts.values()) if work.parts else [work]
        return envelopes.encode(
            Envelope(
                id=envelopes.result_id(work.run),
                source=self._source,
                type=RESULT,
                workflow_id=given.workflow_id,
                workflow=given.workflow,
                round=given.round,
                status=status.value,
                deadline=given.deadline,
                hops=None if given.hops is None else max(0, given.hops - 1),
                llm="off" if self._evidence_only else given.llm,
                traceparent=envelopes.next_traceparent(given.traceparent, work.run),
                tracestate=given.tracestate,
            ),
            causes=[(it.envelope.id, envelopes.record_digest(it.record)) for it in answered],
        )

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


def _parse(kind: type[P], record: Record) -> P:
    """Read a record's value.

    Raises:
        InvalidInputError: If it is null, too large, no JSON or not of this type.
    """
    if record.value is None:
        raise InvalidInputError(f"{place(record)}: the value is null; a {_title(kind)} is a JSON object")
    if len(record.value) > MAX_RECORD_BYTES:
        raise InvalidInputError(
            f"{place(record)}: the value has {len(record.value)} bytes, at most {MAX_RECORD_BYTES} are taken;"
            " put the bulk into an artifact"
        )
    try:
        return kind.model_validate_json(record.value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise InvalidInputError(f"{place(record)}: no valid {_title(kind)}: {problems}") from None


def _expect_key(record: Record) -> None:
    if record.key is not None and len(record.key) > MAX_KEY_BYTES:
        raise InvalidInputError(
            f"{place(record)}: the key has {len(record.key)} bytes, at most {MAX_KEY_BYTES} are taken"
        )


def _key_of(record: Record) -> bytes | None:
    """Give the key of a record's result: the same, unless it would leave no room for the result."""
    return record.key if record.key is None or len(record.key) <= MAX_KEY_BYTES else None


def _expect_type(record: Record, envelope: Envelope, expected: str) -> None:
    if envelope.type != expected:
        raise InvalidInputError(
            f"{place(record)}: type {envelope.type!r} is unknown here; this topic holds {expected}"
        )


def _title(kind: type[BaseModel]) -> str:
    return str(kind.model_config.get("title", kind.__name__))


def _known_type(name: str) -> str:
    """Keep a metric's label a closed set: agents' own exceptions count as one."""
    return name if name in ERROR_TYPES else "exception"


def _event(record: Record) -> Event:
    return Event(
        record.topic, record.partition, record.offset, record.key, tuple(record.headers), record.value
    )


def _status_of(record: Record) -> str | None:
    """Read a result's status where no header tells it."""
    try:
        return _parse(ResultPayload, record).status.value
    except InvalidInputError:
        return None  # told as a failure where the payload is needed


def _merged(last: Envelope, parts: Sequence[Envelope]) -> Envelope:
    """Give the envelope of a complete join: the strictest of all parts, whichever came last."""
    hops = [part.hops for part in parts if part.hops is not None]
    deadlines = [part.deadline for part in parts if part.deadline is not None]
    return replace(
        last,
        hops=min(hops, default=None),
        deadline=min(deadlines, default=None),
        llm=next((part.llm for part in parts if part.llm is not None), None),
        traceparent=parts[0].traceparent,
        tracestate=parts[0].tracestate,
    )


def _printable(error: ErrorDetail) -> ErrorDetail:
    """Make an error fit for JSON and for a record: users' exceptions may say anything, at any length."""
    message = error.message[:MAX_ERROR_CHARACTERS].encode(errors="backslashreplace").decode()
    return error.model_copy(update={"message": message})


def _failed(payload: ResultPayload, envelope: Envelope) -> bool:
    """Tell whether a result is a failure; where header and payload differ, the failure counts."""
    return payload.status in NO_SUCCESS or envelope.status in NO_SUCCESS


def _why_upstream_failed(work: Work) -> str:
    if work.parts is None:
        results = {work.source: (_parse(ResultPayload, work.record), work.envelope)}
    else:
        results = {name: (part.payload, part.envelope) for name, part in work.parts.items()}
    return "; ".join(
        f"{name} {payload.status if payload.status in NO_SUCCESS else envelope.status}:"
        f" {payload.error.message if payload.error else 'no reason given'}"
        for name, (payload, envelope) in results.items()
        if _failed(payload, envelope)
    )
