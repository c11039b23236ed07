"""`callboard run`: an application's agents, until they are told to stop."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streams.command_line.local_kafka import ensure_kafka
from streams.command_line.output import (
    CommandError,
    ExitCode,
    expected_code,
    reported,
    say,
    settings,
    write,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from streams.app import AgentApp
    from streams.settings import Settings
    from streams.supervised import Link
    from streams.supervisor import Slot, Supervisor, WorkerProcess

HIGHEST_PORT = 65_535


@reported
def run(  # noqa: PLR0913 (a command has this many options)
    application: Annotated[
        str, typer.Argument(metavar="MODULE:APP", help="Where the AgentApp is, from the current folder.")
    ],
    *,
    llm: Annotated[
        Literal["anthropic", "off"] | None,
        typer.Option(help="Which language model agents ask; off: they give evidence without judgement."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of the health and metrics pages.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=HIGHEST_PORT, help="Their port; 0: any free one.")] = 8000,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Processes that share the work, started again if they die; worker i serves on PORT + i.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="AGENT", help="Run only this agent of the application; repeatable."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Lowest level of log lines to show.")
    ] = "info",
) -> None:
    """Run the agents of an application, until Ctrl-C or SIGTERM.

    Imports the application and, unless CALLBOARD_BOOTSTRAP_SERVERS is set, starts the local Kafka. Prints the
    address of /healthz, /readyz, /metrics and /asyncapi on stdout once the agents are starting; logs go to
    stderr. When told to stop, it lets running work end; told twice, it does not, and that work is done again
    by the next worker.

    With --workers, a worker that dies is started again and has its partitions back within seconds; without,
    they wait until its session ends (CALLBOARD_SESSION_TIMEOUT_MS).

    \b
    Example:
        callboard run examples.hello:app --llm off
        callboard run shop.agents:app --port 0 --log-level warning
        callboard run shop.agents:app --workers 4
        callboard run shop.agents:app --only price --only receipt
    """  # noqa: D301 (typer reads the backspace: keep these lines as they are)
    if llm is not None:
        os.environ["CALLBOARD_LLM"] = llm
    if only:
        os.environ["CALLBOARD_ONLY"] = ",".join(only)

    with _importing():
        from agents.logging_config import configure_logging

        link = _link()
    configure_logging(log_level, terminal=link.terminal if link is not None else None)
    if workers is None:
        raise typer.Exit(_work(application, host, port, log_level, link))
    _find(application)
    ports = _ports(host, port, workers)
    ensure_kafka(settings())
    command = ["run", application, "--host", host, "--log-level", log_level]
    raise typer.Exit(_supervise(command, application, ports))


@contextmanager
def _importing() -> Iterator[None]:
    """Look for no garbage meanwhile: importing makes none, and looking took a sixth of a worker's start."""
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()  # what is here by now stays, so that it need not be looked through
    finally:
        if looks:
            gc.enable()


def load(application: str) -> AgentApp:
    """Import an application.

    Args:
        application: MODULE:APP.

    Raises:
        CommandError: If there is none; says which part of the way is missing.
    """
    module_name, attribute = _find(application)
    module = _import(module_name)

    from agents.core import Workflow
    from streams.app import AgentApp

    found: Any = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if isinstance(found, AgentApp):
        return found
    have = ", ".join(f"{module_name}:{name}" for name, it in vars(module).items() if isinstance(it, AgentApp))
    instead = f"; did you mean {have}?" if have else ""
    if found is None:
        raise CommandError(f"module {module_name!r} has no {attribute!r}{instead}", ExitCode.USAGE)
    if isinstance(found, Workflow):
        instead = f"; make one of it: app = AgentApp({attribute})"
    raise CommandError(
        f"{application} is no AgentApp, but of type {type(found).__name__}{instead}", ExitCode.USAGE
    )


def _find(application: str) -> tuple[str, str]:
    """Give the names of the module and the application in it, as far as can be told without running its code.

    Raises:
        CommandError: If these are no such names, or there is no such package.
    """
    module, _, attribute = application.partition(":")
    if not module or not attribute:
        raise CommandError(
            f"{application!r} names no application: give MODULE:APP, e.g. examples.hello:app", ExitCode.USAGE
        )
    if module.endswith(".py") or os.sep in module:
        path = Path(os.path.relpath(module.removesuffix(".py")))
        instead = f"; did you mean {'.'.join(path.parts)}:{attribute}?" if ".." not in path.parts else ""
        raise CommandError(f"{module!r} is a file, not the name of a module{instead}", ExitCode.USAGE)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    package = module.partition(".")[0]
    if not package:
        raise CommandError(f"{module!r} is no absolute name of a module", ExitCode.USAGE)
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        raise _no_module(package)
    return module, attribute


def _import(name: str) -> Any:
    from agents.core.errors import AgentError

    try:
        return importlib.import_module(name)
    except AgentError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(error.name) from None
        raise _import_error(name, error) from error
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise _import_error(name, error) from error


def _no_module(name: str) -> CommandError:
    return CommandError(
        f"there is no module {name!r}, neither in {Path.cwd()} nor among what is installed", ExitCode.USAGE
    )


def _import_error(name: str, error: Exception) -> CommandError:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" ({at.tb_frame.f_code.co_filename}:{at.tb_lineno})" if at is not None else ""
    return CommandError(
        f"module {name!r} cannot be imported: {type(error).__name__}: {error}{where};"
        " CALLBOARD_DEBUG=1 shows the stack",
        ExitCode.USAGE,
    )


def _bind(host: str, port: int) -> socket.socket:
    """Take the port before anything is begun that would have to be ended."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CommandError(f"--host {host!r} is no address: {error}", ExitCode.USAGE) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listening now would let a probe connect and wait: refused is what it is until the agents are there.
    except OSError as error:
        listener.close()
        raise CommandError(
            f"port {port} of {host} cannot be used: {error.strerror or error}; choose another with --port, or"
            " any free one with --port 0",
            ExitCode.USAGE,
        ) from None
    return listener


def _link() -> Link | None:
    if "CALLBOARD_SUPERVISOR" not in os.environ:
        return None  # not worth an import

    import structlog

    from streams.supervised import Link

    link = Link.of_this_process()
    if link is not None and not link.terminal:
        structlog.contextvars.bind_contextvars(worker=link.slot)
    return link


def _work(application: str, host: str, port: int, log_level: str, link: Link | None) -> ExitCode:
    """Be the only worker, or one of several."""
    try:
        with _importing():
            app = load(application)
            listener = _bind(host, port)
            ensure_kafka(settings())  # last: what cannot be run shall leave no Kafka behind
        if link is not None:
            link.when_told_to_leave(app.leave_when_stopped)
            app.on_startup(link.tell_running)
        return _serve(app, listener, log_level, link)
    except Exception as error:
        code = expected_code(error)
        if link is None or code is None:
            raise
        # Its supervisor says it, once for all workers.
        link.tell_problem(str(error) or repr(error))
        return code


def _ports(host: str, port: int, workers: int) -> list[int]:
    """Give each worker's port, after making sure that none of them is taken."""
    if port == 0:
        return [0] * workers
    ports = [port + number for number in range(workers)]
    if ports[-1] > HIGHEST_PORT:
        raise CommandError(
            f"--port {port} leaves no room for {workers} workers: the last would serve on {ports[-1]}",
            ExitCode.USAGE,
        )
    for each in ports:
        _bind(host, each).close()
    return ports


def _supervise(command: list[str], application: str, ports: list[int]) -> ExitCode:
    """Keep a worker on each port running, until told to stop."""
    import asyncio

    from streams.supervisor import WorkerRefusedError, hold_slots, place_of

    chosen = settings()
    with hold_slots(place_of(chosen.home, application), len(ports)) as slots:
        try:
            return asyncio.run(_keep(chosen, command, application, dict(zip(slots, ports, strict=True))))
        except WorkerRefusedError as refused:
            raise CommandError(str(refused), ExitCode(refused.code)) from None


async def _keep(chosen: Settings, command: list[str], application: str, ports: dict[Slot, int]) -> ExitCode:
    import asyncio

    from streams.supervisor import (
        STOP_MARGIN_SECONDS,
        Spares,
        Supervisor,
        WorkerProcess,
        instance_prefix,
    )

    prefix = chosen.instance_id or instance_prefix(chosen.home, application)
    slots = {slot.number: slot for slot in ports}

    async def make() -> WorkerProcess:
        process = WorkerProcess(leaves=chosen.instance_id is None, running=spares.refill)
        await process.start([slot.lock for slot in ports])
        return process

    async def start(number: int) -> WorkerProcess:
        process = await spares.take()
        slot = slots[number]
        process.become(
            slot,
            [*command, "--port", str(ports[slot])],
            {"CALLBOARD_INSTANCE_ID": f"{prefix}-{number}"},
        )
        return process

    patience = chosen.drain_seconds + STOP_MARGIN_SECONDS
    spares = Spares(make)
    supervisor = Supervisor(start, sorted(slots), patience=patience)
    stopping = StoppingAll(asyncio.get_running_loop(), supervisor)
    try:
        await supervisor.run()
    finally:
        await spares.close()
    return stopping.code


class StoppingAll:
    """What signals do to a supervisor: the first stops all workers orderly, the second ends them now."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.code = ExitCode.OK
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        if not self._asked:
            self._asked = True
            self.code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.OK
            say("stopping: letting running work end; once more to end at once")
            self._supervisor.stop()
            return
        say("ending now; unfinished work is done again by the next worker")
        self.code = ExitCode.INTERRUPTED
        self._supervisor.kill()


def _serve(app: AgentApp, listener: socket.socket, log_level: str, link: Link | None) -> ExitCode:
    import asyncio
    import logging

    import uvicorn

    logging.getLogger("uvicorn").setLevel(
        max(logging.WARNING, logging.getLevelNamesMapping()[log_level.upper()])
    )

    class Server(uvicorn.Server):
        """Leaves signals to us: uvicorn raises them again when it is done, and that would be our end."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                write(_address(listener))

    async def serve() -> ExitCode:
        # The application's own start and stop are around the server instead of inside its lifespan protocol,
        # which would turn a clear error into a logged stack, and does not notice when the Kafka side ends.
        server = Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2
            )
        )
        stopping = Stopping(
            asyncio.get_running_loop(), asyncio.current_task(), server, told_by_user=link is None
        )
        try:
            async with app.start_lifespan_context():
                if not stopping.asked:
                    await server.serve(sockets=[listener])
        except asyncio.CancelledError:
            if not stopping.asked:
                raise
        return stopping.code if app.failure is None else ExitCode.FAILED

    if sys.platform == "win32":
        return asyncio.run(serve())
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve())


class Stopping:
    """What signals do: the first asks for an orderly end, the second ends it now."""

    def __init__(self, loop: Any, main: Any, server: Any, *, told_by_user: bool) -> None:
        self._told_by_user = told_by_user
        self._main = main
        self._server = server
        self.asked: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)

    @property
    def code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.INTERRUPTED if self.asked == signal.SIGINT else ExitCode.OK

    def _stop(self, number: signal.Signals) -> None:
        if self.asked is None:
            self.asked = number
            if self._told_by_user:
                say("stopping: letting running work end; once more to end at once")
            if self._server.started:
                self._server.should_exit = True
            else:
                self._main.cancel()
            return
        say("ending now; unfinished work is done again by the next worker")
        # Not by cancelling: a run that is cancelled on the way out could still publish what came of that. A
        # process that is gone at any instant, however, is what the next worker is made for.
        os._exit(ExitCode.INTERRUPTED)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
