"""One rule for each known cause: whether it fits what was read, how surely, and what shows it."""

import re
from datetime import timedelta

from streams.reports.argocd.application import joined, stamp
from streams.reports.argocd.case import (
    Case,
    Found,
    conditions,
    evidence,
    health_of,
    left_over,
    messages_with,
    named,
    or_none,
    out_of_sync,
    results,
)
from streams.reports.argocd.judgement import POLL, pinned_elsewhere
from streams.reports.argocd.revision import is_commit

# A sync wave that has not become healthy by then rarely does.
LONG = timedelta(minutes=10)
SCALED = ("Deployment", "StatefulSet", "ReplicaSet", "Rollout")

REPOSITORY = re.compile(
    r"authentication required|authorization failed|repository not found|failed to list refs|unknown revision"
    r"|unable to (access|resolve)|could not read from remote|permission denied|access denied|handshake failed"
    r"|x509:|connection refused|no such host|i/o timeout|failed to (fetch|clone|get git client)",
    re.IGNORECASE,
)
RENDERING = re.compile(
    r"failed to generate manifest|manifest generation error|helm template|kustomize build"
    r"|app path does not exist|failed to unmarshal|error converting yaml|plugin",
    re.IGNORECASE,
)
CRD = re.compile(
    r"crd is installed|no matches for kind|could not find the requested resource|resource mapping not found"
    r"|the kubernetes api could not find",
    re.IGNORECASE,
)
IMMUTABLE = re.compile(r"field is immutable|updates to statefulset spec for fields other than", re.IGNORECASE)
IMAGE = re.compile(
    r"imagepullbackoff|errimagepull|back-off pulling image|invalidimagename|failed to pull image",
    re.IGNORECASE,
)
CRASH = re.compile(r"crashloopbackoff|back-off (\S+ )?restarting failed container", re.IGNORECASE)
CONFIG = re.compile(r"CreateContainerConfigError|CreateContainerError")
SCHEDULE = re.compile(r"Unschedulable")
PERMITTED = re.compile(r"is not permitted in project", re.IGNORECASE)
WAVE = re.compile(r"waiting for healthy state of (\S{1,300})")
WINDOW = re.compile(r"blocked by (a )?sync window", re.IGNORECASE)


def deletion(case: Case) -> Found:
    """It is being deleted."""
    at = case.application.metadata.deletion_timestamp
    return ("certain", [evidence("metadata.deletionTimestamp", stamp(at))]) if at else None


def invalid_spec(case: Case) -> Found:
    """What the Application says cannot be."""
    return or_none("certain", conditions(case, "InvalidSpecError"))


def repository_access(case: Case) -> Found:
    """Git cannot be read."""
    return or_none(
        "likely", (item for item in conditions(case, "ComparisonError") if REPOSITORY.search(item.value))
    )


def rendering(case: Case) -> Found:
    """Git can be read, but gives no manifests."""
    fitting = (
        item
        for item in conditions(case, "ComparisonError")
        # What cannot be fetched cannot be rendered either, and says both.
        if RENDERING.search(item.value) and not REPOSITORY.search(item.value)
    )
    return or_none("likely", fitting)


def other_comparison(case: Case) -> Found:
    """Cluster and Git cannot be compared, and it is none of these."""
    if repository_access(case) or rendering(case):
        return None
    return or_none("possible", conditions(case, "ComparisonError"))


def missing_crd(case: Case) -> Found:
    """The cluster does not know a kind."""
    return or_none("likely", messages_with(case, CRD))


def immutable_field(case: Case) -> Found:
    """A field cannot be changed in place."""
    return or_none("certain", messages_with(case, IMMUTABLE))


def not_permitted(case: Case) -> Found:
    """The project forbids a resource."""
    return or_none("certain", messages_with(case, PERMITTED))


def apply_failed(case: Case) -> Found:
    """The cluster refused a resource, and it is none of the reasons above."""
    if missing_crd(case) or immutable_field(case) or not_permitted(case):
        return None
    return or_none(
        "certain",
        (
            evidence(
                f"status.operationState.syncResult.resources[{index}].message",
                f"{result.kind}/{result.name}: {result.message}",
            )
            for index, result in enumerate(results(case))
            if result.status == "SyncFailed" and not result.hook_type
        ),
    )


def hook_failed(case: Case) -> Found:
    """A hook of the sync failed."""
    return or_none(
        "certain",
        (
            evidence(
                f"status.operationState.syncResult.resources[{index}]",
                f"{result.hook_type} hook {result.kind}/{result.name} {result.hook_phase}: {result.message}",
            )
            for index, result in enumerate(results(case))
            if result.hook_type and result.hook_phase in ("Failed", "Error")
        ),
    )


def image_pull(case: Case) -> Found:
    """A container's image does not come."""
    return or_none("likely", messages_with(case, IMAGE))


def crash_loop(case: Case) -> Found:
    """A container ends again and again."""
    return or_none("likely", messages_with(case, CRASH))


def container_config(case: Case) -> Found:
    """A container cannot be made."""
    return or_none("certain", messages_with(case, CONFIG))


def unschedulable(case: Case) -> Found:
    """No node takes a pod."""
    return or_none("certain", messages_with(case, SCHEDULE))


def sync_wave(case: Case) -> Found:
    """The sync waits for an earlier wave."""
    state = case.status.operation_state
    if state is None or state.phase not in ("Running", "Terminating") or not WAVE.search(state.message):
        return None
    message = evidence("status.operationState.message", state.message)
    if state.started_at is None or case.question.now - state.started_at < LONG:
        return "possible", [message]
    return "likely", [message, evidence("status.operationState.startedAt", stamp(state.started_at))]


def scaler_replicas(case: Case) -> Found:
    """An autoscaler and Git both say how many replicas there are."""
    scalers = [
        evidence(f"status.resources[{index}]", named(resource))
        for index, resource in enumerate(case.status.resources)
        if resource.kind in ("ScaledObject", "HorizontalPodAutoscaler")
    ]
    differing = [
        evidence(f"status.resources[{index}]", f"{named(resource)} OutOfSync")
        for index, resource in out_of_sync(case)
        if resource.kind in SCALED
    ]
    ignored = [pointer for item in case.application.spec.ignore_differences for pointer in item.json_pointers]
    if not scalers or not differing or not case.has_synced or "/spec/replicas" in ignored:
        return None
    state = case.status.operation_state
    healed = state.operation.sync.auto_heal_attempts_count if state is not None else 0
    if not healed:
        return "possible", differing + scalers
    count = evidence("status.operationState.operation.sync.autoHealAttemptsCount", str(healed))
    return "likely", [count, *differing, *scalers]


def scaled_object_degraded(case: Case) -> Found:
    """KEDA cannot scale."""
    return or_none("certain", health_of(case, "ScaledObject", "Degraded"))


def scaled_object_paused(case: Case) -> Found:
    """KEDA was told not to scale."""
    return or_none("certain", health_of(case, "ScaledObject", "Suspended"))


def shared_resource(case: Case) -> Found:
    """A resource belongs to two applications, or is there twice."""
    found = list(conditions(case, "SharedResourceWarning", "RepeatedResourceWarning"))
    is_out_of_sync = any(True for _ in out_of_sync(case))
    return or_none("likely" if is_out_of_sync else "possible", found)


def differs_after_sync(case: Case) -> Found:
    """The cluster changes what was synced."""
    if not (case.is_expected and case.has_synced) or scaler_replicas(case) or needs_pruning(case):
        return None
    left = {index for index, _ in left_over(case)}
    return or_none(
        "possible",
        (
            evidence(f"status.resources[{index}]", f"{named(resource)} OutOfSync")
            for index, resource in out_of_sync(case)
            if index not in left
        ),
    )


def needs_pruning(case: Case) -> Found:
    """Only what is no longer in Git is left over."""
    differing, left = list(out_of_sync(case)), left_over(case)
    policy = case.application.spec.sync_policy.automated
    if len(left) < len(differing):
        return None
    if policy is not None and policy.prune:
        return None
    return or_none(
        "likely",
        (
            evidence(f"status.resources[{index}]", f"{named(resource)} is no longer in Git")
            for index, resource in left
        ),
    )


def sync_window(case: Case) -> Found:
    """Syncing is not allowed now."""
    return or_none("likely", messages_with(case, WINDOW))


def manual_sync(case: Case) -> Found:
    """Nobody started a sync, and Argo CD does not by itself."""
    policy = case.application.spec.sync_policy.automated
    state = case.status.operation_state
    is_running = case.application.operation is not None or (state is not None and state.phase == "Running")
    if case.status.sync.status != "OutOfSync" or is_running or (policy is not None and policy.enabled):
        return None
    seen = "absent" if policy is None else "enabled: false"
    return "certain", [evidence("spec.syncPolicy.automated", seen)]


def tracks_another(case: Case) -> Found:
    """Another commit is wanted, or a chart's version."""
    return or_none(
        "certain",
        (
            evidence("spec.source.targetRevision", f"{source.chart} {source.target_revision}".strip())
            for source in pinned_elsewhere(case.application, case.question.expected)
        ),
    )


def superseded(case: Case) -> Found:
    """Another commit came after it."""
    if case.is_expected:
        return None
    expected, status = case.question.expected, case.status
    deployed = [index for index, entry in enumerate(status.history) if expected.among(entry.all)]
    if deployed and deployed[-1] < len(status.history) - 1:
        return "likely", [
            evidence(f"status.history[{index}]", f"{joined(entry.all)} deployed {stamp(entry.deployed_at)}")
            for index, entry in enumerate(status.history)
            if index in (deployed[-1], len(status.history) - 1)
        ]
    state, at = status.operation_state, status.reconciled_at
    if state is None or not expected.among(state.revisions) or state.finished_at is None or at is None:
        return None
    if at < state.finished_at or not any(map(is_commit, status.sync.all)):
        return None
    return "likely", [
        evidence(
            "status.operationState", f"{joined(state.revisions)} {state.phase} {stamp(state.finished_at)}"
        ),
        evidence("status.sync", f"{joined(status.sync.all)} compared {stamp(at)}"),
    ]


def not_picked_up(case: Case) -> Found:
    """Argo CD had time enough to see it, and did not."""
    if case.is_expected or case.question.now - case.since < POLL:
        return None
    if tracks_another(case) or superseded(case) or list(conditions(case, "ComparisonError")):
        return None
    at = case.status.reconciled_at
    pushed = case.question.pushed_at
    sources = case.application.spec.all_sources
    found = [
        evidence("status.sync.revision", joined(case.status.sync.all) or "none"),
        evidence("status.reconciledAt", stamp(at)),
        *(evidence("spec.source.targetRevision", source.target_revision or "HEAD") for source in sources),
    ]
    has_looked = at is not None and pushed is not None and at > pushed
    return ("likely" if has_looked else "possible"), found
