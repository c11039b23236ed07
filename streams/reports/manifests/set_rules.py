"""Rules about objects that belong together: what a namespace needs, and what no repository may hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.manifest import Manifest, at, objects, text
from streams.reports.manifests.workload import Workload, workloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.reports.manifests.manifest import Pointer, Violation
    from streams.reports.manifests.workload import Container

BOTH: Final = {"Ingress", "Egress"}
SECRET_NAME: Final = re.compile(
    r"(?:^|[_.-])(?:password|passwd|secret|token|api_?key|access_?key|secret_?key|private_?key|passphrase|credentials?)(?:$|[_.-]\d*$)",
    re.IGNORECASE,
)
SECRET_VALUE: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bsk-ant-[\w-]{16,}|\bsk-[A-Za-z0-9]{32,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_\w{36,}|://[^/\s:@$]+:[^/\s:@$]+@"
)


def secret(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find Secrets whose contents are in the repository."""
    for each in whole:
        if each.is_a("", "Secret"):
            for key in ("data", "stringData"):
                if each.value.get(key):
                    yield each, (key,), "what a Secret holds is in plain sight here: base64 hides nothing"


def literal_secret(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find what looks like a secret among settings; what it is, is not repeated."""
    for workload in workloads(whole):
        for container in workload.containers:
            for way, name, value in _settings(container):
                if _is_secret(name, value):
                    said = f"{name or 'an argument'} of {container.name} looks like a secret"
                    yield workload.manifest, (*container.way, *way), said
    for each in whole:
        data = at(each.value, "data")
        if each.is_a("", "ConfigMap") and isinstance(data, dict):
            for name, value in data.items():
                if _is_secret(name, text(value)):
                    yield each, ("data", name), f"{name} looks like a secret"


def network_policy(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find namespaces whose pods may talk to everyone."""
    denied: dict[str, set[str]] = {}
    for each in whole:
        if each.is_a("networking.k8s.io", "NetworkPolicy"):
            denied.setdefault(each.namespace, set()).update(_denied(each))
    for each in whole:  # policies add up: one that allows everything undoes the others
        if each.is_a("networking.k8s.io", "NetworkPolicy") and _is_for_all(each):
            denied[each.namespace] -= {way for way in BOTH if _is_open(each, way)}
    seen = set()
    for workload in workloads(whole):
        namespace = workload.manifest.namespace
        missing = BOTH - denied.get(namespace, set())
        if missing and namespace not in seen:
            directions = " and ".join(sorted(missing))
            said = (
                f"its namespace has pods, and no NetworkPolicy for all of them denies {directions} for good"
            )
            yield workload.manifest, ("metadata", "namespace"), said
        seen.add(namespace)


def disruption_budget(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find pods that a drained node may take away all at once."""
    budgets = [each for each in whole if each.is_a("policy", "PodDisruptionBudget")]
    for workload in workloads(whole):
        if workload.manifest.kind in {"Deployment", "StatefulSet"} and not any(
            budget.namespace == workload.manifest.namespace
            and _selects(at(budget.value, "spec", "selector"), workload)
            for budget in budgets
        ):
            yield workload.manifest, (), "no PodDisruptionBudget selects its pods"


def duplicate(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find objects that are there twice: which of them holds is chance."""
    seen: dict[tuple[str, ...], Manifest] = {}
    for each in whole:
        key = each.group, each.kind, each.namespace, each.name
        if not each.name:
            continue
        if key in seen:
            yield each, (), f"there is one of that name already, in {seen[key].file}"
        seen.setdefault(key, each)


def _settings(container: Container) -> Iterator[tuple[Pointer, str, str]]:
    """Give what a container is told: where, its name if it has one, and the value."""
    for way, variable in objects(container.value, "env"):
        yield (*way, "value"), text(variable.get("name")), text(variable.get("value"))
    for key in ("command", "args"):
        words = at(container.value, key)
        for number, word in enumerate(words if isinstance(words, list) else []):
            yield (key, number), "", text(word)


def _is_secret(name: str, value: str) -> bool:
    if not value or re.fullmatch(r"\$\([A-Za-z0-9_]+\)", value):  # a reference to another variable
        return False
    is_setting = value.lower() in {"true", "false"} or value.startswith("/")
    return bool(SECRET_VALUE.search(value) or (SECRET_NAME.search(name) and not is_setting))


def _denied(policy: Manifest) -> set[str]:
    """Give the directions that a policy denies to all pods of its namespace."""
    spec: Any = policy.value.get("spec")
    if not isinstance(spec, dict) or not _is_for_all(policy):
        return set()
    default = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    types = spec.get("policyTypes") or default
    return {each for each in BOTH if isinstance(types, list) and each in types and not spec.get(each.lower())}


def _is_for_all(policy: Manifest) -> bool:
    selector = at(policy.value, "spec", "podSelector")
    return not (selector and (at(selector, "matchLabels") or at(selector, "matchExpressions")))


def _is_open(policy: Manifest, way: str) -> bool:
    rules = at(policy.value, "spec", way.lower())
    return isinstance(rules, list) and {} in rules


def _selects(selector: Any, workload: Workload) -> bool:
    """Say whether a label selector fits the pods of a workload."""
    labels = workload.labels
    wanted = at(selector, "matchLabels")
    if isinstance(wanted, dict) and any(labels.get(name) != value for name, value in wanted.items()):
        return False
    for _, expression in objects(selector, "matchExpressions"):
        key, values = text(expression.get("key")), expression.get("values")
        values = values if isinstance(values, list) else []
        fits = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not fits.get(text(expression.get("operator")), False):
            return False
    return isinstance(selector, dict)
