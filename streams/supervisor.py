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
import json
import os
import random
import re
import signal
import socket
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from streams.kafka.local_broker.locks import held, locked
from streams.supervised import LINK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

log = structlog.stdlib.get_logger()

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
# A worker that lived this long did not fail at once: the next pause is no longer than the last.
SHORT_LIFE_SECONDS = 10.0
STABLE_SECONDS = 60.0
# A worker gives running work CALLBOARD_DRAIN_SECONDS, the last commit ten more, and the rest takes a little.
STOP_MARGIN_SECONDS = 20.0
LAST_WORDS_SECONDS = 1.0
# So many ends before any worker ran are no accident; a word of advice is due.
FUTILE_STARTS = 5
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
        self._ends = 0
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
                **({} if ended.problem is None else {"problem": ended.problem}),
                after=round(lived, 1),
                pause=round(pause, 2),
            )
            self._advise(ended)
            await self._pause(pause)

    def _advise(self, ended: Ended) -> None:
        """Say once where to look, if workers only ever end before they run the application."""
        self._ends += 1
        if self._ends == FUTILE_STARTS and not self._ran:
            log.error(
                "no worker has got as far as running the application: look at the last lines that they wrote"
                " before this one, and try it without --workers",
                starts=self._ends,
                how=_how(ended.code),
            )

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


# Processes -------------------------------------------------------------------------------------------


class WorkerProcess:
    """A worker as a child process, with a socket on which it is told what to be and tells how that goes.

    Args:
        leaves: Whether it gives its partitions up when it is told to stop, instead of keeping them for a
            session.
        running: Called when it runs the application.
    """

    def __init__(self, *, leaves: bool, running: Callable[[], None]) -> None:
        self.pid = 0
        self._leaves = leaves
        self._running = running
        self._prefix = b""
        self._told: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process
        self._writer: asyncio.StreamWriter
        self._listening: list[asyncio.Task[None]] = []

    async def start(self, locks: Sequence[int]) -> None:
        """Start the process, which loads what it needs and waits.

        Args:
            locks: Descriptors of the locks of all slots that it may get.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            link = {"socket": theirs.fileno(), "locks": list(locks), "parent": os.getpid()}
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "streams.supervised"),
                env=os.environ | {LINK: json.dumps(link)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if sys.stdout.isatty() else None,
                stderr=asyncio.subprocess.PIPE if sys.stderr.isatty() else None,
                pass_fds=(theirs.fileno(), *locks),
                # Ctrl-C is for the supervisor, which then stops its workers in an orderly way.
                start_new_session=True,
            )
        self.pid = self._process.pid
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=2**24)
        self._listening.append(asyncio.create_task(self._hear(reader)))
        for source, target in ((self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr)):
            if source is not None:
                forwarding = forward(source, target.buffer, lambda: self._prefix)
                self._listening.append(asyncio.create_task(forwarding))

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    def become(self, slot: Slot, arguments: Sequence[str], environment: dict[str, str]) -> None:
        """Be the worker of a slot; on a terminal its lines are shown with the slot's number in front.

        Args:
            slot: Which.
            arguments: Of the command `callboard`.
            environment: What differs from ours.
        """
        self._prefix = f"{slot.number} | ".encode()
        order = {
            "slot": slot.number,
            "lock": slot.lock,
            "terminal": self._process.stderr is not None,
            "arguments": list(arguments),
            "environment": environment,
        }
        self._writer.write(json.dumps(order).encode() + b"\n")

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
                self._told |= (said := json.loads(line))
                if said.get("runs"):
                    self._running()


class Spares:
    """Keeps one process loaded for the next worker that is needed.

    It is made when a worker runs, not while one starts: they would wait for each other.

    Args:
        make: Starts a process.
    """

    def __init__(self, make: Callable[[], Awaitable[WorkerProcess]]) -> None:
        self._make = make
        self._spare: WorkerProcess | None = None
        self._making: asyncio.Task[None] | None = None
        self._closed = False

    async def take(self) -> WorkerProcess:
        """Give the spare process, or a new one."""
        spare, self._spare = self._spare, None
        return spare if spare is not None and spare.alive else await self._make()

    def refill(self) -> None:
        """See that there is a spare process."""
        making = self._making is not None and not self._making.done()
        if not (making or self._closed or (self._spare is not None and self._spare.alive)):
            self._making = asyncio.create_task(self._add())

    async def close(self) -> None:
        """End the spare process; there will be no other."""
        self._closed = True
        if self._making is not None:
            await asyncio.wait([self._making])
        if self._spare is not None:
            self._spare.kill()
            await self._spare.ended()

    async def _add(self) -> None:
        # Without one a worker only starts more slowly.
        with contextlib.suppress(OSError):
            self._spare = await self._make()


async def forward(source: asyncio.StreamReader, target: Any, prefix: Callable[[], bytes]) -> None:
    """Copy lines, each with a prefix; a line is written when it is whole."""
    rest = b""
    while data := await source.read(2**16):
        *lines, rest = (rest + data).split(b"\n")
        target.write(b"".join(prefix() + line + b"\n" for line in lines))
        target.flush()
    if rest:
        target.write(prefix() + rest + b"\n")
        target.flush()
