"""The header `ce_rounds`: which ways back of its workflow an event has been through, and how often.

It travels with every event, because nobody but the events knows. Form: `step:verdict>to=times`, separated by
commas, the way that was taken last at the end; the verdict is percent-encoded.
"""

import re
from urllib.parse import quote

from agents.core.errors import InvalidInputError
from agents.core.workflow import Back

TAKEN = re.compile(
    r"(?P<way>[a-z][a-z0-9_-]*:[A-Za-z0-9._~%-]+>(?P<to>[a-z][a-z0-9_-]*))=(?P<times>[1-9][0-9]{0,3})"
)


def times(rounds: str | None, back: Back) -> int:
    """Tell how often a way back was taken.

    Raises:
        InvalidInputError: If the header cannot be read.
    """
    return _taken(rounds).get(_way(back), 0)


def once_more(rounds: str | None, back: Back) -> str:
    """Give the header of the event that takes a way back.

    Raises:
        InvalidInputError: If the header cannot be read.
    """
    taken = _taken(rounds)
    way = _way(back)
    taken[way] = taken.pop(way, 0) + 1
    return ",".join(f"{way}={times}" for way, times in taken.items())


def redriven(agent: str) -> str:
    """Give the header of a round that begins at an agent, because its event is published again.

    Joins after it wait for nothing that lies before it.
    """
    return f"{agent}:redrive>{agent}=1"


def entry(rounds: str | None) -> str | None:
    """Tell at which agent the present round began; none if it is the first.

    Raises:
        InvalidInputError: If the header cannot be read.
    """
    if rounds is None:
        return None
    return next(reversed(_taken(rounds))).rpartition(">")[2]


def _way(back: Back) -> str:
    return f"{back.step}:{quote(back.when, safe='')}>{back.to}"


def _taken(rounds: str | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in () if rounds is None else rounds.split(","):
        match = TAKEN.fullmatch(text)
        if match is None or match["way"] in found:
            raise InvalidInputError(
                f"header ce_rounds is {rounds!r}; it has the form step:verdict>step=times, with commas"
            )
        found[match["way"]] = int(match["times"])
    return found
