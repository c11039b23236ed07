"""Requests are written and answers read in Rust, so that few events at a time keep no worker busy with that.

The client does it field by field, and copies what it has so far for each that a field is in: a tenth of that
worker's time. What requests are made of stays the client's to say, and what is out of the ordinary is its own
to write and read: a type we do not know, a value that is not of its type, an answer that is cut off.

Whoever makes clients imports `Connection`, which imports this; nothing here is ever called by name.
"""

from functools import cache
from io import BytesIO
from typing import Any

from aiokafka.protocol import types
from aiokafka.protocol.struct import Struct

from agents import _rust

WORDS: dict[Any, str] = {
    types.Boolean: "boolean",
    types.Int8: "int8",
    types.Int16: "int16",
    types.Int32: "int32",
    types.Int64: "int64",
    types.UInt32: "uint32",
    types.Float64: "float64",
    types.String: "string",
    types.CompactString: "compact_string",
    types.Bytes: "bytes",
    types.CompactBytes: "compact_bytes",
    types.TaggedFields: "tagged_fields",
    types.Array: "array",
    types.CompactArray: "compact_array",
}
ENCODING = "utf-8"

# What the client does by itself.
their_encode, their_decode = Struct.encode, Struct.decode.__func__


@cache
def layout_of(schema: types.Schema) -> _rust.Layout | None:
    """Give what ours needs to know of a schema; none if there is a type in it that we do not know."""
    try:
        return _rust.Layout(" ".join(map(_described, schema.fields)))
    except (KeyError, ValueError):
        return None


def encode(request: Struct) -> bytes:
    """Write a request, or whatever else the client sends."""
    layout = layout_of(request.SCHEMA)
    if layout is not None:
        values = request.__dict__
        encoded = layout.encode([values[name] for name in request.SCHEMA.names])
        if encoded is not None:
            return encoded
    theirs: bytes = their_encode(request)
    return theirs


def decode(kind: type[Struct], data: BytesIO | bytes) -> Struct:
    """Read an answer, or whatever else the client is sent; a stream is read as far as that goes."""
    layout, read = layout_of(kind.SCHEMA), None
    if layout is not None and isinstance(data, bytes):
        read = layout.decode(data, 0)
    elif layout is not None and isinstance(data, BytesIO):
        read = layout.decode(data.getvalue(), data.tell())  # what it was made of, not a copy
    if read is None:
        return their_decode(kind, data)
    values, end = read
    if isinstance(data, BytesIO):
        data.seek(end)
    return kind(*values)


def _described(kind: Any) -> str:
    if isinstance(kind, types.Schema):
        return f"( {' '.join(map(_described, kind.fields))} )"
    if isinstance(kind, types.Array):
        return f"{WORDS[type(kind)]} {_described(kind.array_of)}"
    if isinstance(kind, types.String):
        if kind.encoding != ENCODING:
            raise KeyError(kind.encoding)
        return WORDS[type(kind)]
    return WORDS[kind]


Struct.encode, Struct.decode = encode, classmethod(decode)
