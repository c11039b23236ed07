"""The Rust machine, as Python sees it: examples to read, and random histories against its naive twin."""

import ast
import inspect
import random
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from agents import _rust
from agents._rust import AgentRuntime, EncodedHeaders, Envelope, Layout, Offers, Record, Turn
from agents.core.budget import Budget as CallBudget
from agents.tests.naive_machine import Assigned, Budget, NaiveMachine, Offered, decode, encode

ANSWERS = (
    "start",
    "cancel",
    "settled",
    "retries",
    "granted",
    "refused",
    "commits",
    "pause",
    "resume",
    "wake_at",
)
FIRST: list[Assigned] = [(0, 1, 0, False, None, 0)]
RECORD = SimpleNamespace(key=b"k", value=None, headers=[("ce_id", b"1")])
WHOLE = {"specversion": b"1.0", "id": b"i", "source": b"/s", "type": b"t", "workflow": b"w", "pass": b"i"}
TASK = SimpleNamespace(key=b"k", value=b"v", headers=[(f"ce_{name}", it) for name, it in WHOLE.items()])
HEADERS = EncodedHeaders([("ce_type", b"t")])
MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = int(MOMENT.timestamp() * 1000)
ENVELOPE = Envelope("i", "/s", "t", "w", budget=CallBudget(calls=1), deadline=MOMENT)
WRITTEN = _rust.EncodedRecord(b"k", None, HEADERS)
RECORDS = _rust.RecordBatch([(1, WRITTEN)], limit=1_000, timestamp=0)
BATCH = RECORDS.sealed(-1, -1, 0)
WRITER = _rust.ResultWriter(b'{"agent":"a"', HEADERS, 10, None)
EVENT = Record("t", 0, 7, 1, 1, b"k", b"v", TASK.headers)
PLACED = SimpleNamespace(topic="t", partition=0, offset=6, timestamp=1, timestamp_type=0, **vars(TASK))


def machine(**limits: Any) -> AgentRuntime:
    defaults = {"slots": 2, "max_queued_records": 100, "max_queued_bytes": 10_000}
    return AgentRuntime(**defaults | limits)


def offer(token: int, **differing: Any) -> Offered:
    """Give a record of partition 0 whose offset is its token."""
    fields = {"partition": 0, "epoch": 1, "offset": token, "lane": None, "deadline": None, "nbytes": 10}
    fields |= {"identity": None, "timestamp": 0, "budget": None} | differing
    return (token, *fields.values())  # type: ignore[return-value]


def placed(offset: int, key: bytes | None = b"k", value: bytes | None = None) -> Record:
    """Give a record of partition 0."""
    return Record("t", 0, offset, 7 * offset, 1, key, value, [])


def many(first: int, records: list[Any], envelopes: list[Envelope], **differing: Any) -> Offers:
    """Offer records of partition 0 together."""
    fields = {"nbytes": 10, "ahead_ms": 0, "in_lanes": True, "deduped": True, "budgets": None} | differing
    return Offers(first, 0, 1, records, envelopes, **fields)


def given_back(*, adopt: bool) -> list[Assigned]:
    """Give partition 0 back from its beginning, in the second epoch."""
    return [(0, 2, 0, adopt, None, 0)]


def restarted_at(position: int, done: bytes) -> list[Assigned]:
    """Give partition 0 to a new machine, with what was committed."""
    return [(0, 1, position, False, done, 0)]


def check(turn: Turn, **expected: Any) -> None:
    """Compare a whole turn; what is not named is empty."""
    empty: dict[str, Any] = {name: [] for name in ANSWERS} | {"wake_at": None}
    assert {name: getattr(turn, name) for name in ANSWERS} == empty | expected


def test_a_record_runs_and_is_committed() -> None:
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, offered=[offer(0), offer(1), offer(2)]), start=[0, 1])
    check(runtime.turn(1, executed=[1]), start=[2])
    check(runtime.turn(2, acknowledged=[1]), commits=[(0, 0)])  # 1 is done above it
    assert runtime.stats()["done_above_base"] == 1
    check(runtime.turn(3, executed=[0], acknowledged=[0]), commits=[(0, 2)])
    assert (runtime.in_flight(), runtime.running(), runtime.queued()) == (1, 1, 0)


def test_a_lane_waits_for_the_acknowledgement_and_others_do_not() -> None:
    runtime = machine()
    records = [offer(0, lane=b"a"), offer(1, lane=b"a"), offer(2, lane=b"b")]
    check(runtime.turn(0, assigned=FIRST, offered=records), start=[0, 2])
    check(runtime.turn(1, executed=[0]))
    check(runtime.turn(2, acknowledged=[0]), start=[1], commits=[(0, 1)])


def test_gaps_in_the_log_are_harmless() -> None:
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, offered=[offer(4), offer(9)]), start=[4, 9], commits=[(0, 4)])
    check(runtime.turn(1, executed=[4, 9], acknowledged=[4]), commits=[(0, 9)])
    check(runtime.turn(2, acknowledged=[9]), commits=[(0, 10)])


def test_a_run_is_cancelled_once_and_keeps_its_slot_until_it_ends() -> None:
    runtime = machine(slots=1, timeout_ms=100)
    records = [offer(0, deadline=150), offer(1, deadline=150)]
    check(runtime.turn(0, assigned=FIRST, offered=records), start=[0], wake_at=100)
    check(runtime.turn(100), cancel=[0], wake_at=150)
    check(runtime.turn(120), wake_at=150)
    check(runtime.turn(149, executed=[0]), start=[1], wake_at=150)
    check(runtime.turn(150, acknowledged=[0]), cancel=[1], commits=[(0, 1)])


def test_an_expired_record_takes_no_slot_but_keeps_its_lane_and_offset() -> None:
    runtime = machine(slots=1)
    records = [offer(0, lane=b"a"), offer(1, lane=b"a", deadline=5), offer(2, lane=b"a")]
    check(runtime.turn(0, assigned=FIRST, offered=records), start=[0])  # 1 is not the head of its lane
    check(runtime.turn(9, executed=[0]))
    check(runtime.turn(9, acknowledged=[0]), settled=[(1, "expired")], commits=[(0, 1)])
    check(runtime.turn(9, acknowledged=[1]), start=[2], commits=[(0, 2)])


def test_adopted_partitions_go_on_where_they_were() -> None:
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, offered=[offer(0), offer(1), offer(2)]), start=[0, 1])
    check(runtime.turn(1, revoked=True, executed=[1], acknowledged=[1]), commits=[(0, 0)])
    check(runtime.turn(2, offered=[offer(3)]), settled=[(3, "stale")])
    again = [offer(10 + offset, epoch=2, offset=offset) for offset in range(4)]
    known = [(10, "redelivered"), (11, "redelivered"), (12, "redelivered")]
    turn = runtime.turn(3, assigned=given_back(adopt=True), offered=again)
    check(turn, start=[2], settled=known, commits=[(0, 0)])
    check(runtime.turn(4, executed=[0], acknowledged=[0]), start=[13], commits=[(0, 2)])


def test_a_commit_lost_in_a_rebalance_is_told_again() -> None:
    runtime = machine()
    runtime.turn(0, assigned=FIRST, offered=[offer(0)])
    check(runtime.turn(1, executed=[0], acknowledged=[0], revoked=True), commits=[(0, 1)])
    redelivered = [offer(7, epoch=2, offset=0)]
    turn = runtime.turn(2, assigned=given_back(adopt=True), offered=redelivered)
    check(turn, settled=[(7, "redelivered")], commits=[(0, 1)])


def test_lost_partitions_are_fenced() -> None:
    runtime = machine()
    records = [offer(0, lane=b"a"), offer(1), offer(2)]
    check(runtime.turn(0, assigned=FIRST, offered=[*records, offer(3, lane=b"a")]), start=[0, 1])
    check(runtime.turn(1, executed=[1]), start=[2])
    turn = runtime.turn(2, assigned=given_back(adopt=False), offered=[offer(4, epoch=2, offset=0, lane=b"a")])
    check(turn, cancel=[0, 2], settled=[(1, "fenced"), (3, "fenced")])
    check(runtime.turn(3, executed=[2], acknowledged=[1, 2]), settled=[(2, "fenced")])
    # 4 has the key of 0, whose task still winds down.
    check(runtime.turn(4, executed=[0]), start=[4], settled=[(0, "fenced")])
    check(runtime.turn(5, executed=[4], acknowledged=[4]), commits=[(0, 1)])


def test_a_partition_pauses_above_its_limit_and_resumes_at_half() -> None:
    runtime = machine(slots=1, max_queued_records=2)
    check(runtime.turn(0, assigned=FIRST, offered=[offer(n) for n in range(4)]), start=[0], pause=[0])
    check(runtime.turn(1, executed=[0]), start=[1])
    check(runtime.turn(2, executed=[1]), start=[2], resume=[0])


def test_a_flood_pauses_every_partition_that_has_something_queued() -> None:
    runtime = machine(slots=1, max_queued_bytes=10)
    assigned: list[Assigned] = [(number, 1, 0, False, None, 0) for number in range(6)]
    records = [offer(number, partition=number, offset=0, nbytes=10) for number in range(6)]
    check(runtime.turn(0, assigned=assigned, offered=records), start=[0], pause=[1, 2, 3, 4, 5])


def test_pauses_are_issued_anew_after_a_rebalance() -> None:
    runtime = machine(slots=1, max_queued_records=1)
    check(runtime.turn(0, assigned=FIRST, offered=[offer(n) for n in range(3)]), start=[0], pause=[0])
    check(runtime.turn(1, revoked=True, executed=[0]))
    check(runtime.turn(2, assigned=given_back(adopt=True)), start=[1])
    more = [offer(n, epoch=2) for n in (3, 4)]
    check(runtime.turn(3, offered=more), pause=[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"now": -1}, ValueError, "the turn before was at 0"),
        ({"offered": [offer(0)]}, ValueError, "token 0 is in use"),
        ({"offered": [offer(5), offer(5, offset=6)]}, ValueError, "token 5 is in use"),
        ({"assigned": FIRST * 2}, ValueError, "partition 0 is assigned twice"),
        ({"executed": [0, -1]}, ValueError, r"executed\[1\] is -1"),
        ({"offered": [offer(5)[:9]]}, ValueError, r"offered\[0\] is .*length 10"),
        ({"offered": [(*offer(5), ())]}, ValueError, r"offered\[0\] is .*length 10"),
        ({"assigned": [FIRST[0][:4]]}, ValueError, r"assigned\[0\] is .*length 6"),
        ({"offered": [offer(5, nbytes=2**32)]}, ValueError, r"offered\[0\]"),
        ({"offered": [offer(5, lane="a")]}, TypeError, r"offered\[0\]"),
        ({"offered": (offer(5),)}, TypeError, "offered"),
        ({"offered": [many(5, [EVENT], [ENVELOPE]), offer(5)]}, ValueError, "token 5 is in use"),
        ({"offered": [many(2**64 - 1, [EVENT] * 2, [ENVELOPE] * 2)]}, ValueError, "in use"),
        ({"now": 1.5}, TypeError, "now is 1.5"),
    ],
)
def test_misuse_is_an_exception_and_changes_nothing(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    runtime = machine()
    runtime.turn(0, assigned=FIRST, offered=[offer(0)])
    defaults: dict[str, Any] = {"now": 0, "executed": [0]}
    with pytest.raises(error, match=message):
        runtime.turn(**defaults | arguments)
    assert runtime.running() == 1


@pytest.mark.parametrize(
    ("differing", "error", "message"),
    [
        ({"envelopes": []}, ValueError, "give an envelope"),
        ({"budgets": [None, None]}, ValueError, "give an envelope"),
        ({"envelopes": [None]}, TypeError, "Envelope"),
        ({"records": [placed(-1)]}, ValueError, "out of range"),
        ({"records": [object()]}, AttributeError, "value"),
        ({"first": -1}, OverflowError, "negative"),
    ],
)
def test_offers_of_what_is_none_are_refused(
    differing: dict[str, Any], error: type[Exception], message: str
) -> None:
    usual: dict[str, Any] = {"first": 1, "records": [EVENT], "envelopes": [ENVELOPE]}
    with pytest.raises(error, match=message):
        many(**usual | differing)


@pytest.mark.parametrize(
    "limits",
    [
        {"slots": 0},
        {"slots": -1},
        {"slots": 2**70},
        {"max_queued_records": 0},
        {"max_queued_bytes": 2**60},
        {"timeout_ms": 0},
    ],
)
def test_absurd_limits_are_refused_by_name(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        machine(**limits)


def member(node: ast.stmt) -> tuple[str, list[str]] | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id, []
    if isinstance(node, ast.FunctionDef) and (node.name == "__new__" or not node.name.startswith("__")):
        return node.name, [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)][1:]
    return None


def test_the_stub_and_the_extension_agree() -> None:
    stub = ast.parse((Path(_rust.__file__).parent / "_rust.pyi").read_text())
    written: dict[str, dict[str, list[str]] | list[str]] = {
        node.name: dict(filter(None, map(member, node.body)))
        for node in stub.body
        if isinstance(node, ast.ClassDef) and node.name in _rust.__all__
    }
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            written[node.name] = [it.arg for it in (*node.args.args, node.args.vararg) if it is not None]

    def parameters(found: object) -> list[str]:
        if not callable(found):
            return []
        return [name for name in inspect.signature(found).parameters if name != "self"]

    def members(kind: type) -> dict[str, list[str]]:
        return {
            attribute: parameters(kind if attribute == "__new__" else found)
            for attribute, found in vars(kind).items()
            if attribute == "__new__" or not attribute.startswith("__")
        }

    known = {name: getattr(_rust, name) for name in _rust.__all__}
    real = {name: members(it) if isinstance(it, type) else parameters(it) for name, it in known.items()}
    assert real == written


@given(
    st.lists(
        st.tuples(
            st.builds(
                placed,
                st.just(0),
                st.sampled_from([None, b"", b"a", b"b"]),
                st.sampled_from([None, b"", b"v" * 40]),
            ),
            st.builds(
                Envelope,
                st.sampled_from(["i", "j"]),
                st.sampled_from(["/s", "", "\N{SNOWMAN}"]),
                st.just("t"),
                st.just("w"),
                deadline=st.sampled_from([None, MOMENT, MOMENT + timedelta(milliseconds=5)]),
            ),
            st.sampled_from([None, (None, None, None), (1, None, None), (None, 5, 7)]),
        ),
        max_size=9,
    ),
    st.sampled_from([None, 0, 3]),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
@settings(derandomize=True, database=None)
def test_many_offers_at_once_are_what_they_are_one_by_one(
    drawn: list[tuple[Record, Envelope, Any]], ahead: int | None, options: tuple[bool, bool, bool, bool]
) -> None:
    in_lanes, deduped, with_budgets, are_ours = options
    records: list[Any] = []
    one_by_one: list[Offered] = []
    for offset, (it, envelope, budget) in enumerate(drawn):
        ours = placed(offset, it.key, it.value)
        names = ("offset", "key", "value", "timestamp")
        theirs = SimpleNamespace(**{name: getattr(ours, name) for name in names})
        records.append(ours if are_ours else theirs)
        until = envelope.deadline_ms
        one_by_one.append(
            offer(
                offset,
                lane=it.key if in_lanes else None,
                deadline=None if until is None or ahead is None else until - NOW + ahead,
                nbytes=len(it.value or b"") + 10,
                identity=envelope.identity() if deduped else None,
                timestamp=ours.timestamp,
                budget=budget if with_budgets else None,
            )
        )
    together = many(
        0,
        records,
        [envelope for _, envelope, _ in drawn],
        ahead_ms=None if ahead is None else ahead - NOW,
        in_lanes=in_lanes,
        deduped=deduped,
        budgets=[budget for *_, budget in drawn] if with_budgets else None,
    )
    assert len(together) == len(drawn)
    histories: list[list[Any]] = []
    for offered in (one_by_one, [together]):
        runtime = machine(slots=3, max_queued_bytes=60)
        turns = [runtime.turn(0, assigned=FIRST, offered=offered)]  # type: ignore[arg-type]
        for now in range(1, 12):
            started = turns[-1].start
            asked = [(100 * now + token, token, 3, 3) for token in started]
            turns += [
                runtime.turn(now, asked=asked),
                runtime.turn(now, executed=started, acknowledged=started),
            ]
        histories.append([[getattr(turn, name) for name in ANSWERS] for turn in turns])
        histories[-1] += [runtime.stats(), runtime.commit_of(0)]
    assert histories[0] == histories[1]


def test_one_offer_between_many_keeps_its_place() -> None:
    first, last = (many(token, [placed(token)], [Envelope("i", "", "t", "w")]) for token in (0, 2))
    offered: list[Any] = [first, offer(1, lane=b"k"), last]
    runtime = machine()
    check(runtime.turn(0, assigned=FIRST, offered=offered), start=[0])
    check(runtime.turn(1, executed=[0], acknowledged=[0]), start=[1], commits=[(0, 1)])
    check(runtime.turn(2, executed=[1], acknowledged=[1]), start=[2], commits=[(0, 2)])


def test_a_failed_run_is_tried_again_then_exhausted() -> None:
    runtime = machine(retries=1, backoff_ms=0)
    check(runtime.turn(0, assigned=FIRST, offered=[offer(0, lane=b"a"), offer(1, lane=b"a")]), start=[0])
    check(runtime.turn(1, failed=[(0, 40)]), retries=[(0, 1, 40)], wake_at=41)
    assert (runtime.in_flight(), runtime.queued(), runtime.stats()["retrying"]) == (0, 1, 1)
    check(runtime.turn(41), start=[0])
    check(runtime.turn(42, failed=[(0, None)]), settled=[(0, "exhausted")])
    check(runtime.turn(43, acknowledged=[0]), start=[1], commits=[(0, 1)])


def test_the_jitter_is_full_and_chosen_by_the_seed() -> None:
    def delays(seed: int) -> list[int]:
        runtime = machine(slots=200, retries=5, backoff_ms=100, max_backoff_ms=300, seed=seed)
        runtime.turn(0, assigned=FIRST, offered=[offer(n) for n in range(200)])
        turn = runtime.turn(0, failed=[(n, None) for n in range(200)])
        return [delay for _, _, delay in turn.retries]

    assert delays(1) == delays(1) != delays(2)
    assert min(delays(1)) < 10
    assert 90 < max(delays(1)) <= 100


def test_done_offsets_survive_a_restart() -> None:
    runtime = machine(slots=4)
    runtime.turn(0, assigned=FIRST, offered=[offer(n) for n in range(4)])
    check(runtime.turn(1, executed=[1, 3], acknowledged=[1, 3]), commits=[(0, 0)])
    offset, reach, done = runtime.commit_of(0)
    assert (offset, reach, decode(done, 0)) == (0, 4, [1, 3])
    restarted = machine(slots=4)
    known = [(1, "redelivered"), (3, "redelivered")]
    turn = restarted.turn(0, assigned=restarted_at(0, done), offered=[offer(n) for n in range(4)])
    check(turn, start=[0, 2], settled=known)
    check(restarted.turn(1, executed=[0, 2], acknowledged=[0, 2]), commits=[(0, 4)])


def test_a_partition_that_is_not_ours_has_no_commit() -> None:
    with pytest.raises(ValueError, match="partition 4 is not assigned"):
        machine().commit_of(4)


@given(st.sets(st.integers(0, 300)), st.integers(0, 2**40), st.integers(1, 60))
@settings(derandomize=True, database=None)
def test_a_done_set_is_read_as_it_was_written_and_cut_at_its_limit(
    done: set[int], position: int, most: int
) -> None:
    offsets = {position + it for it in done}
    encoded = encode(offsets, position, 4_096)
    for limit in (4_096, most):
        runtime = machine(max_done_bytes=limit)
        runtime.turn(0, assigned=restarted_at(position, encoded))
        assert runtime.commit_of(0) == (position, position, encode(offsets, position, limit))
        assert runtime.stats()["done_above_base"] == len(offsets)


@given(
    st.binary(max_size=40) | st.binary(max_size=40).map(lambda it: b"\x02" + it), st.integers(0, 2**64 - 1)
)
@settings(derandomize=True, database=None, max_examples=300)
def test_what_is_no_done_set_tells_nothing(garbage: bytes, position: int) -> None:
    runtime = machine()
    runtime.turn(0, assigned=restarted_at(position, garbage))
    assert runtime.commit_of(0)[2] in (b"", garbage)  # one encoding of each set, and all or nothing


@pytest.mark.parametrize("seed", range(25))
def test_no_number_makes_the_machine_panic(seed: int) -> None:
    """Numbers at all edges: an exception with a cure, or a turn, and never anything else."""
    dice = random.Random(seed)  # noqa: S311 (no secret)
    edges = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -1, -(2**63)]

    def number() -> int:
        return dice.choice(edges if dice.random() < 0.3 else edges[:3])

    def maybe() -> int | None:
        return dice.choice([None, number()])

    limits = {name: dice.choice([1, 2, 3]) for name in inspect.signature(AgentRuntime).parameters}
    runtime = AgentRuntime(**limits | {"seed": 2**64 - 1})
    now, turns, token = -(2**63), 0, 0
    running: list[int] = []
    asks: list[int] = []
    for _ in range(500):
        now = min(2**63 - 1, now + dice.choice([0, 1, 1, 1, 1_000, 2**40, 2**55]))
        token += 3
        arguments: dict[str, Any] = {
            "executed": [it for it in running if dice.random() < 0.3],
            "failed": [(it, maybe()) for it in running if dice.random() < 0.3],
            "acknowledged": [dice.randrange(token) for _ in range(9)],
            "asked": [(token + at, it, number(), number()) for at, it in enumerate(running[:3])],
            "spent": [(it, number(), number()) for it in asks],
            "offered": [
                (
                    token + at,
                    dice.randrange(2),
                    turns and 1,
                    dice.choice([None, dice.randrange(99), 2**64 - 2, 2**64 - 1]),
                    dice.choice([None, b"", b"a"]),
                    dice.choice([None, now, now + 1, 2**63 - 1, -(2**63)]),
                    dice.choice([0, 2**32 - 1]),
                    dice.choice([None, b"", b"x"]),
                    dice.choice([0, 2**63 - 1, -(2**63)]),
                    dice.choice([None, (maybe(), maybe(), maybe())]),
                )
                for at in range(3)
            ],
            "seen": [(dice.randrange(2), number(), b"x", dice.choice([0, -(2**63)]))],
            "revoked": dice.random() < 0.05,
        }
        if not turns or dice.random() < 0.05:
            done = dice.choice([None, b"\x01\x06", b"\x02\x01" + b"\xff" * 9 + b"\x01", b"\x02\x01\xff"])
            arguments["assigned"] = [(it, 1, number(), dice.random() < 0.5, done, number()) for it in (0, 1)]
        try:
            turn = runtime.turn(now, **arguments)
        except ValueError:
            continue
        turns += 1
        running = [*turn.start, *(it for it in running if dice.random() < 0.9)]
        asks = turn.granted
        runtime.stats()
        runtime.in_flight()
        runtime.commit_of(0)
    assert turns > 50


METHODS: dict[str, Callable[..., Any]] = {
    "RecordBatch.sealed": RECORDS.sealed,
    "ResultWriter.write": WRITER.write,
}
USUAL: dict[str, list[Any]] = {
    "EncodedHeaders": [[("ce_id", b"1")]],
    "Envelope": ["i", "/s", "t", "w", None, "r", "failed", MOMENT, 3],
    "EncodedRecord": [b"k", None, [("a", None)]],
    "Layout": ["int8 array ( string bytes ) tagged_fields"],
    "has_its_checksum": [BATCH, 0, len(BATCH)],
    "moment": [0],
    "next_traceparent": [None, "run"],
    "Offers": [1, 0, 1, [PLACED, EVENT], [ENVELOPE, ENVELOPE], 512, 0, True, True, [None, (1, None, 2)]],
    "RecordBatch": [[(1, WRITTEN)], 1_000, 0],
    "RecordBatch.sealed": [-1, -1, 0],
    "ResultWriter": [b'{"agent":"a"', HEADERS, 10, "off"],
    "ResultWriter.write": [
        *(ENVELOPE, RECORD, [(ENVELOPE, RECORD)], "run", "completed", b"1", None, b"{}", b"[]", b"{}"),
        *(CallBudget(), 1, None, 1, "a", "i", b"2", True, None, ("b",), b"{}"),
    ],
    "Record": ["t", 0, 7, 1, 1, b"k", None, [("ce_id", b"1"), ("a", None)]],
    "by_partition": [[PLACED, EVENT]],
    "read_event": [SimpleNamespace(key=None, value=b"v", headers=[("ce_type", b"t")])],
    "read_records": [BATCH, 0, len(BATCH), "t", 0],
    "read_result": [b"{}"],
    "read_usual_tasks": [[TASK, TASK], "t", 10, {"w": 1}],
    "record_digest": [RECORD],
    "run_id": [b"", "a"],
    "says_null": [b"[null]"],
    "uuid_of": ["a"],
    "write_event": [HEADERS, ENVELOPE, 0, [("i", "d")]],
}
TEXTS = ["", "2026-01-31T12:00:00Z", "00-a-b-c", "-" * 9, "\N{SNOWMAN}" * 9, "\ud800", b"", b"k"]
NUMBERS = [None, True, -1, 0, 1.5, 2**15, 2**31, 2**63, 2**70, float("nan")]
PAIRS = [("a",), ["a", b""], ("a", "b"), ("\ud800", b""), ("a", RECORD), (ENVELOPE, 1), (1, b"k", "v", [])]
OBJECTS = [RECORD, HEADERS, WRITTEN, ENVELOPE, CallBudget(), object(), datetime(2026, 1, 31)]  # noqa: DTZ001 (odd)
ODD: list[Any] = [*TEXTS, *NUMBERS, [], {}, *([pair] for pair in PAIRS), *OBJECTS]
REFUSED = (TypeError, ValueError, OverflowError, AttributeError, IndexError)


@pytest.mark.parametrize("name", sorted({*_rust.__all__, *METHODS} - {"AgentRuntime", "Turn"}))
@given(data=st.data())
@settings(derandomize=True, database=None)
def test_no_argument_makes_a_function_panic(name: str, data: st.DataObject) -> None:
    function, arguments = METHODS.get(name) or getattr(_rust, name), [*USUAL[name]]
    function(*arguments)
    places = st.integers(0, len(arguments))
    for at, value in data.draw(st.dictionaries(places, st.sampled_from(ODD), max_size=2)).items():
        arguments[at : at + 1] = [value]
    with suppress(*REFUSED):
        function(*arguments)


@given(st.sampled_from([it for it in dir(ENVELOPE) if not it.startswith("_")]), st.sampled_from(ODD))
@settings(derandomize=True, database=None, max_examples=300)
def test_no_value_makes_an_envelope_panic(name: str, value: Any) -> None:
    envelope = copy(ENVELOPE)
    with suppress(*REFUSED):
        setattr(envelope, name, value)
    for other in (ENVELOPE, copy(envelope), value):
        assert (envelope == other) is not (envelope != other)
    assert repr(envelope)
    with suppress(*REFUSED):
        envelope.identity()
        _rust.write_event(HEADERS, envelope, 0, [])


PLAIN = [
    "boolean",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint32",
    "float64",
    "string",
    "bytes",
    "tagged_fields",
]
OTHER = ["compact_string", "compact_bytes", "compact_array", "array", "array", "(", ")", "nothing"]


@given(
    st.lists(st.sampled_from([*PLAIN, *OTHER]), max_size=12),
    st.lists(st.sampled_from(ODD), max_size=12),
    st.binary(max_size=60),
    st.sampled_from([0, 1, 60, 2**63, *NUMBERS]),
)
@settings(derandomize=True, database=None, max_examples=1_000)
def test_no_value_makes_a_layout_panic(words: list[str], values: list[Any], data: bytes, offset: Any) -> None:
    try:
        layout = Layout(" ".join(words))
    except ValueError:
        layout = Layout("array ( string array bytes tagged_fields )")
    for given_ in (values, tuple(values), *values):
        layout.encode(given_)
    with suppress(*REFUSED):
        layout.decode(data, offset)


class AgainstTheTwin(RuleBasedStateMachine):
    """Random histories: machine and twin must make equal turns, in the same order in every list."""

    @initialize(
        slots=st.integers(1, 3),
        queue=st.tuples(st.integers(1, 4), st.integers(1, 40)),
        timeout=st.sampled_from([None, 5, 20]),
        retries=st.tuples(st.integers(0, 2), st.sampled_from([1, 4]), st.integers(1, 2), st.integers(0, 5)),
        dedupe=st.tuples(st.sampled_from([0, 3, 3, 50]), st.sampled_from([4, 100])),
        rates=st.tuples(st.sampled_from([None, 600, 30_000]), st.sampled_from([None, 7, 60_000])),
        max_done_bytes=st.sampled_from([1, 3, 4, 5, 2_600]),
    )
    def begin(  # noqa: PLR0913, PLR0917 (one argument per kind of limit)
        self,
        slots: int,
        queue: tuple[int, int],
        timeout: int | None,
        retries: tuple[int, int, int, int],
        dedupe: tuple[int, int],
        rates: tuple[int | None, int | None],
        max_done_bytes: int,
    ) -> None:
        limits: dict[str, Any] = {"slots": slots, "timeout_ms": timeout, "max_done_bytes": max_done_bytes}
        limits |= dict(zip(("max_queued_records", "max_queued_bytes"), queue, strict=True))
        limits |= dict(zip(("retries", "backoff_ms", "retry_budget", "seed"), retries, strict=True))
        limits |= dict(zip(("dedupe_records", "dedupe_ms"), dedupe, strict=True))
        limits |= dict(zip(("calls_per_minute", "tokens_per_minute"), rates, strict=True))
        limits |= {"max_backoff_ms": 6}
        self.machine, self.twin = AgentRuntime(**limits), NaiveMachine(**limits)
        self.now, self.token, self.epoch, self.ask = 0, 0, 1, 0
        self.read = {0: 0, 1: 0, 2: 0}  # what the consumer reads next, by partition
        self.turn(assigned=[(number, 1, 0, False, None, 0) for number in self.read])

    def turn(self, **arguments: Any) -> None:
        ours, theirs = self.machine.turn(self.now, **arguments), self.twin.turn(self.now, **arguments)
        check(ours, **vars(theirs))
        assert self.machine.stats() == self.twin.stats()
        assert self.machine.in_flight() == self.twin.in_flight()
        for number in self.twin.partitions:
            assert self.machine.commit_of(number) == self.twin.commit_of(number)
        assert not set(ours.pause) & set(ours.resume)
        assert ours.wake_at is None or ours.wake_at > self.now

    def place(self, number: int, skip: int, age: int) -> tuple[int, int, int, int]:
        """Name the next record of a partition; sometimes after a gap, out of order, or stale."""
        self.token += 1
        offset = max(0, self.read[number] + skip)
        self.read[number] = max(self.read[number], offset + 1)
        return (self.token, number, max(0, self.epoch - age), offset)

    def tokens(self, *states: str) -> list[int]:
        return [it.token for it in self.twin.records.values() if it.state in states]

    partitions = st.integers(0, 2)
    skips = st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1, -3])
    ages = st.sampled_from([0] * 15 + [1])
    identities = st.sampled_from([None, b"x", b"y"])
    times = st.integers(0, 9)

    @rule(
        places=st.lists(st.tuples(partitions, skips, ages, identities, times), min_size=1, max_size=4),
        lane=st.sampled_from([None, b"a", b"b"]),
        wait=st.sampled_from([None, None, -1, 0, 3, 12]),
        nbytes=st.integers(0, 30),
        budget=st.sampled_from([None, None, (2, None, None), (None, 50, None), (None, None, 5)]),
    )
    def offer(
        self,
        places: list[tuple[int, int, int, bytes | None, int]],
        lane: bytes | None,
        wait: int | None,
        nbytes: int,
        budget: Budget | None,
    ) -> None:
        deadline = None if wait is None else self.now + wait
        self.turn(
            offered=[
                (*self.place(*place), lane, deadline, nbytes, identity, time, budget)
                for *place, identity, time in places
            ]
        )

    @rule(number=partitions, lane=st.sampled_from([None, b"a"]), age=ages)
    def offer_without_record(self, number: int, lane: bytes | None, age: int) -> None:
        self.token += 1
        place = (self.token, number, max(0, self.epoch - age), None)
        self.turn(offered=[(*place, lane, None, 7, b"x", 0, None)])

    @rule(after=st.sampled_from([0, 1, 5, 20]), data=st.data())
    def finish(self, after: int, data: st.DataObject) -> None:
        self.now += after
        any_token = st.integers(0, self.token + 1)
        executing = self.tokens("executing", "fenced")
        executed = data.draw(st.lists(st.sampled_from(executing) if executing else any_token, max_size=3))
        ended = [*executed, *self.tokens("unacknowledged")]
        acknowledged = data.draw(st.lists(st.sampled_from(ended) if ended else any_token, max_size=4))
        self.turn(executed=executed, acknowledged=acknowledged)

    @rule(data=st.data(), retry_after=st.sampled_from([None, None, 0, 3, 30]))
    def fail(self, data: st.DataObject, retry_after: int | None) -> None:
        executing = [*self.tokens("executing", "fenced"), self.token + 1]
        tokens = data.draw(st.lists(st.sampled_from(executing), max_size=2))
        self.turn(failed=[(token, retry_after) for token in tokens])

    @rule(data=st.data(), tokens=st.integers(0, 40), money=st.integers(0, 4), calls=st.integers(1, 3))
    def call(self, data: st.DataObject, tokens: int, money: int, calls: int) -> None:
        run = data.draw(st.sampled_from([*self.tokens("executing", "fenced", "backoff"), 0]))
        first, self.ask = self.ask, self.ask + calls
        self.turn(asked=[(ask, run, tokens, money) for ask in range(first, self.ask)])

    @rule(data=st.data(), tokens=st.integers(0, 60), money=st.integers(0, 4))
    def settle(self, data: st.DataObject, tokens: int, money: int) -> None:
        ask = data.draw(st.sampled_from([*(it.ask for it in self.twin.asks), self.ask]))
        self.turn(spent=[(ask, tokens, money)])

    @rule(after=st.integers(0, 20))
    def wait(self, after: int) -> None:
        self.now += after
        self.turn()

    @rule()
    def revoke(self) -> None:
        self.turn(revoked=True)

    @rule(
        assigned=st.lists(
            st.tuples(
                partitions, st.booleans(), st.sampled_from([0, 0, 0, -1, 2]), st.sampled_from([0, 0, 3])
            ),
            unique_by=lambda it: it[0],
        ),
        revoked=st.booleans(),
        events=st.lists(st.tuples(partitions, st.integers(1, 4), identities, times), max_size=3),
        ends=st.tuples(st.booleans(), st.booleans()),
    )
    def assign(
        self,
        assigned: list[tuple[int, bool, int, int]],
        *,
        revoked: bool,
        events: list[tuple[int, int, bytes | None, int]],
        ends: tuple[bool, bool],
    ) -> None:
        self.epoch += 1
        complete = []
        for number, adopt, drift, careful in assigned:
            known = self.twin.partitions.get(number)
            committed, _, done = self.twin.commit_of(number) if known else (self.read[number], 0, None)
            self.read[number] = position = max(0, committed + drift)
            careful_until = position + careful if careful else 0
            complete.append((number, self.epoch, position, adopt, done, careful_until))
        seen = [
            (number, self.read[number] - back, identity, time)
            for number, back, identity, time in events
            if identity is not None and back <= self.read[number]
        ]
        executing = self.tokens("executing")
        failed = [(token, None) for token in executing[:1] if ends[0]]
        executed = [token for token in executing[1:] if ends[1]]
        self.turn(assigned=complete, revoked=revoked, seen=seen, failed=failed, executed=executed)


TestAgainstTheTwin = AgainstTheTwin.TestCase
TestAgainstTheTwin.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
