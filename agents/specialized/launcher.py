"""Runs one command under limits and ends everything it leaves behind; a program, started by `sandbox`.

It is the only process between a worker and the tests of an unknown repository: limits are set here, in a
process without threads, and inherited. Inside namespaces it is process 1, so that its end is the end of all;
elsewhere it adopts what its command abandons (Linux) and ends that. It imports nothing of Callboard.

Usage: launcher.py '{"command": [...], "seconds": ..., "memory": bytes, "file_size": bytes,
    "own_network": bool}'
The command's output goes to standard output. Standard error gets one JSON object: {"code", "timed_out",
"left_running"}; the command cannot write there.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
AMBIENT, CLEAR_ALL = 47, 4  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
GRACE = 2.0
"""Seconds a test run has to write its report once it is interrupted."""


def main() -> None:
    """Run the command."""
    wanted = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, stop)
    # A worker that was started in the background ignores it, its children would, too, and no report would be
    # written by tests that are interrupted below.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(
        AttributeError, OSError
    ):  # no Linux: nothing to adopt, the process group must do
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    if wanted["own_network"]:
        raise_loopback()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(AMBIENT, CLEAR_ALL, 0, 0, 0)
    for kind, most in (
        (resource.RLIMIT_AS, wanted["memory"]),
        (resource.RLIMIT_FSIZE, wanted["file_size"]),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # not every system lets a process limit its memory
            resource.setrlimit(kind, (limit, limit))
    # The command comes from the sandbox, which names the interpreter and pytest; no shell is involved.
    tests = subprocess.Popen(wanted["command"], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)  # noqa: S603
    timed_out = False
    try:
        code = tests.wait(wanted["seconds"])
    except subprocess.TimeoutExpired:
        timed_out = True
        tests.send_signal(signal.SIGINT)  # pytest then says where it was, and reports what it has
        try:
            code = tests.wait(GRACE)
        except subprocess.TimeoutExpired:
            tests.kill()
            code = tests.wait()
    left = end_the_rest()
    sys.stderr.write(json.dumps({"code": code, "timed_out": timed_out, "left_running": left}) + "\n")


def stop(number: int, frame: FrameType | None) -> None:
    """End at once, with everything that was started."""
    del number, frame
    end_the_rest()
    os._exit(1)


def end_the_rest() -> int:
    """End all processes that the command left; tells how many there were."""
    ended: set[int] = set()
    deadline = time.monotonic() + GRACE
    while (left := descendants()) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
                ended.add(process)
        # Orphans become this process's children one generation at a time: look again until none is left.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)
    return len(ended)


def descendants() -> set[int]:
    """Give the living children of this process, their children, and so on."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[1-9]*/stat"):  # none where there is no Linux
        with contextlib.suppress(OSError):
            state, parent = status.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(status.parent.name)] = int(parent)
    found = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def raise_loopback() -> None:
    """Make 127.0.0.1 work in a network namespace of its own; many tests talk to themselves."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(handle, GET_FLAGS, request), 16)
        fcntl.ioctl(handle, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | UP))


if __name__ == "__main__":
    main()
