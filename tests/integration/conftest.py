"""One Kafka for all integration tests of a run."""

from tests.kafka_fixture import kafka

__all__ = ["kafka"]  # a fixture is found by its name
