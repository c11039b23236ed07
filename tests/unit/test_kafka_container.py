"""How the broker of the container tests is started, as far as it can be checked without Docker."""

import os
import subprocess
from pathlib import Path

from tests.containers.kafka_container import OUTSIDE, PORT, compose_broker, start_command, tell_command


def test_kafka_starts_when_it_is_told_its_address(tmp_path: Path) -> None:
    run, told = tmp_path / "run", str(tmp_path / "address")
    run.write_text('#!/bin/sh\nprintf %s "$KAFKA_ADVERTISED_LISTENERS"\n')
    run.chmod(0o700)
    environment = compose_broker()["environment"]
    with subprocess.Popen(
        start_command(environment, run=str(run), told=told),
        stdout=subprocess.PIPE,
        env=os.environ | environment,
    ) as kafka:
        assert kafka.poll() is None
        subprocess.run(tell_command("192.0.2.7:32771", told=told), check=True)
        output, _ = kafka.communicate(timeout=20)
    doors = dict(door.split("://") for door in output.decode().split(","))
    inside = dict(door.split("://") for door in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert doors == inside | {OUTSIDE: "192.0.2.7:32771"}


def test_an_address_is_no_program(tmp_path: Path) -> None:
    told = tmp_path / "address"
    subprocess.run(tell_command(f"$(touch {tmp_path}/harm)", told=str(told)), check=True)
    assert told.read_text() == f"$(touch {tmp_path}/harm)"
    assert [each.name for each in tmp_path.iterdir()] == ["address"]


def test_the_port_is_that_of_the_outer_listener() -> None:
    listeners = compose_broker()["environment"]["KAFKA_LISTENERS"].split(",")
    assert f"{OUTSIDE}://:{PORT}" in listeners
