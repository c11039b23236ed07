"""`callboard show`: what happened in a workflow, from the log alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from streams.command_line.output import (
    CommandError,
    ExitCode,
    clean,
    progress,
    quiet_logging,
    reported,
    settings,
    stdout,
    when_interrupted,
    write,
    write_json,
)

if TYPE_CHECKING:
    from streams.history import History
    from streams.settings import Settings


@reported
def show(
    workflow: Annotated[
        str,
        typer.Argument(
            help="A workflow's id, the beginning of it, or the place of one of its events, like"
            " tasks.researcher/3/17."
        ),
    ],
    *,
    report: Annotated[
        bool, typer.Option("--report", help="Print only what the workflow came to: the last agents' output.")
    ] = False,
    artifact: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write the content of one of its artifacts to stdout.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with all events.")] = False,
) -> None:
    """Show what happened in a workflow: which event led to which, and what is still to come.

    \b
    Example:
        callboard show 0199c3a1-7a2e
        callboard show tasks.researcher/3/17 --report
        callboard show 0199c3a1-7a2e --artifact patch | git apply
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    if report + json + (artifact is not None) > 1:
        raise CommandError("give one of --report, --artifact and --json", ExitCode.USAGE)
    quiet_logging()

    import asyncio

    with when_interrupted("interrupted; nothing was changed"):
        history, content = asyncio.run(_find(settings(), workflow, artifact))

    from streams.command_line.history_view import as_json, print_report, print_tree

    if content is not None:
        _write_content(content)
    elif json:
        write_json(as_json(history))
    elif not report:
        print_tree(stdout(), history)
    elif history.leaves:
        print_report(stdout(), history)
    else:
        waiting = ", ".join(expected.agent for expected in history.expected)
        raise CommandError(f"there is no report yet; the workflow is waiting for {waiting}")


async def _find(chosen: Settings, workflow: str, artifact: str | None) -> tuple[History, bytes | None]:
    from streams.artifacts import KafkaArtifacts
    from streams.command_line.history_view import artifact_of
    from streams.command_line.log_search import find_workflow
    from streams.kafka.reader import Reader
    from streams.topics import Topics

    names = Topics(chosen.topic_prefix)
    async with Reader(chosen.connection) as reader:
        with progress("searching") as tell:
            history = await find_workflow(reader, names, workflow, tell)
    if artifact is None:
        return history, None
    topics = {names.artifacts(entry.agent) for entry in history.entries}
    store = KafkaArtifacts(chosen.connection, sorted(topics))
    return history, await store.read(artifact_of(history, artifact))


def _write_content(content: bytes) -> None:
    if sys.stdout.isatty():
        # Somebody looks at it: bytes that steer a terminal would steer theirs.
        write(clean(content.decode(errors="replace")))
        return
    sys.stdout.buffer.write(content)
    sys.stdout.flush()
