"""Record batches exist so that a record is encoded once, as Kafka takes it, and copied into its batch."""

from agents import _rust

# Their own docstrings say more.
EncodedRecord = _rust.EncodedRecord
RecordBatch = _rust.RecordBatch
