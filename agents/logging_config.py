"""Sets up structlog: readable lines on a terminal, JSON lines everywhere else, ids of the event on each.

Logs go to stderr; stdout belongs to data. Payloads are never logged, they may hold anything.
"""

import logging
import os
import sys
from typing import Any

import structlog
import structlog.tracebacks
from structlog.typing import EventDict, Processor

from agents.core.task import current_task

# Their INFO lines tell of sockets and group joins; ours tell the same in our words.
QUIET = (
    "aiokafka",
    "faststream",
    "callboard.faststream",
    "asyncio",
    "httpx",
    "httpx2",
    "jgo",
    "uvicorn.access",
)


# What a topic or a cluster just made answers for a moment.
PASSING = ("NotLeaderForPartitionError", "GroupCoordinatorNotAvailableError")
QUIET_SECONDS = 10.0


def configure_logging(level: str = "INFO", *, terminal: bool | None = None) -> None:
    """Send every log line of this process through structlog.

    Args:
        level: Lowest level to show, by name.
        terminal: Readable lines instead of JSON; by default if stderr is a terminal.

    Raises:
        ValueError: If there is no such level.
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f"unknown log level {level.upper()!r}; choose one of: {', '.join(levels)}")
    if terminal is None:
        terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_task,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(levels[level.upper()]),
        cache_logger_on_first_use=True,
    )
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    # By default both would print every local variable of a stack, and those hold payloads and keys.
    if terminal:
        stacks = structlog.dev.RichTracebackFormatter(show_locals=False)
        colors = "NO_COLOR" not in os.environ
        final.append(structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=stacks))
    else:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        final += [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    handler.addFilter(_News())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        quiet = logging.getLogger(name)
        # Some bring a handler of their own; then their lines would not be ours.
        quiet.handlers, quiet.propagate = [], True
        quiet.setLevel(logging.WARNING)


class _News(logging.Filter):
    """Keeps the Kafka client from saying the same thing again and again.

    It tells every failed try of everything it tries again by itself: hundreds of lines a second while a
    broker restarts. Each kind of line passes once in `QUIET_SECONDS`; what is only a new topic without a
    leader yet, never.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be written."""
        if not record.name.startswith("aiokafka"):
            return True
        if any(passing in record.getMessage() for passing in PASSING):
            return False
        kind = (record.name, str(record.msg))
        last = self._said.get(kind)
        if last is not None and record.created - last < QUIET_SECONDS:
            return False
        self._said[kind] = record.created
        return True


def _add_task(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # Read when a line is written instead of bound when an event comes: most events write none.
    try:
        task = current_task()
    except LookupError:
        return event
    event.setdefault("agent", task.agent)
    event.setdefault("workflow_id", task.workflow_id)
    event.setdefault("event_id", task.id)
    event.setdefault("run_id", task.run_id[:16])
    return event
