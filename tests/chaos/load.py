"""Publishes tasks at a steady rate and remembers every one whose publish was acknowledged.

The rate is kept by intended times: a task that is late does not delay those after it, as with real users.
"""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from .history import Application, Published

Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Letter:
    """One record to publish.

    Attributes:
        agent: Whose tasks it goes to.
        key: The record's key.
        value: Its value.
        headers: Its headers.
        expect: As in `Published`.
    """

    agent: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    expect: str = "result"


class Load:
    """A publisher.

    Attributes:
        published: What was acknowledged.
        workflows: Of what was acknowledged, and is an event at all.
        refused: What was not acknowledged; it may be in the log all the same.

    Args:
        servers: Bootstrap servers.
        application: For whom.
        keys: How many different keys there are.
        seed: Everything random comes from it.
    """

    def __init__(self, servers: str, application: Application, *, keys: int, seed: int) -> None:
        self.published: list[Published] = []
        self.workflows: set[str] = set()
        self.refused: list[str] = []
        self._application = application
        self._keys = keys
        self._chance = random.Random(seed)
        self._number = 0
        self._producer = AIOKafkaProducer(
            bootstrap_servers=servers, acks="all", enable_idempotence=True, request_timeout_ms=60_000
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    def task(
        self,
        agent: str = "researcher",
        *,
        expect: str = "result",
        seconds: float | None = None,
        key: str | None = None,
        **more: Any,
    ) -> Letter:
        """Make a task: an input with its number and what else is given, and a random one of the keys.

        Args:
            agent: For whom.
            expect: As in `Published`.
            seconds: From now to its deadline, or no deadline.
            key: Its key, or any one.
            more: What else is in its input; tells the application what to do.
        """
        self._number += 1
        name = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        headers: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", name.encode()),
            ("ce_source", b"/chaos"),
            ("ce_type", b"callboard.task.v1"),
            ("ce_time", datetime.now(UTC).isoformat().encode()),
            ("ce_correlationid", name.encode()),
            ("content-type", b"application/json"),
        ]
        if seconds is not None:
            deadline = datetime.fromtimestamp(time.time() + seconds, UTC)
            headers.append(("ce_deadline", deadline.isoformat().encode()))
        chosen = f"key-{self._chance.randrange(self._keys)}" if key is None else key
        value = json.dumps({"input": {"number": self._number} | more}).encode()
        return Letter(agent, chosen.encode(), value, headers, expect)

    async def publish(
        self, letters: Iterable[Letter], rate: float = 0, room: Callable[[], Awaitable[None]] | None = None
    ) -> Sequence[Published]:
        """Publish at a rate. Returns when all are acknowledged.

        A publish that failed may be in the log all the same, or not: it is kept apart, in `refused`.

        Args:
            letters: What.
            rate: Letters a second; 0 is as fast as it goes.
            room: Waits until there is room for the next one.
        """
        began = time.monotonic()
        before = len(self.published)
        waiting: set[asyncio.Task[None]] = set()
        for number, letter in enumerate(letters):
            if rate and (early := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(early)
            if room is not None:
                await room()
            topic = self._application.topic("tasks", letter.agent)
            future = await self._producer.send(
                topic, key=letter.key, value=letter.value, headers=letter.headers
            )
            task = asyncio.ensure_future(self._remember(letter, future))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        if waiting:
            await asyncio.gather(*waiting)
        return self.published[before:]

    async def _remember(self, letter: Letter, sent: Any) -> None:
        name = (dict(letter.headers).get("ce_id") or b"").decode(errors="replace")
        try:
            done = await sent
        except KafkaError:
            self.refused.append(name)
            return
        place = f"{done.topic}/{done.partition}/{done.offset}"
        self.published.append(Published(time.time(), place, letter.agent, letter.expect))
        if not letter.expect.startswith("dead") or ":" in letter.expect:
            self.workflows.add(name)
