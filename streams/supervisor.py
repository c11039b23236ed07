"""Keeps several workers of one application alive on this machine: starts, restarts and stops processes.

Each worker has a slot, and with it a static instance id in its consumer groups: one that is killed and
started again gets its partitions back at once, and no other worker notices. An id that two processes used
would make both own everything, so each slot is a file lock, which its worker holds as well: it ends with the
last of them.
Never runs an agent, and never talks to Kafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import re
import signal
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from streams.kafka.local_broker.locks import held, locked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

log = structlog.stdlib.get_logger()

LINK = "CALLBOARD_SUPERVISOR"

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
# A worker that lived this long did not fail at once: the next pause is no longer than the last.
SHORT_LIFE_SECONDS = 10.0
STABLE_SECONDS = 60.0
# A worker gives running work CALLBOARD_DRAIN_SECONDS, and needs a little for the rest.
STOP_MARGIN_SECONDS = 10.0
LAST_WORDS_SECONDS = 1.0
MAX_SLOTS = 10_000
# A group.instance.id is limited to letters, digits, '.', '_' and '-', 249 in all.
NO_ID = re.compile(r"[^a-zA-Z0-9._-]+")
LONGEST_PART = 80


class WorkerRefusedError(Exception):
    """A worker could not start and said why; starting it again would not help.

    Args:
        message: What it said.
        code: What it exited with.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


# Deciding --------------------------------------------------------------------------------------------


class Backoff:
    """How long to wait before a worker is started again.

    Args:
        chance: Gives a number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0

    def pause(self, lived: float) -> float:
        """Give the seconds to wait, for a worker that ended after `lived` seconds.

        They double with each early end, with jitter, so that workers which fail together do not start
        together; a stable minute makes them short again.
        """
        if lived >= STABLE_SECONDS:
            self._failures = 0
        elif lived < SHORT_LIFE_SECONDS or self._failures == 0:
            self._failures += 1
        full = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** max(0, self._failures - 1))
        return full * (1 + self._chance()) / 2


class Ended(NamedTuple):
    """How a worker's process ended.

    Attributes:
        code: Exit code; negative: the signal that ended it.
        ran: It got as far as running the application.
        problem: Why it could not start, in its own words.
    """

    code: int
    ran: bool = True
    problem: str | None = None


class Worker(Protocol):
    """One process that runs the application."""

    pid: int

    async def ended(self) -> Ended:
        """Wait until it ended."""

    def stop(self) -> None:
        """Ask for an orderly end."""

    def kill(self) -> None:
        """End it at once."""


class Supervisor:
    """Keeps one worker per slot running until it is told to stop.

    Args:
        start: Starts the worker of a slot.
        slots: Numbers of the slots.
        patience: Seconds workers get for an orderly end.
        clock: Monotonic seconds.
        sleep: Waits some seconds.
        chance: Gives a number from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 (time and chance come in as arguments)
        self,
        start: Callable[[int], Awaitable[Worker]],
        slots: Sequence[int],
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._start = start
        self._slots = slots
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._running: dict[int, Worker] = {}
        self._ran = False
        self._refusal: WorkerRefusedError | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep the workers running; returns when it was told to stop and all have ended.

        Raises:
            WorkerRefusedError: If one could not start and said why, before any ran; the others were stopped.
        """
        late = asyncio.create_task(self._end_late_ones())
        try:
            async with asyncio.TaskGroup() as keeping:
                for slot in self._slots:
                    keeping.create_task(self._keep(slot))
        finally:
            late.cancel()
            self.kill()
        if self._refusal is not None:
            raise self._refusal

    def stop(self) -> None:
        """Let all workers end in an orderly way, at the same time."""
        if not self._stopping.is_set():
            self._stopping.set()
            for worker in self._running.values():
                worker.stop()

    def kill(self) -> None:
        """End all workers at once."""
        self._stopping.set()
        for worker in self._running.values():
            worker.kill()

    async def _keep(self, slot: int) -> None:
        backoff = Backoff(self._chance)
        while not self._stopping.is_set():
            started = self._clock()
            ended = await self._live(slot)
            if self._stopping.is_set():
                return
            self._ran = self._ran or ended.ran
            if ended.problem is not None and not self._ran:
                self._refusal = self._refusal or WorkerRefusedError(ended.problem, ended.code)
                self.stop()
                return
            lived = self._clock() - started
            pause = backoff.pause(lived)
            log.warning(
                "a worker ended and is started again",
                worker=slot,
                how=_how(ended.code),
                problem=ended.problem,
                after=round(lived, 1),
                pause=round(pause, 2),
            )
            await self._pause(pause)

    async def _live(self, slot: int) -> Ended:
        try:
            worker = await self._start(slot)
        except OSError as error:
            return Ended(1, ran=False, problem=f"no process can be started: {error}")
        self._running[slot] = worker
        log.info("worker started", worker=slot, pid=worker.pid)
        if self._stopping.is_set():  # told while it was being started
            worker.stop()
        try:
            return await worker.ended()
        finally:
            del self._running[slot]

    async def _pause(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._sleep(seconds)), asyncio.create_task(self._stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _end_late_ones(self) -> None:
        await self._stopping.wait()
        await self._sleep(self._patience)
        for slot, worker in self._running.items():
            log.error("a worker did not end in time and is killed", worker=slot, seconds=self._patience)
            worker.kill()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


# Slots -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """A number that one worker of an application has on this machine, and nobody else.

    Attributes:
        number: Which.
        lock: Descriptor of its lock.
    """

    number: int
    lock: int


@contextlib.contextmanager
def hold_slots(folder: Path, count: int) -> Iterator[list[Slot]]:
    """Hold the lowest free slots; another supervisor of the same application gets other ones.

    Args:
        folder: Where the locks are.
        count: How many.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as locks:
        slots: list[Slot] = []
        for number in range(MAX_SLOTS):
            if len(slots) == count:
                break
            if (lock := locks.enter_context(held(folder / f"{number}.lock"))) is not None:
                slots.append(Slot(number, lock))
        yield slots


def place_of(home: Path, application: str) -> Path:
    """Give the folder of an application's locks."""
    return home / "workers" / NO_ID.sub("_", application)[:LONGEST_PART]


def instance_prefix(home: Path, application: str) -> str:
    """Give what the instance ids of this application on this machine begin with.

    Host names are not unique (containers may share one), so a number that is kept beside the locks is part of
    it: whoever does not see our locks does not have our ids either.
    """
    folder = home / "workers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "id"
    with locked(folder / "id.lock", lambda: log.warning("waiting for another supervisor", lock=str(folder))):
        if not path.exists():
            path.write_text(uuid.uuid4().hex[:8])
        number = path.read_text()
    parts = (socket.gethostname(), number, place_of(home, application).name)
    return "-".join(NO_ID.sub("_", part)[:LONGEST_PART] for part in parts)


# A worker's process, seen from its supervisor ---------------------------------------------------------


class WorkerProcess:
    """A worker as a child process, with a socket on which it tells how its start goes.

    Args:
        slot: Its number.
        leaves: Whether it gives its partitions up when it is told to stop, instead of keeping them for a
            session.
    """

    def __init__(self, slot: int, *, leaves: bool) -> None:
        self.slot = slot
        self.pid = 0
        self._leaves = leaves
        self._process: asyncio.subprocess.Process
        self._told: dict[str, Any] = {}
        self._writer: asyncio.StreamWriter
        self._listening: list[asyncio.Task[None]] = []

    async def start(self, command: Sequence[str], environment: dict[str, str], slot: Slot) -> None:
        """Start it; on a terminal its lines are shown with its number in front."""
        pipes = {
            name: asyncio.subprocess.PIPE if stream.isatty() else None
            for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
        }
        ours, theirs = socket.socketpair()
        with theirs:
            link = {
                "slot": self.slot,
                "socket": theirs.fileno(),
                "lock": slot.lock,
                "parent": os.getpid(),
                "terminal": pipes["stderr"] is not None,
            }
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=environment | {LINK: json.dumps(link)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipes["stdout"],
                stderr=pipes["stderr"],
                pass_fds=(theirs.fileno(), slot.lock),
                # Ctrl-C is for the supervisor, which then stops its workers in an orderly way.
                start_new_session=True,
            )
        self.pid = self._process.pid
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=2**24)
        self._listening.append(asyncio.create_task(self._hear(reader)))
        for source, target in (
            (self._process.stdout, sys.stdout.buffer),
            (self._process.stderr, sys.stderr.buffer),
        ):
            if source is not None:
                prefix = f"{self.slot} | ".encode()
                self._listening.append(asyncio.create_task(forward(source, target, prefix)))

    async def ended(self) -> Ended:
        """Wait until it ended and all it said is shown."""
        code = await self._process.wait()
        # What it started may go on and hold its output open: that must not keep it from being replaced.
        await asyncio.wait(self._listening, timeout=LAST_WORDS_SECONDS)
        self._writer.close()
        return Ended(code, bool(self._told.get("runs")), self._told.get("problem"))

    def stop(self) -> None:
        """Ask for an orderly end."""
        with contextlib.suppress(ProcessLookupError, OSError):
            if self._leaves:
                self._writer.write(b"leave\n")
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            async for line in reader:
                self._told |= json.loads(line)


async def forward(source: asyncio.StreamReader, target: Any, prefix: bytes) -> None:
    """Copy lines, each with a prefix; a line is written when it is whole."""
    rest = b""
    while data := await source.read(2**16):
        *lines, rest = (rest + data).split(b"\n")
        target.write(b"".join(prefix + line + b"\n" for line in lines))
        target.flush()
    if rest:
        target.write(prefix + rest + b"\n")
        target.flush()


# A worker's side --------------------------------------------------------------------------------------


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
        # What this worker starts must outlive neither: a lock that is still held takes the slot out of use.
        for descriptor in (given["socket"], given["lock"]):
            os.set_inheritable(descriptor, False)  # noqa: FBT003 (takes no keyword)
        _die_with_parent(given["parent"])
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
