"""Callboard works with a Kafka in a container as with the local one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .kafka_container import KafkaContainer

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "streams.command_line")


def test_a_task_is_done_with_a_broker_in_a_container(kafka_container: KafkaContainer, tmp_path: Path) -> None:
    environment = os.environ | {
        "CALLBOARD_BOOTSTRAP_SERVERS": kafka_container.bootstrap_servers,
        "CALLBOARD_ALLOW_PLAINTEXT": "true",  # the engine may be on another machine
        "CALLBOARD_LLM": "off",
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*COMMAND, "run", "examples.hello:app", "--port", "0"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=output,
        )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith(b"http://"), log.read_text()
        told = subprocess.run(
            [*COMMAND, "publish", "my_custom", "Say hello", "--wait", "--timeout", "60", "--json"],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert told.returncode == 0, told.stderr + log.read_text()
        assert json.loads(told.stdout)["status"] == "completed"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.communicate()
