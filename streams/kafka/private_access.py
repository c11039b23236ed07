"""Every private attribute of aiokafka that Callboard needs; a contract test holds each one."""

import asyncio
import time
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer


def generation_of(consumer: AIOKafkaConsumer) -> int:
    """Give the group generation the consumer is in; -1 while it is in none."""
    return int(consumer._coordinator.generation)  # noqa: SLF001 (module's purpose)


def coordinator_answers(consumer: AIOKafkaConsumer) -> bool:
    """Tell whether the group's coordinator is known; the client forgets it once a heartbeat fails."""
    return consumer._coordinator.coordinator_id is not None  # noqa: SLF001 (module's purpose)


def left_for_good(consumer: AIOKafkaConsumer) -> bool:
    """Tell whether what keeps the consumer in its group has ended; the client never begins it again."""
    coordinator = consumer._coordinator  # noqa: SLF001 (module's purpose)
    return coordinator is not None and bool(coordinator._coordination_task.done())  # noqa: SLF001 (as above)


def watch_heartbeats(consumer: AIOKafkaConsumer, succeeded: Callable[[float], None]) -> None:
    """Have it told of each heartbeat that the coordinator answered well: when it was sent, monotonic seconds.

    The client keeps that to itself, and notices a process that was frozen only with its next heartbeat.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 (module's purpose)
    beat = coordinator._do_heartbeat  # noqa: SLF001 (module's purpose)

    async def watched() -> bool:
        sent = time.monotonic()
        answered: bool = await beat()
        if answered:
            succeeded(sent)
        return answered

    coordinator._do_heartbeat = watched  # noqa: SLF001 (module's purpose)


def make_dynamic(consumer: AIOKafkaConsumer) -> None:
    """Let a static member leave its group when it is stopped, as others do; the client never lets it."""
    consumer._coordinator._group_instance_id = None  # noqa: SLF001 (module's purpose)


async def learn_leaders(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> None:
    """Let the consumer learn where the partitions of `topics` are, all at once."""
    client = consumer._client  # noqa: SLF001 (module's purpose)
    await asyncio.gather(*(client.add_topic(topic) for topic in topics))
