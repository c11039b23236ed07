"""`callboard dead`: what nobody could process: look at it, and publish it again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.command_line.dead_letter_search import Filter, Letters
    from streams.dead_letters import DeadLetter
    from streams.redrive import Redriven
    from streams.settings import Settings

HELP = """Look at events that nobody could process, and publish them again.

An agent that fails for good publishes its event to dead.AGENT, as it came and with the reason.

\b
Example:
    callboard dead list --agent researcher --since 1d
    callboard dead show 3f9a
    callboard dead redrive 3f9a --because 'fixed in 1.4.2'
"""

dead = typer.Typer(
    name="dead",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Agents = Annotated[
    list[str] | None, typer.Option("--agent", metavar="AGENT", help="Only of this agent; repeat it for more.")
]
Reasons = Annotated[
    list[str] | None,
    typer.Option(
        "--reason",
        metavar="REASON",
        help="Only with this reason: retries_exhausted, not_retryable, invalid_event, refused or poison;"
        " repeat it for more.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only since then; ISO 8601, or how long ago: 10m, 2h, 3d."),
]


@dead.command("list")
@reported
def list_letters(  # noqa: PLR0913 (one parameter per option)
    *,
    agent: Agents = None,
    reason: Reasons = None,
    since: Since = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    redriven: Annotated[
        bool, typer.Option("--all", help="Also letters that were published again already.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each letter as one line of JSON.")] = False,
) -> None:
    """List dead letters, the newest last; those that were published again are left out.

    \b
    Example:
        callboard dead list
        callboard dead list --agent researcher --reason retries_exhausted --since 2h
        callboard dead list --json | jq -r .id
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    quiet_logging()

    import asyncio

    from streams.command_line.dead_letter_search import filter_of
    from streams.command_line.dead_letter_view import as_json, print_table

    chosen = filter_of(agent, reason, since)
    with when_interrupted("interrupted; nothing was changed"):
        found = asyncio.run(_read(settings(), chosen))
    matching = found.matching(chosen)
    shown = [letter for letter in matching if redriven or not found.before[letter.id]]
    hidden = len(matching) - len(shown)
    cut = shown[-limit:] if limit is not None else shown
    if json:
        for letter in cut:
            write_json(as_json(letter, found.before[letter.id]))
    elif cut:
        print_table(stdout(), cut, found.before)
    say(_told(len(cut), len(shown) - len(cut), hidden, found.agents, is_filtered=chosen.is_set))


def _told(shown: int, older: int, hidden: int, agents: Sequence[str], *, is_filtered: bool) -> str:
    if shown:
        sentence = f"{shown:,} dead letter{'s' * (shown > 1)}"
    elif not agents:
        sentence = "no dead letters: no application with agents has run here yet"
    else:
        sentence = f"no dead letters{' that fit' * is_filtered} of {', '.join(agents)}"
    if older:
        sentence += f", and {older:,} older"
    if hidden:
        sentence += f"; {hidden:,} more {'were' if hidden > 1 else 'was'} published again already (--all)"
    return sentence


@dead.command("show")
@reported
def show_letter(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show everything about one dead letter: why, when, what it was, and what became of it.

    \b
    Example:
        callboard dead show 3f9a
        callboard dead show 3f9a --json | jq .value
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    quiet_logging()

    import asyncio

    from streams.command_line.dead_letter_view import details_json, print_letter

    with when_interrupted("interrupted; nothing was changed"):
        letter, before = asyncio.run(_one(settings(), wanted))
    if json:
        write_json(details_json(letter, before))
    else:
        print_letter(stdout(), letter, before)


@dead.command("redrive")
@reported
def redrive(  # noqa: PLR0913 (one parameter per option)
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Letters: their ids, or the beginnings of them."),
    ] = None,
    *,
    because: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Why; it is recorded with the new event. Needed, but not to try.",
            show_default=False,
        ),
    ] = None,
    agent: Agents = None,
    reason: Reasons = None,
    since: Since = None,
    every: Annotated[
        bool, typer.Option("--all", help="All letters that were not published again yet.")
    ] = False,
    edit: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Publish this value, JSON, in place of the letter's; only for one letter. - reads stdin.",
        ),
    ] = None,
    editor: Annotated[
        bool,
        typer.Option(
            "--editor",
            help="Change the value in $VISUAL or $EDITOR first; only for one letter. What was typed is kept"
            " in a file until it is published.",
        ),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also letters that were published again already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be published, and publish nothing.")
    ] = False,
    rate: Annotated[float, typer.Option(min=0.01, help="At most so many per second.")] = 20.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print what became of each letter as one line of JSON.")
    ] = False,
) -> None:
    """Publish dead letters again, as new tasks for the agent that could not process them.

    The same key and value, or the edited one; the same workflow, in a new round. A letter that was published
    again already is refused without --again, so running this twice does no harm. Letters of one join go
    together. Name letters, or choose them with --agent, --reason, --since or --all.

    \b
    Example:
        callboard dead redrive 3f9a --because 'fixed in 1.4.2'
        callboard dead redrive 3f9a --editor --because 'a typo in the path'
        callboard dead redrive --agent researcher --since 2h --dry-run
        callboard dead redrive --all --because 'the provider was down' --rate 5
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    filters = [*(agent or ()), *(reason or ()), since or "", "all" * every]
    _refuse_nonsense(wanted or (), filters, edits=(edit is not None) + editor)
    if not (because or "").strip() and not dry_run:
        raise CommandError("say why with --because TEXT: it is recorded with the new event", ExitCode.USAGE)
    edited = _edited(edit)
    quiet_logging()

    import asyncio

    from streams.command_line.dead_letter_search import filter_of
    from streams.command_line.redriving import Order
    from streams.command_line.redriving import redrive as begin

    order = Order(
        ids=wanted or [],
        chosen=filter_of(agent, reason, since),
        because=(because or "").strip(),
        edited=edited,
        editor=editor,
        again=again,
        dry_run=dry_run,
        rate=rate,
        yes=yes,
        json=json,
    )
    raise typer.Exit(asyncio.run(begin(settings(), order)))


async def _read(chosen: Settings, wanted: Filter) -> Letters:
    from streams.command_line.dead_letter_search import find_letters
    from streams.kafka.reader import Reader
    from streams.topics import Topics

    async with Reader(chosen.connection) as reader:
        return await find_letters(reader, Topics(chosen.topic_prefix), wanted)


async def _one(chosen: Settings, wanted: str) -> tuple[DeadLetter, Sequence[Redriven]]:
    from streams.command_line.dead_letter_search import Filter, find_letters
    from streams.kafka.reader import Reader
    from streams.redrive import whole
    from streams.topics import Topics

    async with Reader(chosen.connection) as reader:
        found = await find_letters(reader, Topics(chosen.topic_prefix), Filter())
        letter = found.one(wanted)
        return await whole(reader, letter), found.before[letter.id]


def _refuse_nonsense(ids: Sequence[str], filters: Sequence[str], *, edits: int) -> None:
    if bool(ids) == any(filters):
        raise CommandError(
            "say which letters: either their ids, or --agent, --reason, --since or --all", ExitCode.USAGE
        )
    if edits > 1:
        raise CommandError("give one of --edit and --editor", ExitCode.USAGE)
    if edits and len(ids) != 1:
        raise CommandError("only one letter at a time can be edited: name it by its id", ExitCode.USAGE)


def _edited(given: str | None) -> bytes | None:
    """Read the edited value from where it is, and never more of it than a record may have."""
    from streams.topics import MAX_RECORD_BYTES

    if given is None:
        return None
    if given == "-":
        if sys.stdin.isatty():
            say("reading the value from the terminal; Ctrl-D ends it")
        return sys.stdin.buffer.read(MAX_RECORD_BYTES + 1)
    try:
        with Path(given).open("rb") as file:
            return file.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        raise CommandError(f"cannot read {given}: {error.strerror}", ExitCode.USAGE) from None
