"""A model provider that writes down every request it served, so that nobody has to believe us about repeats.

Speaks enough of the Anthropic Messages API for the real client: point `ANTHROPIC_BASE_URL` at it. What
happens to a request is drawn from a seed, the request and how often it came before, never from the order of
arrival: a seed gives the same faults however the requests interleave.

    python -m tests.chaos.provider --ledger ledger.jsonl --port 8099 --seed 1 --weights '{"ok": 9, "429": 1}'
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RETRY_AFTER_SECONDS = 1
HANG_SECONDS = 3_600.0
REFUSALS = {
    "429": ("429 Too Many Requests", "rate_limit_error"),
    "500": ("500 Internal Server Error", "api_error"),
    "529": ("529 Overloaded", "overloaded_error"),
}
OUTCOMES = ("ok", *REFUSALS, "hang", "reset", "truncated")


@dataclass(frozen=True)
class Script:
    """What happens to requests.

    Attributes:
        seed: Everything random comes from it.
        weights: How often each of `OUTCOMES` is drawn, relative to the others.
        latency: Shortest and longest time an answer takes, in seconds.
        calm_after: A request that came more often than this is always answered, so that every run can end.
    """

    seed: int = 0
    weights: Mapping[str, float] = field(default_factory=lambda: {"ok": 1.0})
    latency: tuple[float, float] = (0.0, 0.0)
    calm_after: int = 3

    def draw(self, request: str, earlier: int) -> tuple[str, float]:
        """Give the outcome of a request and how long it takes.

        Args:
            request: Hash of the request.
            earlier: How often the same request came before.
        """
        chance = random.Random(f"{self.seed}/{request}/{earlier}")
        latency = chance.uniform(*self.latency)
        if earlier >= self.calm_after:
            return "ok", latency
        return chance.choices([*self.weights], [*self.weights.values()])[0], latency


class Ledger:
    """An append-only file, one JSON object a line; a line is in the file before its request is answered."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line; the system has it when this returns, and no death of this process takes it back."""
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Provider:
    """The server.

    Args:
        script: What happens to requests.
        ledger: Where they are written down.
    """

    def __init__(self, script: Script, ledger: Ledger) -> None:
        self.script = script
        self.port = 0
        self._ledger = ledger
        self._seen: Counter[str] = Counter()
        self._served = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        """Listen on the loopback address; port 0 is any free one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end what is connected."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._connections.add(this)
        this.add_done_callback(self._connections.discard)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, killed perhaps: what it asked is in the ledger
        except asyncio.CancelledError:
            writer.transport.abort()  # it hangs, and we are told to stop
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tell whether the connection can take another one."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        received = time.time()
        if not head[0].startswith("POST /v1/messages"):
            await _write(writer, "404 Not Found", _refusal("not_found_error"))
            return True
        body = json.loads(raw)
        request = hashlib.sha256(canonical(body)).hexdigest()
        earlier = self._seen[request]
        self._seen[request] += 1
        self._served += 1
        number = self._served
        outcome, latency = self.script.draw(request, earlier)
        answer = f"msg_{number:08}_{request[:8]}"
        entry = {
            "at": received,
            "sha256": request,
            "prompt": prompt_of(body),
            "answer": answer,
            "outcome": outcome,
        }
        if outcome == "hang":
            self._ledger.append(entry | {"until": received + HANG_SECONDS})
            await asyncio.sleep(HANG_SECONDS)
            return False
        if latency:
            await asyncio.sleep(latency)
        entry["until"] = time.time()
        if outcome == "429":
            entry["retry_after"] = RETRY_AFTER_SECONDS
        self._ledger.append(entry)
        return await self._say(writer, outcome, body, answer)

    async def _say(self, writer: asyncio.StreamWriter, outcome: str, body: Any, answer: str) -> bool:
        if outcome in REFUSALS:
            status, kind = REFUSALS[outcome]
            more = {"retry-after": str(RETRY_AFTER_SECONDS)} if outcome == "429" else {}
            await _write(writer, status, _refusal(kind), more)
            return True
        said = _message(body, answer)
        if outcome == "reset":
            await _write(writer, "200 OK", said, part=len(said) // 2)
            writer.transport.abort()
            return False
        if outcome == "truncated":
            await _write(writer, "200 OK", said[: len(said) // 2])
            return True
        await _write(writer, "200 OK", said)
        return True


def canonical(body: Any) -> bytes:
    """Write a request so that equal requests are equal bytes."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def prompt_of(body: Any) -> str:
    """Give the text of the request's last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def _message(body: Any, answer: str) -> bytes:
    return json.dumps(
        {
            "id": answer,
            "type": "message",
            "role": "assistant",
            "model": body.get("model", "fake"),
            # The text names the answer: a result then shows which of several bought answers it used.
            "content": [{"type": "text", "text": answer}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 11, "output_tokens": 7},
        }
    ).encode()


def _refusal(kind: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": "scripted"}}).encode()


async def _write(
    writer: asyncio.StreamWriter,
    status: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    part: int | None = None,
) -> None:
    lines = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body[:part])
    await writer.drain()


async def serve(script: Script, ledger: Path, port: int, ready: Callable[[int], Awaitable[None]]) -> None:
    """Serve until this process is told to stop.

    Args:
        script: What happens to requests.
        ledger: File to append to.
        port: Port to listen on, 0 for any free one.
        ready: Told the port once it listens.
    """
    provider = Provider(script, Ledger(ledger))
    await provider.start(port)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await ready(provider.port)
    await stopped.wait()
    await provider.stop()


async def _tell(port: int) -> None:
    print(f"http://127.0.0.1:{port}", flush=True)


def main() -> None:
    """Serve, as the command line says."""
    parser = argparse.ArgumentParser(description="A fake model provider with a ledger of what it was asked.")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0), metavar=("FROM", "TO"))
    parser.add_argument("--weights", type=json.loads, default={"ok": 1.0}, help=f"JSON, of {OUTCOMES}")
    parser.add_argument("--calm-after", type=int, default=3)
    given = parser.parse_args()
    if unknown := given.weights.keys() - set(OUTCOMES):
        parser.error(f"unknown outcomes {sorted(unknown)}; there are {', '.join(OUTCOMES)}")
    script = Script(given.seed, given.weights, tuple(given.latency), given.calm_after)
    asyncio.run(serve(script, given.ledger, given.port, _tell))


if __name__ == "__main__":
    main()
