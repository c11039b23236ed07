"""The checked-in schemas are what the types say, and they say what they should."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agents.core.base import ErrorDetail
from agents.core.task import ArtifactReference, RepositoryReference, Root
from streams.envelope import SCHEMAS
from streams.journal import JournalPayload
from streams.payloads import ResultPayload, TaskPayload
from streams.schemas import differences, schemas, write

FOLDER = Path(__file__).parents[2] / "schemas"
ARTIFACT = ArtifactReference(
    name="patch", sha256="0" * 64, size=1, topic="artifacts.a", partition=0, offset=0
)
REPOSITORY = RepositoryReference(commit="1" * 40, name="shop")
TASK = TaskPayload(input={"any": ["thing", None]}, repository=REPOSITORY, artifacts=(ARTIFACT,))
RESULT = ResultPayload(
    agent="a",
    status="failed",
    error=ErrorDetail(type="repository", message="no"),
    artifacts=(ARTIFACT,),
    root=Root(agent="a", id="1", input="x", repository=REPOSITORY),
    followers=("b",),
)


def validator(name: str) -> Draft202012Validator:
    schema = json.loads(schemas()[f"{name}.json"])
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_checked_in_files_are_up_to_date() -> None:
    assert differences(FOLDER) == [], "make them again: python -m streams.schemas --write schemas"
    assert {str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*.json")} == set(schemas())


def test_ids_are_what_events_say() -> None:
    events = {name: text for name, text in schemas().items() if "/" not in name}
    assert {name: json.loads(text)["$id"] for name, text in events.items()} == {
        f"{kind}.json": identity for kind, identity in SCHEMAS.items()
    }


@pytest.mark.parametrize(("name", "payload"), [("callboard.task.v1", TASK), ("callboard.result.v1", RESULT)])
def test_what_we_publish_is_valid(name: str, payload: TaskPayload | ResultPayload) -> None:
    validator(name).validate(json.loads(payload.model_dump_json()))


def test_the_least_that_anyone_has_to_publish_is_valid() -> None:
    validator("callboard.task.v1").validate({"input": None})
    validator("callboard.result.v1").validate({"agent": "a", "status": "completed"})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("callboard.task.v1", {}),
        ("callboard.task.v1", {"input": 1, "artefacts": []}),
        ("callboard.task.v1", {"input": 1, "repository": {"commit": "main"}}),
        ("callboard.task.v1", {"input": 1, "repository": {"commit": "1" * 40, "uri": "x"}}),
        ("callboard.result.v1", {"agent": "a", "status": "great"}),
        ("callboard.result.v1", {"agent": "a", "status": "failed", "error": {"type": "x"}}),
        ("callboard.result.v1", {"agent": "a", "status": "failed", "errors": None}),
    ],
)
def test_typing_errors_are_not(name: str, wrong: dict[str, Any]) -> None:
    assert not validator(name).is_valid(wrong)


def test_readers_stay_tolerant() -> None:
    assert TaskPayload.model_validate({"input": 1, "new": 2}).input == 1


def test_differences_name_what_is_missing_or_changed(tmp_path: Path) -> None:
    write(tmp_path)
    assert differences(tmp_path) == []
    (tmp_path / "callboard.task.v1.json").write_text("{}")
    (tmp_path / "callboard.result.v1.json").unlink()
    assert sorted(differences(tmp_path)) == ["callboard.result.v1.json", "callboard.task.v1.json"]


@pytest.mark.parametrize(("fresh", "code"), [(True, 0), (False, 1)])
def test_the_command_says_what_to_do(tmp_path: Path, *, fresh: bool, code: int) -> None:
    if fresh:
        write(tmp_path)
    checked = subprocess.run(
        [sys.executable, "-m", "streams.schemas", "--check", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == code
    assert ("--write" in checked.stderr) == (code == 1)


def test_a_journal_record_fits_its_schema() -> None:
    record = JournalPayload.model_validate(
        {
            "run": "ab" * 32,
            "agent": "a",
            "place": "tasks.a/0/1",
            "kind": "llm",
            "state": "started",
            "try": 2,
            "at": "2026-01-31T12:00:00.000Z",
        }
    )
    validator("callboard.journal.v1").validate(record.model_dump(mode="json", by_alias=True))
