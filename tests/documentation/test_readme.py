"""README says nothing that is not so: its example runs, its commands work, its promises have tests."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.settings import Settings

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
CALLBOARD = [sys.executable, "-m", "streams.command_line"]
# Read by the code that needs them instead of by `Settings`, which belongs to the streams.
ELSEWHERE = {"CALLBOARD_LLM", "CALLBOARD_REPOSITORIES"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_promise_names_a_test_that_exists() -> None:
    table = README.split("## What is promised, and what shows it")[1].split("\n\n")[1]
    named = re.findall(r"`(test_\w+)` \|$", table, flags=re.MULTILINE)
    assert len(named) == len(table.splitlines()) - 2
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in sources] == []


def test_every_setting_is_there_and_no_other() -> None:
    table = README.split("## Connecting to your Kafka")[1].split("## What")[0]
    assert set(re.findall(r"`(CALLBOARD_\w+)`", table)) == ELSEWHERE | {
        f"CALLBOARD_{name.upper()}" for name in Settings.model_fields
    }


def test_numbers_among_the_defaults_are_so() -> None:
    table = README.split("## Settings")[1].split("##")[0]
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            row = next(line for line in table.splitlines() if f"CALLBOARD_{name.upper()}`" in line)
            assert re.search(rf"\b{field.default:g}\b", row), row


def test_the_way_into_a_kafka_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = dict(line.split("=", 1) for line in blocks("ini")[0].splitlines())
    (tmp_path / "password").write_text("secret")
    for name, value in given.items():
        monkeypatch.setenv(name, str(tmp_path / "password") if name.endswith("_FILE") else value)
    connection = Settings.from_environment().connection
    assert connection.servers == given["CALLBOARD_BOOTSTRAP_SERVERS"]
    assert (connection.protocol, connection.mechanism) == ("SASL_SSL", "SCRAM-SHA-512")


def test_every_command_and_exit_code_is_there() -> None:
    helped = subprocess.run([*CALLBOARD, "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  ([\w-]+)  +[A-Z]", helped.split("Commands:")[1], flags=re.MULTILINE)
    table = README.split("## Commands")[1].split("## ")[0]
    assert commands
    assert [name for name in commands if f"`{name}`" not in table and f"`callboard {name}" not in table] == []
    codes = re.findall(r"^      (\d+) ", helped, flags=re.MULTILINE)
    assert [code for code in codes if not re.search(rf"\b{code} ", table)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/checks.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("command", ["validate-manifests", "report-tests", "argocd-status"])
def test_a_check_has_every_option_that_is_named(command: str) -> None:
    help_of = subprocess.run([*CALLBOARD, command, "--help"], capture_output=True, text=True, check=True)
    sections = (ROOT / "docs/checks.md").read_text().split("\n## ")
    section = next(part for part in sections if f"callboard {command}" in part)
    named = {option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", section) if option != "--junitxml"}
    assert named
    assert {option for option in named if not re.search(rf"{option}\b", help_of.stdout)} == set()
    table = README.split("## Checks, with and without a model")[1].split("\n## ")[0]
    row = next(line for line in table.splitlines() if line.startswith(f"| `callboard {command}"))
    schemas = [json.loads(path.read_text()) for path in (ROOT / "schemas/reports").glob("*.json")]
    verdicts = {frozenset(schema["properties"]["verdict"]["enum"]) for schema in schemas}
    assert frozenset(re.findall(r"`(\w+)`", row)) in verdicts


def test_the_two_commands_are_targets_of_make() -> None:
    first = blocks("bash")[0].splitlines()
    assert first == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert [line for line in first if f"\n{line.removeprefix('make ')}:" not in makefile] == []


@pytest.mark.kafka
def test_the_agent_of_the_readme(kafka: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    run, publish = (block.strip() for block in blocks("bash")[1:3])
    environment = os.environ | {"CALLBOARD_BOOTSTRAP_SERVERS": kafka}
    with _running(f"{run} --port 0", tmp_path, environment):
        done = _command(f"{publish} --json", tmp_path, environment)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert "to pay: 4.00" in json.dumps(answer)
        shown = _command(f"callboard show {answer['workflow']}", tmp_path, environment)
        assert shown.returncode == 0, shown.stderr
        assert "receipt" in shown.stdout


@contextmanager
def _running(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    log = folder / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(_words(command), cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 60
            while '"ready"' not in log.read_text() and time.monotonic() < deadline:
                assert worker.poll() is None, log.read_text()
                time.sleep(0.05)  # another process: there is no event of ours to wait for
            yield
        finally:
            worker.terminate()
            assert worker.wait(60) == 0, log.read_text()


def _command(command: str, folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        _words(command), cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def _words(command: str) -> list[str]:
    name, *rest = shlex.split(command)
    assert name == "callboard"
    return [*CALLBOARD, *rest]
