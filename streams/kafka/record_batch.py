"""Record batches exist so that what is published together is encoded in one call, not header by header."""

from collections.abc import Iterable, Sequence

from agents import _rust

# Number, key, value, headers; the number is the caller's own.
Record = tuple[int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]] | _rust.EncodedHeaders]


class RecordBatch:
    """Records encoded as Kafka takes them: format 2, uncompressed, of no transaction.

    Args:
        records: In order. Those that fit are taken, and the first one always: the broker has the last word
            on that.
        limit: The size in bytes that the batch stays below.
        timestamp: Of each record, in milliseconds.

    Raises:
        TypeError: A part of a record is of a type Kafka does not know; says which.
        ValueError: There are no records, or they have two gigabytes or more.
    """

    def __init__(self, records: Iterable[Record], *, limit: int, timestamp: int) -> None:
        self._encoded, self.count = _rust.encode_records(records, limit)
        self._timestamp = timestamp

    def sealed(self, producer_id: int, producer_epoch: int, base_sequence: int) -> bytes:
        """Give the whole batch as its producer sends it; by these numbers Kafka knows a repetition.

        Args:
            producer_id: -1: it has none.
            producer_epoch: -1 if it has no id.
            base_sequence: Of the first record.
        """
        return _rust.seal_records(
            self._encoded, self.count, self._timestamp, producer_id, producer_epoch, base_sequence
        )
