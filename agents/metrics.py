"""Every metric, in one table: what a worker counts and what each number means.

Labels are agents, topics and closed sets of words; never ids of workflows, events or users.
"""

from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from agents.histogram import Histogram, Observed

M = TypeVar("M", Counter, Gauge, Histogram)

REGISTRY: Final = CollectorRegistry()

# An agent's run takes from a millisecond (a rule) to many minutes (a model with tools).
SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)

# name, kind, labels, help
TABLE: Final = (
    ("records", Counter, ("agent", "topic"), "Records read from Kafka."),
    ("runs", Counter, ("agent", "status"), "Runs that ended, by the status of their result."),
    ("errors", Counter, ("agent", "type"), "Failed results, by error type."),
    ("skipped", Counter, ("agent", "reason"), "Records settled without a run, by reason."),
    ("run_seconds", Histogram, ("agent",), "Time from a run's start to its encoded result."),
    ("running", Gauge, ("agent",), "Runs that execute now."),
    ("queued", Gauge, ("agent",), "Records read and not started yet."),
    ("joins", Gauge, ("agent",), "Joins that wait for further parts."),
    (
        "joins_to_begin",
        Gauge,
        ("agent",),
        "Joins that fired and wait until their parts are read, or a lost run ends; then they are queued.",
    ),
    ("unacknowledged", Gauge, ("agent",), "Results on their way to Kafka."),
    ("partitions", Gauge, ("agent",), "Partitions this worker owns."),
    (
        "lag",
        Gauge,
        ("agent", "topic"),
        "Records that are not committed yet, in the partitions this worker owns.",
    ),
    (
        "loop_blocked_seconds",
        Counter,
        ("agent",),
        "Seconds the event loop stood still, by the agent whose handler blocked it.",
    ),
    ("rebalances", Counter, ("agent",), "Assignments received."),
    ("retries", Counter, ("agent",), "Attempts that failed and were followed by another."),
    ("dead_letters", Counter, ("agent",), "Events that could not be processed, kept with the reason."),
    ("publish_retries", Counter, ("agent",), "Publishes that failed and were tried again."),
    (
        "steps",
        Counter,
        ("agent", "kind", "status"),
        "Journaled steps; status: completed, replayed, failed, in_doubt, repeated, parked.",
    ),
    ("llm_calls", Counter, ("agent",), "Questions put to a model."),
    (
        "llm_tokens",
        Counter,
        ("agent", "direction"),
        "Tokens as the provider counts them; direction: input, output.",
    ),
)


def _make(
    name: str, kind: type[Counter | Gauge | Histogram], labels: tuple[str, ...], text: str
) -> Counter | Gauge | Histogram:
    if issubclass(kind, Histogram):
        return kind(f"callboard_{name}", text, labels, registry=REGISTRY, buckets=SECONDS)
    return kind(f"callboard_{name}", text, labels, registry=REGISTRY)


_metrics: Final = {name: _make(name, kind, labels, text) for name, kind, labels, text in TABLE}


def counter(name: str, *labels: str) -> Counter:
    """Give the counter of these label values; keep it, looking it up costs more than counting.

    Raises:
        TypeError: If the metric is no counter.
    """
    return _typed(name, Counter).labels(*labels)


def gauge(name: str, *labels: str) -> Gauge:
    """Give the gauge of these label values.

    Raises:
        TypeError: If the metric is no gauge.
    """
    return _typed(name, Gauge).labels(*labels)


def histogram(name: str, *labels: str) -> Observed:
    """Give the histogram of these label values.

    Raises:
        TypeError: If the metric is no histogram.
    """
    return _typed(name, Histogram).labels(*labels)


def _typed(name: str, kind: type[M]) -> M:
    metric = _metrics[name]
    if not isinstance(metric, kind):
        raise TypeError(f"metric {name!r} is a {type(metric).__name__}, not a {kind.__name__}")
    return metric
