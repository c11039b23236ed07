"""A background process that can be recognised later: start it, know that it is still the same one, signal it.

Run as a script, this file is the launcher: it needs nothing but the standard library, because it becomes the
process it launches. It never stays in between.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


class LaunchError(Exception):
    """The program could not be executed."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was when it started.

    Attributes:
        pid: its number, which the system gives to others once the process is gone.
        started: when it started, as the system tells it; only compared, never read.
        port: the TCP port it was started to serve, 0 for none.
    """

    pid: int
    started: str
    port: int

    @classmethod
    def read(cls, pid_file: Path) -> Process | None:
        """Return the process that a pid file names, if that very process is still there."""
        try:
            written = json.loads(pid_file.read_bytes())
            process = cls(int(written["pid"]), str(written["started"]), int(written["port"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # no file, or not one of ours: there is nothing that may be signalled
        return process if process.pid > 0 and process.alive() else None

    def alive(self) -> bool:
        """Whether it is there: a process with its number that also started at its time, and has not ended."""
        return start_of(self.pid) == self.started

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; false if the process is gone. A successor with the same number is never hit."""
        if sys.platform != "linux":
            if alive := self.alive():
                os.kill(self.pid, number)
            return alive
        # The number could be given away between the look and the signal. A pidfd cannot: if the process ends
        # after pidfd_open, the signal fails; if it ended before, the descriptor is a successor's and the look
        # says so.
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def start_of(pid: int) -> str | None:
    """Return when the process started, in a form to be compared; None if there is none or it has ended."""
    if sys.platform != "linux":
        listed = subprocess.run(  # noqa: S603 - fixed program, a number as argument
            ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
            capture_output=True,
            check=False,
            env={"LC_ALL": "C"},
            text=True,
        ).stdout.split(maxsplit=1)
        return None if not listed or listed[0].startswith("Z") else listed[1].strip()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may contain anything, brackets included.
    fields = stat.rpartition(")")[2].split()
    # A zombie has ended, and is only not yet collected by its parent. While it still has other threads it has
    # not: a killed Java shows its main thread as a zombie for some milliseconds while the others hold its
    # port and its files, and a successor that starts then finds both taken.
    if fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1):
        return None
    # Clock ticks since boot, hence the boot: tick and number could meet again after the next one.
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{fields[19]}"


def launch(  # noqa: PLR0913 - a process has this many sides, and each call names them
    command: list[str],
    *,
    pid_file: Path,
    log: Path,
    folder: Path,
    environment: dict[str, str],
    port: int = 0,
    niceness: int = 0,
) -> Process | None:
    """Start a program in the background, in its own session, and return it; None if it has ended already.

    It outlives this process, reads nothing, writes its output to `log` (emptied first), and creates files
    that only its user can read. The pid file exists before the program runs.

    Raises:
        LaunchError: the program could not be executed; the message is the system's.
    """
    # Why a launcher and not only Popen: the process that becomes the program writes the pid file itself. If
    # the parent wrote it, a parent killed between spawning and writing would leave a broker that nobody owns.
    # It forks, too, so that the program is a child of init: no zombie stays in a parent that lives long.
    launcher = subprocess.run(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-I", "-S", __file__, str(pid_file), str(log), str(port), str(niceness), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        cwd=folder,
        env=environment,
        text=True,
    )
    if launcher.returncode:
        raise LaunchError(launcher.stderr.strip() or f"the launcher ended with {launcher.returncode}")
    return Process.read(pid_file)


def main(arguments: list[str]) -> int:
    """Launch: pid file, log file, port, niceness, program, its arguments."""
    pid_file, log, port, niceness, *command = arguments
    readable, writable = os.pipe()  # both closed by a successful exec, so the end of file means: it runs
    if os.fork():
        os.close(writable)
        with os.fdopen(readable, "rb") as pipe:
            problem = pipe.read()
        sys.stderr.buffer.write(problem)
        return 1 if problem else 0
    try:
        os.setsid()
        os.umask(0o077)
        os.nice(int(niceness))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process = Process(os.getpid(), start_of(os.getpid()) or "", int(port))
        draft = Path(f"{pid_file}.new")
        draft.write_text(json.dumps(asdict(process)))
        draft.replace(pid_file)
        os.execv(command[0], command)  # noqa: S606 - an absolute path and a list, no shell
    except OSError as error:
        os.write(writable, str(error).encode())
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
