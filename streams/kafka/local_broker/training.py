"""Train Java's ahead-of-time cache: a start of the local Kafka then takes half of the time.

Runs as a process of its own, in the background and with the lowest priority, on an empty Kafka of its own
with its own port; it never touches the user's. Whatever goes wrong here is a line in a log file.

Java watches one run of Kafka and writes the cache, about 70 MB, when that run is stopped. The run does a
little of what Callboard does, so that not only the start is prepared.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from . import java
from .jars import KAFKA_VERSION, missing, pinned
from .locks import locked_at_once
from .probe import HOST
from .process import launch
from .server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEEDED = 500_000_000  # bytes; the cache, the recording that it is made from, and room for the user
_START_LIMIT = 120.0  # seconds, at the lowest priority
_STOP_LIMIT = 300.0  # seconds; writing the cache takes 8 s of processor time
_KEEP = 3  # caches; several environments may share a folder


def jars_folder(cache: Path) -> Path:
    """Return where the jars of this Kafka are in a cache folder."""
    return cache / f"kafka-{KAFKA_VERSION}"


def trained(cache: Path) -> Path:
    """Return where the ahead-of-time cache for this Java and these jars is, or will be."""
    folder = jars_folder(cache)
    return cache / "aot" / java.cache_name(folder, pinned())


def begin(cache: Path) -> None:
    """Start training in the background; the process ends at once if another one is training.

    Raises:
        LaunchError: the interpreter cannot be executed.
    """
    with locked_at_once(cache / "training.lock") as free:
        if not free:
            return  # its log stays; one that begins after this look is seen by the new process
    launch(
        # Not -m: the package imports this module, and running it a second time under another name is warned
        # about.
        [sys.executable, "-c", f"import sys, {__name__} as t; sys.exit(t.main(sys.argv[1:]))", str(cache)],
        pid_file=cache / "training.json",
        log=cache / "training.log",
        folder=cache,
        environment=java.environment() | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        niceness=19,
    )


def main(arguments: Sequence[str]) -> int:
    """Train for the cache folder that is the only argument."""
    cache = Path(arguments[0])
    with locked_at_once(cache / "training.lock") as ours:
        if not ours:
            return 0
        work = cache / "training"
        try:
            server = Server(work, jars_folder(cache), 0)
            if leftover := server.process():
                # Its trainer was killed: we hold the lock, so nobody waits for it.
                server.stop(leftover, _say, 0)
            shutil.rmtree(work, ignore_errors=True)
            _train(cache, work)
        except Exception:  # noqa: BLE001 - nobody waits for this process; the log is all that may notice
            traceback.print_exc()
            return 1
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return 0


def _train(cache: Path, work: Path) -> None:
    target = trained(cache)
    if target.exists() or missing(jars_folder(cache), pinned()):
        return
    if (free := shutil.disk_usage(cache).free) < _NEEDED:
        _say(f"not trained: {free // 1_000_000} MB free, {_NEEDED // 1_000_000} MB needed")
        return
    work.mkdir(mode=0o700, parents=True)
    draft = work / target.name
    server = Server(work, jars_folder(cache), _free_port())
    server.prepare()
    process = server.start([f"-XX:AOTCacheOutput={draft}"])
    if process is None or not server.serves(process, _say, _START_LIMIT):
        raise server.why_it_ended()
    try:
        asyncio.run(_work(f"{HOST}:{server.port}"))
    finally:
        server.stop(process, _say, _STOP_LIMIT)
    if not draft.exists():
        _say("Java wrote no cache:" + server.tail())
        return
    target.parent.mkdir(mode=0o700, exist_ok=True)
    draft.replace(target)
    others = sorted(target.parent.glob("*.aot"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in others[_KEEP:]:
        old.unlink()
    _say(f"trained {target}, {target.stat().st_size // 1_000_000} MB")


async def _work(bootstrap_servers: str) -> None:
    """Create topics, produce, consume in a group, commit a transaction."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: PLC0415 - `trained` is on the way of every start
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: PLC0415 - as above

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("training", 3, 1)])
    finally:
        await admin.close()
    for transactional_id in (None, "training"):
        async with AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, enable_idempotence=True, transactional_id=transactional_id
        ) as producer:
            if transactional_id:
                await producer.begin_transaction()
            for number in range(300):
                await producer.send_and_wait(
                    "training", b"x" * 1000, partition=number % 3, headers=[("h", b"v")]
                )
            if transactional_id:
                await producer.commit_transaction()
    async with AIOKafkaConsumer(
        "training",
        bootstrap_servers=bootstrap_servers,
        group_id="training",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    ) as consumer:
        left = 600
        while left > 0:
            batches = await consumer.getmany(timeout_ms=1000)
            left -= sum(len(records) for records in batches.values())
            await consumer.commit()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - standard output is the training log
