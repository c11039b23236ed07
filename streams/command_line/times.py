"""Times and durations as people type them."""

import re
from datetime import UTC, datetime, timedelta

from streams.command_line.output import CommandError, ExitCode

LENGTH = re.compile(r"(\d{1,9})([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(text: str, *, now: datetime | None = None) -> int:
    """Read a time, ISO 8601 or like 10m, 2h, 3d for that long ago; gives milliseconds since 1970.

    Raises:
        CommandError: If it is neither.
    """
    now = now or datetime.now(UTC)
    try:
        if ago := LENGTH.fullmatch(text):
            found = now - timedelta(seconds=int(ago[1]) * SECONDS[ago[2]])
        else:
            found = datetime.fromisoformat(text)
            # Someone who gives no zone means the clock on the wall.
            found = found if found.tzinfo is not None else found.astimezone()
        return max(0, int(found.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise CommandError(
            f"{text!r} is no time: give one like 2026-01-31T12:00:00Z, or how long ago it was, like 10m, 2h"
            " or 3d",
            ExitCode.USAGE,
        ) from None


def seconds(text: str) -> float:
    """Read a duration, like 90s, 10m or 1h; gives seconds.

    Raises:
        CommandError: If it is none.
    """
    length = LENGTH.fullmatch(text)
    if length is None or int(length[1]) == 0:
        raise CommandError(f"{text!r} is no duration: give one like 90s, 10m or 1h", ExitCode.USAGE)
    return float(int(length[1]) * SECONDS[length[2]])
