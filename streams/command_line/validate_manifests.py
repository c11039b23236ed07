"""`callboard validate-manifests`: what is wrong with Kubernetes manifests, found without a cluster."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from streams.command_line.output import CommandError, ExitCode, one_line, reported, say, write, write_json

if TYPE_CHECKING:
    from streams.reports.manifests.report import Finding, ManifestsReport

WIDTH = 4_000  # of a line: what it quotes may be long


@reported
def validate_manifests(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Files and folders.", show_default=False)
    ] = None,
    *,
    kubernetes: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Whose schemas to use, e.g. 1.34; default: the newest."),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="A rule not to ask; repeat it for more.")
    ] = None,
    list_rules: Annotated[bool, typer.Option("--list-rules", help="Explain every rule, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Check Kubernetes manifests and Kustomize overlays, without a cluster or a network.

    Objects are compared with the schemas of their kinds, strictly, and with rules of our own. Overlays are
    rendered by `kubectl kustomize`. What was not checked is said, and is never a pass: exit code 7.

    \b
    Example:
        callboard validate-manifests deploy/
        callboard validate-manifests deploy/ --kubernetes 1.34 --json | jq .verdict
        callboard validate-manifests --list-rules
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    from streams.reports.manifests.rules import BY_ID, RULES

    if list_rules:
        for rule in RULES:
            write(f"{rule.id:22} {rule.severity:8} {rule.reason}\n{'':31} fix: {rule.fix}")
        return
    if not paths:
        raise CommandError(
            "say which files or folders, e.g. callboard validate-manifests deploy/", ExitCode.USAGE
        )
    if missing := [str(path) for path in paths if not path.exists()]:
        raise CommandError(f"there is no {', '.join(missing)}", ExitCode.USAGE)
    optional = {rule.id for rule in RULES if rule.broken is not None}
    if unknown := sorted(set(skip or ()) - optional):
        said = "cannot be skipped" if set(unknown) <= set(BY_ID) else "no such rule"
        raise CommandError(f"{said}: {', '.join(unknown)}; --list-rules explains all", ExitCode.USAGE)

    from streams.reports.manifests.check import check

    report = check(paths, kubernetes=kubernetes, skip=skip or ())
    if json:
        write_json(report.model_dump(mode="json"))
    else:
        _print(report)
    if report.verdict != "pass":
        raise typer.Exit(ExitCode.FAILED if report.verdict == "fail" else ExitCode.INCOMPLETE)


def _print(report: ManifestsReport) -> None:
    """Show a report to people: what is wrong, file by file, what was not checked, and the verdict last."""
    where = None
    for finding in report.findings:
        here = f"{finding.file} in {', '.join(finding.overlays)}" if finding.overlays else finding.file
        if here != where:
            write(("\n" if where else "") + one_line(here, WIDTH))
            where = here
        write(f"  {one_line(_line(finding), WIDTH)}")
    counts = report.counts
    if (left := counts.errors + counts.warnings - len(report.findings)) > 0:
        write(f"\n{left:,} more findings are left out")
    if report.rules:
        write("")
    for rule in report.rules:
        write(f"{rule.id}: {rule.reason}; fix: {rule.fix}")
    for each in report.not_checked:
        write(f"\nnot checked: {one_line(f'{each.what}: {each.reason}', WIDTH)}")
    if report.passed_over:
        say(one_line(f"passed over: {', '.join(report.passed_over)}", WIDTH))
    looked = f"{_count(counts.objects, 'object')} in {_count(counts.files, 'file')}"
    looked += f" and {_count(counts.overlays, 'overlay')}"
    if report.kubernetes:
        looked += f", against Kubernetes {report.kubernetes}"
    if report.skipped_rules:
        looked += f"; rules skipped: {', '.join(report.skipped_rules)}"
    found = f"{_count(counts.errors, 'error')}, {_count(counts.warnings, 'warning')}"
    write(f"\n{report.verdict}: {found}, {len(report.not_checked):,} not checked; {looked}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _line(finding: Finding) -> str:
    words = [finding.severity, finding.rule]
    if finding.object is not None:
        named = "/".join(part for part in (finding.object.namespace, finding.object.name) if part)
        words += [finding.object.kind, named]
    return f"{' '.join((*words, finding.path)).rstrip()}: {finding.message}"
