"""`callboard publish`: give an agent a task, and wait for what comes of it if asked to."""

from __future__ import annotations

import json as jsons
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.command_line.output import (
    CommandError,
    ExitCode,
    quiet_logging,
    reported,
    say,
    settings,
    stdout,
    when_interrupted,
    write,
    write_json,
)

if TYPE_CHECKING:
    from agents.core.task import RepositoryReference
    from streams.command_line.task_event import NewTask, Order
    from streams.settings import Settings
    from streams.topics import Topics

COMMIT = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")


@reported
def publish(  # noqa: PLR0913 (one parameter per option)
    agent: Annotated[str, typer.Argument(help="The agent the task is for.")],
    given: Annotated[
        str | None,
        typer.Argument(metavar="[INPUT]", help="What the agent gets, as it is; - reads it from stdin."),
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="Read the input from a file."),
    ] = None,
    input_json: Annotated[
        bool, typer.Option("--input-json", help="The input is JSON, for agents that take more than text.")
    ] = False,
    repository: Annotated[
        str | None,
        typer.Option(
            metavar="PATH[@COMMIT]|URL@COMMIT",
            help="The git repository it is about. A PATH's commit travels with the task; a URL has to be one"
            " that the workers may open.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Tasks with the same key go one after the other; default: by itself.")
    ] = None,
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which workflow, if several have the agent.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0.001, metavar="SECONDS", help="Work later than this is refused.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it ends, or is parked, and print what it came to.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="Wait no longer than this (exit code 5)."),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object: workflow, id, topic, partition, offset; with --wait also status and"
            " results.",
        ),
    ] = False,
) -> None:
    """Publish a task, and print the id of the workflow that it begins.

    \b
    Example:
        callboard publish researcher 'Which modules have no tests?' --repository . --wait
        callboard publish triage --input-json '{"ticket": 17}'
        cat question.txt | callboard publish researcher - --json
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    if timeout is not None and not wait:
        raise CommandError("--timeout only means something together with --wait", ExitCode.USAGE)
    value = _input(given, file, is_json=input_json)
    quiet_logging()

    import asyncio

    from streams.command_line.task_event import Order

    order = Order(agent, value, key, workflow, deadline)
    work = (
        _publish_and_wait(settings(), order, repository, timeout, json=json)
        if wait
        else _publish(settings(), order, repository, json=json)
    )
    raise typer.Exit(asyncio.run(work))


async def _publish(chosen: Settings, order: Order, repository: str | None, *, json: bool) -> ExitCode:
    from streams.kafka.publisher import OwnPublisher

    names, task = await _planned(chosen, order)
    content = await _repository(repository)
    async with OwnPublisher(chosen.connection) as publisher:
        offset = await task.publish(publisher, names, *content)
    if json:
        write_json(_about(task, offset))
    else:
        write(task.id)
    say(f"published to {task.topic}/{task.partition}/{offset}; look with: callboard show {task.id}")
    return ExitCode.OK


async def _publish_and_wait(
    chosen: Settings, order: Order, repository: str | None, limit: float | None, *, json: bool
) -> ExitCode:
    from streams.command_line.following import follow, positions, watched
    from streams.command_line.history_view import print_report, results_json, status_of
    from streams.history import History
    from streams.kafka.publisher import OwnPublisher
    from streams.kafka.reader import Reader

    names, task = await _planned(chosen, order)
    content = await _repository(repository)
    history = History(task.id, names)
    async with Reader(chosen.connection) as reader:
        starts = await positions(reader, names, order.agent, task.partition)
        async with OwnPublisher(chosen.connection) as publisher:
            offset = await task.publish(publisher, names, *content)
        say(f"published to {task.topic}/{task.partition}/{offset}, workflow {task.id}")
        look = f"callboard show {task.id}"
        with when_interrupted(f"the workflow goes on without you; look with: {look}"), watched() as view:
            await follow(reader, starts, history, view, limit)
    if json:
        results = {"status": status_of(history), "results": results_json(history)}
        write_json(_about(task, offset) | results)
    else:
        print_report(stdout(), history)
        say(f"{status_of(history)}; how it came to this: {look}")
    return ExitCode.OK if history.succeeded else ExitCode.FAILED


async def _planned(chosen: Settings, order: Order) -> tuple[Topics, NewTask]:
    from streams.command_line.task_event import new_task
    from streams.kafka.admin import partition_counts
    from streams.topics import Topics

    names = Topics(chosen.topic_prefix)
    return names, new_task(order, await partition_counts(chosen.connection), names)


def _about(task: NewTask, offset: int) -> dict[str, Any]:
    return {
        "workflow": task.id,
        "id": task.id,
        "topic": task.topic,
        "partition": task.partition,
        "offset": offset,
    }


def _input(given: str | None, file: Path | None, *, is_json: bool) -> Any:
    """Take the input from where it is, and never more of it than a record may have."""
    if (given is None) == (file is None):
        raise CommandError("give the input once: as INPUT, as - for stdin, or with --file", ExitCode.USAGE)
    if file is not None:
        with file.open("rb") as content:
            text = _decoded(content.read(_most() + 1), str(file))
    elif given == "-":
        if sys.stdin.isatty():
            say("reading the input from the terminal; Ctrl-D ends it")
        text = _decoded(sys.stdin.buffer.read(_most() + 1), "stdin")
    else:
        text = given or ""
    if not is_json:
        return text
    try:
        return jsons.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"the input is no JSON: {error}", ExitCode.USAGE) from None


def _most() -> int:
    from streams.topics import MAX_RECORD_BYTES

    return MAX_RECORD_BYTES


def _decoded(content: bytes, source: str) -> str:
    from streams.command_line.task_event import too_large

    if len(content) > _most():
        raise too_large()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{source} is not UTF-8 text (byte {error.start}); files travel with --repository", ExitCode.USAGE
        ) from None


async def _repository(wanted: str | None) -> tuple[RepositoryReference | None, bytes | None]:
    """Give what a task says about its repository, and what it carries of it."""
    if wanted is None:
        return None, None

    from agents.core.task import RepositoryReference
    from agents.specialized.repository import bundle, uncommitted

    path, place, commit = repository_source(wanted)
    if path is None:
        name = place.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
        return RepositoryReference(url=place, commit=commit, name=name), None
    reference, content = await bundle(path, commit or None)
    changed = await uncommitted(path)
    if changed and not commit:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""  # noqa: PLR2004 (shown below)
        say(f"not committed, so not part of the task: {', '.join(changed[:3])}{more}")
    return reference, content


def repository_source(wanted: str) -> tuple[Path | None, str, str]:
    """Tell a folder from an address: gives the folder or none, the address, and the commit.

    Raises:
        CommandError: If it is an address without a whole commit, or with a password.
    """
    place, _, commit = wanted.rpartition("@")
    is_address = "://" in wanted or re.match(r"[^/@]+@[^/:]+:", wanted) is not None
    if Path(wanted).is_dir() or not (place or is_address):
        return Path(wanted), "", ""
    if not is_address and Path(place).is_dir():
        return Path(place), "", commit
    if not COMMIT.fullmatch(commit):
        raise CommandError(
            f"--repository {wanted!r} is no folder here; a URL needs the full hash of a commit, so that every"
            " worker sees the same files: URL@COMMIT with 40 (or 64) hexadecimal digits",
            ExitCode.USAGE,
        )
    if re.match("[^/]+://[^/@]*:[^/]*@", place):
        raise CommandError(
            "the repository's URL has a password in it, which everyone who reads the log would see; leave it"
            " out and let the workers' git know it",
            ExitCode.USAGE,
        )
    return None, place, commit
