"""Records no agent can work on: everything a producer can get wrong, and bytes that mean nothing.

Shapes come from hypothesis, which is good at the odd ones; each is then varied byte by byte from a seed, so
that a hundred thousand cost no more than their publishing.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

import hypothesis
from hypothesis import strategies

from .load import Headers, Letter

EXAMPLES = 200
GOOD: dict[str, bytes] = {
    "ce_specversion": b"1.0",
    "ce_id": b"id-",
    "ce_source": b"/chaos",
    "ce_type": b"callboard.task.v1",
    "content-type": b"application/json",
}
ODD = strategies.one_of(
    strategies.none(),
    strategies.binary(max_size=40),
    strategies.text(max_size=20).map(lambda it: it.encode(errors="surrogatepass")),
    strategies.sampled_from([b"", b"1.0", b"2.0", b"\xff\xfe", b"null", b"9" * 400, b"callboard.task.v2"]),
)
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.floats() | strategies.text(max_size=10),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
# None of these is a task: an object with `input` would be one.
VALUES = strategies.one_of(
    strategies.none(),
    strategies.binary(max_size=60),
    JSON.filter(lambda it: not (isinstance(it, dict) and "input" in it)).map(
        lambda it: json.dumps(it).encode()
    ),
    strategies.integers(1, 3_000).map(lambda depth: b"[" * depth),
    strategies.integers(500, 3_000).map(lambda depth: b'{"input":' * depth + b"1" + b"}" * depth),
)


def examples(strategy: strategies.SearchStrategy[bytes | None], seed: int) -> list[bytes | None]:
    """Draw some examples, the same ones for the same seed."""
    found: list[bytes | None] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=EXAMPLES, database=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(strategy)
    def keep(example: bytes | None) -> None:
        found.append(example)

    keep()
    return found


def shapes(seed: int, number: int) -> list[tuple[Headers, bytes | None]]:
    """Draw some shapes: headers with one or several faults, or a value that is none."""
    chance = random.Random(seed)
    drawn: list[tuple[Headers, bytes | None]] = []
    values, odd = examples(VALUES, seed), examples(ODD, seed)
    for _ in range(number):
        headers: dict[str, Any] = dict(GOOD)
        if chance.random() < 0.5:
            for name in chance.sample([*GOOD, "ce_deadline", "ce_hops"], chance.randint(1, 3)):
                if chance.random() < 0.4:
                    headers.pop(name, None)
                else:
                    headers[name] = chance.choice(odd)
        value = chance.choice(values)
        drawn.append(([*headers.items()], value))
    return drawn


def bad_records(agent: str, seed: int, number: int, keys: int) -> Iterator[Letter]:
    """Give so many bad records for an agent; no two have the same id, but what is no text is no id."""
    chance = random.Random(seed)
    drawn = shapes(seed, min(number, 2_000))
    for count in range(number):
        headers, value = chance.choice(drawn)
        headers = [
            (name, it + b"%032x" % chance.getrandbits(128) if name == "ce_id" and it and _is_text(it) else it)
            for name, it in headers
        ]
        if value and chance.random() < 0.5:
            at = chance.randrange(len(value))
            value = value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
        if _is_a_task(value):
            value = b"\xff" + (value or b"")
        key = f"bad-{count % keys}".encode()
        yield Letter(agent, key, value, headers, "dead")


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_a_task(value: bytes | None) -> bool:
    try:
        read = json.loads(value or b"")
    except (ValueError, RecursionError):
        return False
    return isinstance(read, dict) and "input" in read
