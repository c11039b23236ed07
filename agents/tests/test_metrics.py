"""Every metric: what it says about itself, and that its labels stay few."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client import Histogram as Theirs
from prometheus_client.parser import text_string_to_metric_families

from agents import metrics
from agents.histogram import Histogram

# A label of these has as many values as agents, topics or words of a closed set; never an id or a message.
CLOSED = {"agent", "topic", "status", "type", "reason", "direction", "kind"}
NAMES = [name for name, *_ in metrics.TABLE]


@pytest.mark.parametrize(("name", "kind", "labels", "text"), metrics.TABLE, ids=NAMES)
def test_a_metric_is_exposed_with_its_help(
    name: str, kind: type[Counter | Gauge | Histogram], labels: tuple[str, ...], text: str
) -> None:
    families = {
        it.name: it for it in text_string_to_metric_families(generate_latest(metrics.REGISTRY).decode())
    }
    family = families[f"callboard_{name}"]
    assert (family.documentation, family.type) == (text, kind.__name__.lower())
    assert text.endswith(".")
    assert set(labels) <= CLOSED


def test_names_are_told_once_and_follow_prometheus() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in NAMES)
    assert not [name for name in NAMES if name.endswith(("_total", "_count", "_sum", "_bucket"))]


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_of_the_table_is_counted_somewhere(name: str) -> None:
    root = Path(metrics.__file__).parents[1]
    sources = [root / "streams", root / "agents/core"]
    use = re.compile(rf'metrics\.(counter|gauge|histogram)\(\s*"{name}"')
    assert any(use.search(file.read_text()) for folder in sources for file in folder.rglob("*.py"))


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kind, *_ in metrics.TABLE])
def test_a_metric_is_asked_for_by_its_kind(name: str, kind: type[object]) -> None:
    getters = {Counter: metrics.counter, Gauge: metrics.gauge, Histogram: metrics.histogram}
    for asked, getter in getters.items():
        if asked is not kind:
            with pytest.raises(
                TypeError, match=f"metric '{name}' is a {kind.__name__}, not a {asked.__name__}"
            ):
                getter(name)


def test_counting() -> None:
    counter = metrics.counter("llm_tokens", "test-metrics", "input")
    counter.inc(3)
    assert (
        metrics.REGISTRY.get_sample_value(
            "callboard_llm_tokens_total", {"agent": "test-metrics", "direction": "input"}
        )
        == 3
    )


@given(st.lists(st.floats(min_value=0, max_value=5_000) | st.sampled_from(metrics.SECONDS)))
def test_a_histogram_says_what_the_librarys_does(values: list[float]) -> None:
    said = []
    for kind in (Histogram, Theirs):
        registry = CollectorRegistry()
        histogram = kind("name", "Text.", ("a", "b"), registry=registry, buckets=metrics.SECONDS)
        for value in values:
            histogram.labels("one", "two").observe(value)
        lines = generate_latest(registry).decode().splitlines()
        said.append([line for line in lines if "_created" not in line])  # the library's, which nobody reads
    assert said[0] == said[1]


def test_a_histogram_tells_how_many_labels_it_has() -> None:
    with pytest.raises(ValueError, match="has the labels"):
        metrics.histogram("run_seconds", "one", "two")


def test_an_unknown_metric_or_a_wrong_number_of_labels() -> None:
    with pytest.raises(KeyError):
        metrics.counter("nothing")
    with pytest.raises(ValueError, match="label"):
        metrics.counter("records", "one")


def test_the_default_registry_stays_the_users() -> None:
    assert b"callboard_" not in generate_latest()
