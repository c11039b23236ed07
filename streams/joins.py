"""Joins that wait: which parts are there, until all of them are.

Kept in memory only. What waits stays uncommitted in Kafka, so a restart reads it again.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")

Key = tuple[str, str]


@dataclass(slots=True)
class Parts(Generic[P]):
    """What has come for one join."""

    awaited: frozenset[str]
    have: dict[str, P] = field(default_factory=dict)


class Joins(Generic[P]):
    """Waiting joins by (workflow, round)."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Parts[P]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def missing(self, key: Key, agent: str, awaited: frozenset[str]) -> frozenset[str] | None:
        """Tell which agents are still awaited once `agent`'s part is there; none if it is there already."""
        parts = self._waiting.get(key)
        if parts is None:
            return awaited - {agent}
        if agent in parts.have:
            return None
        return parts.awaited - parts.have.keys() - {agent}

    def wait(self, key: Key, agent: str, part: P, awaited: frozenset[str]) -> None:
        """Keep a part until the others are there."""
        self._waiting.setdefault(key, Parts(awaited)).have[agent] = part

    def complete(self, key: Key) -> dict[str, P]:
        """Take the parts that waited, because the last one is there."""
        parts = self._waiting.pop(key, None)
        return parts.have if parts is not None else {}

    def forget(self, key: Key, agent: str, part: P) -> None:
        """Drop a part whose partition went to another member; another copy of it stays."""
        parts = self._waiting.get(key)
        if parts is not None and parts.have.get(agent) is part:
            del parts.have[agent]
            if not parts.have:
                del self._waiting[key]
