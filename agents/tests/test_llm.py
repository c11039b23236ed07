"""Asking a model: which backend, what a failure becomes, what is counted, and that nothing is retried."""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agents.core.errors import (
    ConfigurationError,
    LLMError,
    LLMIncompleteError,
    LLMOffError,
    LLMUnavailableError,
)
from agents.core.llm import AnthropicProvider, LLMReply, NoProvider, chosen_backend, provider_for
from agents.core.task import Usage, set_current_task
from agents.tests.messages_api import MessagesApi, answer, messages_api, refusal
from agents.tests.tasks import a_task

NO_CHOICE = {"CALLBOARD_LLM": None}


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MessagesApi]:
    async with messages_api() as served:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", served.url)
        yield served


async def ask(**differing: Any) -> LLMReply:
    question: dict[str, Any] = {"system": None, "model": "claude-x", "max_tokens": 100} | differing
    return await AnthropicProvider().ask("why?", **question)


def check_backend(
    patch: pytest.MonkeyPatch, environment: dict[str, str | None], configured: str | None, expected: str
) -> None:
    """Choose in an environment; an expectation that is no backend is part of the error's message."""
    for name, value in environment.items():
        patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
    if expected in {"anthropic", "off"}:
        assert chosen_backend(configured) == expected
    else:
        with pytest.raises(ConfigurationError, match=expected):
            chosen_backend(configured)


@pytest.mark.parametrize(
    ("environment", "configured", "expected"),
    [
        (NO_CHOICE, None, "no language model is chosen: set ANTHROPIC_API_KEY"),
        (NO_CHOICE | {"CALLBOARD_LLM": ""}, None, "no language model is chosen"),
        (NO_CHOICE | {"ANTHROPIC_API_KEY": "k"}, None, "anthropic"),
        (NO_CHOICE | {"ANTHROPIC_AUTH_TOKEN": "t"}, None, "anthropic"),
        (NO_CHOICE | {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}, None, "anthropic"),
        (NO_CHOICE | {"ANTHROPIC_API_KEY": ""}, None, "no language model is chosen"),
        (NO_CHOICE, "off", "off"),
        ({"CALLBOARD_LLM": "off", "ANTHROPIC_API_KEY": "k"}, None, "off"),
        ({"CALLBOARD_LLM": "off", "ANTHROPIC_API_KEY": "k"}, "anthropic", "anthropic"),
        ({"CALLBOARD_LLM": "anthropic", "ANTHROPIC_API_KEY": "k"}, "off", "off"),
        ({"CALLBOARD_LLM": " Off ", "ANTHROPIC_API_KEY": "k"}, None, "off"),
        (
            {"CALLBOARD_LLM": "gpt", "ANTHROPIC_API_KEY": "k"},
            None,
            "'gpt' is unknown; choose one of: anthropic, off",
        ),
        ({"CALLBOARD_LLM": "anthropic"}, None, "needs one of ANTHROPIC_API_KEY"),
        ({"CALLBOARD_LLM": "off"}, "anthropic", "needs one of ANTHROPIC_API_KEY"),
    ],
)
def test_backend_is_chosen_openly(
    environment: dict[str, str | None], configured: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_backend(monkeypatch, environment, configured, expected)


def test_a_backend_has_one_provider_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert provider_for("anthropic") is provider_for("anthropic")
    assert isinstance(provider_for("off"), NoProvider)
    assert (provider_for("anthropic").asks, provider_for("off").asks) == (True, False)


async def test_no_answer_takes_more_tokens_than_a_result_can_say(api: MessagesApi) -> None:
    api.body = answer("x") | {"usage": {"input_tokens": 2**64 - 1, "output_tokens": 2**64 - 1}}
    task = a_task()
    set_current_task(task)
    for _ in range(2):
        await ask()
    most = 2 * (2**53 - 1)
    assert task.usage == Usage(calls=2, input_tokens=most, output_tokens=most)


async def test_evidence_mode_refuses_every_question() -> None:
    with pytest.raises(LLMOffError, match=r"'claude-x' was not asked; set ANTHROPIC_API_KEY"):
        await NoProvider().ask("secret", system=None, model="claude-x", max_tokens=1)


async def test_a_whole_answer(api: MessagesApi) -> None:
    reply = await ask(system="be brief")
    assert (reply, isinstance(reply, str)) == ("done", True)
    assert reply.details.model == "claude-fake-1"
    assert (reply.details.stop_reason, reply.details.input_tokens, reply.details.output_tokens) == (
        "end_turn",
        11,
        7,
    )
    assert (reply.details.cost, reply.details.replayed) == (None, False)
    (request,) = api.requests
    assert request.pop("line").startswith("POST /v1/messages ")
    assert request == {
        "model": "claude-x",
        "max_tokens": 100,
        "system": "be brief",
        "messages": [{"role": "user", "content": "why?"}],
    }  # and no sampling parameters


async def test_several_text_blocks_are_one_answer_and_no_system_prompt_is_sent_as_none(
    api: MessagesApi,
) -> None:
    api.body = answer("a") | {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert await ask() == "ab"
    assert "system" not in api.requests[0]


async def test_stop_sequence_is_a_whole_answer(api: MessagesApi) -> None:
    api.body = answer("x", stop_reason="stop_sequence")
    assert (await ask()).details.stop_reason == "stop_sequence"


@pytest.mark.parametrize(
    ("stop_reason", "advice"),
    [
        ("max_tokens", r"raise AgentConfig\(max_tokens=\.\.\.\)"),
        ("model_context_window_exceeded", "shorten the question"),
        ("refusal", "declined"),
        ("pause_turn", "not whole"),
        ("tool_use", "not whole"),
        (None, "not whole"),
    ],
)
async def test_an_answer_that_is_not_whole_is_an_error_that_keeps_the_text(
    stop_reason: str | None, advice: str, api: MessagesApi
) -> None:
    api.body = answer("half of", stop_reason=stop_reason)
    with pytest.raises(LLMIncompleteError, match=advice) as caught:
        await ask()
    assert caught.value.partial == "half of"
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "invalid_request_error", False),
        (401, "authentication_error", False),
        (404, "not_found_error", False),
        (408, "timeout_error", True),
        (413, "request_too_large", False),
        (429, "rate_limit_error", True),
        (500, "api_error", True),
        (529, "overloaded_error", True),
    ],
)
async def test_a_refused_question_is_asked_once_and_says_whether_waiting_helps(
    status: int, kind: str, *, retryable: bool, api: MessagesApi
) -> None:
    api.status, api.body = status, refusal(kind, "the reason")
    with pytest.raises(
        LLMUnavailableError, match=rf"answered {status} for model 'claude-x': .*the reason"
    ) as caught:
        await ask()
    assert caught.value.retryable is retryable
    assert len(api.requests) == 1


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(LLMUnavailableError, match="could not be reached for model 'claude-x'") as caught:
            await ask()
    assert caught.value.retryable


async def test_a_connection_that_breaks_off_is_no_answer(api: MessagesApi) -> None:
    api.cut = True
    with pytest.raises(LLMUnavailableError, match="could not be reached") as caught:
        await ask()
    assert caught.value.retryable
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "body", [b"<html>login</html>", {}, {"content": None}, answer("x") | {"usage": None}, []]
)
async def test_an_answer_that_is_no_message_is_an_error_of_the_tree(body: Any, api: MessagesApi) -> None:
    api.body = body
    with pytest.raises(LLMError, match="claude-x"):
        await ask()
    assert len(api.requests) == 1


async def test_a_server_of_ones_own_needs_no_key_and_a_real_key_is_sent(
    api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the-key")
    await ask()
    assert [headers["authorization"] for headers in api.headers] == ["bearer none", "bearer the-key"]


async def test_usage_adds_up_in_the_current_task_even_where_the_answer_is_not_whole(api: MessagesApi) -> None:
    task = a_task()
    set_current_task(task)
    await ask()
    api.body = answer("x", stop_reason="max_tokens")
    with pytest.raises(LLMIncompleteError):
        await ask()
    assert task.usage == Usage(calls=2, input_tokens=22, output_tokens=14)
    api.status, api.body = 529, refusal("overloaded_error")
    with pytest.raises(LLMUnavailableError):
        await ask()
    assert task.usage.calls == 2


def test_the_client_is_imported_by_the_first_question_only() -> None:
    code = (
        "import sys, agents.core, agents.core.llm as llm\n"
        "llm.provider_for('off'); llm.AnthropicProvider()\n"
        "sys.exit('anthropic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 (our own)
