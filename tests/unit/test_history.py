"""What a workflow's records say, in whatever order they come."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from streams.dead_letters import letter_id
from streams.envelope import RESULT, TASK, Envelope, encode
from streams.history import Entry, History, State, workflow_of
from streams.topics import Topics
from tests.unit.worker_world import TIME, FakeRecord

WORKFLOW = "w"


class Log:
    """A log that the test writes; every record is a second younger than the one before."""

    def __init__(self) -> None:
        self.records: list[FakeRecord] = []

    def append(self, topic: str, payload: Any, headers: Sequence[tuple[str, bytes]] = ()) -> str:
        value = payload if isinstance(payload, bytes | None) else json.dumps(payload).encode()
        number = len(self.records)
        self.records.append(FakeRecord(topic, number, value, tuple(headers), timestamp=TIME + 1000 * number))
        return f"{topic}/0/{number}"

    def task(self, agent: str, identity: str = "root", payload: Any = None) -> str:
        envelope = Envelope(identity, "/test", TASK, WORKFLOW, round=identity)
        self.append(f"tasks.{agent}", payload or {"input": "x"}, encode(envelope))
        return identity

    def result(
        self,
        agent: str,
        *causes: str,
        followers: Sequence[str] = (),
        status: str = "completed",
        identity: str | None = None,
        round_: str = "root",
        **payload: Any,
    ) -> str:
        identity = identity or f"{agent}-result"
        envelope = Envelope(identity, "/test/app", RESULT, WORKFLOW, round=round_, status=status)
        body = {"agent": agent, "status": status, "followers": list(followers)} | payload
        self.append(
            f"results.{agent}", body, encode(envelope, causes=[(cause, "0" * 64) for cause in causes])
        )
        return identity

    def history(self, records: Sequence[FakeRecord] | None = None) -> History:
        history = History(WORKFLOW, Topics())
        for record in self.records if records is None else records:
            history.add(record)
        return history


def diamond() -> Log:
    """The whole of improve-repository: a fan-out and a join."""
    log = Log()
    log.task("researcher")
    log.result("researcher", "root", followers=["developer"])
    log.result("developer", "researcher-result", followers=["reviewer", "testing"])
    log.result("reviewer", "developer-result", followers=["documentation"])
    log.result("testing", "developer-result", followers=["documentation"], verdict="failed")
    log.result("documentation", "reviewer-result", "testing-result", output={"report": "# Good"})
    return log


def check(history: History, *, expected: str = "", leaves: str = "", states: str = "") -> None:
    """Compare: agents still expected, agents that are leaves, and `agent:state` of everybody, in order."""
    assert " ".join(each.agent for each in history.expected) == expected
    assert " ".join(leaf.agent for leaf in history.leaves) == leaves
    assert history.finished == (not expected and len(history) > 0)
    if states:
        assert " ".join(f"{each.agent}:{each.state}" for each in history.progress) == states


def ids(entries: Sequence[Entry]) -> list[str]:
    return [entry.envelope.id for entry in entries]


def test_nothing_is_not_finished() -> None:
    check(Log().history())


@pytest.mark.parametrize(
    ("count", "expected", "states"),
    [
        (1, "researcher", "researcher:working"),
        (2, "developer", "researcher:done developer:working"),
        (3, "reviewer testing", "researcher:done developer:done reviewer:working testing:working"),
        (
            4,
            "testing documentation",
            "researcher:done developer:done reviewer:done testing:working documentation:waiting",
        ),
        (
            5,
            "documentation",
            "researcher:done developer:done reviewer:done testing:done documentation:working",
        ),
        (6, "", "researcher:done developer:done reviewer:done testing:done documentation:done"),
    ],
)
def test_who_is_still_to_come(count: int, expected: str, states: str) -> None:
    log = diamond()
    check(
        log.history(log.records[:count]),
        expected=expected,
        leaves="documentation" if count == 6 else "",
        states=states,
    )


SECOND = "9a1f6a5e-0000-8000-8000-000000000000"  # the result that begins the second round, as ours are named


def repeated_diamond() -> Log:
    """The same, the tests going back to the developer once."""
    log = diamond()
    del log.records[4:]
    back = {"to": "developer", "without": ["documentation"]}
    log.result("testing", "developer-result", followers=["developer"], identity=SECOND, back=back)
    log.result("developer", SECOND, followers=["reviewer", "testing"], identity="d2", round_=SECOND)
    log.result("reviewer", "d2", followers=["documentation"], identity="r2", round_=SECOND)
    log.result("testing", "d2", followers=["documentation"], identity="t2", round_=SECOND)
    log.result("documentation", "r2", "t2", round_=SECOND)
    return log


@pytest.mark.parametrize(
    ("count", "expected"),
    [(4, "testing documentation"), (5, "developer"), (6, "reviewer testing"), (8, "documentation"), (9, "")],
)
def test_a_round_that_went_back_ends_without_its_join(count: int, expected: str) -> None:
    log = repeated_diamond()
    check(log.history(log.records[:count]), expected=expected, leaves="documentation" if count == 9 else "")


def test_who_takes_what_goes_back_is_expected_in_a_new_round() -> None:
    log = repeated_diamond()
    (expected,) = log.history(log.records[:5]).expected
    assert (expected.round, ids(expected.causes)) == (SECOND, [SECOND])


@pytest.mark.parametrize("seed", range(20))
def test_any_order_and_any_repetition_say_the_same(seed: int) -> None:
    log = diamond()
    mixed = log.records * 2
    random.Random(seed).shuffle(mixed)  # noqa: S311 (no secret)
    history = log.history(mixed)
    check(history, leaves="documentation")
    assert ids(history.entries) == ids(log.history().entries)
    assert history.duplicates == []  # the same place read twice is not published twice


def test_cause_and_effect() -> None:
    history = diamond().history()
    (root,) = history.roots
    assert root.is_task
    assert ids(history.effects(root)) == ["researcher-result"]
    join = history.leaves[0]
    assert ids(history.causes(join)) == ["reviewer-result", "testing-result"]
    assert history.absent_causes(join) == ()
    assert history.succeeded


def test_an_effect_never_comes_before_its_cause_whatever_clocks_say() -> None:
    log = diamond()
    backwards = [
        FakeRecord(r.topic, r.offset, r.value, r.headers, timestamp=TIME - r.offset) for r in log.records
    ]
    history = log.history(backwards)
    assert ids(history.entries)[:3] == ["root", "researcher-result", "developer-result"]
    assert ids(history.entries)[-1] == "documentation-result"
    assert history.records[0].topic == "tasks.researcher"


def test_events_that_cause_each_other_are_all_there() -> None:
    log = Log()
    log.result("a", "b-result")
    log.result("b", "a-result", "b-result")
    history = log.history()
    assert len(history.entries) == 2
    assert history.roots == []


def test_a_repeated_result_counts_once_and_the_first_of_the_log_counts() -> None:
    log = Log()
    log.task("a")
    log.result("a", "root", output="first")
    log.result("a", "root", output="second")
    for records in (log.records, log.records[::-1]):
        history = log.history(records)
        check(history, leaves="a")
        assert history.leaves[0].result is not None
        assert history.leaves[0].result.output == "first"
        assert [record.offset for record in history.duplicates] == [2]
        assert [record.offset for record in history.records] == [0, 1, 2]


def test_the_same_id_from_another_source_is_another_event() -> None:
    log = Log()
    log.task("a")
    log.append("tasks.b", {"input": 1}, encode(Envelope("root", "/other", TASK, WORKFLOW)))
    assert len(log.history().entries) == 2


def test_failure_flows_to_every_leaf() -> None:
    log = Log()
    log.task("a")
    problem = {"type": "invalid_input", "message": "no"}
    log.result("a", "root", followers=["b"], status="failed", error=problem)
    check(log.history(), expected="b", states="a:failed b:working")
    log.result("b", "a-result", status="failed", error={"type": "upstream_failed", "message": "a failed: no"})
    history = log.history()
    check(history, leaves="b", states="a:failed b:failed")
    assert not history.succeeded


def test_a_parked_run_and_its_followers_stay_expected_until_it_resumes() -> None:
    log = Log()
    log.task("a")
    log.result("a", "root", followers=["b"], status="parked", identity="parked")
    check(log.history(), expected="a b", states="a:parked b:waiting")
    log.result("a", "root", followers=["b"], identity="resumed")
    check(log.history(), expected="b", states="a:done b:working")
    log.result("b", "resumed")
    check(log.history(), leaves="b")


def test_a_parked_leaf_is_no_leaf_yet() -> None:
    log = Log()
    log.task("a")
    log.result("a", "root", status="parked")
    check(log.history(), expected="a", states="a:parked")


def test_behind_a_parked_run_nothing_more_can_come() -> None:
    log = Log()
    log.task("a")
    assert not log.history().stuck
    log.result("a", "root", followers=["b"], status="parked", identity="parked")
    history = log.history()
    assert history.stuck
    assert [entry.agent for entry in history.parked] == ["a"]
    assert [line.entry for line in history.progress] == [*history.parked, None]
    log.result("a", "root", followers=["b"], identity="resumed")
    assert not log.history().stuck
    assert log.history().parked == []


def test_beside_a_parked_run_others_go_on() -> None:
    log = Log()
    log.task("a")
    log.result("a", "root", followers=["b", "c"])
    log.result("b", "a-result", followers=["d"], status="parked")
    history = log.history()
    assert not history.stuck
    assert not history.perhaps_stuck
    log.result("c", "a-result", followers=["d"])
    history = log.history()
    assert not history.stuck  # d may join any one of them
    assert history.perhaps_stuck
    check(history, expected="b d", states="a:done c:done b:parked d:waiting")
    log.result("d", "c-result")
    history = log.history()
    assert history.stuck
    check(history, expected="b", leaves="d")


def test_a_join_that_has_run_does_not_wait_for_a_second_result_of_a_part() -> None:
    log = diamond()
    log.result("reviewer", "developer-result", followers=["documentation"], identity="again")
    check(log.history(), leaves="documentation")


def test_each_task_of_a_workflow_is_answered_by_itself() -> None:
    log = Log()
    log.task("a", "one")
    log.task("a", "two")
    log.result("a", "one", identity="first", round_="one")
    check(log.history(), expected="a", leaves="a", states="a:working")
    log.result("a", "two", identity="second", round_="two")
    check(log.history(), leaves="a a")


def test_a_plain_task_is_its_place() -> None:
    log = Log()
    here = log.append("tasks.a", {"input": "x"})
    envelope = Envelope("r", "/test/app", RESULT, here, round=here, status="completed")
    log.append(
        "results.a", {"agent": "a", "status": "completed"}, encode(envelope, causes=[(here, "0" * 64)])
    )
    history = History(here, Topics())
    assert all(history.add(record) for record in log.records)
    check(history, leaves="a")
    assert ids(history.roots) == [here]


def test_records_of_others_are_not_taken() -> None:
    log = Log()
    log.task("a")
    other = encode(Envelope("other", "/test", TASK, "another workflow"))
    log.append("tasks.a", {"input": "x"}, other)
    log.append("artifacts.a", b"...", encode(Envelope("x", "/test", TASK, WORKFLOW)))
    history = log.history()
    assert ids(history.entries) == ["root"]


def test_a_topic_prefix_is_part_of_no_name() -> None:
    history = History(WORKFLOW, Topics("team1."))
    log = Log()
    log.append("team1.tasks.a", {"input": 1}, encode(Envelope("root", "/test", TASK, WORKFLOW)))
    log.append("tasks.a", {"input": 1}, encode(Envelope("x", "/test", TASK, WORKFLOW)))
    assert [history.add(record) for record in log.records] == [True, False]
    check(history, expected="a")


@pytest.mark.parametrize(
    "value", [None, b"", b"no json", b"[]", b'{"agent": 1}', b'{"agent":"a","status":"great"}']
)
def test_a_result_that_cannot_be_read_is_there_with_its_problem(value: bytes | None) -> None:
    log = Log()
    log.task("a")
    envelope = Envelope("bad", "/test", RESULT, WORKFLOW, round="root", status="completed")
    log.append("results.a", value, encode(envelope, causes=[("root", "0" * 64)]))
    history = log.history()
    bad = history.results[0]
    assert bad.problem
    assert (bad.status, bad.result, bad.seconds, bad.artifacts) == ("completed", None, None, ())
    check(history, leaves="a")


def test_an_event_with_half_an_envelope_is_there_with_its_problem() -> None:
    log = Log()
    log.append("tasks.a", {"input": "x"}, [("ce_id", b"half"), ("ce_correlationid", WORKFLOW.encode())])
    history = log.history()
    assert "ce_specversion is missing" in (history.entries[0].problem or "")
    check(history, expected="a")
    log.result("a", "half", status="failed", round_="half")
    check(log.history(), leaves="a")


def test_causes_that_are_gone_are_named() -> None:
    log = Log()
    log.result("b", "gone,with,commas")
    history = log.history()
    (entry,) = history.roots
    assert history.absent_causes(entry) == ("gone", "with", "commas")
    assert entry.answers == "gone,with,commas"


def test_an_id_with_a_comma_is_found() -> None:
    log = Log()
    log.task("a", "one,two")
    log.result("a", "one,two", round_="one,two")
    history = log.history()
    assert ids(history.causes(history.results[0])) == ["one,two"]
    check(history, leaves="a")


@pytest.mark.parametrize(
    ("begun", "ended", "seconds"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:02.5Z", 2.5),
        ("2026-01-31T12:00:02Z", "2026-01-31T12:00:00Z", 0),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00", None),
        ("yesterday", "today", None),
        (None, "2026-01-31T12:00:00Z", None),
    ],
)
def test_seconds_of_a_run(begun: str | None, ended: str, seconds: float | None) -> None:
    log = Log()
    log.result("a", started_at=begun, finished_at=ended)
    assert log.history().entries[0].seconds == seconds


def test_a_long_chain_and_a_wide_fan_take_no_time() -> None:
    log = Log()
    before = log.task("agent0")
    for number in range(2_000):
        before = log.result(f"agent{number}", before, followers=[f"agent{number + 1}"])
    for number in range(2_000):
        log.result("fan", before, identity=f"fan{number}")
    history = log.history()
    check(history, expected="agent2000", leaves=" ".join(["fan"] * 2_000))
    assert history.expected[0].state == State.WORKING


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("ce_correlationid", b"w"), ("ce_id", b"i")], "w"),
        ([("ce_id", b"i"), ("ce_correlationid", b"w"), ("ce_correlationid", b"late")], "w"),
        ([("ce_correlationid", b""), ("ce_id", b"i")], "i"),
        ([("ce_id", b"i")], "i"),
        ([("other", b"x")], "tasks.a/0/7"),
        ([("ce_correlationid", b"\xff")], "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_workflow_of_a_record(headers: list[tuple[str, bytes]], expected: str) -> None:
    assert workflow_of(FakeRecord("tasks.a", 7, b"", tuple(headers))) == expected


def test_a_failure_that_was_published_again_and_came_to_good_is_none_any_more() -> None:
    log, run = Log(), "ab" * 32
    log.task("a")
    log.result("a", "root", status="failed", followers=["b"], run=run)
    log.result("b", "a-result", status="failed")
    assert not log.history().succeeded
    again = Envelope("again", "/test", TASK, WORKFLOW, round="again")
    log.append("tasks.a", {"input": "y"}, [*encode(again), ("ce_redriveof", letter_id(run, 0).encode())])
    assert not log.history().finished
    log.result("a", "again", followers=["b"], identity="a-again", round_="again")
    log.result("b", "a-again", identity="b-again", round_="again")
    assert log.history().succeeded


def test_any_part_of_a_join_tells_that_it_was_published_again_however_many_it_has() -> None:
    log, run, sources = Log(), "ab" * 32, [f"s{number}" for number in range(70)]
    log.task("a")
    log.result("a", "root", followers=sources)
    for source in sources:
        log.result(source, "a-result", followers=["b"])
    log.result("b", *(f"{source}-result" for source in sources), status="failed", run=run)
    again = Envelope("again", "/test", RESULT, WORKFLOW, round="again", status="completed")
    letter = letter_id(run, 69).encode()
    log.append("tasks.b", {"agent": "s69", "status": "completed"}, [*encode(again), ("ce_redriveof", letter)])
    log.result("b", "again", identity="b-again", round_="again")
    assert log.history().succeeded


def test_a_result_that_was_published_again_for_one_agent_is_no_task_that_cannot_be_read() -> None:
    log = Log()
    log.task("a")
    log.result("a", "root", followers=["b"])
    log.result("b", "a-result", status="failed", run="ab" * 32)
    again = Envelope("again", "/test", RESULT, WORKFLOW, round="again", status="completed")
    letter = letter_id("ab" * 32, 0).encode()
    body = {"agent": "a", "status": "completed", "followers": ["b"]}
    log.append("tasks.b", body, [*encode(again), ("ce_redriveof", letter)])
    history = log.history()
    check(history, expected="b", leaves="b")
    assert [entry.problem for entry in history.entries] == [None] * 4
