"""Reads patches; applies none."""

import re
from collections.abc import Iterator

from agents.specialized.facts import ChangedFile, clean
from agents.specialized.repository import Checkout

HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
FENCE = re.compile(r"```(?:diff|patch)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
MOST_CHANGED = 200


async def changed_files(checkout: Checkout) -> list[ChangedFile]:
    """Give what changed in a checkout since its commit.

    Raises:
        RepositoryError: If git cannot tell.
    """
    listing = await checkout.difference("--numstat", "-z")
    changed = []
    for entry in filter(None, listing.split(b"\0")):
        insertions, deletions, path = entry.split(b"\t", 2)
        binary = insertions == b"-"
        changed.append(
            ChangedFile(
                path=path.decode(errors="replace"),
                insertions=None if binary else int(insertions),
                deletions=None if binary else int(deletions),
            )
        )
    return changed


async def changed_lines(checkout: Checkout) -> dict[str, set[int]]:
    """Give the numbers of new or changed lines, by path.

    Raises:
        RepositoryError: If git cannot tell.
    """
    return lines_of(await checkout.difference("--unified=0"))


def lines_of(patch: bytes) -> dict[str, set[int]]:
    """Give the numbers that added lines have in the new files, by path; from a patch without context.

    Paths that git quotes, for their control characters or quotes, are left out.
    """
    found: dict[str, set[int]] = {}
    current: set[int] | None = None
    for kind, line in _outside_hunks(patch):
        if kind == "file":
            named = line.startswith(b"+++ b/")
            current = found.setdefault(line[6:].decode(errors="replace"), set()) if named else None
        elif current is not None and (hunk := HUNK.match(line)):
            start, count = int(hunk[2]), int(hunk[3] or 1)
            current.update(range(start, start + count))
    return found


def _outside_hunks(patch: bytes) -> Iterator[tuple[str, bytes]]:
    """Give the lines that say where a change is, and never changed text, whatever it looks like."""
    skip = 0
    for line in patch.split(b"\n"):
        if skip:
            skip -= not line.startswith(b"\\")
        elif hunk := HUNK.match(line):
            skip = int(hunk[1] or 1) + int(hunk[3] or 1)
            yield "hunk", line
        elif line.startswith(b"+++ "):
            yield "file", line


def patch_in(answer: str) -> bytes:
    """Take the unified diff out of a model's answer; empty if there is none."""
    fenced = FENCE.findall(answer)
    text = "\n".join(fenced) if fenced else answer
    start = re.search(r"^(diff --git |--- )", text, re.MULTILINE)
    return (text[start.start() :].rstrip() + "\n").encode() if start else b""


def total(changed: list[ChangedFile]) -> str:
    """Say in words how much changed."""
    if not changed:
        return "nothing changed"
    insertions = sum(file.insertions or 0 for file in changed)
    deletions = sum(file.deletions or 0 for file in changed)
    return clean(f"{len(changed)} file{'s'[: len(changed) > 1]} changed, +{insertions} -{deletions}")
