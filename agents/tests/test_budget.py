"""Budgets: their text, how they are divided and added up, and the account of one run."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.core import AgentConfig, Budget
from agents.core.budget import MOST, Spent

caps = st.none() | st.integers(min_value=0, max_value=10**12)
budgets = st.builds(Budget.of, caps, caps, caps)
steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(calls=20, tokens=100_000, usd="0.50"), "calls=20;tokens=100000;usd=0.50"),
        (Budget(), ""),
        (Budget(calls=0), "calls=0"),
        (Budget(usd=3), "usd=3.00"),
        (Budget(usd="0.000001"), "usd=0.000001"),
        (Budget(usd="12.3456"), "usd=12.3456"),
    ],
)
def test_a_budget_as_text(budget: Budget, text: str) -> None:
    assert budget.format() == text
    assert Budget.parse(text) == budget


@steady
@given(budgets)
def test_any_budget_survives_its_text(budget: Budget) -> None:
    assert Budget.parse(budget.format()) == budget


@pytest.mark.parametrize("text", ["usd=1", "usd=1.0", "tokens=3;calls=1", "calls=007"])
def test_text_of_others_is_read_too(text: str) -> None:
    assert Budget.parse(Budget.parse(text).format()) == Budget.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "calls",
        "calls=",
        "calls=-1",
        "calls=1.5",
        "calls=1e3",
        "calls=1;calls=2",
        "calls=1;",
        ";",
        "eur=1",
        "usd=.5",
        "usd=1.",
        "usd=NaN",
        "usd=0.0000001",
        "calls=\u0661",
        f"calls={MOST + 1}",
        f"usd={MOST}",
        " calls=1",
        "micro_usd=1",
    ],
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no cap; write e.g. calls=20|validation error"):
        Budget.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [{"calls": -1}, {"usd": "0.0000001"}, {"usd": "NaN"}, {"usd": -1}, {"seconds": 3}, {"tokens": 1.5}],
)
def test_a_wrong_budget_is_refused_when_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Budget(**wrong)


def test_money_is_exact() -> None:
    assert Budget(usd="0.1").micro_usd == 100_000
    assert Budget.merge([Budget(usd="0.1")] * 3).micro_usd == 300_000
    assert Budget.of(None, None, 1).format() == "usd=0.000001"


@steady
@given(budgets, st.integers(min_value=1, max_value=7))
def test_shares_add_up_to_the_whole(budget: Budget, shares: int) -> None:
    parts = budget.split(shares)
    assert len(parts) == shares
    assert Budget.merge(parts) == budget
    for cap in ("calls", "tokens", "micro_usd"):
        sizes = [getattr(part, cap) for part in parts]
        assert sizes == [None] * shares or max(sizes) - min(sizes) <= 1


def test_a_sum_with_a_part_without_a_cap_has_none() -> None:
    assert Budget.merge([Budget(calls=1, tokens=2), Budget(calls=3)]) == Budget(calls=4)
    assert Budget.merge([]) == Budget()


def test_what_is_left_is_never_below_zero() -> None:
    left = Budget(calls=1, tokens=10, usd="0.5").minus(Spent(2, 4, 5, 600_000))
    assert left == Budget(calls=0, tokens=1, usd=0)
    assert Budget().minus(Spent(2, 4, 5, 6)) == Budget()
    assert Budget(usd="0.5").minus(Spent(1, 1, 1)) == Budget(usd="0.5")  # nobody knows the price


@steady
@given(budgets, budgets)
def test_the_stricter_of_two(one: Budget, other: Budget) -> None:
    assert one.within(other) == other.within(one)
    for cap in ("calls", "tokens", "micro_usd"):
        both = [value for budget in (one, other) if (value := getattr(budget, cap)) is not None]
        assert getattr(one.within(other), cap) == min(both, default=None)


def test_prices_add_up_as_far_as_they_are_known() -> None:
    assert Spent(1, 2, 3) + Spent(4, 5, 6) == Spent(5, 7, 9)
    assert Spent(1, 2, 3, 4) + Spent(1, 1, 1) == Spent(2, 3, 4, 4)
    assert Spent(0, 0, 0, 4) + Spent(0, 0, 0, 5) == Spent(0, 0, 0, 9)


def test_an_agent_takes_a_budget() -> None:
    assert AgentConfig(budget=Budget(calls=3)).budget == Budget(calls=3)
    with pytest.raises(ValidationError):
        AgentConfig(retries=101)
