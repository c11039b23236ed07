"""Follows one workflow to its end while people watch."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from streams.command_line.history_view import duration
from streams.command_line.output import CommandError, ExitCode, clean, one_line, say, stderr
from streams.history import History, Progress, State
from streams.kafka.reader import Place, Reader
from streams.topics import Topics

STYLES = {
    State.WAITING: "dim",
    State.WORKING: "cyan",
    State.PARKED: "yellow",
    State.DONE: "green",
    State.FAILED: "red",
}
MARKS = {State.WAITING: "·", State.PARKED: "‖", State.DONE: "✓", State.FAILED: "✗"}
SILENCE_SECONDS = 10.0
# A join of fewer may still run beside a parked run. Whether it does is not in the log, so it gets this long.
PARKED_SECONDS = 30.0


class Watched:
    """What a person sees of a workflow that runs: a line per agent, redrawn on a terminal."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live
        self._since: dict[tuple[str, State], float] = {}
        self._told: set[tuple[str, State]] = set()
        self._spinners: dict[str, Spinner] = {}

    def show(self, history: History) -> None:
        """Show where everybody is."""
        lines = history.progress
        for line in lines:
            self._since.setdefault((line.agent, line.state), time.monotonic())
        if self._live is not None:
            self._live.update(self._table(lines))
            return
        for line in lines:
            if (line.agent, line.state) not in self._told:
                self._told.add((line.agent, line.state))
                say(f"{line.agent}: {line.state.value}{self._seconds(line)}{_remark(line)}")

    def _table(self, lines: list[Progress]) -> Table:
        table = Table.grid(padding=(0, 1))
        for line in lines:
            style = STYLES[line.state]
            mark = MARKS.get(line.state)
            table.add_row(
                Text(mark, style=style) if mark is not None else self._spinner(line.agent),
                Text(clean(line.agent), style="bold"),
                Text(line.state.value, style=style),
                Text(self._seconds(line, running=True).strip(" ()"), style="dim"),
                Text(one_line(_remark(line).removeprefix(": "), 60), style=style),
            )
        return table

    def _spinner(self, agent: str) -> Spinner:
        # One object per agent, because it remembers which of its pictures comes next.
        if agent not in self._spinners:
            self._spinners[agent] = Spinner("dots", style="cyan")
        return self._spinners[agent]

    def _seconds(self, line: Progress, *, running: bool = False) -> str:
        if line.entry is not None:
            return f" ({duration(line.entry.seconds)})" if line.entry.seconds is not None else ""
        if running and line.state == State.WORKING:
            return f" ({time.monotonic() - self._since[line.agent, line.state]:.0f} s)"
        return ""


@contextmanager
def watched() -> Iterator[Watched]:
    """Open a view on stderr; closing it leaves its last picture."""
    console = stderr()
    if not console.is_terminal:
        yield Watched(console, None)
        return
    with Live(console=console, refresh_per_second=10) as live:
        yield Watched(console, live)


async def positions(reader: Reader, names: Topics, agent: str, partition: int) -> dict[Place, int]:
    """Tell where a workflow that is about to begin will leave its events.

    Everything an application publishes about a task has the task's partition number, and its topics are all
    there before its agents are. So this is known before the task is published, and nothing is missed.
    """
    topics = {topic for topic in await reader.topics() if names.has_events(topic)}
    wanted = {names.tasks(agent)} | {
        topic for topic in topics if topic == names.results(names.agent_of(topic) or "")
    }
    places = [place for place in await reader.partitions(wanted) if place[1] == partition]
    return await reader.end_offsets(places)


async def follow(  # noqa: PLR0913 (time comes in as an argument)
    reader: Reader,
    starts: Mapping[Place, int],
    history: History,
    view: Watched,
    limit: float | None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read until the workflow is finished, or a person has to decide how it goes on.

    Args:
        reader: Reads the log.
        starts: Where, from `positions`.
        history: Takes what is found.
        view: Shows it.
        limit: Seconds to wait, or none for ever.
        clock: Monotonic seconds.

    Raises:
        CommandError: If it takes longer.
    """
    begun = newest = clock()
    asked = False
    async with aclosing(reader.follow(starts)) as records:
        async for record in records:
            now = clock()
            if record is not None and history.add(record):
                newest = now
            view.show(history)
            if history.finished:
                return
            if history.stuck or (history.perhaps_stuck and now - newest > PARKED_SECONDS):
                _say_parked(history)
                return
            waited = now - begun
            if limit is not None and waited > limit:
                missing = ", ".join(expected.agent for expected in history.expected) or "any agent"
                raise CommandError(
                    f"not finished after {limit:g} s, waiting for {missing}; it goes on without you, look"
                    f" again with: callboard show {history.workflow_id}",
                    ExitCode.TIMED_OUT,
                )
            if not asked and not history.results and waited > SILENCE_SECONDS:
                asked = True
                say(
                    f"no agent has answered for {SILENCE_SECONDS:.0f} s; if none runs, start it in another"
                    " terminal: callboard run MODULE:APP"
                )


def _say_parked(history: History) -> None:
    for entry in history.parked:
        error = entry.error
        run = entry.result.run if entry.result is not None else None
        why = f"{error.type}: {error.message}" if error is not None else "it gave no reason"
        say(
            f"{entry.agent} is parked{f' (run {run})' * (run is not None)} and does not go on: {why};"
            f" publish its task again (callboard publish {entry.agent} ...), or leave it"
        )
    parked = {entry.agent for entry in history.parked}
    if behind := dict.fromkeys(each.agent for each in history.expected if each.agent not in parked):
        why = "can only come after that" if history.stuck else "may be waiting for that"
        say(f"no longer waiting for what {why}: {', '.join(behind)}")


def _remark(line: Progress) -> str:
    if line.entry is None or line.entry.result is None:
        return ""
    if line.entry.error is not None:
        return f": {line.entry.error.type}: {one_line(line.entry.error.message, 200)}"
    return f": {line.entry.result.verdict}" if line.entry.result.verdict else ""
