"""What was fetched becomes records here, in whole batches: no header is made an object until somebody looks.

The client's own reader says what the batches are, checks them, and decompresses those that need it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from agents import _rust

Record = _rust.Record

# What a batch of the present format says at these places: of what length it is behind that, its format, and
# how it is compressed. Its length and format are where older ones have theirs.
LENGTH, AFTER_LENGTH, FORMAT, ATTRIBUTES = 8, 12, 16, 22
PRESENT, COMPRESSED = 2, 0b111


class Fetched:
    """Batches of one partition, as the client reads them one by one.

    Args:
        data: As Kafka sent them; the last may be cut off.
        topic: Where they were fetched.
        partition: Where they were fetched.

    Attributes:
        data: The same.
    """

    def __init__(self, data: bytes, topic: str, partition: int) -> None:
        self.data, self._topic, self._partition = data, topic, partition
        self._theirs = MemoryRecords(data)
        self._at = 0

    def has_next(self) -> bool:
        """Tell whether there is another whole batch."""
        there: bool = self._theirs.has_next()
        return there

    def next_batch(self) -> Any:
        """Give the next batch as the client knows it, with records of ours."""
        theirs, data, begin = self._theirs.next_batch(), self.data, self._at
        end = begin + AFTER_LENGTH + int.from_bytes(data[begin + LENGTH : begin + AFTER_LENGTH], "big")
        self._at = end
        if theirs.is_control_batch:
            return theirs
        if data[begin + FORMAT] == PRESENT and not data[begin + ATTRIBUTES] & COMPRESSED:
            return _Batch(theirs, partial(self._read, begin, end))
        return _Batch(theirs, partial(map, self._converted, theirs))

    def _read(self, begin: int, end: int) -> Iterator[Record]:
        try:
            return iter(_rust.read_records(self.data, begin, end, self._topic, self._partition))
        except ValueError as error:
            raise CorruptRecordException(f"{self._topic}/{self._partition}: {error}") from None

    def _converted(self, theirs: Any) -> Record:
        return Record(
            self._topic,
            self._partition,
            theirs.offset,
            theirs.timestamp,
            theirs.timestamp_type,
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
