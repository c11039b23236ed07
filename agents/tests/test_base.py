"""The class users write agents with: names, typed inputs, results, and the model it asks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from inspect import isawaitable
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Artifact
from agents.core.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    LLMIncompleteError,
    LLMUnavailableError,
    all_errors,
)
from agents.core.llm import NoProvider

T = TypeVar("T")


class Echo(Agent):
    async def execute(self, input_data: Any) -> AgentResult:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


class Ticket(BaseModel):
    number: int
    title: str = "none"


class Verdict(TypedDict):
    good: bool


class TicketAgent(Agent[Ticket, str]):
    async def execute(self, input_data: Ticket) -> AgentResult[str]:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data.title)


class InputOnlyAgent(Agent[Ticket]):
    async def execute(self, input_data: Ticket) -> AgentResult:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data.title)


class LoudTicketAgent(TicketAgent):
    pass


class ToText(Agent[T, str], Generic[T]):
    async def execute(self, input_data: T) -> AgentResult[str]:
        return AgentResult(status=AgentStatus.COMPLETED, output=str(input_data))


class TicketToText(ToText[Ticket]):
    pass


class FromText(Agent[str, T], Generic[T]):
    async def execute(self, input_data: str) -> AgentResult[T]:
        raise NotImplementedError


class TextToVerdict(FromText[Verdict]):
    pass


class CountingMixin(Generic[T]):
    pass


class MixedAgent(CountingMixin[int], Agent[Ticket, str]):
    async def execute(self, input_data: Ticket) -> AgentResult[str]:
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data.title)


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("CodeReviewerAgent", "code_reviewer"),
        ("ResearcherAgent", "researcher"),
        ("HTTPAgent", "http"),
        ("MyHTTPClientAgent", "my_http_client"),
        ("GPT4Agent", "gpt4"),
        ("Summarizer", "summarizer"),
        ("AgentSmith", "agent_smith"),
        ("Agent", "agent"),
    ],
)
def test_the_name_comes_from_the_class(class_name: str, expected: str) -> None:
    assert type(class_name, (Echo,), {})().name == expected


@pytest.mark.parametrize("name", ["Upper", "1st", "a.b", "a b", "a/b", "a\n", "ä", "_a", "-a", "a" * 64])
def test_a_name_that_cannot_name_a_topic_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a topic"):
        Echo(AgentConfig(name=name))


def test_a_chosen_name_wins() -> None:
    assert Echo(AgentConfig(name="a" * 63)).name == "a" * 63
    assert Echo(AgentConfig(name="second-echo_2")).name == "second-echo_2"


@pytest.mark.parametrize("class_name", ["_PrivateAgent", "ÜberAgent"])
def test_a_class_name_that_gives_no_topic_name_is_refused_too(class_name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a topic"):
        type(class_name, (Echo,), {})()


def test_an_agent_without_execute_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="execute"):
        Agent()  # type: ignore[abstract]


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"max_tokens": 0},
        {"max_tokens": 30_000},
        {"llm": "gpt"},
        {"version": "1" * 256},
        {"version": "\ud800"},  # every result says it, the failed ones as well, so it has to be text
        {"modle": "claude"},
    ],
)
def test_a_wrong_option_is_refused_when_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AgentConfig(**wrong)


def test_options_do_not_change_later() -> None:
    with pytest.raises(ValidationError):
        AgentConfig().concurrency = 2


@pytest.mark.parametrize(
    "agent",
    [TicketAgent(), InputOnlyAgent(), LoudTicketAgent(), TicketToText(), MixedAgent()],
    ids=lambda agent: agent.name,
)
def test_a_named_input_type_is_checked(agent: Agent) -> None:
    assert agent.parse_input({"number": 3}) == Ticket(number=3)
    with pytest.raises(InvalidInputError) as caught:
        agent.parse_input({"number": "x-secret"})
    message = str(caught.value)
    assert message == (
        f"the input of agent {agent.name!r} is not valid: number: Input should be a valid integer,"
        " unable to parse string as an integer"
    )


def test_an_input_that_is_no_object_names_the_input() -> None:
    with pytest.raises(InvalidInputError, match="not valid: input: Input should be a valid dictionary"):
        TicketAgent().parse_input(7)


def test_the_output_type_is_not_taken_for_the_input_type() -> None:
    assert TextToVerdict().parse_input("text") == "text"
    with pytest.raises(InvalidInputError, match="valid string"):
        TextToVerdict().parse_input({"good": True})


@pytest.mark.parametrize("value", ["text", None, 3, {"a": [1]}, []])
def test_without_a_named_type_the_input_is_what_was_sent(value: Any) -> None:
    assert Echo().parse_input(value) is value
    assert ToText().parse_input(value) is value


def test_classes_do_not_share_their_input_types() -> None:
    assert Echo._input is None
    assert TicketAgent._input is not None


@pytest.mark.parametrize(
    ("error", "kind", "message", "retryable"),
    [
        (ValueError("too blue"), "ValueError", "too blue", False),
        (ValueError(), "ValueError", "ValueError()", False),
        (DeadlineExceededError("late"), "deadline_exceeded", "late", False),
        (LLMUnavailableError("busy", retryable=True), "llm_unavailable", "busy", True),
        (LLMIncompleteError("half", partial="x"), "llm_incomplete", "half", False),
    ],
)
def test_a_failed_result_says_what_its_error_says(
    error: Exception, kind: str, message: str, *, retryable: bool
) -> None:
    result: AgentResult[Any] = AgentResult.failed(error)
    assert result.error is not None
    assert (result.status, result.output) == (AgentStatus.FAILED, None)
    assert (result.error.type, result.error.message, result.error.retryable) == (kind, message, retryable)


def test_every_error_has_a_type_of_its_own() -> None:
    kinds = set(all_errors())
    assert len({kind.type for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "done"},
        {"status": "completed", "outptu": 1},
        {},
        {"status": "completed", "artifacts": ["report.md"]},
    ],
)
def test_a_wrong_result_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AgentResult(**wrong)


def test_artifacts_may_be_given_as_a_list_and_do_not_show_their_content() -> None:
    artifact = Artifact(name="report.md", content=b"secret")
    result: AgentResult[Any] = AgentResult(status=AgentStatus.COMPLETED, artifacts=[artifact])  # type: ignore[arg-type]
    assert result.artifacts == (artifact,)
    assert "secret" not in repr(result)


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_an_artifact_needs_a_name_of_bounded_length(name: str) -> None:
    with pytest.raises(ValidationError):
        Artifact(name=name, content=b"")


def test_an_agents_own_choice_of_backend_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("CALLBOARD_LLM", "anthropic")
    assert isinstance(Echo(AgentConfig(llm="off")).llm, NoProvider)
    assert Echo().llm.asks


def test_an_agent_without_a_prompt_has_an_empty_one() -> None:
    assert Echo().system_prompt == ""


@pytest.mark.parametrize(
    ("value", "hinted"), [('{"number": 1}', True), (" [1]", True), ("one", False), (1, False)]
)
def test_text_that_looks_like_json_is_pointed_out(value: Any, *, hinted: bool) -> None:
    with pytest.raises(InvalidInputError) as raised:
        TicketAgent().parse_input(value)
    assert ("--input-json" in str(raised.value)) is hinted


class PlainAgent(Echo):
    def execute(self, input_data: Any) -> AgentResult[Any]:  # type: ignore[override]
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


class QuotedAgent(Echo):
    def execute(self, input_data: Any) -> "AgentResult[Any]":  # type: ignore[override]
        return AgentResult(status=AgentStatus.COMPLETED, output=input_data)


class NothingAgent(Echo):
    def execute(self, input_data: Any) -> None:  # type: ignore[override]
        del input_data


class YieldingAgent(Echo):
    async def execute(self, input_data: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        yield input_data


@pytest.mark.parametrize("kind", [PlainAgent, QuotedAgent, NothingAgent, YieldingAgent])
def test_an_execute_that_cannot_be_awaited_is_refused_before_any_task(kind: type[Echo]) -> None:
    with pytest.raises(ConfigurationError, match=f"{kind.__name__}.execute .*: write `async def execute`"):
        kind()


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


class HandingOnAgent(Echo):
    def execute(self, input_data: Any) -> Awaitable[AgentResult[Any]]:  # type: ignore[override]
        return super().execute(input_data)


class SilentAgent(Echo):
    def execute(self, input_data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return super().execute(input_data)


class TracedAgent(Echo):
    @traced
    async def execute(self, input_data: Any) -> AgentResult[Any]:
        return await super().execute(input_data)


@pytest.mark.parametrize("kind", [HandingOnAgent, SilentAgent, TracedAgent])
def test_an_execute_that_may_be_awaited_is_taken(kind: type[Echo]) -> None:
    running = kind().execute("x")
    assert isawaitable(running)
    running.close()
