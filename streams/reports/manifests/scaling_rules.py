"""Rules about who decides how many pods there are: KEDA, by the lag of the agent that the pods run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.manifest import Manifest, at, objects, text
from streams.reports.manifests.workload import AGENT, APP, INPUTS, Workload, workloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.reports.manifests.manifest import Pointer, Violation

KEDA: Final = "keda.sh"
TARGET: Final = ("spec", "scaleTargetRef")
KEDAS_MAXIMUM: Final = 100
ONLY: Final = "CALLBOARD_ONLY"
PARTITIONS: Final = "CALLBOARD_PARTITIONS"
PREFIX: Final = "CALLBOARD_TOPIC_PREFIX"
DEFAULT_PARTITIONS: Final = 6


def replicas(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find numbers of pods that Git and an autoscaler both want to say."""
    for scaler in whole:
        if not (scaler.is_a(KEDA, "ScaledObject") or scaler.is_a("autoscaling", "HorizontalPodAutoscaler")):
            continue
        target = _target(scaler, whole)
        if target is not None and at(target.value, "spec", "replicas") is not None:
            said = (
                f"{scaler.kind} {scaler.name} decides how many pods there are: each deployment would undo it"
            )
            yield target, ("spec", "replicas"), said


def scale_target(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find autoscalers of something that is not there."""
    for scaled in _scaled(whole):
        if _target(scaled, whole) is None:
            kind, name = _target_name(scaled)
            yield scaled, TARGET, f"there is no {kind} {name} among these objects"


def maximum(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find more pods than there are partitions: those beyond get nothing to do."""
    for scaled in _scaled(whole):
        most = at(scaled.value, "spec", "maxReplicaCount")
        most = KEDAS_MAXIMUM if most is None else most
        for _, each in _kafka_triggers(scaled):
            topic = text(at(each, "metadata", "topic"))
            partitions, known_from = _partitions(topic, scaled, whole)
            if isinstance(most, int) and partitions is not None and most > partitions:
                said = (
                    f"up to {most} pods, and {known_from} has {partitions} partitions: the others would idle"
                )
                yield scaled, ("spec", "maxReplicaCount"), said
                break


def trigger(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find agents that are scaled by the lag of something else, or not by all that they read."""
    by_object = {id(workload.manifest): workload for workload in workloads(whole)}
    for scaled in _scaled(whole):
        target = _target(scaled, whole)
        workload = by_object.get(id(target))
        if workload is not None and _kafka_triggers(scaled) and workload.runs_agents(whole):
            yield from _disagreements(scaled, workload, whole)


def _disagreements(scaled: Manifest, workload: Workload, whole: Sequence[Manifest]) -> Iterator[Violation]:
    app, agents = workload.annotation(APP), workload.names(AGENT)
    if not app or not agents:
        missing = " and ".join(name for name, value in ((APP, app), (AGENT, agents)) if not value)
        said = f"annotation {missing} is missing: nobody can tell whose lag {scaled.name} has to look at"
        yield workload.manifest, ("metadata", "annotations"), said
        return
    only = [name.strip() for name in (workload.setting(ONLY, whole) or "").split(",") if name.strip()]
    if only and set(only) != set(agents):
        said = f"annotation {AGENT} says {', '.join(agents)}, and {ONLY} says {', '.join(only)}"
        yield workload.manifest, ("metadata", "annotations"), said
    prefix = workload.setting(PREFIX, whole) or ""
    groups = {f"{app}.{agent}" for agent in agents}
    topics = {f"{prefix}tasks.{agent}" for agent in agents} | set(workload.names(INPUTS))
    seen_groups: set[str] = set()
    seen_topics: set[str] = set()
    for way, each in _kafka_triggers(scaled):
        group, topic = text(at(each, "metadata", "consumerGroup")), text(at(each, "metadata", "topic"))
        if group not in groups:
            said = f"consumerGroup is {group!r}; the pods are in {_listed(groups)}"
            yield scaled, (*way, "metadata", "consumerGroup"), said
        if topic and topic not in topics:
            said = f"topic is {topic!r}; the pods read {_listed(topics)} ({INPUTS} adds to their tasks)"
            yield scaled, (*way, "metadata", "topic"), said
        seen_groups.add(group)
        seen_topics |= {topic} if topic else topics  # without a topic: all that the group reads
    for what, left in (("consumer group", groups - seen_groups), ("topic", topics - seen_topics)):
        if left:
            yield scaled, ("spec", "triggers"), f"no trigger looks at {what} {_listed(left)}"


def _scaled(whole: Sequence[Manifest]) -> list[Manifest]:
    return [each for each in whole if each.is_a(KEDA, "ScaledObject")]


def _kafka_triggers(scaled: Manifest) -> list[tuple[Pointer, dict[str, Any]]]:
    kinds = {"kafka", "apache-kafka"}
    return [
        (way, each)
        for way, each in objects(scaled.value, "spec", "triggers")
        if text(each.get("type")) in kinds
    ]


def _target_name(scaler: Manifest) -> tuple[str, str]:
    reference = at(scaler.value, *TARGET)
    return text(at(reference, "kind")) or "Deployment", text(at(reference, "name")) or "?"


def _target(scaler: Manifest, whole: Sequence[Manifest]) -> Manifest | None:
    wanted = (*_target_name(scaler), scaler.namespace)
    return next((each for each in whole if (each.kind, each.name, each.namespace) == wanted), None)


def _partitions(topic: str, scaled: Manifest, whole: Sequence[Manifest]) -> tuple[int | None, str]:
    """Give how many partitions there are to share, as far as these objects say."""
    for each in whole:
        named = text(at(each.value, "spec", "topicName")) or each.name
        if each.is_a("kafka.strimzi.io", "KafkaTopic") and named == topic:
            count = at(each.value, "spec", "partitions")
            return (count if isinstance(count, int) else None), f"KafkaTopic {topic}"
    target = _target(scaled, whole)
    workload = next((each for each in workloads(whole) if each.manifest is target), None)
    if workload is None or not workload.runs_agents(whole):
        return None, ""
    given = workload.setting(PARTITIONS, whole) or str(DEFAULT_PARTITIONS)
    return (int(given) if given.isdecimal() else None), f"{PARTITIONS}={given}: what it reads"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
