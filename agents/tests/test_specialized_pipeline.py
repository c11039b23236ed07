"""The five agents in order, on the sample repository, as a workflow would run them."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.core import AgentResult, AgentStatus
from agents.specialized import (
    CodeReviewerAgent,
    DeveloperAgent,
    DocumentationAgent,
    ResearcherAgent,
    TestingAgent,
)
from agents.specialized.facts import NO_JUDGEMENT
from agents.specialized.repository import bundle, repository_from_folder
from agents.tests.specialized_helpers import GOAL, OFF, SAMPLE, World

BROKEN = "tests/test_pricing.py::test_discount_rounds_to_the_nearest_cent"


@dataclass
class Improved:
    world: World
    folder: Path
    results: dict[str, AgentResult[Any]]

    def output(self, agent: str) -> dict[str, Any]:
        output = self.results[agent].output
        assert isinstance(output, dict)
        return output


async def improve(scratch: Path) -> Improved:
    folder = await repository_from_folder(SAMPLE, scratch)
    world = World(*await bundle(folder), root_input=GOAL)
    research = await world.run(ResearcherAgent(OFF), GOAL)
    patch = await world.run(DeveloperAgent(OFF), research.output)
    review, tests = await asyncio.gather(
        world.run(CodeReviewerAgent(OFF), patch.output), world.run(TestingAgent(OFF), patch.output)
    )
    report = await world.run(
        DocumentationAgent(OFF), {"code_reviewer": review.output, "testing": tests.output}
    )
    return Improved(
        world,
        folder,
        {
            "researcher": research,
            "developer": patch,
            "code_reviewer": review,
            "testing": tests,
            "documentation": report,
        },
    )


@pytest.fixture(scope="module")
def improved(tmp_path_factory: pytest.TempPathFactory) -> Improved:
    return asyncio.run(improve(tmp_path_factory.mktemp("improved")))


def test_every_agent_completes_with_plain_bounded_json(improved: Improved) -> None:
    for agent, result in improved.results.items():
        assert result.status is AgentStatus.COMPLETED
        assert len(orjson.dumps(result.output)) < 200_000
        assert improved.output(agent)["judgement"] == NO_JUDGEMENT
        assert improved.output(agent)["goal"] == GOAL


def test_the_research_maps_the_repository(improved: Improved) -> None:
    output = improved.output("researcher")
    assert output["repository"]["python_files"] == 10
    assert output["repository"]["packages"] == ["shop"]
    assert "shop = shop.cli:main" in output["repository"]["entry_points"]
    assert output["files"][0]["path"] == "src/shop/pricing.py"
    assert len(output["tests"]) == 3


def test_the_patch_applies_and_fixes_what_is_safe(improved: Improved) -> None:
    patch = asyncio.run(improved.world.content("patch"))
    check = ["git", "apply", "--check", "-"]
    subprocess.run(check, cwd=improved.folder, input=patch, check=True)  # noqa: S603 (nothing from outside)
    output = improved.output("developer")
    assert output["artifact"] == "patch"
    assert {"F401", "I001", "F541"} <= set(output["fixes"])
    assert output["remaining"] > 0
    assert all(file["path"].startswith("src/") for file in output["changed"])


def test_the_review_finds_what_was_planted(improved: Improved) -> None:
    found = {(finding["path"], finding["rule"]) for finding in improved.output("code_reviewer")["findings"]}
    assert {
        ("src/shop/cli.py", "B602"),
        ("src/shop/orders.py", "B324"),
        ("src/shop/inventory.py", "B301"),
        ("src/shop/inventory.py", "E722"),
        ("src/shop/pricing.py", "C"),
    } <= found
    assert improved.results["code_reviewer"].verdict == "changes_requested"


def test_the_old_failure_is_not_blamed_on_the_patch(improved: Improved) -> None:
    output = improved.output("testing")
    assert improved.results["testing"].verdict == "failed"
    assert (output["passed"], output["failed"], output["errors"]) == (17, 1, 0)
    assert output["still_failing"] == [BROKEN]
    assert output["newly_failing"] == []
    assert output["failures"][0]["file"] == "tests/test_pricing.py"
    assert output["failures"][0]["line"] == 9


def test_the_report_tells_it_all(improved: Improved) -> None:
    output = improved.output("documentation")
    report = output["report"]
    for told in (GOAL, BROKEN, "src/shop/pricing.py", "B602", "shipping_cost", "Suggested changelog entry"):
        assert told in report
    assert report.count("No language model was asked") == 1
    assert asyncio.run(improved.world.content("report.md")).decode() == report
    assert "changes requested" in output["summary"]
    assert output["coverage"]["public"] > output["coverage"]["documented"] > 0


def test_importing_the_agents_loads_no_tool() -> None:
    program = (
        "import sys, agents.specialized;"
        "print({'bandit', 'radon', 'tantivy', 'interrogate', 'anthropic'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (nothing from outside)
    assert done.stdout.strip() == "set()"
