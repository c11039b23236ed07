# What Python may know of the Rust machine; `agents/tests/test_machine.py` keeps it equal to the extension,
# whose own docstrings say what everything means.
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, final

__all__ = [
    "AgentRuntime",
    "Turn",
    "encode_records",
    "read_event",
    "record_digest",
    "run_id",
    "seal_records",
    "share_headers",
    "uuid_of",
    "write_event",
]

_Budget: TypeAlias = tuple[int | None, int | None, int | None]

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
        offered: list[
            tuple[int, int, int, int | None, bytes | None, int | None, int, bytes | None, int, _Budget | None]
        ]
        | None = None,
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

def record_digest(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]
) -> str: ...
def run_id(prefix: bytes, *identity: str) -> str: ...
def uuid_of(name: str) -> str: ...
def share_headers(
    headers: Iterable[tuple[str, bytes | None]],
    repeated: dict[tuple[str, bytes | None], tuple[str, bytes | None]],
) -> tuple[tuple[str, bytes | None], ...]: ...
def write_event(common: list[tuple[str, bytes]], *attributes: str | None) -> list[tuple[str, bytes]]: ...
def read_event(
    headers: Iterable[tuple[str, bytes | None]],
) -> (
    tuple[
        str,
        str,
        str,
        str | None,
        str | None,
        str | None,
        str | None,
        str | None,
        str | None,
        str | None,
        str | None,
        str | None,
        str | None,
        str | None,
    ]
    | None
): ...
def encode_records(
    records: Iterable[tuple[int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]]], limit: int
) -> tuple[bytes, int]: ...
def seal_records(
    records: bytes, count: int, timestamp: int, producer_id: int, producer_epoch: int, base_sequence: int
) -> bytes: ...
