"""What the report says, whatever part of the workflow ran."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import InvalidInputError
from agents.specialized import DocumentationAgent
from agents.specialized.report import code
from agents.specialized.repository import bundle
from agents.tests.specialized_helpers import OFF, Repository, World, answered

API = (
    '"""A shop."""\n\n\n'
    "class Cart:\n"
    '    """Told."""\n\n'
    "    def add(self): ...\n"
    "    def _count(self): ...\n\n\n"
    "class _Hidden:\n"
    "    def method(self): ...\n\n\n"
    "def total(): ...\n"
)
SUITE: dict[str, Any] = {
    "kind": "tests",
    "goal": "make it work",
    "verdict": "failed",
    "patched": True,
    "network": "open",
    "isolation": "none",
    "passed": 3,
    "failed": 1,
    "newly_failing": ["test_shop.py::test_a"],
    "failures": [
        {"test": "test_shop.py::test_a", "file": "test_shop.py", "line": 3, "message": "x | `y` \x1b[31m"}
    ],
}


async def world_of(folder: Path, files: Mapping[str, str | bytes]) -> World:
    return World(*await bundle(Repository(folder / "shop", files).folder), root_input="the first goal")


async def test_the_public_api_is_counted(tmp_path: Path) -> None:
    world = await world_of(
        tmp_path, {"shop.py": API, "test_shop.py": "def test(): pass\n", "bad.py": "def (:\n"}
    )
    output = await world.output(DocumentationAgent(OFF), "document it")
    coverage = output["coverage"]
    assert (coverage["public"], coverage["documented"], coverage["percent"]) == (4, 2, 50.0)
    assert [(entry["what"], entry["name"], entry["line"]) for entry in coverage["missing"]] == [
        ("function", "Cart.add", 7),
        ("function", "total", 15),
    ]


async def test_a_report_alone_says_what_was_not_done(tmp_path: Path) -> None:
    output = await (await world_of(tmp_path, {"shop.py": API})).output(DocumentationAgent(OFF), None)
    assert "the first goal" in output["report"]
    for sentence in ("No tests were run.", "Nothing was reviewed.", "There is no report of one."):
        assert sentence in output["report"]
    assert output["verdicts"] == {}
    assert output["summary"] == "Documentation: 50 % of the public API, 2 without a docstring"


async def test_failures_that_the_patch_caused_come_first(tmp_path: Path) -> None:
    world = await world_of(tmp_path, {"shop.py": API})
    for given in (SUITE, {"my-tests": SUITE, "other": {"kind": "else"}, "n": 1}):
        output = await world.output(DocumentationAgent(OFF), given)
        assert output["goal"] == "make it work"
        assert output["verdicts"] == {"testing": "failed"}
        assert "1. Do not apply the patch as it is: it breaks `test_shop.py::test_a`." in output["report"]
        assert "newly failing with the patch" in output["report"]
        assert "could not be cut" in output["report"]
        assert "\x1b" not in output["report"]


async def test_facts_that_are_not_valid_are_refused(tmp_path: Path) -> None:
    world = await world_of(tmp_path, {"shop.py": API})
    with pytest.raises(InvalidInputError, match="the input's tests is not valid at: passed"):
        await world.run(DocumentationAgent(OFF), {"testing": {**SUITE, "passed": "many"}})


async def test_a_long_report_is_cut_in_the_output_alone(tmp_path: Path) -> None:
    failures = [{"test": "t" * 300, "file": "f", "line": 1, "message": "m" * 300}] * 50
    many = {f"m{number}.py": "".join(f"def f{n}(): ...\n" for n in range(20)) for number in range(20)}
    world = await world_of(tmp_path, many)
    output = await world.output(DocumentationAgent(OFF), {**SUITE, "failures": failures})
    assert len(output["coverage"]["missing"]) == 200
    assert output["coverage"]["missing_left_out"] == 220
    assert output["report"] == (await world.content("report.md")).decode()[:100_000]


async def test_a_model_closes_the_report(tmp_path: Path) -> None:
    world = await world_of(tmp_path, {"shop.py": API})
    with answered("Write the docstrings.\n# Not a heading"):
        output = await world.output(DocumentationAgent(), "")
    assert "> Write the docstrings.\n> # Not a heading" in output["report"]
    assert "No language model was asked" not in output["report"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("x", "`x`"), ("a`b", "`` a`b ``"), ("", "` `"), ("a\nb\x1b", "`a b`")],
)
def test_text_cannot_leave_its_code_span(text: str, shown: str) -> None:
    assert code(text) == shown
