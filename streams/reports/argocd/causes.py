"""The table of known causes. A cause explains a verdict to people; it never decides one."""

from collections.abc import Callable
from dataclasses import dataclass

from streams.reports.argocd import rules
from streams.reports.argocd.case import Case, Found
from streams.reports.argocd.report import Cause

MOST_EVIDENCE = 5


@dataclass(frozen=True, slots=True)
class Known:
    """A known cause.

    Attributes:
        name: What reports call it.
        rule: Tells whether it fits.
        suggestion: What a person can do; nothing here does it.
    """

    name: str
    rule: Callable[[Case], Found]
    suggestion: str


KNOWN: tuple[Known, ...] = (
    Known("deletion", rules.deletion, "find out who deletes the Application; nothing is synced any more"),
    Known(
        "invalid_spec",
        rules.invalid_spec,
        "mend the Application or its AppProject: project, destination, source have to exist and be allowed",
    ),
    Known(
        "repository_access",
        rules.repository_access,
        "check the repository's address and credentials in Argo CD, the revision, and the network",
    ),
    Known(
        "rendering",
        rules.rendering,
        "render the manifests as Argo CD does (kubectl kustomize, helm template) and mend what fails",
    ),
    Known(
        "comparison",
        rules.other_comparison,
        "read the condition's message: Argo CD cannot compare the cluster with Git",
    ),
    Known(
        "missing_crd",
        rules.missing_crd,
        "install the CustomResourceDefinition first; if the same sync brings it, set the sync option"
        " SkipDryRunOnMissingResource=true on the resource",
    ),
    Known(
        "immutable_field",
        rules.immutable_field,
        "the field cannot be changed in place: give the resource a new name, or let a person replace it (the"
        " sync option Replace=true deletes and creates)",
    ),
    Known(
        "not_permitted",
        rules.not_permitted,
        "the AppProject does not allow this kind or destination: allow it there, or take it out of Git",
    ),
    Known(
        "apply_failed",
        rules.apply_failed,
        "the cluster refused the resource: read the message and mend the manifest",
    ),
    Known(
        "hook_failed",
        rules.hook_failed,
        "read the logs of the hook's Job; the sync goes no further until it succeeds",
    ),
    Known(
        "image_pull",
        rules.image_pull,
        "check that the image and its tag exist, and that the pod may pull it (imagePullSecrets, network)",
    ),
    Known("crash_loop", rules.crash_loop, "read the container's last logs: kubectl logs --previous"),
    Known(
        "container_config",
        rules.container_config,
        "make the Secret or ConfigMap that the container refers to, or mend the reference",
    ),
    Known(
        "unschedulable",
        rules.unschedulable,
        "make room on a node, or ask for less: requests, node selectors, taints, volumes",
    ),
    Known("sync_wave", rules.sync_wave, "make the named resource healthy; later sync waves wait for it"),
    Known(
        "scaler_replicas",
        rules.scaler_replicas,
        "an autoscaler and Git both set replicas: drop the field from Git, or add ignoreDifferences on"
        " /spec/replicas with the sync option RespectIgnoreDifferences=true",
    ),
    Known(
        "scaled_object_degraded",
        rules.scaled_object_degraded,
        "look at the ScaledObject's conditions: Ready is False, or Fallback is True because the scaler cannot"
        " read its metric (for Kafka: address, credentials, group)",
    ),
    Known(
        "scaled_object_paused",
        rules.scaled_object_paused,
        "remove the ScaledObject's autoscaling.keda.sh/paused annotations if nobody wants them any more; one"
        " that stays paused without them is a known fault of KEDA",
    ),
    Known(
        "shared_resource",
        rules.shared_resource,
        "give the resource to one Application alone; if only a label clashes, let Argo CD track by annotation"
        " instead of by the instance label",
    ),
    Known(
        "needs_pruning",
        rules.needs_pruning,
        "let a person prune what is no longer in Git, or allow automated pruning",
    ),
    Known(
        "differs_after_sync",
        rules.differs_after_sync,
        "look at `argocd app diff`: often a normalized value (cpu: 1000m becomes 1), a default or a webhook;"
        " write it in Git as the cluster does, or ignore the field",
    ),
    Known(
        "sync_window",
        rules.sync_window,
        "a sync window of the AppProject forbids syncing now: wait for it to end",
    ),
    Known("manual_sync", rules.manual_sync, "automated sync is off: a person has to start the sync"),
    Known(
        "tracks_another",
        rules.tracks_another,
        "the Application is pinned to another commit, or to a chart's version, which is no commit: to deploy"
        " this one, its targetRevision has to change",
    ),
    Known(
        "superseded",
        rules.superseded,
        "the commit was deployed and replaced by another one: ask for that one instead",
    ),
    Known(
        "not_picked_up",
        rules.not_picked_up,
        "check that the commit is on the branch of targetRevision in the Application's repository, and that"
        " Argo CD's webhook and application controller work",
    ),
)


def causes(case: Case) -> tuple[Cause, ...]:
    """Give every known cause that fits, in the order of the table; none: it stays unknown."""
    found = []
    for known in KNOWN:
        if fits := known.rule(case):
            confidence, evidence = fits
            found.append(
                Cause(
                    rule=known.name,
                    confidence=confidence,
                    evidence=tuple(evidence[:MOST_EVIDENCE]),
                    suggestion=known.suggestion,
                )
            )
    return tuple(found)
