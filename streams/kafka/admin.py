"""Topics and positions have to be there before anyone reads: this makes them, and checks what it finds."""

from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    CommitFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaConnectionError,
    RebalanceInProgressError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
    for_code,
)

from agents.core.errors import ConfigurationError
from streams.kafka.connection import Connection
from streams.kafka.diagnosis import reason


class BrokerUnreachableError(ConfigurationError):
    """No Kafka broker answers at the configured address, or it does not let us in."""

    type = "broker_unreachable"


async def unreachable(connection: Connection) -> BrokerUnreachableError:
    """Say why nobody answers or lets us in, and what to do."""
    advice = (
        "CALLBOARD_BOOTSTRAP_SERVERS is set to that: correct it, or unset it to use the local Kafka"
        if connection.is_named
        else "start the local one with `callboard up`, or set CALLBOARD_BOOTSTRAP_SERVERS to yours"
    )
    return BrokerUnreachableError(
        await reason(connection) or f"no Kafka broker answers at {connection.servers}; {advice}"
    )


async def partition_counts(connection: Connection) -> dict[str, int]:
    """Give every topic of the cluster with its number of partitions.

    Raises:
        BrokerUnreachableError: If nobody answers.
    """
    admin = await _connect(connection)
    try:
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in await admin.describe_topics()
            if not topic["is_internal"]
        }
    finally:
        await admin.close()


async def ensure_topics(
    connection: Connection, topics: Mapping[str, dict[str, str]], *, partitions: int, replication: int
) -> int:
    """Create the topics that are missing, all with the same number of partitions.

    Args:
        connection: How Kafka is reached.
        topics: All topics of one application, each with what it is created with.
        partitions: How many partitions new topics get, if none of the application's exists yet.
        replication: Their replication factor.

    Returns:
        The number of partitions of each of them.

    Raises:
        BrokerUnreachableError: If nobody answers.
        ConfigurationError: If they differ in their number of partitions, or one cannot be created.
    """
    existing = await partition_counts(connection)
    counts = {topic: existing[topic] for topic in topics if topic in existing}
    wanted = max(counts.values(), default=partitions)
    if uneven := {topic: count for topic, count in counts.items() if count != wanted}:
        commands = "; ".join(
            f"kafka-topics.sh --bootstrap-server {connection.servers} --alter --topic {topic} --partitions"
            f" {wanted}"
            for topic in uneven
        )
        raise ConfigurationError(
            f"all topics of an application need the same number of partitions, because results keep their"
            f" task's partition number; the largest here has {wanted}, but"
            f" {', '.join(f'{topic} has {count}' for topic, count in sorted(uneven.items()))}. With every"
            f" worker stopped and every task finished, run: {commands}"
        )
    missing = [topic for topic in topics if topic not in counts]
    if missing:
        new = [NewTopic(name, wanted, replication, topic_configs=topics[name]) for name in missing]
        await _create(connection, new)
    return wanted


async def stamped_by_producers(connection: Connection, topics: Sequence[str]) -> list[str]:
    """Tell in which topics a record has the time its producer gives it, instead of the broker's.

    Topics whose settings nobody lets us see are left out.

    Raises:
        BrokerUnreachableError: If nobody answers.
    """
    admin = await _connect(connection)
    name = "message.timestamp.type"
    try:
        answers = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {name: ""}) for topic in topics]
        )
    finally:
        await admin.close()
    return [
        topic
        for answer in answers
        for code, _, _, topic, settings in answer.resources
        if not code and any(each[:2] == (name, "CreateTime") for each in settings)
    ]


async def ensure_positions(
    connection: Connection, group: str, beginnings: Sequence[str], endings: Sequence[str], partitions: int
) -> None:
    """Commit a position for every partition the group has none for, so that nobody has to guess later.

    Only an empty group takes a commit from outside. If it has members, they own the partitions and position
    them themselves when they are assigned (`AgentSubscriber`), so a refusal here is no failure.

    Args:
        connection: How Kafka is reached.
        group: Consumer group.
        beginnings: Topics to read from their first record.
        endings: Topics to read from what comes next.
        partitions: Of each topic.

    Raises:
        BrokerUnreachableError: If nobody answers.
    """
    wanted = [TopicPartition(topic, n) for topic in (*beginnings, *endings) for n in range(partitions)]
    admin = await _connect(connection)
    try:
        known = await admin.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:
        known = {}  # the cluster's very first group: its offsets topic is only now being made
    finally:
        await admin.close()
    missing = [tp for tp in wanted if tp not in known or known[tp].offset < 0]
    if not missing:
        return
    consumer = AIOKafkaConsumer(**connection.client_options, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(missing)
        await consumer.commit(await initial_offsets(consumer, missing, frozenset(endings)))
    except (CommitFailedError, UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError):
        pass  # the group has members: see above (the client's name for it depends on its own state)
    finally:
        await consumer.stop()


async def committed_offsets(connection: Connection, group: str) -> dict[TopicPartition, tuple[int, str]]:
    """Give what a group committed, with what it said beside: the consumer's own `committed` drops that."""
    admin = await _connect(connection)
    try:
        known = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    return {tp: (at.offset, at.metadata or "") for tp, at in known.items() if at.offset >= 0}


async def cluster_id(connection: Connection) -> str:
    """Give the cluster's id.

    Raises:
        BrokerUnreachableError: If nobody answers.
    """
    admin = await _connect(connection)
    try:
        described = await admin.describe_cluster()
    finally:
        await admin.close()
    return str(described["cluster_id"])


async def initial_offsets(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], endings: frozenset[str]
) -> dict[TopicPartition, int]:
    """Tell where a group begins without a position begins: the first record, or the end in `endings`."""
    offsets: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
    if late := [tp for tp in partitions if tp.topic in endings]:
        offsets.update(await consumer.end_offsets(late))
    return offsets


async def _create(connection: Connection, topics: Sequence[NewTopic]) -> None:
    admin = await _connect(connection)
    try:
        response = await admin.create_topics(topics)
    finally:
        await admin.close()
    for topic, code, *message in response.topic_errors:
        error = for_code(code)
        # Two workers that start at once both ask; one of them finds it made.
        if code and error is not TopicAlreadyExistsError:
            raise ConfigurationError(
                f"topic {topic!r} cannot be created with {topics[0].num_partitions} partitions and"
                f" replication {topics[0].replication_factor}:"
                f" {message[0] if message and message[0] else error.__name__};"
                " create it yourself, or change CALLBOARD_REPLICATION"
            )


async def _connect(connection: Connection) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(**connection.client_options)
    try:
        await admin.start()
    except KafkaConnectionError:
        await admin.close()
        raise await unreachable(connection) from None
    return admin
