"""`callboard argocd-status`: whether Argo CD has deployed a commit, decided by rules and only by reading."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams.command_line.output import (
    CommandError,
    ExitCode,
    one_line,
    progress,
    reported,
    say,
    stdout,
    when_interrupted,
    write_json,
)

if TYPE_CHECKING:
    from datetime import datetime

    from streams.reports.argocd.revision import Expected
    from streams.reports.argocd.source import ApplicationSource

DEFAULT_NAMESPACE = "argocd"
# Clocks of two machines may differ by so much.
SKEW_MS = 60_000
LONGEST = 300

EXIT_CODES = {
    "ok": ExitCode.OK,
    "failed": ExitCode.FAILED,
    "timeout": ExitCode.TIMED_OUT,
    "progressing": ExitCode.INCOMPLETE,
    "unknown": ExitCode.INCOMPLETE,
}


@reported
def argocd_status(  # noqa: PLR0913 (one parameter per option)
    application: Annotated[str, typer.Argument(metavar="APP", help="The Application's name.")],
    *,
    revision: Annotated[
        str,
        typer.Option(metavar="SHA", help="The commit that should be deployed; 7 digits or more."),
    ],
    wait: Annotated[
        str | None, typer.Option(metavar="TIME", help="Wait so long for it, like 90s, 10m or 1h.")
    ] = None,
    pushed_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When the commit was pushed; ISO 8601, or how long ago: 90s, 10m. Argo CD must have looked"
            " since. Without it the commit has to show that, as it does unless it was pushed before.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", metavar="NAME", help=f"The Application's own namespace; {DEFAULT_NAMESPACE}."
        ),
    ] = None,
    via: Annotated[
        Literal["kubectl", "argocd"] | None,
        typer.Option(help="What reads it, with its own configuration and login; kubectl."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="kubectl's context; the current one.")
    ] = None,
    from_file: Annotated[
        str | None,
        typer.Option("--from-file", metavar="FILE|-", help="Judge a recorded one (JSON). - reads stdin."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (schemas/reports).")] = False,
) -> None:
    """Tell whether Argo CD has deployed a commit, and if not, why.

    Yes only if it compared with that commit after the push, the operation succeeded, and the Application is
    Synced and Healthy since. It only ever gets the Application, and with kubectl the pods of one that is not
    Healthy; it never syncs, refreshes or changes anything.
    Exit codes: 0 deployed, 1 failed, 2 also a file without that Application, 5 not within --wait, 7 not yet,
    or it cannot be told.

    \b
    Example:
        callboard argocd-status shop --revision 1a2b3c4d --wait 10m
        callboard argocd-status shop --revision "$(git rev-parse HEAD)" --pushed-at 2m --json
        kubectl get application shop -n argocd -o json |
            callboard argocd-status shop --revision 1a2b3c4d --from-file -
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    _refuse_nonsense(wait=wait, via=via, context=context, from_file=from_file)
    chosen = _source(application, namespace, via or "kubectl", context, from_file)

    import random
    import time
    from datetime import UTC, datetime

    from streams.command_line.argocd_view import print_report
    from streams.command_line.times import seconds
    from streams.reports.argocd.judgement import POLL
    from streams.reports.argocd.summary import summary
    from streams.reports.argocd.watch import Order, Time, watch

    order = Order(
        application=application,
        namespace=namespace or (None if from_file is not None else DEFAULT_NAMESPACE),
        expected=_expected(revision),
        pushed_at=_pushed(pushed_at),
        wait=None if wait is None else seconds(wait),
    )
    if order.wait is not None and order.wait < POLL.total_seconds():
        say("Argo CD looks at Git every 2 to 3 minutes, so a shorter wait may end before it does")
    clock = Time(lambda: datetime.now(UTC), time.monotonic, time.sleep, random.random)
    with when_interrupted("interrupted; nothing was changed"), progress(f"reading {application}") as tell:

        def told(sentence: str) -> None:
            # A spinner shows what it is given, and states and errors come from elsewhere.
            if order.wait is not None:
                tell(one_line(sentence, LONGEST))

        seen, waited = watch(chosen, order, clock, told)
    if from_file is not None and seen.judgement is None:
        # Nothing was asked that could not be told: there is no such Application in there.
        raise CommandError(f"--from-file: {seen.last_error}", ExitCode.USAGE)
    report = summary(seen, chosen, waited)
    if json:
        write_json(report.model_dump(mode="json"))
    else:
        print_report(stdout(), report)
    raise typer.Exit(EXIT_CODES[report.verdict])


def _refuse_nonsense(
    *, wait: str | None, via: str | None, context: str | None, from_file: str | None
) -> None:
    if from_file is not None:
        given = {"--wait": wait, "--via": via, "--context": context}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise CommandError(
                f"a file does not change and needs no client: leave out {', '.join(wrong)}", ExitCode.USAGE
            )
    if context is not None and not context.isprintable():
        raise CommandError(f"--context {context!r} is no context's name", ExitCode.USAGE)
    if via == "argocd" and context is not None:
        raise CommandError("--context is kubectl's; leave it out with --via argocd", ExitCode.USAGE)


def _source(
    application: str, namespace: str | None, via: str, context: str | None, from_file: str | None
) -> ApplicationSource:
    from streams.reports.argocd.source import NAME, ArgocdSource, FileSource, KubectlSource

    for option, value in (("APP", application), ("--namespace", namespace)):
        if value is not None and not NAME.fullmatch(value):
            raise CommandError(
                f"{option} {value!r} is no name in Kubernetes: lower-case letters, digits, - and . are",
                ExitCode.USAGE,
            )
    if from_file is not None:
        return FileSource(from_file, sys.stdin.buffer)
    if via == "argocd":
        return ArgocdSource(application, namespace or DEFAULT_NAMESPACE)
    return KubectlSource(application, namespace or DEFAULT_NAMESPACE, context)


def _expected(revision: str) -> Expected:
    from streams.reports.argocd.revision import NoCommitError, expected

    try:
        return expected(revision)
    except NoCommitError as error:
        raise CommandError(f"--revision {error}", ExitCode.USAGE) from None


def _pushed(text: str | None) -> datetime | None:
    if text is None:
        return None

    import time
    from datetime import UTC, datetime

    from streams.command_line.times import moment

    found = moment(text)
    if found > time.time() * 1000 + SKEW_MS:
        raise CommandError(f"--pushed-at {text} is still to come", ExitCode.USAGE)
    return datetime.fromtimestamp(found / 1000, UTC)
