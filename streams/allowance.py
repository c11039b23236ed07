"""What one run may still spend on models: the account the agents' side asks, kept by the runtime.

The runtime decides, because rates are of all runs together, and because what an earlier attempt spent counts.
"""

from typing import Any

from agents.core.budget import Spent
from agents.core.errors import BudgetExceededError
from agents.core.llm import spent_on
from agents.core.runtime import RefusedError, Runtime
from streams.work import Work


def spent_before(work: Work) -> Spent:
    """Tell what a run took before this process knew it; a call nobody knows the end of counts as one."""
    found = Spent()
    if work.history is not None:
        for key, step in work.history.steps.items():
            if key.kind == "llm" and step.state != "failed":
                found += Spent(calls=1) if step.answer is None else spent_on(step.answer)
    return found


class RunAllowance:
    """The account of one attempt; the runtime's is of all attempts.

    Args:
        runtime: Keeps it.
        number: Of the run.
        work: The run.
    """

    def __init__(self, runtime: Runtime[Any, Any], number: int, work: Work) -> None:
        self._runtime, self._number, self._work = runtime, number, work

    async def reserve(self, tokens: int) -> int:
        """Reserve one call of at most so many tokens, waiting where a rate limit says so.

        Raises:
            BudgetExceededError: If it does not fit into what is left.
        """
        try:
            return await self._runtime.ask(self._number, tokens)
        except RefusedError as refused:
            what = {"calls": "no model calls are left", "money": "no money is left"}.get(
                str(refused), f"a model call of up to {tokens} tokens does not fit into what is left"
            )
            took = self._work.spent
            raise BudgetExceededError(
                f"{what} in the budget of this run; it took {took.calls} calls and {took.tokens}"
                " tokens. Raise the budget (ce_budget, AgentConfig(budget=...)), or lower max_tokens"
            ) from None

    def settle(self, number: int, spent: Spent) -> None:
        """Replace a reservation by what the call really took."""
        self._runtime.spent(number, spent.tokens, spent.micro_usd or 0)
        self._work.spent += spent

    def charge(self, spent: Spent) -> None:
        """Take what was spent before this process knew the run; the runtime was told with the offer."""
        self._work.spent += spent
