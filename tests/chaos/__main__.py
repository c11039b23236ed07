"""Breaks everything that can be broken on one machine, and says what was lost, repeated or out of order.

python -m tests.chaos                        every fault, about ten minutes
python -m tests.chaos --size slice           a quick run of some, always the same
python -m tests.chaos --only F1,F5 --seed 7  some of them, again
python -m tests.chaos --only F1 --kills 60 --tasks 20000
"""

import argparse
import asyncio
import logging
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .checker import Report, Violation, check
from .fleet import StuckError
from .scenarios import SCENARIOS, SETTLE_SECONDS, Scenario, Size
from .stage import Broker, Settings, stage

RESULTS = Path(__file__).with_name("RESULTS.md")
SHOWN = 12
SLICE_SEED = 1
SIZES = ("normal", "full", "slice")
OWN = "own"  # none of these


@dataclass(frozen=True)
class Row:
    """What came of one scenario."""

    scenario: Scenario
    size: str
    trials: int
    report: Report
    left: int
    seed: int
    seconds: float
    problems: list[str]

    @property
    def broken(self) -> list[Violation]:
        """Violations that are not only counted."""
        return [it for it in self.report.violations if it.kind not in self.scenario.tolerated]

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.broken or self.left or self.problems)


HEAD = (
    "fault",
    "size",
    "trials",
    "tasks",
    "lost",
    "duplicate finals",
    "order breaks",
    "repeated calls: journaled",
    "in doubt (in flight)",
    "other violations",
    "seed",
    "seconds",
)


def cells(row: Row) -> tuple[str, ...]:
    """Give a row of the table."""
    report, counts = row.report, row.report.counts
    listed = (
        "lost",
        "duplicate result",
        "second outcome",
        "order break",
        "overlap",
        "repeated call, journaled",
    )
    other = sum(violation.kind not in listed for violation in row.broken)
    return (
        f"{row.scenario.name} {row.scenario.title}",
        row.size,
        f"{row.trials:,}",
        f"{counts['tasks']:,}",
        f"{counts['lost']:,}",
        f"{report.number('duplicate result', 'second outcome'):,}",
        f"{report.number('order break', 'overlap'):,}",
        f"{report.number('repeated call, journaled'):,}",
        f"{counts['in doubt']:,} ({counts['in flight at faults']:,})",
        f"{other:,}",
        str(row.seed),
        f"{row.seconds:.0f}",
    )


async def play(  # noqa: PLR0913 (what a scenario needs)
    scenario: Scenario, size: Size, broker: Broker, folder: Path, settings: Settings, *, keep: bool
) -> Row:
    """Play a scenario and check its history, which is kept if anything is wrong, or always."""
    name = next((it for it in SIZES if scenario.size(it) == size), OWN)
    began = time.monotonic()
    async with stage(settings, broker, folder) as here:
        trials, stuck = 0, []
        try:
            trials = await scenario.play(here, size)
        except StuckError as error:
            stuck.append(str(error))
        settled = await here.settle(SETTLE_SECONDS)
        history = await here.history()
        problems = stuck + here.problems()
        good, calls = sum(it.expect == "result" for it in history.published), len(history.calls)
        if calls < good:
            problems.append(
                f"{calls} model calls for {good} tasks: too few got so far for this to show anything"
            )
        left = 0 if settled else sum(here.left.values())
    report = await asyncio.to_thread(check, history)
    row = Row(scenario, name, trials, report, left, settings.seed, time.monotonic() - began, problems)
    if keep or row.failed:
        history.save(folder / "history")
    return row


async def play_all(
    scenarios: list[Scenario], given: argparse.Namespace, seed: int, broker: Broker, folder: Path
) -> list[Row]:
    """Play scenarios at the same time, and say of each what came of it."""

    async def one(scenario: Scenario) -> Row:
        size = scenario.size(given.size)
        size = Size(given.kills or size.trials, given.tasks or size.tasks)
        here, name = folder / scenario.name, f"{scenario.name} {scenario.title}"
        print(f"{name}: {size.trials} trials, {size.tasks} tasks, seed {seed}", flush=True)
        settings = scenario.settings_for(seed)
        row = await play(scenario, size, broker, here, settings, keep=given.folder is not None)
        again = f"--only {scenario.name} --kills {size.trials} --tasks {size.tasks} --seed {seed}"
        tell(row, here, f"python -m tests.chaos {again}")
        return row

    async with asyncio.TaskGroup() as group:
        playing = [group.create_task(one(scenario)) for scenario in scenarios]
    return [task.result() for task in playing]


def groups(chosen: list[Scenario], *, quick: bool) -> list[list[Scenario]]:
    """Tell what is played at the same time: in the quick run all that can be, as they mostly wait."""
    if not quick:
        return [[scenario] for scenario in chosen]
    shared = [scenario for scenario in chosen if not scenario.alone]
    return [*([shared] if shared else []), *([scenario] for scenario in chosen if scenario.alone)]


def tell(row: Row, folder: Path, again: str) -> None:
    """Print what came of a scenario, and how to play it again."""
    print(f"{row.scenario.name} {row.scenario.title}: {'BROKEN' if row.failed else 'as promised'}")
    print("  " + ", ".join(f"{number} {what}" for what, number in sorted(row.report.counts.items())))
    print(f"  {', '.join(' '.join(it) for it in zip(cells(row)[1:], HEAD[1:], strict=True))}")
    for violation in row.broken[:SHOWN]:
        print(f"  {violation}")
    if len(row.broken) > SHOWN:
        print(f"  and {len(row.broken) - SHOWN} more")
    if row.left:
        print(f"  {row.left} records were not finished, and nothing moved for {SETTLE_SECONDS:.0f} s")
    for problem in row.problems:
        print(f"  the stage itself: {problem}")
    if row.failed:
        print(f"  again: {again}")
        print(f"  kept: {folder}; check it again: python -m tests.chaos.checker {folder / 'history'}")
    sys.stdout.flush()


def table(rows: list[Row]) -> str:
    """Make a Markdown table."""
    return "\n".join(map(_line, [HEAD, tuple("---" for _ in HEAD), *map(cells, rows)]))


def _line(cells_: Sequence[str]) -> str:
    return f"| {' | '.join(cells_)} |"


def merged(stored: str, rows: list[Row]) -> str:
    """Give what is stored with these rows in the place of those of the same faults and sizes."""
    lines = [line for line in stored.splitlines() if line.startswith("| F")]
    known = {_fault_and_size(line): line for line in lines}
    today = datetime.now(UTC).date().isoformat()
    new = [_line((*cells(row), today)) for row in rows]
    known |= {_fault_and_size(line): line for line in new}
    keys = [(scenario.name, size) for scenario in SCENARIOS for size in (*SIZES, OWN)]
    ordered = [known[key] for key in keys if key in known]
    return (
        "# What breaking it showed\n\n"
        "Written by `python -m tests.chaos --write`, row by row; last with Apache Kafka 4.3.1 on the same\n"
        f"machine as everything else ({platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}).\n\n"
        f"{chr(10).join([_line((*HEAD, 'date')), _line(['---'] * (len(HEAD) + 1)), *ordered])}\n\n"
        "What each column means, and what is only counted, is in README.md. No violation in n trials is a\n"
        "rate below 3/n with 95 % confidence, not a proof.\n"
    )


def _fault_and_size(line: str) -> tuple[str, str]:
    fault, size = line.strip("| ").split(" | ")[:2]
    return fault.split()[0], size


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", help="faults by number, separated by commas")
    parser.add_argument("--size", choices=SIZES, default="normal", help="slice: the quick run; full: an hour")
    parser.add_argument("--kills", "--trials", type=int, help="trials of each fault")
    parser.add_argument("--tasks", type=int, help="tasks of each fault")
    parser.add_argument(
        "--seed",
        type=int,
        default=None,
        help="by default a new one, which is printed; of the quick run always the same",
    )
    parser.add_argument("--folder", type=Path, help="keep everything here, histories too")
    parser.add_argument("--write", action="store_true", help=f"store the rows in {RESULTS.name}")
    return parser.parse_args()


def main() -> int:
    """Play what is asked for."""
    given = arguments()
    quick = given.size == "slice"
    everything = [scenario.name for scenario in SCENARIOS if scenario.slice is not None or not quick]
    wanted = given.only.split(",") if given.only else everything
    chosen = [scenario for scenario in SCENARIOS if scenario.name in wanted]
    if unknown := set(wanted) - {scenario.name for scenario in chosen}:
        print(
            f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in SCENARIOS)}"
        )
        return 2
    seed = given.seed
    if seed is None:
        seed = SLICE_SEED if quick else int(time.time()) % 100_000
    folder = given.folder or Path(tempfile.mkdtemp(prefix="callboard-chaos-"))
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that no worker, provider or broker stays behind
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that brokers go away is the point
    broker = Broker(folder / "kafka")
    broker.up()
    rows: list[Row] = []
    try:
        for together in groups(chosen, quick=quick):
            rows += asyncio.run(play_all(together, given, seed, broker, folder))
    finally:
        broker.down()
    rows.sort(key=lambda row: SCENARIOS.index(row.scenario))
    print(table(rows))
    if given.write:
        RESULTS.write_text(merged(RESULTS.read_text() if RESULTS.exists() else "", rows))
    if not any(row.failed for row in rows) and given.folder is None:
        shutil.rmtree(folder)
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
