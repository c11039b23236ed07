"""The command `callboard`. Only parses and shows; the work is done by what it imports when a command runs.

No module here imports the Kafka clients or pydantic before its command is called, so that `--help` is quick.
"""

import sys

import typer

from streams.command_line import (
    argocd_status,
    dead,
    demo,
    local_kafka,
    publish,
    replay,
    report_tests,
    run,
    show,
    tail,
    validate_manifests,
)
from streams.command_line.output import write

HELP = """AI agents that choreograph themselves over Apache Kafka.

\b
Begin with:
    callboard demo                                  all of it in one go (in a source checkout)
    callboard run examples.hello:app --llm off      start agents
    callboard publish my_custom 'Say hello' --wait
    callboard show WORKFLOW                         what happened, from the log alone
"""

EPILOG = """\b
Data goes to stdout, everything else to stderr. Exit codes:
    0    fine
    1    the workflow, or what was asked for, failed
    2    wrong usage, input or setting
    3    Kafka cannot be reached or started
    4    no such agent, topic or workflow
    5    timed out waiting
    6    a worker whose event loop stood still for too long ended itself
    7    not everything could be checked
    130  interrupted

CALLBOARD_BOOTSTRAP_SERVERS names your Kafka (unset: the local one), CALLBOARD_HOME where the local one keeps
its records, CALLBOARD_DEBUG=1 shows stacks.
"""

program = typer.Typer(
    name="callboard",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (
    local_kafka.up,
    local_kafka.status,
    local_kafka.down,
    run.run,
    publish.publish,
    tail.tail,
    show.show,
    replay.replay,
    demo.demo,
    validate_manifests.validate_manifests,
    argocd_status.argocd_status,
    report_tests.report_tests,
):
    program.command()(command)
program.add_typer(dead.dead)


@program.callback(invoke_without_command=True)
def _version(
    *,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),  # noqa: FBT003
) -> None:
    if version:
        from importlib.metadata import version as installed

        write(installed("callboard"))
        raise typer.Exit


def main() -> None:
    """Run the command that the process was started with."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # An event may hold characters that the terminal's encoding lacks: show their numbers.
            stream.reconfigure(errors="backslashreplace")
    program()
