"""What users import: short lists, without waiting for what they do not use, in layers that hold."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Modules of the `openai-agents` distribution, whose package has our package's name (ARCHITECTURE.md).
THEIRS = [
    "testing",
    "tracing",
    "memory",
    "models",
    "mcp",
    "tool",
    "run",
    "items",
    "result",
    "usage",
    "exceptions",
    "extensions",
    "handoffs",
    "guardrail",
    "logger",
    "sandbox",
    "realtime",
    "voice",
    "util",
    "version",
]

SLOW = ("aiokafka", "anthropic", "faststream")


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "agents.core",
            {
                "Agent",
                "AgentConfig",
                "AgentError",
                "AgentResult",
                "AgentStatus",
                "Artifact",
                "Budget",
                "Task",
                "Workflow",
                "all_of",
                "current_task",
                "first_of",
                "quorum",
            },
        ),
        (
            "agents.specialized",
            {"CodeReviewerAgent", "DeveloperAgent", "DocumentationAgent", "ResearcherAgent", "TestingAgent"},
        ),
        ("streams", {"AgentApp"}),
    ],
)
def test_public_names(module: str, names: set[str]) -> None:
    imported = import_module(module)
    assert set(imported.__all__) == names
    assert len(imported.__all__) == len(names)
    for name in names:
        assert getattr(imported, name).__name__ == name


def test_an_unknown_name_of_streams_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'streams' has no attribute 'Nothing'"):
        import_module("streams").Nothing  # noqa: B018 (asking is the test)


@pytest.mark.parametrize("module", ["streams", "agents.core", "agents.specialized"])
def test_importing_does_not_load_the_clients(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded.isdisjoint(SLOW)


def test_agents_is_a_namespace_package_and_shares_no_module_name_with_its_namesake() -> None:
    assert not (ROOT / "agents/__init__.py").exists()
    assert {path.name.partition(".")[0] for path in (ROOT / "agents").iterdir()}.isdisjoint(THEIRS)


def test_layers_hold() -> None:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken." in done.stdout


def importers(module: str) -> set[str]:
    """Give the files outside of tests that import `module`, at whatever depth."""
    found = set()
    for folder in ("agents", "streams"):
        for path in (ROOT / folder).rglob("*.py"):
            if "tests" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                if any(name == module or name.startswith(f"{module}.") for name in names):
                    found.add(str(path.relative_to(ROOT)))
    return found


def test_few_touch_the_rust_extension() -> None:
    # import-linter does not see compiled modules.
    assert importers("agents._rust") <= {
        "agents/core/runtime.py",  # the machine
        "streams/audit.py",
        "streams/envelope.py",  # headers and digests
        "streams/kafka/fetched.py",  # records on their way from Kafka
        "streams/kafka/protocol.py",  # requests and answers
        "streams/kafka/record_batch.py",  # records on their way to Kafka
        "streams/payloads.py",  # results
    }


def test_one_asks_the_model_provider() -> None:
    assert importers("anthropic") == {"agents/core/llm.py"}
