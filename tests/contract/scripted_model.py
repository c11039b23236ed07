"""A loopback server in a language model's place, so that the real Claude Code can be run without one.

It streams what a script says, whoever asks: one list of moves for the main thread, one for a sub-agent.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Only whoever may start sub-agents is offered this tool.
DELEGATES = "Agent"


@dataclass(frozen=True)
class Call:
    """One tool call that the model makes."""

    tool: str
    arguments: dict[str, Any]


@dataclass
class ScriptedModel:
    """What is said to the main thread and to sub-agents, call by call, and what they asked."""

    main: list[Call] = field(default_factory=list)
    agent: list[Call] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def of_agents(self) -> list[dict[str, Any]]:
        """Give the questions that sub-agents asked."""
        return [asked for asked in self.questions if not _is_main(asked)]

    def tool_results(self, *, main: bool = False) -> list[tuple[str, bool]]:
        """Give what one side was told about its calls: the text, and whether it is an error."""
        found: dict[str, tuple[str, bool]] = {}
        for asked in (asked for asked in self.questions if _is_main(asked) == main):
            for message in asked["messages"]:
                for block in message["content"] if isinstance(message["content"], list) else ():
                    if block["type"] == "tool_result":
                        found[block["tool_use_id"]] = (_text(block["content"]), block.get("is_error", False))
        return list(found.values())

    def next_call(self, asked: dict[str, Any]) -> Call | None:
        """Note a question and give the call that answers it; none: a text does."""
        self.questions.append(asked)
        if not asked.get("tools"):
            return None
        moves = self.main if _is_main(asked) else self.agent
        return moves.pop(0) if moves else None


@contextmanager
def scripted_model(main: list[Call], agent: list[Call]) -> Iterator[ScriptedModel]:
    """Serve on a free port of the loopback interface."""
    model = ScriptedModel(main, agent)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not self.path.startswith("/v1/messages") or "count_tokens" in self.path:
                self._send("application/json", b'{"input_tokens": 1}')
                return
            events = _events(model.next_call(asked), asked.get("model", ""), len(model.questions))
            stream = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
            self._send("text/event-stream", stream.encode())

        def do_GET(self) -> None:
            self._send("application/json", b"{}")

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _is_main(asked: dict[str, Any]) -> bool:
    return any(tool["name"] == DELEGATES for tool in asked.get("tools", ()))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def _events(call: Call | None, model: str, number: int) -> Iterator[dict[str, Any]]:
    if call is None:
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": "done"}
    else:
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": call.tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call.arguments)}
    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": model, "content": []}
    usage = {"input_tokens": 1, "output_tokens": 1}
    yield {"type": "message_start", "message": message | {"stop_reason": None, "usage": usage}}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    reason = "end_turn" if call is None else "tool_use"
    yield {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 1}}
    yield {"type": "message_stop"}
