"""Dead letters as people and programs read them."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from streams.command_line.history_view import size
from streams.command_line.output import clean, one_line
from streams.command_line.record_json import iso, text, value_of
from streams.dead_letters import DeadLetter
from streams.envelope import place
from streams.redrive import Redriven, is_result, workflow_of

SHORT_ID = 8
AGENT_CHARACTERS = 16
ERROR_CHARACTERS = 300
SHOWN_CHARACTERS = 20_000
SHOWN_BYTES = 1_000

Before = Mapping[str, Sequence[Redriven]]


def print_table(console: Console, letters: Sequence[DeadLetter], before: Before) -> None:
    """Show a line for each letter; on a terminal, the error is cut to what is left of the line."""
    rows = [_cells(letter, before) for letter in letters]
    if not console.is_terminal:
        for row in rows:
            console.print("  ".join(row), soft_wrap=True)
        return
    for row in rows:
        row[0] = row[0][5:19].replace("T", " ")
        row[2] = one_line(row[2], AGENT_CHARACTERS)
    heads = ["time (UTC)", "id", "agent", "reason", "tries", "error"]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(5)]
    left = max(10, console.width - sum(widths) - 2 * len(widths))
    for row, letter in zip((heads, *rows), (None, *letters), strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        is_dim = letter is None or before.get(letter.id)
        line = Text("  ".join([*cells, one_line(row[5], left)]), style="dim" if is_dim else "")
        console.print(line, soft_wrap=True)


def _cells(letter: DeadLetter, before: Before) -> list[str]:
    failure = letter.failure
    error = one_line(f"{failure.error_type}: {failure.message}", ERROR_CHARACTERS)
    return [
        iso(letter.record.timestamp),
        short(letter.id),
        clean(letter.agent),
        one_line(failure.reason, 20),
        str(failure.attempts),
        f"(redriven) {error}" if before.get(letter.id) else error,
    ]


def short(identity: str) -> str:
    """Shorten a letter's id to what is usually enough to name it."""
    return clean(identity[:SHORT_ID])


def print_letter(console: Console, letter: DeadLetter, before: Sequence[Redriven]) -> None:
    """Show everything about one."""
    failure = letter.failure
    lines = [
        ("letter", letter.id),
        ("agent", f"{letter.agent}, version {letter.agent_version}"),
        ("reason", failure.reason),
        ("error", f"{failure.error_type}: {failure.message}"),
        ("attempts", str(failure.attempts)),
        ("first tried", failure.first_time or "never"),
        ("given up", letter.time),
        ("event", f"{'result' if is_result(letter) else 'task'} at {letter.origin}"),
        ("kept at", place(letter.record)),
        ("workflow", f"{workflow_of(letter)}; look with: callboard show {workflow_of(letter)}"),
        ("run", letter.run),
    ]
    if letter.parts > 1:
        lines.append(("parts", f"one of {letter.parts} of a join, which are published again together"))
    lines += [
        ("redriven", f"{_when(event)} as {event.place}, id {event.id}: {event.because or 'no reason given'}")
        for event in before
    ] or [("redriven", "never")]
    lines.append(("key", repr(text(letter.record.key)) if letter.record.key is not None else "none"))
    lines += [("header", f"{name}: {_header(value)}") for name, value in letter.headers]
    for name, words in lines:
        line = Text(f"{name:<12}", style="dim")
        line.append(clean(words), style=f"not dim {'red' if name == 'error' else ''}".strip())
        console.print(line, soft_wrap=True)
    _print_value(console, letter)


def _when(event: Redriven) -> str:
    return iso(event.timestamp) if event.timestamp is not None else "just now"


def _header(value: bytes | None) -> str:
    shown = text(value)
    return shown if isinstance(shown, str) else "none" if shown is None else repr(value)


def _print_value(console: Console, letter: DeadLetter) -> None:
    value = letter.record.value
    if value is None:
        why = (
            f"not kept, because no record takes its {letter.omitted_bytes:,} bytes"
            if letter.omitted_bytes is not None
            else "null"
        )
        console.print(Text("value       ", style="dim").append(why, style="not dim"), soft_wrap=True)
        return
    try:
        shown = json.dumps(json.loads(value), ensure_ascii=False, indent=2)
        what, limit = "JSON", SHOWN_CHARACTERS
    except (ValueError, RecursionError):
        shown, what, limit = repr(value), "no JSON", SHOWN_CHARACTERS
    console.print(Text(f"value       {what}, {size(len(value))}", style="dim"), soft_wrap=True)
    if sys.stdout.isatty() and len(shown) > limit:
        shown = f"{shown[:limit]}…\nand so on; all of it: callboard dead show {short(letter.id)} --json"
    console.print(Text(clean(shown)), soft_wrap=True)


def as_json(letter: DeadLetter, before: Sequence[Redriven]) -> dict[str, Any]:
    """Give a letter without its event."""
    return {
        "id": letter.id,
        "agent": letter.agent,
        "agent_version": letter.agent_version,
        "reason": letter.failure.reason,
        "error": {"type": letter.failure.error_type, "message": letter.failure.message},
        "attempts": letter.failure.attempts,
        "first_time": letter.failure.first_time,
        "time": letter.time,
        "workflow": workflow_of(letter),
        "run": letter.run,
        "parts": letter.parts,
        "kind": "result" if is_result(letter) else "task",
        "origin": letter.origin,
        "place": place(letter.record),
        "size": letter.size,
        "redriven": [
            {"id": it.id, "place": it.place, "because": it.because, "time": _when(it)} for it in before
        ],
    }


def details_json(letter: DeadLetter, before: Sequence[Redriven]) -> dict[str, Any]:
    """Give a letter with its event; headers as pairs in their order, because names may repeat."""
    return as_json(letter, before) | {
        "omitted_bytes": letter.omitted_bytes,
        "key": text(letter.record.key),
        "headers": [[name, text(value)] for name, value in letter.headers],
        "value": value_of(letter.record),
    }
