"""What a record means, the quick way and the careful one."""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from streams import envelope as envelopes
from streams.envelope import RESULT, TASK
from streams.restore import Log, Past
from streams.router import MAX_KEY_BYTES, Router
from streams.topics import Topics
from streams.work import Part, Work
from tests.unit.worker_world import FakeRecord, Worker, chain, single

HEADERS: dict[str, Any] = {
    "ce_specversion": st.sampled_from([b"1.0", b"1.0", b"0.3"]),
    "ce_id": st.just(b"i"),
    "ce_source": st.just(b"/s"),
    "ce_type": st.sampled_from([TASK.encode(), TASK.encode(), RESULT.encode(), b"other"]),
    "ce_workflow": st.sampled_from([b"flow", b"flow", b"chained", b"unknown", b""]),
    "ce_pass": st.sampled_from([b"i", b"i", b""]),
}
SELDOM: dict[str, Any] = {
    "ce_rounds": st.sampled_from([b"a:no>b=1", b"?"]),
    "ce_hops": st.sampled_from([b"0", b"3", b"x"]),
    "ce_budget": st.sampled_from([b"calls=1", b"?"]),
    "ce_deadline": st.just(b"2026-01-31T12:00:00Z"),
}
RECORDS = st.builds(
    lambda usual, left_out, seldom, key: FakeRecord(
        "tasks.reader",
        headers=tuple((name, it) for name, it in (usual | seldom).items() if name not in left_out),
        key=key,
    ),
    st.fixed_dictionaries(HEADERS),
    st.sets(st.sampled_from([*HEADERS]), max_size=1),
    st.fixed_dictionaries({}, optional=SELDOM),
    st.sampled_from([None, b"k", b"k" * MAX_KEY_BYTES, b"k" * (MAX_KEY_BYTES + 1)]),
)


async def nothing(since: Mapping[int, int], before: Mapping[tuple[str, int], int]) -> Log:
    del since, before
    return Log({}, {}, [])


def a_router() -> Router:
    chained = chain(Worker())
    chained.name = "chained"
    workflows = {"flow": single(), "chained": chained}
    return Router(app="app", agent="reader", workflows=workflows, topics=Topics(), past=Past(nothing))


def said(work: Work | Part) -> tuple[Any, ...]:
    assert isinstance(work, Work)
    return work.kind, work.record, work.envelope, work.run, work.workflow, work.source, str(work.error)


@given(st.lists(RECORDS, min_size=1, max_size=3))
def test_a_usual_task_means_what_looking_closely_says(records: list[FakeRecord]) -> None:
    router = a_router()
    quickly = [said(it) for it in router.meanings_of(records)]
    with patch.object(envelopes, "decode_usual_tasks", lambda these, *_: [None] * len(these)):
        assert quickly == [said(it) for it in router.meanings_of(records)]


@given(RECORDS)
def test_only_what_runs_goes_the_quick_way(record: FakeRecord) -> None:
    [usual] = envelopes.decode_usual_tasks([record], TASK, MAX_KEY_BYTES, {"flow": 1, "chained": 2})
    if usual is not None:
        envelope, workflow = usual
        [work] = a_router().meanings_of([record])
        assert said(work)[:2] == ("run", record)
        assert (envelope, workflow) == (
            envelopes.decode(record),
            {"flow": 1, "chained": 2}[envelope.workflow or ""],
        )
