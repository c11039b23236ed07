"""No test sees what the developer's shell has chosen, and none asks a model by accident."""

import signal
from collections.abc import Iterator

import pytest

from agents.core import llm
from agents.tests.environment import evidence_mode

from .kafka_fixture import kafka
from .secure_kafka import secure_kafka

__all__ = ["kafka", "secure_kafka"]


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> None:
    # Where tests run in the background, Ctrl-C is ignored, and so it would be by every process they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    with evidence_mode():
        yield


@pytest.fixture(autouse=True)
def _no_shared_provider() -> None:
    # A provider keeps its connections, and those belong to the event loop of the test that opened them.
    llm._provider.cache_clear()
