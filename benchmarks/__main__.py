"""Runs the measurements and writes RESULTS.md: `python -m benchmarks [hop in_flight lanes ...]`."""

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import Report, local_kafka

MEASUREMENTS = ["hop", "in_flight", "lanes", "chain", "start", "recovery"]
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Run what is asked for; only a run of all of them is kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("measurements", nargs="*", metavar="MEASUREMENT", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = options.measurements or MEASUREMENTS
    servers = local_kafka()
    before = os.getloadavg()[0]
    reports: list[Report] = [
        import_module(f"benchmarks.{name}").measure(servers, options.rounds) for name in names
    ]
    text = "\n".join([introduction(before, reports), *(report.text() for report in reports)])
    sys.stdout.write(text)
    if names == MEASUREMENTS:
        RESULTS.write_text(text)


def introduction(load: float, reports: list[Report]) -> str:
    """Say where and how this was measured, and what was missed."""
    missed = [f"{aim} ({found})" for report in reports for aim, found, ok in report.aims if not ok]
    return f"""# Measured

    python -m benchmarks

{datetime.now(UTC):%Y-%m-%d}: {processor()}, {os.cpu_count()} cores that Apache Kafka 4.3.1 shares with what
is measured (load before and after: {load:.1f} and {os.getloadavg()[0]:.1f}), {platform.system()}
{platform.release().split("-")[0]}, Python {platform.python_version()}, aiokafka {version("aiokafka")},
FastStream {version("faststream")}, uvloop {version("uvloop")}. Rounds are interleaved, each run has a process
and topics of its own, counts are checked. The machine is shared: compare ratios within a table, never rates
of two runs.

{"Missed: " + "; ".join(missed) + "." if missed else "Every aim was met."}
"""


def processor() -> str:
    """Name the machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
