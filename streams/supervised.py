"""A worker's process as its supervisor keeps it: loaded before it is needed, gone when its supervisor is.

Loading Python, the Kafka clients and ourselves is most of what a start takes. So a process begins with that,
without knowing which worker it will be, and waits to be told; a spare one takes over from a dead worker at
once.
Never imports an application before it is told which worker it is: it may have changed on disk by then.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LINK = "CALLBOARD_SUPERVISOR"
# What every worker imports before it serves.
NEEDED = ("streams.app", "uvicorn", "uvicorn.protocols.http.h11_impl", "uvloop")


def main() -> None:
    """Load everything, wait to be told which worker to be, and be it."""
    link = json.loads(os.environ.pop(LINK))
    for descriptor in (link["socket"], *link["locks"]):
        # What this worker starts must not hold them: a lock that is held takes its slot out of use.
        os.set_inheritable(descriptor, False)  # noqa: FBT003 (takes no keyword)
    _die_with_parent(link["parent"])
    for name in NEEDED:
        with contextlib.suppress(Exception):  # whoever needs it imports it again, and says what is wrong
            importlib.import_module(name)
    told = _read_line(link["socket"])
    if not told:
        return  # the supervisor went, or needs no more workers
    order = json.loads(told)
    for lock in link["locks"]:
        if lock != order["lock"]:
            os.close(lock)
    os.environ |= order["environment"]
    os.environ[LINK] = json.dumps(
        {"slot": order["slot"], "terminal": order["terminal"], "socket": link["socket"]}
    )
    sys.argv[1:] = order["arguments"]

    from streams.command_line import main as command  # noqa: PLC0415 (a worker is a command as users give it)

    command()


def _read_line(descriptor: int) -> bytes:
    # Byte by byte: what comes after the line is for the worker.
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return b""
        line += byte
    return line


class Link:
    """What a worker's process has of its supervisor: a socket that ends with it.

    Attributes:
        slot: The worker's number.
        terminal: Its lines are shown on a terminal.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.slot: int = given["slot"]
        self.terminal: bool = given["terminal"]
        self._leave: Callable[[], None] | None = None
        self._socket = socket.socket(fileno=given["socket"])
        threading.Thread(target=self._listen, name="callboard-supervisor-link", daemon=True).start()

    @classmethod
    def of_this_process(cls) -> Link | None:
        """Give this process's link, once, if a supervisor started it."""
        given = os.environ.pop(LINK, None)
        return None if given is None else cls(json.loads(given))

    def tell_running(self) -> None:
        """Tell the supervisor that the application runs: from now on an end is an accident."""
        self._send({"runs": True})

    def when_told_to_leave(self, leave: Callable[[], None]) -> None:
        """Say what to do, from another thread, when partitions are to be given up at the next stop."""
        self._leave = leave

    def tell_problem(self, message: str) -> None:
        """Tell the supervisor why this worker cannot start."""
        self._send({"problem": message})

    def _send(self, what: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(what).encode() + b"\n")

    def _listen(self) -> None:
        # The end of the file comes when the supervisor is gone, however it went. Its successor may start
        # workers with our slot as soon as our lock is free, so there is no orderly end from here.
        with contextlib.suppress(OSError):
            while said := self._socket.recv(64):
                if b"leave" in said and self._leave is not None:
                    self._leave()
        os.kill(os.getpid(), signal.SIGKILL)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        # Also while native code keeps the interpreter's lock, when the listening thread cannot run.
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it went before we asked


if __name__ == "__main__":
    main()
