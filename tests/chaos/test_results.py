"""Rows of results are stored by fault: a run of some leaves the others as they are."""

from .__main__ import Row, cells, merged
from .checker import check
from .history import Application, History
from .scenarios import SCENARIOS

NOTHING = check(History(Application(prefix="", follows={})))


def row(name: str, seed: int, size: str = "normal") -> Row:
    scenario = next(it for it in SCENARIOS if it.name == name)
    return Row(scenario, size, 1, NOTHING, 0, seed, 1.0, [])


def test_rows_are_put_in_the_place_of_those_of_the_same_fault_and_size() -> None:
    stored = merged("", [row("F5", 1), row("F11", 2), row("F5", 5, "full")])
    stored = merged(stored, [row("F1", 3), row("F5", 4)])
    lines = [line.strip("| ").split(" | ") for line in stored.splitlines() if line.startswith("| F")]
    assert [line[0].split()[0] for line in lines] == ["F1", "F5", "F5", "F11"]
    seed = cells(row("F1", 77)).index("77")
    assert [line[seed] for line in lines] == ["3", "4", "5", "2"]
    assert merged(stored, []) == stored
