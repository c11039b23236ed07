"""Secrets that lie in files, as orchestrators mount them: read whole, never shown."""

import os
import stat
from pathlib import Path

import structlog

from agents.core.errors import ConfigurationError

log = structlog.stdlib.get_logger()

MAX_BYTES = 64 * 1024  # nothing that is a password, a token or a key is longer


def read_secret(path: Path, variable: str) -> str:
    """Give what a file holds, without the line's end that editors put there.

    Args:
        path: The file.
        variable: The setting that named it, for errors.

    Raises:
        ConfigurationError: If it cannot be read, is empty, or can be no secret.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, variable, error) from None
    try:
        secret = content.decode().strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{variable} names {str(path)!r}, which is not text in UTF-8") from None
    if not secret or len(content) > MAX_BYTES or "\n" in secret or "\0" in secret:
        raise ConfigurationError(
            f"{variable} names {str(path)!r}, which does not hold one line with a secret in it"
        )
    return secret


def unreadable(path: Path, variable: str, error: OSError) -> ConfigurationError:
    """Say that a file that a setting names cannot be read."""
    return ConfigurationError(
        f"{variable} names {str(path)!r}, which cannot be read: {error.strerror or error}; give the path of a"
        " file that this user may read"
    )


def warn_if_open_to_all(path: Path, variable: str) -> None:
    """Log a warning if every user of this machine may read a file with a secret in it."""
    # Elsewhere the bits do not tell.
    if os.name == "posix" and path.stat().st_mode & stat.S_IROTH:
        log.warning(
            "every user of this machine may read a file with a secret in it; chmod o-r ends that",
            setting=variable,
            file=str(path),
        )
