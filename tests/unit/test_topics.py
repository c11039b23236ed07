"""Names of topics: there and back, under any prefix."""

import re

import pytest

from streams.topics import Topics


@pytest.mark.parametrize("prefix", ["", "team.", "tasks.", "a-b_c."])
@pytest.mark.parametrize("agent", ["researcher", "code_reviewer", "a-b", "results"])
def test_the_agent_of_a_topic_is_read_back(prefix: str, agent: str) -> None:
    topics = Topics(prefix)
    assert topics.of(agent) == (
        f"{prefix}tasks.{agent}",
        f"{prefix}results.{agent}",
        f"{prefix}artifacts.{agent}",
        f"{prefix}journal.{agent}",
        f"{prefix}dead.{agent}",
    )
    assert topics.joins(agent) == f"{prefix}joins.{agent}"
    assert topics.agent_of(topics.tasks(agent)) == agent
    assert topics.agent_of(topics.results(agent)) == agent
    assert topics.agent_of(topics.artifacts(agent)) is None


@pytest.mark.parametrize(
    "topic",
    ["orders", "tasks", "tasks.", "results.", "artifacts.reader", "xtasks.reader", "other.tasks.reader", ""],
)
def test_other_topics_hold_no_events(topic: str) -> None:
    assert Topics().agent_of(topic) is None
    assert not Topics().has_events(topic)


def test_topics_of_another_prefix_are_others() -> None:
    assert not Topics("a.").has_events("tasks.reader")
    assert not Topics("a.").has_events("b.tasks.reader")
    assert Topics("a.").has_events("a.results.reader")


def test_the_longest_name_is_one_kafka_takes() -> None:
    for topic in Topics("p" * 64).of("a" * 63):
        assert re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic)
