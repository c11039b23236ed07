"""Rules about one pod: what it may do on its node, and how it starts, is seen, and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.manifest import at, objects, text
from streams.reports.manifests.workload import DEADLINE, workloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.reports.manifests.manifest import Manifest, Violation
    from streams.reports.manifests.workload import Container, Workload


DRAIN: Final = "CALLBOARD_DRAIN_SECONDS"
DEFAULT_DRAIN: Final = 20.0
DEFAULT_GRACE: Final = 30
COMMIT_MARGIN: Final = 10
HOST_FIELDS: Final = ("hostNetwork", "hostPID", "hostIPC")


def image_tag(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find images whose tag moves, or that have none."""
    for workload, container in _containers(whole):
        image = text(container.value.get("image"))
        if not image or "@" in image:
            continue  # without an image: Kubernetes' own schema wants none either, the API server does
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in {"", "latest"}:
            said = "has no tag, so it is `latest`" if not tag else "moves"
            yield workload.manifest, (*container.way, "image"), f"image {image!r} of {container.name} {said}"


def probes(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find containers that run for good, and that nobody asks how they are."""
    for workload, container in _containers(whole):
        if workload.is_ending or container.is_initial:
            continue
        for probe in ("livenessProbe", "readinessProbe"):
            if not container.value.get(probe):
                yield workload.manifest, container.way, f"{container.name} has no {probe}"


def resources(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find containers that may take whatever there is."""
    for workload, container in _containers(whole):
        wanted = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
        missing = [".".join(way) for way in wanted if at(container.value, "resources", *way) is None]
        if missing:
            way = (*container.way, "resources")
            yield workload.manifest, way, f"{container.name} lacks {', '.join(missing)}"


def run_as_non_root(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find containers that may run as root."""
    for workload, container in _containers(whole):
        if _security(workload, container, "runAsNonRoot") is not True:
            yield (
                workload.manifest,
                container.way,
                f"{container.name} may run as root: runAsNonRoot is not true",
            )
        elif _security(workload, container, "runAsUser") == 0:
            yield (
                workload.manifest,
                container.way,
                f"{container.name} runs as user 0, and is not to run as root",
            )


def read_only_root(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find containers that can change their own program."""
    for workload, container in _containers(whole):
        if at(container.value, "securityContext", "readOnlyRootFilesystem") is not True:
            said = f"{container.name} can write to its root file system: readOnlyRootFilesystem is not true"
            yield workload.manifest, container.way, said


def privilege_escalation(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find containers that can become more than they are."""
    for workload, container in _containers(whole):
        if at(container.value, "securityContext", "allowPrivilegeEscalation") is not False:
            said = f"{container.name} can gain privileges: allowPrivilegeEscalation is not false"
            yield workload.manifest, container.way, said


def capabilities(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find containers that keep capabilities, or are given some."""
    for workload, container in _containers(whole):
        context = at(container.value, "securityContext", "capabilities")
        dropped, added = at(context, "drop"), at(context, "add")
        if not isinstance(dropped, list) or "ALL" not in dropped:
            yield workload.manifest, container.way, f"{container.name} keeps capabilities: drop has no ALL"
        if added:
            yield workload.manifest, container.way, f"{container.name} is given capabilities"


def seccomp(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find containers that may call all of the kernel."""
    for workload, container in _containers(whole):
        profile = _security(workload, container, "seccompProfile")
        if text(at(profile, "type")) not in {"RuntimeDefault", "Localhost"}:
            said = f"{container.name} may call all of the kernel: seccompProfile.type is not RuntimeDefault"
            yield workload.manifest, container.way, said


def service_account_token(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find pods that get a key to the API server."""
    without = {
        (each.namespace, each.name)
        for each in whole
        if each.is_a("", "ServiceAccount") and each.value.get("automountServiceAccountToken") is False
    }
    for workload in workloads(whole):
        mounted = workload.spec.get("automountServiceAccountToken")
        account = workload.manifest.namespace, text(workload.spec.get("serviceAccountName")) or "default"
        if mounted is True or (mounted is not False and account not in without):
            said = "its pods get a token for the API server: automountServiceAccountToken is not false"
            yield workload.manifest, workload.spec_way, said
        for way, volume in objects(workload.spec, "volumes"):
            for inner, source in objects(volume, "projected", "sources"):
                if "serviceAccountToken" in source and not at(source, "serviceAccountToken", "audience"):
                    said = (
                        "a volume holds a token for the API server: serviceAccountToken without an audience"
                    )
                    yield workload.manifest, (*workload.spec_way, *way, *inner), said


def host_access(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find pods that reach through to their node."""
    for workload in workloads(whole):
        for name in HOST_FIELDS:
            if workload.spec.get(name):
                yield workload.manifest, (*workload.spec_way, name), f"its pods share the node's: {name}"
        for way, volume in objects(workload.spec, "volumes"):
            if "hostPath" in volume:
                yield (
                    workload.manifest,
                    (*workload.spec_way, *way),
                    "a volume is a folder of the node: hostPath",
                )
        for container in workload.containers:
            if at(container.value, "securityContext", "privileged"):
                yield workload.manifest, container.way, f"{container.name} is privileged"
            for way, port in objects(container.value, "ports"):
                if port.get("hostPort"):
                    said = f"{container.name} takes a port of the node: hostPort"
                    yield workload.manifest, (*container.way, *way), said


def grace_period(whole: Sequence[Manifest]) -> Iterator[Violation]:
    """Find agents that are killed before what they work on can end."""
    for workload in workloads(whole):
        if not workload.runs_agents(whole):
            continue
        deadline, drain = _seconds(workload.annotation(DEADLINE)), _seconds(workload.setting(DRAIN, whole))
        if not deadline:
            said = f"annotation {DEADLINE} does not say how many seconds a run may take"
            yield workload.manifest, ("metadata", "annotations"), said
            continue
        is_set = "is" if drain is not None else "is not set here, so it is"
        drain = DEFAULT_DRAIN if drain is None else drain
        if drain < deadline:
            said = (
                f"{DRAIN} {is_set} {drain:g}: runs that may take {deadline:g} s get no more than that to end"
            )
            yield workload.manifest, workload.spec_way, said
        given = workload.spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
        needed = max(deadline, drain) + COMMIT_MARGIN
        if isinstance(given, int) and given < needed:
            said = f"pods are killed after {given} s, and may need {needed:g} s to end what they work on"
            yield workload.manifest, (*workload.spec_way, "terminationGracePeriodSeconds"), said


def _containers(whole: Sequence[Manifest]) -> Iterator[tuple[Workload, Container]]:
    for workload in workloads(whole):
        for container in workload.containers:
            yield workload, container


def _security(workload: Workload, container: Container, name: str) -> Any:
    """Give what holds for a container: what it says itself goes before what its pod says."""
    own = at(container.value, "securityContext", name)
    return own if own is not None else at(workload.spec, "securityContext", name)


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
