"""`callboard up`, `status` and `down`: the local Kafka, for people and for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streams.command_line.output import (
    CommandError,
    ExitCode,
    progress,
    reported,
    say,
    settings,
    write,
    write_json,
)

if TYPE_CHECKING:
    from streams.kafka.local_broker import BrokerStatus, LocalBroker
    from streams.settings import Settings

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object: state, bootstrap_servers, pid, data.")
]


@reported
def up(*, json: Json = False) -> None:
    """Start the local Kafka, or use the one that runs.

    Real Apache Kafka on 127.0.0.1, without Docker and without an installed Java. The first start downloads
    80 MB. It goes on running until `callboard down`; records are kept in CALLBOARD_HOME.

    \b
    Example:
        callboard up
        CALLBOARD_KAFKA_PORT=9192 callboard up --json
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    with progress("looking for Kafka") as tell:
        status = local_broker(settings()).up(tell)
    _show(status, json=json)


@reported
def status(*, json: Json = False) -> None:
    """Say whether the local Kafka runs; exit code 1 if it does not.

    States: running; foreign (a Kafka answers that was not started from CALLBOARD_HOME: it is used and never
    stopped); stopped.

    \b
    Example:
        callboard status --json
    """  # noqa: D301 (as above)
    found = local_broker(settings()).status()
    _show(found, json=json)
    if found.state == "stopped":
        raise typer.Exit(ExitCode.FAILED)


@reported
def down(*, json: Json = False) -> None:
    """Stop the local Kafka; records stay on disk.

    \b
    Example:
        callboard down
    """  # noqa: D301 (as above)
    from streams.kafka.local_broker import LocalBrokerError

    with progress("looking for Kafka") as tell:
        try:
            found = local_broker(settings()).down(tell)
        except LocalBrokerError as error:
            raise CommandError(str(error)) from error
    _show(found, json=json)


def local_broker(chosen: Settings) -> LocalBroker:
    """Give the local Kafka that the settings name."""
    from streams.kafka.local_broker import LocalBroker

    return LocalBroker(chosen.home, chosen.kafka_port)


def ensure_kafka(chosen: Settings) -> None:
    """Start the local Kafka unless the user has named another one.

    Raises:
        LocalBrokerError: If it cannot be started.
    """
    if chosen.bootstrap_servers is not None:
        return
    broker = local_broker(chosen)
    before = broker.status()
    if before.state != "stopped":
        return
    with progress("starting the local Kafka (CALLBOARD_BOOTSTRAP_SERVERS is not set)") as tell:
        after = broker.up(tell)
    say(f"the local Kafka serves at {after.bootstrap_servers}; `callboard down` stops it")


def _show(status: BrokerStatus, *, json: bool) -> None:
    if json:
        write_json(status.as_json())
        return
    process = f", pid {status.pid}" if status.pid is not None else ""
    words = {
        "running": f"Kafka is running at {status.bootstrap_servers}{process}",
        "foreign": f"a Kafka that was not started from here answers at {status.bootstrap_servers}",
        "stopped": f"Kafka is stopped (at {status.bootstrap_servers}{process})",
    }
    write(
        words[status.state]
        if status.state == "foreign"
        else f"{words[status.state]}; records in {status.data}"
    )
