"""The provider does to requests what its script says, and its ledger has them before they are answered."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.core.errors import LLMUnavailableError
from agents.core.llm import AnthropicProvider

from .history import Call, read_ledger
from .provider import OUTCOMES, RETRY_AFTER_SECONDS, Ledger, Provider, Script


@asynccontextmanager
async def provider(folder: Path, script: Script) -> AsyncIterator[Provider]:
    it = Provider(script, Ledger(folder / "ledger.jsonl"))
    await it.start()
    try:
        yield it
    finally:
        await it.stop()


def body(prompt: str) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": prompt}]}


async def ask(it: Provider, prompt: str, client: httpx.AsyncClient) -> httpx.Response:
    return await client.post(f"http://127.0.0.1:{it.port}/v1/messages", json=body(prompt))


def ledger(folder: Path) -> list[Call]:
    return read_ledger(folder / "ledger.jsonl")


async def test_an_answer_is_in_the_ledger_and_names_itself(tmp_path: Path) -> None:
    async with provider(tmp_path, Script()) as it, httpx.AsyncClient() as client:
        said = [(await ask(it, prompt, client)).json() for prompt in ("one", "two", "one")]
    calls = ledger(tmp_path)
    assert [call.prompt for call in calls] == ["one", "two", "one"]
    assert [call.answer for call in calls] == [it["content"][0]["text"] for it in said]
    assert len({call.answer for call in calls}) == 3
    assert calls[0].sha256 == calls[2].sha256 != calls[1].sha256
    assert all(call.outcome == "ok" and call.until >= call.at for call in calls)


@pytest.mark.parametrize(("outcome", "status"), [("429", 429), ("500", 500), ("529", 529)])
async def test_refusals(tmp_path: Path, outcome: str, status: int) -> None:
    async with provider(tmp_path, Script(weights={outcome: 1})) as it, httpx.AsyncClient() as client:
        said = await ask(it, "one", client)
    assert said.status_code == status
    assert said.json()["type"] == "error"
    assert said.headers.get("retry-after") == ("1" if outcome == "429" else None)
    assert [(call.outcome, call.retry_after) for call in ledger(tmp_path)] == [
        (outcome, RETRY_AFTER_SECONDS if outcome == "429" else None)
    ]


async def test_a_connection_that_breaks_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    async with provider(tmp_path, Script(weights={"reset": 1})) as it, httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await ask(it, "one", client)
    assert [call.outcome for call in ledger(tmp_path)] == ["reset"]


async def test_an_answer_that_is_no_json(tmp_path: Path) -> None:
    async with provider(tmp_path, Script(weights={"truncated": 1})) as it, httpx.AsyncClient() as client:
        said = await ask(it, "one", client)
        with pytest.raises(json.JSONDecodeError):
            said.json()
    assert [call.outcome for call in ledger(tmp_path)] == ["truncated"]


async def test_one_that_never_answers_is_in_the_ledger_all_the_same(tmp_path: Path) -> None:
    script = Script(weights={"hang": 1})
    async with provider(tmp_path, script) as it, httpx.AsyncClient(timeout=0.2) as client:
        with pytest.raises(httpx.ReadTimeout):
            await ask(it, "one", client)
    assert [call.outcome for call in ledger(tmp_path)] == ["hang"]


async def test_a_request_that_came_often_enough_is_answered(tmp_path: Path) -> None:
    script = Script(weights={"500": 1}, calm_after=2)
    async with provider(tmp_path, script) as it, httpx.AsyncClient() as client:
        said = [(await ask(it, "one", client)).status_code for _ in range(3)]
    assert said == [500, 500, 200]


def test_what_happens_depends_on_seed_request_and_number_alone() -> None:
    weights = dict.fromkeys(OUTCOMES, 1.0)
    one, other = Script(1, weights, (0.0, 1.0)), Script(2, weights, (0.0, 1.0))
    drawn = [one.draw(f"request {number}", 0) for number in range(2_000)]
    assert drawn == [one.draw(f"request {number}", 0) for number in range(2_000)]
    assert drawn != [other.draw(f"request {number}", 0) for number in range(2_000)]
    often = Counter(outcome for outcome, _ in drawn)
    assert often.keys() == set(OUTCOMES)
    assert min(often.values()) > 2_000 / len(OUTCOMES) * 0.7


async def test_the_real_client_understands_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with provider(tmp_path, Script()) as it:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{it.port}")
        real = AnthropicProvider()
        reply = await real.ask("one", system="two", model="m", max_tokens=9)
        assert reply == ledger(tmp_path)[0].answer
        it.script = Script(weights={"529": 1})
        with pytest.raises(LLMUnavailableError) as refused:
            await real.ask("other", system=None, model="m", max_tokens=9)
        assert refused.value.retryable
        assert real._client is not None
        await real._client.close()
