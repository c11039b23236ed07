"""A loopback server that speaks enough of the Anthropic Messages API to be asked by the real client."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


def answer(text: str, *, stop_reason: str | None = "end_turn") -> dict[str, Any]:
    """Give the body of a whole answer."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-fake-1",
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7},
    }


def refusal(kind: str, message: str = "no", *, code: str | None = None) -> dict[str, Any]:
    """Give the body of an error."""
    details = {} if code is None else {"details": {"error_code": code}}
    return {"type": "error", "error": {"type": kind, "message": message} | details}


@dataclass
class MessagesApi:
    """What the server says to every question, and what it was asked."""

    body: Any = field(default_factory=lambda: answer("done"))
    status: int = 200
    cut: bool = False
    silent: bool = False
    extra: dict[str, str] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Address for `ANTHROPIC_BASE_URL`."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's first request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append({"line": head[0], **json.loads(body)})
        self.headers.append(headers)
        self.asked.set()
        if self.silent:
            await reader.read()  # until the other side gives up
            writer.close()
            return
        said = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.extra.items())
        writer.write(
            f"HTTP/1.1 {self.status} Said\r\ncontent-type: application/json\r\n"
            f"content-length: {len(said)}\r\n{extra}connection: close\r\n\r\n".encode()
        )
        writer.write(said[: len(said) // 2] if self.cut else said)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def messages_api() -> AsyncIterator[MessagesApi]:
    """Serve on a free port."""
    api = MessagesApi()
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
        await server.wait_closed()
