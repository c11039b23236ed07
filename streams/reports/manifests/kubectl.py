"""Renders kustomizations by `kubectl kustomize`: without a cluster, a network, or anybody's settings."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.subprocesses import Finished, run

OLDEST: Final = (1, 27)
SECONDS: Final = 60.0
SECONDS_TO_ANSWER: Final = 10.0
MAX_BYTES: Final = 32 * 1024 * 1024
MAX_ERROR_CHARACTERS: Final = 16_000
HINT: Final = "pip install 'callboard[manifests]'"
ORIGIN: Final = "config.kubernetes.io/origin"
# Remote bases are fetched by git, found by PATH, or over HTTP: neither gets anywhere from here.
ENVIRONMENT: Final = {
    "PATH": "",
    "HOME": os.devnull,
    "KUBECONFIG": os.devnull,
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}


class NoKubectlError(Exception):
    """There is none that could render; the message says why."""


class BuildError(Exception):
    """A kustomization cannot be rendered; the message is what kubectl says."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """What came out of a kustomization.

    Args:
        content: YAML.
        root: What paths in the annotations of origin start from; none: there are no such annotations.
    """

    content: bytes
    root: Path | None


@dataclass(frozen=True, slots=True)
class Kubectl:
    """A kubectl that is recent enough.

    Args:
        program: Its path.
        version: Its own, e.g. `1.37.1`.
        kustomize: That of the Kustomize in it.
    """

    program: Path
    version: str
    kustomize: str

    def render(self, folder: Path) -> Rendering:
        """Give the objects of a kustomization, with the files they are from as annotations if possible.

        Raises:
            BuildError: If it cannot be rendered.
        """
        with tempfile.TemporaryDirectory() as scratch:
            wrapper = {
                "resources": [os.path.relpath(folder, Path(scratch).resolve())],
                "buildMetadata": ["originAnnotations"],
            }
            root = Path(scratch).resolve()
            (root / "kustomization.yaml").write_text(json.dumps(wrapper), encoding="utf-8")
            try:
                return Rendering(self._build(root), root)
            except BuildError:
                return Rendering(self._build(folder), None)  # what is wrong is said without the wrapper

    def _build(self, folder: Path) -> bytes:
        try:
            finished = _run(self.program, "kustomize", str(folder), seconds=SECONDS)
        except OSError as error:
            raise BuildError(f"cannot run {self.program}: {error.strerror}") from None
        if finished.cut:
            raise BuildError(f"more than {MAX_BYTES // 1024 // 1024} MiB come out of it")
        if finished.timed_out:
            raise BuildError(f"not rendered within {SECONDS:.0f} s")
        if finished.code != 0:
            raise BuildError(finished.last_words(MAX_ERROR_CHARACTERS).removeprefix("error: "))
        return finished.output


def find_kubectl(places: tuple[Path, ...] | None = None) -> Kubectl:
    """Find one that renders what today's overlays use: beside the running Python first, then on the PATH.

    Raises:
        NoKubectlError: If there is none, or only too old ones.
    """
    reasons = []
    for program in _programs() if places is None else places:
        try:
            found = _versions(program)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reasons.append(f"{program} does not say its version ({type(error).__name__})")
            continue
        if _numbers(found.version) >= OLDEST:
            return found
        oldest = ".".join(map(str, OLDEST))
        reasons.append(
            f"{program} is {found.version}, and {oldest} is the oldest that renders today's overlays"
        )
    raise NoKubectlError(f"{'; '.join(reasons) or 'no kubectl was found'}: {HINT}")


def _programs() -> tuple[Path, ...]:
    beside = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    on_path = shutil.which("kubectl")
    return tuple(dict.fromkeys(Path(found) for found in (beside, on_path) if found))


def _versions(program: Path) -> Kubectl:
    finished = _run(program, "version", "--client", "--output=json", seconds=SECONDS_TO_ANSWER)
    if finished.timed_out:
        raise TimeoutError
    said = json.loads(finished.output)
    version = str(said["clientVersion"]["gitVersion"]).removeprefix("v")
    return Kubectl(program, version, str(said.get("kustomizeVersion", "unknown")).removeprefix("v"))


def _run(program: Path, *arguments: str, seconds: float) -> Finished:
    running = run(
        [program, *arguments],
        folder=Path(),
        environment=ENVIRONMENT,
        seconds=seconds,
        output_limit=MAX_BYTES,
        flood=MAX_BYTES,
    )
    return asyncio.run(running)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
