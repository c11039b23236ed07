"""Publishes dead letters again for a user: asks before many, goes slowly, and says what became of each."""

import asyncio
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import typer

from streams.command_line.dead_letter_search import Filter, Letters, find_letters
from streams.command_line.dead_letter_view import short
from streams.command_line.output import CommandError, ExitCode, clean, say, write, write_json
from streams.dead_letters import DeadLetter
from streams.kafka.publisher import OwnPublisher, Publisher, PublishError
from streams.kafka.reader import Reader
from streams.redrive import (
    NewEvent,
    RedriveError,
    Redriven,
    Round,
    checked,
    prepare,
    publish,
    rounds,
    whole,
    workflow_of,
)
from streams.settings import Settings
from streams.topics import Topics

TELL_SECONDS = 5.0
POLL_SECONDS = 0.1
MOST_SHOWN = 10
OWNERS = 0o600


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for.

    Attributes:
        ids: Letters by id or the beginning of one; empty: those that `chosen` takes.
        chosen: Which letters, if none is named.
        because: Why.
        edited: A value in place of the letter's, or none.
        editor: Let the user edit the value first.
        again: Also what was published before.
        dry_run: Publish nothing.
        rate: How many per second.
        yes: Do not ask.
        json: Speak JSON.
    """

    ids: Sequence[str] = ()
    chosen: Filter = field(default_factory=Filter)
    because: str = ""
    edited: bytes | None = None
    editor: bool = False
    again: bool = False
    dry_run: bool = False
    rate: float = 20.0
    yes: bool = False
    json: bool = False


async def redrive(settings: Settings, order: Order) -> ExitCode:
    """Do it.

    Raises:
        CommandError: If nothing can be chosen like this, Kafka did not answer, or the user does not want it.
    """
    names = Topics(settings.topic_prefix)
    async with Reader(settings.connection) as reader:
        try:
            found = await find_letters(reader, names, order.chosen)
            asked = _asked(found, order)
            work = rounds(asked, found.known, found.before, again=order.again)
            letters = [letter for each in work for letter in each.letters]
            places = set(await reader.partitions({names.tasks(letter.agent) for letter in letters}))
            edited, typed = await _edited(reader, asked, letters, order)
        except asyncio.CancelledError:
            raise CommandError("interrupted; nothing was published", ExitCode.INTERRUPTED) from None
        told = _Told(order, {letter.id: letter for letter in found.known})
        with _kept_until_published(typed, edited, told):
            if letters:
                _ask(order, asked, letters)
            async with _publisher(settings, order) as publisher:
                make = partial(prepare, reader, names, places=places, reason=order.because, edited=edited)
                await _go(make, publisher, work, told)
    told.finish()
    return ExitCode.FAILED if told.refused else ExitCode.OK


def _asked(found: Letters, order: Order) -> list[DeadLetter]:
    """Choose, and say what is left out."""
    if order.ids:
        asked = list({(letter := found.one(each)).id: letter for each in order.ids}.values())
    else:
        matching = found.matching(order.chosen)
        asked = [letter for letter in matching if order.again or not found.before[letter.id]]
        if left_out := len(matching) - len(asked):
            say(f"{_letters(left_out)} left out: published again already (--again takes them, too)")
        if not asked:
            say("nothing to publish: no dead letter fits")
    return asked


def _ask(order: Order, asked: Sequence[DeadLetter], letters: Sequence[DeadLetter]) -> None:
    """Say what is about to happen to many letters, and ask."""
    named = {letter.id for letter in asked}
    if brought := [short(letter.id) for letter in letters if letter.id not in named]:
        more = f" and {len(brought) - MOST_SHOWN:,} more" if len(brought) > MOST_SHOWN else ""
        say(f"with {', '.join(brought[:MOST_SHOWN])}{more}: the letters of a join are published together")
    if len(letters) == 1:
        return
    groups = Counter((letter.agent, letter.failure.reason) for letter in letters)
    for (agent, reason), count in groups.most_common(MOST_SHOWN):
        say(f"{count:,} of {agent}, {reason}")
    if (others := len(groups) - MOST_SHOWN) > 0:
        say(f"and {others} more kinds")
    if order.dry_run or order.yes or order.ids:
        return
    seconds = f", in about {len(letters) / order.rate:,.0f} s" if len(letters) > order.rate else ""
    if not sys.stdin.isatty():
        raise CommandError(
            f"these are {len(letters):,} letters: say --yes to publish them, or look first with --dry-run",
            ExitCode.USAGE,
        )
    # The event loop's own handler would note Ctrl-C and go on waiting for the answer.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        agreed = _confirmed(f"Publish {len(letters):,} letters again{seconds}?")
    except (KeyboardInterrupt, EOFError):
        say("")  # the question has no end of its line
        raise CommandError("interrupted; nothing was published", ExitCode.INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, previous)
    if not agreed:
        raise CommandError("nothing was published")


def _confirmed(question: str) -> bool:
    """Ask until the answer is yes or no.

    Raises:
        EOFError: If there is no answer to come.
    """
    while True:
        typer.echo(f"{question} [y/N]: ", nl=False, err=True)
        # Python looks for Ctrl-C, then waits for a line: one in between would be noticed after that line. So
        # it waits for a short while at a time.
        while not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
            pass
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        answer = line.strip().lower()
        if answer in {"y", "yes", "n", "no", ""}:
            return answer.startswith("y")
        typer.echo("Please answer y or n.", err=True)


@asynccontextmanager
async def _publisher(settings: Settings, order: Order) -> AsyncIterator[Publisher | None]:
    if order.dry_run:
        yield None
        return
    async with OwnPublisher(settings.connection) as publisher:
        yield publisher


async def _go(
    make: Callable[[Round], Awaitable[list[NewEvent]]],
    publisher: Publisher | None,
    work: Iterable[Round],
    told: "_Told",
) -> None:
    due = 0.0
    try:
        for each in work:
            for letter_id, why in each.refused.items():
                told.refuse(letter_id, why)
            try:
                events = await make(each)
            except RedriveError as error:
                for letter in each.letters:
                    told.refuse(letter.id, str(error))
                continue
            for event in events:
                if publisher is None:
                    told.would(event)
                    continue
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = time.monotonic() + 1 / told.order.rate
                told.publish(await publish(publisher, event))
    except asyncio.CancelledError:
        raise CommandError(told.interrupted(), ExitCode.INTERRUPTED) from None
    except PublishError as error:
        raise CommandError(
            f"Kafka did not acknowledge a letter ({error or type(error).__name__}); {told.interrupted()}",
            ExitCode.UNREACHABLE,
        ) from error


class _Told:
    """Says what became of each letter, and counts."""

    def __init__(self, order: Order, letters: dict[str, DeadLetter]) -> None:
        self.order = order
        self.done = self.refused = 0
        self.published: set[str] = set()
        self._letters = letters
        self._said = time.monotonic()

    def publish(self, event: Redriven) -> None:
        """A letter is in the log."""
        self.done += 1
        self.published.add(event.letter)
        if self.order.json:
            self._json(event.letter, "redriven", id=event.id, place=event.place)
        else:
            workflow = clean(workflow_of(self._letters[event.letter]))
            write(f"{short(event.letter)}  {event.place}  {event.id}  {workflow}")
        if not sys.stdout.isatty() and time.monotonic() - self._said > TELL_SECONDS:
            self._said = time.monotonic()
            say(f"{self.done:,} published so far")

    def would(self, event: NewEvent) -> None:
        """A letter could be published."""
        self.done += 1
        place = f"{event.topic}/{event.partition}"
        if self.order.json:
            self._json(event.letter, "would_redrive", id=event.header("ce_id"), place=place)
        else:
            workflow = clean(workflow_of(self._letters[event.letter]))
            write(f"{short(event.letter)}  would go to {place}  {len(event.value):,} bytes  {workflow}")

    def refuse(self, letter_id: str, why: str) -> None:
        """A letter cannot be published."""
        self.refused += 1
        if self.order.json:
            self._json(letter_id, "refused", why=why)
        say(f"{short(letter_id)} refused: {why}")

    def _json(self, letter_id: str, status: str, **more: str) -> None:
        letter = self._letters[letter_id]
        about = {
            "letter": letter_id,
            "agent": letter.agent,
            "workflow": workflow_of(letter),
            "status": status,
        }
        write_json(about | more)

    def interrupted(self) -> str:
        """Say how far it came."""
        if self.order.dry_run:
            return "interrupted; nothing was published"
        on = (
            "those that are done would be repeated by --again: name the others"
            if self.order.again
            else ("the same command goes on with the rest, without copies")
        )
        return f"{_letters(self.done)} published before that; {on}"

    def finish(self) -> None:
        """Say what it came to."""
        if not self.done and not self.refused:
            return
        sentence = (
            f"nothing was published: it was a dry run, of {_letters(self.done)}"
            if self.order.dry_run
            else f"{_letters(self.done)} published again"
        )
        say(sentence + (f", {self.refused:,} refused" if self.refused else ""))


def _letters(count: int) -> str:
    return f"{count:,} letter{'s' * (count != 1)}"


async def _edited(
    reader: Reader, asked: Sequence[DeadLetter], letters: Sequence[DeadLetter], order: Order
) -> tuple[dict[str, bytes], Path | None]:
    """Take the value that goes in place of the letter's, by its id, and the file it was typed into."""
    if order.edited is None and not order.editor:
        return {}, None
    if len(asked) != 1:
        raise CommandError("only one letter at a time can be edited: name it by its id", ExitCode.USAGE)
    if asked[0] not in letters:
        return {}, None  # it is refused anyway
    if order.edited is not None:
        return {asked[0].id: order.edited}, None
    edited, file = _from_editor(await whole(reader, asked[0]))
    return {asked[0].id: edited}, file


@contextmanager
def _kept_until_published(typed: Path | None, letters: Iterable[str], told: _Told) -> Iterator[None]:
    """Remove what a user typed when it is in the log; whatever else happens, say where it is."""
    try:
        yield
    finally:
        if typed is not None and told.published.issuperset(letters):
            typed.unlink(missing_ok=True)
        elif typed is not None:
            say(f"the edited value is kept: give it with --edit {shlex.quote(str(typed))}")


def _from_editor(letter: DeadLetter) -> tuple[bytes, Path]:
    """Let the user edit a letter's value; gives it, and the file it is in.

    Raises:
        CommandError: If it is not changed, or no value of its kind; then the file is kept.
    """
    editor = _editor()
    value = letter.record.value or b""
    try:
        text = json.dumps(json.loads(value), ensure_ascii=False, indent=2) + "\n"
    except (ValueError, RecursionError):
        text = value.decode(errors="replace")
    with NamedTemporaryFile("w", prefix="callboard-", suffix=".json", delete=False, encoding="utf-8") as file:
        file.write(text)
    path = Path(file.name)
    # Ctrl-C in the editor is the editor's. A handler instead of ignoring it, because that would be inherited.
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        ended = subprocess.run([*editor, path], check=False)  # noqa: S603 (the user's own editor)
    except OSError as error:
        path.unlink()
        raise CommandError(
            f"the editor {editor[0]!r} cannot be started ({error.strerror}): set VISUAL or EDITOR, or"
            " give a value with --edit",
            ExitCode.USAGE,
        ) from None
    finally:
        signal.signal(signal.SIGINT, previous)
    try:
        path.chmod(OWNERS)  # an editor may have made it anew
        edited = path.read_bytes()
    except OSError as error:
        raise CommandError(f"nothing was published: cannot read {path} ({error.strerror})") from None
    if ended.returncode:
        raise CommandError(f"nothing was published: {editor[0]} ended with {ended.returncode}; see {path}")
    if edited == text.encode():
        path.unlink()
        raise CommandError(
            "nothing was published: the value was not changed (without --editor it goes as it is)"
        )
    try:
        checked(letter, edited)
    except RedriveError as error:
        raise CommandError(f"{error}. It is kept: correct {path} and give it with --edit") from None
    return edited, path


def _editor() -> list[str]:
    """Give the user's editor as a command."""
    for variable in ("VISUAL", "EDITOR"):
        chosen = os.environ.get(variable, "")
        try:
            command = shlex.split(chosen)
        except ValueError as error:
            raise CommandError(
                f"{variable} is {chosen!r}, which is no command: {error}", ExitCode.USAGE
            ) from None
        if command:
            return command
    return ["vi"]
