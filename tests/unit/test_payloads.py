"""The quick ways of reading and writing values, against pydantic, which the schemas are made from."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agents import _rust
from agents.core.base import AgentStatus, ErrorDetail
from agents.core.task import ArtifactReference, RepositoryReference, Root, Usage
from streams.envelope import TASK, Envelope, moment
from streams.payloads import (
    BackPayload,
    ResultPayload,
    ResultValue,
    ResultWriter,
    TaskPayload,
    TaskValue,
    read_result,
    read_task,
    root_of,
    told_root,
)
from tests.unit.worker_world import FakeRecord

COMMIT = "a" * 40
EVENT = Envelope("i", "/s", TASK, "w")
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
    return task.input, task.repository, task.artifacts


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


class Colour(StrEnum):
    """A text that orjson does not take for one where it is a key."""

    RED = "red"


class Tint(str):
    """A text with a type of its own."""

    __slots__ = ()


TEXTS = st.text() | st.sampled_from(['"', "\\", "\n", "</script>", "\x7f", "\N{SNOWMAN}"])
USAGES = st.builds(Usage, calls=st.integers(0, 3), input_tokens=st.integers(0, 9), output_tokens=st.just(0))
RESULT = st.fixed_dictionaries(
    {
        "status": st.sampled_from(AgentStatus),
        "output": JSON | st.builds(Report, lines=st.lists(TEXTS, max_size=2)),
        "verdict": st.none() | TEXTS,
        "error": st.none() | st.builds(ErrorDetail, type=TEXTS, message=TEXTS, retryable=st.booleans()),
        "artifacts": st.sampled_from([{}, {"n": ArtifactReference.model_validate(ARTIFACT)}]),
        "usage": st.none() | USAGES,
        "attempts": st.integers(0, 3),
        "started_at": st.none() | st.integers(0, 2**42),
        "finished_at": st.integers(0, 2**42),
        "run": st.just("c" * 64),
        "root": st.tuples(
            TEXTS, TEXTS, JSON, st.booleans(), st.none() | st.just(RepositoryReference(commit=COMMIT))
        ),
        "followers": st.sampled_from([(), ("a", "b")]),
        "back": st.none() | st.builds(BackPayload, to=TEXTS.filter(bool), without=st.just(("b",))),
    }
)


def written_by(agent: str, version: str, fields: dict[str, Any]) -> bytes:
    writer = ResultWriter(agent, version, source="/here", max_key_bytes=3)
    value = writer.write(EVENT, FakeRecord(), None, **{"budget": None} | fields).value
    assert value is not None
    return value


@given(RESULT, TEXTS, TEXTS)
def test_a_result_is_written_as_pydantic_writes_it(fields: dict[str, Any], agent: str, version: str) -> None:
    value = written_by(agent, version, fields)
    plain = fields | {"artifacts": [*fields["artifacts"].values()], "agent": agent, "agent_version": version}
    plain["root"] = dict(zip(Root.model_fields, fields["root"], strict=True))
    plain["started_at"] = None if fields["started_at"] is None else moment(fields["started_at"])
    plain["finished_at"] = moment(fields["finished_at"])
    plain["usage"] = asdict(fields["usage"]) if fields["usage"] and fields["usage"].calls else {}
    theirs = ResultPayload.model_validate(plain).model_dump(mode="json")
    theirs["usage"].pop("cost_usd")
    if theirs["back"] is None:
        del theirs["back"]  # next to no result goes back
    assert json.loads(value) == theirs
    assert (
        ResultPayload.model_validate_json(value).model_dump(mode="json") | {"usage": theirs["usage"]}
        == {"back": None} | theirs
    )


# The same result, as one dict that orjson writes: what is put together in Rust must not differ by a byte.


def plainly(agent: str, version: str, fields: dict[str, Any]) -> bytes:
    usage, back = fields["usage"], fields["back"]
    root_agent, root_id, root_input, omitted, repository = fields["root"]
    result = {
        "agent": agent,
        "agent_version": version,
        "status": fields["status"],
        "output": orjson.Fragment(output_of(fields["output"])),
        "verdict": fields["verdict"],
        "error": fields["error"],
        "artifacts": list(fields["artifacts"].values()),
        "usage": usage if usage is not None and usage.calls else Usage(),
        "attempts": fields["attempts"],
        "started_at": None if fields["started_at"] is None else moment(fields["started_at"]),
        "finished_at": moment(fields["finished_at"]),
        "run": named(fields["run"]),
        "root": {
            "agent": root_agent,
            "id": EVENT.id if root_id is None else root_id,
            "input": input_of(root_input),
            "input_omitted": omitted or input_of(root_input) is None,
            "repository": repository,
        },
        "followers": fields["followers"],
    }
    return orjson.dumps(result if back is None else result | {"back": back}, form_of)


def named(run: str | bytes) -> str:
    return run if isinstance(run, str) else _rust.run_id(run, EVENT.source, EVENT.id)


def input_of(value: Any) -> orjson.Fragment | None:
    try:
        return orjson.Fragment(orjson.dumps(value))
    except TypeError:
        return None


def output_of(output: Any) -> bytes:
    whole = orjson.dumps(output, form_of, orjson.OPT_NON_STR_KEYS)
    if not_finite(output):
        raise ValueError("NaN and infinity have no form in JSON")
    return whole


def form_of(value: Any) -> Any:
    if isinstance(value, BaseModel):
        dumped = value.model_dump(mode="json")
        if not_finite(dumped):
            raise TypeError("NaN and infinity have no form in JSON")
        return dumped
    if isinstance(value, set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def not_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(not_finite, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(not_finite, value))
    return isinstance(value, float) and not math.isfinite(value)


def written(write: Callable[[], bytes]) -> bytes | str:
    """Give what is written, or why nothing is."""
    try:
        return write()
    except (TypeError, ValueError) as error:
        return str(error)


ANY_TEXT = TEXTS | st.text(st.characters(exclude_categories=()), max_size=3)  # with lone surrogates
KEYS = TEXTS | st.integers() | st.none() | st.sampled_from([Colour.RED, Tint("blue")])
ODD = st.sampled_from(
    [2**64, -(2**63) - 1, math.nan, math.inf, "\ud800", "null", Colour.RED, Tint("blue"), {"a"}]
)
ANY_VALUE = st.recursive(
    JSON | ODD | st.builds(Report, lines=st.lists(ANY_TEXT, max_size=2), score=st.floats() | st.none()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def any_results(draw: st.DrawFn) -> dict[str, Any]:
    fields = draw(RESULT)
    given = draw(ANY_VALUE)
    fields["root"] = draw(ANY_TEXT), draw(st.none() | ANY_TEXT), given, *fields["root"][3:]
    # An agent that hands its input on gives the very object it was given.
    fields["output"] = draw(ANY_VALUE) if draw(st.booleans()) else given
    return fields | {
        "run": draw(st.just("c" * 64) | st.binary(max_size=3)),
        "verdict": draw(st.none() | ANY_TEXT),
        "followers": tuple(draw(st.lists(TEXTS, max_size=3))),
    }


@given(any_results(), TEXTS, TEXTS)
def test_a_result_is_written_as_one_dict_would_be(fields: dict[str, Any], agent: str, version: str) -> None:
    assert written(lambda: written_by(agent, version, fields)) == written(
        lambda: plainly(agent, version, fields)
    )


USUAL: dict[str, Any] = {
    "run": "",
    "status": AgentStatus.COMPLETED,
    "output": None,
    "verdict": None,
    "error": None,
    "artifacts": {},
    "usage": Usage(),
    "budget": None,
    "attempts": 1,
    "started_at": None,
    "finished_at": 0,
    "root": ("a", "i", None, False, None),
    "followers": (),
}


# A result that is read to be answered, and what of JSON only pydantic reads
EXPONENT, LONG = re.compile(rb"[0-9][eE]"), re.compile(rb"[0-9]{19}")


def handed_on(value: bytes, read: Callable[[bytes], ResultValue]) -> str:
    """Give what a result hands on, with its root as agents see it, or why it is none."""
    try:
        found = read(value)
        return repr((*found[:3], found.root and root_of(found.root, EVENT.id)))
    except ValidationError as error:
        return str(error)


def result_by_pydantic(value: bytes) -> ResultValue:
    it = ResultPayload.model_validate_json(value)
    return ResultValue(it.status, it.output, it.artifacts, told_root(it))


@given(RESULT, TEXTS)
def test_a_result_is_read_as_pydantic_reads_it(fields: dict[str, Any], agent: str) -> None:
    value = written_by(agent, "1", fields)
    assert handed_on(value, read_result) == handed_on(value, result_by_pydantic)


@given(
    RESULT,
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(b'"\\{}[],:0-9.eE nulltrfasx\xff\x00')),
        max_size=3,
    ),
)
def test_a_result_that_is_broken_is_for_both(
    fields: dict[str, Any], changes: list[tuple[float, int, int]]
) -> None:
    usual: dict[str, Any] = {"status": AgentStatus.COMPLETED, "verdict": None, "error": None, "artifacts": {}}
    root = "a", "i", fields["root"][2], False, None
    value = bytearray(written_by("a", "1", fields | usual | {"root": root, "started_at": 1, "back": None}))
    assert _rust.read_result(bytes(value)) is not None or EXPONENT.search(value) or LONG.search(value)
    for where, length, byte in changes:
        at = int(where * (len(value) - 1))
        value[at : at + length] = bytes([byte])
    assert handed_on(bytes(value), read_result) == handed_on(bytes(value), result_by_pydantic)


def test_bytes_are_no_output_even_if_they_are_what_the_root_was_given() -> None:
    root = "a", "i", b"7", False, None
    with pytest.raises(ValueError, match="bytes"):
        write(output=root[2], root=root)


def test_the_input_of_the_root_is_passed_on_as_it_was_read() -> None:
    usual = USUAL | {"started_at": 1, "root": ("a", "i", {"n": [1, "\u00e9"]}, False, None)}
    first = written_by("a", "1", usual)
    root = read_result(first).root
    assert root is not None
    assert root[2] == '{"n":[1,"\u00e9"]}'.encode()
    assert written_by("a", "1", usual | {"root": root}) == first


def write(**fields: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(written_by("a", "1", USUAL | fields))
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
    root = write(root=("a", "i", {"n": 2**64}, False, None))["root"]
    assert (root["input"], root["input_omitted"]) == (None, True)


def test_an_output_that_only_equals_the_input_is_written_as_it_is() -> None:
    assert write(output=True, root=("a", "i", 1.0, False, None))["output"] is True


@pytest.mark.parametrize(("key", "kept"), [(None, None), (b"", b""), (b"key", b"key"), (b"long", None)])
def test_a_result_has_the_key_of_what_it_answers_unless_that_is_too_long(
    key: bytes | None, kept: bytes | None
) -> None:
    writer = ResultWriter("a", "1", source="/here", max_key_bytes=3)
    answered = FakeRecord("t", 0, key=key)
    ours = _rust.Record("t", 0, 0, 0, 1, key, b"{}", ())
    for record in (answered, ours):
        assert writer.write(EVENT, record, None, **USUAL).key == kept


def test_a_run_that_nobody_named_so_far_is_named_when_its_result_is_written() -> None:
    writer = ResultWriter("a", "1", source="/here", max_key_bytes=3)
    record, other = FakeRecord(), Envelope("other", "/other", TASK, "w")
    for joined in (None, [(other, record)]):
        unnamed, by_name = (
            writer.write(EVENT, record, joined, **USUAL | {"run": run}) for run in (b"p", named(b"p"))
        )
        assert (unnamed.value, unnamed.headers) == (by_name.value, by_name.headers)
