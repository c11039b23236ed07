"""What keeps an Application's pods from running. Like every cause it explains a verdict and decides none."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from streams.reports.argocd.application import MAX_BYTES, Application, Status, Text, Tolerant
from streams.reports.argocd.case import evidence
from streams.reports.argocd.report import Evidence
from streams.reports.argocd.source import NAME, ApplicationSource, KubectlSource, ReadError

# How Argo CD names the cluster that it runs in itself, which is the one its Applications are read from.
HERE = ("https://kubernetes.default.svc", "in-cluster")
MOST_PODS = 20


@dataclass(frozen=True, slots=True)
class Clues:
    """What was found out about pods.

    Attributes:
        found: What is wrong with them.
        not_checked: What was not looked at, and why.
    """

    found: tuple[Evidence, ...] = ()
    not_checked: str = "pods, their events and logs: an Application does not hold them"


def clues(source: ApplicationSource, application: Application) -> Clues:
    """Look at the pods of an Application, if it is deployed where it was read."""
    destination = application.spec.destination
    is_here = destination.server in HERE or destination.name in HERE
    if not isinstance(source, KubectlSource):
        return Clues()
    if not is_here or not NAME.fullmatch(destination.namespace):
        return Clues(
            not_checked="pods, their events and logs: the Application is deployed to another cluster"
        )
    try:
        pods = _parsed(source.pods(destination.namespace))
    except ReadError as error:
        return Clues(not_checked=f"pods, their events and logs: {error}")
    owners = _owners(application)
    mine = [pod for pod in pods if _is_of(pod, owners)]
    found = [trouble for pod in mine for trouble in _trouble(pod)]
    more = f", and {len(found) - MOST_PODS:,} more troubles with them" if len(found) > MOST_PODS else ""
    return Clues(tuple(found[:MOST_PODS]), f"events and logs of pods{more}")


class _Waiting(Tolerant):
    reason: Text = ""
    message: Text = ""


class _Terminated(Tolerant):
    reason: Text = ""
    exit_code: int = 0


class _State(Tolerant):
    waiting: _Waiting | None = None
    terminated: _Terminated | None = None


class _Container(Tolerant):
    name: Text = ""
    state: _State = _State()
    last_state: _State = _State()


class _Condition(Tolerant):
    type: Text = ""
    status: Text = ""
    reason: Text = ""
    message: Text = ""


class _Owner(Tolerant):
    name: Text = ""


class _Metadata(Tolerant):
    name: Text = ""
    owner_references: tuple[_Owner, ...] = ()


class _PodStatus(Tolerant):
    init_container_statuses: tuple[_Container, ...] = ()
    container_statuses: tuple[_Container, ...] = ()
    conditions: tuple[_Condition, ...] = ()


class _Pod(Tolerant):
    metadata: _Metadata = _Metadata()
    status: _PodStatus = _PodStatus()


class _Pods(Tolerant):
    items: tuple[_Pod, ...]


def _parsed(text: bytes) -> tuple[_Pod, ...]:
    if len(text) > MAX_BYTES:
        raise ReadError(f"more than {MAX_BYTES:,} bytes of them", passing=False)
    try:
        return _Pods.model_validate(json.loads(text)).items
    except (ValidationError, ValueError, RecursionError):
        raise ReadError("kubectl printed no list of them", passing=True) from None


def _owners(application: Application) -> frozenset[str]:
    """Give the names of whatever may have made pods."""
    status = application.status or Status()
    namespace = application.spec.destination.namespace
    found = {one.name for one in status.resources if one.namespace in ("", namespace)}
    if status.operation_state is not None:
        # Hooks are not among the resources.
        results = status.operation_state.sync_result.resources
        found |= {one.name for one in results if one.namespace in ("", namespace)}
    return frozenset(found - {""})


def _is_of(pod: _Pod, owners: frozenset[str]) -> bool:
    """Tell whether a pod is an Application's: made by one of its resources, or by what that made."""
    made_by = [owner.name for owner in pod.metadata.owner_references]
    # A Deployment's pods belong to its ReplicaSet, a CronJob's to its Job: NAME-HASH.
    names = {pod.metadata.name, *made_by, *(name.rpartition("-")[0] for name in made_by)}
    return not owners.isdisjoint(names)


def _trouble(pod: _Pod) -> Iterator[Evidence]:
    path = f"pods/{pod.metadata.name}"
    for container in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        waiting, ended = container.state.waiting, container.last_state.terminated
        if waiting is None or waiting.reason in ("", "ContainerCreating", "PodInitializing"):
            continue
        before = f"; before, it ended with {ended.reason} ({ended.exit_code})" if ended is not None else ""
        yield evidence(f"{path}/{container.name}", f"{waiting.reason}: {waiting.message}{before}")
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            yield evidence(path, f"{condition.reason}: {condition.message}")
