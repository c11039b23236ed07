"""The jars of Apache Kafka: downloaded once, each exactly the pinned one.

What the jars are is written in ``jars.sha256`` beside this file. Nothing is resolved at run time: `jgo`
downloads the pinned coordinates, so neither a changed POM nor a changed repository can put another file on
the class path.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.util
import json
import shutil
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DiskFullError, DownloadError, ExtraNotInstalledError, JarMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

KAFKA_VERSION = "4.3.1"
_AT_ONCE = 8  # measured: 46 jars take 7 s with eight connections, 17 s one after the other
_REPORT_EVERY = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned jar; `size` is in bytes."""

    sha256: str
    size: int
    name: str
    coordinates: str


@functools.cache
def pinned() -> tuple[Jar, ...]:
    """Return the jars that make up the class path, in its order."""
    lines = Path(__file__).with_name("jars.sha256").read_text(encoding="utf-8").splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return tuple(Jar(sha256, int(size), name, coordinates) for sha256, size, name, coordinates in rows)


def missing(folder: Path, jars: Sequence[Jar]) -> list[Jar]:
    """Return the jars that are not in `folder`."""
    return [jar for jar in jars if not (folder / jar.name).exists()]


def verify(folder: Path, jars: Sequence[Jar]) -> None:
    """Check every jar in `folder` against its pinned checksum.

    A jar that was checked before, and has kept its size and modification time since, is not read again.

    Raises:
        JarMismatchError: a jar differs.
    """
    stamp = folder / "verified.json"
    try:
        checked: dict[str, list[object]] = json.loads(stamp.read_bytes())
    except (FileNotFoundError, ValueError):
        checked = {}
    found: dict[str, list[object]] = {}
    for jar in jars:
        path = folder / jar.name
        stat = path.stat()
        found[jar.name] = [jar.sha256, stat.st_size, stat.st_mtime_ns]
        if checked.get(jar.name) != found[jar.name] and (digest := _sha256(path)) != jar.sha256:
            raise JarMismatchError(
                f"{path} is not the {jar.coordinates} that Callboard was tested with (SHA-256 {digest}, "
                f"expected {jar.sha256}). If you did not change it, the download or the disk may be damaged: "
                "delete the file and start again, which downloads it again."
            )
    if found != checked:
        draft = stamp.with_suffix(".new")
        draft.write_text(json.dumps(found))
        draft.replace(stamp)


def download(folder: Path, jars: Sequence[Jar], progress: Callable[[str], None]) -> None:
    """Download `jars` into `folder`, which only ever receives whole and verified ones.

    The caller holds a lock on `folder`. What was complete before a failure is kept.

    Raises:
        ExtraNotInstalledError: `jgo` is not installed.
        DownloadError: a jar could not be downloaded.
        JarMismatchError: a downloaded jar differs from the pinned one.
        DiskFullError: no space left on the disk.
    """
    if importlib.util.find_spec("jgo") is None:
        raise ExtraNotInstalledError(
            "The local Kafka needs the package jgo, once, to download Apache Kafka: pip install "
            "'callboard[local]'. Or set CALLBOARD_BOOTSTRAP_SERVERS to the address of a Kafka that you have."
        )
    total = sum(jar.size for jar in jars)
    progress(f"downloading Apache Kafka {KAFKA_VERSION} ({_megabytes(total)} MB in {len(jars)} jars, once)")
    staging = folder / "downloading"
    shutil.rmtree(staging, ignore_errors=True)  # parts that an ended process left
    staging.mkdir(parents=True)
    with _removed_afterwards(staging), ThreadPoolExecutor(_AT_ONCE) as pool:
        pending = {pool.submit(_fetch, jar, staging, folder) for jar in jars}
        try:
            while pending:
                done, pending = wait(pending, _REPORT_EVERY, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if pending:
                    arrived = len(jars) - len(pending)
                    size = sum(_size(folder / jar.name) for jar in jars)
                    size += sum(_size(path) for path in staging.rglob("*.jar"))
                    progress(f"{arrived} of {len(jars)} jars, {_megabytes(size)} of {_megabytes(total)} MB")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fetch(jar: Jar, staging: Path, folder: Path) -> None:
    try:
        path = _attempt(jar, staging / "first")
        if _sha256(path) != jar.sha256:
            path = _attempt(jar, staging / "second")  # a connection that broke looks like the end of the file
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(folder, jar.size) from error
        raise _not_downloaded(jar, error) from error
    except Exception as error:
        # jgo raises RuntimeError for what it cannot find and whatever its XML, URL and HTTP layers raise.
        raise _not_downloaded(jar, error) from error
    if (digest := _sha256(path)) != jar.sha256:
        raise JarMismatchError(
            f"{jar.name} ({jar.coordinates}) arrived with SHA-256 {digest}, expected {jar.sha256}; it was "
            "not kept. A proxy or mirror between here and the repository may answer with something else: "
            "look at its answer, or ask for another mirror in the settings of jgo."
        )
    path.replace(folder / jar.name)


def _attempt(jar: Jar, repository: Path) -> Path:
    from jgo.config import GlobalSettings  # noqa: PLC0415 - takes 0.3 s and is needed once in a home's life
    from jgo.maven import MavenContext  # noqa: PLC0415 - as above

    context = MavenContext(repo_cache=repository)
    # A user behind a mirror has told jgo about it; theirs come first, because the default one may not be
    # reachable.
    mirrors = GlobalSettings.load().repositories
    defaults = {name: place for name, place in context.remote_repos.items() if name not in mirrors}
    context.remote_repos = {**mirrors, **defaults}
    path: Path = context.create_dependency(jar.coordinates).artifact.resolve()
    return path


def _not_downloaded(jar: Jar, error: Exception) -> DownloadError:
    return DownloadError(
        f"Cannot download {jar.coordinates}: {_one_line(error)}. The first start of the local Kafka needs "
        "the network, later ones do not. Check the connection (and HTTPS_PROXY, or the repositories in the "
        "settings of jgo) and start again: jars that are complete are kept. Or set "
        "CALLBOARD_BOOTSTRAP_SERVERS to a Kafka that you have."
    )


def disk_full(folder: Path, needed: int) -> DiskFullError:
    """Return the error for a disk without `needed` bytes for `folder`."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    return DiskFullError(
        f"The disk of {folder} has {_megabytes(free)} MB free; the local Kafka needs {_megabytes(needed)} MB "
        "there. Free some space, or set CALLBOARD_HOME to a folder on another disk, and start again."
    )


@contextlib.contextmanager
def _removed_afterwards(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another thread moves files out of the staging folder meanwhile
        return 0


def _megabytes(count: int) -> int:
    return max(1, round(count / 1_000_000)) if count else 0


def _one_line(error: BaseException) -> str:
    """Return the first cause, under the name of what came of it: HTTP layers wrap it in several lines."""
    name = type(error).__name__
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{name}: {' '.join(str(error).split())[:300]}"
