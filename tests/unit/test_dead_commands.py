"""The commands around dead letters without a broker: what is chosen and what is shown."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from streams.command_line.dead_letter_search import Filter, Letters, filter_of
from streams.command_line.dead_letter_view import details_json, print_letter, print_table
from streams.command_line.output import CommandError, ExitCode
from streams.dead_letters import REASONS, DeadLetter, Failure, read, write
from streams.redrive import Redriven
from tests.unit.worker_world import TIME, FakeRecord

ID = "3f9a0000-0000-8000-8000-000000000000"
AGAIN = Redriven(ID, "new", "tasks.reader/1/9", "fixed \x1b[2J", TIME)


def letter(identity: str = ID, agent: str = "reader", **more: Any) -> DeadLetter:
    event = FakeRecord(f"tasks.{agent}", 7, b'{"input": "\\u001b[31m"}', (("mine", b"\x1b[2J"),))
    failure = Failure("not_retryable", "ValueError", "no\x1b[31m\nway " + "x" * 500, 2, None)
    (made,) = write([event], failure, run="r", agent=agent, agent_version="3")
    found = read(FakeRecord(f"dead.{agent}", 4, made.value, tuple(made.headers), made.key))
    assert found is not None
    return replace(found, id=identity, **more)


def shown(show: Callable[[Console], None], *, terminal: bool = True) -> str:
    file = io.StringIO()
    width = 80 if terminal else 10_000
    show(Console(file=file, force_terminal=terminal, color_system=None, width=width, highlight=False))
    return file.getvalue()


def test_the_table_fits_a_terminal_and_steers_none() -> None:
    long = letter("4" + ID[1:], "an_agent_with_a_name_of_some_length")
    text = shown(lambda console: print_table(console, [letter(), long], {ID: [AGAIN], long.id: []}))
    lines = text.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["time", "(UTC)", "id", "agent", "reason", "tries", "error"]
    assert "3f9a0000" in lines[1]
    assert "(redriven) " in lines[1]
    assert "(redriven) " not in lines[2]
    assert "\x1b" not in text


def test_in_a_file_nothing_is_cut_but_the_error() -> None:
    name = "an_agent_with_a_name_of_some_length"
    text = shown(lambda console: print_table(console, [letter(agent=name)], {}), terminal=False)
    assert text.count("\n") == 1
    assert text.startswith(
        "2026-01-31T12:00:00.000Z  3f9a0000  " + name + "  not_retryable  2  ValueError: no"
    )


def test_everything_about_a_letter() -> None:
    text = shown(lambda console: print_letter(console, letter(), [AGAIN]))
    for words in (
        ID,
        "reader, version 3",
        "task at tasks.reader/0/7",
        "callboard show tasks.reader/0/7",
        "tasks.reader/1/9, id new: fixed",
        "JSON, ",
    ):
        assert words in text
    assert "\x1b[2J" not in text


@pytest.mark.parametrize(
    ("value", "omitted", "said"),
    [(b"\xff\x00", None, r"b'\xff\x00'"), (None, None, "null"), (None, 3_000_000, "3,000,000 bytes")],
)
def test_a_value_that_is_no_json(value: bytes | None, omitted: int | None, said: str) -> None:
    record = FakeRecord("dead.reader", 4, value)
    odd = letter(record=record, omitted_bytes=omitted)
    assert said in shown(lambda console: print_letter(console, odd, []))


def test_json_has_it_all() -> None:
    found = json.loads(json.dumps(details_json(letter(), [AGAIN])))
    assert found["id"] == ID
    assert found["value"] == {"input": "\x1b[31m"}
    assert found["headers"] == [["mine", "\x1b[2J"]]
    assert found["redriven"][0]["place"] == "tasks.reader/1/9"


def test_a_letter_is_found_by_the_beginning_of_its_id() -> None:
    one, two = letter(), letter("3f9b" + ID[4:])
    found = Letters(("reader",), (one, two), {})
    assert found.one("3F9A") is one
    assert found.one(two.id) is two
    for wanted, code, said in (
        ("3f9", ExitCode.USAGE, "too short"),
        ("ffff", ExitCode.NOT_FOUND, "among the 2 of reader"),
    ):
        with pytest.raises(CommandError, match=said) as caught:
            found.one(wanted)
        assert caught.value.code == code
    with pytest.raises(
        CommandError, match=r"^no dead letter 'ffff': no application with agents has run here"
    ):
        Letters((), (), {}).one("ffff")
    same = Letters(("reader",), (one, letter("3f9a1" + ID[5:])), {})
    with pytest.raises(CommandError, match=f"several.*{ID}") as caught:
        same.one("3f9a")
    assert caught.value.code == ExitCode.USAGE


def test_letters_are_chosen_by_agent_reason_and_time() -> None:
    assert filter_of(None, list(REASONS), None).takes(letter())
    assert Filter(("reader",), ("not_retryable",), TIME).takes(letter())
    for other in (Filter(("b",)), Filter(reasons=("poison",)), Filter(since=TIME + 1)):
        assert other.is_set
        assert not other.takes(letter())
    assert not Filter().is_set
