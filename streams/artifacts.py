"""Files between agents: contents are records of an artifacts topic, results only point at them."""

import hashlib
from collections.abc import Sequence
from typing import Final

from agents.core.base import Artifact
from agents.core.errors import ArtifactError
from agents.core.task import ArtifactReference
from streams.kafka.connection import Connection
from streams.kafka.publisher import Publisher
from streams.kafka.reader import Reader

CHUNK_BYTES: Final = 512 * 1024
MAX_ARTIFACT_BYTES: Final = 64 * 1024 * 1024
# Other artifacts may lie between the chunks of one. Beyond this many records, it is not going to come.
MAX_RECORDS_BETWEEN: Final = 100_000


async def publish(
    publisher: Publisher, artifact: Artifact, *, topic: str, partition: int, key: bytes | None
) -> ArtifactReference:
    """Publish an artifact's contents and say where they are.

    Raises:
        ArtifactError: If it is larger than 64 MiB.
    """
    content = artifact.content
    if len(content) > MAX_ARTIFACT_BYTES:
        raise ArtifactError(
            f"artifact {artifact.name!r} has {len(content)} bytes, at most {MAX_ARTIFACT_BYTES} are possible"
        )
    digest = hashlib.sha256(content).hexdigest()
    chunks = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)] or [b""]
    first = -1
    for number, chunk in enumerate(chunks):
        headers = [
            ("artifact", digest.encode()),
            ("chunk", f"{number}/{len(chunks)}".encode()),
            ("content-type", artifact.media_type.encode()),
        ]
        offset = await publisher.deliver(topic, partition, key=key, value=chunk, headers=headers)
        first = offset if number == 0 else first
    return ArtifactReference(
        name=artifact.name,
        sha256=digest,
        size=len(content),
        topic=topic,
        partition=partition,
        offset=first,
        media_type=artifact.media_type,
    )


class KafkaArtifacts:
    """Reads artifacts back, and believes nothing that does not match its digest.

    Args:
        connection: How Kafka is reached.
        topics: Topics it may read from; a reference to any other is refused.
    """

    def __init__(self, connection: Connection, topics: Sequence[str]) -> None:
        self._connection = connection
        self._topics = frozenset(topics)

    async def read(self, reference: ArtifactReference) -> bytes:
        """Give an artifact's bytes.

        Raises:
            ArtifactError: If it is too large, gone, incomplete, elsewhere or changed.
        """
        where = f"artifact {reference.name!r} at {reference.topic}/{reference.partition}/{reference.offset}"
        if reference.topic not in self._topics:
            raise ArtifactError(f"{where} is in a topic that holds no artifacts of this application")
        if reference.size > MAX_ARTIFACT_BYTES:
            raise ArtifactError(
                f"{where} has {reference.size} bytes, at most {MAX_ARTIFACT_BYTES} are possible"
            )
        content = b"".join(await self._chunks(reference, where))
        if len(content) != reference.size or hashlib.sha256(content).hexdigest() != reference.sha256:
            raise ArtifactError(
                f"{where} has {len(content)} bytes that do not match its digest {reference.sha256}"
            )
        return content

    async def _chunks(self, reference: ArtifactReference, where: str) -> list[bytes]:
        total = max(1, -(-reference.size // CHUNK_BYTES))
        place = (reference.topic, reference.partition)
        found: list[bytes] = []
        async with Reader(self._connection) as reader:
            if place not in await reader.partitions([reference.topic]):
                raise ArtifactError(f"{where}: there is no such partition")
            first = (await reader.first_offsets([place]))[place]
            end = (await reader.end_offsets([place]))[place]
            if not first <= reference.offset < end:
                raise ArtifactError(f"{where} is gone: the partition keeps offsets {first} to {end - 1}")
            end = min(end, reference.offset + MAX_RECORDS_BETWEEN)
            async for record in reader.read({place: reference.offset}, ends={place: end}):
                headers = dict(record.headers)
                wanted = f"{len(found)}/{total}".encode()
                if headers.get("artifact") == reference.sha256.encode() and headers.get("chunk") == wanted:
                    found.append(record.value or b"")
                    if len(found) == total:
                        return found
        raise ArtifactError(f"{where} is incomplete: {len(found)} of {total} chunks are there")
