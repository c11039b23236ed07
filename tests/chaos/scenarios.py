"""The faults of the matrix, F0 (none) to F15, as scenarios: each plays on a stage of its own.

F8, F10, F12 and F16 to F26 are not here: slow networks and outages of hours are for long runs, the rest needs
a cluster or another mode.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import faults
from .bad_records import bad_records
from .crash_points import POINTS, VARIABLE
from .proxy import applied
from .recorder import rewind
from .stage import FOLLOWS, Settings, Stage

if TYPE_CHECKING:
    from .load import Letter

RATE = 30.0  # tasks a second that two cores can do five hops of, each with a model call
SETTLE_SECONDS = 90.0
# Runs have no time limit, which on a slow machine would end them before they ask; calls do, as some hang.
RETRIES = {"retries": 5, "backoff": 0.1, "max_backoff": 2.0, "llm_timeout": 20.0}


@dataclass(frozen=True)
class Size:
    """How much of a scenario is played; what a trial is depends on the scenario."""

    trials: int
    tasks: int


@dataclass(frozen=True)
class Scenario:
    """One fault of the matrix.

    Attributes:
        name: Its number there.
        title: What it is.
        play: Plays it; gives how many trials there were.
        slice: Size of a quick run; none: it is not part of one.
        normal: Size of `make chaos`.
        full: Size of `make chaos SIZE=full`; none: the normal one.
        settings: What differs from the default settings of a stage.
        tolerated: Kinds of violations that are only counted, with the reason in README.md.
        alone: It breaks what others need, too, so that nothing can be played beside it.
    """

    name: str
    title: str
    play: Callable[[Stage, Size], Awaitable[int]]
    slice: Size | None
    normal: Size
    full: Size | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tolerated: frozenset[str] = frozenset()
    alone: bool = False

    def size(self, name: str) -> Size:
        """Give the size of a run of some name; what is not part of the quick one is as in the normal one."""
        return {"slice": self.slice, "full": self.full}.get(name) or self.normal

    def settings_for(self, seed: int) -> Settings:
        """Give the settings of its stage."""
        return Settings(seed, **self.settings)


async def calm(stage: Stage, size: Size) -> int:
    """Break nothing: what the others are compared with."""
    await stage.workers(3)
    await stage.load.publish(faults.tasks(stage, size.tasks), RATE)
    return size.trials


async def many_times(
    stage: Stage,
    size: Size,
    fault: Callable[[Stage], Awaitable[None]],
    rate: float,
    pause: tuple[float, float],
) -> int:
    """Let something go wrong `trials` times while tasks come in, each time after a pause (seconds)."""
    done = 0
    async with faults.background(stage, faults.endless(stage, lambda: done == size.trials, size.tasks), rate):
        for _ in range(size.trials):
            await asyncio.sleep(stage.chance.uniform(*pause))
            await fault(stage)
            done += 1
    return done


async def workers_killed(stage: Stage, size: Size) -> int:
    """Kill any of three workers, again and again."""
    await stage.workers(3)
    mean = size.tasks / RATE / (size.trials + 1)
    return await many_times(stage, size, faults.kill_a_worker, RATE, (0.5 * mean, 1.5 * mean))


async def crash_points(stage: Stage, size: Size) -> int:
    """Let a worker die at each named point of its work, `trials` times each."""
    await stage.workers(1)
    waiting = [point for point in POINTS for _ in range(size.trials)]
    stage.chance.shuffle(waiting)
    done = 0

    async def dying(number: int) -> None:
        nonlocal done
        while waiting:
            point = waiting.pop()
            trap = f"{point}:{stage.chance.randint(1, 20)}"
            stage.fleet.start(number, **{VARIABLE: trap})
            await stage.fleet.death(number, trap)
            done += 1
        # Or its partitions would wait for the end of its session.
        stage.fleet.start(number)

    async with faults.background(
        stage, faults.endless(stage, lambda: done == size.trials * len(POINTS)), RATE / 4
    ):
        await asyncio.gather(dying(1), dying(2))
    return done


async def rolling_restart(stage: Stage, size: Size) -> int:
    """Stop each of three workers in turn and start it again, while calls of eight seconds are in flight."""
    await stage.workers(3)
    async with faults.background(stage, faults.tasks(stage, size.tasks), 4):
        for trial in range(size.trials):
            await stage.fleet.joined()
            await asyncio.sleep(stage.chance.uniform(4, 6))
            code = await stage.fleet.stop(trial % 3)
            if code:
                stage.note(f"exit code {code}", f"worker {trial % 3}")
            stage.fleet.start(trial % 3)
    return size.trials


async def zombies(stage: Stage, size: Size) -> int:
    """Freeze a worker until others own its partitions, and let it go on."""
    await stage.workers(3)
    return await many_times(stage, size, faults.freeze_a_worker, RATE / 3, (2, 2))


async def brokers_killed(stage: Stage, size: Size) -> int:
    """Kill the broker under load and start it again."""
    await stage.workers(3)
    most = size.tasks / RATE / (size.trials + 1)
    return await many_times(stage, size, faults.kill_the_broker, RATE, (0.5 * most, most))


async def partitions(stage: Stage, size: Size) -> int:
    """Cut one of three workers off from the broker, one way or both, for shorter or longer than a session."""
    await stage.workers(3)
    return await many_times(stage, size, faults.cut_off_a_worker, RATE / 3, (1, 3))


LOST_ANSWERS = (
    "Produce",
    "OffsetCommit",
    "Fetch",
    "Heartbeat",
    "OffsetFetch",
    "ListOffsets",
    "FindCoordinator",
    "JoinGroup",
    "SyncGroup",
    "InitProducerId",
)
# What workers ask only while they start, stop or join.
RARE = frozenset(LOST_ANSWERS[4:])


async def lost_answers(stage: Stage, size: Size) -> int:
    """Let answers of the broker get lost after it did what it was asked, API by API."""
    await stage.workers(3)
    done = False
    async with faults.background(stage, faults.endless(stage, lambda: done), RATE / 3):
        for name in LOST_ANSWERS:
            rules = [
                proxy.lose_answers(name, 1 + size.trials // len(stage.proxies), 1.0 if name in RARE else 0.2)
                for proxy in stage.proxies.values()
            ]
            stage.note(f"lose answers to {name}", "all workers", disrupts=True)
            for _ in range(3 + size.trials // 2):
                await asyncio.sleep(0.5)
                if not any(rule.times for rule in rules):
                    break
                if name in RARE:
                    number = stage.chance.choice(stage.fleet.running)
                    stage.fleet.kill(number)
                    stage.fleet.start(number)
                    # Not one after the other without pause: a task that is begun again and again while its
                    # worker dies is taken for poison, and rightly so.
                    await stage.fleet.joined()
            for rule in rules:
                rule.times = 0
            stage.note(f"lost answers to {name}", "all workers", disrupts=True)
        done = True
    return sum(applied(stage.proxies.values()).values())


async def provider_errors(stage: Stage, size: Size) -> int:
    """Let the provider refuse, fail, hang up, and answer nonsense."""
    await stage.workers(2)
    await stage.load.publish(faults.tasks(stage, size.tasks), RATE / 2)
    return size.tasks


POISONS = ("raise", "exit", "hang", "block")


async def poison(stage: Stage, size: Size) -> int:
    """Mix in tasks that always fail, kill the process, hang, or block the event loop."""
    await stage.workers(2)
    letters: list[Letter] = [stage.load.task() for _ in range(size.tasks)]
    for trial in range(size.trials):
        how, at = POISONS[trial % len(POISONS)], stage.chance.choice([*FOLLOWS])
        expect = f"dead:{at}" if how in {"raise", "exit"} else "result"
        place = stage.chance.randrange(len(letters))
        letters.insert(place, stage.load.task(expect=expect, key=f"poison-{trial}", poison=how, at=at))
    await stage.load.publish(letters, RATE / 2)
    return size.trials


async def bad_input(stage: Stage, size: Size) -> int:
    """Publish records nobody can read, for the last agent mostly, and good ones between them."""
    await stage.workers(2)
    tenth = size.trials // 10
    await stage.load.publish(bad_records("documentation", stage.settings.seed, size.trials - tenth, 50))
    await stage.load.publish(bad_records("researcher", stage.settings.seed + 1, tenth, 50))
    await stage.load.publish(faults.tasks(stage, size.tasks), RATE)
    return size.trials


async def repeats(stage: Stage, size: Size) -> int:
    """Publish every second task twice, then read everything again from the beginning."""
    await stage.workers(2)
    for _ in range(size.tasks // 10):
        letters = [stage.load.task() for _ in range(10)]
        await stage.load.publish([*letters, *letters[::2]], RATE)
    for _ in range(size.trials):
        await stage.settle(SETTLE_SECONDS)
        running = stage.fleet.running
        await asyncio.gather(*(stage.fleet.stop(number) for number in running))
        for agent in FOLLOWS:
            await rewind(stage.broker.servers, f"{stage.name}.{agent}")
        stage.sampler.forget()
        stage.note("rewound", "all groups")
        for number in running:
            stage.fleet.start(number)
    return size.trials + size.tasks // 2


async def rebalance_storm(stage: Stage, size: Size) -> int:
    """Let workers come and go, gracefully or not, faster than groups can settle."""
    await stage.workers(2)
    pause, done = 1.5, False
    async with faults.background(stage, faults.endless(stage, lambda: done, size.tasks), RATE / 3):
        for trial in range(size.trials):
            await asyncio.sleep(stage.chance.uniform(0.5, pause))
            number = 2 + trial % 2
            if number not in stage.fleet.running:
                stage.fleet.start(number)
            elif stage.chance.random() < 0.5:
                stage.fleet.kill(number)
            else:
                await stage.fleet.stop(number)
        done = True
    return size.trials


ERRORS = {"ok": 80, "429": 6, "529": 4, "500": 4, "reset": 3, "truncated": 2, "hang": 1}

# What a member that was taken for dead had sent off arrives all the same: the same result a second time, or
# an answer beside the one its successor got. Nothing of it is used downstream; it is counted.
ZOMBIES = frozenset({"duplicate result", "fenced write", "two answers", "repeated call, zombie"})

SESSION = 6  # where members have to be taken for dead

SCENARIOS = (
    Scenario("F0", "nothing is broken", calm, None, Size(1, 500)),
    # The quick run has no fault whose outcome depends on how fast the machine is.
    Scenario(
        "F1",
        "worker killed (SIGKILL) at random",
        workers_killed,
        slice=Size(3, 150),
        normal=Size(12, 1_500),
        full=Size(60, 20_000),
    ),
    Scenario(
        "F2",
        "worker dies at each named point",
        crash_points,
        slice=Size(1, 0),
        normal=Size(3, 0),
        full=Size(20, 0),
    ),
    Scenario(
        "F3",
        "rolling restart, calls of 8 s in flight",
        rolling_restart,
        slice=None,
        normal=Size(3, 60),
        settings={"latency": (8.0, 8.0), "workers": {"CHAOS_CALLERS": "developer,documentation"}},
    ),
    Scenario(
        "F4",
        "worker frozen past its session, then thawed",
        zombies,
        slice=None,
        normal=Size(3, 0),
        full=Size(10, 0),
        settings={"session": SESSION},
        tolerated=ZOMBIES,
    ),
    Scenario(
        "F5",
        "broker killed (kill -9) under load",
        brokers_killed,
        slice=Size(1, 150),
        normal=Size(5, 1_200),
        full=Size(20, 20_000),
        alone=True,
    ),
    Scenario(
        "F6",
        "worker cut off from the broker",
        partitions,
        slice=None,
        normal=Size(5, 0),
        full=Size(20, 0),
        settings={"proxied": True, "session": SESSION},
        tolerated=ZOMBIES,
    ),
    Scenario(
        "F7",
        "answers lost after execution",
        lost_answers,
        slice=None,
        normal=Size(9, 0),
        settings={"proxied": True},
    ),
    Scenario(
        "F9",
        "provider refuses, fails, hangs, truncates",
        provider_errors,
        slice=Size(1, 90),
        normal=Size(1, 500),
        full=Size(1, 1_500),
        settings={"weights": ERRORS, "agents": RETRIES},
    ),
    Scenario(
        "F11",
        "poison: raises, exits, hangs, blocks",
        poison,
        slice=None,
        normal=Size(8, 300),
        full=Size(24, 900),
        settings={"agents": {"timeout": 10.0}},
    ),
    Scenario(
        "F13",
        "records nobody can read",
        bad_input,
        slice=None,
        normal=Size(10_000, 300),
        full=Size(100_000, 300),
    ),
    Scenario(
        "F14",
        "duplicates, rewind, replay of all topics",
        repeats,
        slice=Size(1, 60),
        normal=Size(2, 300),
        full=Size(3, 600),
        settings={"static": False},
    ),
    Scenario(
        "F15",
        "rebalance storm",
        rebalance_storm,
        slice=None,
        normal=Size(20, 300),
        full=Size(100, 3_000),
        settings={"session": SESSION},
    ),
)
