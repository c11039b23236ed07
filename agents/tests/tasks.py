"""A task as a run gets it, for tests that need one."""

from typing import Any

from agents.core.errors import ArtifactError
from agents.core.task import ArtifactReference, Root, Task


class NoStore:
    """An artifact store without artifacts."""

    async def read(self, reference: ArtifactReference) -> bytes:
        """Refuse."""
        raise ArtifactError(f"{reference.name} is gone")


def a_task(**differing: Any) -> Task:
    """Give a task of agent `reader`."""
    fields: dict[str, Any] = {
        "id": "event-1",
        "agent": "reader",
        "run_id": "ab" * 32,
        "workflow_id": "flow-1",
        "input": "the secret payload",
        "root": Root(agent="reader", id="event-1"),
        "events": (),
        "artifacts": {},
        "deadline": None,
        "store": NoStore(),
    }
    return Task(**fields | differing)
