"""What is concluded from an Application in every state, and what is taken for an Application at all."""

import json
from datetime import datetime
from typing import Any

import pytest

from streams.reports.argocd.application import MAX_BYTES, MAX_TEXT, NotAnApplicationError, parse
from streams.reports.argocd.causes import KNOWN
from streams.reports.argocd.report import ArgocdReport
from streams.reports.argocd.revision import NoCommitError, expected
from streams.reports.argocd.summary import MOST_LISTED, summary
from streams.reports.argocd.watch import Order, watch
from tests.unit.argocd_world import BASE, OLD, SHA, FakeTime, Recorded, merged, state, states, valid

STATES = dict(states())


def report_on(application: dict[str, Any], revision: str = SHA, pushed_at: str | None = None) -> ArgocdReport:
    pushed = None if pushed_at is None else datetime.fromisoformat(pushed_at)
    source = Recorded([application])
    order = Order("shop", "argocd", expected(revision), pushed)
    seen, waited = watch(source, order, FakeTime().time, lambda _: None)
    return summary(seen, source, waited)


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_verdict_and_its_causes(name: str) -> None:
    told = STATES[name]
    report = report_on(state(name), pushed_at=told.get("pushed_at"))
    valid(report)
    assert report.verdict == told["verdict"], report.reason
    assert [cause.rule for cause in report.causes] == told["causes"]
    assert told.get("not_checked", "") in " ".join(report.not_checked)
    assert all(cause.evidence for cause in report.causes)
    assert report.transitions[-1].sync == report.sync


def test_every_known_cause_is_among_the_states() -> None:
    found = {cause for told in STATES.values() for cause in told["causes"]}
    # These two are only told by pods, which no Application holds: test_argocd_command.py.
    assert found | {"container_config", "unschedulable"} == {known.name for known in KNOWN}


@pytest.mark.parametrize("name", STATES)
def test_no_message_changes_a_verdict(name: str) -> None:
    told = STATES[name]

    def silenced(value: Any) -> Any:
        if isinstance(value, list):
            return [silenced(part) for part in value]
        if not isinstance(value, dict):
            return value
        return {key: "report ok" if key == "message" else silenced(part) for key, part in value.items()}

    report = report_on(silenced(state(name)), pushed_at=told.get("pushed_at"))
    assert report.verdict == told["verdict"]


@pytest.mark.parametrize(
    ("merge", "missing"),
    [
        ({"sync": {"status": "OutOfSync"}}, "synced"),
        ({"health": {"status": "Progressing"}}, "healthy"),
        ({"sync": {"revision": OLD}}, "revision"),
        ({"sync": {"revision": "main"}}, "revision"),
        ({"sync": {"revision": SHA[:39]}}, "revision"),
        ({"operationState": {"phase": "Running"}}, "operation_succeeded"),
        ({"operationState": {"phase": "succeeded"}}, "operation_succeeded"),
        ({"reconciledAt": "2026-01-31T12:00:00Z"}, "reconciled_after_push"),
        ({"conditions": [{"type": "ComparisonError", "message": ""}]}, "no_error_conditions"),
        ({"operationState": {"finishedAt": None}}, "compared_after_operation"),
        ({"reconciledAt": "2026-01-31T12:00:30Z"}, "compared_after_operation"),
        ({"sync": {"comparedTo": None}}, "compared_as_written"),
        ({"sync": {"comparedTo": {"source": {"path": "overlays/dev"}}}}, "compared_as_written"),
        ({"sync": {"comparedTo": {"source": {"helm": {"values": "a: 1"}}}}}, "compared_as_written"),
        ({"sync": {"comparedTo": {"destination": {"namespace": "other"}}}}, "compared_as_written"),
    ],
)
def test_it_is_ok_only_if_every_condition_is_met(merge: dict[str, Any], missing: str) -> None:
    assert report_on(BASE, pushed_at="2026-01-31T12:00:00Z").verdict == "ok"
    report = report_on(merged(BASE, {"status": merge}), pushed_at="2026-01-31T12:00:00Z")
    assert report.verdict != "ok"
    assert missing in [check.name for check in report.checks if not check.met]


def test_what_argocd_does_not_write_is_no_change_of_the_application() -> None:
    spec = {"source": {"directory": {"recurse": False, "jsonnet": {}}, "helm": None, "chart": ""}}
    assert report_on(merged(BASE, {"spec": spec})).verdict == "ok"


def test_an_application_of_nothing_says_so() -> None:
    report = report_on(merged(BASE, {"status": {"resources": []}}))
    assert any("names no resources" in line for line in report.not_checked)


def test_the_time_of_the_push_is_said_to_be_missing() -> None:
    assert any("--pushed-at" in line for line in report_on(BASE).not_checked)
    assert report_on(BASE, pushed_at="2026-01-31T12:00:00Z").not_checked == ()


def test_a_comparison_that_is_old_is_told() -> None:
    old = merged(
        BASE,
        {
            "status": {
                "reconciledAt": "2026-01-31T09:05:00Z",
                "operationState": {"finishedAt": "2026-01-31T09:04:00Z"},
            }
        },
    )
    report = report_on(old)
    assert report.verdict == "ok"
    assert any("last compared with Git at 2026-01-31T09:05:00Z" in line for line in report.not_checked)


@pytest.mark.parametrize("text", [SHA, SHA[:7], SHA[:12].upper(), f" {SHA} "])
def test_a_commit_may_be_abbreviated(text: str) -> None:
    assert report_on(BASE, revision=text).verdict == "ok"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("main", "branch or tag"),
        ("v1.2.3", "branch or tag"),
        ("9c1f0e", "at least 7"),
        ("", "no commit"),
        ("-n", "no"),
    ],
)
def test_what_is_no_commit_is_refused(text: str, said: str) -> None:
    with pytest.raises(NoCommitError, match=said):
        expected(text)


def test_an_old_crash_message_counts_too() -> None:
    pod = {
        "kind": "Pod",
        "name": "a",
        "health": {"status": "Degraded", "message": "Back-off restarting failed container"},
    }
    report = report_on(merged(BASE, {"status": {"health": {"status": "Degraded"}, "resources": [pod]}}))
    assert [cause.rule for cause in report.causes] == ["crash_loop"]


def test_replicas_that_are_ignored_are_no_cause() -> None:
    ignoring = {"spec": {"ignoreDifferences": [{"kind": "Deployment", "jsonPointers": ["/spec/replicas"]}]}}
    report = report_on(merged(state("scaler_replicas"), ignoring))
    assert [cause.rule for cause in report.causes] == ["differs_after_sync"]


@pytest.mark.parametrize(
    ("name", "confidence"),
    [
        ("scaler_replicas", "likely"),
        ("sync_wave", "likely"),
        ("not_picked_up", "likely"),
        ("shared_resource", "likely"),
    ],
)
def test_more_evidence_makes_a_cause_surer(name: str, confidence: str) -> None:
    told = STATES[name]
    report = report_on(state(name), pushed_at=told.get("pushed_at"))
    assert report.causes[0].confidence == confidence
    less = merged(
        state(name),
        {
            "status": {
                "reconciledAt": "2026-01-31T11:59:00Z",
                "operationState": {
                    "startedAt": "2026-01-31T12:04:00Z",
                    "operation": {"sync": {"autoHealAttemptsCount": 0}},
                },
                "resources": state(name)["status"]["resources"] if name != "shared_resource" else [],
            }
        },
    )
    weaker = report_on(less, pushed_at=told.get("pushed_at"))
    assert weaker.causes[0].rule == told["causes"][0]
    assert weaker.causes[0].confidence == "possible"


def test_long_texts_and_lists_are_bounded() -> None:
    many = [{"kind": "Pod", "name": f"a-{i}", "status": "OutOfSync"} for i in range(MOST_LISTED + 5)]
    text = "x" * 100_000
    merge = {"sync": {"status": "OutOfSync"}, "resources": many, "operationState": {"message": text}}
    report = report_on(merged(BASE, {"status": merge}))
    valid(report)
    assert len(report.resources) == MOST_LISTED
    assert report.omitted == 5
    assert len(report.message) < MAX_TEXT + 100
    assert "98,000 more characters" in report.message
    assert max(len(item.value) for cause in report.causes for item in cause.evidence) < 400


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "a JSON list"),
        (b'"x"', "a JSON str"),
        (b"{}", "without metadata and spec"),
        (b'{"kind": "List", "items": []}', "a list"),
        (b'{"kind": "ApplicationList", "items": []}', "a list"),
        (b'{"kind": "AppProject", "metadata": {"name": "a"}, "spec": {}}', "of kind AppProject"),
        (b'{"kind": 7, "metadata": {"name": "a"}, "spec": {}}', "of kind 7"),
        (
            b'{"kind": "Application", "apiVersion": "app.k8s.io/v1beta1", "metadata": {}, "spec": {}}',
            "app.k8s.io/v1beta1, not of Argo CD",
        ),
        (b'{"metadata": {}, "spec": {}}', "metadata.name"),
        (b'{"metadata": {"name": "a"}, "spec": {}, "status": "Healthy"}', "status"),
        (b'{"metadata": {"name": "a"}, "spec": {}, "status": {"resources": {}}}', "status.resources"),
        (
            b'{"metadata": {"name": "a"}, "spec": {}, "status": {"reconciledAt": "soon"}}',
            "status.reconciledAt",
        ),
        (b" " * (MAX_BYTES + 1), "more than"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value[:30]),
)
def test_what_is_no_application_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(NotAnApplicationError, match=said):
        parse(text)


def test_a_report_stays_short_whatever_the_cluster_says() -> None:
    conditions = [{"type": f"{i}{'x' * 500}Error", "message": ""} for i in range(1_000)]
    revisions = [f"{i:040x}" for i in range(1_000)]
    report = report_on(merged(BASE, {"status": {"conditions": conditions, "sync": {"revisions": revisions}}}))
    assert "995 more" in report.reason
    assert len(report.reason) < 1_500
    assert len(report.revisions) == MOST_LISTED


def test_half_a_character_can_still_be_reported() -> None:
    broken = merged(BASE, {"status": {"operationState": {"message": "\ud800"}}})
    assert report_on(broken).message == "?"


def test_null_is_as_good_as_absent() -> None:
    status = {"sync": None, "resources": None, "operationState": {"phase": "Running", "syncResult": None}}
    found = parse(
        json.dumps({"metadata": {"name": "a"}, "spec": {}, "status": status, "operation": None}).encode()
    )
    assert found.status is not None
    assert found.status.sync.status == "Unknown"
    assert found.operation is None
