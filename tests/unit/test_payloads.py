"""The quick ways of reading and writing values, against pydantic, which the schemas are made from."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agents.core.base import AgentStatus, ErrorDetail
from agents.core.task import ArtifactReference, RepositoryReference, Root, Usage
from streams.payloads import BackPayload, ResultPayload, ResultWriter, TaskPayload, TaskValue, read_task

COMMIT = "a" * 40
ARTIFACT = {"name": "n", "sha256": "b" * 64, "size": 1, "topic": "t", "partition": 0, "offset": 0}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
REPOSITORY = st.sampled_from([None, {"commit": COMMIT}, {"commit": "short"}, 1])
TASK_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "input": JSON,
        "repository": REPOSITORY,
        "artifacts": st.sampled_from([[], [ARTIFACT], None]),
        "unknown": JSON,
    },
)


def by_pydantic(value: bytes) -> TaskValue | str:
    try:
        task = TaskPayload.model_validate_json(value)
    except ValidationError as error:
        return str(error)
    return TaskValue(task.input, task.repository, task.artifacts)


def quickly(value: bytes) -> TaskValue | str:
    try:
        return read_task(value)
    except ValidationError as error:
        return str(error)


@given(TASK_LIKE | JSON)
def test_a_task_is_read_as_pydantic_reads_it(task: Any) -> None:
    value = json.dumps(task).encode()
    assert repr(quickly(value)) == repr(by_pydantic(value))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"{",
        b'{"input": 1, "input": 2}',
        b'{"input": 123456789012345678901234567890}',
        b'{"input": 1e999}',
        b'{"input": NaN}',
        b'{"input": -Infinity}',
        b'{"input": "\\ud800"}',
        b'{"input": "\\u0000"}',
        b'{"input": 1} x',
        b'\xef\xbb\xbf{"input": 1}',
        b'{"input": ' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_odd_json_is_read_as_pydantic_reads_it(value: bytes) -> None:
    assert repr(quickly(value)) == repr(by_pydantic(value))


class Report(BaseModel):
    """An output with a type."""

    lines: list[str]
    score: float | None = None


TEXTS = st.text() | st.sampled_from(['"', "\\", "\n", "</script>", "\x7f", "\N{SNOWMAN}"])
RESULT = st.fixed_dictionaries(
    {
        "status": st.sampled_from(AgentStatus),
        "output": JSON | st.builds(Report, lines=st.lists(TEXTS, max_size=2)),
        "verdict": st.none() | TEXTS,
        "error": st.none() | st.builds(ErrorDetail, type=TEXTS, message=TEXTS, retryable=st.booleans()),
        "artifacts": st.sampled_from([[], [ArtifactReference.model_validate(ARTIFACT)]]),
        "usage": st.builds(Usage, calls=st.integers(0, 3), input_tokens=st.just(0), output_tokens=st.just(0)),
        "attempts": st.integers(0, 3),
        "started_at": st.none() | st.just("2026-01-31T12:00:00.000Z"),
        "finished_at": st.just("2026-01-31T12:00:01.000Z"),
        "run": st.just("c" * 64),
        "root": st.builds(
            Root,
            agent=TEXTS,
            id=TEXTS,
            input=JSON,
            input_omitted=st.booleans(),
            repository=st.none() | st.just(RepositoryReference(commit=COMMIT)),
        ),
        "followers": st.sampled_from([(), ("a", "b")]),
        "back": st.none() | st.builds(BackPayload, to=TEXTS.filter(bool), without=st.just(("b",))),
    }
)


@given(RESULT, TEXTS, TEXTS)
def test_a_result_is_written_as_pydantic_writes_it(fields: dict[str, Any], agent: str, version: str) -> None:
    value = ResultWriter(agent, version).write(**fields)
    plain = fields | {"usage": {"calls": fields["usage"].calls}, "agent": agent, "agent_version": version}
    theirs = ResultPayload.model_validate(plain).model_dump(mode="json")
    theirs["usage"].pop("cost_usd")
    if theirs["back"] is None:
        del theirs["back"]  # next to no result goes back
    assert json.loads(value) == theirs
    assert (
        ResultPayload.model_validate_json(value).model_dump(mode="json") | {"usage": theirs["usage"]}
        == {"back": None} | theirs
    )


def write(**fields: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "status": AgentStatus.COMPLETED,
        "output": None,
        "verdict": None,
        "error": None,
        "artifacts": [],
        "usage": Usage(),
        "attempts": 1,
        "started_at": None,
        "finished_at": "",
        "run": "",
        "root": Root(agent="a", id="i"),
        "followers": (),
    }
    written: dict[str, Any] = json.loads(ResultWriter("a", "1").write(**usual | fields))
    return written


@pytest.mark.parametrize(
    "output",
    [
        float("nan"),
        [float("inf")],
        {"a": {"b": float("-inf")}},
        {1: float("nan")},
        2**64,
        object(),
        "\ud800",
        Report(lines=[], score=float("nan")),
    ],
)
def test_what_json_has_no_words_for_is_said(output: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        write(output=output)


def test_sets_and_keys_that_are_no_text_have_a_form() -> None:
    assert write(output={1: {"b", "a"}, "null": None})["output"] == {"1": ["a", "b"], "null": None}


def test_an_input_that_can_be_read_but_not_written_is_an_omitted_one() -> None:
    root = write(root=Root(agent="a", id="i", input={"n": 2**64}))["root"]
    assert (root["input"], root["input_omitted"]) == (None, True)
