"""Whether the expected commit is deployed: decided by an Application's states alone, never by a message."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from streams.reports.argocd.application import (
    Application,
    OperationState,
    SourceSpec,
    Status,
    Wanted,
    joined,
    stamp,
)
from streams.reports.argocd.report import Check, Verdict
from streams.reports.argocd.revision import Expected, is_commit

# Argo CD polls Git every 120 s, and up to 60 s later so that not all applications do at once.
POLL = timedelta(seconds=180)
# What a rollout may pass through on its way to Healthy.
DEGRADED_PATIENCE = timedelta(seconds=60)

BLOCKING = ("ComparisonError", "InvalidSpecError", "UnknownError")
ENDED_BADLY = ("Failed", "Error")
ENDED = ("Succeeded", *ENDED_BADLY)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an Application.

    Attributes:
        expected: The commit.
        pushed_at: When it was pushed, if that is known.
        now: The time of the reading.
    """

    expected: Expected
    pushed_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one reading shows.

    Attributes:
        verdict: Never `timeout`, which needs waiting.
        reason: One sentence.
        checks: What the verdict `ok` needs, each with what it was told by.
        patience: How long a `failed` has to last before waiting for better is in vain.
    """

    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    patience: timedelta = timedelta()


def judge(application: Application, question: Question) -> Judgement:
    """Judge one reading."""
    status = application.status or Status()
    checks = tuple(_checks(application, status, question))
    if application.metadata.deletion_timestamp is not None:
        return Judgement("failed", "the Application is being deleted", checks)
    if all(check.met for check in checks):
        return Judgement(
            "ok", f"{status.sync.status} and {status.health.status} at the expected commit", checks
        )
    if failure := _failure(application, status, question, _met(checks)):
        reason, patience = failure
        return Judgement("failed", reason, checks, patience)
    if unknown := _unknown(application, status, _met(checks)):
        return Judgement("unknown", unknown, checks)
    missing = "; ".join(f"{_NAMES[check.name]}: {check.seen}" for check in checks if not check.met)
    return Judgement("progressing", f"not yet: {missing}", checks)


_NAMES = {
    "revision": "revision",
    "reconciled_after_push": "reconciled after the push",
    "compared_as_written": "compared as it is written now",
    "operation_succeeded": "operation",
    "compared_after_operation": "compared after the operation",
    "synced": "sync",
    "healthy": "health",
    "no_error_conditions": "error conditions",
}


def _met(checks: tuple[Check, ...]) -> dict[str, bool | None]:
    return {check.name: check.met for check in checks}


def _checks(application: Application, status: Status, question: Question) -> Iterator[Check]:
    seen = status.sync.all
    has_revision = question.expected.among(seen)
    yield Check(name="revision", met=has_revision, seen=joined(seen) or "none")
    yield _reconciled(status, question, has_revision=has_revision)
    yield _as_written(application, status.sync.compared_to)
    yield _operated(application, status.operation_state)
    yield _compared(status)
    yield Check(name="synced", met=status.sync.status == "Synced", seen=status.sync.status)
    yield Check(name="healthy", met=status.health.status == "Healthy", seen=status.health.status or "none")
    errors = [condition.type for condition in status.conditions if condition.type.endswith("Error")]
    yield Check(name="no_error_conditions", met=not errors, seen=joined(errors) or "none")


def _reconciled(status: Status, question: Question, *, has_revision: bool) -> Check:
    """Tell whether Argo CD compared with Git after the push.

    Without the time of the push, the commit itself shows it: nobody can compare with a commit that was not
    pushed yet.
    """
    at = status.reconciled_at
    if at is None:
        return Check(name="reconciled_after_push", met=None, seen="never reconciled")
    if question.pushed_at is not None:
        met = at > question.pushed_at
        seen = f"reconciled {stamp(at)}, pushed {stamp(question.pushed_at)}"
        return Check(name="reconciled_after_push", met=met, seen=seen)
    if has_revision:
        seen = f"reconciled {stamp(at)} with the commit itself"
        return Check(name="reconciled_after_push", met=True, seen=seen)
    return Check(
        name="reconciled_after_push", met=None, seen=f"reconciled {stamp(at)}, with another revision"
    )


def _as_written(application: Application, compared: Wanted | None) -> Check:
    """Tell whether the comparison was of what the Application says now; it may have been changed since."""
    if compared is None:
        return Check(name="compared_as_written", met=None, seen="not told")
    spec = application.spec
    is_same = {
        # Of a hydrated one, what is compared is made from the spec.
        "source": spec.source_hydrator is not None or spec.all_sources == compared.all_sources,
        "destination": spec.destination == compared.destination,
    }
    changed = " and ".join(name for name, same in is_same.items() if not same)
    seen = f"changed since: {changed}" if changed else "source and destination unchanged"
    return Check(name="compared_as_written", met=not changed, seen=seen)


def _operated(application: Application, state: OperationState | None) -> Check:
    if application.operation is not None:
        # It is removed when the operation ends; until the first reading of it, the state is the one before.
        phase = state.phase if state is not None else ""
        return Check(name="operation_succeeded", met=False, seen=f"requested; so far {phase or 'not begun'}")
    if state is None or not state.phase:
        return Check(name="operation_succeeded", met=None, seen="none so far")
    seen = f"{state.phase}, retry {state.retry_count}" if state.retry_count else state.phase
    return Check(name="operation_succeeded", met=state.phase == "Succeeded", seen=seen)


def _compared(status: Status) -> Check:
    """Tell whether sync and health were looked at after the operation; until then they are from before."""
    state = status.operation_state
    if state is None or (state.finished_at is None and state.phase not in ENDED):
        return Check(name="compared_after_operation", met=True, seen="no operation has ended")
    if state.operation.sync.dry_run:
        return Check(name="compared_after_operation", met=True, seen="the operation was a dry run")
    ended = state.finished_at
    if ended is None:
        return Check(
            name="compared_after_operation", met=None, seen="it is not told when the operation ended"
        )
    at = status.reconciled_at
    seen = f"ended {stamp(ended)}, compared {stamp(at)}"
    return Check(name="compared_after_operation", met=at is not None and at >= ended, seen=seen)


def _failure(
    application: Application, status: Status, question: Question, met: dict[str, bool | None]
) -> tuple[str, timedelta] | None:
    state = status.operation_state
    if application.operation is None and state is not None and _ended_badly(state, question, met):
        retried = f" after {state.retry_count} retries" if state.retry_count else ""
        return f"the operation for the expected commit ended as {state.phase}{retried}", timedelta()
    if pinned_elsewhere(application, question.expected) and not _is_fresh(question):
        return "the Application is pinned to another revision, and deploys nothing else", POLL
    if blocking := _blocking(status, question, met):
        return f"Argo CD reports {joined(blocking)}, and syncs nothing until that is mended", POLL
    is_settled = met["revision"] and met["reconciled_after_push"] and met["compared_after_operation"]
    if is_settled and met["operation_succeeded"] and status.health.status == "Degraded":
        return "the expected commit was synced and is Degraded", DEGRADED_PATIENCE
    return None


def pinned_elsewhere(application: Application, expected: Expected) -> tuple[SourceSpec, ...]:
    """Give the sources if none can ever be the expected commit: other commits, or versions of charts."""
    sources = application.spec.all_sources
    pinned = tuple(source for source in sources if source.chart or is_commit(source.target_revision))
    is_elsewhere = len(pinned) == len(sources) and not expected.among(
        (*(source.target_revision for source in pinned), *(application.status or Status()).sync.all)
    )
    return pinned if is_elsewhere else ()


def _is_fresh(question: Question) -> bool:
    """Tell whether what was pushed may still change the Application itself, as with an app of apps."""
    return question.pushed_at is not None and question.now - question.pushed_at < POLL


def _ended_badly(state: OperationState, question: Question, met: dict[str, bool | None]) -> bool:
    """Tell whether the expected commit's operation failed; Argo CD does not try the same one again."""
    if state.phase not in ENDED_BADLY or state.operation.sync.dry_run:
        return False
    commits = [revision for revision in state.revisions if is_commit(revision)]
    return question.expected.among(commits) if commits else bool(met["revision"])


def _blocking(status: Status, question: Question, met: dict[str, bool | None]) -> list[str]:
    """Give the conditions that keep the expected commit from being synced."""
    found = []
    for condition in status.conditions:
        is_after_push = question.pushed_at is None or any(
            at is not None and at > question.pushed_at
            for at in (condition.last_transition_time, status.reconciled_at)
        )
        # What a SyncError says is about the revision that was compared last.
        is_blocking = condition.type in BLOCKING or (condition.type == "SyncError" and met["revision"])
        if is_blocking and is_after_push:
            found.append(condition.type)
    return found


def _unknown(application: Application, status: Status, met: dict[str, bool | None]) -> str | None:
    if application.status is None or status.reconciled_at is None:
        return None  # just created: it may still come
    if "Unknown" in (status.sync.status, status.health.status):
        return f"Argo CD says sync {status.sync.status}, health {status.health.status}"
    if not (met["revision"] and met["synced"] and met["healthy"]) or application.operation is not None:
        return None
    state = status.operation_state
    if state is None or not state.phase:
        return "Synced and Healthy, but no operation is recorded that deployed it"
    if state.phase in ENDED_BADLY:
        revisions = joined(state.revisions) or "a revision that is not told"
        return (
            f"Synced and Healthy, but the last operation ended as {state.phase}, for {revisions};"
            " while it is Synced, Argo CD starts no other"
        )
    return None
