"""Renders kustomizations by `kubectl kustomize`: without a cluster, a network, or anybody's settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OLDEST: Final = (1, 27)
SECONDS: Final = 60.0
SECONDS_TO_ANSWER: Final = 10.0
MAX_BYTES: Final = 32 * 1024 * 1024
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
            code, output, errors = _run([str(self.program), "kustomize", str(folder)], SECONDS)
        except subprocess.TimeoutExpired:
            raise BuildError(f"not rendered within {SECONDS:.0f} s") from None
        if code != 0:
            raise BuildError(" ".join(errors.decode("utf-8", "replace").split()).removeprefix("error: "))
        if len(output) > MAX_BYTES:
            raise BuildError(f"more than {MAX_BYTES // 1024 // 1024} MiB come out of it")
        return output


def find_kubectl(places: tuple[Path, ...] | None = None) -> Kubectl:
    """Find one that renders what today's overlays use: beside the running Python first, then on the PATH.

    Raises:
        NoKubectlError: If there is none, or only too old ones.
    """
    reasons = []
    for program in _programs() if places is None else places:
        try:
            found = _versions(program)
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
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
    _, output, _ = _run([str(program), "version", "--client", "--output=json"], SECONDS_TO_ANSWER)
    said = json.loads(output)
    version = str(said["clientVersion"]["gitVersion"]).removeprefix("v")
    return Kubectl(program, version, str(said.get("kustomizeVersion", "unknown")).removeprefix("v"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _run(command: list[str], seconds: float) -> tuple[int, bytes, bytes]:
    """Run a command that may write much, but is not read for ever."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        done = subprocess.run(  # noqa: S603 (an argument list; the program is kubectl)
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=ENVIRONMENT,
            timeout=seconds,
            check=False,
        )
        output.seek(0)
        errors.seek(0)
        return done.returncode, output.read(MAX_BYTES + 1), errors.read(10_000)
