"""Requests and answers: that ours stands where all that the client writes and reads goes through."""

import asyncio
import subprocess
import sys
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import conn
from aiokafka.protocol import types
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.protocol.struct import Struct

from streams.kafka import protocol

FETCH, VERSION = FetchRequest.API_KEY, FetchResponse_v11.API_VERSION


def refused(*given: Any) -> Any:
    raise AssertionError(given)


async def test_the_client_writes_and_reads_by_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    request = FetchRequest(500, 1, 1_000, 0, [("t", [(3, 40, 1_000)])])
    answer = FetchResponse_v11(0, 0, 0, [("t", [(3, 0, 41, 41, 0, None, -1, b"x" * 600)])])
    written = protocol.their_encode(request.prepare({FETCH: (0, VERSION)}))
    framed = (1).to_bytes(4, "big") + protocol.their_encode(answer)
    monkeypatch.setattr(protocol, "their_encode", refused)
    monkeypatch.setattr(protocol, "their_decode", refused)
    sent: list[bytes] = []
    connection = conn.AIOKafkaConnection("127.0.0.1", 1)
    connection._versions = {FETCH: (0, VERSION)}
    connection._writer = SimpleNamespace(write=sent.append)
    waiting = asyncio.ensure_future(connection.send(request))
    connection._handle_frame(framed)
    found = await waiting
    assert (type(found), found.topics) == (FetchResponse_v11, answer.topics)
    (frame,) = sent
    assert frame[:4] == (len(frame) - 4).to_bytes(4, "big")
    assert frame.endswith(written)


def test_whoever_makes_clients_has_it() -> None:
    program = """if True:
        import streams.kafka.connection
        from aiokafka.protocol.struct import Struct
        print(Struct.encode.__module__, Struct.decode.__func__.__module__)
    """
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [protocol.__name__] * 2


def test_a_stream_gives_what_it_was_made_of() -> None:
    made_of = b"x" * 5_000
    stream = BytesIO(made_of)
    stream.read(4)
    assert stream.getvalue() is made_of  # or each answer would be copied as often as it is looked at


def test_what_a_type_is_made_of_is_where_ours_looks() -> None:
    of = types.Schema(("a", types.Int8), ("b", types.String("utf-8")))
    assert (of.names, of.fields[0], of.fields[1].encoding) == (("a", "b"), types.Int8, "utf-8")
    assert types.Array(("a", types.Int8), ("b", types.Int16)).array_of.names == ("a", "b")
    assert types.Array(types.Int8).array_of is types.Int8
    kind = type("Kind", (Struct,), {"SCHEMA": of})
    assert vars(kind(1, "x")) == {"a": 1, "b": "x"}
