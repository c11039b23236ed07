"""Joins that wait: what is missing, what came twice, and what went away again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.joins import Joins

KEY, OTHER = ("flow", "round-1"), ("flow", "round-2")
ALL = frozenset("abc")


def waiting(*agents: str) -> Joins[str]:
    joins: Joins[str] = Joins()
    for agent in agents:
        joins.wait(KEY, agent, agent.upper(), ALL)
    return joins


@pytest.mark.parametrize(
    ("have", "agent", "missing"),
    [
        ("", "a", "bc"),
        ("a", "b", "c"),
        ("ab", "c", ""),
        ("a", "a", None),
        ("", "x", "abc"),  # one nobody awaits completes nothing
    ],
)
def test_what_is_missing_once_a_part_is_there(have: str, agent: str, missing: str | None) -> None:
    joins = waiting(*have)
    expected = None if missing is None else frozenset(missing)
    assert joins.missing(KEY, agent, ALL) == expected
    assert joins.missing(OTHER, "a", frozenset("ab")) == {"b"}
    assert len(joins) == bool(have)  # asking changes nothing


def test_what_is_awaited_is_said_by_the_first_part() -> None:
    joins: Joins[str] = Joins()
    joins.wait(KEY, "a", "A", frozenset("ab"))
    assert joins.missing(KEY, "b", ALL) == frozenset()


def test_a_complete_join_gives_its_parts_once() -> None:
    joins = waiting("a", "b")
    assert joins.complete(KEY) == {"a": "A", "b": "B"}
    assert (joins.complete(KEY), len(joins)) == ({}, 0)


def test_a_part_is_forgotten_but_not_another_copy_of_it() -> None:
    first, copy = ["part"], ["part"]
    joins: Joins[list[str]] = Joins()
    joins.wait(KEY, "a", first, ALL)
    joins.forget(KEY, "a", copy)
    assert joins.missing(KEY, "a", ALL) is None
    joins.forget(OTHER, "a", first)
    joins.forget(KEY, "b", first)
    assert joins.missing(KEY, "a", ALL) is None
    joins.forget(KEY, "a", first)
    assert len(joins) == 0


@given(st.permutations("abc"))
def test_the_last_part_completes_whichever_it_is(order: list[str]) -> None:
    joins: Joins[str] = Joins()
    for agent in order[:-1]:
        assert joins.missing(KEY, agent, ALL)
        joins.wait(KEY, agent, agent, ALL)
    assert joins.missing(KEY, order[-1], ALL) == frozenset()
    assert joins.complete(KEY).keys() == set(order[:-1])
