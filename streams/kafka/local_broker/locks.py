"""A lock between processes that ends with its holder, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from .errors import LocalBrokerError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_REPORT_EVERY = 2.0  # seconds
_TRY_EVERY = 0.05  # seconds


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock on `path`, waiting for it as long as another process has it.

    Args:
        path: a file that is made if needed and never removed: if it were, two processes could hold the lock
            on two files of the same name.
        waiting: called every two seconds while another process has it.
    """
    with _opened(path) as descriptor:
        reported = time.monotonic()
        while not _taken(descriptor):
            if time.monotonic() - reported >= _REPORT_EVERY:
                reported = time.monotonic()
                waiting()
            time.sleep(_TRY_EVERY)
        yield


@contextlib.contextmanager
def locked_at_once(path: Path) -> Iterator[bool]:
    """Hold the lock on `path`, or say False at once if another process has it."""
    with _opened(path) as descriptor:
        yield _taken(descriptor)


@contextlib.contextmanager
def held(path: Path) -> Iterator[int | None]:
    """Hold the lock on `path` and give its descriptor, or none at once if another process has it.

    A child that gets the descriptor holds the lock as well, until the last of them ends.
    """
    with _opened(path) as descriptor:
        yield descriptor if _taken(descriptor) else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(
        path, os.O_RDWR | os.O_CREAT, 0o600
    )  # not inherited: a broker must not keep the lock
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    if sys.platform == "win32":
        raise LocalBrokerError(
            "The local Kafka runs on Linux and macOS only. Set CALLBOARD_BOOTSTRAP_SERVERS to a Kafka that "
            "you have."
        )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
