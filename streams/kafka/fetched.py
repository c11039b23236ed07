"""What was fetched becomes records here, in whole batches: no header is made an object until somebody looks.

The client takes records one by one; here it takes all of a batch for one. Its own reader says what the
batches are, and reads those of old formats.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from operator import length_hint
from typing import Any, NamedTuple

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
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


class Unread:
    """What of a partition was fetched and not handed out: the client's `PartitionRecords`, record by record.

    Args:
        found: The client's, which gives a `Whole` at a time, of which it has given none.
    """

    def __init__(self, found: Any) -> None:
        self._found = found
        self._now = _Now()
        # It does not refer to this object: a circle would keep what was fetched until garbage is looked for.
        self._records = chain.from_iterable(_batches(found, self._now))

    def __iter__(self) -> Iterator[Record]:
        return self._records

    @property
    def next_fetch_offset(self) -> int:
        """Where to go on once what was handed out is done with."""
        left = length_hint(self._now.left)
        offset: int = self._now.records[-left].offset if left else self._found.next_fetch_offset
        return offset


class _Now:
    """The batch that is handed out now, and those of its records that were not yet."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.left: Iterator[Record] = iter(())


def _batches(found: Any, now: _Now) -> Iterator[Iterator[Record]]:
    position = found.next_fetch_offset
    for whole in found:
        # The first one may begin before what was asked for.
        now.records = whole.records
        if whole.records[0].offset < position:
            now.records = [record for record in whole.records if record.offset >= position]
        now.left = iter(now.records)
        yield now.left
        position = found.next_fetch_offset
