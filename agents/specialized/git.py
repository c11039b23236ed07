"""Runs git so that neither a repository nor this machine's settings decide what it does.

No hooks, no user or system configuration, no prompts, no credential helpers, no submodules, no protocol but
the one asked for; bounded in time; a process group of its own that ends with the run.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from agents.core.errors import ConfigurationError, RepositoryError
from agents.subprocesses import Finished, environment_for, run

NULL = "/dev/null"

# These win over a repository's own configuration, which a repository of somebody else's making controls.
SETTINGS = {
    "advice.detachedHead": "false",
    "commit.gpgSign": "false",
    "core.attributesFile": NULL,
    "core.autocrlf": "false",
    "core.excludesFile": NULL,
    "core.fsmonitor": "false",
    "core.hooksPath": NULL,
    "core.pager": "cat",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.quotePath": "false",
    "core.symlinks": "false",
    "credential.helper": "",
    "diff.external": "",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "init.defaultBranch": "main",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "submodule.recurse": "false",
    "transfer.fsckObjects": "true",
}
LIMIT = 60.0
"""Seconds one git command may take."""


async def git(  # noqa: PLR0913 (all but git's own arguments are named)
    *arguments: str | Path,
    folder: Path,
    given: bytes = b"",
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = LIMIT,
    output_limit: int = 64 * 1024 * 1024,
) -> Finished:
    """Run one git command, whatever it ends with.

    Args:
        arguments: What follows `git` on the command line.
        folder: Where it runs.
        given: Its standard input.
        settings: Configuration on top of `SETTINGS`.
        environment: Variables on top of the scrubbed ones.
        seconds: How long it may take.
        output_limit: Bytes kept of what it writes.

    Raises:
        ConfigurationError: If git is not installed.
    """
    configured = {**SETTINGS, **(settings or {})}
    variables = {
        "GIT_ALLOW_PROTOCOL": "none",  # no protocol of that name exists
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": str(len(configured)),
        "GIT_CONFIG_GLOBAL": NULL,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": NULL,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    for number, (name, value) in enumerate(configured.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    variables |= environment or {}
    try:
        return await run(
            ["git", *arguments],
            folder=folder,
            environment=environment_for(Path(tempfile.gettempdir()), **variables),
            seconds=seconds,
            given=given,
            output_limit=output_limit,
        )
    except FileNotFoundError:
        raise ConfigurationError("git is not installed on this worker, or not on its PATH") from None


def checked(finished: Finished, what: str) -> bytes:
    """Give a git command's output.

    Args:
        finished: The command.
        what: What did not work, if it did not; e.g. "the bundle of shop cannot be read".

    Raises:
        RepositoryError: If it failed, took too long or wrote too much.
    """
    if finished.timed_out:
        raise RepositoryError(f"{what}: git took too long")
    if finished.cut:
        raise RepositoryError(f"{what}: git had too much to say, so the repository is too large")
    if finished.code:
        raise RepositoryError(f"{what}: {finished.last_words() or f'git ended with {finished.code}'}")
    return finished.output
