"""Our own agents for Claude Code keep the rules of the house, and agree with all that names them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.core.agent_file import load_folder

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".claude"
AGENTS = load_folder(FOLDER / "agents")
TABLE = json.loads((FOLDER / "hooks/allowed_commands.json").read_text())
SETTINGS = json.loads((FOLDER / "settings.json").read_text())
CLAUDE = (ROOT / "CLAUDE.md").read_text()

SECTIONS = ["Job", "Command", "Reading the result", "Report", "Limits"]
LONGEST_BODY = 3_000
SCHEMAS = {"k8s-validator": "manifests", "python-test-runner": "tests", "argocd-sync-monitor": "argocd"}
EACH = pytest.mark.parametrize("name", AGENTS)


def helped(*words: str) -> str:
    command = [sys.executable, "-m", "streams.command_line", *words, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_there_are_three_and_the_table_has_no_other() -> None:
    assert set(AGENTS) == set(TABLE["agents"]) == set(SCHEMAS)


@EACH
def test_a_file_keeps_the_rules_of_the_house(name: str) -> None:
    agent = AGENTS[name]
    assert 40 <= len(agent.description) <= 400
    assert re.match(r"Use (after|before|when)\b", agent.description)
    assert "Do not use it to" in agent.description
    assert agent.permission_mode == "dontAsk"
    assert {"Write", "Edit"}.isdisjoint(agent.tools)
    assert "StructuredOutput" in agent.tools, (
        "it has no other way to give a report of a form that is asked for"
    )
    assert list(agent.tools) == TABLE["agents"][name]["tools"]
    assert re.findall(r"^## (.+)$", agent.body, flags=re.MULTILINE) == SECTIONS
    assert len(agent.body) < LONGEST_BODY


@EACH
def test_a_file_names_its_command_and_no_other(name: str) -> None:
    body, rule = AGENTS[name].body, TABLE["agents"][name]
    (block,) = re.findall(r"```bash\n(.*?)\n```", body, flags=re.DOTALL)
    assert block.startswith(f"callboard {rule['command']} ")
    assert rule["usage"].startswith(f"callboard {rule['command']}")
    assert set(re.findall(r"\bcallboard ([a-z-]+)", body)) == {rule["command"]}
    for program in TABLE["programs"]:
        assert f"`{program}`" in body


@EACH
def test_the_command_of_a_file_and_all_its_options_exist(name: str) -> None:
    rule = TABLE["agents"][name]
    options = {*rule["flags"], *rule["options"]}
    shown = helped(rule["command"])
    assert [option for option in options if not re.search(rf"{option}\b", shown)] == []
    for text in (rule["usage"], AGENTS[name].body):
        ours = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        assert ours <= options


@EACH
def test_the_schema_of_a_report_exists_and_its_verdicts_are_explained(name: str) -> None:
    path = f"schemas/reports/{SCHEMAS[name]}.json"
    assert f"`{path}`" in AGENTS[name].body
    schema = json.loads((ROOT / path).read_text())
    rows = re.findall(r"^\| \d+ \|([^|]*)\|", AGENTS[name].body, flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == set(schema["properties"]["verdict"]["enum"])


@EACH
def test_exit_codes_are_those_of_the_program(name: str) -> None:
    codes = set(re.findall(r"^\| (\d+) \|", AGENTS[name].body, flags=re.MULTILINE))
    assert {"0", "1", "2", "7"} <= codes
    known = set(re.findall(r"^ +(\d+) +\w", helped(), flags=re.MULTILINE))
    assert codes <= known


def test_claude_md_says_which_agent_when() -> None:
    assert set(re.findall(r"^\|.*?\| `([\w-]+)`", CLAUDE, flags=re.MULTILINE)) == set(AGENTS)
    for rule in TABLE["agents"].values():
        assert f"callboard {rule['command']}" in CLAUDE
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", CLAUDE)
    assert named
    assert [path for path in named if not (ROOT / path).exists() and path != ".venv/bin"] == []
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", CLAUDE, flags=re.MULTILINE)
    assert targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_guard_sees_every_call() -> None:
    (entry,) = SETTINGS["hooks"]["PreToolUse"]
    assert entry["matcher"] == "*"
    (hook,) = entry["hooks"]
    assert '"$CLAUDE_PROJECT_DIR/.claude/hooks/guard.py"' in hook["command"]
    # Claude Code takes any exit code but 2 for leave to go on.
    assert hook["command"].endswith("|| exit 2")


def test_nothing_names_a_folder_of_one_machine() -> None:
    for path in (*FOLDER.rglob("*.json"), *FOLDER.rglob("*.md"), *FOLDER.rglob("*.py"), ROOT / "CLAUDE.md"):
        assert not re.search(r"/(?:home|Users|root|work|tmp)/", path.read_text()), path


def test_settings_only_take_away() -> None:
    assert set(SETTINGS) == {"$schema", "permissions", "hooks"}
    assert set(SETTINGS["permissions"]) == {"deny"}
    rules = SETTINGS["permissions"]["deny"]
    assert len(set(rules)) == len(rules)
    assert [rule for rule in rules if not re.fullmatch(r"(?:Bash|Read)\([^()]+\)", rule)] == []


def test_what_settings_hide_the_guard_hides_too() -> None:
    patterns = re.findall(r"Read\((?:\*\*|~)/([^)/]+)(?:/\*\*)?\)", " ".join(SETTINGS["permissions"]["deny"]))
    assert set(patterns) <= set(TABLE["secret_files"])
    assert {".env", "*.pem", ".kube", ".ssh"} <= set(patterns)


@pytest.mark.parametrize("rule", TABLE["agents"].values(), ids=TABLE["agents"])
def test_a_rule_of_the_table_has_the_form_that_the_guard_reads(rule: dict[str, Any]) -> None:
    assert set(rule) == {
        "tools", "usage", "command", "flags", "options", "arguments", *({"after_dashes"} & set(rule)),
    }  # fmt: skip
    for part in (rule, rule.get("after_dashes", rule)):
        assert set(part["arguments"]) == {"pattern", "least", "most"}
        for pattern in (*part["options"].values(), part["arguments"]["pattern"]):
            # No pattern takes what begins like an option, leaves its folder, or means something to a shell.
            for wrong in (
                "-x",
                "--x",
                "--",
                "..",
                "../x",
                "a/../b",
                "/x",
                "~",
                "$x",
                "a;b",
                "a|b",
                "a\n",
                "é",
            ):
                assert not re.fullmatch(pattern, wrong, re.ASCII), (pattern, wrong)
