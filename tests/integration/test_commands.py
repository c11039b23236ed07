"""The commands as users run them, each in a process of its own, on the real local Kafka."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.command_line.output import ExitCode
from streams.envelope import task_id
from streams.kafka.connection import Connection
from streams.kafka.publisher import OwnPublisher

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "streams.command_line")
SLOW = """
import asyncio
from agents.core import Agent, AgentResult, AgentStatus, Workflow
from streams import AgentApp


class SlowAgent(Agent[float]):
    async def execute(self, input_data):
        if input_data < 0:
            raise ValueError("no time to wait")
        if input_data > 1000:
            return AgentResult(status=AgentStatus.PARKED)
        await asyncio.sleep(input_data)
        return AgentResult(status=AgentStatus.COMPLETED, output="waited")


class AfterwardsAgent(Agent):
    async def execute(self, input_data):
        return AgentResult(status=AgentStatus.COMPLETED, output={"report": f"# {input_data}"})


workflow = Workflow("slow")
slow = workflow.step(SlowAgent())
workflow.step(AfterwardsAgent(), after=slow)
app = AgentApp(workflow)
"""


class Commands:
    """Runs commands against one Kafka, in one folder."""

    def __init__(self, servers: str, folder: Path) -> None:
        self.connection = Connection.plaintext(servers)
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CALLBOARD_BOOTSTRAP_SERVERS": servers,
            "CALLBOARD_HOME": str(folder),
            "CALLBOARD_LLM": "off",
        }

    def start(self, *arguments: str, folder: Path | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, code: ExitCode = ExitCode.OK, folder: Path | None = None
    ) -> tuple[str, str]:
        """Run a command to its end, and expect its exit code."""
        process = self.start(*arguments, folder=folder)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        return out, errors

    def json(self, *arguments: str, code: ExitCode = ExitCode.OK) -> Any:
        return json.loads(self.run(*arguments, code=code)[0])

    def lines(self, *arguments: str) -> list[Any]:
        return [json.loads(line) for line in self.run(*arguments)[0].splitlines()]

    @contextmanager
    def worker(self, application: str, folder: Path | None = None) -> "Iterator[subprocess.Popen[str]]":
        """Run an application while the block lasts; it must end well by itself then."""
        process = self.start("run", application, "--port", "0", "--log-level", "error", folder=folder)
        try:
            assert process.stdout is not None
            address = process.stdout.readline()
            assert address.startswith("http://127.0.0.1:"), process.communicate(timeout=10)[1]
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def commands(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    folder = tmp_path_factory.mktemp("commands")
    (folder / "slow_app.py").write_text(SLOW)
    # The same once more under other names, for a test that must be the only one with a worker.
    alone = SLOW.replace("Slow", "Alone").replace("slow", "alone").replace("Afterwards", "Lastly")
    (folder / "alone_app.py").write_text(alone)
    return Commands(kafka, folder)


@pytest.fixture(scope="module")
def hello(commands: Commands) -> Iterator[Commands]:
    with commands.worker("examples.hello:app", folder=ROOT):
        yield commands


@pytest.fixture(scope="module")
def slow(commands: Commands) -> Iterator[Commands]:
    with commands.worker("slow_app:app"):
        yield commands


@pytest.fixture(scope="module")
def published(hello: Commands) -> dict[str, Any]:
    """One finished workflow."""
    told: dict[str, Any] = hello.json("publish", "my_custom", "Say hello", "--wait", "--json", "--key", "k")
    return told


# publish -----------------------------------------------------------------------------------------


def test_publish_and_wait(published: dict[str, Any]) -> None:
    assert published["status"] == "completed"
    assert published["workflow"] == published["id"]
    first, last = published["results"]
    assert first["output"] == "I was asked: Say hello"
    assert (last["agent"], last["leaf"]) == ("word_count", True)
    assert last["output"]["words"] == 5
    # Partition numbers are kept.
    assert {place.split("/")[1] for place in (first["place"], last["place"])} == {str(published["partition"])}


def test_publish_prints_the_id_and_nothing_else(hello: Commands) -> None:
    out, errors = hello.run("publish", "my_custom", "x", "--workflow", "hello", "--deadline", "60")
    assert len(out.split()) == 1
    assert out.strip() in errors


def test_waiting_in_a_pipe_is_told_in_lines(hello: Commands) -> None:
    out, errors = hello.run("publish", "my_custom", "x y", "--wait")
    assert json.loads(out) == {"text": "I was asked: x y", "words": 5}
    told = [line.split(" (")[0] for line in errors.splitlines()[1:-1]]
    assert told == ["my_custom: working", "my_custom: done", "word_count: working", "word_count: done"]


def test_a_failed_workflow_is_exit_code_1(slow: Commands) -> None:
    told = slow.json("publish", "--input-json", "--wait", "--json", "slow", "--", "-1", code=ExitCode.FAILED)
    assert told["status"] == "failed"
    assert [each["error"]["type"] for each in told["results"]] == ["ValueError", "upstream_failed"]
    _, errors = slow.run("publish", "--wait", "slow", "no number", code=ExitCode.FAILED)
    assert "afterwards failed: upstream_failed: slow failed" in errors


def test_waiting_for_what_is_parked_ends_with_exit_code_1(slow: Commands) -> None:
    out, errors = slow.run("publish", "slow", "1001", "--input-json", "--wait", code=ExitCode.FAILED)
    assert out == ""
    assert "slow is parked (run " in errors
    assert "no longer waiting for what can only come after that: afterwards" in errors


def test_waiting_too_long_is_exit_code_5(slow: Commands) -> None:
    out, errors = slow.run(
        "publish", "slow", "5", "--input-json", "--wait", "--timeout", "1", code=ExitCode.TIMED_OUT
    )
    assert out == ""
    assert "waiting for slow; it goes on without you, look again with: callboard show" in errors


def test_ctrl_c_while_waiting_says_how_to_look_again(slow: Commands) -> None:
    process = slow.start("publish", "slow", "4", "--input-json", "--wait")
    assert process.stderr is not None
    assert "published to" in process.stderr.readline()
    assert "slow: working" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=10)
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, "")
    assert errors.startswith("the workflow goes on without you; look with: callboard show ")
    workflow = errors.split()[-1]
    deadline = time.monotonic() + 30
    while slow.json("show", workflow, "--json")["status"] != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_an_unknown_agent_is_exit_code_4(hello: Commands) -> None:
    out, errors = hello.run("publish", "nobody", "x", code=ExitCode.NOT_FOUND)
    assert out == ""
    assert "no agent 'nobody'" in errors
    assert "my_custom" in errors


def test_the_largest_input_and_one_byte_more(hello: Commands, tmp_path: Path) -> None:
    for spare, code in ((0, ExitCode.OK), (-1, ExitCode.USAGE)):
        frame = len(b'{"input":"","repository":null,"artifacts":[]}')
        (tmp_path / "input").write_text("x" * (2 * 1024 * 1024 - frame - spare))
        _, errors = hello.run("publish", "my_custom", "--file", str(tmp_path / "input"), code=code)
        assert ("has 2,097,153 bytes" in errors) == (code == ExitCode.USAGE)


def test_a_repository_travels_with_its_task(hello: Commands, tmp_path: Path) -> None:
    repository = tmp_path / "shop"
    repository.mkdir()
    _, errors = hello.run("publish", "my_custom", "x", "--repository", str(repository), code=ExitCode.USAGE)
    assert "no git repository" in errors
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-C", str(repository))
    (repository / "file").write_text("content")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run([*git, *arguments], check=True)
    (repository / "later").write_text("not committed")
    out, errors = hello.run("publish", "my_custom", "x", "--repository", str(repository), "--wait", "--json")
    assert "not committed, so not part of the task: later" in errors
    told = json.loads(out)
    assert told["results"][0]["root"]["repository"]["name"] == "shop"
    bundle = subprocess.run(
        [*COMMAND, "show", told["workflow"], "--artifact", "repository"],
        env=hello.environment,
        capture_output=True,
        check=True,
    ).stdout
    assert bundle.startswith(b"# v2 git bundle")
    _, errors = hello.run("show", told["workflow"], "--artifact", "patch", code=ExitCode.NOT_FOUND)
    assert "it has: repository" in errors


# show, replay, tail ------------------------------------------------------------------------------


def test_a_workflow_is_found_by_id_part_and_place(hello: Commands, published: dict[str, Any]) -> None:
    workflow = published["workflow"]
    expected, _ = hello.run("show", workflow)
    assert expected.startswith(f"workflow {workflow}  completed  hello  ")
    assert "    └── word_count  completed" in expected
    for name in (workflow[:23], published["results"][1]["place"]):
        assert hello.run("show", name)[0] == expected


def test_a_plain_task_of_any_client_is_shown_by_its_place(hello: Commands) -> None:
    async def publish() -> int:
        async with OwnPublisher(hello.connection) as publisher:
            value = b'{"input": "plain"}'
            return await publisher.send_and_wait("tasks.my_custom", 0, key=None, value=value, headers=[])

    place = f"tasks.my_custom/0/{asyncio.run(publish())}"
    deadline = time.monotonic() + 30
    while (told := hello.json("show", place, "--json"))["status"] != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert told["workflow"] == place
    assert [event["agent"] for event in told["events"]] == ["my_custom", "my_custom", "word_count"]


def test_what_does_not_exist_is_exit_code_4(hello: Commands, published: dict[str, Any]) -> None:
    assert published
    for arguments, said in (
        (("show", task_id()), "records in results."),
        (("show", "no-such-order"), "no workflow 'no-such-order'"),
        (("show", "tasks.my_custom/0/99999"), "keeps offsets"),
        (("show", "tasks.my_custom/99/0"), "none has number 99"),
        (("show", "tasks.nobody/0/0"), "no topic 'tasks.nobody'"),
        (("show", "artifacts.my_custom/0/0"), "artifacts.my_custom/0"),
        (("replay", "tasks.nobody"), "no topic"),
        (("replay", "tasks.my_custom/99"), "no partition 99"),
        (("replay", "tasks.my_custom/0/99999"), "keeps offsets"),
        (("tail", "results.nobody"), "no topic"),
    ):
        out, errors = hello.run(*arguments, code=ExitCode.NOT_FOUND)
        assert out == ""
        assert said in errors, errors


def test_replay_gives_exact_records_and_their_digests(hello: Commands, published: dict[str, Any]) -> None:
    whole = hello.lines("replay", "--workflow", published["workflow"])
    assert [record["topic"] for record in whole] == [
        "tasks.my_custom",
        "results.my_custom",
        "results.word_count",
    ]
    task, first, last = whole
    assert task["value"]["input"] == "Say hello"
    assert task["key"] == "k"
    # Each event says which bytes it answers.
    for cause, effect in ((task, first), (first, last)):
        assert dict(effect["headers"])["ce_causedigest"] == cause["digest"]
    place = f"{task['topic']}/{task['partition']}/{task['offset']}"
    assert hello.lines("replay", f"{place}-{task['offset']}") == [task]
    assert hello.lines("replay", place, "--limit", "1") == [task]
    assert task in hello.lines("replay", f"{task['topic']}/{task['partition']}")
    offsets = [(r["partition"], r["offset"]) for r in hello.lines("replay", "tasks.my_custom")]
    assert offsets == sorted(offsets)


def test_tail_shows_what_was_and_what_comes(hello: Commands, published: dict[str, Any]) -> None:
    out, _ = hello.run("tail", "tasks.my_custom", "--from", "beginning", "--limit", "1")
    assert "tasks.my_custom/" in out
    assert len(out.splitlines()) == 1
    (line,) = hello.lines("tail", "results.word_*", "--from", "1h", "--limit", "1", "--json")
    assert line["headers"]["ce_status"] == "completed"
    assert published
    process = hello.start("tail", "results.*", "--limit", "2", "--json")
    time.sleep(2)
    workflow = hello.run("publish", "my_custom", "now")[0].strip()
    out, _ = process.communicate(timeout=30)
    told = [json.loads(each)["headers"]["ce_correlationid"] for each in out.splitlines()]
    assert told == [workflow, workflow]


def test_tail_into_head_ends_quietly(hello: Commands, published: dict[str, Any]) -> None:
    assert published
    process = hello.start("tail", "--from", "beginning", "--json")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    hello.run("publish", "my_custom", "the next line finds nobody")
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 0


def test_ctrl_c_ends_tail(hello: Commands) -> None:
    process = hello.start("tail", "--from", "beginning")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (ExitCode.INTERRUPTED, "interrupted\n")


def test_no_topics_yet(commands: Commands) -> None:
    other = Commands(commands.environment["CALLBOARD_BOOTSTRAP_SERVERS"], commands.folder)
    other.environment["CALLBOARD_TOPIC_PREFIX"] = "nobodys."
    for arguments in (("tail",), ("show", "no-such-order")):
        _, errors = other.run(*arguments, code=ExitCode.NOT_FOUND)
        assert "there are no topics" in errors


# run ---------------------------------------------------------------------------------------------


def stop(process: "subprocess.Popen[str]", *signals: signal.Signals) -> tuple[int, str]:
    for number in signals:
        process.send_signal(number)
        time.sleep(0.5)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, ExitCode.INTERRUPTED)])
def test_a_worker_ends_in_an_orderly_way(slow: Commands, number: signal.Signals, code: int) -> None:
    process = slow.start("run", "slow_app:app", "--port", "0", "--log-level", "error")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://")
    ended, errors = stop(process, number)
    assert (ended, "stopping: letting running work end" in errors) == (code, True)


def test_a_second_ctrl_c_ends_a_worker_at_once_and_nothing_is_lost(commands: Commands) -> None:
    # A worker that ends like this leaves its group without a word: the others wait for its session's end.
    commands = Commands(commands.environment["CALLBOARD_BOOTSTRAP_SERVERS"], commands.folder)
    commands.environment["CALLBOARD_SESSION_TIMEOUT_MS"] = "6000"
    process = commands.start("run", "alone_app:app", "--port", "0", "--log-level", "error")
    assert process.stdout is not None
    process.stdout.readline()
    workflow = commands.run("publish", "alone", "3", "--input-json")[0].strip()
    time.sleep(1.5)
    begun = time.monotonic()
    code, errors = stop(process, signal.SIGINT, signal.SIGINT)
    assert (code, time.monotonic() - begun < 3) == (ExitCode.INTERRUPTED, True)
    assert "done again by the next worker" in errors
    assert commands.json("show", workflow, "--json")["status"] == "running"
    with commands.worker("alone_app:app"):
        deadline = time.monotonic() + 90
        while (status := commands.json("show", workflow, "--json")["status"]) != "completed":
            assert (status, time.monotonic() < deadline) == ("running", True)
            time.sleep(0.5)


def test_a_port_that_is_taken_is_said_before_anything_starts(commands: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        out, errors = commands.run("run", "slow_app:app", "--port", port, code=ExitCode.USAGE)
    assert out == ""
    assert f"port {port} of 127.0.0.1 cannot be used: Address already in use" in errors


def test_no_model_chosen_is_said_without_a_stack(commands: Commands) -> None:
    other = Commands(commands.environment["CALLBOARD_BOOTSTRAP_SERVERS"], commands.folder)
    for name in ("CALLBOARD_LLM", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        other.environment.pop(name, None)
    _, errors = other.run("run", "slow_app:app", "--port", "0", code=ExitCode.USAGE)
    assert "--llm off" in errors


# demo --------------------------------------------------------------------------------------------


def test_the_demo_from_nothing_to_a_report(commands: Commands) -> None:
    out, errors = commands.run("demo", folder=ROOT)
    assert out.startswith("# Report on `sample_shop`")
    assert "documentation  completed" in out
    assert "answers code_reviewer and testing" in out
    assert "documentation: done" in errors
    workflow = errors.split("--workflow ")[1].split()[0]
    patch, _ = commands.run("show", workflow, "--artifact", "patch")
    assert patch.startswith("diff --git ")


def test_ctrl_c_in_the_demo_stops_its_worker(commands: Commands) -> None:
    process = commands.start("demo", folder=ROOT)
    assert process.stderr is not None
    for line in process.stderr:
        if "researcher: working" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "its worker was stopped" in errors


def test_a_worker_that_cannot_start_is_shown(commands: Commands, tmp_path: Path) -> None:
    # The same files, but the application is broken.
    (tmp_path / "examples" / "sample_shop").mkdir(parents=True)
    (tmp_path / "examples" / "sample_shop" / "file").write_text("content")
    (tmp_path / "examples" / "improve_repository.py").write_text("import nothing_such")
    _, errors = commands.run("demo", folder=tmp_path, code=ExitCode.FAILED)
    assert "the worker ended with exit code 2" in errors
    assert "nothing_such" in errors
    assert "demo-worker.log" in errors
