"""The command line without a broker: quick help, clear messages, and what is shown of what was found."""

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.core.base import ErrorDetail
from agents.core.errors import RepositoryError
from agents.core.task import ArtifactReference
from streams.command_line import output, publish, run
from streams.command_line.following import PARKED_SECONDS, follow, watched
from streams.command_line.history_view import (
    artifact_of,
    as_json,
    duration,
    print_report,
    print_tree,
    results_json,
    size,
    status_of,
)
from streams.command_line.log_search import Search, search_starts
from streams.command_line.output import CommandError, ExitCode, clean, one_line
from streams.command_line.record_json import convenient, exact, iso
from streams.command_line.task_event import Order, new_task
from streams.command_line.times import moment, seconds
from streams.envelope import RESULT, TASK, Envelope, encode, record_digest, task_id
from streams.history import History
from streams.kafka.local_broker import StartError
from streams.kafka.publisher import partition_for
from streams.payloads import ResultPayload
from streams.topics import MAX_RECORD_BYTES, Topics
from tests.unit.worker_world import START, TIME, FakeRecord

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "up",
    "status",
    "down",
    "run",
    "publish",
    "tail",
    "show",
    "replay",
    "demo",
    "argocd-status",
    "dead",
    "validate-manifests",
    "report-tests",
)
HEAVY = (
    "aiokafka",
    "faststream",
    "anthropic",
    "pydantic",
    "pydantic_settings",
    "jgo",
    "structlog",
    "asyncio",
)
# Nothing listens on port 1, and connecting to it is refused at once.
NOWHERE = {"CALLBOARD_BOOTSTRAP_SERVERS": "127.0.0.1:1"}


def callboard(
    *arguments: str | Path, given: bytes = b"", folder: Path = ROOT, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own, as users do."""
    ended = subprocess.run(
        [sys.executable, "-m", "streams.command_line", *map(str, arguments)],
        input=given,
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        timeout=60,
    )
    return subprocess.CompletedProcess(
        ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode()
    )


def check(ended: "subprocess.CompletedProcess[str]", code: ExitCode, *said: str) -> None:
    """Expect an exit code, nothing on stdout, and one message on stderr that says all of `said`."""
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    for words in said:
        assert words in ended.stderr


def refused(code: ExitCode, *said: str) -> Any:
    """Expect a CommandError."""
    return pytest.raises(CommandError, match=".*".join(said), check=lambda error: error.code == code)


def event(topic: str, identity: str, payload: Any, *causes: str, offset: int = 0, **more: str) -> FakeRecord:
    kind = TASK if topic.startswith("tasks.") else RESULT
    envelope = Envelope(identity, "/test", kind, "w", round="root", **more)
    headers = encode(envelope, causes=[(cause, "0" * 64) for cause in causes])
    return FakeRecord(topic, offset, json.dumps(payload).encode(), tuple(headers), timestamp=TIME + offset)


def history(*records: FakeRecord) -> History:
    found = History("w", Topics())
    for record in records:
        found.add(record)
    return found


def result(agent: str, **more: Any) -> dict[str, Any]:
    return {"agent": agent, "status": "completed"} | more


def artifact(name: str, topic: str, offset: int = 0) -> dict[str, Any]:
    reference = ArtifactReference(
        name=name, sha256="0" * 64, size=2048, topic=topic, partition=0, offset=offset
    )
    return reference.model_dump()


DIAMOND = (
    event("tasks.a", "root", {"input": 1, "artifacts": [artifact("repository", "artifacts.a")]}),
    event(
        "results.a",
        "1",
        result(
            "a",
            followers=["b", "c"],
            artifacts=[artifact("repository", "artifacts.a"), artifact("patch", "artifacts.a", 1)],
        ),
        "root",
        offset=1,
    ),
    event("results.b", "2", result("b", followers=["d"], verdict="fine"), "1", offset=2),
    event("results.c", "3", result("c", followers=["d"]), "1", offset=3),
    event("results.d", "4", result("d", output={"report": "# Good"}), "2", "3", offset=4, llm="off"),
)


def printed(found: History, show: Any, *, terminal: bool = False) -> str:
    file = io.StringIO()
    show(Console(file=file, force_terminal=terminal, width=120, markup=False, highlight=False), found)
    return file.getvalue()


# Help --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((each,) for each in COMMANDS)])
def test_help_imports_nothing_heavy_and_so_is_quick(command: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from streams.command_line import program\n"
        f"code = program({[*command, '--help']!r}, standalone_mode=False)\n"
        f"print('|', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    _, heavy = ended.stdout.rsplit("|", 1)
    # typer itself takes pydantic to read a command's parameters, which is not for us to change.
    assert json.loads(heavy.replace("'", '"')) in ([], ["pydantic"] if command else [])


def test_help_names_every_command_and_exit_code() -> None:
    ended = callboard("--help")
    assert ended.returncode == 0
    assert all(f"\n  {command} " in ended.stdout for command in COMMANDS)
    assert all(f"\n      {code.value} " in ended.stdout for code in ExitCode)


@pytest.mark.parametrize("command", [*COMMANDS, "dead list", "dead show", "dead redrive"])
def test_every_command_shows_an_example(command: str) -> None:
    ended = callboard(*command.split(), "--help")
    assert "Example:\n" in ended.stdout
    assert f"    callboard {command}" in ended.stdout.split("Example:")[1]


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "a", "x"),
        ("tail",),
        ("show", "0199"),
        ("demo", "--llm", "off"),
        ("replay", "tasks.a"),
        ("replay", "--workflow", "w123"),
        ("dead", "list"),
        ("dead", "show", "0199"),
        ("dead", "redrive", "0199", "--because", "fixed"),
    ],
)
def test_without_kafka_every_command_says_so(arguments: Sequence[str]) -> None:
    ended = callboard(*arguments, **NOWHERE)
    check(ended, ExitCode.UNREACHABLE, "no Kafka broker answers at 127.0.0.1:1", "is set to that: correct it")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("publish", "a"), "give the input once"),
        (("publish", "a", "x", "--file", __file__), "give the input once"),
        (("publish", "a", "x", "--timeout", "1"), "--wait"),
        (("publish", "a", "{", "--input-json"), "no JSON: Expecting"),
        (("publish", "a", "--file", "no such file"), "does not exist"),
        (("show", "w", "--json", "--report"), "give one of"),
        (("replay",), "give either"),
        (("replay", "tasks.a", "--workflow", "w"), "give either"),
        (("replay", "a//b"), "no range of records"),
        (("tail", "--from", "yesterday"), "is no time"),
        (("run", "nothing"), "give MODULE:APP"),
        (("frobnicate",), "No such command"),
        (("dead", "list", "--reason", "bad luck"), "'bad luck' is no reason"),
        (("dead", "list", "--since", "yesterday"), "is no time"),
        (("dead", "redrive", "--because", "x"), "say which letters"),
        (("dead", "redrive", "0199", "--all", "--because", "x"), "say which letters"),
        (("dead", "redrive", "0199"), "--because TEXT"),
        (("dead", "redrive", "--all", "--because", " "), "--because TEXT"),
        (("dead", "redrive", "0199", "0198", "--edit", "-", "--because", "x"), "only one letter"),
        (("dead", "redrive", "0199", "--edit", "no such file", "--because", "x"), "cannot read no such file"),
        (("dead", "redrive", "0199", "--edit", "-", "--editor", "--because", "x"), "give one of"),
    ],
)
def test_wrong_usage(arguments: Sequence[str], said: str) -> None:
    check(callboard(*arguments, **NOWHERE), ExitCode.USAGE, said)


def test_a_wrong_setting_is_named() -> None:
    check(callboard("status", CALLBOARD_KAFKA_PORT="x"), ExitCode.USAGE, "CALLBOARD_KAFKA_PORT='x'")


def test_debugging_shows_the_stack() -> None:
    ended = callboard("tail", "--from", "yesterday", **NOWHERE, CALLBOARD_DEBUG="1")
    assert ended.returncode == ExitCode.USAGE
    assert "Traceback" in ended.stderr


def test_the_demo_needs_a_checkout(tmp_path: Path) -> None:
    check(callboard("demo", folder=tmp_path, **NOWHERE), ExitCode.USAGE, "no source checkout")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("x", ExitCode.TIMED_OUT), ExitCode.TIMED_OUT),
        (RepositoryError("x"), ExitCode.USAGE),
        (StartError("x"), ExitCode.UNREACHABLE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    @output.reported
    def command() -> None:
        raise error

    with pytest.raises(output.typer.Exit) as caught:
        command()
    assert caught.value.exit_code == code
    assert capsys.readouterr().err


def test_what_nobody_expected_is_raised() -> None:
    @output.reported
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()


def test_what_an_event_holds_does_not_steer_the_terminal() -> None:
    assert (
        clean("a\x1b[31mb\x07\u202ec\td\ne")
        == "a\N{REPLACEMENT CHARACTER}[31mb" + "\N{REPLACEMENT CHARACTER}" * 2 + "c\td\ne"
    )
    assert one_line("a\n  b" * 100, 10) == "a ba ba b…"


def test_json_does_not_steer_the_terminal_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a\x9b2J": ["\x1b[31m", "\x7f", "\u202e", "é\n"]}
    output.write_json(value, indent=2)
    printed = capsys.readouterr().out
    assert clean(printed) == printed
    assert json.loads(printed) == value
    assert "é" in printed


# run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        ("", "no_such_module_at_all:app", "there is no module 'no_such_module_at_all'"),
        ("", "loaded.sub:app", "there is no module 'loaded.sub'"),
        (
            "import not_installed_here",
            "loaded:app",
            r"ModuleNotFoundError: .*not_installed_here.*loaded.py:1",
        ),
        ("", "loaded.py:app", r"did you mean loaded:app\?"),
        ("", "./shop/loaded.py:app", r"did you mean shop\.loaded:app\?"),
        ("", "shop/loaded:app", r"did you mean shop\.loaded:app\?"),
        ("1/0", "loaded:app", r"ZeroDivisionError.*loaded.py:1"),
        ("def (", "loaded:app", "SyntaxError"),
        ("app = 1", "loaded:app", "no AgentApp, but of type int"),
        ("", "loaded:app", "module 'loaded' has no 'app'"),
        (
            "from agents.core import Workflow\napp = Workflow('w')",
            "loaded:app",
            r"make one of it: app = AgentApp",
        ),
    ],
)
def test_what_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loaded", raising=False)
    (tmp_path / "loaded.py").write_text(source)
    with refused(ExitCode.USAGE, said):
        run.load(name)
    sys.modules.pop("loaded", None)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("loaded.py:app", (), "'loaded.py' is a file, not the name of a module; did you mean loaded:app?"),
        ("loaded.py:app", ("--workers", "2"), "did you mean loaded:app?"),
        ("loaded", ("--workers", "2"), "give MODULE:APP"),
        ("no_such_module_at_all.sub:app", ("--workers", "2"), "there is no module 'no_such_module_at_all'"),
        (".loaded:app", ("--workers", "2"), "'.loaded' is no absolute name of a module"),
        ("loaded:app", (), "ZeroDivisionError"),
    ],
)
def test_no_kafka_is_started_for_what_is_no_application(
    name: str, more: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CALLBOARD_BOOTSTRAP_SERVERS", raising=False)
    file = tmp_path / "loaded.py"
    file.write_text("1/0")
    # A local Kafka with a file for a folder cannot be started, and that would be the error.
    check(callboard("run", name, *more, folder=tmp_path, CALLBOARD_HOME=str(file)), ExitCode.USAGE, said)


def test_no_kafka_is_started_for_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALLBOARD_BOOTSTRAP_SERVERS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for more in ((), ("--workers", "1")):
            ended = callboard(
                *("run", "examples.hello:app", "--llm", "off", "--port", str(port), *more),
                CALLBOARD_HOME=__file__,
            )
            check(ended, ExitCode.USAGE, f"port {port} of 127.0.0.1 cannot be used")


def test_an_application_elsewhere_in_the_module_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_LLM", "off")
    with refused(ExitCode.USAGE, "did you mean examples.hello:app"):
        run.load("examples.hello:application")


def test_a_worker_imports_no_more_than_it_needs_and_looks_for_no_garbage_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text("""
import gc, sys
from streams import AgentApp
print(gc.isenabled(), [name for name in sys.modules if "local_broker" in name], file=sys.stderr)
""")
    nowhere = NOWHERE["CALLBOARD_BOOTSTRAP_SERVERS"]
    ended = callboard(
        "run", "loaded:app", folder=tmp_path, CALLBOARD_LLM="off", CALLBOARD_BOOTSTRAP_SERVERS=nowhere
    )
    check(ended, ExitCode.USAGE, "False []", "module 'loaded' has no 'app'")


# publish -----------------------------------------------------------------------------------------


class Log:
    """A log that a test has written; afterwards nothing comes, a second at a time."""

    def __init__(self, *records: FakeRecord) -> None:
        self.now = 0.0
        self.records = records

    async def follow(self, _: Any) -> AsyncIterator[FakeRecord | None]:
        for record in self.records:
            yield record
        while self.now < 1000:
            self.now += 1
            yield None

    async def followed(self, limit: float | None = None) -> History:
        found = history()
        with watched() as view:
            await follow(self, {}, found, view, limit, clock=lambda: self.now)  # type: ignore[arg-type]
        return found


def parked(agent: str, identity: str, *causes: str, **more: Any) -> FakeRecord:
    error = {"type": "in_doubt", "message": "step 'pay' was begun once"}
    body = result(agent, status="parked", error=error, run="run-7", **more)
    return event(f"results.{agent}", identity, body, *causes, offset=2)


async def test_waiting_ends_when_a_run_is_parked(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(DIAMOND[0], parked("a", "1", "root", followers=["b"]))
    found = await log.followed()
    assert (log.now, status_of(found), found.succeeded) == (0, "parked", False)
    said = " ".join(capsys.readouterr().err.split())
    assert "a is parked (run run-7) and does not go on: in_doubt: step 'pay' was begun once" in said
    assert "callboard publish a ..." in said
    assert "no longer waiting for what can only come after that: b" in said


async def test_a_join_beside_a_parked_run_gets_some_time(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(*DIAMOND[:3], parked("c", "3", "1", followers=["d"]))
    assert status_of(await log.followed()) == "parked"
    assert log.now == PARKED_SECONDS + 1
    assert "no longer waiting for what may be waiting for that: d" in " ".join(
        capsys.readouterr().err.split()
    )


async def test_whoever_works_beside_a_parked_run_is_waited_for() -> None:
    log = Log(*DIAMOND[:2], parked("c", "3", "1", followers=["d"]))
    with refused(ExitCode.TIMED_OUT, "waiting for b, c, d"):
        await log.followed(limit=500)


def test_a_file_with_more_than_a_record_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * (MAX_RECORD_BYTES + 1))
    check(callboard("publish", "a", "--file", large, **NOWHERE), ExitCode.USAGE, "2,097,152 bytes")


@pytest.mark.parametrize(
    ("given", "said"), [(b"\xff", "no UTF-8|not UTF-8"), (b"x" * (MAX_RECORD_BYTES + 1), "2,097,152 bytes")]
)
def test_what_stdin_cannot_bring(given: bytes, said: str) -> None:
    ended = callboard("publish", "a", "-", given=given, **NOWHERE)
    check(ended, ExitCode.USAGE)
    assert any(words in ended.stderr for words in said.split("|"))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (".", (Path(), "", "")),
        (".@main", (Path(), "", "main")),
        ("no/such/folder", (Path("no/such/folder"), "", "")),
        (f"https://example.org/shop.git@{'1' * 40}", (None, "https://example.org/shop.git", "1" * 40)),
        (f"git@example.org:x/shop.git@{'1' * 64}", (None, "git@example.org:x/shop.git", "1" * 64)),
    ],
)
def test_where_a_repository_is(wanted: str, expected: tuple[Path | None, str, str]) -> None:
    assert publish.repository_source(wanted) == expected


@pytest.mark.parametrize(
    "wanted",
    [
        "https://example.org/shop.git",
        "https://example.org/shop.git@main",
        "git@example.org:x/shop.git",
        f"https://example.org/shop.git@{'g' * 40}",
    ],
)
def test_an_address_needs_a_whole_commit(wanted: str) -> None:
    with refused(ExitCode.USAGE, "full hash"):
        publish.repository_source(wanted)


def test_a_password_does_not_get_into_the_log() -> None:
    with refused(ExitCode.USAGE, "password") as caught:
        publish.repository_source(f"https://me:secret@example.org/shop.git@{'1' * 40}")
    assert "secret" not in str(caught.value)


COUNTS = {"tasks.a": 6, "results.a": 6, "artifacts.a": 6, "tasks.b": 6}


def test_a_task_has_its_place_from_its_key() -> None:
    task = new_task(Order("a", "x", key="customer 7"), COUNTS, Topics())
    assert (task.topic, task.partition, task.key) == (
        "tasks.a",
        partition_for(b"customer 7", 6),
        b"customer 7",
    )
    alone = new_task(Order("a", "x"), COUNTS, Topics())
    assert alone.key == alone.id.encode()
    assert alone.partition == partition_for(alone.key, 6)
    assert new_task(Order("a", "x", key=""), COUNTS, Topics()).key == b""


@pytest.mark.parametrize("agent", ["c", "A", "../a", ""])
def test_an_agent_that_is_not_there(agent: str) -> None:
    with refused(ExitCode.NOT_FOUND, "there are: a, b", "callboard run"):
        new_task(Order(agent, "x"), COUNTS, Topics())


def test_no_agent_at_all() -> None:
    with refused(ExitCode.NOT_FOUND, "there is none yet"):
        new_task(Order("a", "x"), {}, Topics())


# Searching ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", TIME - 600_000),
        ("2h", TIME - 7_200_000),
        ("3d", TIME - 3 * 86_400_000),
        ("45s", TIME - 45_000),
        ("2026-01-31T12:00:00Z", TIME),
        ("2026-01-31T13:00:00+01:00", TIME),
        ("1969-12-31T00:00:00Z", 0),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert moment(text, now=START) == expected


def test_a_time_without_a_zone_is_the_clock_on_the_wall() -> None:
    assert moment("2026-01-31T12:00:00") == int(datetime(2026, 1, 31, 12).astimezone().timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "yesterday", "10", "m", "10w", "999999999d"])
def test_no_times(text: str) -> None:
    with refused(ExitCode.USAGE, "is no time"):
        moment(text, now=START)


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1h", 3600), ("2d", 172_800)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "0s", "-1m", "1.5h", "10 m", "soon"])
def test_no_durations(text: str) -> None:
    with refused(ExitCode.USAGE, "is no duration"):
        seconds(text)


def test_where_a_search_begins() -> None:
    identity = task_id()
    at = int(identity.replace("-", "")[:12], 16)
    assert search_starts(identity) == [at]
    first, everywhere = search_starts(identity[:13])
    assert first == at
    assert everywhere is None
    first, _ = search_starts(identity[:6])
    assert first is not None
    assert first <= at
    assert search_starts("order-17") == [None]
    assert search_starts("ffffffff") == [None]
    with refused(ExitCode.USAGE, "too short"):
        search_starts("019")


def test_a_search_prefers_the_exact_id() -> None:
    search = Search("order-1")
    for number in range(40):
        search.take(FakeRecord(headers=(("ce_correlationid", f"order-1{number}".encode()),)))
    search.take(FakeRecord(headers=(("ce_correlationid", b"order-1"),)))
    search.take(FakeRecord(headers=(("ce_correlationid", b"other"),)))
    assert search.searched == 42
    assert search.only(["tasks.a"]) == "order-1"


def test_a_search_for_the_beginning_of_many_names_some() -> None:
    search = Search("order")
    for number in range(40):
        search.take(FakeRecord(headers=(("ce_correlationid", f"order-{number}".encode()),)))
    with refused(ExitCode.USAGE, "order-0", "and more"):
        search.only(["tasks.a"])


def test_a_search_that_finds_nothing_says_where_it_looked() -> None:
    with refused(ExitCode.NOT_FOUND, "none of 0 records in tasks.a, results.a"):
        Search("order").only(["tasks.a", "results.a"])


# Showing -----------------------------------------------------------------------------------------


def test_the_tree() -> None:
    assert printed(history(*DIAMOND), print_tree) == (
        "workflow w  completed  2026-01-31T12:00:00.000Z  without a language model\n"
        "task for a  tasks.a/0/0\n"
        "artifacts: repository (2 KiB)\n"
        "└── a  completed  results.a/0/1  +1 ms\n"
        "    artifacts: patch (2 KiB)\n"
        "    ├── b  completed (fine)  results.b/0/2  +2 ms\n"
        "    └── c  completed  results.c/0/3  +3 ms\n"
        "        └── d  completed  results.d/0/4  +4 ms\n"
        "            answers b and c\n"
    )


def test_the_tree_of_what_is_not_finished() -> None:
    shown = printed(history(*DIAMOND[:3]), print_tree)
    assert "running" in shown
    assert "    ├── c  no result yet\n" in shown or "    └── c  no result yet\n" in shown
    assert shown.endswith("waiting for c, which follows a\nwaiting for d, which follows b\n")


def test_the_tree_of_a_failure() -> None:
    problem = ErrorDetail(type="repository", message="no\x1b[31m such").model_dump()
    failed = event("results.a", "1", result("a", status="failed", error=problem), "root", offset=1)
    shown = printed(history(DIAMOND[0], failed), print_tree)
    assert "workflow w  failed" in shown
    assert "\n    repository: no\N{REPLACEMENT CHARACTER}[31m such\n" in shown


def test_the_tree_says_what_was_tried_and_published_again() -> None:
    why = (("ce_redriveof", b"letter-1"), ("ce_redrivereason", b"a typing error\x1b[31m"))
    task = event("tasks.b", "2", {"input": "x"}, offset=5)
    task.headers += why
    done = event("results.b", "3", result("b", attempts=3), "2", offset=6)
    found = history(DIAMOND[0], task, done)
    shown = printed(found, print_tree)
    assert "repeats dead letter letter-1: a typing error\N{REPLACEMENT CHARACTER}[31m\n" in shown
    assert "b  completed  results.b/0/6  +6 ms  3 attempts\n" in shown
    events = as_json(found)["events"]
    assert [it["redriven"] for it in events if it["redriven"]] == [
        {"letter": "letter-1", "reason": "a typing error\x1b[31m"}
    ]
    assert [it["attempts"] for it in events] == [None, None, 3]


def test_the_tree_of_what_is_odd() -> None:
    lost = event("results.b", "2", result("b"), "gone", offset=1)
    again = FakeRecord(lost.topic, 9, lost.value, lost.headers, timestamp=TIME + 9)
    unreadable = FakeRecord("results.c", 2, b"{", event("results.c", "3", {}, "root").headers)
    circle = [
        event("results.e", "5", result("e"), "6", offset=5),
        event("results.f", "6", result("f"), "5", offset=6),
    ]
    shown = printed(history(DIAMOND[0], lost, again, unreadable, *circle), print_tree)
    assert "answers gone, not found in the log" in shown
    assert "published more than once, counted once: results.b/0/9" in shown
    assert "cannot be read: value: Invalid JSON" in shown
    assert "in a circle:\ne  completed" in shown


def test_a_circle_alone() -> None:
    shown = printed(
        history(event("results.e", "5", result("e"), "6"), event("results.f", "6", result("f"), "5")),
        print_tree,
    )
    assert "e  completed" in shown
    assert "f  completed" in shown


def test_parked() -> None:
    parked = event("results.a", "1", result("a", status="parked"), "root", offset=1)
    found = history(DIAMOND[0], parked)
    assert status_of(found) == "parked"
    assert "waiting for a: parked, a person has to decide" in printed(found, print_tree)


@pytest.mark.parametrize(
    ("output_", "expected"),
    [
        ({"report": "# Good\n\x1b"}, "# Good\n\x1b\n"),
        ("text", "text\n"),
        ({"a": "ü"}, '{\n  "a": "ü"\n}\n'),
        (None, "null\n"),
    ],
)
def test_the_report_in_a_file_is_as_it_is(
    output_: Any, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = history(DIAMOND[0], event("results.a", "1", result("a", output=output_), "root", offset=1))
    print_report(Console(), found)
    assert capsys.readouterr().out == expected


def test_the_report_on_a_terminal_is_rendered_and_clean() -> None:
    found = history(
        DIAMOND[0], event("results.a", "1", result("a", output={"report": "**x**\x07"}), "root", offset=1)
    )
    shown = printed(found, print_report, terminal=True)
    assert "**" not in shown
    assert "\x07" not in shown


def test_json_of_a_workflow() -> None:
    told = as_json(history(*DIAMOND))
    assert (told["workflow"], told["status"], told["expected"], told["duplicates"]) == (
        "w",
        "completed",
        [],
        [],
    )
    assert [each["agent"] for each in told["events"]] == ["a", "a", "b", "c", "d"]
    assert told["events"][4]["causes"] == ["2", "3"]
    json.dumps(told)
    leaves = [(each["agent"], each["leaf"], each["place"]) for each in results_json(history(*DIAMOND))]
    assert leaves[0] == ("a", False, "results.a/0/1")
    assert leaves[3] == ("d", True, "results.d/0/4")


def test_the_latest_artifact_of_a_name_counts() -> None:
    assert artifact_of(history(*DIAMOND), "patch").offset == 1
    with refused(ExitCode.NOT_FOUND, "it has: patch, repository"):
        artifact_of(history(*DIAMOND), "report")


def test_numbers_for_people() -> None:
    assert [size(1), size(2048), size(3 * 1024**2)] == ["1 B", "2 KiB", "3.0 MiB"]
    assert [duration(0.0123), duration(1.25)] == ["12 ms", "1.2 s"]


# Records -----------------------------------------------------------------------------------------


def test_a_record_exactly() -> None:
    record = FakeRecord(headers=(("a", b"1"), ("a", b"\xff")), value=b'{"x":1}')
    assert exact(record) == {
        "topic": "tasks.a",
        "partition": 0,
        "offset": 0,
        "timestamp": "2026-01-31T12:00:00.000Z",
        "key": "key",
        "headers": [["a", "1"], ["a", {"base64": "/w=="}]],
        "value": {"x": 1},
        "digest": record_digest(record),
    }
    assert convenient(record)["headers"] == {"a": "1"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (b"", {"base64": ""}),
        (b"\xff", {"base64": "/w=="}),
        (b"NaN", {"base64": "TmFO"}),
        (b'"text"', "text"),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_values(value: bytes | None, expected: Any) -> None:
    assert exact(FakeRecord(value=value))["value"] == expected


def test_a_value_nested_too_deep_is_no_json() -> None:
    assert set(exact(FakeRecord(value=b"[" * 100_000))["value"]) == {"base64"}


def test_any_timestamp() -> None:
    assert iso(TIME) == "2026-01-31T12:00:00.000Z"
    assert iso(10**18) == "1000000000000000000 ms"
    assert iso(-1) == "1969-12-31T23:59:59.999Z"


def test_a_payload_of_ours_is_told_as_it_is() -> None:
    payload = ResultPayload(agent="a", status="completed", output=[1]).model_dump(mode="json")
    found = history(DIAMOND[0], event("results.a", "1", payload, "root", offset=1))
    (told,) = results_json(found)
    assert payload.items() <= told.items()
