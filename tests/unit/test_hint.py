"""What commits say beside their offset: there and back, and how many members die before one is careful."""

from hypothesis import given
from hypothesis import strategies as st

from streams import hint
from streams.hint import MAX_CHARACTERS, MAX_DONE_BYTES, Hint

CLUSTER = "5L6g3nShT-eMCtK--X86sw"

OFFSETS = st.integers(0, 2**63 - 1)


@given(st.integers(0, 2**31), OFFSETS, OFFSETS, st.binary(max_size=MAX_DONE_BYTES))
def test_a_hint_is_read_back(starts: int, until: int, reach: int, done: bytes) -> None:
    written = Hint(CLUSTER, starts, until, reach, done)
    assert hint.read(written.text(), CLUSTER) == written


def test_the_largest_hint_is_one_the_broker_takes() -> None:
    largest = Hint(CLUSTER, 2**31, 2**63 - 1, 2**63 - 1, b"\xff" * MAX_DONE_BYTES)
    assert len(largest.text()) <= MAX_CHARACTERS


@given(
    st.one_of(st.none(), st.text(max_size=200), st.binary(max_size=200).map(lambda it: it.decode("latin-1")))
)
def test_what_others_committed_tells_nothing(text: str | None) -> None:
    assert hint.read(text, CLUSTER) == Hint(CLUSTER)


def test_a_hint_of_another_cluster_tells_nothing() -> None:
    assert hint.read(Hint("elsewhere", 3, 9, 9, b"x").text(), CLUSTER) == Hint(CLUSTER)


def died(before: Hint, position: int, *, reach: int) -> Hint:
    """Let a member begin, start everything below `reach`, finish nothing and die."""
    begun = hint.begin(before, position, slots=4)
    return hint.go_on(begun, position, reach=reach, done=b"")


def test_the_third_death_is_the_last_one_of_a_record_that_kills() -> None:
    first = died(Hint(CLUSTER), 10, reach=12)
    assert not hint.marks(first)
    second = died(first, 10, reach=14)
    assert hint.marks(second)
    assert not hint.careful(second)
    third = died(second, 10, reach=11)
    assert hint.careful(third)
    assert not hint.isolates(third, frozenset({1, 2}))
    fourth = hint.begin(third, 10, slots=4)
    assert hint.isolates(fourth, frozenset({2, 3}))
    assert not hint.isolates(fourth, frozenset({3}))
    assert not hint.isolates(hint.begin(fourth, 10, slots=4), frozenset({2, 4}))
    assert (
        10 < fourth.until <= 16
    )  # what all of them may have died of: no more than slots after the lowest reach


def test_who_gets_past_what_others_died_of_begins_anew() -> None:
    third = died(died(died(Hint(CLUSTER), 10, reach=12), 10, reach=12), 10, reach=12)
    assert hint.careful(third)
    past = hint.go_on(third, third.until, reach=40, done=b"")
    assert (past.starts, past.until) == (1, 0)


def test_deaths_far_apart_are_no_row() -> None:
    first = died(Hint(CLUSTER), 10, reach=12)
    later = hint.begin(first, 1_000, slots=4)
    assert not hint.careful(died(died(later, 1_000, reach=1_000), 2_000, reach=2_000))


def test_an_orderly_end_is_no_death() -> None:
    known = Hint(CLUSTER)
    for _ in range(9):
        known = hint.end(died(known, 10, reach=12))
    assert not hint.marks(hint.begin(known, 10, slots=4))


def test_an_orderly_end_between_two_deaths_clears_nobody() -> None:
    # A rebalance, because another member came along, before this one got to what the last one died of.
    known = died(Hint(CLUSTER), 10, reach=12)
    for _ in range(2):
        suspects = hint.begin(known, 10, slots=4)
        ended = hint.end(suspects)
        again = hint.begin(ended, 10, slots=4)
        assert (again.starts, again.until) == (suspects.starts, suspects.until)
        known = died(ended, 10, reach=12)
    assert hint.careful(known)
