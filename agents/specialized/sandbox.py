"""Runs a repository's tests where they can do little harm, and reads what they report.

Running a repository's tests is running its code. It gets: no variable of the worker's but a few harmless
ones, a home and a temporary folder in scratch, limits on time, memory, file size and output, and, where the
machine allows it (Linux namespaces), no network but its own loopback and no sight of other processes, which
also keeps it from reading their environment. Whatever it starts is ended with it. It does not get: another
user, or a file system without what the worker may read. Who runs unknown repositories gives workers a
container of their own.
"""

import asyncio
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from agents.specialized.facts import Failure, Outcome, clean, clean_block
from agents.specialized.junit import Case, JUnitError, read_cases
from agents.specialized.repository import Checkout
from agents.subprocesses import Finished, environment_for, run

MIB = 1024 * 1024
LAUNCHER = Path(__file__).with_name("launcher.py")
REPORT_LIMIT = 16 * MIB
MOST_FAILURES = 50
TAIL = 4_000
BACKSTOP = 10.0
"""Seconds after its time limit at which the launcher itself is ended."""

NO_TESTS = 5
FINE = frozenset({0, 1})
MEANINGS = {
    2: "the test run was broken off: tests could not be collected, or stopped it",
    3: "pytest itself failed",
    4: "pytest does not accept the repository's configuration or options here",
    NO_TESTS: "pytest says it found no tests, yet its report has some",
}
"""What pytest's exit codes mean, as far as the counts do not say it."""
PLUGINS = {
    "anyio": ("anyio",),
    "asyncio": ("async",),
    "hypothesispytest": ("hypothesis",),
    "pytest_cov": ("--cov", "pytest-cov", "pytest_cov"),
}
"""pytest plugins of a worker's environment, and the words a repository uses that needs them."""
SPACES = ("unshare", "--user", "--map-current-user", "--keep-caps", "--net", "--pid", "--fork")
WAYS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((*SPACES, "--kill-child", "--mount-proc", "--"), "own network, processes and user"),
    (("unshare", "--net", "--"), "own network"),
)
PLACE = re.compile(r"^(?P<file>[^\s:][^:\n]*\.py):(?P<line>\d+): (?P<what>.*)$", re.MULTILINE)

STARTED = re.compile(r"^(\S+\.py::\S.*?) +$", re.MULTILINE)
"""A line of pytest's about a test that has no outcome yet."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of a test suite may take."""

    seconds: float = 120.0
    memory: int = 2048 * MIB
    file_size: int = 256 * MIB
    output: int = MIB


@dataclass(frozen=True, slots=True)
class Isolation:
    """What keeps tests away from the rest of the machine: a command in front of theirs, and what it does."""

    command: tuple[str, ...]
    description: str

    @property
    def network(self) -> Literal["cut", "open"]:
        """Whether tests can reach other machines."""
        return "cut" if self.command else "open"


_found: list[Isolation] = []


async def isolation() -> Isolation:
    """Find the strongest isolation this machine allows; tried once per process."""
    if not _found:
        program = shutil.which("unshare")
        _found.append(await _try_ways() if program else Isolation((), "none: there is no `unshare` here"))
    return _found[0]


async def _try_ways() -> Isolation:
    for command, description in WAYS:
        tried = await run(
            [*command, "true"], folder=Path("/"), environment=environment_for(Path("/")), seconds=5.0
        )
        if tried.code == 0:
            return Isolation(command, description)
    return Isolation((), "none: this machine does not allow namespaces")


async def run_tests(checkout: Checkout, limits: Limits, kept: Isolation) -> Outcome:
    """Run pytest on a checkout.

    Args:
        checkout: The tree; its tests may change it.
        limits: What they may take.
        kept: What they are kept in.
    """
    report = checkout.scratch / "report.xml"
    command = [sys.executable, "-m", "pytest", *_options(checkout, report), *await _without_plugins(checkout)]
    wanted = {
        "command": command,
        "seconds": limits.seconds,
        "memory": limits.memory,
        "file_size": limits.file_size,
        "own_network": kept.network == "cut",
    }
    environment = await asyncio.to_thread(_prepared, checkout)
    started = time.monotonic()
    finished = await run(
        [*kept.command, sys.executable, "-I", "-S", LAUNCHER, orjson.dumps(wanted).decode()],
        folder=checkout.root,
        environment=environment,
        seconds=limits.seconds + BACKSTOP,
        output_limit=limits.output,
    )
    seconds = round(time.monotonic() - started, 3)
    cases = await asyncio.to_thread(_cases, report)
    return _outcome(finished, cases, limits, checkout).model_copy(update={"duration_seconds": seconds})


def _options(checkout: Checkout, report: Path) -> list[str]:
    return [
        f"--rootdir={checkout.root}",
        f"--junitxml={report}",
        "--tb=short",
        "--color=no",
        "-v",  # says which test runs before it runs
        *("-o", "junit_family=xunit1"),  # the one with file and line
        *("-o", "junit_logging=no"),
        # A cache elsewhere, rather than no cache plugin, whose settings and options a repository may use.
        *("-o", f"cache_dir={checkout.scratch / 'pytest-cache'}"),
    ]


async def _without_plugins(checkout: Checkout) -> list[str]:
    """Leave the worker's own pytest plugins out where the repository does not speak of them.

    They load whatever they test, in every run: hypothesis alone takes longer than most small suites.
    """
    asked = [("grep", "-q", "-i", "-F", *(f"-e{word}" for word in words)) for words in PLUGINS.values()]
    answers = await asyncio.gather(*(checkout.git(*arguments) for arguments in asked))
    return [f"-pno:{plugin}" for plugin, answer in zip(PLUGINS, answers, strict=True) if answer.code == 1]


def _prepared(checkout: Checkout) -> dict[str, str]:
    """Make the folders tests get, and give their environment."""
    home, temporary = checkout.scratch / "home", checkout.scratch / "temporary"
    home.mkdir()
    temporary.mkdir()
    # Without a configuration of its own, pytest would look for one in all folders above.
    (checkout.scratch / "pytest.ini").touch()
    return environment_for(
        home,
        TMPDIR=str(temporary),
        PYTHONPATH=f"{checkout.root}:{checkout.root / 'src'}",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONIOENCODING="utf-8:replace",
    )


def _cases(report: Path) -> list[Case] | str:
    """Read a JUnit report, or say why not."""
    try:
        return read_cases(report, REPORT_LIMIT)
    except JUnitError as error:
        return str(error)


def _outcome(finished: Finished, cases: list[Case] | str, limits: Limits, checkout: Checkout) -> Outcome:
    told: dict[str, Any] = {}
    if finished.errors.startswith(b"{"):
        told = orjson.loads(finished.errors.splitlines()[0])
    code = told.get("code")
    timed_out = finished.timed_out or bool(told.get("timed_out"))
    problem = _problem(code, cases, limits, timed_out=timed_out)
    known = [] if isinstance(cases, str) else cases
    output = clean_block(finished.output.decode(errors="replace"), TAIL * 4)
    output = output.replace(f"{checkout.root}/", "").replace(str(checkout.scratch), "")
    unfinished = bool(known) and known[-1].kind == "unfinished"
    failures = [_failure(case, checkout) for case in known if case.kind in {"failure", "error"}]
    if timed_out or unfinished:
        failures.append(_interrupted(output, limits, timed_out=timed_out))
    return Outcome(
        passed=sum(case.kind == "passed" for case in known),
        failed=sum(case.kind == "failure" for case in known) + (timed_out or unfinished),
        errors=sum(case.kind == "error" for case in known),
        skipped=sum(case.kind == "skipped" for case in known),
        exit_code=code,
        timed_out=timed_out,
        problem=problem,
        left_running=told.get("left_running", 0),
        failures=tuple(failures[:MOST_FAILURES]),
        failures_left_out=max(0, len(failures) - MOST_FAILURES),
        output_tail=output[-TAIL:] if problem else "",
    )


def _problem(code: int | None, cases: list[Case] | str, limits: Limits, *, timed_out: bool) -> str:
    """Say why the counts are not the whole story; nothing if they are."""
    if timed_out:
        return f"the tests took longer than {limits.seconds:g} s and were ended"
    if code is None:
        return "the test run was ended from outside"
    if code < 0:
        return f"the test run was ended by signal {-code}; it may use {limits.memory // MIB} MiB of memory"
    if isinstance(cases, str):
        return f"the test run ended with {code}: {cases}"
    if code in FINE or (code == NO_TESTS and not cases):
        return ""
    return MEANINGS.get(code, f"the test run ended with {code}")


def _failure(case: Case, checkout: Checkout) -> Failure:
    text = case.text.replace(f"{checkout.root}/", "")
    places = [match for match in PLACE.finditer(text) if not match["file"].startswith(("/", ".venv"))]
    own = [match for match in places if match["file"] == case.file] or places
    return Failure(
        test=clean(case.node_id, 200),
        file=clean(case.file or (own[-1]["file"] if own else ""), 200),
        line=int(own[-1]["line"]) if own else case.line,
        message=clean(case.message or text, 500),
    )


def _interrupted(output: str, limits: Limits, *, timed_out: bool) -> Failure:
    """Tell where a test run was when it was interrupted; the report has that test without a name."""
    started = STARTED.findall(output)
    places = [match for match in PLACE.finditer(output) if match["what"].startswith("KeyboardInterrupt")]
    place = places[-1] if places else None
    return Failure(
        test=clean(started[-1], 200) if started else "the test that was running",
        file=clean(place["file"], 200) if place else "",
        line=int(place["line"]) if place else None,
        message=f"did not end within {limits.seconds:g} s" if timed_out else "broke the test run off",
    )


def failing(outcome: Outcome) -> set[str]:
    """Give the tests of an outcome that failed, by name."""
    return {failure.test for failure in outcome.failures}


def names(tests: Sequence[str] | set[str]) -> tuple[str, ...]:
    """Put names in an order that does not depend on anything."""
    return tuple(sorted(tests))
