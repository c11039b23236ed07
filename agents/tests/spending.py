"""The account of one run, kept in memory: does what a worker's does, without rates and in plain sight."""

from agents.core.budget import Budget, Spent
from agents.core.errors import BudgetExceededError


class Spending:
    """Lives as long as the run, over all its attempts."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.spent = Spent()
        self._reserved: dict[int, int] = {}
        self._next = 1

    @property
    def left(self) -> Budget:
        """What the run may still spend, without what is reserved."""
        reserved = Spent(len(self._reserved), sum(self._reserved.values()))
        return self.budget.minus(self.spent + reserved)

    async def reserve(self, tokens: int) -> int:
        left = self.left
        if left.calls == 0 or (left.tokens is not None and left.tokens < tokens):
            raise BudgetExceededError(f"{tokens} tokens are more than {left}")
        number, self._next = self._next, self._next + 1
        self._reserved[number] = tokens
        return number

    def settle(self, number: int, spent: Spent) -> None:
        del self._reserved[number]
        self.charge(spent)

    def charge(self, spent: Spent) -> None:
        self.spent += spent
