"""Records that were fetched: those that the client reads of the same bytes, and broken where it says so."""

import gzip
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streams.kafka.fetched import Fetched, Record, Unread
from streams.kafka.record_batch import EncodedRecord, RecordBatch

NONE, GZIP = 0, 1
APPEND_TIME = 8
PLACE = ("tasks.reader", 3)
HEAD = 61

steady = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
parts = st.none() | st.binary(max_size=100)
records = st.tuples(
    st.integers(-(2**40), 2**40),
    parts,
    parts,
    st.lists(st.tuples(st.text(max_size=20), parts), max_size=8),
)


def a_batch(
    given: list[Any], *, codec: int = NONE, first: int = 0, attributes: int = 0, transactional: bool = False
) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=transactional,
        producer_id=7,
        producer_epoch=1,
        base_sequence=0,
        batch_size=10**7,
    )
    for offset, (later, key, value, headers) in enumerate(given):
        builder.append(offset, 1_700_000_000_000 + later, key, value, headers)
    batch = bytearray(builder.build())
    batch[:8] = first.to_bytes(8, "big")  # the broker's part, which no checksum is of
    batch[22] |= attributes
    batch[17:21] = calc_crc32c(bytes(batch[21:])).to_bytes(4, "big")
    return bytes(batch)


def seen(found: Any) -> list[Any]:
    return [(it.offset, it.timestamp, it.timestamp_type, it.key, it.value, tuple(it.headers)) for it in found]


def of(batch: Any) -> list[Any]:
    return [record for whole in batch for record in whole.records]


def read(data: bytes) -> list[list[Any]]:
    fetched, found = Fetched(data, *PLACE), []
    while fetched.has_next():
        found.append(of(fetched.next_batch()))
    assert {(type(it), it.topic, it.partition) for batch in found for it in batch} <= {(Record, *PLACE)}
    return [seen(batch) for batch in found]


def read_by_the_client(data: bytes) -> list[list[Any]]:
    memory, found = MemoryRecords(data), []
    while memory.has_next():
        found.append(seen(memory.next_batch()))
    return found


@steady
@given(
    batches=st.lists(
        st.tuples(
            st.lists(records, min_size=1, max_size=10),
            st.sampled_from([NONE, NONE, NONE, GZIP]),
            st.integers(0, 2**40),
            st.sampled_from([0, APPEND_TIME]),
        ),
        max_size=4,
    ),
    cut=st.integers(0, 200),
)
@example(batches=[([(0, b"k", b"v" * 9_000, [("n", None)] * 200)] * 300, NONE, 5, 0)] * 2, cut=1)
def test_fetched_records_are_those_the_client_reads(batches: list[Any], cut: int) -> None:
    data = b"".join(
        a_batch(given, codec=codec, first=first, attributes=attributes)
        for given, codec, first, attributes in batches
    )
    data = data[: len(data) - cut]  # Kafka cuts off what is too long, wherever that is
    assert read(data) == read_by_the_client(data)


@steady
@given(
    given=st.lists(records, min_size=1, max_size=4),
    changes=st.lists(st.tuples(st.integers(HEAD - 4, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_a_broken_batch_is_broken_for_both(given: list[Any], changes: list[tuple[int, int]]) -> None:
    data = bytearray(a_batch(given))
    for at, byte in changes:
        data[min(at, len(data) - 1)] = byte
    ours = outcome(read, bytes(data))
    if "\N{REPLACEMENT CHARACTER}" not in repr(ours):  # a name that is no text, which only the client refuses
        assert ours == outcome(read_by_the_client, bytes(data))


def outcome(read_all: Any, data: bytes) -> Any:
    try:
        return read_all(data)
    except (CorruptRecordException, UnicodeDecodeError):
        return "broken"


def test_a_broken_batch_says_where_it_is() -> None:
    data = a_batch([(0, b"k", b"v", [])])
    with pytest.raises(CorruptRecordException, match=r"tasks\.reader/3"):
        read(data[:-1] + b"\x09")


def test_the_client_hears_of_a_batch_what_it_asks() -> None:
    fetched = Fetched(a_batch([(0, b"k", b"v", [])] * 3, first=40, transactional=True), *PLACE)
    batch = fetched.next_batch()
    assert batch.validate_crc()
    assert (batch.producer_id, batch.base_offset, batch.next_offset) == (7, 40, 43)
    assert batch.is_transactional
    assert not batch.is_control_batch


@steady
@given(
    st.lists(records, min_size=1, max_size=3),
    st.integers(0, 2**16),
    st.integers(0, 7),
    st.sampled_from([NONE, GZIP]),
)
def test_a_checksum_is_what_the_client_says_it_is(given: list[Any], at: int, bit: int, codec: int) -> None:
    data = bytearray(a_batch(given, codec=codec))
    data[17 + at % (len(data) - 17)] ^= 1 << bit  # from the checksum on: before it, all is the broker's
    fetched, theirs = Fetched(bytes(data), *PLACE), MemoryRecords(bytes(data))
    assert fetched.next_batch().validate_crc() is theirs.next_batch().validate_crc() is False


def test_a_marker_is_the_client_s_business() -> None:
    marker = a_batch([(0, b"\0\0\0\0", b"", [])], attributes=0x20)
    (control,) = Fetched(marker, *PLACE).next_batch()
    assert ControlRecord.parse(control.key) == ABORT_MARKER


@pytest.mark.parametrize("magic", [0, 1])
def test_records_of_old_formats_are_read_as_well(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 10**6)
    builder.append(0, 5 if magic else None, b"k", b"v")
    assert read(bytes(builder.build())) == [[(0, 5 if magic else -1, 0, b"k", b"v", ())]]


@pytest.mark.parametrize("codec", [NONE, GZIP])
def test_a_header_whose_name_is_no_text_does_not_stop_a_partition(codec: int) -> None:
    record = EncodedRecord(b"k", b"v", [("theirs", b"1"), ("n", None)])
    odd = RecordBatch([(0, record)] * 2, limit=1_000, timestamp=5)
    plain = odd.sealed(-1, -1, 0).replace(b"theirs", b"the\xffrs")
    data = bytearray(plain)
    if codec == GZIP:
        packed = gzip.compress(plain[HEAD:])
        data = bytearray(plain[:HEAD] + packed)
        data[8:12] = (len(data) - 12).to_bytes(4, "big")
        data[22] |= GZIP
    ((first, second),) = read(bytes(data))
    assert first == (0, 5, 0, b"k", b"v", (("the\N{REPLACEMENT CHARACTER}rs", b"1"), ("n", None)))
    assert second[0] == 1


@pytest.mark.parametrize(
    ("attributes", "error"), [(GZIP, CorruptRecordException), (7, UnsupportedCodecError)]
)
def test_what_cannot_be_decompressed_says_where_it_is(attributes: int, error: type[Exception]) -> None:
    data = a_batch([(0, b"k", b"v", [])], attributes=attributes)
    with pytest.raises(error, match=r"tasks\.reader/3"):
        read(data)


def test_a_record_gives_back_what_it_was_made_of() -> None:
    headers = (("a", b"1"), ("a", None), ("\N{SNOWMAN}", b""))
    it = Record(*PLACE, 7, 5, 1, b"k", None, headers)
    assert (it.topic, it.partition, it.offset, it.timestamp, it.timestamp_type) == (*PLACE, 7, 5, 1)
    assert (it.key, it.value) == (b"k", None)
    assert it.headers == headers
    assert repr(it) == "Record('tasks.reader', partition=3, offset=7)"
    record = EncodedRecord(it.key, it.value, it.headers)
    batch = RecordBatch([(0, record)], limit=0, timestamp=5).sealed(-1, -1, 0)
    ((same,),) = read(batch)
    assert same == (0, 5, 0, b"k", None, headers)


@pytest.mark.parametrize("said", [[0, 2**31 - 1, 2], [0, -5, 2], [0, 0, 0], [2, 1, 0], [1, 2, 3]])
def test_a_producer_cannot_say_that_its_records_are_elsewhere(said: list[int]) -> None:
    """Kafka gives them offsets one after the other, and does not look at what is said of each."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=NONE,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10**7,
    )
    for offset in said:
        builder.append(offset, 0, b"k", b"v", [])
    batch = bytearray(builder.build())
    batch[:8], batch[23:27] = (40).to_bytes(8, "big"), (len(said) - 1).to_bytes(4, "big")
    batch[17:21] = calc_crc32c(bytes(batch[21:])).to_bytes(4, "big")
    assert [offset for offset, *_ in read(bytes(batch))[0]] == [40, 41, 42]


# What is handed out of it

ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"
a_record = (0, b"k", b"v", [])


def a_log(parts: list[tuple[int, int, str]]) -> tuple[bytes, list[tuple[int, int]]]:
    """Give batches with gaps before them, and which transactions were aborted."""
    data, offset, begun, aborted = b"", 0, None, []
    for gap, size, kind in parts:
        offset += gap
        if kind in {"abort", "commit"}:
            key = ABORT if kind == "abort" else COMMIT
            data += a_batch([(0, key, b"", [])], first=offset, attributes=0x20, transactional=True)
            if kind == "abort" and begun is not None:
                aborted.append((7, begun))
            begun, offset = None, offset + 1
            continue
        if kind == "transaction":
            begun = offset if begun is None else begun
        data += a_batch([a_record] * size, first=offset, transactional=kind == "transaction")
        offset += size
    return data, aborted


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(1, 5),
            st.sampled_from(["plain", "plain", "transaction", "transaction", "abort", "commit"]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 12),
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
)
def test_what_is_handed_out_and_where_it_goes_on_is_what_the_client_says(
    parts: list[tuple[int, int, str]], begin: int, takes: list[int]
) -> None:
    data, aborted = a_log(parts)
    gap, size, kind = parts[0]
    begin = min(begin, gap + (1 if kind in {"abort", "commit"} else size) - 1)  # Kafka begins with its batch
    place = TopicPartition(*PLACE)
    theirs = PartitionRecords(
        place,
        MemoryRecords(data),
        aborted,
        begin,
        None,
        None,
        check_crcs=True,
        isolation_level=READ_COMMITTED,
    )
    ours = Unread(data, place, aborted, begin)
    for most in [*takes, 100]:
        found, expected = ours.take(most), []
        while len(expected) < most and (record := next(theirs, None)) is not None:
            expected.append(record)
        assert [it.offset for it in found] == [it.offset for it in expected]
        assert {type(it) for it in found} <= {Record}
        if ours.is_over:
            assert len(found) < most
            assert ours.position == theirs.next_fetch_offset
            break  # there the client's ends, too, and may not be asked again
        assert len(found) == most
        assert ours.position >= theirs.next_fetch_offset  # it does not stop in a gap


def test_what_is_before_a_broken_batch_is_handed_out_first() -> None:
    data = a_batch([a_record] * 2) + a_batch([a_record], first=2)
    unread = Unread(data[:-1] + b"?", TopicPartition(*PLACE), [], 1)
    assert [it.offset for it in unread.take(9)] == [1]
    for _ in range(2):  # never as if that were all
        with pytest.raises(CorruptRecordException, match="CRC"):
            unread.take(9)
    assert (unread.position, unread.is_over) == (2, False)
