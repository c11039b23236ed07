"""Where one fault is tried: a broker, a provider, workers, a load and a recorder, and how they are connected.

Each stage has its own topics, groups, ledger and logs; only the broker is shared: starting it is paid once.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from streams.kafka.local_broker import LocalBroker
from tests.kafka_fixture import free_port, shared_cache

from .fleet import ROOT, Fleet, StuckError
from .history import Application, Event, History, read_ledger
from .load import Load
from .proxy import Proxy
from .recorder import Answers, CommitSampler, drain, topics_exist

FOLLOWS = {
    "researcher": (),
    "developer": ("researcher",),
    "code_reviewer": ("developer",),
    "testing": ("developer",),
    "documentation": ("code_reviewer", "testing"),
}
LAST = "documentation"
JOINS = frozenset({LAST})
KINDS = ("tasks", "results")
PARTITIONS = 12
START_SECONDS = 180.0
LOOK_SECONDS = 0.5
WATCH_SECONDS = 0.02
FLOW_SECONDS = 20.0
ROOM_SECONDS = 1.0
MOST_BEHIND = 500  # model calls: of a hundred tasks
FLOW_BYTES = 20 * 250  # twenty lines of the ledger, about


@dataclass(frozen=True)
class Settings:
    """How a stage is set up.

    Attributes:
        seed: Everything random comes from it.
        keys: How many different keys the tasks have.
        weights: What the provider does, as in `provider.Script`.
        latency: How long its answers take, in seconds.
        calm_after: After how many tries it always answers.
        proxied: Each worker reaches Kafka through a proxy of its own.
        agents: Options of every agent's configuration.
        workers: Variables of the workers' environment.
        grace: Seconds that work may outlast its deadline.
        attempts: Most tries of one call, or none.
        session: Seconds after which a worker that says nothing is replaced: usually so long that one on a
            slow machine is not.
        static: Whether a worker that is started again is the same member of its groups.
    """

    seed: int
    keys: int = 100
    weights: Mapping[str, float] = field(default_factory=lambda: {"ok": 1.0})
    latency: tuple[float, float] = (0.02, 0.3)
    calm_after: int = 3
    proxied: bool = False
    agents: Mapping[str, Any] = field(default_factory=dict)
    workers: Mapping[str, str] = field(default_factory=dict)
    grace: float = 2.0
    attempts: int | None = None
    session: int = 30
    static: bool = True


class Broker:
    """The local Kafka of a whole chaos run.

    Args:
        folder: Where its data is.
    """

    def __init__(self, folder: Path) -> None:
        self._broker = LocalBroker(folder, free_port(), shared_cache())

    @property
    def servers(self) -> str:
        """Its address."""
        return self._broker.bootstrap_servers

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.servers.rpartition(":")[2])

    def up(self) -> None:
        """Start it, and wait until it serves."""
        self._broker.up()

    def kill(self) -> None:
        """Kill it at once."""
        pid = self._broker.status().pid
        if pid is None:
            raise RuntimeError("there is no broker to kill")
        os.kill(pid, signal.SIGKILL)

    def down(self) -> None:
        """Stop it."""
        self._broker.down()


class Stage:
    """Everything one fault needs.

    Attributes:
        settings: As given.
        broker: The Kafka.
        chance: Draws from the stage's seed.
        fleet: The workers.
        load: The publisher.
        proxies: By worker, if there are any.
        left: Records that were not finished in time; empty in a good run.
    """

    def __init__(self, settings: Settings, broker: Broker, folder: Path) -> None:
        self.settings = settings
        self.broker = broker
        self.folder = folder
        self.chance = random.Random(settings.seed)
        self.events: list[Event] = []
        self.proxies: dict[int, Proxy] = {}
        self.left: dict[str, int] = {}
        self.name = f"c{uuid.uuid4().hex[:8]}"
        self.application = Application(
            prefix=f"{self.name}.",
            follows=FOLLOWS,
            joins=JOINS,
            grace=settings.grace,
            attempts=settings.attempts,
        )
        self.sampler = CommitSampler(broker.servers, self.application, self.name)
        self._answers = Answers(broker.servers, self.application.topic("results", LAST))
        self.fleet: Fleet
        self.load: Load
        self._ledger = folder / "ledger.jsonl"
        self._read = self._lines = 0
        self._provider: subprocess.Popen[bytes] | None = None

    def note(self, what: str, who: str, *, disrupts: bool = False) -> None:
        """Write down that something was done."""
        self.events.append(Event(time.time(), what, who, disrupts))

    async def workers(self, count: int, **environment: str) -> None:
        """Start workers and wait until their topics are there and every one has partitions."""
        for number in range(count):
            if self.settings.proxied:
                proxy = self.proxies[number] = Proxy(self.broker.port, self.settings.seed + number)
                await proxy.start()
                self.fleet.always(number, CALLBOARD_BOOTSTRAP_SERVERS=proxy.servers)
            self.fleet.start(number, **environment)
        topics = [self.application.topic(kind, agent) for agent in FOLLOWS for kind in KINDS]
        try:
            async with asyncio.timeout(START_SECONDS):
                await topics_exist(self.broker.servers, topics)
        except TimeoutError:
            raise StuckError(f"the workers do not start: {self.fleet.last_words()}") from None
        await self.fleet.joined()

    async def flow(self) -> None:
        """Wait until model calls are being made again, so that what comes next hits something."""
        before = self._ledger.stat().st_size
        with suppress(TimeoutError):
            async with asyncio.timeout(FLOW_SECONDS):
                while self._ledger.stat().st_size < before + FLOW_BYTES:
                    await asyncio.sleep(WATCH_SECONDS)

    async def room(self) -> None:
        """Wait a moment where workers are far behind: a slow machine would be buried under tasks.

        A moment, because not every task comes to as many calls as it should.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_SECONDS):
                while len(self.load.published) * len(FOLLOWS) - self._calls() > MOST_BEHIND:
                    await asyncio.sleep(WATCH_SECONDS)

    def _calls(self) -> int:
        with self._ledger.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        self._lines += new.count(b"\n")
        return self._lines

    async def settle(self, seconds: float) -> bool:
        """Wait until everything that was published is finished by all agents and committed.

        However long that takes on a slow machine: it gives up only when nothing moved for so many seconds.
        """
        moved, last = time.monotonic(), -1
        while time.monotonic() - moved < seconds:
            with suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._look()
                if not self.left:
                    return True
                if (left := sum(self.left.values())) != last:
                    moved, last = time.monotonic(), left
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def _look(self) -> None:
        # Nothing uncommitted is not enough: a join that fired has let go of its parts before it has run.
        self.left = await self.sampler.lag()
        if not self.left:
            await self._answers.read_on()
            if open_ones := len(self.load.workflows - self._answers.workflows):
                self.left = {LAST: open_ones}

    async def history(self) -> History:
        """Stop the workers and read everything there is."""
        await asyncio.gather(*(self.fleet.stop(number) for number in self.fleet.running))
        await self.sampler.last()
        return History(
            self.application,
            self.load.published,
            await drain(self.broker.servers, self.application),
            self.sampler.commits,
            read_ledger(self._ledger),
            self.events,
        )

    def problems(self) -> list[str]:
        """Say what went wrong with the stage itself."""
        of_proxies = [problem for proxy in self.proxies.values() for problem in proxy.problems]
        return self.fleet.problems + of_proxies

    def start_provider(self) -> str:
        """Start the provider as a process of its own, and give its address."""
        script = self.settings
        self._ledger.touch()
        self._provider = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.chaos.provider"),
                *("--ledger", str(self._ledger), "--seed", str(script.seed)),
                *("--weights", json.dumps(dict(script.weights)), "--calm-after", str(script.calm_after)),
                *("--latency", *map(str, script.latency)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._provider.stdout is not None
        return self._provider.stdout.readline().decode().strip()

    async def close(self) -> None:
        """End all processes of the stage."""
        self.fleet.end()
        for proxy in self.proxies.values():
            await proxy.stop()
        if self._provider is not None:
            self._provider.terminate()
            self._provider.wait()
            if self._provider.stdout is not None:
                self._provider.stdout.close()


@asynccontextmanager
async def stage(settings: Settings, broker: Broker, folder: Path) -> AsyncIterator[Stage]:
    """Set a stage up, and take it down."""
    folder.mkdir(parents=True)  # noqa: ASYNC240 (before anything runs)
    it = Stage(settings, broker, folder)
    environment = {
        "CALLBOARD_BOOTSTRAP_SERVERS": broker.servers,
        "CALLBOARD_TOPIC_PREFIX": it.application.prefix,
        "CALLBOARD_PARTITIONS": str(PARTITIONS),
        "CALLBOARD_SESSION_TIMEOUT_MS": str(settings.session * 1000),
        "CALLBOARD_LLM": "anthropic",
        "ANTHROPIC_BASE_URL": await asyncio.to_thread(it.start_provider),
        "CHAOS_NAME": it.name,
        "CHAOS_AGENT_OPTIONS": json.dumps(dict(settings.agents)),
        **settings.workers,
    }
    it.fleet = Fleet(folder, environment, it.name if settings.static else None, len(FOLLOWS), it.events)
    helpers: list[asyncio.Task[None]] = []
    try:
        async with Load(broker.servers, it.application, keys=settings.keys, seed=settings.seed) as it.load:
            helpers = [
                asyncio.ensure_future(it.sampler.run()),
                asyncio.ensure_future(it.fleet.watch(settings.seed)),
            ]
            yield it
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await it.close()
