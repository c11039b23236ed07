"""Ask an address whether it speaks Kafka, with two requests and no Kafka client.

A client takes a third of a second to import and connect, and hides the difference between "nothing listens",
"something else listens" and "Kafka, but not yet serving", which is all this module is about.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import Literal

HOST = "127.0.0.1"
_API_VERSIONS, _METADATA = 18, 3
_CORRELATION = 0x0CA11B0A
_CORRELATION_SIZE = 4  # bytes
_LARGEST_ANSWER = 1 << 20  # bytes; ApiVersions is under 1 KiB, Metadata without topics under 100 B


@dataclass(frozen=True, slots=True)
class Answer:
    """What is at an address.

    Attributes:
        kind: ``nothing`` listens; ``silent``: accepts, but does not answer in time or hangs up (a Kafka that
            is starting or ending does this, too); ``other``: answers something that is not Kafka; ``kafka``.
        cluster_id: the id of the cluster, when it told.
        serving: whether it has a broker that serves clients; true only for ``kafka``.
    """

    kind: Literal["nothing", "silent", "other", "kafka"]
    cluster_id: str | None = None
    serving: bool = False


def ask(port: int, timeout: float) -> Answer:
    """Ask the loopback address for its API versions and its metadata.

    Args:
        port: TCP port on 127.0.0.1.
        timeout: limit for all of it, in seconds.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            speaks = False
            try:
                # Version 0 of ApiVersions is understood by every Kafka, and before any authentication.
                versions = _request(connection, deadline, _API_VERSIONS, 0, b"")
                (error,) = struct.unpack_from(">h", versions)
                if error:
                    return Answer("other")
                speaks = True
                metadata = _request(connection, deadline, _METADATA, 2, struct.pack(">i", 0))  # of no topic
                return _metadata(metadata)
            except (EOFError, ConnectionError, TimeoutError):
                # A broker that wants authentication hangs up on Metadata: it is a Kafka all the same.
                # One that is just ending hangs up on anything, so hanging up proves nothing.
                return Answer("kafka") if speaks else Answer("silent")
            except (ValueError, struct.error):
                return Answer("kafka") if speaks else Answer("other")
    except TimeoutError:
        return Answer("silent")
    except OSError:
        return Answer("nothing")


def _request(connection: socket.socket, deadline: float, key: int, version: int, body: bytes) -> bytes:
    # Header version 1: api key, api version, correlation id, client id (-1 is null).
    request = struct.pack(">hhih", key, version, _CORRELATION, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    size: int = struct.unpack(">i", _exactly(connection, deadline, 4))[0]
    if not _CORRELATION_SIZE <= size <= _LARGEST_ANSWER:
        raise ValueError(f"{size} is not the size of an answer")
    answer = _exactly(connection, deadline, size)
    if struct.unpack_from(">i", answer) != (_CORRELATION,):
        raise ValueError("the answer belongs to another request")
    return answer[_CORRELATION_SIZE:]


def _exactly(connection: socket.socket, deadline: float, count: int) -> bytes:
    received = b""
    while len(received) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        part = connection.recv(count - len(received))
        if not part:
            raise EOFError
        received += part
    return received


def _metadata(body: bytes) -> Answer:
    (brokers,) = struct.unpack_from(">i", body)
    at = 4
    for _ in range(brokers):
        at += 4  # node id
        at = _skip_string(body, at)  # host
        at += 4  # port
        at = _skip_string(body, at)  # rack
    end = _skip_string(body, at)
    return Answer("kafka", body[at + 2 : end].decode() or None, serving=brokers > 0)


def _skip_string(body: bytes, at: int) -> int:
    length: int = struct.unpack_from(">h", body, at)[0]
    return at + 2 + max(length, 0)
