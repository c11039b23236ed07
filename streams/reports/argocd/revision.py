"""The commit that is expected, and whether a revision Argo CD names is that one."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SHORTEST = 7
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ABBREVIATED = re.compile(rf"[0-9a-f]{{{SHORTEST},64}}")


class NoCommitError(ValueError):
    """What was given is no commit; the message says what to give instead."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A commit, in full or abbreviated."""

    text: str

    def matches(self, revision: str) -> bool:
        """Tell whether a revision is this commit; a branch, a tag or a chart's version never is."""
        return bool(is_commit(revision)) and revision.lower().startswith(self.text)

    def among(self, revisions: Iterable[str]) -> bool:
        """Tell whether one of them is."""
        return any(self.matches(revision) for revision in revisions)


def is_commit(revision: str) -> bool:
    """Tell whether it is a commit in full, as Argo CD writes it when it has found one."""
    return COMMIT.fullmatch(revision.lower()) is not None


def expected(text: str) -> Expected:
    """Take a commit's SHA, or its beginning.

    Raises:
        NoCommitError: If it is something else, such as a branch.
    """
    found = text.strip().lower()
    if ABBREVIATED.fullmatch(found):
        return Expected(found)
    if re.fullmatch(rf"[0-9a-f]{{1,{SHORTEST - 1}}}", found):
        raise NoCommitError(
            f"{text!r} is too short: at least {SHORTEST} digits of the commit's SHA are needed"
        )
    raise NoCommitError(
        f"{text!r} is no commit's SHA; a branch or tag moves, so it cannot show which commit is deployed:"
        " give the SHA, which `git rev-parse` tells"
    )
