# What Python may know of the Rust machine; `agents/tests/test_machine.py` keeps it equal to the extension,
# whose own docstrings say what everything means.
from typing import Literal, final

__all__ = ["AgentRuntime", "Turn"]

@final
class AgentRuntime:
    def __new__(
        cls,
        *,
        slots: int,
        max_queued_records: int,
        max_queued_bytes: int,
        timeout_ms: int | None = None,
    ) -> AgentRuntime: ...
    def turn(
        self,
        now: int,
        *,
        assigned: list[tuple[int, int, int, bool]] | None = None,
        revoked: bool = False,
        offered: list[tuple[int, int, int, int, bytes | None, int | None, int, tuple[int, ...]]]
        | None = None,
        held: list[tuple[int, int, int, int]] | None = None,
        executed: list[int] | None = None,
        acknowledged: list[int] | None = None,
    ) -> Turn: ...
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
    def settled(self) -> list[tuple[int, Literal["expired", "fenced", "stale", "redelivered"]]]: ...
    @property
    def commits(self) -> list[tuple[int, int]]: ...
    @property
    def pause(self) -> list[int]: ...
    @property
    def resume(self) -> list[int]: ...
    @property
    def wake_at(self) -> int | None: ...
