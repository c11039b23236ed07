"""`callboard demo`: the five shipped agents improve a repository, from nothing to a report."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams.command_line.local_kafka import ensure_kafka
from streams.command_line.output import (
    CommandError,
    ExitCode,
    quiet_logging,
    reported,
    say,
    settings,
    stdout,
    when_interrupted,
)

if TYPE_CHECKING:
    import asyncio

    from agents.core.task import RepositoryReference
    from streams.history import History
    from streams.settings import Settings

APPLICATION = "examples.improve_repository:app"
SAMPLE = Path("examples", "sample_shop")
AGENT = "researcher"
INPUT = "Improve this repository"

START_SECONDS = 60.0
WORKFLOW_SECONDS = 600.0
POLL_SECONDS = 0.05
LOG_LINES = 8


@reported
def demo(
    repository: Annotated[
        Path | None, typer.Argument(help="A git repository of yours; default: a small shop with faults.")
    ] = None,
    *,
    llm: Annotated[
        Literal["anthropic", "off"] | None,
        typer.Option(help="Which language model agents ask; default: what is configured, else off."),
    ] = None,
) -> None:
    """Let five agents improve a repository: Kafka, a worker, a task, a report. Needs a source checkout.

    Starts the local Kafka unless CALLBOARD_BOOTSTRAP_SERVERS is set, and a worker that ends with the demo.
    Nothing is changed in the repository: the patch is an artifact.

    \b
    Example:
        callboard demo
        callboard demo ~/projects/mine --llm anthropic
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    root = _checkout()
    quiet_logging()
    chosen = settings()
    backend = llm or _backend()
    ensure_kafka(chosen)

    import asyncio

    with when_interrupted("the demo is over; its worker was stopped, and what it published stays in Kafka"):
        history = asyncio.run(_demo(chosen, root, repository, backend))
    _show(history)
    if not history.succeeded:
        raise CommandError(f"the workflow failed, see above; the worker's log is {_log(chosen)}")


def _checkout() -> Path:
    here = Path.cwd()
    if not (here / "examples" / "improve_repository.py").is_file() or not (here / SAMPLE).is_dir():
        raise CommandError(
            f"{here} is no source checkout of Callboard: the demo needs its folder `examples`; clone the"
            " repository and run `callboard demo` in it",
            ExitCode.USAGE,
        )
    return here


def _backend() -> str:
    from agents.core.errors import ConfigurationError
    from agents.core.llm import CHOICE, chosen_backend

    try:
        return chosen_backend()
    except ConfigurationError:
        if os.environ.get(CHOICE):
            raise
        say(
            "no language model is configured (ANTHROPIC_API_KEY is not set), so the agents give evidence"
            " without judgement"
        )
        return "off"


def _log(chosen: Settings) -> Path:
    return chosen.home / "demo-worker.log"


async def _demo(chosen: Settings, root: Path, repository: Path | None, backend: str) -> History:
    import asyncio

    from agents.specialized.repository import bundle, repository_from_folder
    from streams.kafka.admin import partition_counts
    from streams.supervisor import STOP_MARGIN_SECONDS

    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # A closed terminal ends the demo like Ctrl-C does: the worker has nobody else to stop it.
        loop.add_signal_handler(number, this.cancel if this is not None else int)
    await partition_counts(chosen.connection)  # whether there is a Kafka, before a worker only finds out
    with tempfile.TemporaryDirectory(prefix="callboard-demo-") as scratch:
        path = repository or await repository_from_folder(root / SAMPLE, Path(scratch))
        content = await bundle(path)
        worker = await _start_worker(chosen, root, backend)
        try:
            await _wait_until_ready(worker, _log(chosen))
            return await _improve(chosen, *content)
        except CommandError as error:
            raise CommandError(f"{error}\nthe worker's log is {_log(chosen)}", error.code) from error
        finally:
            await _stop_worker(worker, chosen.drain_seconds + STOP_MARGIN_SECONDS)


async def _start_worker(chosen: Settings, root: Path, backend: str) -> asyncio.subprocess.Process:
    import asyncio

    say("starting a worker with five agents")
    chosen.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _log(chosen).open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "streams.command_line",
                "run",
                APPLICATION,
                "--port",
                "0",
                "--llm",
                backend,
            ),
            cwd=root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            # Ctrl-C is for the demo, which then stops the worker in an orderly way.
            start_new_session=True,
        )


async def _wait_until_ready(worker: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until every agent of the worker reads its topics.

    Raises:
        CommandError: If the worker ends before, or takes too long.
    """
    import asyncio

    assert worker.stdout is not None  # noqa: S101 (asked for)
    try:
        async with asyncio.timeout(START_SECONDS):
            # It says its address once it serves; the end of its output means that it has ended.
            address = (await worker.stdout.readline()).decode().strip()
            while address and worker.returncode is None:
                if await asyncio.to_thread(_is_ready, address):
                    return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CommandError(f"the worker was not ready after {START_SECONDS:.0f} s") from None
    code = await worker.wait()
    said = await asyncio.to_thread(log.read_text, errors="replace")
    last = "\n".join(said.splitlines()[-LOG_LINES:])
    raise CommandError(f"the worker ended with exit code {code}; it said:\n{last}")


def _is_ready(address: str) -> bool:
    import urllib.error
    import urllib.request

    # Not through a proxy that the environment names: it is this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/readyz", timeout=2) as response:
            return bool(response.status == 200)  # noqa: PLR2004 (HTTP)
    except (urllib.error.URLError, OSError):
        return False


async def _improve(chosen: Settings, reference: RepositoryReference, bundle: bytes) -> History:
    from streams.command_line.following import follow, positions, watched
    from streams.command_line.task_event import Order, new_task
    from streams.history import History
    from streams.kafka.admin import partition_counts
    from streams.kafka.publisher import OwnPublisher
    from streams.kafka.reader import Reader
    from streams.topics import Topics

    names = Topics(chosen.topic_prefix)
    task = new_task(
        Order(AGENT, INPUT, workflow="improve-repository"), await partition_counts(chosen.connection), names
    )
    history = History(task.id, names)
    async with Reader(chosen.connection) as reader:
        starts = await positions(reader, names, AGENT, task.partition)
        async with OwnPublisher(chosen.connection) as publisher:
            offset = await task.publish(publisher, names, reference, bundle)
        say(f"task for {AGENT} published to {task.topic}/{task.partition}/{offset}: improve {reference.name}")
        with watched() as view:
            await follow(reader, starts, history, view, WORKFLOW_SECONDS)
    return history


async def _stop_worker(worker: asyncio.subprocess.Process, seconds: float) -> None:
    import asyncio

    if worker.returncode is not None:
        return
    worker.terminate()
    try:
        async with asyncio.timeout(seconds):
            await worker.wait()
    finally:
        # It took too long, or Ctrl-C came again.
        if worker.returncode is None:
            worker.kill()


def _show(history: History) -> None:
    from streams.command_line.history_view import print_report, print_tree

    console = stdout()
    say("")
    print_report(console, history)
    say("\nWhat happened:\n")
    print_tree(console, history)
    workflow = history.workflow_id
    made = {artifact.name for leaf in history.leaves for artifact in leaf.artifacts}
    artifact = "patch" if "patch" in made else "report.md"
    # `make demo` runs in the environment it made; the shell it was typed into knows nothing of that.
    shell = "" if os.environ.get("VIRTUAL_ENV") else " (source .venv/bin/activate first)"
    say(
        f"""
Try next{shell}:
    callboard show {workflow} --artifact {artifact}
    callboard replay --workflow {workflow}
    callboard run {APPLICATION} --llm off    and in another terminal:
    callboard publish {AGENT} 'Improve this' --repository PATH --wait

Kafka goes on running; `callboard down` stops it."""
    )
