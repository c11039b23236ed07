"""The first agent of the user's page, unchanged, against a server that speaks the provider's protocol."""

import pytest

from agents.core import Agent, AgentResult, AgentStatus, Workflow
from agents.core.errors import ConfigurationError, LLMOffError
from agents.tests.messages_api import messages_api


class MyCustomAgent(Agent):
    @property
    def system_prompt(self) -> str:
        return "You count words."

    async def execute(self, input_data: str) -> AgentResult:
        response = await self._call_llm(f"{self.system_prompt}\n\nTask: {input_data}")
        return AgentResult(status=AgentStatus.COMPLETED, output=response)


async def test_it_asks_the_model_and_gives_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALLBOARD_LLM")  # as a user who only has an address or a key
    async with messages_api() as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        result = await MyCustomAgent().execute("one two")
    assert (result.status, result.output, result.error) == (AgentStatus.COMPLETED, "done", None)
    (request,) = api.requests
    assert request["messages"] == [{"role": "user", "content": "You count words.\n\nTask: one two"}]
    assert (request["model"], request["max_tokens"]) == ("claude-sonnet-5-5", 4096)
    assert result.model_dump(mode="json")["output"] == "done"  # the reply is a plain string on the wire


async def test_in_evidence_mode_it_fails_clearly() -> None:
    with pytest.raises(LLMOffError) as caught:
        await MyCustomAgent().execute("one two")
    failed = AgentResult.failed(caught.value)
    assert failed.error is not None
    assert (failed.status, failed.error.type, failed.error.retryable) == (
        AgentStatus.FAILED,
        "llm_off",
        False,
    )
    assert "CALLBOARD_LLM=off" in failed.error.message
    assert "ANTHROPIC_API_KEY" in failed.error.message


async def test_without_any_choice_it_says_what_the_choices_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALLBOARD_LLM")
    with pytest.raises(ConfigurationError, match="no language model is chosen"):
        await MyCustomAgent().execute("one two")


def test_it_is_named_after_its_class_and_fits_a_workflow() -> None:
    assert Workflow("words").step(MyCustomAgent()).name == "my_custom"
