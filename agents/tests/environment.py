"""The environment that tests run in: nothing of the developer's own settings, and no language model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Where the local Kafka's jars are kept: without it, a developer who moved them downloads them again.
KEPT = frozenset({"CALLBOARD_HOME"})


@contextmanager
def evidence_mode() -> Iterator[None]:
    """Hide every setting of Callboard and of the model provider, and choose to ask no model."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("CALLBOARD_", "ANTHROPIC_")) and name not in KEPT:
                patch.delenv(name)
        patch.setenv("CALLBOARD_LLM", "off")
        yield
