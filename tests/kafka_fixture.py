"""The fixture `kafka`: a real local Kafka for the whole test run, started when the first test asks for it.

Its data is new for every run; the jars and the ahead-of-time cache are the developer's own, so that only the
first run on a machine downloads anything.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from streams.kafka.local_broker import LocalBroker, default_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def shared_cache() -> Path:
    """Return the folder with the jars that test runs share with `callboard up`."""
    return default_home() / "kafka" / "cache"


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the bootstrap servers of a Kafka that lives as long as the test run."""
    broker = LocalBroker(tmp_path_factory.mktemp("kafka"), free_port(), shared_cache())
    broker.up(print)
    yield broker.bootstrap_servers
    broker.down(print)
