"""Our agents in the real Claude Code, with a scripted model: what it loads, offers, runs and blocks.

Runs where `CALLBOARD_CLAUDE_CLI` names the program; the wheel `claude-agent-sdk` has it in
`claude_agent_sdk/_bundled/claude`. Written against 2.1.330. Nothing of it reaches a network.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.core.agent_file import load_folder
from tests.contract.scripted_model import Call, ScriptedModel, scripted_model

ROOT = Path(__file__).parents[2]
AGENTS = load_folder(ROOT / ".claude/agents")
VARIABLE = "CALLBOARD_CLAUDE_CLI"
PROGRAM = os.environ.get(VARIABLE)  # no test sees it later: their environment is cleaned
SHA = "0123456789abcdef0123456789abcdef01234567"
COMMANDS = {
    "k8s-validator": "callboard validate-manifests --json deploy",
    "python-test-runner": "callboard report-tests --json -- tests/unit/test_guard.py",
    "argocd-sync-monitor": f"callboard argocd-status callboard --revision {SHA} --json",
}
EACH = pytest.mark.parametrize("name", AGENTS)


@dataclass
class Client:
    """The program, and a repository of its own with our files in it."""

    program: Path
    project: Path
    home: Path

    def run(self, *words: str, model: ScriptedModel | None = None) -> str:
        environment = {
            # A `callboard` that only says how it was called comes before any other.
            "PATH": f"{self.home}/bin:{os.environ['PATH']}",
            "HOME": str(self.home),
            "ANTHROPIC_API_KEY": "dummy",
            "ANTHROPIC_BASE_URL": model.url if model else "http://127.0.0.1:9",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_TELEMETRY": "1",
        }
        done = subprocess.run(
            [self.program, *words],
            cwd=self.project,
            env=environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def session(self, model: ScriptedModel, *words: str) -> list[dict[str, Any]]:
        """Run one prompt without a terminal; give the messages that the client prints."""
        printed = self.run("-p", "go", "--output-format", "stream-json", "--verbose", *words, model=model)
        return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    if not PROGRAM:
        pytest.skip(f"{VARIABLE} names no Claude Code program; the wheel claude-agent-sdk has one")
    made = Client(Path(PROGRAM), tmp_path / "project", tmp_path / "home")
    shutil.copytree(ROOT / ".claude", made.project / ".claude", ignore=shutil.ignore_patterns("*.local.json"))
    shutil.copy(ROOT / "CLAUDE.md", made.project)
    (made.project / ".env").write_text("TOKEN=very-secret")
    (made.home / "bin").mkdir(parents=True)
    callboard = made.home / "bin/callboard"
    callboard.write_text('#!/bin/sh\necho "ran: $*"\n')
    callboard.chmod(0o755)
    return made


def delegated(name: str) -> list[Call]:
    return [Call("Agent", {"subagent_type": name, "description": "check", "prompt": "Do your job."})]


def test_its_own_strict_validation_passes(client: Client) -> None:
    said = json.loads(client.run("plugin", "validate", "--strict", "--json", ".claude"))
    assert (said["success"], said["strict"]) == (True, True)


def test_it_drops_nothing_of_a_file(client: Client, tmp_path: Path) -> None:
    # It passes over what it does not understand, and says so in this log alone.
    log = tmp_path / "debug.log"
    with scripted_model([], []) as model:
        client.session(model, "--debug-file", str(log))
        assert "Agent file " not in log.read_text()
        wrong = client.project / ".claude/agents/k8s-validator.md"
        wrong.write_text(wrong.read_text().replace("dontAsk", "dontask"))
        client.session(model, "--debug-file", str(log))
    assert f"Agent file {wrong} has invalid permissionMode 'dontask'" in log.read_text()


@EACH
def test_an_agent_has_its_model_tools_and_text_runs_its_command_and_nothing_else(
    client: Client, name: str
) -> None:
    agent, command = AGENTS[name], COMMANDS[name]
    moves = [
        Call("Bash", {"command": command}),
        Call("Bash", {"command": f"{command}; touch planted"}),
        Call("Bash", {"command": "cat .env"}),
        Call("Read", {"file_path": str(client.project / ".env")}),
        Call("Read", {"file_path": str(client.project / "CLAUDE.md")}),
    ]
    with scripted_model(delegated(name), moves) as model:
        first = client.session(model)[0]
    assert set(AGENTS) <= set(first["agents"])

    asked = model.of_agents()
    assert {question["model"] for question in asked} == {agent.model_id}
    # StructuredOutput is there when a form is asked for, which a sub-agent never is.
    assert {tool["name"] for tool in asked[0]["tools"]} == set(agent.tools) - {"StructuredOutput"}
    assert agent.body in "".join(part["text"] for part in asked[0]["system"])

    ran, chained, shown, secret, read = model.tool_results()
    assert ran == (f"ran: {command.removeprefix('callboard ')}", False)
    for text, is_error in (chained, shown):
        assert is_error
        assert f"{name} may only run `callboard " in text
    assert not (client.project / "planted").exists()
    assert secret[1]
    assert "very-secret" not in str(model.questions)
    assert not read[1]


def test_the_main_thread_is_left_alone_but_for_the_deny_rules(client: Client) -> None:
    moves = [
        Call("Bash", {"command": "echo one && echo two"}),
        Call("Bash", {"command": "kubectl -n shop delete pod x"}),
        Call("Bash", {"command": "cd deploy && argocd app sync shop"}),
        Call("Read", {"file_path": str(client.project / ".env")}),
    ]
    with scripted_model(moves, []) as model:
        client.session(model, "--allowedTools", "Bash", "Read")
    echoed, deleted, synced, secret = model.tool_results(main=True)
    assert echoed == ("one\ntwo", False)
    for text, is_error in (deleted, synced, secret):
        assert is_error
        assert "denied" in text
        assert "guard.py" not in text
    assert "very-secret" not in str(model.questions)


def test_an_agent_as_the_main_thread_is_guarded_and_gives_its_report_in_the_form_asked_for(
    client: Client,
) -> None:
    form = {"type": "object", "properties": {"verdict": {"type": "string"}}, "required": ["verdict"]}
    moves = [
        Call("Bash", {"command": "id"}),
        Call("Bash", {"command": COMMANDS["k8s-validator"]}),
        Call("StructuredOutput", {"verdict": "pass"}),
    ]
    with scripted_model([], moves) as model:
        messages = client.session(model, "--agent", "k8s-validator", "--json-schema", json.dumps(form))
    blocked, ran, *_ = model.tool_results()
    assert "k8s-validator may only run" in blocked[0]
    assert not ran[1]
    assert messages[-1]["structured_output"] == {"verdict": "pass"}
