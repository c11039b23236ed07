"""The local Kafka as its users see it: up, status, down."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import jars, java, training
from .errors import (
    BrokerElsewhereError,
    FolderError,
    ForeignBrokerError,
    LocalBrokerError,
    PortTakenError,
    StartError,
)
from .locks import locked
from .probe import HOST, Answer, ask
from .process import LaunchError
from .server import START_LIMIT, STOP_LIMIT, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .process import Process

_DATA_SPACE = 128_000_000  # bytes; less is soon full, and a full disk stops Kafka at the worst moment
_PATIENCE = 5.0  # seconds for something that accepts connections to prove that it is a Kafka
_LARGEST_OUTPUT = 16_000_000  # bytes of what Java prints, which is next to nothing


def _silent(_sentence: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What is at the address of a local Kafka.

    Attributes:
        state: ``running``: this home's broker serves clients. ``foreign``: a Kafka answers that was not
            started from this home; it is used as it is and never stopped. ``stopped``: no Kafka serves
            clients.
        bootstrap_servers: where it is; a running broker's own address, whatever port was asked about.
        pid: the process of this home's broker. With ``stopped`` it means that the process is there but does
            not serve: it is starting, or stuck.
        data: the folder with this home's records.
    """

    state: Literal["running", "stopped", "foreign"]
    bootstrap_servers: str
    pid: int | None
    data: Path

    def as_json(self) -> dict[str, str | int | None]:
        """Return the same as JSON types."""
        return {
            "state": self.state,
            "bootstrap_servers": self.bootstrap_servers,
            "pid": self.pid,
            "data": str(self.data),
        }


class LocalBroker:
    """Real Apache Kafka on this machine, for this machine.

    Never listens on anything but 127.0.0.1, never stops a broker that it did not start, never deletes
    records. A broker outlives the process that started it. Objects of this class hold nothing: any number of
    them, in any number of processes, may speak for one home. Every method raises a `LocalBrokerError` when it
    cannot do its work.

    Records that were acknowledged survive the death of the broker. They are in the system's page cache before
    they are on the disk, as usual with Kafka, so a power failure can take the latest ones.

    Args:
        home: everything is kept in ``home/kafka``.
        port: TCP port on 127.0.0.1.
        cache: where the jars and the ahead-of-time cache are kept, ``home/kafka/cache`` by default; several
            homes may share one.
        train: whether the first start also starts training the ahead-of-time cache, in the background.
    """

    def __init__(
        self, home: Path, port: int = 9092, cache: Path | None = None, *, train: bool = True
    ) -> None:
        if not 0 < port <= 65535:  # noqa: PLR2004 - what a TCP port is
            raise ValueError(f"a port is a number from 1 to 65535, not {port}")
        folder = home.absolute() / "kafka"
        self._cache = cache.absolute() if cache else folder / "cache"
        self._server = Server(folder, training.jars_folder(self._cache), port)
        self._train = train

    @property
    def bootstrap_servers(self) -> str:
        """The address for Kafka clients."""
        return f"{HOST}:{self._server.port}"

    def up(self, progress: Callable[[str], None] = _silent) -> BrokerStatus:
        """Make sure that a Kafka serves clients at the address: the one that answers, or else this home's.

        The first start downloads Kafka. Two starts at once, in two processes, share one broker.

        Args:
            progress: receives a short sentence at least every two seconds while it takes longer.

        Raises:
            LocalBrokerError: no Kafka serves at the address, and the message says why.
        """
        with self._locked(progress):
            # Two at once: the first takes the lock, finds nothing at the port, starts a broker and lets the
            # lock go only once that serves. The second has waited, looks now, finds a serving broker and
            # starts nothing. If the first was killed while it waited, the lock went with it and its broker
            # starts all the same: the second finds the process in the pid file and waits for it instead.
            process = self._server.process()
            if process is not None and self._joined(process, progress):
                return self._status("running", process)
            if self._kafka_answers(progress):
                return self._status("foreign", None)
            return self._start(progress)

    def status(self) -> BrokerStatus:
        """Say what is at the address. Changes nothing, and takes milliseconds."""
        with _folder_errors(self._server.folder):
            process = self._server.process()
            answer = ask(process.port if process else self._server.port, timeout=1.0)
            if process and answer.kind != "kafka":
                return self._status("stopped", process)
            if process and (not answer.cluster_id or answer.cluster_id == self._server.cluster_id()):
                return self._status("running" if answer.serving else "stopped", process)
            return self._status("foreign" if answer.kind == "kafka" else "stopped", None)

    def down(self, progress: Callable[[str], None] = _silent) -> BrokerStatus:
        """Stop this home's broker; fine if it is stopped already.

        Raises:
            ForeignBrokerError: a Kafka answers that was not started from this home.
            LocalBrokerError: it could not be stopped.
        """
        if not self._server.folder.exists():
            return self._refuse_foreign()
        with self._locked(progress):
            process = self._server.process()
            if process is None:
                return self._refuse_foreign()
            progress("stopping Kafka")
            try:
                self._server.stop(process, progress, STOP_LIMIT)
            except PermissionError as error:
                raise ForeignBrokerError(
                    f"The Kafka of {self._server.folder} (pid {process.pid}) belongs to another user of this "
                    "machine, who has to stop it."
                ) from error
            return self._status("stopped", None)

    def _refuse_foreign(self) -> BrokerStatus:
        if ask(self._server.port, timeout=1.0).kind == "kafka":
            raise ForeignBrokerError(
                f"The Kafka at {self.bootstrap_servers} was not started from {self._server.folder.parent}, "
                "so it is not stopped from here. Stop it where it was started."
            )
        return self._status("stopped", None)

    def _joined(self, process: Process, progress: Callable[[str], None]) -> bool:
        """Wait for the broker that already runs on this home; false if it ends instead."""
        if process.port != self._server.port:
            raise BrokerElsewhereError(
                f"The Kafka of {self._server.folder.parent} already runs at {HOST}:{process.port} (pid "
                f"{process.pid}), not at port {self._server.port}, and a data folder has one broker. Use "
                "that address, or stop it first: callboard down"
            )
        if not self._server.serves(process, progress, START_LIMIT):
            return False  # it was killed a moment ago, and is only now gone: another one is to be started
        with contextlib.suppress(FileNotFoundError):
            # Opened for appending, so Java goes on at the new end. Kafka's own log limits itself.
            if self._server.output.stat().st_size > _LARGEST_OUTPUT:
                os.truncate(self._server.output, 0)
        return True

    def _kafka_answers(self, progress: Callable[[str], None]) -> bool:
        """Whether a Kafka, not ours, is at the address; raise if something else is."""
        begun = time.monotonic()
        answer = ask(self._server.port, timeout=1.0)
        while (answer.kind == "silent" or (answer.kind == "kafka" and not _usable(answer))) and (
            time.monotonic() - begun < _PATIENCE
        ):
            progress(f"waiting for what is at {self.bootstrap_servers} to answer")
            time.sleep(0.5)
            answer = ask(self._server.port, timeout=1.0)
        if answer.kind in ("silent", "other"):
            how = (
                "answers something else"
                if answer.kind == "other"
                else f"did not answer within {_PATIENCE:.0f} s"
            )
            raise PortTakenError(
                f"Port {self._server.port} on {HOST} is taken by a program that does not speak Kafka: asked "
                f"for its API versions, it {how}. Stop that program, or choose another port."
            )
        if answer.kind == "kafka" and not _usable(answer):
            raise ForeignBrokerError(
                f"The Kafka at {self.bootstrap_servers}, which was not started from here, has no broker that "
                "serves clients. Wait until it has started, or choose another port."
            )
        return answer.kind == "kafka"

    def _start(self, progress: Callable[[str], None]) -> BrokerStatus:
        self._provide_jars(progress)
        _require_space(self._server.folder, _DATA_SPACE)
        if not self._server.data.exists():
            progress("preparing the data folder")
        killed = self._server.was_killed()
        self._server.prepare()
        cache = training.trained(self._cache)
        cached = cache.exists()
        progress("starting Kafka" + (", which was killed: it checks its data first" if killed else ""))
        process, served = self._launch([f"-XX:AOTCache={cache}"] if cached else [], progress)
        if not served and cached:
            # Java ignores a cache whose header does not fit. Damage behind the header makes it crash.
            progress("starting Kafka again, without the ahead-of-time cache")
            process, served = self._launch([], progress)
            if served:
                cache.unlink(missing_ok=True)
                cached = False
        if process is None or not served:
            raise self._server.why_it_ended()
        if cached and _rejected(self._server.output):
            cache.unlink(missing_ok=True)
            cached = False
        if self._train and not cached:
            with contextlib.suppress(LaunchError, OSError):  # the broker runs; a faster next start is a bonus
                training.begin(self._cache)
        return self._status("running", process)

    def _launch(self, flags: list[str], progress: Callable[[str], None]) -> tuple[Process | None, bool]:
        """Start the broker; return its process, and whether it serves or has ended."""
        process = self._server.start(flags)
        try:
            return process, self._server.serves(process, progress, START_LIMIT)
        except StartError:
            if process:
                self._server.stop(process, progress, STOP_LIMIT)  # started here and of no use to anybody
            raise

    def _provide_jars(self, progress: Callable[[str], None]) -> None:
        java.find()  # before 45 MB are downloaded for nothing
        folder = self._server.jars_folder
        with _folder_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not the lock on the home: several homes may share the folder.
            with locked(self._cache / "jars.lock", lambda: progress("waiting for another download of Kafka")):
                if absent := jars.missing(folder, jars.pinned()):
                    _require_space(folder, sum(jar.size for jar in absent))
                    jars.download(folder, absent, progress)
                jars.verify(folder, jars.pinned())

    def _status(
        self, state: Literal["running", "stopped", "foreign"], process: Process | None
    ) -> BrokerStatus:
        address = f"{HOST}:{process.port}" if process else self.bootstrap_servers
        return BrokerStatus(state, address, process.pid if process else None, self._server.data)

    @contextlib.contextmanager
    def _locked(self, progress: Callable[[str], None]) -> Iterator[None]:
        folder = self._server.folder
        with _folder_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(
                folder / "lock", lambda: progress("waiting for another command that starts or stops Kafka")
            ):
                yield


def _usable(answer: Answer) -> bool:
    # Without a cluster id it hangs up on strangers: it wants authentication, and will not say more.
    return answer.serving or answer.cluster_id is None


def _require_space(folder: Path, needed: int) -> None:
    if shutil.disk_usage(folder).free < needed:
        raise jars.disk_full(folder, needed)


def _rejected(output: Path) -> bool:
    """Whether Java said that it could not use its cache; warnings also come with a good one."""
    with output.open(errors="replace") as file:
        return any("[aot" in line and "[error" in line for line, _ in zip(file, range(50), strict=False))


@contextlib.contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    """Say what to do when the system refuses a folder or file."""
    try:
        yield
    except LocalBrokerError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise jars.disk_full(folder, _DATA_SPACE) from error
        raise FolderError(
            f"Cannot use the folder {folder}: {error.strerror or error} ({error.filename or folder}). Make "
            "it writable for you, or set CALLBOARD_HOME to another folder."
        ) from error
