"""`validate-manifests` finds each fault by its rule, and never passes what it did not check."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.reports.manifests import pod_rules, scaling_rules
from streams.reports.manifests.check import check
from streams.reports.manifests.manifest import manifests
from streams.reports.manifests.report import ManifestsReport
from streams.reports.manifests.rules import RULES
from streams.reports.manifests.schema import Schemas
from streams.settings import Settings

FIXTURES = Path(__file__).parent / "fixtures" / "manifests"
GOOD = list(yaml.safe_load_all((FIXTURES / "good" / "developer.yaml").read_text()))
GONE = object()
SHAPES: list[Any] = [None, True, "x", 1, [], {}, [None], [[]], {"a": None}, [{"a": 1}]]
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}

POD = "/spec/template/spec"
AGENT = f"{POD}/containers/0"
DEPLOYMENT_NOTES = "/metadata/annotations/callboard.dev~1"


def written(folder: Path, documents: list[Any], name: str = "all.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump_all(documents))
    return folder


def changed(kind: str, path: str, value: Any) -> list[Any]:
    """Give the good objects with one place changed, or gone."""
    documents = copy.deepcopy(GOOD)
    *way, last = [step.replace("~1", "/") for step in path.removeprefix("/").split("/")]
    place = next(each for each in documents if each["kind"] == kind)
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    key = int(last) if isinstance(place, list) else last
    if value is GONE:
        del place[key]
    else:
        place[key] = value
    return documents


def places(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in inner:
        yield from places(each, (*way, step))


def without(kind: str) -> list[Any]:
    return [each for each in GOOD if each["kind"] != kind]


def rules(report: ManifestsReport) -> set[str]:
    return {finding.rule for finding in report.findings}


# What is changed in the good objects, and the one rule that finds it.
FAULTS: list[tuple[str, str, str, Any]] = [
    ("object", "Namespace", "/metadata/name", GONE),
    ("object", "Namespace", "/kind", GONE),
    ("object", "Namespace", "/apiVersion", GONE),
    ("schema", "Deployment", "/spec/replica", 2),
    ("schema", "Deployment", "/spec/selector", GONE),
    ("schema", "Deployment", f"{AGENT}/ports/0/containerPort", "8000"),
    ("schema", "Deployment", "/metadata/lables", {}),
    ("schema", "ScaledObject", "/spec/minReplicaCount", "1"),
    ("schema", "ScaledObject", "/spec/minReplicas", 1),
    ("schema", "ScaledObject", "/metadata/lables", {}),
    ("schema", "Application", "/spec/syncPolicy/automatic", {}),
    ("schema", "Application", "/spec/project", GONE),
    ("schema", "AppProject", "/spec/sourceRepo", []),
    ("schema", "KafkaTopic", "/spec/replicas", 0),
    ("schema", "PodMonitor", "/spec/podMetricsEndpoints/0/interval", "30 seconds"),
    ("no-schema", "PodDisruptionBudget", "/apiVersion", "policy/v1beta1"),
    ("no-schema", "KafkaTopic", "/apiVersion", "kafka.strimzi.io/v1beta2"),
    ("no-schema", "Namespace", "/kind", "NameSpace"),
    ("no-schema", "Namespace", "/kind", "../../v1.37.0-local/namespace"),
    ("no-schema", "Namespace", "/kind", "Container"),
    ("image-tag", "Deployment", f"{AGENT}/image", "callboard"),
    ("image-tag", "Deployment", f"{AGENT}/image", "registry:5000/callboard"),
    ("image-tag", "Deployment", f"{AGENT}/image", "registry:5000/callboard:latest"),
    ("probes", "Deployment", f"{AGENT}/livenessProbe", GONE),
    ("probes", "Deployment", f"{AGENT}/readinessProbe", GONE),
    ("resources", "Deployment", f"{AGENT}/resources", GONE),
    ("resources", "Deployment", f"{AGENT}/resources/limits", {"cpu": 1}),
    ("run-as-non-root", "Deployment", f"{POD}/securityContext/runAsNonRoot", GONE),
    ("run-as-non-root", "Deployment", f"{AGENT}/securityContext/runAsNonRoot", False),
    ("run-as-non-root", "Deployment", f"{AGENT}/securityContext/runAsUser", 0),
    ("read-only-root", "Deployment", f"{AGENT}/securityContext/readOnlyRootFilesystem", GONE),
    ("privilege-escalation", "Deployment", f"{AGENT}/securityContext/allowPrivilegeEscalation", True),
    ("capabilities", "Deployment", f"{AGENT}/securityContext/capabilities", GONE),
    ("capabilities", "Deployment", f"{AGENT}/securityContext/capabilities/add", ["NET_ADMIN"]),
    ("seccomp", "Deployment", f"{POD}/securityContext/seccompProfile", GONE),
    ("seccomp", "Deployment", f"{AGENT}/securityContext/seccompProfile", {"type": "Unconfined"}),
    ("service-account-token", "Deployment", f"{POD}/automountServiceAccountToken", True),
    (
        "service-account-token",
        "Deployment",
        f"{POD}/volumes/0",
        {"name": "scratch", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ),
    ("host-access", "Deployment", f"{POD}/hostNetwork", True),
    ("host-access", "Deployment", f"{POD}/volumes/0", {"name": "scratch", "hostPath": {"path": "/"}}),
    ("host-access", "Deployment", f"{AGENT}/ports/0/hostPort", 8000),
    ("host-access", "Deployment", f"{AGENT}/securityContext/privileged", True),
    ("grace-period", "Deployment", f"{POD}/terminationGracePeriodSeconds", 609),
    ("grace-period", "Deployment", f"{POD}/terminationGracePeriodSeconds", GONE),
    ("grace-period", "Deployment", f"{DEPLOYMENT_NOTES}deadline-seconds", "900"),
    ("grace-period", "Deployment", f"{DEPLOYMENT_NOTES}deadline-seconds", GONE),
    ("grace-period", "ConfigMap", "/data/CALLBOARD_DRAIN_SECONDS", "30"),
    ("grace-period", "ConfigMap", "/data/CALLBOARD_DRAIN_SECONDS", "700"),
    ("replicas", "Deployment", "/spec/replicas", 3),
    ("scale-target", "ScaledObject", "/spec/scaleTargetRef/name", "developers"),
    ("max-replicas", "ScaledObject", "/spec/maxReplicaCount", 7),
    ("max-replicas", "ScaledObject", "/spec/maxReplicaCount", GONE),
    ("max-replicas", "KafkaTopic", "/spec/partitions", 5),
    ("trigger", "ScaledObject", "/spec/triggers/0/metadata/consumerGroup", "developer"),
    ("trigger", "ScaledObject", "/spec/triggers/1/metadata/topic", "results.reviewer"),
    ("trigger", "ScaledObject", "/spec/triggers/1", GONE),
    ("trigger", "Deployment", f"{DEPLOYMENT_NOTES}agent", "researcher"),
    ("trigger", "Deployment", f"{DEPLOYMENT_NOTES}app", GONE),
    ("network-policy", "NetworkPolicy", "/spec/policyTypes", ["Ingress"]),
    ("network-policy", "NetworkPolicy", "/spec/egress", [{}]),
    ("network-policy", "NetworkPolicy", "/spec/podSelector", {"matchLabels": {"app": "developer"}}),
    ("network-policy", "NetworkPolicy", "/metadata/namespace", "other"),
    ("literal-secret", "Deployment", f"{AGENT}/env/1", {"name": "ANTHROPIC_API_KEY", "value": "x" * 20}),
    ("literal-secret", "Deployment", f"{AGENT}/args", ["--key", f"sk-ant-{'x' * 20}"]),
    ("literal-secret", "ConfigMap", "/data/CALLBOARD_SASL_PASSWORD", "hunter2"),
    ("literal-secret", "ConfigMap", "/data/url", "https://user:hunter2@host/"),
    ("disruption-budget", "PodDisruptionBudget", "/spec/selector/matchLabels", {"app": "other"}),
]
FAULTS_OF_SETS: list[tuple[str, list[Any]]] = [
    ("network-policy", without("NetworkPolicy")),
    ("disruption-budget", without("PodDisruptionBudget")),
    (
        "network-policy",
        [
            *GOOD,
            next(each for each in GOOD if each["kind"] == "NetworkPolicy")
            | {
                "metadata": {"name": "open", "namespace": "agents"},
                "spec": {"podSelector": {}, "egress": [{}]},
            },
        ],
    ),
    ("scale-target", without("Deployment")),
    ("duplicate", [*GOOD, GOOD[0]]),
    ("no-schema", [*GOOD, SECRET | {"apiVersion": "policy.example/v1", "kind": "PodDisruptionBudget"}]),
    (
        "secret",
        [*GOOD, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"a": "YQ=="}}],
    ),
    (
        "secret",
        [
            *GOOD,
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"a": "b"}},
        ],
    ),
]


def test_what_is_good_passes(tmp_path: Path) -> None:
    report = check([written(tmp_path, GOOD)])
    assert (report.findings, report.not_checked, report.verdict) == ((), (), "pass")
    assert report.counts.objects == len(GOOD)
    assert {"kubernetes-validate", "jsonschema", "callboard", "pyyaml"} <= {
        tool.name for tool in report.tools
    }


@pytest.mark.parametrize(("rule", "kind", "path", "value"), FAULTS)
def test_each_fault_is_found_by_its_rule_alone(
    tmp_path: Path, rule: str, kind: str, path: str, value: Any
) -> None:
    report = check([written(tmp_path, changed(kind, path, value))])
    assert rules(report) == {rule}, report.findings
    severities = {finding.severity for finding in report.findings}
    assert report.verdict == ("fail" if severities == {"error"} else "pass")


@pytest.mark.parametrize(("rule", "documents"), FAULTS_OF_SETS)
def test_what_belongs_together_is_looked_at_together(tmp_path: Path, rule: str, documents: list[Any]) -> None:
    assert rules(check([written(tmp_path, documents)])) == {rule}


def test_no_shape_of_a_value_stops_a_rule_or_a_schema() -> None:
    good = [*GOOD, *yaml.safe_load_all((FIXTURES / "other_kinds.yaml").read_text())]
    known = Schemas()
    turn = 0
    for number, document in enumerate(good):
        for *way, last in (way for way in places(document) if way):
            turn += 1  # at each place every other shape, at its neighbors the others
            for value in SHAPES[turn % 2 :: 2]:
                changed_one = copy.deepcopy(document)
                place = changed_one
                for step in way:
                    place = place[step]
                place[last] = value
                documents = [*good[:number], changed_one, *good[number + 1 :]]
                whole = [each for document in documents for each in manifests(document, "all.yaml")]
                for rule in RULES:
                    for manifest, _, said in rule.broken(whole) if rule.broken else ():
                        assert manifest.reference
                        assert said
                for manifest in manifests(changed_one, "all.yaml"):
                    assert all(said for _, said in known.errors(manifest))


def test_a_kind_of_a_stranger_that_runs_pods_is_held_to_the_rules_of_pods(tmp_path: Path) -> None:
    rollout = copy.deepcopy(next(each for each in GOOD if each["kind"] == "Deployment"))
    rollout |= {"apiVersion": "rollouts.example/v1", "kind": "Rollout"}
    rollout["spec"]["template"]["spec"]["containers"][0]["image"] = "agent:latest"
    found = {
        (each.rule, each.object and each.object.kind)
        for each in check([written(tmp_path, [*GOOD, rollout])]).findings
    }
    assert found == {("no-schema", "Rollout"), ("image-tag", "Rollout")}


def test_agents_are_known_by_their_settings_too(tmp_path: Path) -> None:
    documents = copy.deepcopy([each for each in GOOD if each["kind"] in {"Deployment", "ConfigMap"}])
    deployment = next(each for each in documents if each["kind"] == "Deployment")
    del deployment["metadata"]["annotations"], deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert "grace-period" in rules(check([written(tmp_path, documents)]))
    del deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert "grace-period" not in rules(check([written(tmp_path, documents)]))


def test_a_token_for_somebody_else_is_none_for_the_api_server(tmp_path: Path) -> None:
    token = {"serviceAccountToken": {"path": "token", "audience": "vault"}}
    volume = {"name": "scratch", "projected": {"sources": [token]}}
    assert not check([written(tmp_path, changed("Deployment", f"{POD}/volumes/0", volume))]).findings


def test_defaults_are_those_of_the_settings() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert defaults["drain_seconds"] == pod_rules.DEFAULT_DRAIN
    assert defaults["partitions"] == scaling_rules.DEFAULT_PARTITIONS


def test_every_rule_is_broken_by_some_test() -> None:
    broken = {rule for rule, *_ in [*FAULTS, *FAULTS_OF_SETS]}
    assert {rule.id for rule in RULES} - broken == {"yaml", "build"}  # these have tests of their own below
