"""What tests in containers need: a Docker engine, or the reason why there is none."""

import gc
import warnings
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound

from .kafka_container import KafkaContainer, compose_broker


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """Yield a client of the engine; without one, nothing here is checked."""
    client = _connect()
    if isinstance(client, str):
        pytest.skip(f"no Docker engine answers (DOCKER_HOST names it): {client}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def kafka_container(engine: docker.DockerClient) -> Iterator[KafkaContainer]:
    """Yield a broker in a container."""
    image = compose_broker()["image"]
    try:
        engine.images.get(image)
    except ImageNotFound:
        try:
            engine.images.pull(image)
        except APIError as error:
            pytest.skip(f"the engine has no image {image}, and gets none: {error.explanation}")
    with KafkaContainer() as container:
        yield container


def _connect() -> docker.DockerClient | str:
    """Give a client, or why there is none."""
    with warnings.catch_warnings():
        # The client leaves the socket open that nobody answered.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return docker.from_env()
        except DockerException as error:
            reason = str(error)
        gc.collect()
    return reason
