"""Blocks what the agents of `.claude/agents/` may not do; whatever others do passes untouched.

Claude Code runs this before every tool call (`.claude/settings.json`), with the call as JSON on stdin. What
an agent may do is in `allowed_commands.json`, and nowhere else. Exit code 2 blocks a call, and stderr says
why. Any other failure Claude Code takes for leave to go on: so what cannot be read, is not known or goes
wrong ends with 2.

A call without `agent_type` is the main thread's; its rules are the user's, and no concern of this file. The
same goes for agents that the table does not name. Needs only the standard library of whatever `python3`
there is.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
import unicodedata
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HOOKS = Path(__file__).resolve().parent
PROJECT = HOOKS.parent.parent
TABLE = HOOKS / "allowed_commands.json"

# The main thread's calls come here, too, with whole files in them.
LONGEST_CALL = 16 * 1024 * 1024
LONGEST_COMMAND = 2_000
# Less than the settings give it: Claude Code lets a call pass that is not judged in time.
MOST_SECONDS = 20
BLOCKED = 2
VERSION = 1

# A word is bare or quoted as a whole, and nothing in it means anything to a shell: no operator, substitution,
# redirection, glob, brace, comment, escape, home folder, history or line end, and nothing beyond ASCII.
BARE = r"[A-Za-z0-9_./:=,@%+-]+"
QUOTED = r"[A-Za-z0-9_./:=,@%+ ()\[\]-]*"
WORD = rf"""(?:{BARE}|"{QUOTED}"|'{QUOTED}')"""
SIMPLE_COMMAND = re.compile(rf"{WORD}(?: +{WORD})*")

BASH_INPUTS = {"command", "description", "timeout", "run_in_background"}
HARMLESS = {"StructuredOutput"}  # only says what the agent reports
READ_INPUTS = {"file_path", "offset", "limit", "pages"}


GRANT = {
    "hookEventName": "PreToolUse",
    "permissionDecision": "allow",
    "permissionDecisionReason": "listed in .claude/hooks/allowed_commands.json",
}


class BlockedError(Exception):
    """The call must not happen; the message says why, and what may be done instead."""


def main() -> int:
    """Judge the call on stdin; give the exit code."""
    signal.alarm(MOST_SECONDS)  # ends the process, and the shell that started it makes 2 of that
    try:
        call = parsed(sys.stdin.buffer.read(LONGEST_CALL + 1))
        if grants(call):
            sys.stdout.write(json.dumps({"hookSpecificOutput": GRANT}))
    except BlockedError as error:
        sys.stderr.write(f"Blocked by .claude/hooks/guard.py: {error}\n")
        return BLOCKED
    except Exception as error:  # noqa: BLE001 (an unforeseen fault must block: any exit code but 2 would not)
        sys.stderr.write(f"Blocked: .claude/hooks/guard.py failed with {type(error).__name__}: {error}\n")
        return BLOCKED
    return 0


def parsed(data: bytes) -> dict[str, Any]:
    """Read a call.

    Raises:
        BlockedError: If it is too long, no JSON object, or says something twice.
    """
    if len(data) > LONGEST_CALL:
        raise BlockedError(f"the call has more than {LONGEST_CALL} bytes")
    try:
        call = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise BlockedError(f"the call is no JSON that can be read: {error}") from None
    if not isinstance(call, dict):
        raise BlockedError("the call is no JSON object")
    return call


def grants(call: dict[str, Any], table: Path = TABLE, project: Path = PROJECT) -> bool:
    """Tell whether a call is allowed here and now; if not, the session's own rules decide.

    Raises:
        BlockedError: If it must not happen.
    """
    if "agent_type" not in call and "agent_id" not in call:
        return False
    agent = call.get("agent_type")
    if not isinstance(agent, str) or not agent:
        raise BlockedError("the call is an agent's, but does not say whose (agent_type)")
    rules = _rules(table)
    if agent not in rules["agents"]:
        return False
    rule = rules["agents"][agent]
    event, tool, given = (call.get(name) for name in ("hook_event_name", "tool_name", "tool_input"))
    if event != "PreToolUse" or not isinstance(tool, str) or not isinstance(given, dict):
        raise BlockedError("the call is not of the form of a PreToolUse event with tool_name and tool_input")
    if tool not in rule["tools"]:
        raise BlockedError(f"{agent} may not use {tool[:100]!r}, only {', '.join(rule['tools'])}")
    if tool == "Bash":
        _check_bash(agent, rule, rules["programs"], given)
        if not isinstance(call.get("cwd"), str) or Path(call["cwd"]).resolve() != project:
            raise BlockedError(f"{agent} runs its command in {project}, not in {call.get('cwd')!r}")
        return True
    if tool == "Read":
        _check_read(agent, rules["secret_files"], given, project)
    elif tool not in HARMLESS:
        raise BlockedError(f"{agent} may not use {tool!r}: the table lists it, but nothing here can judge it")
    return False


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _rules(table: Path) -> dict[str, Any]:
    try:
        rules = json.loads(table.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
        version, agents = rules["version"], rules["agents"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BlockedError(f"the table {table} cannot be read: {error!r}") from None
    if version != VERSION or not isinstance(agents, dict):
        raise BlockedError(f"the table {table} is not of version {VERSION} with agents by name")
    return dict(rules)


def _check_bash(agent: str, rule: dict[str, Any], programs: list[str], given: dict[str, Any]) -> None:
    only = f"{agent} may only run `{rule['usage']}`"
    if given.get("run_in_background", False) is not False or not given.keys() <= BASH_INPUTS:
        raise BlockedError(
            f"{only}, in the foreground, with {', '.join(sorted(BASH_INPUTS))} and nothing else"
        )
    command = given.get("command")
    if not isinstance(command, str) or len(command) > LONGEST_COMMAND:
        raise BlockedError(f"{only}, as a text of at most {LONGEST_COMMAND} characters")
    if not SIMPLE_COMMAND.fullmatch(command):
        raise BlockedError(
            f"{only}, as one plain command on one line: no operators, pipes, redirections, substitutions,"
            f" variables, wildcards or escapes, and quotes only around whole words; not {command[:200]!r}"
        )
    program, *words = shlex.split(command)
    if program not in programs or words[:1] != [rule["command"]]:
        raise BlockedError(f"{only}; not {command[:200]!r}")
    if unfit := _unfit(rule, words[1:]):
        raise BlockedError(f"{only}; {unfit}")


def _unfit(rule: dict[str, Any], words: list[str]) -> str | None:
    """Give what is wrong with a command's arguments, if anything is.

    A rule has `flags`, `options` (each with the pattern of its value, the next word), `arguments` (their
    pattern, and how many there may be) and perhaps a rule for what follows `--`. Patterns match whole words.
    """
    arguments, seen = 0, set()
    rest = iter(words)
    for word in rest:
        if word == "--" and "after_dashes" in rule:
            return _unfit(rule["after_dashes"], list(rest)) or _too_few(rule, arguments)
        if word in rule["flags"] or word in rule["options"]:
            if word in seen:
                return f"{word} is there twice"
            seen.add(word)
            value = next(rest, None) if word in rule["options"] else None
            if word in rule["options"] and (
                value is None or not re.fullmatch(rule["options"][word], value, re.ASCII)
            ):
                return f"{word} may not be {value!r}, only what matches {rule['options'][word]}"
        elif word.startswith("-"):
            return f"{word!r} is not allowed here, only {', '.join([*rule['flags'], *rule['options']])}"
        elif not re.fullmatch(rule["arguments"]["pattern"], word, re.ASCII):
            return f"{word!r} is not allowed here, only what matches {rule['arguments']['pattern']}"
        else:
            arguments += 1
    return _too_few(rule, arguments)


def _too_few(rule: dict[str, Any], arguments: int) -> str | None:
    least, most = rule["arguments"]["least"], rule["arguments"]["most"]
    return None if least <= arguments <= most else f"it takes {least} to {most} arguments, not {arguments}"


def _check_read(agent: str, secret_files: list[str], given: dict[str, Any], project: Path) -> None:
    path = given.get("file_path")
    if not given.keys() <= READ_INPUTS or not isinstance(path, str) or "\0" in path:
        raise BlockedError(f"{agent} may read with {', '.join(sorted(READ_INPUTS))} and nothing else")
    if not path.startswith("/"):
        raise BlockedError(f"{agent} may only read by an absolute path, not {path[:200]!r}")
    given_path, target = Path(path), Path(path).resolve()
    if project not in target.parents:
        raise BlockedError(f"{agent} may only read below {project}, not {path[:200]!r}")
    # By the name it is asked for and by the name it has: one may be a link to the other.
    asked_for = given_path.relative_to(project) if project in given_path.parents else Path(given_path.name)
    for part in (*asked_for.parts, *target.relative_to(project).parts):
        name = unicodedata.normalize("NFKC", part).casefold()
        if any(fnmatchcase(name, pattern) for pattern in secret_files):
            raise BlockedError(f"{agent} may not read {path[:200]!r}: {part[:100]!r} may hold secrets")


if __name__ == "__main__":
    sys.exit(main())
