"""What was fetched becomes records here, in whole batches: no header is made an object until somebody looks.

The client's own reader says what the batches are, checks them, and reads those of old formats.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

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
        """Give the next batch as the client knows it, with records of ours.

        Its records are read when they are asked for. What is broken raises a CorruptRecordException then, and
        what is compressed as no library here can read, an UnsupportedCodecError.
        """
        theirs, begin = self._theirs.next_batch(), self._at
        end = begin + AFTER_LENGTH + int.from_bytes(self._data[begin + LENGTH : begin + AFTER_LENGTH], "big")
        self._at = end
        if theirs.is_control_batch:
            return theirs
        if self._data[begin + FORMAT] == PRESENT:
            return _Batch(theirs, partial(self._read, begin, end))
        return _Batch(theirs, partial(map, self._converted, theirs))

    def _read(self, begin: int, end: int) -> Iterator[Record]:
        data, codec = self._data, self._data[begin + ATTRIBUTES] & COMPRESSED
        if codec:
            data = self._decompressed(codec, begin, end)
            begin, end = 0, len(data)
        try:
            return iter(_rust.read_records(data, begin, end, self._topic, self._partition))
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


class _Batch:
    """The client's batch in all but its records."""

    def __init__(self, theirs: Any, records: Callable[[], Iterator[Record]]) -> None:
        self._theirs, self._records = theirs, records

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __iter__(self) -> Iterator[Record]:
        return self._records()
