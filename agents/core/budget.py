"""What a workflow may still spend on models: a value that travels with events, and who keeps count of it.

Budgets are caps on calls, tokens and money. They are split where a workflow forks and summed where it joins:
the whole workflow has one cap. Money is counted in whole micro-dollars; nothing here knows a price.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

MICRO = 1_000_000
MOST = 2**53 - 1  # what every JSON reader still counts exactly
MOST_USD = MOST // MICRO


@dataclass(frozen=True, slots=True)
class Spent:
    """What model calls took; `micro_usd` is none where the price is not known."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens of both directions."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Spent") -> "Spent":
        prices = [price for price in (self.micro_usd, other.micro_usd) if price is not None]
        return Spent(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            sum(prices) if prices else None,
        )


NOTHING = Spent()


class Budget(BaseModel):
    """Caps; a cap that is none does not limit.

    As text, in the header `ce_budget`: `calls=20;tokens=100000;usd=0.50`. Without any cap it is empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    calls: int | None = Field(default=None, ge=0, le=MOST, description="questions to a model")
    tokens: int | None = Field(default=None, ge=0, le=MOST, description="of both directions")
    usd: Decimal | None = Field(
        default=None,
        ge=0,
        le=MOST_USD,
        decimal_places=6,
        description="exact to a millionth: write it as text",
    )

    if TYPE_CHECKING:  # pydantic takes more than a field's type says

        def __init__(
            self,
            *,
            calls: int | None = None,
            tokens: int | None = None,
            usd: Decimal | str | int | None = None,
        ) -> None: ...

    @property
    def micro_usd(self) -> int | None:
        """The money in millionths of a dollar."""
        return None if self.usd is None else int(self.usd * MICRO)

    @classmethod
    def of(cls, calls: int | None, tokens: int | None, micro_usd: int | None) -> Self:
        """Make one from the numbers the runtime counts with."""
        usd = None if micro_usd is None else Decimal(micro_usd) / MICRO
        return cls(calls=calls, tokens=tokens, usd=usd)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the header's text.

        Raises:
            ValueError: If it is no budget, or has a cap of a kind this version does not know: going on would
                lift a cap somebody set.
        """
        caps: dict[str, str] = {}
        for part in text.split(";") if text else ():
            name, equals, value = part.partition("=")
            if not equals or name in caps or name not in cls.model_fields or not _is_number(value, name):
                raise ValueError(
                    f"{part!r} in budget {text[:200]!r} is no cap; write e.g. calls=20;tokens=100000;usd=0.50"
                )
            caps[name] = value
        return cls.model_validate(caps)  # its ValidationError is a ValueError

    def format(self) -> str:
        """Give the header's text; `parse` reads it back."""
        caps = [f"{name}={cap}" for name in ("calls", "tokens") if (cap := getattr(self, name)) is not None]
        if (micro := self.micro_usd) is not None:
            caps.append(f"usd={micro // MICRO}.{_fraction(micro % MICRO)}")
        return ";".join(caps)

    def split(self, shares: int) -> tuple[Self, ...]:
        """Divide it where a workflow forks; the shares add up to exactly this budget, the first get the rest.

        Args:
            shares: How many, at least one.
        """
        parts = [_shares(cap, shares) for cap in (self.calls, self.tokens, self.micro_usd)]
        return tuple(self.of(*caps) for caps in zip(*parts, strict=True))

    def minus(self, spent: Spent) -> Self:
        """Give what is left, never below zero; an unknown price takes no money."""
        return self.of(
            _less(self.calls, spent.calls),
            _less(self.tokens, spent.tokens),
            _less(self.micro_usd, spent.micro_usd or 0),
        )

    def within(self, other: "Budget") -> Self:
        """Give the stricter of both, cap by cap: what a run may spend of its workflow's budget."""
        return self.of(
            _least(self.calls, other.calls),
            _least(self.tokens, other.tokens),
            _least(self.micro_usd, other.micro_usd),
        )

    @classmethod
    def merge(cls, parts: Sequence["Budget"]) -> Self:
        """Add up what the parts of a join have left; where one part has no cap, the sum has none."""
        return cls.of(
            _sum([part.calls for part in parts]),
            _sum([part.tokens for part in parts]),
            _sum([part.micro_usd for part in parts]),
        )


class Allowance(Protocol):
    """Asked before each model call of a run; a worker's also waits for the agent's rate limits."""

    async def reserve(self, tokens: int) -> int:
        """Reserve one call of at most so many tokens, waiting where a rate limit says so.

        Returns:
            The number to `settle` with; exactly once.

        Raises:
            BudgetExceededError: If it does not fit into what is left.
        """

    def settle(self, number: int, spent: Spent) -> None:
        """Replace a reservation by what the call really took."""

    def charge(self, spent: Spent) -> None:
        """Take what was spent before this process knew the run: the usage of replayed answers."""


def _is_number(text: str, name: str) -> bool:
    whole, dot, fraction = text.partition(".")
    digits = whole + fraction
    return (
        digits.isascii()
        and digits.isdigit()
        and bool(whole)
        and (not dot or (name == "usd" and fraction != ""))
    )


def _fraction(micro: int) -> str:
    return f"{micro:06d}".rstrip("0").ljust(2, "0")


def _shares(cap: int | None, shares: int) -> list[int | None]:
    if cap is None:
        return [None] * shares
    each, rest = divmod(cap, shares)
    return [each + (number < rest) for number in range(shares)]


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _less(cap: int | None, spent: int) -> int | None:
    return None if cap is None else max(0, cap - spent)


def _sum(caps: Sequence[int | None]) -> int | None:
    known = [cap for cap in caps if cap is not None]
    return sum(known) if len(known) == len(caps) and caps else None
