"""The JSON Schemas of the values of events and of reports, made from the types: `python -m streams.schemas`.

A schema is closed, so that a publisher's typing error shows; readers stay tolerant and pass over fields they
do not know. Files are checked in and compared by a test, because other languages build on them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from streams.envelope import SCHEMAS
from streams.journal import JournalPayload
from streams.payloads import ResultPayload, TaskPayload
from streams.reports.argocd.report import ArgocdReport
from streams.reports.manifests.report import ManifestsReport
from streams.reports.test_run.report import SuiteReport

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
EVENTS: Final[tuple[type[BaseModel], ...]] = (TaskPayload, ResultPayload, JournalPayload)
# By the name of their schema's file; `$id` is made of it.
REPORTS: Final[dict[str, type[BaseModel]]] = {
    "argocd": ArgocdReport,
    "manifests": ManifestsReport,
    "tests": SuiteReport,
}
FIRST: Final = ("$schema", "$id", "title", "description", "type", "properties", "required")


class ClosedSchema(GenerateJsonSchema):
    """Forbids unknown properties in our own objects; an agent's input and output stay open."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """Make the schema of one type."""
        return super().model_schema(schema) | {"additionalProperties": False}

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles that only repeat a property's name."""
        del schema
        return False


def schemas() -> dict[str, str]:
    """Give the text of every schema by file name; an event's `$id` is what it has as `ce_dataschema`."""
    found = {}
    for kind in EVENTS:
        title = str(kind.model_config["title"])
        found[f"{title}.json"] = _text(kind, SCHEMAS[title])
    for name, kind in REPORTS.items():
        found[f"reports/{name}.json"] = _text(kind, f"urn:callboard:schema:report:{name}:v1")
    return found


def _text(kind: type[BaseModel], identity: str) -> str:
    schema = kind.model_json_schema(mode="validation", schema_generator=ClosedSchema)
    schema = {"$schema": DIALECT, "$id": identity} | schema
    return json.dumps(_ordered(schema), indent=2, ensure_ascii=False) + "\n"


def differences(folder: Path) -> list[str]:
    """Give the names of the files in `folder` that are missing or not what the types say."""
    return [
        name
        for name, text in schemas().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def write(folder: Path) -> None:
    """Write every schema to `folder`."""
    for name, text in schemas().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def main() -> int:
    """Check or write the schemas; the exit code is 1 if a checked one differs."""
    parser = argparse.ArgumentParser(prog="python -m streams.schemas", description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", type=Path, metavar="FOLDER", help="compare with the files of a folder")
    choice.add_argument("--write", type=Path, metavar="FOLDER", help="write the files of a folder")
    chosen = parser.parse_args()
    if chosen.write is not None:
        write(chosen.write)
        return 0
    if different := differences(chosen.check):
        sys.stderr.write(
            f"not what the types say: {', '.join(different)}; make them again with"
            f" `python -m streams.schemas --write {chosen.check}`\n"
        )
    return 1 if different else 0


def _ordered(schema: dict[str, Any]) -> dict[str, Any]:
    """Put what a reader looks for first; everything else keeps pydantic's order."""
    return {name: schema[name] for name in FIRST if name in schema} | schema


if __name__ == "__main__":
    sys.exit(main())
