"""Names of the topics, and which topics an application needs."""

from dataclasses import dataclass

TASKS = "tasks"
RESULTS = "results"
ARTIFACTS = "artifacts"
JOURNAL = "journal"
DEAD = "dead"
JOINS = "joins"

MAX_RECORD_BYTES = 2 * 1024 * 1024
# Headers and framing come on top of a record's value; a dead letter has those of the original and its own.
MAX_MESSAGE_BYTES = MAX_RECORD_BYTES + 64 * 1024
MAX_LETTER_BYTES = MAX_MESSAGE_BYTES + 64 * 1024


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic names under one prefix."""

    prefix: str = ""

    def tasks(self, agent: str) -> str:
        """Where tasks for `agent` are published."""
        return f"{self.prefix}{TASKS}.{agent}"

    def results(self, agent: str) -> str:
        """Where `agent` publishes what its runs ended with."""
        return f"{self.prefix}{RESULTS}.{agent}"

    def artifacts(self, agent: str) -> str:
        """Where contents of artifacts are, of `agent` or of tasks published for it."""
        return f"{self.prefix}{ARTIFACTS}.{agent}"

    def journal(self, agent: str) -> str:
        """Where `agent` writes what its runs did before they finished."""
        return f"{self.prefix}{JOURNAL}.{agent}"

    def dead(self, agent: str) -> str:
        """Where events are that `agent` could not process, with the reason."""
        return f"{self.prefix}{DEAD}.{agent}"

    def joins(self, agent: str) -> str:
        """Where `agent` keeps which parts of its joins have come; compacted."""
        return f"{self.prefix}{JOINS}.{agent}"

    def of(self, agent: str) -> tuple[str, ...]:
        """Give all topics of one agent; one that joins has `joins` besides."""
        return (
            self.tasks(agent),
            self.results(agent),
            self.artifacts(agent),
            self.journal(agent),
            self.dead(agent),
        )

    def config(self, topic: str) -> dict[str, str]:
        """Give what a topic is created with.

        The broker stamps records: how far to look back after a restart is found by time, and producers'
        clocks differ.
        """
        config = {
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
            "retention.ms": "-1",
            "message.timestamp.type": "LogAppendTime",
        }
        if topic.startswith(f"{self.prefix}{DEAD}."):
            config["max.message.bytes"] = str(MAX_LETTER_BYTES)
        if topic.startswith(f"{self.prefix}{JOINS}."):
            # Small segments, because the active one is never compacted.
            config |= {
                "cleanup.policy": "compact",
                "segment.ms": "600000",
                "min.cleanable.dirty.ratio": "0.2",
            }
        return config

    def agent_of(self, topic: str) -> str | None:
        """Tell whose tasks or results a topic holds; none for any other topic."""
        for kind in (TASKS, RESULTS):
            if topic.startswith(start := f"{self.prefix}{kind}."):
                return topic.removeprefix(start) or None
        return None

    def has_events(self, topic: str) -> bool:
        """Tell whether a topic holds tasks or results."""
        return self.agent_of(topic) is not None
