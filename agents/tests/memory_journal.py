"""A journal of one run, kept in memory: does what a worker's does, without Kafka and in plain sight."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from agents.core.step import Recorded, State, StepKey


class Written(NamedTuple):
    """One record."""

    state: State
    key: StepKey
    tries: int
    what: Any


async def _at_once(_: Written) -> None:
    return


class MemoryJournal:
    """Keeps what is written, in order.

    Args:
        log: Where it is kept; given to the next journal, that one knows what this one wrote.
        acknowledge: Awaited after a record is in the log and before its writer goes on.
    """

    def __init__(
        self,
        log: list[Written] | None = None,
        acknowledge: Callable[[Written], Awaitable[None]] = _at_once,
    ) -> None:
        self.log = [] if log is None else log
        self._acknowledge = acknowledge
        self._known = known_of(self.log)

    def recorded(self, key: StepKey) -> Recorded | None:
        return self._known.get(key)

    async def started(self, key: StepKey, *, tries: int, request: Any | None) -> None:
        await self._write(Written("started", key, tries, request))

    async def completed(self, key: StepKey, answer: bytes, *, tries: int) -> None:
        await self._write(Written("completed", key, tries, answer))

    async def failed(self, key: StepKey, *, tries: int, error_type: str, message: str) -> None:
        await self._write(Written("failed", key, tries, (error_type, message)))

    @property
    def states(self) -> list[State]:
        """The states in the order they were written."""
        return [written.state for written in self.log]

    async def _write(self, written: Written) -> None:
        self.log.append(written)
        await self._acknowledge(written)
        self._known = known_of(self.log)


def known_of(log: list[Written]) -> dict[StepKey, Recorded]:
    """Give the last word of a log on each of its steps."""
    return {
        written.key: Recorded(
            written.state, written.what if written.state == "completed" else None, written.tries
        )
        for written in log
    }
