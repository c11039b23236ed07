"""What an agent may ask about the work it does."""

import asyncio

import pytest
from pydantic import ValidationError

from agents.core import current_task
from agents.core.errors import ArtifactError
from agents.core.task import ArtifactReference, Attempt, RepositoryReference, Root, Task, set_current_task
from agents.tests.tasks import a_task

REFERENCE = {
    "name": "report.md",
    "sha256": "0" * 64,
    "size": 3,
    "topic": "artifacts.reader",
    "partition": 0,
    "offset": 5,
}


class OneArtifact:
    async def read(self, reference: ArtifactReference) -> bytes:
        return f"{reference.name}@{reference.offset}".encode()


def test_outside_of_a_run_there_is_no_task() -> None:
    with pytest.raises(LookupError, match="only inside an agent's execute"):
        current_task()


async def test_runs_do_not_see_each_others_tasks() -> None:
    both_are_set = asyncio.Barrier(2)

    async def run(number: str) -> str:
        set_current_task(a_task(id=number))
        await both_are_set.wait()
        return current_task().id

    assert await asyncio.gather(*(asyncio.create_task(run(number)) for number in "12")) == ["1", "2"]
    with pytest.raises(LookupError):
        current_task()


class Made(Attempt):
    """Takes note of each task it makes."""

    def __init__(self, made: list[str]) -> None:
        super().__init__()
        self._made = made

    def make(self) -> Task:
        self._made.append("task")
        return a_task()


async def test_a_task_is_made_once_and_only_if_somebody_asks() -> None:
    made: list[str] = []

    async def run(*, asks: bool) -> None:
        attempt = Made(made)
        set_current_task(attempt)
        assert not asks or current_task() is current_task() is attempt.task
        assert attempt.over() is asks

    await asyncio.gather(*(asyncio.create_task(run(asks=asks)) for asks in (False, True)))
    assert made == ["task"]


async def test_a_task_that_is_asked_for_too_late_begins_no_step() -> None:
    attempt = Made([])
    set_current_task(attempt)
    assert not attempt.over()
    await attempt.end(None)

    async def act() -> bytes:
        raise AssertionError("must not happen")

    with pytest.raises(RuntimeError, match="began after execute had ended"):
        await current_task().steps.take("step", "late", None, act)


async def test_an_artifact_is_read_by_name() -> None:
    reference = ArtifactReference.model_validate(REFERENCE)
    task = a_task(artifacts={"report.md": reference}, store=OneArtifact())
    assert await task.artifact("report.md") == b"report.md@5"


@pytest.mark.parametrize(
    ("names", "says"), [((), "it has: none"), (("z", "a"), "no artifact named 'x' .* it has: a, z")]
)
async def test_an_artifact_that_did_not_come(names: tuple[str, ...], says: str) -> None:
    artifacts = {name: ArtifactReference.model_validate(REFERENCE | {"name": name}) for name in names}
    with pytest.raises(ArtifactError, match=says):
        await a_task(artifacts=artifacts).artifact("x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"sha256": "0" * 63},
        {"sha256": "0" * 64 + "\n"},
        {"sha256": "A" * 64},
        {"size": -1},
        {"partition": -1},
        {"offset": -1},
        {"topic": None},
    ],
)
def test_a_reference_that_cannot_be_one(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ArtifactReference.model_validate(REFERENCE | wrong)


@pytest.mark.parametrize("commit", ["a" * 39, "a" * 41, "HEAD", "A" * 40, "a" * 40 + "\n", "--upload-pack=x"])
def test_a_repository_is_named_by_a_whole_commit_id(commit: str) -> None:
    with pytest.raises(ValidationError):
        RepositoryReference(commit=commit)


@pytest.mark.parametrize("commit", ["a" * 40, "0" * 64])
def test_a_commit_is_a_sha1_or_a_sha256(commit: str) -> None:
    assert RepositoryReference(commit=commit).url is None


def test_what_a_newer_version_adds_is_ignored() -> None:
    assert Root.model_validate({"agent": "a", "id": "1", "tenant": "x"}).input is None
    assert ArtifactReference.model_validate(REFERENCE | {"encoding": "zstd"}).name == "report.md"
