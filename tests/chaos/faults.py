"""What can go wrong, one function each; a scenario composes them.

Each takes a stage and draws what is random from the stage's seed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager

from .load import Letter
from .proxy import Blocked
from .stage import Stage

MOSTLY = 0.8


@asynccontextmanager
async def background(stage: Stage, letters: Iterable[Letter], rate: float) -> AsyncIterator[None]:
    """Publish at a rate, or slower, while something else is done; leaving waits until all is published."""
    publishing = asyncio.ensure_future(stage.load.publish(letters, rate, stage.room))
    try:
        yield
        await publishing
    finally:
        publishing.cancel()


def tasks(stage: Stage, number: int) -> Iterator[Letter]:
    """Give so many tasks for the first agent."""
    for _ in range(number):
        yield stage.load.task()


def endless(stage: Stage, ended: Callable[[], bool], least: int = 0) -> Iterator[Letter]:
    """Give tasks for the first agent until something has ended, and at least so many.

    At most twice as many, if a number is given, though a slow machine may need longer for what is to end.
    """
    given = 0
    while given < least or not (ended() or given >= 2 * least > 0):
        given += 1
        yield stage.load.task()


async def kill_a_worker(stage: Stage) -> None:
    """Kill a worker and start it again: one at work mostly, sometimes any, even if it has only just begun."""
    await stage.flow()
    at_work = stage.fleet.at_work or stage.fleet.running
    number = stage.chance.choice(at_work if stage.chance.random() < MOSTLY else stage.fleet.running)
    stage.fleet.kill(number)
    stage.fleet.start(number)


async def kill_the_broker(stage: Stage) -> None:
    """Kill the broker, leave it away for a moment, and start it again."""
    await stage.flow()
    stage.note("kill", "broker", disrupts=True)
    stage.broker.kill()
    await asyncio.sleep(stage.chance.uniform(0, 2))
    await asyncio.to_thread(stage.broker.up)
    stage.note("up", "broker")


async def freeze_a_worker(stage: Stage) -> None:
    """Stop a worker until its partitions are others', and let it go on."""
    await stage.fleet.joined()
    await stage.flow()
    number = stage.chance.choice(stage.fleet.running)
    stage.fleet.freeze(number)
    await asyncio.sleep(stage.settings.session + stage.chance.uniform(2, 4))
    stage.fleet.thaw(number)


async def cut_off_a_worker(stage: Stage) -> None:
    """Let nothing through between a worker and the broker, in one way or both, for a while."""
    await stage.flow()
    number = stage.chance.choice([*stage.proxies])
    way = stage.chance.choice([Blocked.BOTH, Blocked.TO_BROKER, Blocked.TO_CLIENT])
    stage.note(f"cut off {way}", f"worker {number}", disrupts=True)
    stage.proxies[number].block(way)
    await asyncio.sleep(stage.chance.choice([0.5, 2, stage.settings.session + 3]))
    if stage.chance.random() < 0.5:
        stage.proxies[number].reset()
    stage.proxies[number].block(Blocked.NONE)
    stage.note("reachable again", f"worker {number}", disrupts=True)
