"""Where Callboard keeps what it has on this machine, when nobody says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_home() -> Path:
    """Return the folder for what Callboard keeps on disk: ``CALLBOARD_HOME``, else the platform's place.

    The platform's place is ``~/Library/Application Support/callboard`` on macOS, and ``callboard`` under
    ``XDG_DATA_HOME`` (default ``~/.local/share``) elsewhere. Nothing is created.
    """
    if chosen := os.environ.get("CALLBOARD_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "callboard"
    # The XDG specification: a relative path in this variable is to be ignored.
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "callboard"
