"""A histogram that costs a tenth of the library's: one is counted for every run, and runs may be short.

What is exposed is the library's, but for when it was made. Only the counting is ours: without a lock, since
all runs of a process end on its event loop; who reads meanwhile may see one more in the sum than in the
buckets.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Histogram(Collector):
    """A histogram with labels.

    Args:
        name: Of the metric.
        text: What it means.
        labels: Names of its labels.
        registry: Where it is exposed.
        buckets: Their upper bounds, ascending; above the last there is another one.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._bounds = tuple(buckets)
        self._known: dict[tuple[str, ...], Observed] = {}
        registry.register(self)

    def labels(self, *values: str) -> "Observed":
        """Give what counts for these label values.

        Raises:
            ValueError: If there are not as many values as labels.
        """
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, not {len(values)} of them")
        return self._known.setdefault(values, Observed(self._bounds))

    def collect(self) -> Iterable[Metric]:
        """Give what was counted, as the library exposes it."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, observed in self._known.items():
            family.add_metric(values, observed.buckets(), observed.sum)
        yield family


class Observed:
    """What was observed for one set of label values.

    Args:
        bounds: Upper bounds of the buckets.

    Attributes:
        sum: Of all that was observed.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Give each bucket's upper bound, and how many values do not exceed it."""
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
