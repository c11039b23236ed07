"""Log lines: their form, whose event they are about, and that no payload is in them."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from agents.core.task import set_current_task
from agents.logging_config import QUIET, configure_logging
from agents.tests.tasks import a_task


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def log() -> Any:
    """A logger nobody used before, so that no earlier set-up sticks to it."""
    return structlog.stdlib.get_logger("test")


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    said = captured.readouterr()
    assert said.out == ""  # stdout belongs to data
    return [json.loads(line) for line in said.err.splitlines()]


def test_off_a_terminal_a_line_is_json(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    log.warning("run failed", error="x")
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "run failed", "level": "warning", "error": "x"}


def test_on_a_terminal_a_line_is_for_people(
    log: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    configure_logging(terminal=True)
    log.warning("run failed", error="x")
    text = capsys.readouterr().err
    assert re.match(r"\d{4}-\S+ \[warning +\] run failed +error=x", text)


def test_lines_of_other_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(terminal=False)
    logging.getLogger("somebody").error("odd: %s", 3)
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("odd: 3", "error")


@pytest.mark.parametrize("name", ["aiokafka", "aiokafka.consumer.group_coordinator", "faststream", "httpx"])
def test_the_clients_are_quiet_below_warnings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(terminal=False)
    logging.getLogger(name).info("joined")
    logging.getLogger(name).warning("lost")
    assert [line["event"] for line in lines(capsys)] == ["lost"]


def test_the_level_holds_for_everybody(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", terminal=False)
    log.info("mine")
    logging.getLogger("x").info("theirs")
    log.error("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_an_unknown_level_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="unknown log level 'LOUD'; choose one of: CRITICAL"):
        configure_logging("loud")


async def test_a_line_in_a_run_carries_the_ids_of_its_event_and_no_other_line_does(
    log: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(terminal=False)

    async def run(number: int) -> None:
        set_current_task(a_task(id=f"event-{number}"))
        await asyncio.sleep(0)
        log.info("in a run")
        logging.getLogger("library").warning("in a run too")

    await asyncio.gather(run(1), run(2))
    log.info("outside")
    *inside, outside = lines(capsys)
    assert [line["event_id"] for line in inside] == ["event-1", "event-1", "event-2", "event-2"]
    for line in inside:
        assert (line["agent"], line["workflow_id"], line["run_id"]) == ("reader", "flow-1", "ab" * 8)
    assert not {"agent", "event_id", "workflow_id", "run_id"} & outside.keys()


async def test_what_a_line_says_itself_wins(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(terminal=False)
    set_current_task(a_task())
    log.info("x", agent="mine")
    assert lines(capsys)[0]["agent"] == "mine"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("through", ["structlog", "logging"])
def test_a_stack_is_told_without_the_values_on_it(
    through: str, log: Any, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    configure_logging(terminal=terminal)

    def execute(input_data: list[str]) -> None:
        task = a_task(input="".join(input_data))
        raise ValueError(f"too blue for {task.agent}")

    try:
        execute(["ma", "ri", "gold"])
    except ValueError:
        (log if through == "structlog" else logging.getLogger("library")).exception("agent raised")
    text = capsys.readouterr().err
    assert "too blue for reader" in text
    assert "execute" in text
    assert "marigold" not in text


def test_the_kafka_client_does_not_say_the_same_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(terminal=False)
    client = logging.getLogger("aiokafka.conn")
    for moment, text in enumerate(["[Error 6] NotLeaderForPartitionError", "refused", "refused", "refused"]):
        record = client.makeRecord(client.name, logging.ERROR, "f", 1, "Failed: %s", (text,), None)
        record.created = 6.0 * moment
        client.handle(record)
    logging.getLogger("library").error("said")
    logging.getLogger("library").error("said")
    assert [line["event"] for line in lines(capsys)] == ["Failed: refused", "Failed: refused", "said", "said"]
