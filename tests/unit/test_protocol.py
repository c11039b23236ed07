"""Requests and answers: to the byte what the client makes of them itself, and the same errors."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from io import BytesIO
from math import inf
from types import SimpleNamespace
from typing import Any

import aiokafka.protocol
import pytest
from aiokafka.protocol import types
from aiokafka.protocol.message import Message
from aiokafka.protocol.struct import Struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents._rust import Layout
from streams.kafka import protocol

for module in pkgutil.iter_modules(aiokafka.protocol.__path__):
    importlib.import_module(f"aiokafka.protocol.{module.name}")


def derived_from(kind: Any) -> Iterator[Any]:
    for it in kind.__subclasses__():
        yield it
        yield from derived_from(it)


def is_of_kafka(kind: Any) -> bool:
    return kind.__module__.startswith("aiokafka.") and not inspect.isabstract(kind) and kind is not Message


KINDS: list[Any] = sorted(
    filter(is_of_kafka, derived_from(Struct)), key=lambda it: (it.__module__, it.__name__)
)
steady = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


# Values


class Text(str):
    """A text that the client would write as another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"


class Pair(tuple[int, int]):
    """Two values that the client finds in another order."""

    __slots__ = ()

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(1 - at)


ODD: list[Any] = [
    *(None, True, False, 0, -1, 2**7, 2**15, 2**31, 2**32, 2**63, -(2**63), 2**70, 1.5),
    *("1", "\ud800", "x" * 2**15, Text("x"), b"", b"x", bytearray(b"x" * 600), memoryview(b"x")),
    *([], (), [1], (1, 2), Pair((1, 2)), {}, {1: b"x"}, {0: b""}, {"a"}, SimpleNamespace(a=1)),
]
LONG = [511, 512, 513, 5_000]
texts = st.text(max_size=8) | st.sampled_from(["", "é" * 40, "x" * 0x7FFF])
data = (
    st.binary(max_size=12) | st.sampled_from(LONG).map(lambda it: b"x" * it) | st.just(bytearray(b"growing"))
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    types.Boolean: st.booleans(),
    types.Int8: st.integers(-(2**7), 2**7 - 1),
    types.Int16: st.integers(-(2**15), 2**15 - 1),
    types.Int32: st.integers(-(2**31), 2**31 - 1),
    types.Int64: st.integers(-(2**63), 2**63 - 1),
    types.UInt32: st.integers(0, 2**32 - 1),
    types.Float64: st.floats(),
    types.Bytes: st.none() | data,
    types.CompactBytes: st.none() | data,
    types.TaggedFields: st.just({}),
}


def values_of(kind: Any, odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if isinstance(kind, types.Schema):
        fields = st.tuples(*(values_of(it, odd) for it in kind.fields))
        return fields | fields.map(list) | odd
    if isinstance(kind, types.Array):
        return st.none() | st.lists(values_of(kind.array_of, odd), max_size=3) | odd
    return odd | (st.none() | texts if isinstance(kind, types.String) else PLAIN[kind])


def made_of(kind: Any, values: Any) -> Any:
    made = kind.__new__(kind)  # some take something else than their values
    made.__dict__.update(zip(kind.SCHEMA.names, values, strict=True))
    return made


NOTHING: st.SearchStrategy[Any] = st.nothing()


@st.composite
def requests(draw: st.DrawFn, kinds: list[Any], odd: st.SearchStrategy[Any] = NOTHING) -> Any:
    kind = draw(st.sampled_from(kinds))
    return made_of(kind, [draw(values_of(it, odd)) for it in kind.SCHEMA.fields])


# What comes out of it


def outcome(of: Callable[[], Any]) -> Any:
    try:
        return of()
    except Exception as error:  # noqa: BLE001 (whatever the client raises)
        return type(error), str(error)


def read(decode: Callable[..., Any], kind: Any, encoded: bytes, begin: int) -> Any:
    stream = BytesIO(encoded)
    stream.seek(begin)
    found = outcome(lambda: shown(decode(kind, stream)))
    return found, stream.tell(), outcome(lambda: shown(decode(kind, encoded)))


def shown(found: Any) -> Any:
    return type(found), repr(vars(found))  # which tells True from 1, and takes not a number for itself


def assert_read_alike(kind: Any, encoded: bytes, begin: int = 0) -> None:
    assert read(protocol.decode, kind, encoded, begin) == read(protocol.their_decode, kind, encoded, begin)


def written_by_ours_alone(request: Any) -> bytes:
    layout = protocol.layout_of(request.SCHEMA)
    assert layout is not None
    written = layout.encode([vars(request)[name] for name in request.SCHEMA.names])
    assert written is not None
    return written


@pytest.mark.parametrize("kind", KINDS, ids=lambda it: it.__name__)
def test_ours_takes_whatever_the_client_writes_and_reads(kind: Any) -> None:
    @settings(steady, max_examples=5)
    @given(requests([kind]))
    def check(request: Any) -> None:
        encoded = protocol.their_encode(request)
        assert written_by_ours_alone(request) == protocol.encode(request) == encoded
        layout = protocol.layout_of(kind.SCHEMA)
        assert layout is not None
        assert layout.decode(encoded, 0) is not None
        assert_read_alike(kind, encoded)

    check()


@steady
@given(requests(KINDS), st.binary(max_size=9), st.binary(max_size=9))
def test_what_is_written_and_read_is_the_same(request: Any, before: bytes, behind: bytes) -> None:
    encoded = protocol.encode(request)
    assert type(encoded) is bytes
    assert encoded == written_by_ours_alone(request) == protocol.their_encode(request)
    assert_read_alike(type(request), before + encoded + behind, len(before))


@steady
@given(requests(KINDS, odd=st.sampled_from(ODD)))
def test_what_does_not_fit_is_what_the_client_makes_of_it(request: Any) -> None:
    assert outcome(lambda: protocol.encode(request)) == outcome(lambda: protocol.their_encode(request))


@steady
@given(
    requests(KINDS),
    st.integers(0, 40),
    st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xC3, 0xFE, 0xFF])), max_size=3
    ),
    st.integers(0, 3),
)
def test_a_broken_answer_is_what_the_client_makes_of_it(
    request: Any, cut: int, changes: list[tuple[int, int]], begin: int
) -> None:
    encoded = bytearray(protocol.encode(request))
    for at, byte in changes:
        encoded[at : at + 1] = bytes([byte])
    assert_read_alike(type(request), bytes(encoded[: len(encoded) - cut]), begin)


@steady
@given(st.sampled_from(KINDS), st.binary(max_size=60))
def test_noise_is_what_the_client_makes_of_it(kind: Any, noise: bytes) -> None:
    assert_read_alike(kind, noise)


@pytest.mark.parametrize(
    ("field", "encoded", "read"),
    [
        (types.TaggedFields, "02 01 02 6162 07 00", [{1: b"ab", 7: b""}]),
        (types.TaggedFields, "00", [{}]),
        (types.TaggedFields, "7f", None),
        (types.TaggedFields, "02 07 00 07 00", None),
        (types.TaggedFields, "02 07 00 01 00", None),
        (types.TaggedFields, "01 07 02 61", None),
        (types.Array(types.Int8), "ffffffff", [None]),
        (types.Array(types.Int8), "fffffffe", [[]]),
        (types.Array(types.Int8), "7fffffff", None),
        (types.Array(types.Int8), "00000003 0102", None),
        (types.CompactArray(types.Int8), "00", [None]),
        (types.CompactArray(types.Int8), "01", [[]]),
        (types.CompactArray(types.Int8), "ffffffff7f", None),
        (types.CompactArray(types.Int8), "8080808000", [None]),
        (types.CompactArray(types.Int8), "808080808000", None),
        (types.CompactString(), "8080808010", None),
        (types.CompactString(), "00", [None]),
        (types.String(), "0002 c3a9", ["é"]),
        (types.String(), "0002 c328", None),
        (types.String(), "8000", [None]),
        (types.Bytes, "80000000", [None]),
        (types.Bytes, "00000001", None),
        (types.Boolean, "02", [True]),
        (types.Float64, "7ff0000000000000", [inf]),
    ],
)
def test_what_is_at_its_bounds_is_read_as_the_client_does(field: Any, encoded: str, read: Any) -> None:
    schema = types.Schema(("field", field))
    assert_read_alike(type("Odd", (Struct,), {"SCHEMA": schema}), bytes.fromhex(encoded))
    layout = protocol.layout_of(schema)
    assert layout is not None
    whole = bytes.fromhex(encoded)
    assert layout.decode(whole, 0) == (read and (tuple(read), len(whole)))


def test_where_there_is_nothing_nothing_is_read() -> None:
    layout = Layout("int8")
    assert layout.decode(b"ab", 1) == ((98,), 2)
    assert layout.decode(b"ab", 2) is layout.decode(b"ab", 2**63) is None


@pytest.mark.parametrize(
    "field",
    [
        types.UnsignedVarInt32,
        types.String("latin-1"),
        types.Array(types.String("latin-1")),
        type("Int32", (types.Int32,), {}),
        type("Array", (types.Array,), {})(types.Int32),
        types.Array(types.Schema()),
    ],
)
def test_a_type_we_do_not_know_is_the_clients(field: Any) -> None:
    schema = types.Schema(
        ("known", types.Int8), ("unknown", types.Array(("field", field), ("id", types.Int8)))
    )
    kind: Any = type("Unknown", (Struct,), {"SCHEMA": schema})
    assert protocol.layout_of(schema) is None
    made = kind(1, [])
    assert made.encode() == protocol.their_encode(made) == b"\x01\x00\x00\x00\x00"
    assert kind.decode(made.encode()) == kind.decode(BytesIO(made.encode())) == made


def test_a_stream_of_another_kind_is_the_clients() -> None:
    kind: Any = type("Number", (Struct,), {"SCHEMA": types.Schema(("number", types.Int8))})
    assert kind.decode(SimpleNamespace(read=lambda _: b"\x07")).number == 7


@pytest.mark.parametrize(
    ("description", "wrong"),
    [
        ("int32 it64", '"it64" means nothing there'),
        ("array", "it ends too early"),
        (") ", r'"\)" means nothing'),
    ],
)
def test_what_is_no_description_is_refused(description: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Layout(description)
