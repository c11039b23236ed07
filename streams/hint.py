"""What a commit says beside its offset, in the group's own commit metadata: a hint for whoever reads on.

Losing it never loses work or repeats a payment, it only costs reading: which later offsets are finished
already, and how often members began on this partition and did not come to an orderly end. Never larger than
the broker takes.
"""

import base64
import binascii
from dataclasses import dataclass

VERSION = "cb1"
# The broker's offset.metadata.max.bytes; one character more, and it refuses the commit.
MAX_CHARACTERS = 4_096
# Of the encoded set: in base64, with everything else, it stays below that.
MAX_DONE_BYTES = 2_600


@dataclass(frozen=True, slots=True)
class Hint:
    """What is known about a partition from its committed offset on.

    Attributes:
        cluster: Id of the cluster the offsets are of.
        starts: Members that began and did not give the partition up in an orderly way, the present one
            included, since somebody got past what they died of; 0: none.
        until: While several began in vain, the record they died of is below this offset.
        reach: One after the highest offset the present member started.
        done: Finished offsets above the committed one, as the runtime encodes them.
    """

    cluster: str
    starts: int = 0
    until: int = 0
    reach: int = 0
    done: bytes = b""

    def text(self) -> str:
        """Write it as commit metadata."""
        done = base64.b64encode(self.done).decode()
        return f"{VERSION} {self.cluster} {self.starts} {self.until} {self.reach} {done}"


def read(text: str | None, cluster: str) -> Hint:
    """Read commit metadata; what is missing, of another cluster or not ours tells nothing."""
    nothing = Hint(cluster)
    parts = (text or "").split(" ")
    if len(parts) != 6 or parts[0] != VERSION or parts[1] != cluster:  # noqa: PLR2004 (as `text` writes it)
        return nothing
    try:
        starts, until, reach = map(int, parts[2:5])
        return Hint(cluster, starts, until, reach, base64.b64decode(parts[5], validate=True))
    except (ValueError, binascii.Error):
        return nothing


def begin(before: Hint, position: int, *, slots: int) -> Hint:
    """Tell what is committed before anything of an assignment is started.

    A member that dies takes with it what it had started and not finished. Those were below `reach`, or among
    the last few that started after it was committed: there cannot be more of them than slots. What several in
    a row may have died of is in all of these ranges.

    Args:
        before: What the last commit said.
        position: The committed offset.
        slots: Runs at the same time.
    """
    last = max(before.reach, position) + slots
    until = min(before.until, last) if before.until else last
    if before.starts and position < until:
        return Hint(before.cluster, before.starts + 1, until, position, before.done)
    return Hint(before.cluster, 1, 0, position, before.done)


def marks(hint: Hint) -> bool:
    """Tell whether runs of events below `until` are begun in the journal first: a member died before."""
    return hint.starts > 1  # the present one comes on top


def careful(hint: Hint) -> bool:
    """Tell whether those that were under way in a death are run one at a time: two members died before."""
    return hint.starts > 2  # noqa: PLR2004 (as above)


def isolates(hint: Hint, begun: frozenset[int]) -> bool:
    """Tell whether an event is run no more: three members died, the last two of them with it under way.

    The first death is not marked, and members that are killed from outside die with whatever is under way:
    one death in common is no sign, nor are two with another one between. The last two are, because the very
    last one ran it alone.
    """
    return hint.starts > 3 and {hint.starts - 1, hint.starts - 2} <= begun  # noqa: PLR2004 (as above)


def end(hint: Hint) -> Hint:
    """Tell what is committed when a member gives a partition up in an orderly way: it did not die.

    What others died of before it is not cleared by that: it may not have come to it.
    """
    if not marks(hint):
        return Hint(hint.cluster, 0, 0, hint.reach, hint.done)
    return Hint(hint.cluster, hint.starts - 1, hint.until, hint.until, hint.done)


def go_on(hint: Hint, offset: int, *, reach: int, done: bytes) -> Hint:
    """Tell what is committed while a member works: past what others died of, they are forgotten."""
    if offset >= hint.until:
        return Hint(hint.cluster, 1, 0, reach, done)
    return Hint(hint.cluster, hint.starts, hint.until, reach, done)
