"""The table of rules: what each looks for, why, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from streams.reports.manifests import pod_rules, scaling_rules, set_rules
from streams.reports.manifests.workload import AGENT, APP, DEADLINE, INPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streams.reports.manifests.manifest import Manifest, Violation
    from streams.reports.manifests.report import Severity


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Args:
        id: What findings and `--skip` call it.
        reason: Why it matters, in one line.
        fix: What to do about it.
        broken: Finds what breaks it among objects that are deployed together; none: the check itself does.
        severity: Whether breaking it fails the check.
    """

    id: str
    reason: str
    fix: str
    broken: Callable[[Sequence[Manifest]], Iterator[Violation]] | None = None
    severity: Severity = "error"


YAML: Final = "yaml"
OBJECT: Final = "object"
SCHEMA: Final = "schema"
NO_SCHEMA: Final = "no-schema"
BUILD: Final = "build"

RULES: Final = (
    Rule(YAML, "what cannot be read cannot be deployed", "mend the YAML"),
    Rule(OBJECT, "an object needs apiVersion, kind and a name", "add what is missing"),
    Rule(SCHEMA, "the API server refuses the object, or drops the field", "see the kind's documentation"),
    Rule(
        NO_SCHEMA,
        "the version was removed, or nobody here knows the kind",
        "use a version that is served, or give the file of its CustomResourceDefinition as well",
    ),
    Rule(BUILD, "an overlay that cannot be rendered cannot be deployed", "see `kubectl kustomize FOLDER`"),
    Rule(
        "image-tag",
        "what runs changes without a commit, and differs between nodes",
        "name a version, better a digest",
        pod_rules.image_tag,
    ),
    Rule(
        "probes",
        "a container that hangs stays, and one that is not ready gets requests",
        "add livenessProbe and readinessProbe",
        pod_rules.probes,
    ),
    Rule(
        "resources",
        "a node is overbooked, and a leak takes its neighbors along",
        "set requests.cpu, requests.memory and limits.memory",
        pod_rules.resources,
    ),
    Rule(
        "run-as-non-root",
        "root in a container is root on the node after one kernel fault",
        "securityContext.runAsNonRoot: true, and an image with a user",
        pod_rules.run_as_non_root,
    ),
    Rule(
        "read-only-root",
        "an intruder can change the program",
        "securityContext.readOnlyRootFilesystem: true, and an emptyDir where files are written",
        pod_rules.read_only_root,
    ),
    Rule(
        "privilege-escalation",
        "a setuid program makes root of anybody",
        "securityContext.allowPrivilegeEscalation: false",
        pod_rules.privilege_escalation,
    ),
    Rule(
        "capabilities",
        "nothing an agent does needs them",
        "securityContext.capabilities.drop: [ALL], and no add",
        pod_rules.capabilities,
    ),
    Rule(
        "seccomp",
        "most kernel faults are in calls that no agent makes",
        "securityContext.seccompProfile.type: RuntimeDefault",
        pod_rules.seccomp,
    ),
    Rule(
        "service-account-token",
        "whoever gets into the pod can ask the API server",
        "automountServiceAccountToken: false on the pod or its ServiceAccount",
        pod_rules.service_account_token,
    ),
    Rule(
        "host-access",
        "a pod that shares its node's files, network or processes is not contained",
        "leave out hostPath, hostPort, hostNetwork, hostPID, hostIPC and privileged",
        pod_rules.host_access,
    ),
    Rule(
        "grace-period",
        "an agent is killed in the middle of a call that is paid already",
        f"terminationGracePeriodSeconds >= the longer of {DEADLINE} (annotation) and {pod_rules.DRAIN},"
        f" plus {pod_rules.COMMIT_MARGIN} s",
        pod_rules.grace_period,
    ),
    Rule(
        "replicas",
        "each deployment undoes what the autoscaler decided",
        "leave spec.replicas out",
        scaling_rules.replicas,
    ),
    Rule("scale-target", "nothing is scaled", "name an object that is there", scaling_rules.scale_target),
    Rule(
        "max-replicas",
        "a pod without a partition has nothing to do",
        "maxReplicaCount at most the partitions of what is read",
        scaling_rules.maximum,
    ),
    Rule(
        "trigger",
        "pods come and go by somebody else's lag",
        f"consumerGroup APP.AGENT and a topic that the agent reads; annotations {APP}, {AGENT}, {INPUTS}",
        scaling_rules.trigger,
    ),
    Rule(
        "network-policy",
        "every pod may be reached, and reach everyone",
        "a NetworkPolicy with podSelector {}, policyTypes [Ingress, Egress] and no rules; then one per need",
        set_rules.network_policy,
    ),
    Rule(
        "secret",
        "everybody who reads the repository has it, for ever",
        "keep it elsewhere, and refer to it",
        set_rules.secret,
    ),
    Rule(
        "literal-secret",
        "everybody who reads the repository has it, for ever",
        "valueFrom.secretKeyRef, or a mounted Secret",
        set_rules.literal_secret,
    ),
    Rule(
        "disruption-budget",
        "a drained node may take all pods away at once",
        "a PodDisruptionBudget whose selector fits the pods",
        set_rules.disruption_budget,
        "warning",
    ),
    Rule(
        "duplicate",
        "which of two holds is chance",
        "keep one of them; folders that are deployed apart are given one by one",
        set_rules.duplicate,
    ),
)
BY_ID: Final = {rule.id: rule for rule in RULES}
