"""What runs did before they finished, in `journal.<agent>`: written before it counts, read after a crash.

A step is one side effect inside a run. Its start is in the log before it happens and its answer before it is
used, so a run that is repeated neither pays twice for an answer that is there nor pretends to know about one
that is not. Also here: which runs were begun while a partition is handled with care.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.core.errors import InvalidOutputError
from agents.core.step import Recorded, StepKey
from streams import envelope as envelopes
from streams.envelope import JOURNAL, Envelope, Record, place
from streams.kafka.publisher import Outgoing
from streams.kafka.record_batch import EncodedRecord
from streams.outboxes import Outboxes
from streams.work import RunHistory, Work

log = structlog.stdlib.get_logger()

RUN: Literal["run"] = "run"
MAX_MESSAGE_CHARACTERS = 2_000


class JournalPayload(BaseModel):
    """One thing a run did, or is about to do."""

    model_config = ConfigDict(frozen=True, extra="ignore", title="callboard.journal.v1")

    run: str = Field(description="run id")
    agent: str
    place: str = Field(description="topic/partition/offset of the event the run answers")
    kind: str = Field(description="llm, step, or run: the run itself was begun")
    name: str = ""
    request: str = Field(default="", description="SHA-256 of the request's canonical JSON")
    occurrence: int = Field(default=0, ge=0, description="counts equal requests of one attempt")
    state: Literal["started", "completed", "failed"]
    tries: int = Field(
        default=1,
        ge=1,
        alias="try",
        description="how often the step was begun; of a run: by which worker in a row",
    )
    question: Any = Field(default=None, description="the request, on `started`")
    answer: Any = Field(default=None, description="what came back, on `completed`")
    error: dict[str, str] | None = Field(default=None, description="type and message, on `failed`")
    at: str = Field(description="RFC 3339")
    instance: str = Field(default="", description="the worker that wrote it")


def learn(histories: dict[str, RunHistory], record: Record) -> None:
    """Add what one record of the journal says; one that cannot be read is said and passed over.

    It costs at worst one repeated call. Stopping would cost everything behind it.
    """
    try:
        raw = orjson.loads(record.value or b"")
        entry = JournalPayload.model_validate(raw)
        # As bytes, as it was written by the step itself.
        answer = orjson.dumps(raw["answer"]) if entry.state == "completed" else None
    except (orjson.JSONDecodeError, ValidationError, KeyError) as error:
        log.warning("journal record cannot be read, passing over it", at=place(record), error=str(error))
        return
    history = histories.setdefault(entry.run, RunHistory())
    if entry.kind == RUN:
        history.begun.add(entry.tries)
        return
    key = StepKey(entry.kind, entry.name, entry.request, entry.occurrence)
    known = history.steps.get(key)
    if known is None or known.state != "completed":  # a fenced worker may still write after the answer came
        history.steps[key] = Recorded(entry.state, answer, entry.tries)


class JournalWriter:
    """Appends to the journal of one agent.

    Args:
        agent: Name of the agent.
        source: `ce_source` of the records.
        instance: Names this worker, for people.
        outboxes: Makes those of the journal's topic, given what to tell.
        certainty: Waits until this worker owns its partitions for certain.
    """

    def __init__(
        self,
        *,
        agent: str,
        source: str,
        instance: str,
        outboxes: Callable[..., Outboxes],
        certainty: Callable[[], Awaitable[None]],
    ) -> None:
        self._agent, self._source, self._instance = agent, source, instance
        self.outboxes = outboxes(acknowledged=self._acknowledged, too_large=self._too_large)
        self.certainty = certainty
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._next = 1

    def of(self, work: Work) -> "RunJournal":
        """Give the journal of one run."""
        return RunJournal(self, work)

    async def begin(self, work: Work) -> None:
        """Write that a run begins; returns when it is in the log."""
        work.history = work.history or RunHistory()
        await self.append(work, StepKey(RUN, "", "", 0), "started", **{"try": work.marked})
        work.history.begun.add(work.marked)

    async def append(self, work: Work, key: StepKey, state: str, **more: Any) -> None:
        """Write one record and wait until all replicas have it."""
        tries = more.setdefault("try", 1)
        value = orjson.dumps(
            {
                "run": work.run,
                "agent": self._agent,
                "place": place(work.record),
                "kind": key.kind,
                "name": key.name,
                "request": key.request,
                "occurrence": key.occurrence,
                "state": state,
                "at": envelopes.now(),
                "instance": self._instance,
            }
            | more
        )
        identity = envelopes.result_id(f"{work.run}/{'/'.join(map(str, key))}/{state}/{tries}")
        headers = envelopes.encode(
            Envelope(
                id=identity,
                source=self._source,
                type=JOURNAL,
                workflow_id=work.envelope.workflow_id,
                workflow=work.envelope.workflow,
                round=work.envelope.round,
                traceparent=envelopes.next_traceparent(work.envelope.traceparent, work.run),
                tracestate=work.envelope.tracestate,
            ),
            causes=[(work.envelope.id, envelopes.record_digest(work.record))],
        )
        number, self._next = self._next, self._next + 1
        written = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            record = EncodedRecord(work.run.encode(), value, headers)
            self.outboxes.put(work.record.partition, [(number, record)])
            await written
        finally:
            self._waiting.pop(number, None)

    def _acknowledged(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            written = self._waiting.get(number)
            if written is not None and not written.done():
                written.set_result(None)

    def _too_large(self, refused: Outgoing) -> None:
        number, record = refused
        written = self._waiting.get(number)
        if written is not None and not written.done():
            written.set_exception(
                InvalidOutputError(
                    f"Kafka takes no journal record of {record.value_size} bytes; keep the bulk as an"
                    " Artifact, or raise max.message.bytes of the journal's topic"
                )
            )


class RunJournal:
    """The steps of one run, as `agents.core.step` asks for and tells them."""

    def __init__(self, writer: JournalWriter, work: Work) -> None:
        self._writer, self._work = writer, work
        work.history = work.history or RunHistory()
        self._steps = work.history.steps

    def recorded(self, key: StepKey) -> Recorded | None:
        """Tell what the log knows of a step."""
        return self._steps.get(key)

    async def started(self, key: StepKey, *, tries: int, request: Any | None) -> None:
        """Write that a step is about to happen."""
        await self._writer.append(self._work, key, "started", **{"try": tries}, question=request)
        # The last moment before it happens. Frozen in what little is left, it may happen twice nevertheless.
        await self._writer.certainty()
        self._steps[key] = Recorded("started", None, tries)

    async def completed(self, key: StepKey, answer: bytes, *, tries: int) -> None:
        """Write a step's answer."""
        await self._writer.append(
            self._work, key, "completed", **{"try": tries}, answer=orjson.Fragment(answer)
        )
        self._steps[key] = Recorded("completed", answer, tries)

    async def failed(self, key: StepKey, *, tries: int, error_type: str, message: str) -> None:
        """Write that a step certainly did not give an answer."""
        error = {"type": error_type, "message": message[:MAX_MESSAGE_CHARACTERS]}
        await self._writer.append(self._work, key, "failed", **{"try": tries}, error=error)
        self._steps[key] = Recorded("failed", None, tries)
