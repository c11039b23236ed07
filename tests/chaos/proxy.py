"""A TCP proxy in front of Kafka that understands just enough of it to break one kind of request at a time.

It reads the header of each request (API key, version, correlation id) and knows which answer belongs to it:
"the broker executed it, and the client never heard" can be done to any API. The broker advertises its own
address, so answers to Metadata and FindCoordinator are rewritten to name the proxy, and clients stay on it.

Never looks into records, and never speaks to the broker by itself. Knows one broker, without encryption.
"""

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

API_KEYS = {
    "Produce": 0,
    "Fetch": 1,
    "ListOffsets": 2,
    "Metadata": 3,
    "OffsetCommit": 8,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "LeaveGroup": 13,
    "SyncGroup": 14,
    "ApiVersions": 18,
    "InitProducerId": 22,
}
LARGEST_FRAME = 128 * 1024 * 1024

# From these versions on, answers have another shape; no client of ours speaks them.
NEWER = {API_KEYS["Metadata"]: 9, API_KEYS["FindCoordinator"]: 3}


class Action(StrEnum):
    """What can be done to a request."""

    DELAY = "delay"  # the answer comes late, and so do all after it on its connection
    DROP = "drop"  # the request vanishes; the client waits
    RESET = "reset"  # the connection breaks before the broker saw the request
    LOSE_ANSWER = "lose answer"  # the broker executed it, then the connection breaks


class Blocked(StrEnum):
    """Which way nothing gets through; what is sent meanwhile arrives afterwards, as TCP does it."""

    NONE = "none"
    BOTH = "both"
    TO_BROKER = "to broker"
    TO_CLIENT = "to client"


@dataclass
class Rule:
    """One fault.

    Attributes:
        action: What is done.
        keys: API keys it is done to; none: to all.
        chance: To how many of those, 0 to 1.
        times: How often at most; none: without end.
        seconds: How long a delay takes.
        also: Whether a request, given whole, is one to do it to.
    """

    action: Action
    keys: frozenset[int] | None = None
    chance: float = 1.0
    times: int | None = None
    seconds: float = 0.0
    also: Callable[[bytes], bool] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What an answer belongs to."""

    key: int
    version: int
    rule: Rule | None


class Proxy:
    """Forwards one port to one broker.

    Args:
        port: The broker's, on the loopback address.
        seed: Everything random comes from it.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self.rules: list[Rule] = []
        self.applied: Counter[tuple[Action, int]] = Counter()
        self.problems: list[str] = []
        self.port = 0
        self._broker = port
        self._chance = random.Random(seed)
        self._gates = {Blocked.TO_BROKER: asyncio.Event(), Blocked.TO_CLIENT: asyncio.Event()}
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.block(Blocked.NONE)

    @property
    def servers(self) -> str:
        """The address for Kafka clients."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on any free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and break what is connected."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for pump in (pumps := list(self._pumps)):
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def block(self, way: Blocked) -> None:
        """Let nothing through in one or both ways, or everything again."""
        for blocked, gate in self._gates.items():
            if way in (blocked, Blocked.BOTH):
                gate.clear()
            else:
                gate.set()

    def reset(self) -> None:
        """Break every connection there is."""
        for writer in list(self._writers):
            writer.transport.abort()

    def lose_answers(self, name: str, times: int, chance: float = 1.0) -> Rule:
        """Let the answers to some requests of an API get lost; gives the rule, whose `times` counts down."""
        rule = Rule(Action.LOSE_ANSWER, frozenset({API_KEYS[name]}), chance, times)
        self.rules.append(rule)
        return rule

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._broker)
        except OSError:
            writer.transport.abort()  # the broker is away: so it looks to the client, too
            return
        ends = {writer, broker_writer}
        self._writers |= ends
        waiting: dict[int, Request] = {}
        pumps = {
            asyncio.ensure_future(self._requests(reader, broker_writer, waiting)),
            asyncio.ensure_future(self._answers(broker_reader, writer, waiting)),
        }
        self._pumps |= pumps
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            ended = await asyncio.gather(*pumps, return_exceptions=True)
            self.problems += [str(error) for error in ended if isinstance(error, ValueError)]
            self._pumps -= pumps
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _requests(
        self, client: asyncio.StreamReader, broker: asyncio.StreamWriter, waiting: dict[int, Request]
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(client)
                await self._gates[Blocked.TO_BROKER].wait()
                key, version, correlation = struct.unpack_from(">hhi", frame)
                rule = self._rule(key, frame)
                if rule is not None and rule.action is Action.RESET:
                    return
                if rule is not None and rule.action is Action.DROP:
                    continue
                waiting[correlation] = Request(key, version, rule)
                broker.write(struct.pack(">i", len(frame)) + frame)
                await broker.drain()

    async def _answers(
        self, broker: asyncio.StreamReader, client: asyncio.StreamWriter, waiting: dict[int, Request]
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(broker)
                await self._gates[Blocked.TO_CLIENT].wait()
                request = waiting.pop(struct.unpack_from(">i", frame)[0])
                if request.rule is not None and request.rule.action is Action.LOSE_ANSWER:
                    return
                if request.rule is not None and request.rule.action is Action.DELAY:
                    await asyncio.sleep(request.rule.seconds)
                frame = readdressed(frame, request.key, request.version, self.port)
                client.write(struct.pack(">i", len(frame)) + frame)
                await client.drain()

    def _rule(self, key: int, frame: bytes) -> Rule | None:
        for rule in self.rules:
            if rule.keys is not None and key not in rule.keys:
                continue
            if rule.times == 0 or (rule.also is not None and not rule.also(frame)):
                continue
            if self._chance.random() >= rule.chance:
                continue
            if rule.times is not None:
                rule.times -= 1
            self.applied[rule.action, key] += 1
            return rule
        return None


def applied(proxies: Iterable[Proxy]) -> Counter[str]:
    """Add up what some proxies did, in words."""
    names = {key: name for name, key in API_KEYS.items()}
    total: Counter[str] = Counter()
    for proxy in proxies:
        for (action, key), times in proxy.applied.items():
            total[f"{action} {names.get(key, key)}"] += times
    return total


def readdressed(frame: bytes, key: int, version: int, port: int) -> bytes:
    """Let an answer that names brokers name this machine's `port` instead; others stay as they are.

    Raises:
        ValueError: If the answer is of a version whose shape is not known here.
    """
    if key not in NEWER:
        return frame
    if version >= NEWER[key]:
        raise ValueError(
            f"the proxy does not know answers to API {key} version {version}: teach it their shape"
        )
    if key == API_KEYS["FindCoordinator"]:
        at = 4 + (4 if version >= 1 else 0) + 2  # correlation, throttle time, error code
        if version >= 1:
            at = _after_string(frame, at)  # error message
        return _replaced(frame, at + 4, port)
    at = 4 + (4 if version >= 3 else 0)
    (brokers,) = struct.unpack_from(">i", frame, at)
    at += 4
    for _ in range(brokers):
        host = at + 4
        end = _after_string(frame, host) + 4
        replaced = _replaced(frame, host, port)
        at = end + len(replaced) - len(frame)
        frame = replaced
        if version >= 1:
            at = _after_string(frame, at)  # rack
    return frame


def _replaced(frame: bytes, at: int, port: int) -> bytes:
    """Replace host and port, which begin at `at`; an empty host stays: there is no such broker."""
    end = _after_string(frame, at)
    if end == at + 2:
        return frame
    host = b"127.0.0.1"
    return frame[:at] + struct.pack(">h", len(host)) + host + struct.pack(">i", port) + frame[end + 4 :]


def _after_string(frame: bytes, at: int) -> int:
    (length,) = struct.unpack_from(">h", frame, at)
    return at + 2 + max(0, int(length))


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    if not 4 <= size <= LARGEST_FRAME:
        raise ConnectionError(f"{size} is no size of a frame: this is no Kafka client, or it is encrypted")
    return await reader.readexactly(size)
