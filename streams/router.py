"""Decides what a record means for one agent: a run, a failure, a part of a join, or nothing to do.

Knows the edges of the workflows. Never runs anything and never raises for what a record holds.
"""

from collections.abc import Mapping, Sequence
from copy import copy

from agents import metrics
from agents.core.base import AgentStatus, ErrorDetail
from agents.core.budget import Budget
from agents.core.errors import (
    AgentError,
    HopsExhaustedError,
    InvalidInputError,
    RoundsExhaustedError,
)
from agents.core.workflow import Back, Workflow
from streams import envelope as envelopes
from streams import rounds
from streams.envelope import RESULT, TASK, Envelope, Record, first_round, place
from streams.join_records import Key, Reference
from streams.join_table import Firing
from streams.payloads import ResultPayload
from streams.restore import Past
from streams.topics import Topics
from streams.work import NO_SUCCESS, Part, Work, failed, parse

# With it and the headers, whose size the envelope bounds, every result up to its limit fits into a record.
MAX_KEY_BYTES = 32 * 1024


class Router:
    """What records mean for one agent of one application.

    Args:
        app: Name of the application; part of every run id.
        agent: Name of the agent.
        workflows: The application's workflows by name; those without the agent are ignored.
        topics: Topic names.
        past: Knows what happened before this worker.
    """

    def __init__(
        self,
        *,
        app: str,
        agent: str,
        workflows: Mapping[str, Workflow],
        topics: Topics,
        past: Past,
    ) -> None:
        self._app, self._agent = app, agent
        self._run_prefix = envelopes.run_prefix(app, agent)
        self._workflows = {name: w for name, w in workflows.items() if agent in w.steps}
        self._topics = topics
        self._tasks_topic = topics.tasks(agent)
        self._past = past
        # The workflows by name in which this agent reads a source's results, or tasks (none).
        self._answering: dict[str | None, dict[str, Workflow]] = {
            source: {n: w for n, w in self._workflows.items() if source in (None, *w.reads(agent))}
            for source in (None, *self.sources)
        }
        self._may_go_back = {n: {back.step for back in w.backs} for n, w in self._workflows.items()}

    @property
    def sources(self) -> tuple[str, ...]:
        """The agents whose results this one reads, in any workflow."""
        found: dict[str, None] = {}
        for workflow in self._workflows.values():
            found |= dict.fromkeys(workflow.reads(self._agent))
        return tuple(found)

    @property
    def joins(self) -> bool:
        """Whether the agent waits for several others, in any workflow."""
        return any(workflow.steps[self._agent].joins for workflow in self._workflows.values())

    def knows(self, workflow: str) -> bool:
        """Tell whether the agent has a part in a workflow of this name."""
        return workflow in self._workflows

    def meanings_of(self, records: Sequence[Record]) -> list[Work | Part]:
        """Decide what records of one partition mean, in their order."""
        first = records[0]
        if first.topic != self._tasks_topic:
            return [self._closely(record, is_task=False) for record in records]
        works: list[Work | Part] = []
        prefix, knows_past = self._run_prefix, self._past.knows(first.partition)
        usual = envelopes.decode_usual_tasks(records, TASK, MAX_KEY_BYTES, self._answering[None])
        for record, read in zip(records, usual, strict=True):
            if read is None:
                works.append(self._closely(record, is_task=True))
            else:
                work = Work("run", record, read[0], prefix, read[1])
                works.append(self._once(work) if knows_past else work)
        return works

    def _closely(self, record: Record, *, is_task: bool) -> Work | Part:
        """Decide what any record means, and say what is wrong with it."""
        source = None if is_task else self._topics.agent_of(record.topic)
        try:
            _expect_key(record)
            envelope = envelopes.decode(record)
        except AgentError as error:
            if is_task:
                source = self._redriven_source(record)
            return self._invalid(record, envelopes.fallback(record), source, error)
        if is_task and envelope.type == RESULT:
            source = self._redriven_source(record)
        try:
            _expect_type(record, envelope, TASK if source is None else RESULT)
            rounds.entry(envelope.rounds)
            workflow = self._workflow_of(record, envelope, source)
        except AgentError as error:
            return self._invalid(record, envelope, source, error)
        if workflow is None:
            return self._skip(record, envelope, "other_workflow")
        _complete(envelope, workflow)
        if source is None:
            return self._run(record, envelope, workflow, None)
        if envelope.budget is not None:
            envelope.budget = self._share(envelope.budget, workflow, source)
        try:
            return self._answer(record, envelope, workflow, source)
        except AgentError as error:
            return self._invalid(record, envelope, source, error)

    def _answer(self, record: Record, envelope: Envelope, workflow: Workflow, source: str) -> Work | Part:
        """Decide what a result means.

        Raises:
            InvalidInputError: If it cannot be read where it has to be.
        """
        if envelope.status is None:
            envelope.status = _status_of(record)
        if envelope.status == AgentStatus.PARKED:
            return self._skip(record, envelope, "parked")
        if source in self._may_go_back[workflow.name]:
            back = _way_back(record, envelope, workflow, source)
            if back is not None:
                return self._gone_back(record, envelope, workflow, back)
        if source not in workflow.steps[self._agent].after:
            return self._skip(record, envelope, "goes_on")
        if workflow.steps[self._agent].joins:
            payload = parse(ResultPayload, record)
            return self._unless_answered(self._part(record, envelope, workflow, source, payload))
        return self._run(record, envelope, workflow, source)

    def _run(self, record: Record, envelope: Envelope, workflow: Workflow, source: str | None) -> Work:
        work = Work("run", record, envelope, self._run_prefix, workflow, source)
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
        """Pass over what has an outcome; hand on with the rest what the journal knows."""
        partition = work.record.partition
        if self._past.knows(partition):
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

    def _gone_back(self, record: Record, envelope: Envelope, workflow: Workflow, back: Back) -> Work | Part:
        """Begin a new round, if it comes back to this agent; a join learns what will not come."""
        step = workflow.steps[self._agent]
        if back.to == self._agent:
            taken = rounds.times(envelope.rounds, back)
            envelope.rounds, envelope.round = rounds.once_more(envelope.rounds, back), first_round(envelope)
            work = self._run(record, envelope, workflow, back.step)
            if work.kind == "run" and taken >= back.rounds:  # ours become a failure before; others may not
                work.kind = "refused"
                work.error = RoundsExhaustedError(
                    f"{place(record)} goes back to {back.to} after {taken} rounds; {back.rounds} are allowed"
                )
            return work
        if step.joins:
            payload = parse(ResultPayload, record)
            entry = _entry(envelope, payload, back.step)
            without = {back.step, *workflow.without(back.step, entry=entry)}
            if gone := tuple(name for name in step.after if name in without):
                part = self._part(record, envelope, workflow, back.step, payload)
                part.gone = gone
                return part
        return self._skip(record, envelope, "goes_back")

    def _part(
        self, record: Record, envelope: Envelope, workflow: Workflow, source: str, payload: ResultPayload
    ) -> Part:
        entry = _entry(envelope, payload, source)
        awaiting = workflow.awaiting(self._agent, entry=entry, source=source)
        return Part((workflow.name, envelope.round or ""), source, record, envelope, payload, awaiting)

    def _unless_answered(self, part: Part) -> Work | Part:
        if self._past.has_outcome(part.record.partition, self._join_id(part.key)):
            return self._skip(part.record, part.envelope, "answered")
        return part

    def work_of(self, firing: Firing, records: Mapping[str, Record]) -> Work:
        """Give what a join that fires means: the same however often it is asked, whatever came in between.

        Args:
            firing: What fires.
            records: Those of its parts, by agent.
        """
        workflow = self._workflows[firing.key[0]]
        parts = {it.agent: self._part_again(records[it.agent], firing.key, it) for it in firing.parts}
        last = max(parts.values(), key=lambda part: (part.record.timestamp, part.agent))
        envelope = _merged(last.envelope, [part.envelope for part in parts.values()])
        if any(part.record.topic == self._tasks_topic for part in parts.values()):
            # They were published again, for this agent alone: for those after it the round begins here.
            envelope.rounds = rounds.redriven(self._agent)
        work = Work("run", last.record, envelope, self._join_id(firing.key), workflow, last.agent)
        work.parts, work.missing = parts, firing.missing
        if firing.reason == "timeout":
            work.kind = "timed_out"
        elif not firing.runs:
            work.kind = "upstream_failed"
        elif envelope.hops == 0:
            self._refuse(work)
        if self._past.has_outcome(firing.partition, work.run):
            work.kind = "skip"
        else:
            work.history = self._past.history(firing.partition, work.run)
        return work

    def _part_again(self, record: Record, key: Key, reference: Reference) -> Part:
        """Read a part anew; one that could not be read is the failure it was before."""
        agent = reference.agent
        try:
            envelope = envelopes.decode(record)
            payload = parse(ResultPayload, record)
        except AgentError as error:
            envelope = envelopes.fallback(record)
            payload = _failure(agent, error)
        if reference.status == "failed" and not failed(payload, envelope):
            payload = _failure(agent, InvalidInputError(f"{place(record)} is no valid result"))
        envelope.workflow, envelope.round = key
        workflow = self._workflows[key[0]]
        if envelope.budget is not None:
            envelope.budget = self._share(envelope.budget, workflow, agent)
        awaiting = workflow.awaiting(self._agent, entry=agent, source=agent)
        return Part(key, agent, record, envelope, payload, awaiting)

    def _invalid(
        self, record: Record, envelope: Envelope, source: str | None, error: AgentError
    ) -> Work | Part:
        """Make a failure of a record that cannot be read; at a join it is a failed part, so nobody waits."""
        envelope.rounds = None  # it may be what cannot be read
        try:
            workflow = self._workflow_of(record, envelope, source)
        except AgentError:
            workflow = None
        if workflow is None and envelope.workflow and source is not None:
            return self._skip(record, envelope, "other_workflow")
        if workflow is not None:
            envelope.workflow = workflow.name
            if source is not None and source not in workflow.steps[self._agent].after:
                return self._skip(record, envelope, "unreadable")  # those who follow it say so
            if source is not None and envelope.round and workflow.steps[self._agent].joins:
                part = self._part(record, envelope, workflow, source, _failure(source, error))
                return self._unless_answered(part)
        envelope.round = envelope.round or first_round(envelope)
        # Named by its place: what cannot be read says nothing certain about which event it is, and two that
        # claim the same must not pass for one.
        run = envelopes.run_id(self._app, self._agent, "", place(record))
        return self._once(Work("invalid", record, envelope, run, workflow, source, error))

    def _join_id(self, key: Key) -> str:
        return envelopes.run_id(self._app, self._agent, "join", *key)


def _complete(envelope: Envelope, workflow: Workflow) -> None:
    """Say what an event may leave out."""
    # Most events say it, and what they say lies in their headers until something is set.
    if not envelope.workflow:
        envelope.workflow = workflow.name
    if envelope.round is None:
        envelope.round = first_round(envelope)


def _way_back(record: Record, envelope: Envelope, workflow: Workflow, source: str) -> Back | None:
    if envelope.status in NO_SUCCESS:
        return None
    payload = parse(ResultPayload, record)
    if payload.status is not AgentStatus.COMPLETED:
        return None
    return workflow.way_back(source, payload.verdict)


def _entry(envelope: Envelope, payload: ResultPayload, source: str) -> str:
    """Tell at which agent the round of a result began."""
    root = payload.root.agent if payload.root is not None else source
    return rounds.entry(envelope.rounds) or root


def _failure(agent: str, error: AgentError) -> ResultPayload:
    detail = ErrorDetail(type=error.type, message=str(error))
    return ResultPayload(agent=agent, status=AgentStatus.FAILED, error=detail)


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
    merged = copy(last)
    merged.hops = min(hops, default=None)
    merged.deadline = min(deadlines, default=None)
    merged.budget = Budget.merge(budgets) if budgets else None
    merged.llm = next((part.llm for part in parts if part.llm is not None), None)
    merged.traceparent, merged.tracestate = parts[0].traceparent, parts[0].tracestate
    return merged
