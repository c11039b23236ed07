"""What `callboard validate-manifests` reports, as types; `schemas/reports/manifests.json` is made of them."""

from typing import Literal

from pydantic import ConfigDict, Field

from streams.reports.part import Part

Severity = Literal["error", "warning"]
Verdict = Literal["pass", "fail", "incomplete"]


class ObjectReference(Part):
    """Which object of Kubernetes something is about."""

    kind: str
    namespace: str | None = Field(default=None, description="null: it says none, or overlays differ")
    name: str


class Finding(Part):
    """One thing that is wrong."""

    rule: str = Field(description="id of the rule; `callboard validate-manifests --list-rules` explains each")
    severity: Severity = Field(description="an error fails the check, a warning does not")
    file: str = Field(description="where to mend it, as the path was given")
    overlays: tuple[str, ...] = Field(
        default=(), description="kustomizations in whose rendering it was found; none: in the file as it is"
    )
    object: ObjectReference | None = Field(default=None, description="null: the file as a whole")
    path: str = Field(default="", description="JSON pointer into the object; of an overlay: as rendered")
    message: str


class BrokenRule(Part):
    """Why a rule that was broken matters, and what to do."""

    id: str
    reason: str
    fix: str


class NotChecked(Part):
    """What nobody may believe to be fine because of this report."""

    what: str
    reason: str


class Counts(Part):
    """How much was looked at, and what came of it."""

    files: int = Field(description="files with objects of Kubernetes")
    overlays: int = Field(description="kustomizations that were rendered")
    objects: int = Field(description="objects in files, and again in each rendering they are part of")
    errors: int
    warnings: int


class Tool(Part):
    """What took part in the verdict."""

    name: str
    version: str


class ManifestsReport(Part):
    """What is wrong with manifests, what was not checked, and the verdict that follows from both."""

    model_config = ConfigDict(title="callboard.report.manifests.v1")

    verdict: Verdict = Field(
        description="fail: there is an error; incomplete: no error, but something was not checked, or there"
        " was nothing to check; pass: neither"
    )
    kubernetes: str | None = Field(description="version whose schemas were used; null: there were none")
    counts: Counts
    findings: tuple[Finding, ...] = Field(description="at most 1,000; `counts` has all")
    rules: tuple[BrokenRule, ...] = Field(description="those that findings name")
    not_checked: tuple[NotChecked, ...]
    passed_over: tuple[str, ...] = Field(
        description="files that hold no objects of Kubernetes; with a slash at the end: hidden folders and"
        " the like, which nobody looked into"
    )
    skipped_rules: tuple[str, ...] = Field(description="ids of rules that the caller asked to leave out")
    tools: tuple[Tool, ...]
