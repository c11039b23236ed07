"""Model calls as steps: what a repeated run pays, what is in doubt, and what a run may spend."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from agents.core import Agent, AgentConfig, AgentResult, Budget, Task
from agents.core.budget import Spent
from agents.core.errors import (
    BudgetExceededError,
    InDoubtError,
    LLMIncompleteError,
    LLMUnavailableError,
    is_retryable,
    retry_after,
)
from agents.core.llm import LLMReply
from agents.core.task import Usage, set_current_task
from agents.tests.memory_journal import MemoryJournal
from agents.tests.messages_api import MessagesApi, answer, messages_api, refusal
from agents.tests.spending import Spending
from agents.tests.tasks import a_task


class Asker(Agent):
    """Asks a model."""

    async def execute(self, input_data: Any) -> AgentResult:
        raise NotImplementedError

    async def ask(self, question: str = "why?", **more: Any) -> LLMReply:
        return await self._call_llm(question, **more)


class Run:
    """One run, over its attempts, with what a worker keeps for it."""

    def __init__(self, journal: MemoryJournal | None = None, budget: Budget | None = None) -> None:
        self.journal = MemoryJournal() if journal is None else journal
        self.usage = Usage()
        self.allowance = None if budget is None else Spending(budget)

    def attempt(self, **config: Any) -> Asker:
        """Begin an attempt in the calling context."""
        self.task: Task = a_task(journal=self.journal, usage=self.usage, allowance=self.allowance)
        set_current_task(self.task)
        return Asker(AgentConfig(llm="anthropic", model="claude-x", max_tokens=100, **config))

    def restarted(self) -> "Run":
        """Give the same run in another process."""
        budget = None if self.allowance is None else self.allowance.budget
        return Run(MemoryJournal(self.journal.log), budget)


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MessagesApi]:
    async with messages_api() as served:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", served.url)
        yield served


# The journal --------------------------------------------------------------------------------------


async def test_an_answer_is_asked_for_once_and_then_comes_out_of_the_journal(api: MessagesApi) -> None:
    run = Run()
    first = await run.attempt().ask(system="be brief")
    run = run.restarted()
    again = await run.attempt().ask(system="be brief")
    assert (first, first.replayed) == (again, False) == ("done", False)
    assert again.replayed
    assert again.details.output_tokens == first.details.output_tokens == 7
    assert len(api.requests) == 1


async def test_what_is_kept_is_the_whole_question_and_the_answer_as_it_came(api: MessagesApi) -> None:
    run = Run()
    await run.attempt().ask(system="be brief")
    started, completed = run.journal.log
    assert started.key[:2] == ("llm", "claude-x")
    assert started.what == {
        "model": "claude-x",
        "max_tokens": 100,
        "system": "be brief",
        "messages": [{"role": "user", "content": "why?"}],
    }
    assert json.loads(completed.what) == api.body


@pytest.mark.parametrize("differing", [{"question": "how?"}, {"system": "be brief"}])
async def test_another_question_is_another_step(differing: dict[str, str], api: MessagesApi) -> None:
    run = Run()
    await run.attempt().ask()
    await run.attempt().ask(**differing)
    assert len(api.requests) == 2


async def test_an_answer_that_is_not_whole_is_paid_once_too(api: MessagesApi) -> None:
    api.body = answer("half of", stop_reason="max_tokens")
    run = Run()
    for _ in range(2):
        with pytest.raises(LLMIncompleteError) as caught:
            await run.attempt().ask()
        assert caught.value.partial == "half of"
    assert run.journal.states == ["started", "completed"]
    assert len(api.requests) == 1


async def test_an_answer_that_is_no_message_is_kept_as_well_and_one_that_is_no_json_has_failed(
    api: MessagesApi,
) -> None:
    for body, state in (({"login": "please"}, "completed"), (b"<html>", "failed")):
        api.body = body
        run = Run()
        with pytest.raises(LLMUnavailableError, match="claude-x"):
            await run.attempt().ask()
        assert run.journal.states == ["started", state]


async def test_an_answer_that_was_broken_off_is_in_doubt_and_asked_for_again(api: MessagesApi) -> None:
    api.body = b'{"content": [{"type": "te'
    run = Run()
    with pytest.raises(LLMUnavailableError, match="broken off") as caught:
        await run.attempt().ask()
    assert caught.value.retryable
    assert run.journal.states == ["started"]
    api.body = answer("whole")
    assert await run.attempt().ask() == "whole"


async def test_questions_that_are_asked_together_are_found_again_in_any_order(api: MessagesApi) -> None:
    run = Run()
    agent = run.attempt()
    await asyncio.gather(*(agent.ask(question) for question in ("a", "b", "a")))
    agent = run.restarted().attempt()
    replies = await asyncio.gather(*(agent.ask(question) for question in ("b", "a", "a")))
    assert [reply.replayed for reply in replies] == [True] * 3
    assert len(api.requests) == 3


# What it took -------------------------------------------------------------------------------------


async def test_a_replayed_answer_belongs_to_what_the_run_took_and_not_to_what_this_process_paid(
    api: MessagesApi,
) -> None:
    run = Run()
    agent = run.attempt()
    await agent.ask("one")
    await agent.ask("two")
    run = run.restarted()
    agent = run.attempt()
    for question in ("one", "two", "three"):
        await agent.ask(question)
    assert run.usage == Usage(calls=3, input_tokens=33, output_tokens=21)
    assert run.usage.fresh == Spent(1, 11, 7)
    assert len(api.requests) == 3


async def test_a_second_attempt_in_the_same_process_counts_nothing_twice(api: MessagesApi) -> None:
    run = Run(budget=Budget(calls=5))
    for _ in range(3):
        await run.attempt().ask()
    assert run.usage == Usage(calls=1, input_tokens=11, output_tokens=7)
    assert run.usage.fresh == Spent(1, 11, 7)
    assert run.allowance is not None
    assert run.allowance.left == Budget(calls=4)
    assert len(api.requests) == 1


# Failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "code", "retryable", "after"),
    [
        (429, {"retry-after": "7"}, None, True, 7.0),
        (429, {"retry-after-ms": "250", "retry-after": "7"}, None, True, 0.25),
        (429, {"retry-after": "soon"}, None, True, None),
        (429, {"retry-after": "-1"}, None, True, None),
        (429, {"x-should-retry": "false"}, None, False, None),
        (429, {"x-should-retry": "true"}, "enforced_spend_limit_reached", False, None),
        (429, {}, "contract_spend_limit_reached", False, None),
        (429, {}, "ramp_limit_exceeded", True, None),
        (400, {"x-should-retry": "true"}, None, True, None),
        (409, {}, None, True, None),
        (503, {"retry-after": "1.5"}, None, True, 1.5),
        (529, {}, None, True, None),
    ],
)
async def test_a_refusal_is_certain_and_says_whether_and_when_to_ask_again(  # noqa: PLR0913 (a table)
    status: int,
    headers: dict[str, str],
    code: str | None,
    after: float | None,
    api: MessagesApi,
    *,
    retryable: bool,
) -> None:
    api.status, api.extra, api.body = status, headers, refusal("some_error", code=code)
    run = Run()
    with pytest.raises(LLMUnavailableError) as caught:
        await run.attempt(in_doubt="park").ask()
    assert (is_retryable(caught.value), retry_after(caught.value)) == (retryable, after)
    assert run.journal.states == ["started", "failed"]
    api.status, api.body = 200, answer("done")
    assert await run.attempt(in_doubt="park").ask() == "done"


async def test_a_time_to_ask_again_may_be_a_date(api: MessagesApi) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    api.status, api.body = 529, refusal("overloaded_error")
    api.extra = {"retry-after": format_datetime(at, usegmt=True)}
    with pytest.raises(LLMUnavailableError) as caught:
        await Run().attempt().ask()
    assert retry_after(caught.value) == pytest.approx(3600, abs=60)


async def test_a_connection_that_is_refused_has_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(LLMUnavailableError) as caught:
            await run.attempt().ask()
    assert (caught.value.retryable, caught.value.uncertain) == (True, False)
    assert run.journal.states == ["started", "failed"]


async def check_in_doubt(run: Run, api: MessagesApi) -> None:
    """Check that a question was put, and that it is repeated or not as the agent wishes."""
    assert run.journal.states == ["started"]
    api.silent = api.cut = False
    with pytest.raises(InDoubtError, match=r"the question to 'claude-x' .* was begun once"):
        await run.attempt(in_doubt="park").ask()
    assert len(api.requests) == 1
    assert await run.restarted().attempt().ask() == "done"
    assert len(api.requests) == 2


async def test_a_connection_that_breaks_off_leaves_the_question_in_doubt(api: MessagesApi) -> None:
    run, api.cut = Run(), True
    with pytest.raises(LLMUnavailableError) as caught:
        await run.attempt().ask()
    assert (caught.value.retryable, caught.value.uncertain) == (True, True)
    await check_in_doubt(run, api)


@pytest.mark.parametrize(
    ("error", "uncertain"),
    [
        (httpx2.ConnectError("no"), False),
        (httpx2.ConnectTimeout("no"), False),
        (httpx2.PoolTimeout("no"), False),
        (httpx2.WriteError("no"), True),
        (httpx2.ReadTimeout("no"), True),
        (httpx2.RemoteProtocolError("no"), True),
        (RuntimeError("what nobody thought of"), True),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_question_is_in_doubt_unless_it_was_certainly_not_sent(
    error: Exception, monkeypatch: pytest.MonkeyPatch, *, uncertain: bool
) -> None:
    asked: list[httpx2.Request] = []

    def fail(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        raise error

    def connected(**_: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(fail))

    monkeypatch.setattr("anthropic.DefaultAsyncHttpxClient", connected)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    run = Run()
    with pytest.raises(LLMUnavailableError) as caught:
        await run.attempt(llm_timeout=77).ask()
    assert (caught.value.retryable, caught.value.uncertain) == (True, uncertain)
    assert run.journal.states == (["started"] if uncertain else ["started", "failed"])
    (request,) = asked
    assert request.extensions["timeout"] == {"connect": 30.0, "read": 77, "write": 77, "pool": 77}


async def test_a_canceled_question_is_in_doubt(api: MessagesApi) -> None:
    run, api.silent = Run(), True
    asking = asyncio.create_task(run.attempt().ask())
    await api.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await check_in_doubt(run, api)


# What a run may spend -----------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [Budget(calls=0), Budget(tokens=100)])
async def test_what_a_run_may_not_spend_is_not_asked(budget: Budget, api: MessagesApi) -> None:
    run = Run(budget=budget)
    with pytest.raises(BudgetExceededError, match="101 tokens"):
        await run.attempt().ask()
    assert (api.requests, run.journal.log) == ([], [])


async def test_a_call_takes_what_it_really_took(api: MessagesApi) -> None:
    run = Run(budget=Budget(calls=2, tokens=200, usd="0.5"))
    agent = run.attempt()
    await agent.ask()
    assert run.allowance is not None
    assert run.allowance.left == Budget(calls=1, tokens=182, usd="0.5")
    assert run.allowance.spent == Spent(1, 11, 7)
    api.status, api.body = 529, refusal("overloaded_error")
    with pytest.raises(LLMUnavailableError):
        await agent.ask("again?")
    assert run.allowance.left == Budget(calls=1, tokens=182, usd="0.5")


async def test_calls_at_the_same_time_do_not_spend_more_than_there_is(api: MessagesApi) -> None:
    agent = Run(budget=Budget(calls=2)).attempt()
    asked = await asyncio.gather(*(agent.ask(f"{n}") for n in range(4)), return_exceptions=True)
    assert [type(it) for it in asked] == [LLMReply, LLMReply, BudgetExceededError, BudgetExceededError]
    assert len(api.requests) == 2


async def test_a_question_in_doubt_takes_what_it_may_have_taken(api: MessagesApi) -> None:
    run, api.cut = Run(budget=Budget(calls=2, tokens=1000)), True
    with pytest.raises(LLMUnavailableError):
        await run.attempt().ask()
    assert run.allowance is not None
    assert run.allowance.left == Budget(calls=1, tokens=899)


async def test_after_a_restart_replayed_answers_are_taken_from_the_budget_once(api: MessagesApi) -> None:
    run = Run(budget=Budget(calls=2))
    await run.attempt().ask()
    run = run.restarted()
    for _ in range(2):
        assert (await run.attempt().ask()).replayed
    assert run.allowance is not None
    assert run.allowance.left == Budget(calls=1)
    await run.attempt().ask("the last one")
    with pytest.raises(BudgetExceededError):
        await run.attempt().ask("one more")
    assert len(api.requests) == 2


async def test_a_replay_needs_no_budget_at_all(api: MessagesApi) -> None:
    run = Run()
    await run.attempt().ask()
    run.allowance = Spending(Budget(calls=0))
    assert (await run.attempt().ask()).replayed
    assert len(api.requests) == 1
