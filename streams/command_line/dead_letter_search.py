"""Finds dead letters in the log, and which of them were published again."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from streams.command_line.log_search import MOST_CANDIDATES, SHORTEST_PREFIX, TELL_SECONDS
from streams.command_line.output import CommandError, ExitCode, progress
from streams.command_line.times import moment
from streams.dead_letters import REASONS, DeadLetter
from streams.kafka.reader import Reader
from streams.redrive import Redriven, agents_of, letters, redriven_before
from streams.topics import Topics

# Letters of one run are written at once; those of a join are looked at together, whatever the moment chosen.
TOGETHER_MS = 60_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are wanted.

    Attributes:
        agents: Whose; empty: everybody's.
        reasons: Why; empty: whatever the reason.
        since: Milliseconds since 1970, or none.
    """

    agents: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    since: int | None = None

    @property
    def is_set(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.agents or self.reasons or self.since is not None)

    def takes(self, letter: DeadLetter) -> bool:
        """Tell whether a letter is wanted."""
        return (
            (not self.agents or letter.agent in self.agents)
            and (not self.reasons or letter.failure.reason in self.reasons)
            and (self.since is None or letter.record.timestamp >= self.since)
        )


@dataclass(frozen=True, slots=True)
class Letters:
    """What was found.

    Attributes:
        agents: Whose dead letters were looked at.
        known: All that are there, oldest first.
        before: As what they were published again, by letter id.
    """

    agents: tuple[str, ...]
    known: tuple[DeadLetter, ...]
    before: Mapping[str, Sequence[Redriven]]

    def matching(self, wanted: Filter) -> list[DeadLetter]:
        """Give those that are wanted, oldest first."""
        return [letter for letter in self.known if wanted.takes(letter)]

    def one(self, wanted: str) -> DeadLetter:
        """Give the letter with this id, or the only one whose id begins like this.

        Raises:
            CommandError: If there is none, or several.
        """
        text = wanted.strip().lower()
        if len(text) < SHORTEST_PREFIX:
            raise CommandError(
                f"{wanted!r} is too short: give at least {SHORTEST_PREFIX} characters of the letter's id",
                ExitCode.USAGE,
            )
        found = [letter for letter in self.known if letter.id.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(letter.id for letter in found[:MOST_CANDIDATES])
            more = " and more" if len(found) > MOST_CANDIDATES else ""
            raise CommandError(
                f"several letters begin with {wanted!r}: {shown}{more}; give more of the id", ExitCode.USAGE
            )
        if not self.agents:
            raise CommandError(
                f"no dead letter {wanted!r}: no application with agents has run here yet", ExitCode.NOT_FOUND
            )
        where = f"of {', '.join(self.agents)}"
        raise CommandError(
            f"no dead letter {wanted!r} among the {len(self.known):,} {where}; see callboard dead list",
            ExitCode.NOT_FOUND,
        )


def filter_of(agents: Sequence[str] | None, reasons: Sequence[str] | None, since: str | None) -> Filter:
    """Read what the options say.

    Raises:
        CommandError: If a reason or the time is none.
    """
    for reason in reasons or ():
        if reason not in REASONS:
            raise CommandError(
                f"{reason!r} is no reason; letters have one of: {', '.join(REASONS)}", ExitCode.USAGE
            )
    return Filter(tuple(agents or ()), tuple(reasons or ()), None if since is None else moment(since))


async def find_letters(reader: Reader, names: Topics, wanted: Filter) -> Letters:
    """Read the letters of the wanted agents and time, and what became of them.

    Raises:
        CommandError: If an agent was named that has none of these topics.
    """
    there = agents_of(await reader.topics(), names)
    for agent in wanted.agents:
        if agent not in there:
            known = f"there are: {', '.join(there)}" if there else "there is none yet"
            raise CommandError(f"there is no agent {agent!r} here; {known}", ExitCode.NOT_FOUND)
    agents = tuple(agent for agent in there if not wanted.agents or agent in wanted.agents)
    since = None if wanted.since is None else max(0, wanted.since - TOGETHER_MS)
    with progress("reading dead letters") as tell:
        read = partial(_telling, tell, "read {:,} dead letters so far")
        found = await letters(reader, names, agents, since=since, tell=_each_second(read))
        searched = partial(_telling, tell, "searched {:,} tasks for letters that were published again")
        before = await redriven_before(reader, names, found, tell=_each_second(searched))
    return Letters(agents, tuple(found), before)


def _telling(tell: Callable[[str], None], sentence: str, number: int) -> None:
    tell(sentence.format(number))


def _each_second(tell: Callable[[int], None]) -> Callable[[int], None]:
    """Pass on one call a second, of many more."""
    told = time.monotonic()

    def call(number: int) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            tell(number)

    return call
