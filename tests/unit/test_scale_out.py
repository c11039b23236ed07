"""What spreads an application over processes: which agents one runs, and who it is in their groups."""

from collections.abc import Collection

import pytest
from pydantic import ValidationError

from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Workflow
from agents.core.errors import ConfigurationError
from streams import AgentApp
from streams.settings import Settings


class EchoAgent(Agent):
    async def execute(self, input_data: object) -> AgentResult:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


def application(
    only: Collection[str] | None = None, settings: Settings | None = None, llm: str | None = None
) -> AgentApp:
    workflow = Workflow("chain")
    last = None
    for name in ("a", "b", "c"):
        config = AgentConfig(name=name, llm="anthropic" if name == llm else "off")
        last = workflow.step(EchoAgent(config), after=last)
    return AgentApp(workflow, settings=settings or Settings(), only=only)


def running(app: AgentApp) -> list[str]:
    return list(app.not_ready())


def test_all_agents_run_unless_some_are_chosen() -> None:
    assert running(application()) == ["a", "b", "c"]
    assert running(application(only=["c", "a"])) == ["a", "c"]


def test_the_environment_chooses_where_the_application_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_ONLY", " b, ,c ")
    assert Settings().only == ("b", "c")
    assert running(application()) == ["b", "c"]
    assert running(application(only=["a"])) == ["a"]


def test_an_agent_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no agent 'x', 'y' to run; its agents: a, b, c"):
        application(only=["x", "b", "y"])


def test_an_agent_that_runs_elsewhere_needs_no_model_here() -> None:
    assert running(application(only=["a"], llm="b")) == ["a"]
    with pytest.raises(ConfigurationError, match="anthropic"):
        application(only=["b"], llm="b")


def test_members_are_dynamic_unless_an_instance_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().instance_id is None
    monkeypatch.setenv("CALLBOARD_INSTANCE_ID", "shop-0")
    assert Settings().instance_id == "shop-0"


@pytest.mark.parametrize("wrong", ["", "a b", "ä", "a" * 201, "a\n"])
def test_what_kafka_takes_for_no_instance(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(instance_id=wrong)


def test_a_block_may_last_as_long_as_a_session() -> None:
    assert Settings().block_limit == 60
    assert Settings(block_limit_seconds=5).block_limit == 10
    assert Settings(block_limit_seconds=5, session_timeout_ms=2_000).block_limit == 5
