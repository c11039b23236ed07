"""Record batches: byte for byte what the client makes of the same records, read back as what went in."""

from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streams.envelope import EncodedHeaders
from streams.kafka.publisher import Outgoing
from streams.kafka.record_batch import RecordBatch

ROOMY = 100_000_000
PLAIN = Outgoing(0, b"k", b"v", [("ce_id", b"1")])

steady = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
parts = st.none() | st.binary(max_size=200)
records = st.builds(
    Outgoing,
    st.integers(0, 2**63),
    parts,
    parts,
    st.lists(st.tuples(st.text(max_size=80), parts), max_size=20),  # type: ignore[arg-type]
)
producers = st.tuples(st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(0, 2**31 - 1))


def made_by_the_client(
    given: list[Outgoing], limit: int, timestamp: int, producer: tuple[int, int, int]
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
    given: list[Outgoing], limit: int, timestamp: int, producer: tuple[int, int, int]
) -> None:
    batch = RecordBatch(given, limit=limit, timestamp=timestamp)
    assert (batch.count, batch.sealed(*producer)) == made_by_the_client(given, limit, timestamp, producer)


@steady
@given(given=st.lists(records, min_size=1, max_size=30), timestamp=st.integers(0, 2**62), producer=producers)
def test_what_is_read_back_is_what_went_in(
    given: list[Outgoing], timestamp: int, producer: tuple[int, int, int]
) -> None:
    read = read_back(RecordBatch(given, limit=ROOMY, timestamp=timestamp).sealed(*producer))
    assert read.validate_crc()
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == producer
    assert not read.is_transactional
    assert [(it.offset, it.timestamp, it.key, it.value, it.headers) for it in read] == [
        (offset, timestamp, it.key, it.value, it.headers) for offset, it in enumerate(given)
    ]


@steady
@given(given=st.lists(records, min_size=1, max_size=30))
def test_encoded_headers_are_the_same_ones(given: list[Outgoing]) -> None:
    encoded = [it._replace(headers=EncodedHeaders(it.headers)) for it in given]
    assert [(len(it.headers), list(it.headers)) for it in encoded] == [
        (len(it.headers), it.headers) for it in given
    ]
    one, other = (RecordBatch(those, limit=ROOMY, timestamp=1).sealed(1, 2, 3) for those in (given, encoded))
    assert one == other


def test_only_what_fits_is_taken_to_the_byte() -> None:
    counts = [RecordBatch([PLAIN] * 9, limit=limit, timestamp=0).count for limit in range(300)]
    assert counts == [made_by_the_client([PLAIN] * 9, limit, 0, (-1, -1, 0))[0] for limit in range(300)]
    assert set(counts) == set(range(1, 10))


def test_the_headers_of_a_dead_letter_come_as_they_were_read() -> None:
    headers: Any = (("twice", b"1"), ("twice", None))
    (read,) = read_back(
        RecordBatch([PLAIN._replace(headers=headers)], limit=0, timestamp=0).sealed(-1, -1, 0)
    )
    assert read.headers == list(headers)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (5, r"records\[1\] is not .*'int' object"),
        ((1, b"k", b"v"), r"records\[1\] is not .*length 3"),
        ((1, "k", b"v", []), r"records\[1\] is not .*'str' object"),
        ((1, b"k", {}, []), r"records\[1\] is not .*'dict' object"),
        ((1, b"k", b"v", None), r"records\[1\].headers is not .*'None'"),
        ((1, b"k", b"v", [("a", b"1"), 7]), r"records\[1\].headers\[1\] is not .*'int' object"),
        ((1, b"k", b"v", [("a",)]), r"records\[1\].headers\[0\] is not .*length 1"),
        ((1, b"k", b"v", [(b"a", b"1")]), r"records\[1\].headers\[0\] is not .*'bytes' object"),
        ((1, b"k", b"v", [("a", "1")]), r"records\[1\].headers\[0\] is not .*'str' object"),
        ((1, b"k", b"v", [("\ud800", b"1")]), r"records\[1\].headers\[0\] is not .*surrogates"),
    ],
)
def test_what_is_of_another_type_is_named(wrong: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        RecordBatch([PLAIN, wrong], limit=ROOMY, timestamp=0)


def test_values_stay_out_of_errors() -> None:
    secret: Any = (1, b"key", "a value somebody should not read", [])
    with pytest.raises(TypeError) as raised:
        RecordBatch([secret], limit=ROOMY, timestamp=0)
    assert "somebody" not in str(raised.value)


def test_a_batch_has_at_least_one_record() -> None:
    with pytest.raises(ValueError, match="records is empty"):
        RecordBatch([], limit=ROOMY, timestamp=0)


def test_what_no_batch_can_hold_is_refused_before_it_is_copied() -> None:
    large = bytes(700_000_000)  # untouched zeros: no memory
    with pytest.raises(ValueError, match="two gigabytes"):
        RecordBatch([PLAIN._replace(headers=[("a", large)] * 4)], limit=0, timestamp=0)
