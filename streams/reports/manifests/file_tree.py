"""Finds YAML and JSON files and kustomizations below the paths that a user gives; says what it leaves out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.reports.manifests import kustomization
from streams.reports.manifests.report import NotChecked
from streams.reports.manifests.yaml_file import TooLargeError, YamlError, read

if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIXES: Final = {".yaml", ".yml", ".json"}  # as `kubectl apply -f FOLDER`
MAX_FILES: Final = 5_000
MAX_BYTES: Final = 100 * 1024 * 1024
NOT_WALKED: Final = {"node_modules", "__pycache__"}
NOT_SAID: Final = {".git", "__pycache__"}


class FileTree:
    """What is below some paths. Hidden folders are passed over, and said; links out are not followed.

    Args:
        paths: Files and folders that exist. Files that are named themselves belong together, and so does
            what is below one folder.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files: dict[Path, int] = {}  # resolved, with the number of those it belongs to
        self.kustomizations: list[Path] = []
        self.not_checked: list[NotChecked] = []
        self.passed_over: list[str] = []
        self._shown: dict[Path, str] = {}
        self._roots = [path.resolve() for path in paths if path.is_dir()]
        self._left_out = self._bytes = 0
        for number, path in enumerate(paths, start=1):
            if path.is_dir():
                self._walk(path, number)
            else:
                self._take(path, 0)
        if self._left_out:
            reason = (
                f"more than {MAX_FILES:,} files or {MAX_BYTES // 1024**2} MiB: give fewer paths at a time"
            )
            self.not_checked.append(NotChecked(what=f"{self._left_out:,} files", reason=reason))

    def shown(self, path: Path) -> str:
        """Give a path as the user would write it."""
        if path in self._shown:
            return self._shown[path]
        here = Path.cwd()
        return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()

    def _walk(self, top: Path, number: int) -> None:
        for folder, folders, names in os.walk(top, onerror=self._unreadable):
            here = Path(folder)
            self._shown.setdefault(here.resolve(), here.as_posix())
            if "Chart.yaml" in names:
                reason = "a Helm chart: check what `helm template` makes of it"
                self._leave_out(here, reason)
                folders.clear()
                continue
            for name in folders:
                self._check_link(here / name)
            folders[:] = sorted(name for name in folders if not (here / name).is_symlink())
            left = [name for name in folders if name.startswith(".") or name in NOT_WALKED]
            self.passed_over += [f"{(here / name).as_posix()}/" for name in left if name not in NOT_SAID]
            folders[:] = [name for name in folders if name not in left]
            for name in sorted(names):
                if Path(name).suffix.lower() in SUFFIXES or name in kustomization.NAMES:
                    self._take(here / name, number)

    def _take(self, path: Path, number: int) -> None:
        if not self._check_link(path):
            return
        if not path.is_file():
            self._leave_out(path, "not a regular file")
            return
        resolved = path.resolve()
        self._shown.setdefault(resolved, path.as_posix())
        if path.name in kustomization.NAMES and _is_kustomization(path):
            self._shown.setdefault(resolved.parent, path.parent.as_posix())
            self.kustomizations.append(resolved.parent)
        elif resolved not in self.files:
            self._bytes += path.stat().st_size
            if len(self.files) < MAX_FILES and self._bytes <= MAX_BYTES:
                self.files[resolved] = number
            else:
                self._left_out += 1

    def _check_link(self, path: Path) -> bool:
        """Say whether something is within the paths; a link may lead out of them."""
        if not path.is_symlink():
            return True
        target = Path(os.path.realpath(path))  # of a ring of links, too
        if any(target.is_relative_to(root) for root in (*self._roots, path.parent.resolve())):
            return True
        self._leave_out(path, "a link that leads out of the paths")
        return False

    def _leave_out(self, path: Path, reason: str) -> None:
        self.not_checked.append(NotChecked(what=path.as_posix(), reason=reason))

    def _unreadable(self, error: OSError) -> None:
        self._leave_out(Path(str(error.filename)), f"cannot be read: {error.strerror}")


def _is_kustomization(path: Path) -> bool:
    try:
        documents = read(path)
    except (YamlError, TooLargeError, OSError):
        return True  # rendering says why
    return not documents or kustomization.is_kustomization(documents[0])
