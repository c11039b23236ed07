"""Decides what a record means for one agent: a run, a failure, a part of a join, or nothing to do.

Knows the edges of the workflows and what waits in joins. Never runs anything and never raises for what a
record holds.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agents import metrics
from agents.core.base import AgentStatus, ErrorDetail
from agents.core.budget import Budget
from agents.core.errors import AgentError, HopsExhaustedError, InvalidInputError
from agents.core.workflow import Workflow
from streams import envelope as envelopes
from streams.envelope import RESULT, TASK, Envelope, Record, first_round, place
from streams.joins import Joins, Key
from streams.payloads import ResultPayload
from streams.restore import Past
from streams.topics import Topics
from streams.work import NO_SUCCESS, Part, Work, failed, parse

# With it and the headers, whose size the envelope bounds, every result up to its limit fits into a record.
MAX_KEY_BYTES = 32 * 1024
REMEMBERED_JOINS = 10_000


class Router:
    """What records mean for one agent of one application.

    Args:
        app: Name of the application; part of every run id.
        agent: Name of the agent.
        workflows: The application's workflows by name; those without the agent are ignored.
        topics: Topic names.
        past: Knows what happened before this worker.
        holds: Tells whether the runtime still holds a part of that number.
    """

    def __init__(  # noqa: PLR0913 (its surroundings, keyword-only)
        self,
        *,
        app: str,
        agent: str,
        workflows: Mapping[str, Workflow],
        topics: Topics,
        past: Past,
        holds: Callable[[int], bool],
    ) -> None:
        self._app, self._agent = app, agent
        self._workflows = {name: w for name, w in workflows.items() if agent in w.steps}
        self._topics = topics
        self._tasks_topic = topics.tasks(agent)
        self._past = past
        self._holds = holds
        # The workflows by name in which this agent answers a source's results, or tasks (none).
        self._answering: dict[str | None, dict[str, Workflow]] = {
            source: {n: w for n, w in self._workflows.items() if source in (None, *w.steps[agent].after)}
            for source in (None, *self.sources)
        }
        self._joins: Joins[Part] = Joins()
        self._fired: OrderedDict[Key, weakref.ref[Work]] = OrderedDict()

    @property
    def sources(self) -> tuple[str, ...]:
        """The agents whose results this one answers, in any workflow."""
        found: dict[str, None] = {}
        for workflow in self._workflows.values():
            found |= dict.fromkeys(workflow.steps[self._agent].after)
        return tuple(found)

    def assign(self, adopted: set[tuple[str, int]]) -> None:
        """Take note of an assignment: forget what may have gone on elsewhere in the meantime.

        Args:
            adopted: Topics and partitions that came straight back.
        """
        # A lost join may take its time to end, and its parts may be here again before that.
        for key, fired in list(self._fired.items()):
            work = fired()  # none: it is done, and its result is in the log
            if work is not None and (work.record.topic, work.record.partition) not in adopted:
                self._take_back(key, work)

    def forget(self, work: Work | Part) -> None:
        """Drop what another member works on now, or what is read again."""
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
            if part.number and self._holds(part.number):
                self._joins.wait(key, part.agent, part, part.awaited)

    def meaning_of(self, record: Record) -> Work | Part:
        """Decide what a record means; a part of a join that is not complete is to be held."""
        is_task = record.topic == self._tasks_topic
        source = self._redriven_source(record) if is_task else self._topics.agent_of(record.topic)
        try:
            _expect_key(record)
            envelope = envelopes.decode(record)
        except AgentError as error:
            return self._invalid(record, envelopes.fallback(record), source, error)
        try:
            _expect_type(record, envelope, TASK if source is None else RESULT)
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
        if source is not None and envelope.budget is not None:
            envelope.budget = self._share(envelope.budget, workflow, source)
        if source is not None and workflow.steps[self._agent].joins:
            return self._join(record, envelope, workflow, source)
        work = Work("run", record, envelope, self._run_id(envelope), workflow, source)
        if envelope.hops == 0:
            self._refuse(work)
        elif source is not None and envelope.status in NO_SUCCESS:
            work.kind = "upstream_failed"
        return self._once(work)

    def _share(self, budget: Budget, workflow: Workflow, source: str) -> Budget:
        """Give this agent's part of what is left after `source`: each follower gets one."""
        followers = workflow.followers[source]
        if self._agent not in followers:
            return budget  # on a way back; nobody else answers such a result
        return budget.split(len(followers))[followers.index(self._agent)]

    def _redriven_source(self, record: Record) -> str | None:
        """Tell whose result a redriven one on the tasks topic is: it is there for this agent alone."""
        headers = dict(record.headers)
        if "ce_redriveof" not in headers or headers.get("ce_type") != RESULT.encode():
            return None
        try:
            source = parse(ResultPayload, record).agent
        except InvalidInputError:
            return None
        return source if source in self._answering else None

    def _skip(self, record: Record, envelope: Envelope, reason: str) -> Work:
        metrics.counter("skipped", self._agent, reason).inc()
        return Work("skip", record, envelope)

    def _refuse(self, work: Work) -> None:
        work.kind = "refused"
        work.error = HopsExhaustedError(
            f"{place(work.record)} may go through no more agents (ce_hops is 0); its publisher set the limit"
        )

    def _once(self, work: Work) -> Work:
        """Pass over what has an outcome; take with it what the journal knows."""
        partition = work.record.partition
        if self._past.has_outcome(partition, work.run):
            return self._skip(work.record, work.envelope, "answered")
        work.history = self._past.history(partition, work.run)
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
                f" {self._agent!r} in application {self._app!r}; it has:"
                f" {', '.join(self._workflows)}"
            )
        return named

    def _join(self, record: Record, envelope: Envelope, workflow: Workflow, source: str) -> Work | Part:
        try:
            payload = parse(ResultPayload, record)
        except InvalidInputError as error:
            return self._invalid(record, envelope, source, error)
        return self._take_part(record, envelope, workflow, source, payload)

    def _take_part(
        self, record: Record, envelope: Envelope, workflow: Workflow, source: str, payload: ResultPayload
    ) -> Work | Part:
        key: Key = (workflow.name, envelope.round or "")
        work = Work("run", record, envelope, self._join_id(key), workflow, source)
        entry = payload.root.agent if payload.root is not None else source
        awaited = workflow.awaited(self._agent, entry=entry) | {source}
        missing = self._joins.missing(key, source, awaited)
        if missing is None or key in self._fired:
            return self._skip(record, envelope, "duplicate")
        if self._past.has_outcome(record.partition, work.run):
            return self._skip(record, envelope, "answered")
        part = Part(key, source, record, envelope, payload, awaited)
        if missing:
            self._joins.wait(key, source, part, awaited)
            return part
        work.history = self._past.history(record.partition, work.run)
        work.parts = dict(sorted({**self._joins.complete(key), source: part}.items()))
        self._fired[key] = weakref.ref(work)
        while len(self._fired) > REMEMBERED_JOINS:
            self._fired.popitem(last=False)
        work.envelope = _merged(envelope, [p.envelope for p in work.parts.values()])
        if work.envelope.hops == 0:
            self._refuse(work)
        elif any(failed(p.payload, p.envelope) for p in work.parts.values()):
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
            if source is not None and envelope.round and workflow.steps[self._agent].joins:
                detail = ErrorDetail(type=error.type, message=str(error))
                payload = ResultPayload(agent=source, status=AgentStatus.FAILED, error=detail)
                return self._take_part(record, envelope, workflow, source, payload)
        envelope.round = envelope.round or first_round(envelope)
        return self._once(Work("invalid", record, envelope, self._run_id(envelope), workflow, source, error))

    def _join_id(self, key: Key) -> str:
        return envelopes.run_id(self._app, self._agent, "join", *key)

    def _run_id(self, envelope: Envelope) -> str:
        return envelopes.run_id(self._app, self._agent, envelope.source, envelope.id)


def _expect_key(record: Record) -> None:
    if record.key is not None and len(record.key) > MAX_KEY_BYTES:
        raise InvalidInputError(
            f"{place(record)}: the key has {len(record.key)} bytes, at most {MAX_KEY_BYTES} are taken"
        )


def _expect_type(record: Record, envelope: Envelope, expected: str) -> None:
    if envelope.type != expected:
        raise InvalidInputError(
            f"{place(record)}: type {envelope.type!r} is unknown here; this topic holds {expected}"
        )


def _status_of(record: Record) -> str | None:
    """Read a result's status where no header tells it."""
    try:
        return parse(ResultPayload, record).status.value
    except InvalidInputError:
        return None  # told as a failure where the payload is needed


def _merged(last: Envelope, parts: Sequence[Envelope]) -> Envelope:
    """Give the envelope of a complete join: the strictest of all parts, whichever came last."""
    hops = [part.hops for part in parts if part.hops is not None]
    budgets = [part.budget or Budget() for part in parts] if any(part.budget for part in parts) else []
    deadlines = [part.deadline for part in parts if part.deadline is not None]
    return replace(
        last,
        hops=min(hops, default=None),
        deadline=min(deadlines, default=None),
        budget=Budget.merge(budgets) if budgets else None,
        llm=next((part.llm for part in parts if part.llm is not None), None),
        traceparent=parts[0].traceparent,
        tracestate=parts[0].tracestate,
    )
