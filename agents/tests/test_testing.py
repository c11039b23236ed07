"""What a repository's tests can do, and what they cannot."""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import InvalidInputError
from agents.specialized import TestingAgent, sandbox
from agents.specialized.repository import bundle
from agents.specialized.sandbox import Isolation, Limits
from agents.tests.specialized_helpers import OFF, Repository, World, environment

SECRET = "sk-not-for-tests"  # noqa: S105 (it is none)
QUICK = Limits(seconds=20.0, memory=1024 * 1024 * 1024)
SLEEPER = "callboard-test-sleeper"
Outcome = dict[str, Any]


HOSTILE = {
    "test_looks.py": (
        "import os, pathlib\n"
        "def test_environment():\n"
        "    assert not [name for name in os.environ if 'KEY' in name or 'ANTHROPIC' in name]\n"
        "    assert 'callboard-' in os.environ['HOME'] and 'callboard-' in os.environ['TMPDIR']\n"
        "def test_other_processes():\n"
        "    assert len([path for path in pathlib.Path('/proc').iterdir() if path.name.isdigit()]) < 9\n"
    ),
    "test_talks.py": (
        "import socket\n"
        "def test_loopback():\n"
        "    server = socket.create_server(('127.0.0.1', 0))\n"
        "    socket.create_connection(server.getsockname(), timeout=5).close()\n"
        "    server.close()\n"
        "def test_outside():\n"
        "    socket.create_connection(('192.0.2.1', 80), timeout=0.2)\n"
    ),
    "test_takes.py": (
        "import subprocess, sys\n"
        "def test_memory():\n"
        "    assert len(bytearray(1_500_000_000))\n"
        "def test_processes():\n"
        f"    sleep = [sys.executable, '-S', '-c', 'import time; time.sleep(600)', {SLEEPER!r}]\n"
        "    subprocess.Popen(sleep)\n"
        "    subprocess.Popen(sleep, start_new_session=True)\n"
        "    subprocess.Popen(['sh', '-c', 'setsid \"$@\" & exit', 'sh', *sleep]).wait()\n"
        "def test_output():\n"
        "    print('\\x1b[31m' * 500_000)\n"
        "    assert False, '\\x1b]0;evil\\x07' + 'x' * 9_999\n"
    ),
}


@contextmanager
def isolated(how: str) -> Iterator[None]:
    """Run tests with whatever isolation this machine has, or with none."""
    found = list(sandbox._found)
    sandbox._found[:] = [Isolation((), "none: a test says so")] if how == "plain" else []
    try:
        yield
    finally:
        sandbox._found[:] = found


@pytest.fixture(scope="module", params=["isolated", "plain"])
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Run the hostile tests, with a secret in the worker's environment."""
    folder = tmp_path_factory.mktemp("hostile")
    with isolated(request.param), environment(ANTHROPIC_API_KEY=SECRET):
        return asyncio.run(outcome_of(folder, HOSTILE))


async def outcome_of(folder: Path, files: Mapping[str, str | bytes], limits: Limits = QUICK) -> Outcome:
    world = World(*await bundle(Repository(folder / "shop", files).folder))
    agent = TestingAgent(OFF, limits=limits)
    output = await world.output(agent, "do the tests pass?")
    assert output["kind"] == "tests"
    return output


async def test_outcomes_are_counted_and_placed(tmp_path: Path) -> None:
    output = await outcome_of(
        tmp_path,
        {
            "src/shop/__init__.py": "price = 1\n",
            "test_shop.py": (
                "import pytest, shop\n"
                "def test_price(): assert shop.price == 1\n"
                "class TestMore:\n"
                "    def test_wrong(self):\n"
                "        assert shop.price == 2\n"
                "@pytest.mark.skip\n"
                "def test_later(): pass\n"
                "@pytest.fixture\n"
                "def broken(): raise OSError('no disk')\n"
                "def test_broken(broken): pass\n"
            ),
        },
    )
    assert output["verdict"] == "failed"
    assert [output[count] for count in ("passed", "failed", "errors", "skipped")] == [1, 1, 1, 1]
    assert [(failure["test"], failure["line"]) for failure in output["failures"]] == [
        ("test_shop.py::TestMore::test_wrong", 5),
        ("test_shop.py::test_broken", 9),
    ]
    assert output["problem"] == ""
    assert output["baseline"] is None


async def test_no_tests_is_no_success(tmp_path: Path) -> None:
    output = await outcome_of(tmp_path, {"shop.py": "price = 1\n"})
    assert (output["verdict"], output["problem"], output["exit_code"]) == ("no_tests", "", 5)


async def test_what_cannot_be_collected_is_an_error(tmp_path: Path) -> None:
    output = await outcome_of(
        tmp_path,
        {
            "test_good.py": "def test(): pass\n",
            "test_bad.py": "import nowhere\n",
            "test_worse.py": "def (:\n",
        },
    )
    assert output["verdict"] == "failed"
    assert output["errors"] == 2
    assert "could not be collected" in output["problem"]
    assert "nowhere" in output["output_tail"]


async def test_a_configuration_that_pytest_refuses_is_told(tmp_path: Path) -> None:
    output = await outcome_of(
        tmp_path,
        {"pytest.ini": "[pytest]\naddopts = --no-such-option\n", "test_shop.py": "def test(): pass\n"},
    )
    assert output["verdict"] == "failed"
    assert "no-such-option" in output["output_tail"]


async def test_cache_settings_of_the_repository_are_fine(tmp_path: Path) -> None:
    files = {
        "pytest.ini": "[pytest]\naddopts = --ff --strict-config\ncache_dir = .c\n",
        "test_shop.py": "def test(): 0\n",
    }
    assert (await outcome_of(tmp_path, dict(files)))["verdict"] == "passed"


def failures(output: Outcome) -> dict[str, str]:
    return {failure["test"].partition("::")[2]: failure["message"] for failure in output["failures"]}


def test_no_secret_reaches_the_tests(hostile: Outcome) -> None:
    assert "test_environment" not in failures(hostile)
    assert SECRET not in str(hostile)


def test_other_processes_and_networks_are_out_of_sight(hostile: Outcome) -> None:
    assert "test_loopback" not in failures(hostile)
    assert "test_outside" in failures(hostile)
    if hostile["network"] == "cut":
        assert "unreachable" in failures(hostile)["test_outside"]
    if "processes" in hostile["isolation"]:
        assert "test_other_processes" not in failures(hostile)
    assert hostile["network"] == ("open" if hostile["isolation"].startswith("none") else "cut")


def test_memory_is_limited(hostile: Outcome) -> None:
    assert "MemoryError" in failures(hostile)["test_memory"]


def test_nothing_is_left_running(hostile: Outcome) -> None:
    assert "test_processes" not in failures(hostile)
    assert hostile["left_running"] == 3
    assert sleepers() == []


def test_output_is_bounded_and_harmless(hostile: Outcome) -> None:
    assert "\x1b" not in str(hostile)
    assert len(failures(hostile)["test_output"]) <= 500


def sleepers() -> list[Path]:
    found = []
    for command in Path("/proc").glob("[1-9]*/cmdline"):
        try:
            if SLEEPER.encode() in command.read_bytes().split(b"\0"):
                found.append(command.parent)
        except OSError:
            continue
    return found


@contextmanager
def interrupts(handler: Any) -> Iterator[None]:
    """Do with Ctrl-C what `handler` says: a worker in the background ignores it."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ignoring", [False, True])
async def test_a_hanging_test_is_interrupted_and_named(tmp_path: Path, *, ignoring: bool) -> None:
    with isolated("plain"), interrupts(signal.SIG_IGN if ignoring else signal.default_int_handler):
        output = await outcome_of(
            tmp_path,
            {
                "test_shop.py": (
                    "import subprocess, sys, time\n"
                    "def test_good(): pass\n"
                    "def test_hang():\n"
                    "    subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)', '"
                    + SLEEPER
                    + "'])\n"
                    "    time.sleep(600)\n"
                )
            },
            Limits(seconds=5.0),  # by then a busy machine, too, has come to the test that hangs
        )
    assert output["timed_out"]
    assert output["verdict"] == "failed"
    assert (output["passed"], output["failed"]) == (1, 1)
    assert "longer than 5 s" in output["problem"]
    place = [output["failures"][0][key] for key in ("test", "file", "line")]
    assert place == ["test_shop.py::test_hang", "test_shop.py", 5]
    assert sleepers() == []


async def test_a_test_that_ignores_the_interrupt_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = tmp_path / "launcher.py"
    launcher.write_text(sandbox.LAUNCHER.read_text().replace("GRACE = 2.0", "GRACE = 0.2"))
    monkeypatch.setattr(sandbox, "LAUNCHER", launcher)
    stubborn = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ndef test(): time.sleep(600)\n"
    )
    output = await outcome_of(tmp_path, {"test_shop.py": stubborn}, Limits(seconds=1.0))
    assert output["timed_out"]
    assert output["verdict"] == "failed"


@pytest.mark.parametrize(
    ("ending", "told"), [("os._exit(0)", "ended with 0"), ("os.kill(os.getpid(), 9)", "ended by signal 9")]
)
async def test_a_run_that_ends_early_is_no_success(tmp_path: Path, ending: str, told: str) -> None:
    output = await outcome_of(tmp_path, {"test_shop.py": f"import os\ndef test(): {ending}\n"})
    assert output["verdict"] == "failed"
    assert told in output["problem"]


async def test_a_forged_report_is_refused(tmp_path: Path) -> None:
    forged = '<!DOCTYPE x [<!ENTITY a "aaaa">]><testsuite><testcase name="&a;"/></testsuite>'
    output = await outcome_of(
        tmp_path,
        {
            "test_shop.py": (
                "import os, sys\n"
                "def test():\n"
                "    path = next(word[11:] for word in sys.argv if word.startswith('--junitxml='))\n"
                f"    open(path, 'w').write({forged!r})\n"
                "    os._exit(0)\n"
            )
        },
    )
    assert output["verdict"] == "failed"
    assert "document type" in output["problem"]


async def test_a_patch_is_blamed_for_what_it_broke_alone(tmp_path: Path) -> None:
    repository = Repository(
        tmp_path / "shop",
        {
            "shop.py": "one = 1\ntwo = 3\nthree = 3\n",
            "test_shop.py": (
                "import shop\n"
                "def test_one(): assert shop.one == 1\n"
                "def test_two(): assert shop.two == 2\n"
                "def test_three(): assert shop.three == 4\n"
            ),
        },
    )
    world = World(*await bundle(repository.folder))
    (repository.folder / "shop.py").write_text("one = 0\ntwo = 2\nthree = 3\n")
    world.add("patch", (repository.git("diff") + "\n").encode())
    output = await world.output(TestingAgent(OFF, limits=QUICK), "")
    assert output["newly_failing"] == ["test_shop.py::test_one"]
    assert output["still_failing"] == ["test_shop.py::test_three"]
    assert output["fixed"] == ["test_shop.py::test_two"]
    assert (output["baseline"]["failed"], output["failed"]) == (2, 2)


async def test_a_canceled_run_ends_its_tests(tmp_path: Path) -> None:
    hang = (
        "import subprocess, sys, time\n"
        "def test():\n"
        "    subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)', '"
        + SLEEPER
        + "'])\n"
        "    time.sleep(600)\n"
    )
    running = asyncio.ensure_future(outcome_of(tmp_path, {"test_shop.py": hang}))
    while not sleepers():  # noqa: ASYNC110 (another process's doing)
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    while sleepers():  # noqa: ASYNC110 (the kernel takes a moment to take a namespace down)
        await asyncio.sleep(0.02)


async def test_an_input_that_is_no_goal_is_refused(tmp_path: Path) -> None:
    world = World(*await bundle(Repository(tmp_path / "shop", {"shop.py": ""}).folder))
    with pytest.raises(InvalidInputError, match="takes the goal as text or an object"):
        await world.run(TestingAgent(OFF), 7)
    with pytest.raises(InvalidInputError, match="the input's patch is not valid at: goal"):
        await world.run(TestingAgent(OFF), {"kind": "patch"})
