"""What was fetched becomes records here, in whole batches: no header is made an object until somebody looks.

The client takes records one by one; here it takes all of a batch for one. Its own reader says what the
batches are, and reads those of old formats.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.record.memory_records import MemoryRecords

from agents import _rust

Record = _rust.Record

# What a batch of the present format says at these places: of what length it is behind that, its format, and
# how it is compressed. Its length and format are where older ones have theirs.
LENGTH, AFTER_LENGTH, FORMAT, ATTRIBUTES, HEAD = 8, 12, 16, 22, 61
PRESENT, COMPRESSED = 2, 0b111
CODECS: dict[int, Callable[[bytes], Any]] = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
NO_TIME = -1  # Kafka's word for it; the oldest records have none


class Fetched:
    """Batches of one partition, as the client reads them one by one.

    Args:
        data: As Kafka sent them; the last may be cut off.
        topic: Where they were fetched.
        partition: Where they were fetched.
    """

    def __init__(self, data: bytes, topic: str, partition: int) -> None:
        self._data, self._topic, self._partition = data, topic, partition
        self._theirs = MemoryRecords(data)
        self._at = 0

    def has_next(self) -> bool:
        """Tell whether there is another whole batch."""
        there: bool = self._theirs.has_next()
        return there

    def next_batch(self) -> Any:
        """Give the next batch as the client knows it, with all its records, which are ours, as one.

        They are read when they are asked for. What is broken raises a CorruptRecordException then, and
        what is compressed as no library here can read, an UnsupportedCodecError.
        """
        theirs, begin = self._theirs.next_batch(), self._at
        end = begin + AFTER_LENGTH + int.from_bytes(self._data[begin + LENGTH : begin + AFTER_LENGTH], "big")
        self._at = end
        if theirs.is_control_batch:
            return theirs
        if self._data[begin + FORMAT] != PRESENT:
            return _Batch(theirs, lambda: list(map(self._converted, theirs)), theirs.validate_crc)
        is_whole = partial(_rust.has_its_checksum, self._data, begin, end)
        return _Batch(theirs, partial(self._read, begin, end), is_whole)

    def _read(self, begin: int, end: int) -> list[Record]:
        data, codec = self._data, self._data[begin + ATTRIBUTES] & COMPRESSED
        if codec:
            data = self._decompressed(codec, begin, end)
            begin, end = 0, len(data)
        try:
            return _rust.read_records(data, begin, end, self._topic, self._partition)
        except ValueError as error:
            raise CorruptRecordException(f"{self._topic}/{self._partition}: {error}") from None

    def _decompressed(self, codec: int, begin: int, end: int) -> bytes:
        head = bytearray(self._data[begin : begin + HEAD])
        head[ATTRIBUTES] &= ~COMPRESSED
        try:
            return bytes(head) + bytes(CODECS[codec](self._data[begin + HEAD : end]))
        except (KeyError, NotImplementedError) as error:
            raise UnsupportedCodecError(
                f"{self._topic}/{self._partition}: a batch is compressed with codec {codec}: {error}"
            ) from None
        except Exception as error:  # what it is, each library says in its own way
            raise CorruptRecordException(
                f"{self._topic}/{self._partition}: a batch cannot be decompressed: {error!r}"
            ) from error

    def _converted(self, theirs: Any) -> Record:
        return Record(
            self._topic,
            self._partition,
            theirs.offset,
            NO_TIME if theirs.timestamp is None else theirs.timestamp,
            theirs.timestamp_type or 0,
            theirs.key,
            theirs.value,
            theirs.headers,
        )


class Whole(NamedTuple):
    """All records of a batch, in place of one.

    Attributes:
        offset: Of the last.
        records: At least one.
    """

    offset: int
    records: list[Record]


class _Batch:
    """The client's batch in all but its records and how its checksum is taken."""

    def __init__(
        self, theirs: Any, records: Callable[[], list[Record]], validate_crc: Callable[[], bool]
    ) -> None:
        self._theirs, self._records, self.validate_crc = theirs, records, validate_crc

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __iter__(self) -> Iterator[Whole]:
        records = self._records()
        if records:
            yield Whole(records[-1].offset, records)


class _Batches(PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """The client's way through batches: what was aborted, what is a marker, where it goes on."""

    def _consumer_record(self, _: TopicPartition, whole: Whole) -> Whole:
        return whole


class Unread:
    """What of a partition was fetched and is not handed out yet.

    Args:
        data: As Kafka sent them; the last batch may be cut off.
        place: Where they were fetched.
        aborted: Producer and first offset of each transaction that is none.
        position: The first offset to hand out; the first batch may begin before it.
    """

    def __init__(
        self, data: bytes, place: TopicPartition, aborted: Sequence[tuple[int, int]] | None, position: int
    ) -> None:
        batches = Fetched(data, place.topic, place.partition)
        self._batches = _Batches(place, batches, aborted, position, None, None, True, READ_COMMITTED)  # noqa: FBT003 (the client's order)
        self._left: list[Record] = []  # of the batch that is handed out now
        self._error: KafkaError | None = None
        self._begin = position
        self.is_over = False

    @property
    def position(self) -> int:
        """The offset to go on at once what was handed out is done with."""
        offset: int = self._left[0].offset if self._left else self._batches.next_fetch_offset
        return offset

    @property
    def was_nothing(self) -> bool:
        """Whether it is over and did not bring reading on, so that Kafka would send the same again."""
        return self.is_over and self.position == self._begin

    def take(self, most: int) -> list[Record]:
        """Hand out records, and take note when that were all.

        Raises:
            KafkaError: The next batch cannot be read. Whatever is before it was handed out.
        """
        found: list[Record] = []
        while not self.is_over and self._error is None and len(found) < most:
            if not self._left:
                self._read_on()
            room = most - len(found)
            found += self._left[:room]
            self._left = self._left[room:]
        if self._error is not None and not found:
            raise self._error
        return found

    def _read_on(self) -> None:
        position = self._batches.next_fetch_offset
        try:
            whole: Whole | None = next(self._batches, None)
        except Exception as error:  # noqa: BLE001 (what else a batch may raise, each library says for itself)
            # The client's way ends here, as if that were all.
            self._error = error if isinstance(error, KafkaError) else CorruptRecordException(repr(error))
            return
        if whole is None:
            self.is_over = True
        elif whole.records[0].offset < position:
            self._left = [record for record in whole.records if record.offset >= position]
        else:
            self._left = whole.records
