"""One object of Kubernetes as it was found, and how rules look into values of any shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.report import ObjectReference

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNS: Final = {"apiversion", "kind", "metadata", "spec"}
MAX_NAME: Final = 253
MAX_POINTER: Final = 2_000
Pointer = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object, and where it is from.

    Args:
        value: The object itself.
        file: The file to mend, as its path was given.
        overlay: The folder of the kustomization it was rendered from; none if it is as the file has it.
        place: Where in its document it is, if that is a list of objects.
    """

    value: dict[str, Any]
    file: str
    overlay: str | None = None
    place: Pointer = ()

    @property
    def api_version(self) -> str:
        """Group and version, e.g. `apps/v1`; empty if there is none."""
        return text(self.value.get("apiVersion"))

    @property
    def group(self) -> str:
        """The group, empty for the core of Kubernetes."""
        return self.api_version.rpartition("/")[0]

    @property
    def kind(self) -> str:
        """E.g. `Deployment`; empty if there is none."""
        return text(self.value.get("kind"))

    @property
    def name(self) -> str:
        """Its name; empty if the API server makes one."""
        return text(at(self.value, "metadata", "name"))

    @property
    def namespace(self) -> str:
        """Its namespace; empty if the object does not say."""
        return text(at(self.value, "metadata", "namespace"))

    @property
    def reference(self) -> ObjectReference:
        """What a report calls it."""
        name = self.name or text(at(self.value, "metadata", "generateName")) or "?"
        return ObjectReference(
            kind=self.kind[:MAX_NAME] or "?",
            namespace=self.namespace[:MAX_NAME] or None,
            name=name[:MAX_NAME],
        )

    def is_a(self, group: str, *kinds: str) -> bool:
        """Say whether it is of one of these kinds, whatever the version."""
        return self.kind in kinds and self.group == group


# What breaks a rule: the object, where in it, and what is said about it.
Violation = tuple[Manifest, Pointer, str]


def manifests(document: Any, file: str, place: Pointer = ()) -> Iterator[Manifest]:
    """Give the objects of a document; lists are opened, and what is no object of Kubernetes gives nothing."""
    if not is_object(document):
        return
    items = document.get("items")
    is_list = text(document.get("kind")).endswith("List") and isinstance(items, list)
    if is_list and all(is_object(item) for item in items):
        for number, item in enumerate(items):
            yield from manifests(item, file, (*place, "items", number))
        return
    yield Manifest(document, file, place=place)


def is_object(document: Any) -> bool:
    """Say whether a value is an object of Kubernetes, or wants to be one."""
    return isinstance(document, dict) and not SIGNS.isdisjoint(name.lower() for name in document)


def at(value: Any, *way: str | int) -> Any:
    """Give what is there, or nothing if the way ends before."""
    for step in way:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def objects(value: Any, *way: str | int) -> list[tuple[Pointer, dict[str, Any]]]:
    """Give the objects of a list with their places; what is none is left to the schema."""
    found = at(value, *way)
    if not isinstance(found, list):
        return []
    return [((*way, number), each) for number, each in enumerate(found) if isinstance(each, dict)]


def text(value: Any) -> str:
    """Give a text as it is, and nothing for anything else."""
    return value if isinstance(value, str) else ""


def pointer(way: Pointer) -> str:
    """Write a way as a JSON pointer."""
    written = "".join(
        "/" + re.sub("[~/]", lambda found: {"~": "~0", "/": "~1"}[found[0]], str(step)) for step in way
    )
    return written[:MAX_POINTER]
