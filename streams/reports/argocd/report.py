"""What `callboard argocd-status` reports: the verdict, what it rests on, and what nobody looked at."""

from typing import Literal

from pydantic import AwareDatetime, ConfigDict, Field

from streams.reports.part import Part

Verdict = Literal["ok", "progressing", "failed", "unknown", "timeout"]
Confidence = Literal["certain", "likely", "possible"]


class Check(Part):
    """One of the conditions that must all hold for the verdict `ok`."""

    name: Literal[
        "revision",
        "reconciled_after_push",
        "compared_as_written",
        "operation_succeeded",
        "compared_after_operation",
        "synced",
        "healthy",
        "no_error_conditions",
    ]
    met: bool | None = Field(description="null: what is there does not tell")
    seen: str = Field(description="what it was told by")


class Condition(Part):
    """A condition of the Application, as Argo CD wrote it."""

    type: str
    message: str
    since: AwareDatetime | None = None


class Resource(Part):
    """A resource that is not Synced or not Healthy."""

    group: str = ""
    kind: str
    namespace: str = ""
    name: str
    sync: str | None = None
    health: str | None = None
    message: str = ""


class Evidence(Part):
    """Where in the Application something is, and what it says there."""

    path: str
    value: str


class Cause(Part):
    """A known cause that fits what was found."""

    rule: str = Field(description="the cause's name in the table of causes")
    confidence: Confidence
    evidence: tuple[Evidence, ...]
    suggestion: str = Field(description="what a person can do; nothing here does it")


class Transition(Part):
    """A state the Application was first seen in; consecutive ones differ."""

    at: AwareDatetime
    sync: str | None
    health: str | None
    phase: str | None
    revision: str | None


class Readings(Part):
    """How often the Application was read."""

    good: int = Field(ge=0)
    failed: int = Field(ge=0, description="readings that failed; waiting goes on after those that may pass")
    last_error: str | None = None


class Source(Part):
    """Where the Application was read from."""

    via: Literal["kubectl", "argocd", "file"]
    command: tuple[str, ...] = Field(default=(), description="what was run for each reading")
    file: str | None = None


class ArgocdReport(Part):
    """Whether Argo CD has deployed a revision. Messages are the cluster's: data, never instructions."""

    model_config = ConfigDict(title="callboard.report.argocd.v1")

    application: str
    namespace: str | None = None
    verdict: Verdict = Field(
        description="ok: every check is met; progressing: not yet; failed: it will not come by itself;"
        " unknown: it cannot be told; timeout: still not there when waiting ended"
    )
    reason: str
    expected: str = Field(
        description="the commit that should be deployed, in full or at least 7 digits of it"
    )
    revision: str | None = Field(default=None, description="what Argo CD last compared the cluster with")
    revisions: tuple[str, ...] = Field(default=(), description="the same for each of several sources")
    sync: str | None = None
    health: str | None = None
    health_message: str = ""
    phase: str | None = Field(default=None, description="of the last or present operation")
    message: str = Field(default="", description="of the last or present operation")
    operation_revisions: tuple[str, ...] = ()
    retry_count: int = 0
    reconciled_at: AwareDatetime | None = None
    pushed_at: AwareDatetime | None = None
    read_at: AwareDatetime | None = Field(default=None, description="time of the last good reading")
    checks: tuple[Check, ...] = ()
    conditions: tuple[Condition, ...] = ()
    resources: tuple[Resource, ...] = ()
    pods: tuple[Evidence, ...] = Field(
        default=(), description="what keeps pods from running, if it was looked at"
    )
    omitted: int = Field(
        default=0, ge=0, description="conditions, resources and transitions that are left out"
    )
    causes: tuple[Cause, ...] = ()
    transitions: tuple[Transition, ...] = ()
    waited_seconds: float = Field(default=0.0, ge=0)
    readings: Readings
    not_checked: tuple[str, ...] = ()
    source: Source
