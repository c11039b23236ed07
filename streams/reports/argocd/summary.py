"""The report of what was seen of an Application: the verdict, its causes, and what nobody looked at."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from streams.reports.argocd.application import Application, Status, stamp
from streams.reports.argocd.case import Case
from streams.reports.argocd.causes import causes
from streams.reports.argocd.judgement import Question
from streams.reports.argocd.pods import clues
from streams.reports.argocd.report import (
    ArgocdReport,
    Condition,
    Readings,
    Resource,
    Source,
    Verdict,
)
from streams.reports.argocd.source import ApplicationSource
from streams.reports.argocd.watch import Watched

MOST_LISTED = 100
# More than Argo CD's poll with its jitter, and the comparison itself.
STALE = timedelta(minutes=10)


def summary(seen: Watched, source: ApplicationSource, waited: float) -> ArgocdReport:
    """Make the report of what was seen; looks at the pods once if it did not end well.

    Args:
        seen: It.
        source: Where it was read.
        waited: For how many seconds.
    """
    order = seen.order
    verdict, reason = _verdict(seen)
    return ArgocdReport(
        application=order.application,
        verdict=verdict,
        reason=reason,
        expected=order.expected.text,
        pushed_at=order.pushed_at,
        read_at=seen.read_at,
        transitions=tuple(seen.transitions),
        waited_seconds=round(waited, 3) if order.wait is not None else 0.0,
        readings=Readings(good=seen.good, failed=seen.failed, last_error=seen.last_error),
        source=source.described,
        **_found(seen, source, verdict),
    )


def _found(seen: Watched, source: ApplicationSource, verdict: Verdict) -> dict[str, Any]:
    """Give what the last good reading showed."""
    order = seen.order
    if seen.application is None or seen.judgement is None or seen.read_at is None:
        return {
            "namespace": order.namespace,
            "not_checked": ("everything: the Application was never read",),
        }
    question = Question(order.expected, order.pushed_at, seen.read_at)
    status = seen.application.status or Status()
    looked = (
        clues(source, seen.application) if verdict != "ok" and status.health.status != "Healthy" else None
    )
    case = Case(
        seen.application, question, order.pushed_at or seen.began, looked.found if looked is not None else ()
    )
    return _shown(seen.application, seen.forgotten) | {
        "checks": seen.judgement.checks,
        "pods": looked.found if looked is not None else (),
        "causes": () if verdict == "ok" else causes(case),
        "not_checked": (
            *_not_checked(seen.application, question, source.described),
            *((looked.not_checked,) if looked is not None else ()),
        ),
    }


def _verdict(seen: Watched) -> tuple[Verdict, str]:
    if seen.judgement is None or (seen.last_failed and seen.order.wait is None):
        return "unknown", seen.last_error or "nothing was read"
    verdict, reason = seen.judgement.verdict, seen.judgement.reason
    if seen.last_failed:
        # What was seen before may no longer be so.
        return "unknown", f"the last reading failed: {seen.last_error}; before it: {reason}"
    if verdict == "progressing" and seen.order.wait is not None:
        return "timeout", f"waited {seen.order.wait:g} s; {reason}"
    return verdict, reason


def _shown(application: Application, forgotten: int) -> dict[str, Any]:
    status = application.status or Status()
    state = status.operation_state
    resources = [
        Resource(
            group=resource.group,
            kind=resource.kind,
            namespace=resource.namespace,
            name=resource.name,
            sync=resource.status or None,
            health=resource.health.status or None if resource.health is not None else None,
            message=resource.health.message if resource.health is not None else "",
        )
        for resource in status.resources
        if resource.status not in ("", "Synced")
        or (resource.health is not None and resource.health.status not in ("", "Healthy"))
    ]
    conditions = [
        Condition(type=condition.type, message=condition.message, since=condition.last_transition_time)
        for condition in status.conditions
    ]
    return {
        "namespace": application.metadata.namespace,
        "revision": status.sync.revision or None,
        "revisions": status.sync.revisions[:MOST_LISTED],
        "sync": status.sync.status,
        "health": status.health.status or None,
        "health_message": status.health.message,
        "phase": state.phase or None if state is not None else None,
        "message": state.message if state is not None else "",
        "operation_revisions": state.revisions[:MOST_LISTED] if state is not None else (),
        "retry_count": state.retry_count if state is not None else 0,
        "reconciled_at": status.reconciled_at,
        "conditions": tuple(conditions[:MOST_LISTED]),
        "resources": tuple(resources[:MOST_LISTED]),
        "omitted": forgotten + sum(max(0, len(found) - MOST_LISTED) for found in (conditions, resources)),
    }


def _not_checked(application: Application, question: Question, source: Source) -> Iterator[str]:
    status = application.status or Status()
    at = status.reconciled_at
    if source.via == "file":
        yield "whether it is still so: a file was read, not a cluster"
    elif at is not None and question.now - at > STALE:
        yield f"whether Argo CD still watches: it last compared with Git at {stamp(at)}"
    if question.pushed_at is None:
        yield (
            "the time of the push (--pushed-at): only the commit itself can show that Argo CD looked since,"
            " and cannot for a second push of the same commit, as for a rollback"
        )
    if not status.resources:
        yield "whether anything is deployed: the Application names no resources"
    if len(status.sync.revisions) > 1:
        yield "the revisions of the Application's other sources: one of several has to be the expected one"
    if application.spec.source_hydrator is not None:
        yield "which commit the hydrated one was made from: ask for the hydrated one"
    if status.resource_health_source == "appTree" and source.via != "argocd":
        yield "the health of single resources: this Argo CD keeps it elsewhere; --via argocd shows it"
