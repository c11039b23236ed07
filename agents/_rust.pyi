# What Python may know of the Rust machine; `agents/tests/test_machine.py` keeps it equal to the extension,
# whose own docstrings say what everything means.
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, final

from agents.core.budget import Budget

__all__ = [
    "AgentRuntime",
    "EncodedHeaders",
    "EncodedRecord",
    "Envelope",
    "Layout",
    "Offers",
    "Record",
    "RecordBatch",
    "ResultWriter",
    "Turn",
    "by_partition",
    "has_its_checksum",
    "moment",
    "next_traceparent",
    "read_event",
    "read_records",
    "read_result",
    "read_usual_tasks",
    "record_digest",
    "run_id",
    "says_null",
    "uuid_of",
    "write_event",
]

_R = TypeVar("_R", bound=_PlacedRecord)
_T = TypeVar("_T")
_Headers: TypeAlias = EncodedHeaders | Sequence[tuple[str, bytes | None]]
_Budget: TypeAlias = tuple[int | None, int | None, int | None]
_Offer: TypeAlias = tuple[
    int, int, int, int | None, bytes | None, int | None, int, bytes | None, int, _Budget | None
]

@final
class AgentRuntime:
    def __new__(
        cls,
        *,
        slots: int,
        max_queued_records: int,
        max_queued_bytes: int,
        timeout_ms: int | None = None,
        retries: int | None = None,
        backoff_ms: int | None = None,
        max_backoff_ms: int | None = None,
        retry_budget: int | None = None,
        dedupe_records: int | None = None,
        dedupe_ms: int | None = None,
        calls_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        max_done_bytes: int | None = None,
        seed: int | None = None,
    ) -> AgentRuntime: ...
    def turn(
        self,
        now: int,
        *,
        assigned: list[tuple[int, int, int, bool, bytes | None, int]] | None = None,
        revoked: bool = False,
        seen: list[tuple[int, int, bytes, int]] | None = None,
        offered: list[_Offer] | list[_Offer | Offers] | None = None,
        executed: list[int] | None = None,
        failed: list[tuple[int, int | None]] | None = None,
        acknowledged: list[int] | None = None,
        asked: list[tuple[int, int, int, int]] | None = None,
        spent: list[tuple[int, int, int]] | None = None,
    ) -> Turn: ...
    def commit_of(self, partition: int) -> tuple[int, int, bytes]: ...
    def in_flight(self) -> int: ...
    def queued(self) -> int: ...
    def running(self) -> int: ...
    def stats(self) -> dict[str, int]: ...

@final
class Turn:
    @property
    def start(self) -> list[int]: ...
    @property
    def cancel(self) -> list[int]: ...
    @property
    def settled(
        self,
    ) -> list[tuple[int, Literal["expired", "exhausted", "fenced", "stale", "redelivered", "duplicate"]]]: ...
    @property
    def retries(self) -> list[tuple[int, int, int]]: ...
    @property
    def granted(self) -> list[int]: ...
    @property
    def refused(self) -> list[tuple[int, Literal["calls", "tokens", "money", "ended"]]]: ...
    @property
    def commits(self) -> list[tuple[int, int]]: ...
    @property
    def pause(self) -> list[int]: ...
    @property
    def resume(self) -> list[int]: ...
    @property
    def wake_at(self) -> int | None: ...

@final
class Envelope:
    workflow: str | None
    round: str | None
    status: str | None
    deadline: datetime | None
    hops: int | None
    llm: str | None
    traceparent: str | None
    tracestate: str | None
    rounds: str | None
    budget: Budget | None
    def __new__(
        cls,
        id: str,  # noqa: A002 (the words of CloudEvents)
        source: str,
        type: str,  # noqa: A002 (as above)
        workflow_id: str,
        workflow: str | None = None,
        round: str | None = None,  # noqa: A002 (as above)
        status: str | None = None,
        deadline: datetime | None = None,
        hops: int | None = None,
        llm: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        rounds: str | None = None,
        budget: Budget | None = None,
    ) -> Envelope: ...
    @property
    def id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def workflow_id(self) -> str: ...
    @property
    def deadline_ms(self) -> int | None: ...
    def identity(self) -> bytes | None: ...
    def run_id(self, prefix: bytes) -> str: ...
    def __copy__(self) -> Envelope: ...
    def __eq__(self, other: object) -> bool: ...

@final
class EncodedHeaders:
    def __new__(cls, headers: Iterable[tuple[str, bytes | None]]) -> EncodedHeaders: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[str, bytes]]: ...

@final
class EncodedRecord:
    def __new__(cls, key: bytes | None, value: bytes | None, headers: _Headers) -> EncodedRecord: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]: ...
    @property
    def value_size(self) -> int: ...

@final
class Layout:
    def __new__(cls, description: str) -> Layout: ...
    def encode(self, values: object) -> bytes | None: ...
    def decode(self, data: bytes, offset: int) -> tuple[tuple[Any, ...], int] | None: ...

@final
class Offers:
    def __new__(
        cls,
        first_token: int,
        partition: int,
        epoch: int,
        records: list[Any],
        envelopes: list[Envelope],
        nbytes: int,
        ahead_ms: int | None,
        in_lanes: bool,
        deduped: bool,
        budgets: Sequence[_Budget | None] | None,
    ) -> Offers: ...
    def __len__(self) -> int: ...

@final
class Record:
    def __new__(
        cls,
        topic: str,
        partition: int,
        offset: int,
        timestamp: int,
        timestamp_type: int,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes | None]],
    ) -> Record: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def timestamp_type(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]: ...

@final
class RecordBatch:
    def __new__(
        cls, records: Iterable[tuple[int, EncodedRecord]], limit: int, timestamp: int
    ) -> RecordBatch: ...
    @property
    def count(self) -> int: ...
    def sealed(self, producer_id: int, producer_epoch: int, base_sequence: int) -> bytes: ...

@final
class ResultWriter:
    def __new__(
        cls, start: bytes, common: EncodedHeaders, max_key_bytes: int, llm: str | None
    ) -> ResultWriter: ...
    def write(
        self,
        given: Envelope,
        record: _Record,
        joined: Sequence[tuple[Envelope, _Record]] | None,
        run: str | bytes,
        status: str,
        output: bytes,
        verdict: str | None,
        error: bytes | None,
        artifacts: bytes,
        usage: bytes,
        budget: Budget | None,
        attempts: int,
        started_at: int | None,
        finished_at: int,
        root_agent: str,
        root_id: str | None,
        root_input: bytes | None,
        root_input_omitted: bool,
        root_repository: bytes | None,
        followers: tuple[str, ...],
        back: bytes | None,
    ) -> EncodedRecord: ...

class _Record(Protocol):
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...

class _PlacedRecord(_Record, Protocol):
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def timestamp_type(self) -> int: ...

def by_partition(records: Iterable[_R]) -> list[tuple[str, int, int, list[_R]]]: ...
def record_digest(record: _Record) -> str: ...
def run_id(prefix: bytes, *identity: str) -> str: ...
def uuid_of(name: str) -> str: ...
def moment(milliseconds: int) -> str: ...
def read_event(record: _Record) -> Envelope | None: ...
def has_its_checksum(data: bytes, begin: int, end: int) -> bool: ...
def read_records(data: bytes, begin: int, end: int, topic: str, partition: int) -> list[Record]: ...
def read_usual_tasks(
    records: Iterable[_Record], kind: str, max_key_bytes: int, workflows: dict[str, _T]
) -> list[tuple[Envelope, _T] | None]: ...
def write_event(
    common: EncodedHeaders, envelope: Envelope, time: int, causes: Sequence[tuple[str, str]]
) -> EncodedHeaders: ...
def read_result(value: bytes) -> tuple[bytes, str, str, bytes, bool] | None: ...
def says_null(json: bytes) -> bool: ...
def next_traceparent(current: str | None, run: str) -> str: ...
