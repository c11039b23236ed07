"""`openai-agents` has a package `agents` too: both distributions work side by side, in either order.

Builds our wheel and downloads theirs with all that belongs to it, so it runs only where it is asked for:
`CALLBOARD_PACKAGING_TESTS=1 pytest tests/contract/test_openai_agents.py`.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.environ.get("CALLBOARD_PACKAGING_TESTS") != "1",
    reason="builds a wheel and downloads another; set CALLBOARD_PACKAGING_TESTS=1 to run it",
)

ROOT = Path(__file__).parents[2]

THEIRS_WORK = """
import agents
from agents import Agent, Runner, function_tool
from agents.tracing import trace
assert agents.__file__ and agents.Agent(name="a").name == "a"
"""

OURS_WORK = """
from agents import _rust
from agents.core import Agent, AgentResult, Workflow
from agents.metrics import REGISTRY
from agents.specialized import ResearcherAgent
from streams import AgentApp
_rust.AgentRuntime(slots=1, max_queued_records=1, max_queued_bytes=1)
Workflow("w").step(ResearcherAgent())
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    run(sys.executable, "-m", "maturin", "build", "--out", folder)
    (wheel,) = folder.glob("callboard-*.whl")
    return wheel


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "openai-agents")
    (wheel,) = folder.glob("openai_agents-*.whl")
    return wheel


class Environment:
    """A virtual environment of its own, outside of this checkout."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"
        self.folder = folder
        run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, folder)

    def pip(self, action: str, *what: str | Path) -> None:
        run(sys.executable, "-m", "uv", "pip", action, "--quiet", "--python", self.python, *what)

    def check(self, code: str) -> None:
        done = subprocess.run(
            [self.python, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr


def test_the_wheels_share_no_file(ours: Path, theirs: Path) -> None:
    names = [set(zipfile.ZipFile(wheel).namelist()) for wheel in (ours, theirs)]
    assert names[0] & names[1] <= {"agents/py.typed"}  # the same empty marker in both
    assert "agents/__init__.py" not in names[0]
    assert not [name for name in names[0] if "/tests/" in name or name.startswith(("tests/", "examples/"))]


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_both_work_in_either_order_and_alone_again(
    first: str, ours: Path, theirs: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv")
    wheels = (ours, theirs) if first == "ours" else (theirs, ours)
    for wheel in wheels:
        environment.pip("install", wheel)
    environment.check(THEIRS_WORK)
    environment.check(OURS_WORK)
    gone = "openai-agents" if first == "ours" else "callboard"
    environment.pip("uninstall", gone)
    environment.check(OURS_WORK if first == "ours" else THEIRS_WORK)
    shutil.rmtree(environment.folder)
