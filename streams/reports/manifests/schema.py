"""Compares an object with the schema of its kind: Kubernetes' own, ours, or of a definition among the files.

What is said never repeats a value: it may be a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import kubernetes_validate
from referencing import Registry, Resource

from agents.core.errors import ConfigurationError
from streams.reports.manifests.crd import schemas_of
from streams.reports.manifests.manifest import MAX_NAME, Pointer, at, objects, text
from streams.reports.manifests.report import Tool
from streams.reports.manifests.vendored import vendored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.reports.manifests.manifest import Manifest

MAX_ERRORS: Final = 50
MAX_NAMES: Final = 10
FOLDER: Final = re.compile(r"v(\d+\.\d+)\.\d+-local-strict")
NAME: Final = re.compile(r"[A-Za-z0-9]+")
SAME: Final = "https://json-schema.org/draft/2020-12/schema"


class Schemas:
    """The schemas of every kind that can be checked.

    Args:
        kubernetes: The version whose schemas are used, e.g. `1.34`; by default the newest there is.

    Raises:
        ConfigurationError: If there are none of that version.
    """

    def __init__(self, kubernetes: str | None = None) -> None:
        root = files(kubernetes_validate) / "kubernetes-json-schema"
        known = {found[1]: folder for folder in root.iterdir() if (found := FOLDER.fullmatch(folder.name))}
        newest = sorted(known, key=_numbers)
        self.kubernetes = kubernetes or newest[-1]
        if self.kubernetes not in known:
            raise ConfigurationError(
                f"no schemas of Kubernetes {self.kubernetes}; there are {', '.join(newest)}"
            )
        self._folder = known[self.kubernetes]
        definitions = json.loads((self._folder / "_definitions.json").read_text(encoding="utf-8"))
        self._registry: Registry[Any] = Resource.from_contents(definitions) @ Registry()
        self._custom = dict(vendored())
        self._known: dict[tuple[str, str], jsonschema.Draft202012Validator | None] = {}

    @property
    def tools(self) -> list[Tool]:
        """What the verdict rests on."""
        return [Tool(name=name, version=version(name)) for name in ("jsonschema", "kubernetes-validate")]

    def learn(self, definition: Manifest) -> None:
        """Take the schemas of a CustomResourceDefinition that is among the files; those we have stay."""
        for api_version, kind, schema in schemas_of(definition.value, patterns=False):
            if (api_version, kind) in self._custom:
                continue  # a check takes a second for a large one, and it is in a file and in each rendering
            try:
                jsonschema.Draft202012Validator.check_schema(schema)
            except jsonschema.SchemaError:
                continue  # its resources have no schema then, and that is reported
            self._custom[api_version, kind] = schema

    def knows(self, manifest: Manifest) -> bool:
        """Say whether there is a schema for objects of this kind and version."""
        return self._validator(manifest) is not None

    def other_versions(self, manifest: Manifest) -> list[str]:
        """Give the versions in which there is a schema for this kind; for a message."""
        found = {api for api, kind in self._custom if kind == manifest.kind}
        if NAME.fullmatch(manifest.kind):
            for file in self._folder.iterdir():
                if file.name.startswith(f"{manifest.kind.lower()}-"):
                    schema = json.loads(file.read_text(encoding="utf-8"))
                    found |= {api for api, kind in _of(schema) if kind == manifest.kind}
        return sorted(found)

    def errors(self, manifest: Manifest, *, is_whole: bool = True) -> Iterator[tuple[Pointer, str]]:
        """Give what is wrong with an object, and where; at most `MAX_ERRORS`.

        Args:
            manifest: The object.
            is_whole: Whether what is missing is wrong; a kustomization may add it.
        """
        validator = self._validator(manifest)
        if validator is None:
            return
        errors = (
            error
            for error in validator.iter_errors(manifest.value)
            if is_whole or error.validator != "required"
        )
        for count, error in enumerate(errors):
            if count == MAX_ERRORS:
                yield (), f"more than {MAX_ERRORS} errors: the others are left out"
                return
            yield tuple(error.absolute_path), _message(error)

    def _validator(self, manifest: Manifest) -> jsonschema.Draft202012Validator | None:
        key = manifest.api_version, manifest.kind
        if key not in self._known:
            schema = self._built_in(*key) or self._custom.get(key)
            self._known[key] = schema and jsonschema.Draft202012Validator(
                {"$schema": SAME} | schema, registry=self._registry
            )
        return self._known[key]

    def _built_in(self, api_version: str, kind: str) -> dict[str, Any] | None:
        group, _, number = api_version.rpartition("/")
        # Files are named by the first part of the group alone; whose schema it is, is inside.
        name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
        if not all(NAME.fullmatch(part) for part in name.split("-")):
            return None
        file = self._folder / f"{name}.json"
        if not file.is_file():
            return None
        schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return schema if (api_version, kind) in _of(schema) else None


def _of(schema: dict[str, Any]) -> set[tuple[str, str]]:
    """Give the (apiVersion, kind) that a schema is for; parts of objects have none."""
    return {
        ("/".join(filter(None, (text(each.get("group")), text(each.get("version"))))), text(each.get("kind")))
        for _, each in objects(schema, "x-kubernetes-group-version-kind")
    }


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _message(error: jsonschema.ValidationError) -> str:
    """Say what is wrong without the value."""
    wanted: Any = error.validator_value
    instance: Any = error.instance
    match error.validator:
        case "additionalProperties":
            said = _unknown_fields(instance, list(at(error.schema, "properties") or {}))
        case "required":
            said = f"missing: {', '.join(name for name in wanted if name not in instance)}"
        case "type":
            said = f"has to be {_kinds([wanted])}, is {_kind(instance)}"
        case "enum":
            said = f"has to be one of {', '.join(map(str, wanted))}"
        case "oneOf" | "anyOf" if types := [each["type"] for each in wanted if "type" in each]:
            said = f"has to be {_kinds(types)}, is {_kind(instance)}"
        case _:
            said = f"does not fit {error.validator} {json.dumps(wanted)[:200]}"
    return said


def _unknown_fields(instance: dict[str, Any], known: list[str]) -> str:
    unknown = [name for name in instance if name not in known]
    said = []
    for name in unknown[:MAX_NAMES]:
        close = difflib.get_close_matches(name[:MAX_NAME], known, n=1)
        said.append(f"{name} (did you mean {close[0]}?)" if close else name)
    more = f" and {len(unknown) - MAX_NAMES:,} more" if len(unknown) > MAX_NAMES else ""
    return f"unknown field{'s' * (len(unknown) > 1)}: {', '.join(said)}{more}"


def _kinds(types: list[Any]) -> str:
    names = dict.fromkeys(name for each in types for name in ([each] if isinstance(each, str) else each))
    return " or ".join(name for name in names if name != "null")


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    return names.get(type(value), "null")
