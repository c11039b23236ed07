"""Dead letters on real Kafka: what an agent refuses is found, mended and published again, once."""

import json
import os
import pty
import select
import signal
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from streams.command_line.output import ExitCode
from tests.integration.test_commands import COMMAND, Commands

pytestmark = pytest.mark.kafka

APPLICATION = """
from pathlib import Path

from agents.core import Agent, AgentResult, AgentStatus, Workflow, all_of
from streams import AgentApp


class PickyAgent(Agent):
    async def execute(self, input_data):
        if input_data == "bad":
            raise ValueError("not that")
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


class OtherAgent(PickyAgent):
    pass


class FirstAgent(PickyAgent):
    pass


class MeetingAgent(Agent):
    async def execute(self, input_data):
        if not Path("repaired").exists():
            raise ValueError("no room")
        return AgentResult(status=AgentStatus.COMPLETED, output=sorted(input_data))


workflow = Workflow("dead_letters")
first = workflow.step(FirstAgent())
picky = workflow.step(PickyAgent(), after=first)
other = workflow.step(OtherAgent(), after=first)
workflow.step(MeetingAgent(), after=all_of(picky, other))
app = AgentApp(workflow)
"""


class Dead(Commands):
    """Commands of one application with one worker."""

    def letters(self, agent: str, *options: str) -> list[Any]:
        return self.lines("dead", "list", "--agent", agent, "--json", *options)

    def results(self, workflow: str, agent: str, until: int) -> list[Any]:
        """Give what an agent's runs of a workflow ended with, once there are so many."""
        command = ("tail", f"results.{agent}", "--from", "beginning", "--json")
        process = self.start(*command)
        found: list[Any] = []
        try:
            assert process.stdout is not None
            while len(found) < until:
                record = json.loads(process.stdout.readline())
                if record["headers"]["ce_correlationid"] == workflow:
                    found.append(record["value"])
        finally:
            process.kill()
            process.communicate()
        return found


def test_dead_letters_from_refusal_to_result(kafka: str, tmp_path: Path) -> None:
    (tmp_path / "dead_app.py").write_text(APPLICATION)
    dead = Dead(kafka, tmp_path)
    with dead.worker("dead_app:app"):
        # A task that the agent refuses, mended by an edited input.
        refused = dead.json("publish", "picky", "bad", "--wait", "--json", code=ExitCode.FAILED)
        (letter,) = dead.letters("picky")
        assert (letter["workflow"], letter["reason"]) == (refused["workflow"], "not_retryable")
        assert letter["error"] == {"type": "ValueError", "message": "not that"}
        short = letter["id"][:8]
        (tmp_path / "better.json").write_text('{"input": "good"}')
        again = ("dead", "redrive", short, "--edit", "better.json", "--because", "a typo", "--json")
        told = dead.json(*again)
        assert told["place"].startswith(f"tasks.picky/{refused['partition']}/")
        results = dead.results(refused["workflow"], "picky", 2)
        assert [result["status"] for result in results] == ["failed", "completed"]
        assert results[1]["output"] == "good"

        # The second time is refused; what was done is told.
        _, errors = dead.run(*again, code=ExitCode.FAILED)
        assert f"{short} refused: it was published again already, as {told['place']}" in errors
        out, errors = dead.run("dead", "list", "--agent", "picky")
        assert out == ""
        assert "1 more was published again already" in errors
        shown = dead.json("dead", "show", short, "--json")
        assert [event["because"] for event in shown["redriven"]] == ["a typo"]
        assert shown["value"]["input"] == "bad"

        # Both letters of a join go into one new round, where they meet again.
        met = dead.json("publish", "first", "x", "--wait", "--json", code=ExitCode.FAILED)
        parts = [each for each in dead.letters("meeting") if each["workflow"] == met["workflow"]]
        assert [each["parts"] for each in parts] == [2, 2]
        (tmp_path / "repaired").touch()
        dead.run("dead", "redrive", parts[0]["id"], "--because", "there is a room now")
        results = dead.results(met["workflow"], "meeting", 2)
        assert [result["status"] for result in results] == ["failed", "completed"]
        assert results[1]["output"] == ["other", "picky"]
        assert [each["id"] for each in dead.letters("meeting") if each["workflow"] == met["workflow"]] == []


@pytest.fixture(scope="module")
def two(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Dead:
    """Two letters of one agent, which nobody works on any more."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "dead_app.py").write_text(APPLICATION)
    dead = Dead(kafka, folder)
    dead.environment["CALLBOARD_TOPIC_PREFIX"] = "two."
    with dead.worker("dead_app:app"):
        for _ in range(2):
            dead.run("publish", "picky", "bad", "--wait", code=ExitCode.FAILED)
    return dead


# What an editor does to the file, what the command says then, and whether what was typed can be used again.
EDITORS = [
    ("true", "the value was not changed (without --editor it goes as it is)", False),
    ("sh -c 'echo {} >> $0; exit 3'", "nothing was published: sh ended with 3; see", True),
    ("sh -c 'echo { > $0'", "is no valid callboard.task.v1: value: Invalid JSON", True),
    ("sh -c 'echo {} > $0'", "is no valid callboard.task.v1: input: Field required", True),
    ("sh -c 'rm $0'", "nothing was published: cannot read", False),
    ("'unclosed", 'EDITOR is "\'unclosed", which is no command: No closing quotation', False),
    (" ", "the editor 'vi' cannot be started (No such file or directory)", False),
]


@pytest.mark.parametrize(("editor", "says", "is_kept"), EDITORS)
def test_an_edit_that_comes_to_nothing_publishes_nothing(  # noqa: PLR0913, PLR0917 (a case)
    two: Dead,
    editor: str,
    says: str,
    is_kept: bool,  # noqa: FBT001 (a case)
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("sh", "rm", "true"):  # and no vi
        (tmp_path / name).symlink_to(which(name) or name)
    for name, value in (("VISUAL", ""), ("EDITOR", editor), ("PATH", tmp_path), ("TMPDIR", tmp_path)):
        monkeypatch.setitem(two.environment, name, str(value))
    letter = two.letters("picky")[0]["id"]
    code = ExitCode.USAGE if "EDITOR" in says or "'vi'" in says else ExitCode.FAILED
    out, errors = two.run("dead", "redrive", letter, "--editor", "--because", "x", code=code)
    assert out == ""
    assert says in errors
    files = list(tmp_path.glob("callboard-*.json"))
    assert [str(path) in errors for path in files] == [True] * is_kept
    assert len(two.letters("picky")) == 2  # the list leaves those out that were published


@pytest.mark.parametrize(
    ("answer", "says", "code"),
    [
        (b"n\n", "nothing was published", ExitCode.FAILED),
        (signal.SIGINT, "interrupted; nothing was published", ExitCode.INTERRUPTED),
    ],
)
def test_many_letters_are_published_only_if_the_user_agrees(
    two: Dead, answer: bytes | signal.Signals, says: str, code: ExitCode
) -> None:
    assert says in answered(two, answer, code)
    assert len(two.letters("picky")) == 2


@pytest.mark.parametrize("options", [("list",), ("list", "--json"), ("show",)])
def test_a_reader_that_has_enough_is_no_failure(two: Dead, options: tuple[str, ...]) -> None:
    wanted = [two.letters("picky")[0]["id"]] if options == ("show",) else []
    process = two.start("dead", *options, *wanted)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (ExitCode.OK, False), errors


def test_one_letter_edited_and_then_both_agreed_to(
    two: Dead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text("""#!/bin/sh\nprintf '{"input": "good"}' > "$1"\n""")
    editor.chmod(0o755)
    letter = two.letters("picky")[0]["id"]
    for name, value in (("VISUAL", editor), ("EDITOR", "false"), ("TMPDIR", tmp_path)):
        monkeypatch.setitem(two.environment, name, str(value))
    told = two.json("dead", "redrive", letter, "--editor", "--because", "x", "--json")
    assert (told["letter"], told["status"]) == (letter, "redriven")
    assert list(tmp_path.glob("callboard-*.json")) == []
    assert two.json("replay", told["place"], "--limit", "1")["value"] == {"input": "good"}
    assert len(two.letters("picky")) == 1
    assert "2 letters published again" in answered(two, b"y\n", ExitCode.OK, "--again")
    assert two.letters("picky") == []


def answered(dead: Dead, answer: bytes | signal.Signals, code: ExitCode, *options: str) -> str:
    """Redrive all on a terminal, and answer the question; gives what was on the terminal."""
    terminal, its = pty.openpty()
    command = (*COMMAND, "dead", "redrive", "--agent", "picky", "--because", "x", *options)
    process = subprocess.Popen(
        command, cwd=dead.folder, env=dead.environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    seen, asked = b"", False
    try:
        while chunk := read_terminal(terminal):
            seen += chunk
            if not asked and b"letters again? [y/N]" in seen:
                asked = True
                if isinstance(answer, bytes):
                    os.write(terminal, answer)
                else:
                    process.send_signal(answer)
        assert process.wait(60) == code, seen
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return seen.decode()


def read_terminal(terminal: int) -> bytes:
    """Give what comes next; nothing when its last process ended."""
    ready, _, _ = select.select([terminal], [], [], 60)
    assert ready, "nothing happens on the terminal"
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so where others give nothing
        return b""


def test_what_is_not_there(kafka: str, tmp_path: Path) -> None:
    commands = Commands(kafka, tmp_path)
    commands.run("dead", "list", "--agent", "nobody_here", code=ExitCode.NOT_FOUND)
    _, errors = commands.run("dead", "redrive", "ffffffff", "--because", "x", code=ExitCode.NOT_FOUND)
    assert "no dead letter 'ffffffff'" in errors
