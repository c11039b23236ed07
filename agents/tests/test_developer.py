"""What the developer changes, and that its patch is one."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from agents.core.errors import LLMUnavailableError
from agents.core.llm import LLMReply
from agents.specialized import DeveloperAgent, TestingAgent
from agents.specialized.facts import NO_JUDGEMENT
from agents.specialized.repository import bundle
from agents.specialized.sandbox import Limits
from agents.tests.specialized_helpers import OFF, Repository, ScriptedModel, World, answered

UNTIDY = "import sys, os\nprint(f'price')\n"
QUICK = Limits(seconds=20.0)
FIX = """Here it is:
```diff
--- a/shop.py
+++ b/shop.py
@@ -1,9 +1,9 @@
 def half(price):
-    return price
+    return price / 2
```
"""
TESTED = {
    "kind": "tests",
    "goal": "",
    "verdict": "failed",
    "patched": True,
    "network": "cut",
    "isolation": "",
}


class Workshop:
    """A repository, and the world in which a developer works on it."""

    def __init__(self, folder: Path, files: Mapping[str, str | bytes]) -> None:
        self.repository = Repository(folder / "shop", files)

    async def world(self) -> World:
        return World(*await bundle(self.repository.folder))

    async def apply(self, world: World) -> dict[str, str]:
        """Apply the patch with plain git and give all Python files."""
        command = ["git", "apply", "--index", "-"]
        patch = await world.content("patch")
        subprocess.run(command, cwd=self.repository.folder, input=patch, check=True)  # noqa: S603, ASYNC221 (small)
        tracked = self.repository.git("ls-files", "*.py").splitlines()
        return {name: (self.repository.folder / name).read_text() for name in tracked}


async def test_safe_fixes_make_a_patch_that_git_applies(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, {"shop.py": UNTIDY, "fine.py": "price = 1\n", "-x.py": UNTIDY, "@x.py": UNTIDY})
    world = await shop.world()
    output = await world.output(DeveloperAgent(OFF), "clean up")
    files = await shop.apply(world)
    assert files["shop.py"] == files["-x.py"] == files["@x.py"] == "print('price')\n"
    assert files["fine.py"] == "price = 1\n"
    assert output["fixes"] == {"F401": 6, "E401": 3, "I001": 3, "F541": 3}
    assert {"path": "shop.py", "insertions": 1, "deletions": 2} in output["changed"]
    assert output["remaining"] == 0
    assert "default set" in output["rules"]
    assert output["judgement"] == NO_JUDGEMENT


async def test_nothing_to_do_is_an_outcome_without_a_patch(tmp_path: Path) -> None:
    world = await Workshop(tmp_path, {"shop.py": "price = 1\n"}).world()
    output = await world.output(DeveloperAgent(OFF), "clean up")
    assert (output["artifact"], output["changed"]) == (None, [])
    assert "nothing changed" in output["summary"]
    assert "patch" not in world.artifacts


async def test_only_files_that_matter_are_changed(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, {"shop.py": UNTIDY, "other.py": UNTIDY})
    world = await shop.world()
    research = {
        "kind": "research",
        "goal": "tidy shop",
        "repository": {"name": "shop", "commit": "x", "files": 2, "python_files": 2, "lines": 4},
        "files": [
            {"path": "shop.py", "score": 1, "why": "x"},
            {"path": "../../etc/passwd", "score": 1, "why": "x"},
        ],
        "tests": [],
        "left_out": [],
        "notes": [],
    }
    output = await world.output(DeveloperAgent(OFF), research)
    assert [file["path"] for file in output["changed"]] == ["shop.py"]
    assert output["notes"] == ["1 other Python files were not worked on"]
    assert output["research"]["files"] == ["shop.py", "../../etc/passwd"]


async def test_the_repository_chooses_its_rules_and_format(tmp_path: Path) -> None:
    project = "[tool.ruff.lint]\nselect = ['F541']\n[tool.ruff.format]\nquote-style = 'single'\n"
    shop = Workshop(tmp_path, {"shop.py": 'import os\nprint( f"price" )\n', "pyproject.toml": project})
    world = await shop.world()
    output = await world.output(DeveloperAgent(OFF), "")
    assert (await shop.apply(world))["shop.py"] == "import os\n\nprint('price')\n"
    assert output["rules"] == "the repository's own (pyproject.toml)"


@pytest.mark.parametrize(
    ("configuration", "note"),
    [
        ("extend = '/etc/passwd'\n", "extends another file, which is not followed"),
        ("required-version = '==0.0.1'\n", "does not accept"),
        ("line-length = 'long'\n", "does not accept"),
    ],
)
async def test_configurations_that_cannot_be_used_are_told(
    tmp_path: Path, configuration: str, note: str
) -> None:
    world = await Workshop(tmp_path, {"shop.py": UNTIDY, "ruff.toml": configuration}).world()
    output = await world.output(DeveloperAgent(OFF), "")
    assert note in output["notes"][0]
    assert "root" not in str(output)
    assert output["changed"]


async def test_a_configuration_cannot_make_fixes_unsafe_or_write_elsewhere(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    configuration = (
        f"unsafe-fixes = true\nfix-only = true\ncache-dir = '{cache}'\nlint.select = ['F', 'E711']\n"
    )
    world = await Workshop(
        tmp_path, {"shop.py": "x = 1\nprint(x == None)\n", "ruff.toml": configuration}
    ).world()
    output = await world.output(DeveloperAgent(OFF), "")
    assert (output["changed"], output["remaining"]) == ([], 1)
    assert not cache.exists()


async def test_a_patch_that_came_along_is_part_of_the_new_one(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, {"shop.py": "a = 1\nb = 2\n"})
    world = await shop.world()
    (shop.repository.folder / "shop.py").write_text("import os\na = 3\nb = 2\n")
    world.add("patch", (shop.repository.git("diff") + "\n").encode())
    shop.repository.git("checkout", "--quiet", ".")
    await world.output(DeveloperAgent(OFF), "")
    assert (await shop.apply(world))["shop.py"] == "a = 3\nb = 2\n"


async def test_a_models_patch_is_taken_if_it_applies(tmp_path: Path) -> None:
    test = "from shop import half\n\n\ndef test_half():\n    assert half(4) == 2\n"
    shop = Workshop(tmp_path, {"shop.py": "def half(price):\n    return price\n", "test_shop.py": test})
    world = await shop.world()
    with answered(FIX) as model:
        output = await world.output(DeveloperAgent(test_limits=QUICK), "make the tests pass")
    assert output["judgement"].startswith("the model's patch was taken; it touches shop.py")
    assert "test_shop.py::test_half" in model.questions[0]
    assert "callboard-" not in model.questions[0], "a scratch folder in a question would change its digest"
    assert "price / 2" in (await shop.apply(world))["shop.py"]
    assert (await world.output(TestingAgent(OFF, limits=QUICK), output))["fixed"] == [
        "test_shop.py::test_half"
    ]


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        ("NONE", "is empty"),
        (FIX.replace("return price\n", "return cost\n"), "does not apply"),
        (FIX.replace("price / 2", "price / (2"), "leaves shop.py broken"),
        ("--- /dev/null\n+++ b/../evil.py\n@@ -0,0 +1 @@\n+evil\n", "does not apply"),
        ("--- /dev/null\n+++ b/.git/hooks/pre-commit\n@@ -0,0 +1 @@\n+evil\n", "does not apply"),
    ],
)
async def test_a_models_patch_is_not_taken_otherwise(tmp_path: Path, answer: str, fate: str) -> None:
    files = {"shop.py": "def half(price):\n    return price\n", "untidy.py": "import os\n"}
    world = await Workshop(tmp_path, files).world()
    with answered(answer):
        output = await world.output(DeveloperAgent(), TESTED)
    assert fate in output["judgement"]
    assert [file["path"] for file in output["changed"]] == ["untidy.py"]


async def test_a_model_that_cannot_be_reached_is_for_the_runtime_to_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> LLMReply:
        raise LLMUnavailableError("busy", retryable=True)

    monkeypatch.setattr(ScriptedModel, "ask", refuse)
    world = await Workshop(tmp_path, {"shop.py": "price = 1\n"}).world()
    with answered(), pytest.raises(LLMUnavailableError):
        await world.run(DeveloperAgent(), TESTED)
