"""A broker of Apache Kafka's own image for tests: testcontainers only knows Confluent's and Redpanda's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
OUTSIDE = "HOST"  # the listener for clients that are in no container
PORT = 9092
RUN = "/etc/kafka/docker/run"  # what the image does by itself
TOLD = "/tmp/callboard-address"  # noqa: S108 (the container's own)
STARTED = "Kafka Server started"


class KafkaContainer(DockerContainer):
    """The broker of docker-compose.yml, at a port that the engine chooses.

    Kafka tells its clients where to connect next, but what port of this machine leads to a container is only
    known when it runs. So this one runs, waits until it is told, and then starts Kafka.

    Args:
        options: As of DockerContainer, e.g. a network, in which its name is `broker`.
    """

    def __init__(self, **options: Any) -> None:
        broker = compose_broker()
        fixed = {name: broker[name] for name in ("hostname", "cap_drop", "security_opt")}
        super().__init__(broker["image"], env=dict(broker["environment"]), **fixed, **options)
        self.with_exposed_ports(PORT)
        self._command = start_command(broker["environment"])

    @property
    def bootstrap_servers(self) -> str:
        """Where clients outside of containers find it."""
        return f"{self.get_container_host_ip()}:{self.get_exposed_port(PORT)}"

    def start(self) -> Self:
        """Start it, and wait until it serves."""
        super().start()
        told = self.exec(tell_command(self.bootstrap_servers))
        if told.exit_code:
            raise RuntimeError(f"the broker's container cannot be told its address: {told.output.decode()}")
        LogMessageWaitStrategy(STARTED).with_startup_timeout(120).wait_until_ready(self)
        return self


def compose_broker() -> dict[str, Any]:
    """Give what docker-compose.yml says of its broker."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]["broker"]
    return found


def start_command(environment: Mapping[str, str], *, run: str = RUN, told: str = TOLD) -> list[str]:
    """Give the container's command: wait for the address of the outer listener, and start Kafka with it."""
    name = "KAFKA_ADVERTISED_LISTENERS"
    others = [door for door in environment[name].split(",") if not door.startswith(f"{OUTSIDE}://")]
    doors = ",".join([*others, f"{OUTSIDE}://$(cat {told})"])
    return ["bash", "-c", f'until [ -f {told} ]; do sleep 0.1; done; export {name}="{doors}"; exec {run}']


def tell_command(address: str, *, told: str = TOLD) -> list[str]:
    """Give the command that tells it: the file is there as a whole, or not."""
    return ["bash", "-c", 'printf %s "$1" > "$2.new" && mv "$2.new" "$2"', "tell", address, told]
