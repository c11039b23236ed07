"""The wire contract: what headers say, what is wrong with them, and the ids made from them."""

import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents import _rust
from agents.core.base import AgentStatus
from agents.core.budget import Budget
from agents.core.errors import InvalidInputError
from streams import envelope as envelopes
from streams.envelope import (
    MAX_READ_BYTES,
    RESULT,
    SCHEMAS,
    TASK,
    Envelope,
    EnvelopeError,
    Headers,
    _careful,
    by_partition,
    decode,
    encode,
    fallback,
    next_traceparent,
    record_digest,
    result_id,
    run_id,
    task_id,
    task_time,
)
from streams.payloads import ResultWriter
from tests.unit.worker_world import FakeRecord

WHOLE = {"ce_specversion": b"1.0", "ce_id": b"i", "ce_source": b"/s", "ce_type": TASK.encode()}
FIELDS = (
    *("id", "source", "type", "workflow_id", "workflow", "round", "status", "deadline"),
    *("hops", "llm", "traceparent", "tracestate", "rounds", "budget"),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = 1_769_860_800_123
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def record(*headers: tuple[str, bytes | None], **fields: Any) -> FakeRecord:
    return FakeRecord("tasks.reader", 7, b"{}", headers, **fields)  # type: ignore[arg-type]  # null is possible


def with_headers(**headers: bytes | None) -> FakeRecord:
    return record(*(WHOLE | headers).items())


def answer(
    given: Envelope,
    read: envelopes.Record,
    *,
    joined: Sequence[tuple[Envelope, FakeRecord]] | None = None,
    budget: Budget | None = None,
    llm: str | None = None,
) -> Headers:
    writer = ResultWriter("reader", "1", source="/here", max_key_bytes=10, llm=llm)
    root = ("reader", "i", None, False, None)
    return list(
        writer.write(
            given,
            read,
            joined,
            RUN,
            AgentStatus.COMPLETED,
            output=None,
            verdict=None,
            error=None,
            artifacts={},
            usage=None,
            budget=budget,
            attempts=1,
            started_at=None,
            finished_at=NOW,
            root=root,
            followers=(),
        ).headers
    )


def check_refused(it: FakeRecord, says: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        decode(it)
    message = str(caught.value)
    assert message.startswith("tasks.reader/0/7: ")
    assert says in message
    assert (caught.value.type, isinstance(caught.value, InvalidInputError)) == ("invalid_event", True)
    envelope = fallback(it)  # and yet its failure can be told
    assert decode(record(*encode(replaced(envelope, type=RESULT, source="/ours"))))


def replaced(envelope: Envelope, **fields: Any) -> Envelope:
    return Envelope(**{name: getattr(envelope, name) for name in FIELDS} | fields)


# Reading


def test_an_event() -> None:
    assert decode(with_headers()) == Envelope(id="i", source="/s", type=TASK, workflow_id="i")


def test_all_headers() -> None:
    it = with_headers(
        ce_correlationid=b"w",
        ce_workflow=b"flow",
        ce_pass=b"r",
        ce_rounds=b"a:no>b=1",
        ce_status=b"failed",
        ce_deadline=b"2026-01-31T12:00:00Z",
        ce_hops=b"3",
        ce_llm=b"off",
        traceparent=TRACE.encode(),
        tracestate=b"a=1",
    )
    assert decode(it) == Envelope(
        id="i",
        source="/s",
        type=TASK,
        workflow_id="w",
        workflow="flow",
        round="r",
        rounds="a:no>b=1",
        status="failed",
        deadline=datetime(2026, 1, 31, 12, tzinfo=UTC),
        hops=3,
        llm="off",
        traceparent=TRACE,
        tracestate="a=1",
    )


@pytest.mark.parametrize(
    "headers", [(), (("x", b"1"),), (("content-type", b"application/json"),), (("x", None),)]
)
def test_without_any_cloudevents_header_it_is_a_plain_task(headers: Any) -> None:
    place = "tasks.reader/0/7"
    assert decode(record(*headers)) == Envelope(id=place, source="", type=TASK, workflow_id=place)


def test_a_plain_task_may_be_part_of_a_trace() -> None:
    it = decode(record(("traceparent", TRACE.encode()), ("tracestate", b"a=1")))
    assert (it.traceparent, it.tracestate, it.type) == (TRACE, "a=1", TASK)


def test_headers_of_others_are_no_business_of_ours() -> None:
    assert decode(with_headers(ce_tenant=b"\xff", ce_audience=b"", baggage=b"\xfe", other=None)) == decode(
        with_headers()
    )


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", ["absent", b"", None])
def test_half_of_the_headers(name: str, value: Any) -> None:
    headers = {key: it for key, it in WHOLE.items() if key != name} | (
        {} if value == "absent" else {name: value}
    )
    check_refused(record(*headers.items()), f"header {name} is missing while ce_")


def test_any_cloudevents_header_alone_makes_it_an_event() -> None:
    check_refused(record(("ce_hops", b"1")), "header ce_specversion is missing while ce_hops is present")


READ_AS_TEXT = [name for name in envelopes.READ if name != "ce_specversion"]


@pytest.mark.parametrize("name", READ_AS_TEXT)
def test_a_binary_header(name: str) -> None:
    check_refused(with_headers(**{name: b"a\xff" + b"x" * 100}), f"header {name} is not UTF-8 text: b'a\\xff")


@pytest.mark.parametrize("name", READ_AS_TEXT)
def test_a_header_there_twice(name: str) -> None:
    it = record(*(WHOLE | {name: b"1"}).items(), (name, b"1"))
    check_refused(it, f"header {name} is there 2 times")


def test_other_headers_may_be_there_twice() -> None:
    assert decode(record(*WHOLE.items(), ("x", b"1"), ("x", b"2"))).id == "i"


@pytest.mark.parametrize(
    "name",
    [
        "ce_correlationid",
        "ce_workflow",
        "ce_pass",
        "ce_rounds",
        "ce_status",
        "ce_llm",
        "ce_hops",
        "ce_deadline",
    ],
)
def test_a_null_header_is_none(name: str) -> None:
    assert decode(with_headers(**{name: None})) == decode(with_headers())


@pytest.mark.parametrize("name", ["ce_correlationid", "ce_workflow", "ce_pass", "ce_rounds", "ce_status"])
def test_an_empty_name_is_none(name: str) -> None:
    assert decode(with_headers(**{name: b""})) == decode(with_headers())


@pytest.mark.parametrize("version", [b"0.3", b"1.0 ", b"1", b"2.0", b"\xff"])
def test_another_version(version: bytes) -> None:
    check_refused(with_headers(ce_specversion=version), "this version reads 1.0")


@pytest.mark.parametrize(
    "moment",
    [
        b"",
        b"soon",
        b"2026-01-31",
        b"2026-01-31T12:00:00",
        b"1769860800",
        b"2026-02-30T12:00:00Z",
        b"2026-01-31T12:00:00+99:00",
    ],
)
def test_a_deadline_that_is_no_moment(moment: bytes) -> None:
    check_refused(with_headers(ce_deadline=moment), f"header ce_deadline is {moment.decode()!r}")


@pytest.mark.parametrize(
    "moment", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00.000000Z"]
)
def test_a_deadline_in_any_zone(moment: str) -> None:
    assert decode(with_headers(ce_deadline=moment.encode())).deadline == datetime(2026, 1, 31, 12, tzinfo=UTC)


@given(
    st.datetimes(datetime.fromisoformat("1700-01-01"), datetime.fromisoformat("2250-01-01")),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.sampled_from(["Z", "+00:00", "-03:00", "+05:45"]),
)
@example(datetime.fromisoformat("1833-01-01T00:00:00.032"), "milliseconds", "-03:00")
def test_a_deadline_is_a_number_too(moment: datetime, precision: str, zone: str) -> None:
    text = moment.isoformat(timespec=precision) + zone
    expected = (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)
    read = decode(with_headers(ce_deadline=text.encode()))
    assert (read.deadline_ms, read.deadline) == (expected, datetime.fromisoformat(text))
    assert Envelope("i", "/s", TASK, "w", deadline=read.deadline).deadline_ms == expected


@pytest.mark.parametrize("moment", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.100+00:00"])
def test_a_deadline_goes_on_as_it_came(moment: str) -> None:
    given = decode(with_headers(ce_deadline=moment.encode()))
    headers = answer(given, record())
    assert dict(headers)["ce_deadline"] == moment.encode()
    assert decode(record(*headers)).deadline == given.deadline


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ("2026-01-31T12:00:00Z", TypeError, r"deadline is '2026-.*, which is no datetime"),
        (EPOCH.date(), TypeError, r"deadline is datetime.date\(.*, which is no datetime"),
        (EPOCH.replace(tzinfo=None), ValueError, r"deadline is datetime.datetime\(.*: give it a zone"),
    ],
)
def test_what_is_no_deadline_is_refused_by_name(wrong: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Envelope("i", "/s", TASK, "w", deadline=wrong)
    with pytest.raises(error, match=says):
        replaced(decode(with_headers()), deadline=wrong)


class Curious(tzinfo):
    """A zone that looks at the envelope while it gets its deadline."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self.seen: list[Any] = []

    def utcoffset(self, _: datetime | None) -> timedelta:
        self.seen.append(self._envelope.deadline)
        return timedelta()

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> None:
        return None


def test_a_zone_may_look_at_the_envelope_that_gets_its_deadline() -> None:
    it = decode(with_headers())
    zone = Curious(it)
    it.deadline = datetime(2026, 1, 31, 12, tzinfo=zone)
    assert set(zone.seen) == {None}
    assert it.deadline == datetime(2026, 1, 31, 12, tzinfo=UTC)


@given(st.text("0123456789-T:.Z+", min_size=17, max_size=27) | st.just("2025-02-29T12:00:00Z"))
def test_what_is_no_deadline_is_none_in_rust_either(text: str) -> None:
    it = with_headers(ce_deadline=text.encode())
    assert said(decode, it) == said(_careful, it)


@pytest.mark.parametrize("hops", ["", "-1", "+1", " 1", "1.0", "10000", "٣", "1_0", "0x1"])
def test_hops_that_are_no_number(hops: str) -> None:
    check_refused(with_headers(ce_hops=hops.encode()), f"header ce_hops is {hops!r}")


@pytest.mark.parametrize(("hops", "expected"), [(b"0", 0), (b"9999", 9999), (b"007", 7)])
def test_hops(hops: bytes, expected: int) -> None:
    assert decode(with_headers(ce_hops=hops)).hops == expected


def test_headers_larger_than_their_results_could_carry() -> None:
    check_refused(with_headers(ce_id=b"x" * MAX_READ_BYTES), f"header ce_id has {MAX_READ_BYTES} bytes")
    decode(with_headers(ce_tenant=b"x" * 100_000))  # not read, so not carried


@pytest.mark.parametrize("kind", ["application/cloudevents+json", "application/cloudevents; charset=utf-8"])
def test_structured_mode_says_what_to_do(kind: str) -> None:
    check_refused(record(("content-type", kind.encode())), "send CloudEvents in binary mode")
    check_refused(record(*WHOLE.items(), ("content-type", kind.encode())), "send CloudEvents in binary mode")


# Writing and reading again

TEXT = st.text(min_size=1, max_size=40).filter(lambda it: it.encode(errors="ignore") and it.isprintable())
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-3)), timezone(timedelta(hours=5, minutes=45))])
MOMENTS = st.builds(
    lambda microseconds, zone: (EPOCH + timedelta(microseconds=microseconds)).astimezone(zone),
    st.integers(-62 * 10**15, 253 * 10**15),
    ZONES,
)
ENVELOPES = st.builds(
    Envelope,
    id=TEXT,
    source=TEXT,
    type=st.sampled_from([TASK, RESULT]),
    workflow_id=TEXT,
    workflow=st.none() | TEXT,
    round=st.none() | TEXT,
    rounds=st.none() | TEXT,
    status=st.none() | TEXT,
    deadline=st.none() | MOMENTS,
    hops=st.none() | st.integers(0, 9999),
    llm=st.none() | TEXT,
    traceparent=st.just(TRACE),
    tracestate=st.none() | st.just("vendor=1,other=2"),
)


@given(ENVELOPES)
def test_what_is_written_is_read_again(envelope: Envelope) -> None:
    assert decode(record(*encode(envelope))) == envelope


@given(
    st.lists(
        st.tuples(
            st.text(max_size=12) | st.sampled_from(sorted(envelopes.READ)), st.none() | st.binary(max_size=40)
        )
    )
)
def test_no_header_at_all_raises_anything_else(headers: list[tuple[str, bytes | None]]) -> None:
    it = record(*headers)
    try:
        envelope = decode(it)
    except EnvelopeError:
        envelope = replaced(fallback(it), type=RESULT)
    assert envelope.id
    assert envelope.workflow_id
    assert encode(envelope)


def test_headers_of_an_event_in_order() -> None:
    written = dict(encode(Envelope("i", "/s", RESULT, "w"), causes=[("a", "d1"), ("b", "d2")]))
    moment = written.pop("ce_time").decode()
    assert written == {
        "ce_specversion": b"1.0",
        "ce_id": b"i",
        "ce_source": b"/s",
        "ce_type": RESULT.encode(),
        "ce_dataschema": SCHEMAS[RESULT].encode(),
        "content-type": b"application/json",
        "ce_correlationid": b"w",
        "ce_causationid": b"a,b",
        "ce_causedigest": b"d1,d2",
    }
    assert datetime.fromisoformat(moment).tzinfo is not None
    assert (len(moment), moment[-1]) == (24, "Z")


def test_the_present_time_is_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for nanoseconds, expected in (
        (1_769_860_800_001_999_999, "2026-01-31T12:00:00.001Z"),
        (1_769_860_800_001_000_000, "2026-01-31T12:00:00.001Z"),
        (1_769_860_799_999_999_999, "2026-01-31T11:59:59.999Z"),
        (1_769_860_801_000_000_000, "2026-01-31T12:00:01.000Z"),
    ):
        monkeypatch.setattr(time, "time_ns", lambda now=nanoseconds: now)
        assert envelopes.now() == expected


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))  # the years that a datetime knows
def test_a_moment_is_written_as_a_datetime_is(milliseconds: int) -> None:
    at = EPOCH + timedelta(milliseconds=milliseconds)
    assert envelopes.moment(milliseconds) == at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# What can be said of an event that cannot be read


def test_what_is_known_of_a_broken_event_is_kept() -> None:
    it = with_headers(
        ce_specversion=b"0.3",
        ce_correlationid=b"w",
        ce_workflow=b"flow",
        ce_pass=b"r",
        ce_llm=b"off",
        traceparent=TRACE.encode(),
    )
    expected = Envelope("i", "/s", "", "w", workflow="flow", round="r", llm="off", traceparent=TRACE)
    assert fallback(it) == expected


def test_without_anything_known_its_place_is_its_name() -> None:
    assert fallback(record(("ce_hops", None), ("ce_id", b""))) == Envelope(
        "tasks.reader/0/7", "", "", "tasks.reader/0/7"
    )


def test_what_is_too_long_or_no_text_is_not_kept() -> None:
    it = fallback(with_headers(ce_id=b"x" * 5_000, ce_correlationid=b"w\xff"))
    assert (it.id, it.workflow_id) == ("tasks.reader/0/7", "tasks.reader/0/7")


# Ids


def test_a_task_id_is_a_uuid_of_version_7_and_tells_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_769_860_800_123_456_789)
    for _ in range(200):
        parsed = uuid.UUID(identity := task_id())
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, identity)
        assert task_time(identity) == 1_769_860_800_123


def test_task_ids_sort_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for millisecond in range(0, 3_000, 7):
        monkeypatch.setattr(
            time, "time_ns", lambda now=millisecond: 1_769_860_800_000_000_000 + now * 1_000_000
        )
        ids.append(task_id())
    assert all(one < two for one, two in pairwise(ids))


def test_task_ids_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_769_860_800_123_456_789)
    assert len({task_id() for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("identity", ["", "tasks.reader/0/7", str(uuid.uuid4()), result_id("r")])
def test_other_ids_tell_no_time(identity: str) -> None:
    assert task_time(identity) is None


@given(st.text(alphabet="0123456789abcdef", min_size=64, max_size=64), st.integers(1, 3))
def test_a_result_id_is_a_uuid_of_version_8(run: str, outcome: int) -> None:
    parsed = uuid.UUID(result_id(run, outcome))
    assert (parsed.version, parsed.variant, str(parsed)) == (8, uuid.RFC_4122, result_id(run, outcome))


def test_a_result_id_depends_on_run_and_outcome_only() -> None:
    ids = {result_id(run, outcome) for run in ("a", "b", "a/1") for outcome in (1, 11, 2)}
    assert len(ids) == 9
    # Written into results that are kept for years: these may never change.
    assert (
        run_id("app", "reader", "/s", "i")
        == "85e352af9cb656e196c1787d014e318b9f7418c8411c59a01f8dddb29046d307"
    )
    assert result_id("a") == "773232ab-e934-8f0e-902f-8248423fc6ce"
    assert result_id("a") == result_id("a", 1)


@given(
    st.lists(st.text(max_size=3), min_size=2, max_size=5),
    st.lists(st.text(max_size=3), min_size=2, max_size=5),
)
def test_run_ids_are_ambiguous_for_no_two_lists(one: list[str], two: list[str]) -> None:
    assert (run_id(*one) == run_id(*two)) == (one == two)


def test_parts_of_a_run_id_cannot_be_shifted() -> None:
    assert (
        len(
            {
                run_id("a", "b", "c", "d"),
                run_id("ab", "", "c", "d"),
                run_id("a", "b", "cd", ""),
                run_id("a", "bc", "d"),
            }
        )
        == 4
    )


# Digests of records

RUN = "0123456789abcdef" * 4
WORDS = st.none() | st.text(max_size=5)
BUDGETS = st.sampled_from([None, Budget(), Budget(calls=2, tokens=30)])
BYTES = st.none() | st.binary(max_size=3)
HEADERS = st.lists(st.tuples(st.text("aé", max_size=2), BYTES), max_size=3)
RECORDS = st.builds(
    lambda key, value, headers: FakeRecord("t", 0, value, tuple(headers), key),
    BYTES,
    BYTES,
    HEADERS,
)


@given(RECORDS, RECORDS)
def test_two_records_have_one_digest_only_if_they_are_equal(one: FakeRecord, two: FakeRecord) -> None:
    assert (record_digest(one) == record_digest(two)) == (one == two)


def test_a_digest_covers_key_value_and_headers_in_order() -> None:
    base = record(("a", b"1"), ("b", b"2"))
    others = [
        record(("b", b"2"), ("a", b"1")),
        record(("a", b"12"), ("b", b"")),
        record(("a", b"1"), ("b", None)),
        record(("a", b"1")),
        record(("ab", b"12")),
        FakeRecord("tasks.reader", 7, b"{}", base.headers, None),
        FakeRecord("tasks.reader", 7, b"{}", base.headers, b""),
        FakeRecord("tasks.reader", 7, None, base.headers),
        FakeRecord("tasks.reader", 7, b"", base.headers),
        FakeRecord("tasks.reader", 7, b"key{}", base.headers, b""),
    ]
    assert len({record_digest(it) for it in [base, *others]}) == 11
    assert len(record_digest(base)) == 64


def test_a_digest_does_not_depend_on_the_place() -> None:
    assert record_digest(FakeRecord("t", 1, b"v")) == record_digest(FakeRecord("u", 2, b"v", timestamp=3))


def test_names_outside_of_ascii_cannot_be_shifted_into_other_headers() -> None:
    # Lengths of names in characters, followed by their bytes, hash the same for these two.
    smile = "\N{GRINNING FACE}"
    one = FakeRecord("t", 0, b"\0\0\0\2\0\0\0\2", ((4 * smile + "abcd", b""),), b"")
    two = FakeRecord("t", 0, (2 * smile).encode(), (("ab", b""), ("cd", (2 * smile).encode())), b"")
    assert record_digest(one) != record_digest(two)


def spelled_out(it: FakeRecord) -> str:
    """The definition of a record's digest, word by word."""
    parts = [it.key, it.value, *(value for _, value in it.headers)]
    names = [name.encode() for name, _ in it.headers]
    sizes = [0xFFFFFFFF if part is None else len(part) for part in parts] + [len(name) for name in names]
    lengths = b"".join(size.to_bytes(4, "big") for size in sizes)
    exact = b"callboard-record-v1" + lengths + b"".join(part or b"" for part in parts) + b"".join(names)
    return hashlib.sha256(exact).hexdigest()


BYTES = st.none() | st.binary(max_size=40)


@given(st.lists(st.tuples(st.text(max_size=10), BYTES), max_size=5), BYTES, BYTES)
def test_a_digest_is_its_definition(headers: Any, key: bytes | None, value: bytes | None) -> None:
    it = FakeRecord("t", 0, value, tuple(headers), key)
    assert record_digest(it) == spelled_out(it)


@given(st.lists(st.text(max_size=20), min_size=2, max_size=5))
def test_a_run_id_is_its_definition(parts: list[str]) -> None:
    encoded = [part.encode() for part in parts]
    exact = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
    run = run_id(parts[0], parts[1], *parts[2:])
    assert run == hashlib.sha256(b"callboard-run-v1" + exact).hexdigest()
    number = int.from_bytes(hashlib.sha256(f"{run}/1".encode()).digest()[:16], "big")
    number = number & ~(0xF << 76) | (8 << 76)
    assert result_id(run) == str(uuid.UUID(int=number & ~(3 << 62) | (2 << 62)))


# The quick way of reading against the careful one

ODD = st.sampled_from([None, b"", b"\xff", b"0", b"-1", b" 1", b"1.0", b"10000", b"\xc2\xb2", b"x" * 1_500])
USUAL: dict[str, Any] = {
    "ce_specversion": st.just(b"1.0"),
    "ce_id": st.sampled_from([b"i", "\N{SNOWMAN}".encode(), b"e" * 3_900]),
    "ce_source": st.just(b"/shop"),
    "ce_type": st.sampled_from([TASK.encode(), RESULT.encode(), b"callboard.task.v2"]),
    "content-type": st.sampled_from(
        [b"application/json", b"application/json; charset=utf-8", b"application/cloudevents+json"]
    ),
    "ce_correlationid": st.just(b"w"),
    "ce_workflow": st.just(b"flow"),
    "ce_pass": st.just(b"r"),
    "ce_rounds": st.just(b"a:no>b=1"),
    "ce_status": st.just(b"failed"),
    "ce_deadline": st.sampled_from(
        [b"2026-01-31T12:00:00Z", b"2026-01-31T12:00:00", b"2026-02-30T12:00:00Z"]
    ),
    "ce_hops": st.sampled_from([b"0", b"007", b"9999"]),
    "ce_llm": st.just(b"off"),
    "traceparent": st.just(TRACE.encode()),
    "tracestate": st.just(b"a=1"),
    "ce_tenant": st.just(b"\xff"),
}


@st.composite
def nearly_usual(draw: Any) -> FakeRecord:
    """An event with some headers missing, odd or there twice."""
    names = draw(st.permutations(list(USUAL)))[: draw(st.integers(8, len(USUAL)))]
    headers = {name: draw(USUAL[name]) for name in [*WHOLE, *names]}
    odd = draw(st.lists(st.sampled_from([*USUAL, "ce_other"]), max_size=2))
    twice = [(name, b"1") for name in draw(st.lists(st.sampled_from(list(USUAL)), max_size=1))]
    return record(*(headers | {name: draw(ODD) for name in odd}).items(), *draw(st.just(twice)))


def usual(it: FakeRecord) -> Envelope | None:
    return _rust.read_event(it)


@given(nearly_usual())
def test_the_quick_way_says_what_the_careful_one_says(it: FakeRecord) -> None:
    assert said(decode, it) == said(_careful, it)
    assert usual(it) in (None, said(_careful, it))


def said(read: Callable[[Any], Envelope], it: Any) -> Envelope | str:
    try:
        return read(it)
    except EnvelopeError as error:
        return str(error)


def test_what_callboard_itself_publishes_goes_the_quick_way() -> None:
    deadline = datetime(2026, 1, 31, 12, tzinfo=UTC)
    envelope = Envelope("i", "/s", RESULT, "w", "flow", "r", "failed", deadline, 3, "off", TRACE, "a=1")
    assert usual(record(*encode(envelope, causes=[("a", "d" * 64)]))) == envelope
    assert usual(record(*encode(Envelope("i", "/s", TASK, "w")))) == Envelope("i", "/s", TASK, "w")


# Reading records of ours


PLACES = st.tuples(st.sampled_from(["tasks.a", "results.a"]), st.integers(0, 1))


@given(st.lists(st.tuples(PLACES, st.integers(1, 3), st.sampled_from([1, 1, 0])), max_size=8), st.booleans())
def test_records_are_divided_where_the_partition_changes(
    kept: list[tuple[tuple[str, int], int, int]],
    ours: bool,  # noqa: FBT001 (drawn)
) -> None:
    records = [
        _rust.Record(topic, number, 7, time, kind, None, None, [])
        if ours
        else FakeRecord(topic, 7, partition=number, timestamp=time, timestamp_type=kind)
        for (topic, number), time, kind in kept
    ]
    spelled = [
        (*place, min(time * kind for _, time, kind in stretch), len(stretch))
        for place, stretch in ((place, list(its)) for place, its in groupby(kept, itemgetter(0)))
    ]
    divided = by_partition(records)
    assert [(topic, number, since, len(stretch)) for topic, number, since, stretch in divided] == spelled
    assert [record for *_, stretch in divided for record in stretch] == records


@given(nearly_usual())
def test_a_record_of_ours_is_read_and_answered_like_any(it: FakeRecord) -> None:
    ours = _rust.Record(it.topic, it.partition, it.offset, it.timestamp, 1, it.key, it.value, it.headers)
    assert said(decode, it) == said(decode, ours)
    if not isinstance(said(decode, it), str):
        for each in (it, ours):
            written = answer(decode(each), each)
            assert dict(written)["ce_causedigest"].decode() == spelled_out(it)
            assert record_digest(each) == spelled_out(it)


@given(
    nearly_usual(),
    st.sampled_from(["workflow", "round", "status", "llm", "traceparent", "tracestate", "rounds"]),
    st.none() | st.text(max_size=9),
)
def test_what_is_set_changes_nothing_else(it: FakeRecord, name: str, text: str | None) -> None:
    ours = _rust.Record(it.topic, it.partition, it.offset, it.timestamp, 1, it.key, it.value, it.headers)
    if not isinstance(said(decode, ours), str):
        taken = decode(ours)
        changed = copy(taken)
        setattr(changed, name, text)
        assert changed == replaced(decode(it), **{name: text})
        assert taken == decode(it)
        assert ours.headers == it.headers


def test_texts_behind_what_is_very_long_are_read_and_go_on() -> None:
    filler = ("ce_tenant", b"x" * 70_000)
    it = _rust.Record("t", 0, 0, 0, 1, None, b"", (filler, *WHOLE.items()))
    assert decode(it) == decode(record(*WHOLE.items()))


def test_texts_of_an_event_have_an_end() -> None:
    with pytest.raises(ValueError, match="have 64 KiB or more together"):
        Envelope("i" * 65_000, "/s", TASK, "w" * 1_000)
    it = Envelope("i" * 65_000, "/s", TASK, "w")
    with pytest.raises(ValueError, match="have 64 KiB or more together"):
        it.workflow = "w" * 1_000
    assert (len(it.id), it.workflow) == (65_000, None)


# The quick way of writing a result against the general one


@given(
    st.builds(
        Envelope,
        *[st.text(min_size=1, max_size=5)] * 4,
        workflow=WORDS,
        round=WORDS,
        status=WORDS,
        deadline=st.none() | st.datetimes(timezones=st.just(UTC)),
        hops=st.none() | st.integers(0, 9),
        llm=WORDS,
        traceparent=st.sampled_from([None, TRACE]),
        tracestate=WORDS,
        rounds=WORDS,
        budget=BUDGETS,
    ),
    st.lists(st.tuples(st.text(max_size=5), RECORDS), max_size=3),
    BUDGETS,
    WORDS,
)
def test_an_answer_is_the_envelope_it_would_have(
    it: Envelope, answered: list[tuple[str, FakeRecord]], left: Budget | None, llm: str | None
) -> None:
    whole = replaced(
        it,
        id=result_id(RUN),
        source="/here",
        type=RESULT,
        status="completed",
        hops=None if it.hops is None else max(0, it.hops - 1),
        budget=left,
        llm=it.llm if llm is None else llm,
        traceparent=next_traceparent(it.traceparent, RUN),
    )
    given = [(Envelope(identity, "/s", TASK, "w"), record) for identity, record in answered]
    written = answer(it, record(), joined=given, budget=left, llm=llm)
    causes = [(identity, record_digest(record)) for identity, record in answered]
    assert [header for header in written if header[0] != "ce_time"] == [
        header for header in encode(whole, causes=causes) if header[0] != "ce_time"
    ]


@given(RECORDS)
def test_an_event_that_is_answered_alone_need_not_be_listed(read: FakeRecord) -> None:
    it = Envelope("i", "/s", TASK, "w")
    alone, listed = dict(answer(it, read)), dict(answer(it, record(), joined=[(it, read)]))
    assert alone["ce_causedigest"].decode() == record_digest(read)
    assert alone | {"ce_time": b""} == listed | {"ce_time": b""}


# Traces


def test_a_trace_is_continued_or_begun() -> None:
    assert next_traceparent(TRACE, RUN) == f"00-{'a' * 32}-{RUN[:16]}-01"
    assert next_traceparent(f"cc-{'a' * 32}-{'b' * 16}-00-more-of-it", RUN) == f"00-{'a' * 32}-{RUN[:16]}-00"
    assert next_traceparent(None, RUN) == f"00-{RUN[16:48]}-{RUN[:16]}-01"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff",
        b"00",
        TRACE.upper().encode(),
        TRACE.replace("a", "g").encode(),
        TRACE.replace("a", "0").encode(),
        TRACE.replace("b", "0").encode(),
        TRACE.replace("00-", "ff-").encode(),
        TRACE.encode()[:-1],
        TRACE.encode() + b"\n",
        b"cc" + TRACE[2:].encode() + b"-" + b"x" * 70_000,
        None,
    ],
)
def test_a_broken_trace_is_no_reason_to_refuse_an_event(broken: bytes | None) -> None:
    it = decode(with_headers(traceparent=broken, tracestate=b"a=1"))
    assert (it.traceparent, it.tracestate) == (None, None)


@pytest.mark.parametrize("state", [b"\xff", b"x" * 513, None])
def test_a_broken_trace_state_is_dropped(state: bytes | None) -> None:
    it = decode(with_headers(traceparent=TRACE.encode(), tracestate=state))
    assert (it.traceparent, it.tracestate) == (TRACE, None)
