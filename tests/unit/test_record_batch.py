"""Record batches: byte for byte what the client makes of the same records, read back as what went in."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streams.envelope import EncodedHeaders
from streams.kafka.record_batch import EncodedRecord, RecordBatch


class Plain(NamedTuple):
    """A record, in Python."""

    key: bytes | None
    value: bytes | None
    headers: Any


ROOMY = 100_000_000
PLAIN = Plain(b"k", b"v", [("ce_id", b"1")])

steady = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
parts = st.none() | st.binary(max_size=200)
records = st.builds(Plain, parts, parts, st.lists(st.tuples(st.text(max_size=80), parts), max_size=20))
producers = st.tuples(st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(0, 2**31 - 1))


def batch_of(given: Iterable[Plain], *, limit: int, timestamp: int) -> RecordBatch:
    numbered = ((number, EncodedRecord(*it)) for number, it in enumerate(given))
    return RecordBatch(numbered, limit=limit, timestamp=timestamp)


def made_by_the_client(
    given: list[Plain], limit: int, timestamp: int, producer: tuple[int, int, int]
) -> tuple[int, bytes]:
    builder = BatchBuilder(limit, 0)
    for record in given:
        taken = builder.append(
            timestamp=timestamp, key=record.key, value=record.value, headers=record.headers
        )
        if taken is None:
            break
    builder._set_producer_state(*producer)
    return builder.record_count(), bytes(builder._build())


def read_back(batch: bytes) -> Any:
    memory = MemoryRecords(batch)
    read = memory.next_batch()
    assert memory.next_batch() is None
    return read


@steady
@given(
    given=st.lists(records, min_size=1, max_size=30),
    limit=st.integers(0, 4_000) | st.just(ROOMY),
    timestamp=st.integers(0, 2**62),
    producer=producers,
)
@example(given=[PLAIN] * 9_000, limit=ROOMY, timestamp=1, producer=(1, 2, 3))  # offsets of three bytes
@example(given=[PLAIN._replace(value=b"x" * 3_000_000)] * 2, limit=1_000, timestamp=1, producer=(1, 2, 3))
@example(given=[PLAIN._replace(headers=[("n", b"")] * 9_000)], limit=ROOMY, timestamp=1, producer=(1, 2, 3))
@example(
    given=[
        PLAIN._replace(key=b"x" * size, value=None) for size in (63, 64, 8_191, 8_192, 1_048_575, 1_048_576)
    ],
    limit=ROOMY,
    timestamp=1,
    producer=(-1, -1, 0),
)
def test_a_batch_is_what_the_client_makes_of_the_same_records(
    given: list[Plain], limit: int, timestamp: int, producer: tuple[int, int, int]
) -> None:
    batch = batch_of(given, limit=limit, timestamp=timestamp)
    assert (batch.count, batch.sealed(*producer)) == made_by_the_client(given, limit, timestamp, producer)


@steady
@given(given=st.lists(records, min_size=1, max_size=30), timestamp=st.integers(0, 2**62), producer=producers)
def test_what_is_read_back_is_what_went_in(
    given: list[Plain], timestamp: int, producer: tuple[int, int, int]
) -> None:
    read = read_back(batch_of(given, limit=ROOMY, timestamp=timestamp).sealed(*producer))
    assert read.validate_crc()
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == producer
    assert not read.is_transactional
    assert [(it.offset, it.timestamp, it.key, it.value, it.headers) for it in read] == [
        (offset, timestamp, it.key, it.value, it.headers) for offset, it in enumerate(given)
    ]


@steady
@given(given=st.lists(records, min_size=1, max_size=30))
def test_encoded_headers_are_the_same_ones(given: list[Plain]) -> None:
    encoded = [it._replace(headers=EncodedHeaders(it.headers)) for it in given]
    assert [(len(it.headers), list(it.headers)) for it in encoded] == [
        (len(it.headers), it.headers) for it in given
    ]
    one, other = (batch_of(those, limit=ROOMY, timestamp=1).sealed(1, 2, 3) for those in (given, encoded))
    assert one == other


def test_only_what_fits_is_taken_to_the_byte() -> None:
    counts = [batch_of([PLAIN] * 9, limit=limit, timestamp=0).count for limit in range(300)]
    assert counts == [made_by_the_client([PLAIN] * 9, limit, 0, (-1, -1, 0))[0] for limit in range(300)]
    assert set(counts) == set(range(1, 10))


def test_the_headers_of_a_dead_letter_come_as_they_were_read() -> None:
    headers: Any = (("twice", b"1"), ("twice", None))
    (read,) = read_back(batch_of([PLAIN._replace(headers=headers)], limit=0, timestamp=0).sealed(-1, -1, 0))
    assert read.headers == list(headers)


@steady
@given(given=records)
def test_an_encoded_record_says_what_it_was_made_of(given: Plain) -> None:
    it = EncodedRecord(*given)
    assert Plain(it.key, it.value, list(it.headers)) == given
    assert it.value_size == len(it.value or b"")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("k", b"v", []), "'str' object .*\nwhile processing 'key'"),
        ((b"k", {}, []), "'dict' object .*\nwhile processing 'value'"),
        ((b"k", b"v", None), "'NoneType' object is not iterable"),
        ((b"k", b"v", [("a", b"1"), 7]), "'int' object"),
        ((b"k", b"v", [(b"a", b"1")]), "'bytes' object"),
        ((b"k", b"v", [("a", "1")]), "'str' object"),
    ],
)
def test_what_is_of_another_type_is_refused(wrong: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        EncodedRecord(*wrong)


@pytest.mark.parametrize("wrong", [5, (1,), (1, b"k", b"v", []), [1, EncodedRecord(*PLAIN)], (1, PLAIN)])
def test_what_is_no_record_is_named(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"records\[1\] is not \(number, EncodedRecord\): "):
        RecordBatch([(0, EncodedRecord(*PLAIN)), wrong], limit=ROOMY, timestamp=0)


def test_values_stay_out_of_errors() -> None:
    private: Any = "a value somebody should not read"
    with pytest.raises(TypeError) as raised:
        EncodedRecord(b"key", private, [])
    with pytest.raises(TypeError) as also_raised:
        RecordBatch([(1, private)], limit=ROOMY, timestamp=0)
    assert "somebody" not in f"{raised.value} {also_raised.value}"


def test_a_batch_has_at_least_one_record() -> None:
    with pytest.raises(ValueError, match="records is empty"):
        RecordBatch([], limit=ROOMY, timestamp=0)


def test_what_no_record_can_hold_is_refused_before_it_is_copied() -> None:
    large = bytes(2**31)  # untouched zeros: no memory
    with pytest.raises(ValueError, match="a record has two gigabytes or more"):
        EncodedRecord(None, large, [])
