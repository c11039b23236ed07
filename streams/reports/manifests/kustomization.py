"""What a kustomization refers to, without rendering it: which files are whole objects, and what is remote."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.manifest import at, objects, text
from streams.reports.manifests.yaml_file import TooLargeError, YamlError, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
MAX_KUSTOMIZATIONS: Final = 1_000
REMOTE: Final = re.compile(r"://|^git@|^[\w-]+(\.[\w-]+)+/[^/]+/|\?ref=")
WHOLE: Final = ("resources", "bases", "components", "crds")
PARTIAL: Final = ("configurations", "generators", "transformers", "validators", "patchesStrategicMerge")
OURS: Final = re.compile(r"^kustomize\.config\.k8s\.io/")


@dataclass(slots=True)
class Kustomization:
    """One kustomization.

    Args:
        folder: Where it is, resolved.
        resources: Files that hold whole objects.
        partial: Files that hold parts: patches, values, settings.
        folders: Other kustomizations it is made of.
        needs: What it needs beyond local files, as reasons not to render it.
        is_component: Whether it only means something within another one.
    """

    folder: Path
    resources: set[Path] = field(default_factory=set)
    partial: set[Path] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)
    needs: list[str] = field(default_factory=list)
    is_component: bool = False


class Kustomizations:
    """All kustomizations below some folders, and those that they are made of, wherever these are."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._found: dict[Path, Kustomization] = {}
        waiting = sorted({folder.resolve() for folder in folders}, reverse=True)
        self._given = set(waiting)
        while waiting and len(self._found) < MAX_KUSTOMIZATIONS:
            folder = waiting.pop()
            if folder not in self._found and (file := file_in(folder)) is not None:
                self._found[folder] = _read(folder, file)
                waiting.extend(sorted(self._found[folder].folders, reverse=True))
        self.left_out = len(waiting)

    @property
    def overlays(self) -> list[Path]:
        """Those among the given ones that no other is made of: what somebody deploys. All are part of one."""
        used = {inner for each in self._found.values() for inner in each.folders}
        given = sorted(self._given & set(self._found))
        overlays = [folder for folder in given if folder not in used]
        covered = {each.folder for overlay in overlays for each in self._all_of(overlay)}
        for folder in given:
            if folder not in covered:  # they refer to each other in a ring: rendering says so
                overlays.append(folder)
                covered |= {each.folder for each in self._all_of(folder)}
        return overlays

    @property
    def resources(self) -> set[Path]:
        """Files that hold whole objects."""
        return {file for each in self._found.values() for file in each.resources}

    @property
    def partial(self) -> set[Path]:
        """Files that only mean something within a rendering."""
        return {file for each in self._found.values() for file in each.partial} - self.resources

    def needs(self, overlay: Path) -> list[str]:
        """Give the reasons why an overlay cannot be rendered from local files alone."""
        if self._found[overlay].is_component:
            return ["a component that no overlay uses"]
        return [reason for each in self._all_of(overlay) for reason in each.needs]

    def _all_of(self, overlay: Path) -> Iterator[Kustomization]:
        seen: set[Path] = set()
        waiting = [overlay]
        while waiting:
            folder = waiting.pop()
            if folder in self._found and folder not in seen:
                seen.add(folder)
                yield self._found[folder]
                waiting.extend(self._found[folder].folders)


def file_in(folder: Path) -> Path | None:
    """Give the kustomization file of a folder, if it has one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def is_kustomization(value: Any) -> bool:
    """Say whether a document is one; operators have kinds of that name, too."""
    if not isinstance(value, dict):
        return False
    version = text(value.get("apiVersion"))
    return not version or OURS.match(version) is not None


def _read(folder: Path, file: Path) -> Kustomization:
    made = Kustomization(folder)
    try:
        documents = read(file)
    except (YamlError, TooLargeError, OSError):
        return made  # rendering says why
    value = documents[0] if documents else {}
    for reference in _texts(value, *WHOLE):
        _add(made, reference, made.resources)
    for reference in _partial(value):
        _add(made, reference, made.partial)
    made.is_component = at(value, "kind") == "Component"
    if at(value, "helmCharts") or at(value, "helmChartInflationGenerator"):
        made.needs.append(f"{folder.name} has Helm charts, and those are rendered by helm")
    return made


def _partial(value: Any) -> Iterator[str]:
    """Give what is named as a part of something."""
    yield from _texts(value, *PARTIAL)
    for key in ("patches", "patchesJson6902", "replacements"):
        yield from (text(entry.get("path")) for _, entry in objects(value, key))
    yield text(at(value, "openapi", "path"))
    for key in ("configMapGenerator", "secretGenerator"):
        for _, entry in objects(value, key):
            for reference in (*_texts(entry, "files", "envs"), text(entry.get("env"))):
                yield reference.rpartition("=")[2]


def _add(to: Kustomization, reference: str, files: set[Path]) -> None:
    if not reference or "\n" in reference:  # a patch that stands in the list itself
        return
    path = Path(os.path.normpath(to.folder / reference))
    if path.is_dir():
        to.folders.add(path.resolve())
    elif path.is_file():
        files.add(path.resolve())
    elif REMOTE.search(reference):
        to.needs.append(f"{to.folder.name} needs {reference}, and nothing is fetched from a network")


def _texts(value: Any, *keys: str) -> list[str]:
    """Give the texts in lists of an object."""
    lists = [found for key in keys if isinstance(found := at(value, key), list)]
    return [each for found in lists for each in found if isinstance(each, str)]
