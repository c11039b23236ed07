"""Makes the event that a workflow begins with, and publishes it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import PydanticSerializationError

from agents.core.base import NAME, Artifact
from agents.core.task import ArtifactReference, RepositoryReference
from streams import artifacts
from streams import envelope as envelopes
from streams.command_line.output import CommandError, ExitCode
from streams.envelope import TASK, Envelope
from streams.kafka.publisher import Publisher, PublishError, partition_for
from streams.payloads import TaskPayload
from streams.topics import MAX_RECORD_BYTES, Topics

SOURCE = "/callboard/command-line"
REPOSITORY = "repository"


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for.

    Attributes:
        agent: Who is to work on it.
        input: What the agent gets.
        key: Tasks with the same key go one after the other; none: this one goes by itself.
        workflow: Name of the declared workflow, if several use the agent.
        deadline: Seconds from now after which the work is worthless.
    """

    agent: str
    input: Any
    key: str | None = None
    workflow: str | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task that has its place, but is not published yet.

    Attributes:
        id: Its id, which is its workflow's, too.
        order: What was asked for.
        topic: Where it goes.
        partition: Which part of that, and of every topic that the workflow will touch.
        key: Its record's key.
    """

    id: str
    order: Order
    topic: str
    partition: int
    key: bytes

    async def publish(
        self,
        publisher: Publisher,
        names: Topics,
        repository: RepositoryReference | None,
        bundle: bytes | None,
    ) -> int:
        """Publish it, after what it carries; gives its offset once Kafka has it.

        Args:
            publisher: Publishes.
            names: Topic names.
            repository: The repository it is about.
            bundle: That repository's content, if it travels with the task.

        Raises:
            CommandError: If it is larger than a record or no text, or Kafka does not acknowledge it.
        """
        self._value(repository)  # raises before anything is published
        attached: list[ArtifactReference] = []
        if bundle is not None:
            artifact = Artifact(name=REPOSITORY, content=bundle, media_type="application/x-git-bundle")
            topic = names.artifacts(self.order.agent)
            attached.append(
                await artifacts.publish(
                    publisher, artifact, topic=topic, partition=self.partition, key=self.key
                )
            )
        value = self._value(repository, *attached)
        try:
            return await publisher.send_and_wait(
                self.topic, self.partition, key=self.key, value=value, headers=self._headers()
            )
        except PublishError as error:
            raise CommandError(
                f"Kafka did not acknowledge the task ({error or type(error).__name__}), so it may be there or"
                f" not; look before you publish it again: callboard show {self.id}",
                ExitCode.UNREACHABLE,
            ) from error

    def _value(self, repository: RepositoryReference | None, *attached: ArtifactReference) -> bytes:
        payload = TaskPayload(input=self.order.input, repository=repository, artifacts=attached)
        try:
            value = payload.model_dump_json().encode()
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise CommandError(f"the input is no text that JSON can hold: {error}", ExitCode.USAGE) from None
        if len(value) > MAX_RECORD_BYTES:
            raise too_large(len(value))
        return value

    def _headers(self) -> envelopes.EncodedHeaders:
        deadline = self.order.deadline
        return envelopes.encode(
            Envelope(
                id=self.id,
                source=SOURCE,
                type=TASK,
                workflow_id=self.id,
                workflow=self.order.workflow,
                round=self.id,
                deadline=None if deadline is None else datetime.now(UTC) + timedelta(seconds=deadline),
                traceparent=envelopes.next_traceparent(None, secrets.token_hex(32)),
            )
        )


def new_task(order: Order, counts: Mapping[str, int], names: Topics) -> NewTask:
    """Give a task its id and its place.

    Args:
        order: What is asked for.
        counts: Partitions per topic of the cluster.
        names: Topic names.

    Raises:
        CommandError: If no application with this agent has ever run here.
    """
    topic = names.tasks(order.agent)
    if not NAME.fullmatch(order.agent) or topic not in counts:
        agents = {names.agent_of(each) for each in counts}
        have = sorted(agent for agent in agents if agent is not None and names.tasks(agent) in counts)
        known = f"there are: {', '.join(have)}" if have else "there is none yet"
        raise CommandError(
            f"there is no agent {order.agent!r} here; {known}. An application makes its topics when it"
            " starts: callboard run MODULE:APP",
            ExitCode.NOT_FOUND,
        )
    identity = envelopes.task_id()
    key = (identity if order.key is None else order.key).encode(errors="surrogateescape")
    return NewTask(identity, order, topic, partition_for(key, counts[topic]), key)


def too_large(count: int | None = None) -> CommandError:
    """Say that an input does not fit, and what does."""
    has = f"has {count:,} bytes" if count is not None else "is larger than that"
    return CommandError(
        f"a task may have {MAX_RECORD_BYTES:,} bytes and this one {has}; put files into a repository and"
        " publish that with --repository",
        ExitCode.USAGE,
    )
