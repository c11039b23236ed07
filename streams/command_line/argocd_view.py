"""Shows people the report on an Argo CD deployment; what a cluster wrote steers no terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from streams.command_line.output import clean, one_line
from streams.reports.argocd.application import stamp
from streams.reports.argocd.report import ArgocdReport, Check, Resource

STYLES = {"ok": "bold green", "failed": "bold red"}
MARKS = {True: "yes", False: "no", None: "?"}
LONGEST = 300
MOST_RESOURCES = 20
LAST_TRANSITIONS = 20

CHECKS = {
    "revision": "compared with the expected commit",
    "reconciled_after_push": "reconciled after the push",
    "compared_as_written": "compared as the Application is written now",
    "operation_succeeded": "operation Succeeded",
    "compared_after_operation": "compared after the operation",
    "synced": "Synced",
    "healthy": "Healthy",
    "no_error_conditions": "no error conditions",
}


def print_report(console: Console, report: ArgocdReport) -> None:
    """Print it: the verdict first, then what it rests on."""
    name = f"{report.namespace}/{report.application}" if report.namespace else report.application
    line = Text(report.verdict, style=STYLES.get(report.verdict, "bold yellow"))
    line.append(clean(f"  {name} at {report.expected}"), style="not bold default")
    console.print(line, soft_wrap=True)
    for text in _lines(report):
        console.print(text, soft_wrap=True)


def _lines(report: ArgocdReport) -> Iterator[str]:
    yield f"  {one_line(report.reason, LONGEST * 3)}"
    if report.checks:
        yield ""
        yield from (_check(check) for check in report.checks)
    if report.message:
        yield ""
        yield f"  operation says: {one_line(report.message, LONGEST)}"
    yield from _listed(
        "conditions", [f"{condition.type}: {condition.message}" for condition in report.conditions]
    )
    yield from _listed("resources", [_resource(resource) for resource in report.resources])
    yield from _listed("pods", [f"{trouble.path}: {trouble.value}" for trouble in report.pods])
    yield from _causes(report)
    if len(report.transitions) > 1:
        yield from _listed(
            "transitions",
            [
                f"{stamp(state.at.replace(microsecond=0))}  {state.sync}, {state.health or 'no health'},"
                f" {state.phase or 'no operation'}, {(state.revision or 'no revision')[:12]}"
                for state in report.transitions[-LAST_TRANSITIONS:]
            ],
        )
    if report.readings.failed and (report.readings.last_error or "") not in report.reason:
        failed = (
            f"{report.readings.failed} of {report.readings.failed + report.readings.good} readings failed"
        )
        yield from _listed("readings", [f"{failed}; the last time: {report.readings.last_error}"])
    yield from _listed("not checked", report.not_checked)


def _causes(report: ArgocdReport) -> Iterator[str]:
    if report.verdict not in ("ok", "progressing") and report.checks and not report.causes:
        yield from _listed("cause", ["none of the known ones fits"])
    for cause in report.causes:
        yield ""
        yield f"cause ({cause.confidence}): {cause.rule}"
        for evidence in cause.evidence:
            yield f"  {clean(evidence.path)}: {one_line(evidence.value, LONGEST)}"
        yield f"  a person can: {cause.suggestion}"


def _listed(title: str, lines: list[str] | tuple[str, ...]) -> Iterator[str]:
    if not lines:
        return
    yield ""
    yield f"{title}:"
    yield from (f"  {one_line(line, LONGEST)}" for line in lines[:MOST_RESOURCES])
    if len(lines) > MOST_RESOURCES:
        yield f"  and {len(lines) - MOST_RESOURCES:,} more (--json)"


def _check(check: Check) -> str:
    return f"  {MARKS[check.met]:>3}  {CHECKS[check.name]}: {one_line(check.seen, LONGEST)}"


def _resource(resource: Resource) -> str:
    name = "/".join(part for part in (resource.kind, resource.namespace, resource.name) if part)
    state = ", ".join(part for part in (resource.sync, resource.health) if part)
    return f"{name}: {state}{': ' if resource.message else ''}{resource.message}"
