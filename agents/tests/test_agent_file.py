"""The strict loader: what a good file gives, and a corpus of bad ones, each with what it is told."""

import os
from pathlib import Path

import pytest

from agents.core.agent_file import (
    MODEL_IDS,
    MOST_FILES,
    REFUSED,
    AgentDefinition,
    load_file,
    load_folder,
)
from agents.core.errors import AgentFileError, ConfigurationError
from agents.core.frontmatter import MOST_BYTES

GOOD = """\
---
name: some-agent
description: Use when there is something to do.
model: haiku
tools:
  - Read
  - Bash
maxTurns: 8
permissionMode: dontAsk
---

## Job

Do it.
"""


def written(folder: Path, text: str | bytes, name: str = "some-agent") -> Path:
    path = folder / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(AgentFileError) as caught:
        load_file(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    return tuple(problem.removeprefix(f"{path}: ") for problem in caught.value.problems)


def check(folder: Path, text: str | bytes, *expected: str) -> None:
    """Each problem of a file begins or goes on with what is expected of it, and there are no others."""
    found = problems(written(folder, text))
    assert len(found) == len(expected), found
    for problem, fragment in zip(found, expected, strict=True):
        assert fragment in problem


def test_a_good_file_is_a_typed_definition(tmp_path: Path) -> None:
    assert load_file(written(tmp_path, GOOD)) == AgentDefinition(
        name="some-agent",
        description="Use when there is something to do.",
        model="haiku",
        tools=("Read", "Bash"),
        maxTurns=8,
        permissionMode="dontAsk",
        body="## Job\n\nDo it.",
    )


def test_an_alias_has_one_pinned_model(tmp_path: Path) -> None:
    for alias, identity in MODEL_IDS.items():
        definition = load_file(written(tmp_path, GOOD.replace("haiku", alias)))
        assert definition.model_id == identity
        assert identity.startswith(f"claude-{alias}-")


def test_line_ends_of_windows_and_folded_texts_are_read(tmp_path: Path) -> None:
    text = GOOD.replace("Use when there is something to do.", ">-\n  Use when\n  needed.")
    definition = load_file(written(tmp_path, text.replace("\n", "\r\n")))
    assert definition.description == "Use when needed."
    assert definition.body == "## Job\n\nDo it."


def test_a_rule_below_the_frontmatter_belongs_to_the_body(tmp_path: Path) -> None:
    assert load_file(written(tmp_path, GOOD + "\n---\nmore\n")).body.endswith("---\nmore")


def test_an_agent_may_have_no_tools_and_an_effort(tmp_path: Path) -> None:
    text = GOOD.replace("tools:\n  - Read\n  - Bash\n", "tools: []\neffort: low\n")
    definition = load_file(written(tmp_path, text))
    assert (definition.tools, definition.effort) == ((), "low")


@pytest.mark.parametrize(
    ("line", "instead", "expected"),
    [
        ("name: some-agent", "name: other-agent", "name: it is 'other-agent'; write 'some-agent'"),
        ("name: some-agent", "name: Some-Agent", "name: 'Some-Agent' cannot be taken: write lower-case"),
        ("name: some-agent", "name: some--agent", "write lower-case letters, digits and single hyphens"),
        ("name: some-agent", "name: ../some-agent", "write lower-case letters"),
        ("name: some-agent", "name: 12", "name: 12 cannot be taken: input should be a valid string"),
        ("name: some-agent", f"name: {'a' * 64}", "at most 63 characters"),
        ("name: some-agent\n", "", "name: it is missing; write the file's name"),
        ("description: Use when there is something to do.\n", "", "description: it is missing; write when"),
        ("Use when there is something to do.", "''", "description: '' cannot be taken: write when"),
        ("Use when there is something to do.", "' '", "description: ' ' cannot be taken: write when"),
        ("Use when there is something to do.", '"a\\u202e"', "it has the invisible character U+202E"),
        ("maxTurns: 8", 'maxTurns: 8\n"\\e[2J": x', "'\\x1b[2J': refused"),
        ("Use when there is something to do.", "yes", "description: True cannot be taken"),
        ("Use when there is something to do.", "x" * 1001, "at most 1000 characters"),
        ("model: haiku\n", "", "model: it is missing; write one of haiku, sonnet, opus"),
        ("model: haiku", "model: inherit", "an agent that runs by itself inherits no model"),
        ("model: haiku", "model: claude-haiku-5-5", "versions are pinned in one place"),
        ("model: haiku", "model: gpt", "write one of haiku, sonnet, opus"),
        ("model: haiku", "model: [haiku]", "model: ['haiku'] cannot be taken"),
        ("tools:\n  - Read\n  - Bash\n", "", "tools: it is missing; write a YAML list of all it may use"),
        ("tools:\n  - Read\n  - Bash\n", "tools:\n", "tools: None cannot be taken: write a YAML list"),
        ("tools:\n  - Read\n  - Bash\n", "tools: Read, Bash\n", "write a YAML list, one tool a line"),
        ("  - Bash", "  - '*'", "'*' is refused: it stands for every tool there is"),
        (
            "  - Bash",
            "  - Bash(kubectl *)",
            "a pattern neither restricts nor allows anything here; write 'Bash'",
        ),
        ("  - Bash", "  - Bash(", "write 'Bash'"),
        ("  - Bash", "  - Agent", "an agent that starts others"),
        ("  - Bash", "  - WebFetch", "cannot be had again for an audit"),
        ("  - Bash", "  - mcp__server__tool", "an agent has the tools of `tools` alone"),
        ("  - Bash", "  - bash", "'bash' is not known; write some of Read, "),
        ("  - Bash", "  - Kubectl", "'Kubectl' is not known"),
        ("  - Bash", "  - 7", "7 is no name of a tool"),
        ("  - Bash", "  - {Bash: all}", "{'Bash': 'all'} is no name of a tool"),
        ("  - Bash", "  - Read", "'Read' is there twice"),
        ("  - Bash", "  - Rеad", "is not known"),  # noqa: RUF001 (a Cyrillic letter)
        ("maxTurns: 8\n", "", "maxTurns: it is missing; write how often"),
        ("maxTurns: 8", "maxTurns: 0", "greater than or equal to 1; an agent that may go on without an end"),
        ("maxTurns: 8", "maxTurns: -3", "greater than or equal to 1"),
        ("maxTurns: 8", "maxTurns: 51", "less than or equal to 50"),
        ("maxTurns: 8", "maxTurns: true", "maxTurns: True cannot be taken: input should be a valid integer"),
        ("maxTurns: 8", "maxTurns: '8'", "maxTurns: '8' cannot be taken"),
        ("maxTurns: 8", "maxTurns: .inf", "maxTurns: inf cannot be taken"),
        ("permissionMode: dontAsk\n", "", "permissionMode: it is missing; write `dontAsk`"),
        ("permissionMode: dontAsk", "permissionMode: bypassPermissions", "do more than its file says"),
        ("permissionMode: dontAsk", "permissionMode: acceptEdits", "do more than its file says"),
        ("maxTurns: 8", "maxTurns: 8\neffort: huge", "effort: 'huge' cannot be taken"),
        (
            "maxTurns: 8",
            "maxTurns: 8\nmax_turns: 9",
            "'max_turns': refused; no such field is known, only name",
        ),
        ("maxTurns: 8", "maxTurns: 8\ntool: x", "'tool': refused; no such field is known"),
        ("maxTurns: 8", "maxTurns: 8\nbody: x", "`body` is no field"),
        ("maxTurns: 8", "maxTurns: 8\n1: x", "'1': refused; no such field is known"),
        ("\n## Job\n\nDo it.\n", "\n \n", "there is no text below the frontmatter"),
    ],
)
def test_a_wrong_field_is_told_with_what_to_write(
    tmp_path: Path, line: str, instead: str, expected: str
) -> None:
    assert GOOD.count(line) == 1
    check(tmp_path, GOOD.replace(line, instead), expected)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_may_do_more_than_tools_say_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    check(tmp_path, GOOD.replace("model:", f"{name}: []\nmodel:"), f"{name}: refused; {REFUSED[name]}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "there is no frontmatter; the first line has to be `---`"),
        ("# A document\n", "there is no frontmatter"),
        (f"\n{GOOD}", "there is no frontmatter"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "line 1 has the invisible character U+FEFF"),
        (GOOD.encode("utf-16"), "it is no UTF-8"),
        (GOOD.encode() + b"\xff", "it is no UTF-8 (byte 1"),
        ("---\nname: x\n", "the frontmatter has no end"),
        ("---\n---\ntext\n", "the frontmatter has no fields"),
        ("---\n- a\n---\ntext\n", "the frontmatter has no fields"),
        (GOOD.replace("to do.", "to do ---"), "line 3: `---` within the frontmatter; others take it"),
        (GOOD.replace("tools:", "# ---- tools\ntools:"), "line 5: `---` within the frontmatter"),
        ("---\ntools: [a\n---\ntext\n", "the frontmatter is no YAML that can be read"),
        (
            "---\ntools: *\n---\ntext\n",
            "line 2: the frontmatter is no YAML that can be read: while scanning an alias",
        ),
        ("---\na: b: c\n---\ntext\n", "not allowed here; quote a text that has `: ` in it"),
        (
            "---\na: &x [1]\nb: *x\n---\ntext\n",
            "line 3: the frontmatter is no YAML that can be read: references",
        ),
        (
            "---\na: 1\n<<: {b: 1}\n---\ntext\n",
            "line 3: the frontmatter is no YAML that can be read: merging",
        ),
        (
            "---\na: 1\na: 2\n---\ntext\n",
            "line 3: the frontmatter is no YAML that can be read: 'a' is there twice",
        ),
        ("---\na: {b: 1, b: 2}\n---\ntext\n", "'b' is there twice"),
        ("---\na: !!python/object/apply:os.getcwd []\n---\ntext\n", "the frontmatter is no YAML"),
        ("---\n? [a]\n: b\n---\ntext\n", "the frontmatter is no YAML"),
        (f"---\na: {'[' * 20_000}\n---\ntext\n", "the frontmatter is no YAML"),
        (GOOD + "é" * MOST_BYTES, f"it has more than {MOST_BYTES} bytes"),
        (GOOD + "zero\u200bwidth", "line 15 has the invisible character U+200B; remove it"),
        (GOOD + "turned\u202e", "line 15 has the invisible character U+202E"),
        (GOOD + "\U000e0041", "U+E0041"),
        (GOOD + "a\x1b[2J", "U+001B"),
        (GOOD + "a\rb", "U+000D"),
        (GOOD.replace("Use", "Use\0"), "line 3 has the invisible character U+0000"),
    ],
)
def test_what_is_no_agent_file_is_told_apart(tmp_path: Path, text: str | bytes, expected: str) -> None:
    check(tmp_path, text, expected)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("haiku", "gpt").replace("maxTurns: 8", "maxTurns: 0").replace("Bash", "'*'")
    check(tmp_path, text, "model: 'gpt'", "tools: ['Read', '*']", "maxTurns: 0")


def test_a_long_value_is_shown_in_part(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, GOOD.replace("- Bash", f"- {'B' * 5000}")))
    assert len(problem) < 500


def test_a_folder_is_no_file_and_neither_is_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    for name in ("folder", "pipe", "absent"):
        assert problems(tmp_path / f"{name}.md") == ("it is no file",)


def test_a_folder_gives_all_agents_by_name(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    written(tmp_path, GOOD.replace("some-agent", "another"), "below/another")
    (tmp_path / "notes.txt").write_text("no agent")
    assert list(load_folder(tmp_path)) == ["another", "some-agent"]


def test_a_folder_tells_all_that_is_wrong_in_all_its_files(tmp_path: Path) -> None:
    first = written(tmp_path, GOOD.replace("haiku", "inherit"))
    second = written(tmp_path, "# notes", "readme")
    with pytest.raises(ConfigurationError) as caught:
        load_folder(tmp_path)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(second), str(first)]


def test_two_agents_of_one_name_are_refused(tmp_path: Path) -> None:
    first = written(tmp_path, GOOD, "a/some-agent")
    second = written(tmp_path, GOOD, "b/some-agent")
    with pytest.raises(AgentFileError) as caught:
        load_folder(tmp_path)
    assert caught.value.problems == (f"{second}: {first} has the name 'some-agent', too; rename one",)


def test_an_empty_or_absent_folder_and_one_with_too_much_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(AgentFileError, match=r"there is no agent; write one as NAME\.md"):
            load_folder(folder)
    for number in range(MOST_FILES + 1):
        (tmp_path / f"{number}.md").touch()
    with pytest.raises(AgentFileError, match=rf"more than {MOST_FILES} agents"):
        load_folder(tmp_path)
