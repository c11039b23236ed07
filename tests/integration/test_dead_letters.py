"""Dead letters on real Kafka: what an agent refuses is found, mended and published again, once."""

import json
from pathlib import Path
from typing import Any

import pytest

from streams.command_line.output import ExitCode
from tests.integration.test_commands import Commands

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


def test_what_is_not_there(kafka: str, tmp_path: Path) -> None:
    commands = Commands(kafka, tmp_path)
    commands.run("dead", "list", "--agent", "nobody_here", code=ExitCode.NOT_FOUND)
    _, errors = commands.run("dead", "redrive", "ffffffff", "--because", "x", code=ExitCode.NOT_FOUND)
    assert "no dead letter 'ffffffff'" in errors
