"""Waiting for a deployment: when it ends, what it survives, and that it never waits in vain."""

import random
from typing import Any

import pytest

from streams.reports.argocd.revision import expected
from streams.reports.argocd.source import ReadError
from streams.reports.argocd.summary import summary
from streams.reports.argocd.watch import LONGEST_PAUSE, MOST_TRANSITIONS, Order, watch
from tests.unit.argocd_world import BASE, NOW, OLD, SHA, FakeTime, Recorded, merged, state, valid

PASSING = ReadError("the server cannot be reached", passing=True)
FINAL = ReadError("there is no such Application", passing=False)

BEFORE = merged(
    BASE,
    {
        "status": {
            "sync": {"revision": OLD},
            "operationState": {"operation": {"sync": {"revision": OLD}}, "syncResult": {"revision": OLD}},
            "history": [],
        }
    },
)
RUNNING = state("progressing_operation_running")
ROLLOUT = state("progressing_rollout")
DEGRADED = state("crash_loop")
BROKEN = state("rendering")


class Waited:
    """What came of waiting for some readings, one after the other."""

    def __init__(
        self, *readings: dict[str, Any] | ReadError, wait: float | None = 600, draw: float = 0.5
    ) -> None:
        self.source = Recorded(list(readings))
        self.time = FakeTime(draw=draw)
        self.told: list[str] = []
        order = Order("shop", "argocd", expected(SHA), wait=wait)
        seen, seconds = watch(self.source, order, self.time.time, self.told.append)
        self.report = summary(seen, self.source, seconds)
        valid(self.report)

    def check(self, verdict: str, reads: int | None = None) -> None:
        assert self.report.verdict == verdict, self.report.reason
        if reads is not None:
            assert self.source.reads == reads


def test_it_ends_with_the_first_reading_that_is_good() -> None:
    waited = Waited(BEFORE, RUNNING, ROLLOUT, BASE)
    waited.check("ok", reads=4)
    assert [
        (step.sync, step.health, step.phase, (step.revision or "")[:4]) for step in waited.report.transitions
    ] == [
        ("Synced", "Healthy", "Succeeded", OLD[:4]),
        ("OutOfSync", "Healthy", "Running", SHA[:4]),
        ("Synced", "Progressing", "Succeeded", SHA[:4]),
        ("Synced", "Healthy", "Succeeded", SHA[:4]),
    ]
    assert waited.report.transitions[0].at == NOW
    assert waited.report.waited_seconds == waited.time.passed
    assert len(waited.told) == 4


def test_without_waiting_it_reads_once() -> None:
    waited = Waited(RUNNING, BASE, wait=None)
    waited.check("progressing", reads=1)
    assert waited.time.slept == []
    assert waited.told == ["shop: sync OutOfSync, health Healthy, operation Running, revision 9c1f0e7ad2b8"]


def test_it_ends_at_its_deadline_with_a_last_reading() -> None:
    waited = Waited(RUNNING, wait=100)
    waited.check("timeout")
    assert waited.time.passed == 100
    assert "waited 100 s" in waited.report.reason
    assert "operation: Running" in waited.report.reason
    assert len(waited.report.transitions) == 1


def test_pauses_grow_up_to_a_limit_and_begin_anew_with_a_change() -> None:
    waited = Waited(*[RUNNING] * 12, ROLLOUT, BASE)
    pauses = waited.time.slept
    assert pauses[0] == 2.0
    assert pauses == [*sorted(pauses[:-1]), 2.0]
    assert max(pauses) == LONGEST_PAUSE


@pytest.mark.parametrize(("draw", "first"), [(0.0, 1.6), (0.5, 2.0), (1.0, 2.4)])
def test_pauses_are_drawn_around_their_length(draw: float, first: float) -> None:
    assert Waited(RUNNING, BASE, draw=draw).time.slept == [pytest.approx(first)]


def test_so_many_changes_are_kept_and_the_others_counted() -> None:
    report = Waited(*[RUNNING, ROLLOUT] * 200, wait=900).report
    assert len(report.transitions) == MOST_TRANSITIONS
    assert report.omitted == 400 - MOST_TRANSITIONS


def test_a_failed_operation_ends_it_at_once() -> None:
    waited = Waited(RUNNING, state("immutable_field"), BASE)
    waited.check("failed", reads=2)
    assert [cause.rule for cause in waited.report.causes] == ["immutable_field"]


def test_a_retrying_operation_does_not() -> None:
    Waited(state("retrying"), BASE).check("ok", reads=2)


def test_degraded_has_a_minute_to_recover() -> None:
    Waited(DEGRADED, DEGRADED, BASE).check("ok", reads=3)
    lasting = Waited(DEGRADED)
    lasting.check("failed")
    assert 60 <= lasting.time.passed < 60 + LONGEST_PAUSE * 1.2
    Waited(*[DEGRADED] * 4, ROLLOUT, *[DEGRADED] * 4, BASE).check("ok")


def test_a_comparison_that_fails_has_the_time_of_a_poll() -> None:
    Waited(*[BROKEN] * 5, BASE).check("ok")
    lasting = Waited(BROKEN)
    lasting.check("failed")
    assert 180 <= lasting.time.passed < 180 + LONGEST_PAUSE * 1.2


def test_what_is_pinned_elsewhere_has_the_time_of_a_poll_to_change() -> None:
    pinned = state("tracks_another_commit")
    Waited(*[pinned] * 5, BASE).check("ok")
    lasting = Waited(pinned)
    lasting.check("failed")
    assert lasting.time.passed >= 180


def test_failed_at_the_deadline_is_failed() -> None:
    Waited(DEGRADED, wait=30).check("failed")


@pytest.mark.parametrize(("wait", "causes"), [(170, []), (200, ["not_picked_up"])])
def test_nothing_counts_as_not_picked_up_before_argo_cd_had_time(wait: float, causes: list[str]) -> None:
    waited = Waited(BEFORE, wait=wait)
    waited.check("timeout")
    assert [cause.rule for cause in waited.report.causes] == causes


def test_readings_that_fail_and_may_pass_are_counted_and_survived() -> None:
    waited = Waited(RUNNING, PASSING, PASSING, BASE)
    waited.check("ok", reads=4)
    assert (waited.report.readings.good, waited.report.readings.failed) == (2, 2)
    assert waited.report.readings.last_error == str(PASSING)
    assert "a reading failed (2 so far): the server cannot be reached" in waited.told


@pytest.mark.parametrize("readings", [(FINAL,), (PASSING, FINAL), (RUNNING, FINAL, BASE)])
def test_one_that_cannot_pass_ends_it(readings: tuple[dict[str, Any] | ReadError, ...]) -> None:
    waited = Waited(*readings)
    waited.check("unknown")
    assert str(FINAL) in waited.report.reason
    assert waited.source.described == waited.report.source


def test_nothing_read_is_nothing_known() -> None:
    for waited in (Waited(PASSING, wait=60), Waited(PASSING, wait=None)):
        waited.check("unknown")
        assert waited.report.sync is None
        assert waited.report.not_checked == ("everything: the Application was never read",)


def test_what_was_seen_before_a_last_failure_is_not_taken_for_the_present() -> None:
    waited = Waited(RUNNING, PASSING, wait=60)
    waited.check("unknown")
    assert "the last reading failed: the server cannot be reached" in waited.report.reason
    assert waited.report.sync == "OutOfSync"


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        ({"metadata": {"name": "other"}}, "'other', not 'shop'"),
        ({"metadata": {"namespace": "else"}}, "'else', not in"),
    ],
)
def test_another_application_is_not_taken_for_it(merge: dict[str, Any], said: str) -> None:
    waited = Waited(merged(BASE, merge))
    waited.check("unknown", reads=1)
    assert said in waited.report.reason


def test_any_order_of_readings_ends_in_time_and_is_ok_only_at_the_end() -> None:
    drawn = random.Random(5)  # noqa: S311 (drawn to be drawn again)
    kinds = (BEFORE, RUNNING, ROLLOUT, DEGRADED, BROKEN, BASE, PASSING, state("unknown_health"))
    for _ in range(200):
        readings = drawn.choices(kinds, k=drawn.randint(1, 60))
        waited = Waited(*readings, draw=drawn.random())
        assert waited.time.passed <= 600
        last = readings[min(waited.source.reads, len(readings)) - 1]
        assert (waited.report.verdict == "ok") == (last is BASE)
