"""What a dead letter keeps, and that all of it is found again."""

from streams.dead_letters import ADDED, MAX_MESSAGE_BYTES, Failure, read, shorten, write
from streams.kafka.record_batch import EncodedRecord
from streams.topics import MAX_RECORD_BYTES
from tests.unit.worker_world import FakeRecord

FAILURE = Failure("not_retryable", "ValueError", "no", 2, "2026-01-31T12:00:00Z")
RUN = "r" * 64


def event(*headers: tuple[str, bytes], value: bytes | None = b"{}", offset: int = 7) -> FakeRecord:
    return FakeRecord("tasks.reader", offset, value, headers, partition=1)


def written(*records: FakeRecord, failure: Failure = FAILURE) -> list[FakeRecord]:
    found = write(records, failure, run=RUN, agent="reader", agent_version="3")
    return [
        FakeRecord("dead.reader", offset, letter.value, tuple(letter.headers), letter.key, 1)
        for offset, letter in enumerate(found)
    ]


def test_what_is_written_is_read() -> None:
    headers = (("ce_id", b"x"), ("ce_id", b"\xff"), ("mine", b""), ("ce_id", b"x"))
    (record,) = written(event(*headers, value=b"\x00 bytes"))
    letter = read(record)
    assert letter is not None
    assert (letter.record.key, letter.record.value, letter.headers) == (b"key", b"\x00 bytes", list(headers))
    assert (letter.agent, letter.agent_version, letter.run, letter.parts) == ("reader", "3", RUN, 1)
    assert (letter.failure, letter.origin, letter.size) == (FAILURE, "tasks.reader/1/7", 7)


def test_an_original_keeps_headers_that_look_like_ours() -> None:
    (first,) = written(event(("dlt-exception-fqcn", b"java"), ("dlt-reason", b"theirs")))
    letter = read(first)
    assert letter is not None
    assert letter.headers == [("dlt-exception-fqcn", b"java"), ("dlt-reason", b"theirs")]
    assert letter.failure.reason == "not_retryable"


def test_the_letters_of_a_join_know_how_many_they_are() -> None:
    letters = [read(record) for record in written(event(offset=1), event(offset=2))]
    assert [letter.parts for letter in letters if letter] == [2, 2]
    assert len({letter.id for letter in letters if letter}) == 2
    assert [letter.id for letter in letters if letter] == [
        letter.id for letter in map(read, written(event(offset=1), event(offset=2))) if letter
    ]


def test_what_is_no_letter() -> None:
    (record,) = written(event())
    assert read(FakeRecord("dead.reader", 0, b"{}")) is None
    for missing in ("dlt-id", "kafka_dlt-original-topic", "kafka_dlt-original-offset"):
        headers = tuple(header for header in record.headers if header[0] != missing)
        assert read(FakeRecord("dead.reader", 0, b"{}", headers)) is None


def test_a_value_no_topic_takes_stays_where_it_is() -> None:
    (record,) = written(event(value=bytes(MAX_RECORD_BYTES + 1)))
    letter = read(record)
    assert letter is not None
    assert (letter.record.value, letter.omitted_bytes, letter.size) == (None, 2097153, 2097153)


def test_a_letter_kafka_refuses_says_less_each_time() -> None:
    (record,) = written(event(("big", b"b"), ("dlt-exception-stacktrace", b"big, and not ours")))
    number, once = shorten((1, EncodedRecord(record.key, record.value, record.headers)))
    assert (number, once.value, once.key) == (1, None, b"key")
    number, twice = shorten((number, once))
    assert (number, twice.key, {name for name, _ in twice.headers}) == (1, None, set(ADDED))
    letter = read(FakeRecord("dead.reader", 0, None, tuple(twice.headers)))
    assert letter is not None
    assert (letter.headers, letter.omitted_bytes, letter.failure) == ([], 2, FAILURE)


def test_an_endless_message_is_cut_between_characters() -> None:
    (record,) = written(event(), failure=Failure("poison", "E", "ü" * MAX_MESSAGE_BYTES, 1, None))
    letter = read(record)
    assert letter is not None
    assert (letter.failure.message, letter.failure.first_time) == ("ü" * (MAX_MESSAGE_BYTES // 2), None)
