"""Worker processes of the application under test, and everything that can be done to a process.

A worker that ends without being asked is noted and started again, as a supervisor would do it.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from .history import Event

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.chaos.application:app"
WATCH_SECONDS = 0.05
# On a slow machine, too: what takes longer has come to nothing.
STOP_SECONDS = JOIN_SECONDS = 180.0
DEATH_SECONDS = 300.0


class StuckError(Exception):
    """What a fault waits for does not happen; says what, and what the workers said last."""


class Fleet:
    """Some workers, by number.

    Args:
        folder: Where each process logs to.
        environment: Variables for all workers, besides this process's own.
        name: Begins the static instance id of each worker: this fleet never runs two of one number, as a
            supervisor would not. None: they are dynamic members, which leave their groups when they stop.
        agents: How many agents each worker has.
        events: What is done is written here.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], name: str | None, agents: int, events: list[Event]
    ) -> None:
        self._name = name
        self._folder = folder
        self._agents = agents
        self._environment = dict(environment)
        self._events = events
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._own: dict[int, dict[str, str]] = {}
        self._logs: dict[int, Path] = {}
        self._resting: set[int] = set()
        self._starts = 0
        self.deaths = 0
        self.problems: list[str] = []

    @property
    def running(self) -> list[int]:
        """The workers that are alive."""
        return [number for number, process in self._processes.items() if process.poll() is None]

    @property
    def at_work(self) -> list[int]:
        """The workers that are alive and have been given partitions for each agent."""
        return [number for number in self.running if self._has_joined(number)]

    def start(self, number: int, **environment: str) -> None:
        """Start a worker.

        Args:
            number: Which one; it has the same number when it is started again.
            environment: Variables for this one start.
        """
        self._starts += 1
        self._resting.discard(number)
        log = self._logs[number] = self._folder / f"worker-{number}-{self._starts:03}.log"
        static = {"CALLBOARD_INSTANCE_ID": f"{self._name}-{number}"} if self._name is not None else {}
        with log.open("wb") as output:
            self._processes[number] = subprocess.Popen(
                [sys.executable, "-m", "streams.command_line", "run", APPLICATION, "--port", "0"],
                cwd=ROOT,
                env=os.environ | self._environment | static | self._own.get(number, {}) | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def always(self, number: int, **environment: str) -> None:
        """Give a worker variables of its own, for all its starts."""
        self._own[number] = environment

    def kill(self, number: int) -> None:
        """Kill a worker at once; it stays dead until it is started."""
        self._resting.add(number)
        self._signal(number, signal.SIGKILL, "kill", disrupts=True)
        self._processes[number].wait()

    def freeze(self, number: int) -> None:
        """Stop a worker in the middle of whatever it does."""
        self._signal(number, signal.SIGSTOP, "freeze", disrupts=True)

    def thaw(self, number: int) -> None:
        """Let a frozen worker go on, as if nothing had happened."""
        self._signal(number, signal.SIGCONT, "thaw", disrupts=True)

    async def stop(self, number: int) -> int:
        """Ask a worker to end and give its exit code; it stays away until it is started."""
        self._resting.add(number)
        self._signal(number, signal.SIGTERM, "stop", disrupts=False)
        process = self._processes[number]
        try:
            return await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.problems.append(
                f"worker {number} ({self._logs[number]}) did not stop in {STOP_SECONDS:.0f} s"
            )
            self.kill(number)
            return -signal.SIGKILL

    async def death(self, number: int, why: str) -> None:
        """Wait until a worker that was made to die is dead; it stays dead until it is started."""
        self._resting.add(number)
        try:
            async with asyncio.timeout(DEATH_SECONDS):
                while self._processes[number].poll() is None:
                    await asyncio.sleep(WATCH_SECONDS)
        except TimeoutError:
            raise StuckError(f"worker {number} never came to {why}: {self.last_words()}") from None
        self._note(f"death at {why}", number, disrupts=True)

    async def joined(self) -> None:
        """Wait until every worker that runs has been given partitions for each of its agents."""
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                while self.at_work != self.running:
                    await asyncio.sleep(WATCH_SECONDS)
        except TimeoutError:
            idle = sorted({*self.running} - {*self.at_work})
            raise StuckError(f"workers {idle} were given no partitions: {self.last_words()}") from None

    def _has_joined(self, number: int) -> bool:
        said = self._logs[number].read_text(errors="replace")
        return '"ready"' in said and said.count('"partitions assigned"') >= self._agents

    def last_words(self) -> str:
        """Give the last line of each worker's log."""
        said = {number: log.read_text(errors="replace").splitlines() for number, log in self._logs.items()}
        return "; ".join(f"worker {number}: {lines[-1]}" for number, lines in said.items() if lines)

    async def watch(self, seed: int) -> None:
        """Start workers again that ended by themselves, until canceled."""
        chance = random.Random(seed)
        while True:
            for number, process in list(self._processes.items()):
                if number not in self._resting and process.poll() is not None:
                    self.deaths += 1
                    self._note("death", number, disrupts=True)
                    await asyncio.sleep(chance.uniform(0.0, 0.2))
                    self.start(number)
            await asyncio.sleep(WATCH_SECONDS)

    def end(self) -> None:
        """Kill what is left."""
        for number, process in self._processes.items():
            self._resting.add(number)
            if process.poll() is None:
                process.kill()
                process.wait()

    def _signal(self, number: int, which: signal.Signals, what: str, *, disrupts: bool) -> None:
        self._processes[number].send_signal(which)
        self._note(what, number, disrupts=disrupts)

    def _note(self, what: str, number: int, *, disrupts: bool) -> None:
        # One that is frozen may come back and be in the way of others: that is about all calls in flight.
        dead = what.startswith(("kill", "death"))
        process = self._processes[number].pid if dead else None
        self._events.append(Event(time.time(), what, f"worker {number}", disrupts, process))
