"""The local Kafka for real: what survives what, who shares what, and what is never touched."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.kafka.local_broker import (
    BrokerElsewhereError,
    BrokerStatus,
    DiskFullError,
    DownloadError,
    ForeignBrokerError,
    JarMismatchError,
    LocalBroker,
    PortTakenError,
    StartError,
    default_home,
    jars,
    training,
)
from streams.kafka.local_broker import broker as broker_module
from streams.kafka.local_broker.locks import locked_at_once
from streams.kafka.local_broker.process import Process
from streams.kafka.local_broker.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.kafka

SHARED_CACHE = default_home() / "kafka" / "cache"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Callable[..., LocalBroker]]:
    """Return brokers for one home; whatever runs on it at the end is stopped."""
    made: list[LocalBroker] = []

    def make(port: int | None = None, cache: Path = SHARED_CACHE, name: str = "home") -> LocalBroker:
        made.append(LocalBroker(tmp_path / name, port or free_port(), cache, train=False))
        return made[-1]

    yield make
    for broker in made:
        if broker.status().pid:
            broker.down()


@pytest.fixture
def own_cache(tmp_path: Path) -> Path:
    """Return a cache folder with the jars, but without an ahead-of-time cache; it may be damaged at will."""
    LocalBroker(tmp_path / "unused", 1, SHARED_CACHE)._provide_jars(print)
    folder = training.jars_folder(tmp_path / "cache")
    folder.mkdir(parents=True)
    for jar in jars.pinned():
        os.link(training.jars_folder(SHARED_CACHE) / jar.name, folder / jar.name)
    return tmp_path / "cache"


@asynccontextmanager
async def producer(broker: LocalBroker) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=True
    ) as made:
        yield made


async def create(broker: LocalBroker, topic: str, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
    finally:
        await admin.close()


async def read(broker: LocalBroker, topic: str, partitions: int = 1) -> list[bytes]:
    async with AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest", group_id=None
    ) as consumer:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        values = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                values += [record.value for record in records]
        return values


def running(status: BrokerStatus) -> int:
    assert status.state == "running"
    assert status.pid is not None
    return status.pid


async def test_what_was_acknowledged_survives_a_kill(home: Callable[..., LocalBroker]) -> None:
    broker = home()
    pid = running(broker.up())
    await create(broker, "kept", 3)
    async with producer(broker) as sender:
        for number in range(500):
            await sender.send_and_wait("kept", b"%d" % number, partition=number % 3)
        os.kill(pid, signal.SIGKILL)  # the very moment the last one was acknowledged
    said: list[str] = []
    assert running(broker.up(said.append)) != pid
    assert "starting Kafka, which was killed: it checks its data first" in said
    assert sorted(map(int, await read(broker, "kept", 3))) == list(range(500))


async def test_restart_keeps_records_offsets_and_the_cluster(home: Callable[..., LocalBroker]) -> None:
    broker = home()
    broker.up()
    cluster = broker._server.cluster_id()
    await create(broker, "kept")
    place = TopicPartition("kept", 0)
    async with producer(broker) as sender:
        await sender.send_and_wait("kept", b"record")
    async with AIOKafkaConsumer(
        "kept", bootstrap_servers=broker.bootstrap_servers, group_id="g", enable_auto_commit=False
    ) as consumer:
        await consumer.commit({place: 1})
    assert broker.down() == BrokerStatus("stopped", broker.bootstrap_servers, None, broker.status().data)
    broker = home()  # another port
    broker.up()
    assert broker._server.cluster_id() == cluster
    assert await read(broker, "kept") == [b"record"]
    async with AIOKafkaConsumer(
        "kept", bootstrap_servers=broker.bootstrap_servers, group_id="g", enable_auto_commit=False
    ) as consumer:
        assert await consumer.committed(place) == 1


async def test_two_mebibytes_fit_into_a_record(home: Callable[..., LocalBroker]) -> None:
    broker = home()
    broker.up()
    await create(broker, "large")
    async with AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, max_request_size=3_000_000
    ) as sender:
        await sender.send_and_wait("large", bytes(2 * 1024 * 1024), headers=[("reason", bytes(32 * 1024))])


async def test_many_partitions_are_small_and_start_fast(home: Callable[..., LocalBroker]) -> None:
    broker = home()
    broker.up()
    await create(broker, "many", 100)
    async with producer(broker) as sender:
        for number in range(100):
            await sender.send("many", b"x", partition=number)
        await sender.flush()
    broker.down()
    running(broker.up())
    files = [path.stat() for path in broker.status().data.rglob("*") if path.is_file()]
    assert sum(file.st_blocks * 512 for file in files) < 5_000_000
    assert sum(file.st_size for file in files) < 100_000_000


START = """
import sys
from pathlib import Path
from streams.kafka.local_broker import LocalBroker
status = LocalBroker(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), train=False).up()
print(status.state, status.pid)
"""


@contextmanager
def started_elsewhere(broker: LocalBroker, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    port = broker.bootstrap_servers.rpartition(":")[2]
    command = [sys.executable, "-c", START, str(tmp_path / "home"), port, str(SHARED_CACHE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


def test_two_starts_at_once_share_a_broker(home: Callable[..., LocalBroker], tmp_path: Path) -> None:
    broker = home()
    with started_elsewhere(broker, tmp_path) as first, started_elsewhere(broker, tmp_path) as second:
        answers = {first.communicate()[0], second.communicate()[0]}
    assert answers == {f"running {running(broker.status())}\n"}


def test_start_that_was_killed_while_it_waited_is_joined(
    home: Callable[..., LocalBroker], tmp_path: Path
) -> None:
    broker = home()
    with started_elsewhere(broker, tmp_path) as start:
        while (process := broker._server.process()) is None:
            assert start.poll() is None
        start.kill()
    assert broker.status() in (
        BrokerStatus("stopped", broker.bootstrap_servers, process.pid, broker.status().data),
        BrokerStatus("running", broker.bootstrap_servers, process.pid, broker.status().data),
    )
    assert running(broker.up()) == process.pid


def test_broker_of_another_home_is_used_but_not_stopped(home: Callable[..., LocalBroker]) -> None:
    ours = home()
    pid = running(ours.up())
    port = int(ours.bootstrap_servers.rpartition(":")[2])
    other = home(port, name="other")
    assert other.up() == BrokerStatus("foreign", ours.bootstrap_servers, None, other.status().data)
    with pytest.raises(ForeignBrokerError, match="Stop it where it was started"):
        other.down()
    assert running(ours.status()) == pid


def test_home_has_one_broker(home: Callable[..., LocalBroker]) -> None:
    first = home()
    status = first.up()
    second = home()
    with pytest.raises(BrokerElsewhereError, match=first.bootstrap_servers):
        second.up()
    assert second.status() == status  # where it really is
    assert second.down().state == "stopped"
    assert first.status().state == "stopped"


def test_data_that_another_process_serves(home: Callable[..., LocalBroker]) -> None:
    broker = home()
    pid = running(broker.up())
    record = broker._server.pid_file.read_bytes()
    broker._server.pid_file.unlink()  # someone has tidied up
    try:
        with pytest.raises(Exception, match="another process already serves"):
            home().up()
    finally:
        os.kill(pid, 0)  # it still runs
        broker._server.pid_file.write_bytes(record)


def test_broker_that_does_not_stop_is_killed(home: Callable[..., LocalBroker]) -> None:
    broker = home()
    pid = running(broker.up())
    process = broker._server.process()
    assert process is not None
    os.kill(pid, signal.SIGSTOP)
    assert broker.status() == BrokerStatus("stopped", broker.bootstrap_servers, pid, broker.status().data)
    said: list[str] = []
    broker._server.stop(process, said.append, 0.1)
    assert said == [f"Kafka (pid {pid}) did not stop within 0 s: killing it; nothing is lost"]
    assert not process.alive()


def test_start_that_takes_too_long_leaves_nothing_behind(
    home: Callable[..., LocalBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "START_LIMIT", 0.0)
    broker = home()
    with pytest.raises(StartError, match=r"did not serve a request at .* within 0 s"):
        broker.up()
    assert broker._server.process() is None
    monkeypatch.undo()
    running(broker.up())


def test_port_taken_by_a_web_server(home: Callable[..., LocalBroker]) -> None:
    from http.server import HTTPServer, SimpleHTTPRequestHandler  # noqa: PLC0415 - only here

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(PortTakenError, match=str(server.server_port)):
            home(server.server_port).up()
        server.shutdown()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_broker_keeps_to_itself(home: Callable[..., LocalBroker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    broker = home()
    pid = running(broker.up())
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    inodes = {
        link.removeprefix("socket:[")[:-1]
        for path in Path(f"/proc/{pid}/fd").iterdir()
        if (link := _link(path)).startswith("socket:[")
    }
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    listening = {row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}
    # 127.0.0.1, and the same as IPv6 writes it, in the kernel's byte order.
    assert listening
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}
    data = broker.status().data
    assert all(path.stat().st_mode & 0o077 == 0 for path in (data, *data.rglob("*")))


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        # The broker goes on opening and closing files between our listing them and our reading them. A
        # listening socket stays open, so what is gone is none.
        return ""


# Jars and caches


def test_damaged_jar_is_named(home: Callable[..., LocalBroker], own_cache: Path) -> None:
    jar = training.jars_folder(own_cache) / "kafka-clients-4.3.1.jar"
    content = bytearray(jar.read_bytes())
    content[5000] ^= 1
    jar.unlink()  # a link to the shared one
    jar.write_bytes(content)
    broker = home(cache=own_cache)
    with pytest.raises(JarMismatchError, match=str(jar)):
        broker.up()
    assert not broker.status().data.exists()


def test_no_network(
    home: Callable[..., LocalBroker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    cache = tmp_path / "empty"
    with pytest.raises(DownloadError, match="needs the network"):
        home(cache=cache).up()
    assert not list(cache.rglob("*.jar"))


@pytest.mark.parametrize("damage", ["empty", "truncated", "random"])
def test_ahead_of_time_cache_that_java_rejects(
    home: Callable[..., LocalBroker], own_cache: Path, damage: str
) -> None:
    trained = training.trained(own_cache)
    trained.parent.mkdir()
    good = training.trained(SHARED_CACHE)
    header = good.read_bytes()[:1_000_000] if good.exists() else b"\xde\xad\xfa\xf0" + bytes(1_000_000)
    trained.write_bytes({"empty": b"", "truncated": header, "random": os.urandom(1_000_000)}[damage])
    running(home(cache=own_cache).up())
    assert not trained.exists(), "it would be tried again at every start"


def test_ahead_of_time_cache_is_trained_and_used_and_damage_does_not_matter(
    home: Callable[..., LocalBroker], own_cache: Path
) -> None:
    assert training.main([str(own_cache)]) == 0
    trained = training.trained(own_cache)
    assert trained.exists()
    assert not (own_cache / "training").exists()
    broker = home(cache=own_cache)
    running(broker.up())
    assert trained.exists(), "Java has rejected it"
    broker.down()
    with trained.open("r+b") as file:  # behind the header, where Java does not look before it uses it
        file.seek(trained.stat().st_size // 3)
        file.write(os.urandom(20_000_000))
    said: list[str] = []
    running(broker.up(said.append))
    assert "starting Kafka again, without the ahead-of-time cache" in said
    assert not trained.exists()


def test_only_one_process_trains(own_cache: Path) -> None:
    with locked_at_once(own_cache / "training.lock"):
        training.begin(own_cache)
        assert not (own_cache / "training.log").exists()
        assert training.main([str(own_cache)]) == 0
    assert not training.trained(own_cache).exists()


def test_leftover_of_a_killed_training_is_ended(own_cache: Path) -> None:
    # What a trainer leaves when it is killed: its Kafka, and the lock, which ended with it.
    work = own_cache / "training"
    leftover = LocalBroker(work.parent / "x", free_port(), own_cache, train=False)
    server = Server(work, training.jars_folder(own_cache), free_port())
    server.prepare()
    process = server.start([])
    assert isinstance(process, Process)
    aot = training.trained(own_cache)
    aot.parent.mkdir()
    aot.write_bytes(b"there is one")
    assert training.main([str(own_cache)]) == 0
    assert not process.alive()
    assert leftover.status().state == "stopped"


@pytest.mark.skipif(not (sys.platform == "linux" and os.geteuid() == 0), reason="mounts a file system")
def test_full_disk(home: Callable[..., LocalBroker], tmp_path: Path, own_cache: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        with pytest.raises(DiskFullError, match="has 21 MB free"):
            home(name="small/home", cache=own_cache).up()
        with pytest.raises(DiskFullError, match="needs 45 MB"):
            home(name="elsewhere", cache=place / "cache").up()
    finally:
        subprocess.run(["/bin/umount", str(place)], check=True)


def test_status_is_json(home: Callable[..., LocalBroker]) -> None:
    broker = home()
    assert json.loads(json.dumps(broker.up().as_json()))["state"] == "running"
