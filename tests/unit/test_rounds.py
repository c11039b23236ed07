"""What the header of rounds says, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import InvalidInputError
from agents.core.workflow import Back
from streams.rounds import entry, once_more, times

NO = Back("review", "write", "no", 3)
UNCLEAR = Back("review", "write", "un=cle,ar>ü", 3)
OUTER = Back("print", "research", "no", 3)


def test_nothing_was_taken_yet() -> None:
    assert (times(None, NO), entry(None)) == (0, None)
    assert once_more(None, NO) == "review:no>write=1"


def test_every_way_is_counted_by_itself_and_the_last_one_is_the_entry() -> None:
    rounds = None
    for back in (NO, UNCLEAR, OUTER, NO):
        rounds = once_more(rounds, back)
    assert rounds == "review:un%3Dcle%2Car%3E%C3%BC>write=1,print:no>research=1,review:no>write=2"
    assert [times(rounds, back) for back in (NO, UNCLEAR, OUTER)] == [2, 1, 1]
    assert entry(rounds) == "write"
    assert entry(once_more(rounds, OUTER)) == "research"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "review",
        "review:no>write",
        "review:no>write=0",
        "review:no>write=x",
        "review:no>write=10000",
        "review:no>write=1,",
        "review:no>write=1,review:no>write=2",
        "review:>write=1",
        "Review:no>write=1",
    ],
)
def test_a_header_of_another_form_is_refused(text: str) -> None:
    for read in (lambda: times(text, NO), lambda: entry(text), lambda: once_more(text, NO)):
        with pytest.raises(InvalidInputError, match="header ce_rounds is"):
            read()


@given(st.lists(st.text(min_size=1, max_size=100), max_size=20))
def test_any_verdict_comes_back(verdicts: list[str]) -> None:
    rounds = None
    for verdict in verdicts:
        rounds = once_more(rounds, Back("a", "b", verdict, 1))
    for verdict in verdicts:
        assert times(rounds, Back("a", "b", verdict, 1)) == verdicts.count(verdict)
