"""An Argo CD Application as far as its state matters; other fields are passed over, other kinds refused.

Everything in it comes from a cluster: texts are cut to a length, and none is ever taken as an instruction.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasGenerator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

MAX_BYTES = 32 * 1024 * 1024
MAX_TEXT = 2_000
MOST_NAMES = 5
LONGEST_NAME = 100
API_GROUP = "argoproj.io/"
FEWEST_KEYS = frozenset({"metadata", "spec"})


class NotAnApplicationError(Exception):
    """What was read is no single Application; the message says what it is instead."""


def _cut(text: str) -> str:
    # JSON may hold halves of characters, which nobody can write anywhere.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT:,} more characters)"


def _without_empty(value: Any) -> Any:
    """Leave out what Argo CD leaves out when it writes, wherever it is."""
    if isinstance(value, dict):
        return {name: kept for name, part in value.items() if (kept := _without_empty(part))}
    return [_without_empty(part) for part in value] if isinstance(value, list) else value


Text = Annotated[str, AfterValidator(_cut)]
Options = Annotated[dict[str, Any], AfterValidator(_without_empty)]


class Tolerant(BaseModel):
    """Part of what Kubernetes gives: unknown fields are passed over, null is absent."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=AliasGenerator(validation_alias=to_camel)
    )

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, value: Any) -> Any:
        """Take null for absent, as Kubernetes does."""
        if isinstance(value, dict):
            return {name: part for name, part in value.items() if part is not None}
        return value


class Metadata(Tolerant):
    """Who it is."""

    name: Text
    namespace: Text | None = None
    deletion_timestamp: AwareDatetime | None = None


class SourceSpec(Tolerant):
    """Where the wanted state comes from."""

    target_revision: Text = Field("", validation_alias="targetRevision")
    repository: Text = Field("", validation_alias="repoURL")
    path: Text = ""
    chart: Text = ""
    ref: Text = ""
    helm: Options = {}
    kustomize: Options = {}
    directory: Options = {}
    plugin: Options = {}


class Automated(Tolerant):
    """How Argo CD syncs by itself."""

    enabled: bool = True
    prune: bool = False


class SyncPolicy(Tolerant):
    """Whether it does, and how."""

    automated: Automated | None = None
    sync_options: tuple[Text, ...] = ()


class IgnoredDifference(Tolerant):
    """Fields that are not compared."""

    kind: Text = ""
    json_pointers: tuple[Text, ...] = ()
    jq_path_expressions: tuple[Text, ...] = ()


class Destination(Tolerant):
    """Where it is to be."""

    server: Text = ""
    name: Text = ""
    namespace: Text = ""


class Wanted(Tolerant):
    """What is to be deployed, and where."""

    destination: Destination = Destination()
    source: SourceSpec | None = None
    sources: tuple[SourceSpec, ...] = ()

    @property
    def all_sources(self) -> tuple[SourceSpec, ...]:
        """One source, or several."""
        return self.sources or ((self.source,) if self.source is not None else ())


class Spec(Wanted):
    """What is wanted, and how it is to come about."""

    source_hydrator: dict[str, Any] | None = None
    sync_policy: SyncPolicy = SyncPolicy()
    ignore_differences: tuple[IgnoredDifference, ...] = ()


class Revisions(Tolerant):
    """A revision, or one for each of several sources."""

    revision: Text = ""
    revisions: tuple[Text, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every revision that is named."""
        return self.revisions or ((self.revision,) if self.revision else ())


class SyncStatus(Revisions):
    """What the comparison of cluster and Git came to."""

    status: Text = "Unknown"
    compared_to: Wanted | None = None


class Health(Tolerant):
    """How something is."""

    status: Text = ""
    message: Text = ""


class ResourceState(Tolerant):
    """One resource of the application."""

    group: Text = ""
    kind: Text = ""
    namespace: Text = ""
    name: Text = ""
    status: Text = ""
    health: Health | None = None
    requires_pruning: bool = False


class ResourceResult(Tolerant):
    """What a sync did with one resource, or what became of a hook."""

    group: Text = ""
    kind: Text = ""
    namespace: Text = ""
    name: Text = ""
    status: Text = ""
    message: Text = ""
    hook_type: Text = ""
    hook_phase: Text = ""


class SyncResult(Revisions):
    """What a sync did."""

    resources: tuple[ResourceResult, ...] = ()


class SyncOrder(Revisions):
    """What a sync was told."""

    dry_run: bool = False
    auto_heal_attempts_count: int = 0


class Operation(Tolerant):
    """What Argo CD was told to do."""

    sync: SyncOrder = SyncOrder()


class OperationState(Tolerant):
    """What Argo CD is doing, or did last."""

    operation: Operation = Operation()
    phase: Text = ""
    message: Text = ""
    sync_result: SyncResult = SyncResult()
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    retry_count: int = 0

    @property
    def revisions(self) -> tuple[str, ...]:
        """What was synced, else what should have been."""
        return self.sync_result.all or self.operation.sync.all


class ApplicationCondition(Tolerant):
    """Something Argo CD wants to be known."""

    type: Text = ""
    message: Text = ""
    last_transition_time: AwareDatetime | None = None


class Deployed(Revisions):
    """An earlier sync."""

    deployed_at: AwareDatetime | None = None


class Status(Tolerant):
    """What is."""

    sync: SyncStatus = SyncStatus()
    health: Health = Health()
    operation_state: OperationState | None = None
    reconciled_at: AwareDatetime | None = None
    conditions: tuple[ApplicationCondition, ...] = ()
    resources: tuple[ResourceState, ...] = ()
    history: tuple[Deployed, ...] = ()
    resource_health_source: Text = ""


class Application(Tolerant):
    """The whole of it."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status | None = None
    operation: Operation | None = None


def joined(texts: Iterable[str]) -> str:
    """Name some things in one line, none twice, and no more than a line takes."""
    unique = list(dict.fromkeys(texts))
    shown = ", ".join(text[:LONGEST_NAME] for text in unique[:MOST_NAMES])
    return shown if len(unique) <= MOST_NAMES else f"{shown} and {len(unique) - MOST_NAMES:,} more"


def stamp(at: datetime | None) -> str:
    """Write a time as Argo CD does."""
    return "never" if at is None else at.isoformat().replace("+00:00", "Z")


def parse(text: bytes) -> Application:
    """Read an Application from JSON.

    Raises:
        NotAnApplicationError: If it is too large, no JSON, or something else.
    """
    if len(text) > MAX_BYTES:
        raise NotAnApplicationError(f"more than {MAX_BYTES:,} bytes, which no Application has")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAnApplicationError(f"no JSON: {_cut(str(error))}") from None
    _refuse_other_kinds(found)
    try:
        return Application.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise NotAnApplicationError(
            f"not an Application as Argo CD writes it: {where}: {first['msg']}"
        ) from None


def _refuse_other_kinds(found: object) -> None:
    if not isinstance(found, dict):
        raise NotAnApplicationError(f"a JSON {type(found).__name__} instead of an Application")
    kind, version = found.get("kind"), found.get("apiVersion")
    if isinstance(kind, str) and kind.endswith("List"):
        raise NotAnApplicationError(
            "a list; give one Application, as `kubectl get application NAME -o json` does"
        )
    # `argocd app get -o json` of some versions leaves both out.
    if kind not in (None, "Application"):
        raise NotAnApplicationError(f"of kind {_cut(str(kind))} instead of Application")
    if version is not None and not str(version).startswith(API_GROUP):
        raise NotAnApplicationError(f"an Application of {_cut(str(version))}, not of Argo CD ({API_GROUP})")
    if not found.keys() >= FEWEST_KEYS:
        raise NotAnApplicationError("an object without metadata and spec, so no Application")
