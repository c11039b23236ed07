"""A workflow's history for people and for machines: its tree, its report, its JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text
from rich.tree import Tree

from agents.core.task import ArtifactReference
from streams.command_line.output import CommandError, ExitCode, clean, one_line, say, write
from streams.command_line.record_json import iso, value_of
from streams.envelope import place
from streams.history import Entry, Expected, History, State

STYLES = {"completed": "green", "failed": "red", "canceled": "red", "parked": "yellow"}
ERROR_CHARACTERS = 500


def status_of(history: History) -> str:
    """Say in a word how a workflow is: completed, failed, parked or running."""
    if history.finished:
        return "completed" if history.succeeded else "failed"
    return "parked" if any(e.state == State.PARKED for e in history.expected) else "running"


def as_json(history: History) -> dict[str, Any]:
    """Give all that is known about a workflow as JSON types."""
    return {
        "workflow": history.workflow_id,
        "status": status_of(history),
        "events": [_entry_json(history, entry) for entry in history.entries],
        "expected": [
            {
                "agent": expected.agent,
                "state": expected.state.value,
                "round": expected.round,
                "causes": [cause.envelope.id for cause in expected.causes],
            }
            for expected in history.expected
        ],
        "duplicates": [place(record) for record in history.duplicates],
    }


def results_json(history: History) -> list[dict[str, Any]]:
    """Give all results, each as its payload is, with where it is."""
    found = []
    for entry in history.results:
        payload = value_of(entry.record)
        own = {"id": entry.envelope.id, "place": place(entry.record), "leaf": entry in history.leaves}
        found.append(own | (payload if isinstance(payload, dict) else {"value": payload}))
    return found


def print_tree(console: Console, history: History) -> None:
    """Show cause and effect."""
    console.print(_headline(history), soft_wrap=True)
    joined: set[Entry] = set()
    pending = _pending(history)
    for root in history.roots or history.entries[:1]:
        tree = Tree(_label(history, root), guide_style="dim")
        _grow(tree, history, root, pending, joined)
        console.print(tree)
    if left := [entry for entry in history.entries if entry not in joined]:
        console.print(Text("events that answer each other in a circle:"), soft_wrap=True)
        for entry in left:
            console.print(_label(history, entry), soft_wrap=True)
    for expected in history.expected:
        console.print(_still_to_come(expected), soft_wrap=True)
    if history.duplicates:
        places = ", ".join(place(record) for record in history.duplicates)
        console.print(Text(f"published more than once, counted once: {places}"), soft_wrap=True)


def artifact_of(history: History, name: str) -> ArtifactReference:
    """Give the latest artifact of that name.

    Raises:
        CommandError: If there is none.
    """
    found = {artifact.name: artifact for entry in history.entries for artifact in entry.artifacts}
    if name not in found:
        have = ", ".join(sorted(found)) or "none"
        raise CommandError(
            f"workflow {history.workflow_id} has no artifact {name!r}; it has: {have}", ExitCode.NOT_FOUND
        )
    return found[name]


def print_report(console: Console, history: History) -> None:
    """Put what the workflow came to on stdout: a report as Markdown, anything else as it is."""
    leaves = history.leaves
    for number, leaf in enumerate(leaves):
        if len(leaves) > 1:
            if number:
                write("")
            say(f"{leaf.agent}:")
        if leaf.failed:
            error = leaf.error
            why = f"{error.type}: {error.message}" if error is not None else "no reason given"
            say(f"{leaf.agent} {leaf.status}: {why}")
            continue
        output = leaf.result.output if leaf.result is not None else None
        report = output.get("report") if isinstance(output, dict) else None
        if isinstance(report, str):
            _print_markdown(console, report)
        elif isinstance(output, str):
            write(clean(output) if console.is_terminal else output)
        else:
            write(json.dumps(output, ensure_ascii=False, indent=2))


def _print_markdown(console: Console, report: str) -> None:
    if console.is_terminal:
        # Addresses are shown, not hidden behind words: the report was written by somebody else.
        console.print(Markdown(clean(report), hyperlinks=False))
    else:
        write(report)


def _headline(history: History) -> Text:
    status = status_of(history)
    line = Text("workflow ").append(clean(history.workflow_id), style="bold").append("  ")
    line.append(status, style=STYLES.get(status, "cyan"))
    name = next((entry.envelope.workflow for entry in history.results if entry.envelope.workflow), None)
    if name is not None:
        line.append(f"  {one_line(name, 64)}")
    line.append(f"  {iso(_begun(history))}", style="dim")
    if any(entry.envelope.llm == "off" for entry in history.entries):
        line.append("  without a language model", style="dim")
    return line


def _begun(history: History) -> int:
    return min(entry.record.timestamp for entry in history.entries)


def _grow(
    tree: Tree, history: History, entry: Entry, pending: dict[Entry, list[Expected]], shown: set[Entry]
) -> None:
    # A chain of rounds may be longer than Python lets functions nest, so this keeps its own stack.
    stack = [(tree, entry)]
    while stack:
        branch, current = stack.pop()
        shown.add(current)
        for effect in history.effects(current):
            # A join answers several events and is shown once, under the last of them.
            if effect not in shown and _parent(history, effect) is current:
                shown.add(effect)
                stack.append((branch.add(_label(history, effect)), effect))
        for expected in pending.get(current, ()):
            # Whether somebody works on it, or nobody runs, is not in the log.
            state = "parked" if expected.state == State.PARKED else "no result yet"
            branch.add(Text(f"{clean(expected.agent)}  {state}", style="cyan"))


def _parent(history: History, entry: Entry) -> Entry:
    order = {other: number for number, other in enumerate(history.entries)}
    return max(history.causes(entry), key=order.__getitem__)


def _pending(history: History) -> dict[Entry, list[Expected]]:
    found: dict[Entry, list[Expected]] = {}
    for expected in history.expected:
        found.setdefault(expected.causes[-1], []).append(expected)
    return found


def _label(history: History, entry: Entry) -> Text:
    if entry.is_task:
        line = Text("task for ").append(clean(entry.agent), style="bold")
    else:
        line = Text(clean(entry.agent), style="bold").append("  ")
        line.append(clean(entry.status or "unreadable"), style=STYLES.get(entry.status or "", "yellow"))
    line = Text().append_text(line)
    line.append_text(_verdict(entry))
    if entry.seconds is not None:
        line.append(f"  {duration(entry.seconds)}")
    line.append(f"  {place(entry.record)}", style="dim")
    if entry is not history.entries[0]:
        line.append(f"  +{duration((entry.record.timestamp - _begun(history)) / 1000)}", style="dim")
    line.append_text(_again(entry))
    causes = history.causes(entry)
    if len(causes) > 1:
        line.append(f"\nanswers {_listed(cause.agent for cause in causes)}", style="dim")
    if absent := history.absent_causes(entry):
        line.append(f"\nanswers {_listed(absent)}, not found in the log", style="yellow")
    inherited = {artifact for cause in causes for artifact in cause.artifacts}
    if own := [artifact for artifact in entry.artifacts if artifact not in inherited]:
        line.append(
            f"\nartifacts: {', '.join(f'{clean(a.name)} ({size(a.size)})' for a in own)}",
            style="dim",
        )
    if entry.error is not None:
        line.append(
            f"\n{clean(entry.error.type)}: {one_line(entry.error.message, ERROR_CHARACTERS)}", style="red"
        )
    if entry.problem is not None:
        line.append(f"\ncannot be read: {one_line(entry.problem, ERROR_CHARACTERS)}", style="yellow")
    return line


def _verdict(entry: Entry) -> Text:
    verdict = entry.result.verdict if entry.result is not None else None
    text = Text(f" ({one_line(verdict, 40)})" if verdict else "")
    if entry.back is not None:
        text.append(f", back to {clean(entry.back.to)}", style="yellow")
    return text


def _again(entry: Entry) -> Text:
    """Say what happened more than once."""
    text = Text(style="dim")
    if entry.result is not None and entry.result.attempts > 1:
        text.append(f"  {entry.result.attempts} attempts")
    if (redrive := entry.redriven) is not None:
        text.append(f"\nrepeats dead letter {clean(redrive.letter)}")
        text.append(f": {one_line(redrive.reason, ERROR_CHARACTERS)}" if redrive.reason else "")
    return text


def size(count: int) -> str:
    """Write a number of bytes for people."""
    if count < 1024:  # noqa: PLR2004 (a kibibyte)
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def duration(seconds: float) -> str:
    """Write a time for people."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _still_to_come(expected: Expected) -> Text:
    after = _listed(cause.agent for cause in expected.causes if not cause.is_task)
    text = f"waiting for {clean(expected.agent)}" + (f", which follows {after}" if after else "")
    if expected.state == State.PARKED:
        text += ": parked, a person has to decide"
    return Text(text, style="cyan")


def _listed(names: Iterable[str]) -> str:
    *most, last = [clean(name) for name in names] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _entry_json(history: History, entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.envelope.id,
        "kind": "task" if entry.is_task else "result",
        "agent": entry.agent,
        "place": place(entry.record),
        "timestamp": iso(entry.record.timestamp),
        "causes": [cause.envelope.id for cause in history.causes(entry)],
        "absent_causes": list(history.absent_causes(entry)),
        "round": entry.round,
        "status": entry.status,
        "verdict": entry.result.verdict if entry.result is not None else None,
        "seconds": entry.seconds,
        "attempts": entry.result.attempts if entry.result is not None else None,
        "redriven": asdict(entry.redriven) if entry.redriven is not None else None,
        "error": entry.error.model_dump() if entry.error is not None else None,
        "artifacts": [artifact.model_dump() for artifact in entry.artifacts],
        "followers": list(entry.followers),
        "back": entry.back.model_dump(mode="json") if entry.back is not None else None,
        "output": entry.result.output if entry.result is not None else None,
        "problem": entry.problem,
    }
