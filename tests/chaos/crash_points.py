"""Named places in a worker's work at which it can be made to die, as if it were killed exactly there.

They are put around the product from outside, when the application under test is loaded; the product knows
nothing of them. `CHAOS_CRASH=point:number` dies when the point is reached for the so-manieth time.

    consume   records were read, nothing has been done with them
    intent    the journal says that a call begins; it was not made
    answer    the model has answered; the journal does not say so
    journal   the journal has the answer; the agent did not see it
    produce   a result is acknowledged; its offset is not done
    commit    offsets are about to be committed
    committed offsets were committed, and nobody was told
"""

import os
import signal
from collections.abc import Callable
from typing import Any

VARIABLE = "CHAOS_CRASH"
POINTS = ("consume", "intent", "answer", "journal", "produce", "commit", "committed")

reached: Callable[[str], None] = lambda _point: None  # noqa: E731 (replaced when a crash is asked for)


def install() -> None:
    """Put the crash point that the environment asks for in its place."""
    global reached  # noqa: PLW0603 (one process, one crash)
    point, _, number = os.environ.get(VARIABLE, "").partition(":")
    if not point:
        return
    if point not in POINTS:
        raise ValueError(f"{VARIABLE} names {point!r}; there are {', '.join(POINTS)}")
    left = int(number or 1)
    # Here, because whoever only wants the names of the points is not to load the product.
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415

    from agents.core.llm import AnthropicProvider  # noqa: PLC0415
    from agents.core.runtime import Runtime  # noqa: PLC0415
    from streams.worker import AgentWorker  # noqa: PLC0415

    def count(here: str) -> None:
        nonlocal left
        if here == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    reached = count
    _wrap(AgentWorker, "on_records", before="consume")
    _wrap(AnthropicProvider, "ask", before="intent", after="answer")
    _wrap(AIOKafkaConsumer, "commit", before="commit", after="committed")
    acknowledge = Runtime.acknowledge

    def acknowledged(*given: Any) -> None:
        reached("produce")
        acknowledge(*given)

    Runtime.acknowledge = acknowledged  # type: ignore[assignment,method-assign]  # what this module is for


def _wrap(owner: Any, name: str, *, before: str = "", after: str = "") -> None:
    original = getattr(owner, name)

    async def wrapped(*given: Any, **named: Any) -> Any:
        reached(before)
        answer = await original(*given, **named)
        reached(after)
        return answer

    setattr(owner, name, wrapped)
