"""Makes closed JSON Schemas of CustomResourceDefinitions: of those in `crds/`, and of those among the files.

Not taken over: rules in CEL, formats, defaults and keys of lists; the API server checks those. Patterns are
taken over from the projects we know alone: a stranger's could take for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.manifest import at, objects, text

if TYPE_CHECKING:
    from collections.abc import Iterator

METADATA: Final = {
    "$ref": "https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
}
COPIED: Final = (
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "required",
    "uniqueItems",
)
JUNCTORS: Final = ("anyOf", "oneOf", "allOf")


def schemas_of(definition: dict[str, Any], *, patterns: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give (apiVersion, kind, schema) of each served version of a CustomResourceDefinition."""
    group, kind = text(at(definition, "spec", "group")), text(at(definition, "spec", "names", "kind"))
    copied = (*COPIED, "pattern") if patterns else COPIED
    for _, version in objects(definition, "spec", "versions"):
        openapi = at(version, "schema", "openAPIV3Schema")
        if version.get("served") is not False and isinstance(openapi, dict):
            yield f"{group}/{text(version.get('name'))}", kind, _whole(_closed(openapi, copied))


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    # Whoever writes a manifest writes no status; one that was exported has it, and nobody reads it.
    fixed = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": METADATA, "status": {}}
    return schema | {"properties": schema.get("properties", {}) | fixed}


def _closed(openapi: dict[str, Any], copied: tuple[str, ...]) -> dict[str, Any]:
    """Make a JSON Schema of a structural schema: fields that the API server would drop are forbidden."""
    is_either = bool(openapi.get("x-kubernetes-int-or-string"))
    made = {} if is_either else _junctors(openapi, copied)
    made |= {name: openapi[name] for name in copied if name in openapi}
    kind = ["integer", "string"] if is_either else openapi.get("type")
    if kind is not None:
        made["type"] = [*(kind if is_either else [kind]), "null"] if openapi.get("nullable") else kind
    if isinstance(openapi.get("properties"), dict):
        made["properties"] = {name: _closed(inner, copied) for name, inner in _schemas(openapi["properties"])}
    if isinstance(openapi.get("items"), dict):
        made["items"] = _closed(openapi["items"], copied)
    values = openapi.get("additionalProperties")
    is_open = openapi.get("x-kubernetes-preserve-unknown-fields") or openapi.get(
        "x-kubernetes-embedded-resource"
    )
    if isinstance(values, dict):
        made["additionalProperties"] = _closed(values, copied)
    elif openapi.get("type") == "object" and not is_open and values is not True:
        made["additionalProperties"] = False
    return made


def _junctors(openapi: dict[str, Any], copied: tuple[str, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: [_condition(each, copied) for _, each in objects(openapi, name)]
        for name in JUNCTORS
        if objects(openapi, name)
    }
    if isinstance(openapi.get("not"), dict):
        made["not"] = _condition(openapi["not"], copied)
    return made


def _condition(openapi: dict[str, Any], copied: tuple[str, ...]) -> dict[str, Any]:
    """Take over what a junctor says about values; it says nothing about which fields there are."""
    made = {name: openapi[name] for name in copied if name in openapi} | _junctors(openapi, copied)
    if isinstance(openapi.get("properties"), dict):
        made["properties"] = {
            name: _condition(inner, copied) for name, inner in _schemas(openapi["properties"])
        }
    if isinstance(openapi.get("items"), dict):
        made["items"] = _condition(openapi["items"], copied)
    return made


def _schemas(properties: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, inner) for name, inner in properties.items() if isinstance(inner, dict)]
