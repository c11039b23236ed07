"""Journaled side effects: what is written when, what a repeated run gets, and what nobody pays twice."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from operator import methodcaller
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agents import metrics
from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Task
from agents.core.blocking import in_thread
from agents.core.errors import InDoubtError, InvalidOutputError, RetryLaterError, is_retryable, retry_after
from agents.core.step import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Journal, StepKey, is_uncertain
from agents.core.task import set_current_task
from agents.tests.memory_journal import MemoryJournal, Written, known_of
from agents.tests.tasks import a_task

Work = Callable[[Agent], Awaitable[Any]]


class Worker(Agent):
    """Does in `execute` what a test wants."""

    def __init__(self, work: Work, config: AgentConfig | None = None) -> None:
        super().__init__(config)
        self._work = work

    async def execute(self, input_data: Any) -> AgentResult:
        del input_data
        return AgentResult(status=AgentStatus.COMPLETED, output=await self._work(self))


async def attempt(work: Work, journal: Journal | None, **config: Any) -> Any:
    """Run one attempt as a worker does; gives the output."""
    task = a_task(journal=journal)
    context = copy_context()
    context.run(set_current_task, task)
    running = asyncio.get_running_loop().create_task(
        _executed(Worker(work, AgentConfig(**config)), task), context=context
    )
    try:
        return (await running).output
    finally:
        running.cancel()


async def _executed(agent: Agent, task: Task) -> AgentResult:
    async with task.steps:
        return await agent.execute(task.input)


class Shop:
    """A side effect that counts."""

    def __init__(self, *failures: BaseException | None) -> None:
        self.calls: list[Any] = []
        self._failures = list(failures)

    async def buy(self, what: Any = None, **more: Any) -> Any:
        self.calls.append(what)
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure
        return {"bought": what, "number": len(self.calls)} | more


class Price(BaseModel):
    cents: int
    of: tuple[str, ...] = ()


# What is written, and what is given ---------------------------------------------------------------


async def test_a_step_is_said_before_it_happens_and_kept_before_it_is_used() -> None:
    happened: list[str] = []

    def act() -> None:
        happened.append("it happens")

    async def acknowledge(written: Written) -> None:
        happened.append(f"{written.state} is being written")
        await asyncio.sleep(0)
        happened.append(f"{written.state} is acknowledged")

    async def work(agent: Agent) -> None:
        await agent.step("act", act)
        happened.append("its answer is used")

    await attempt(work, MemoryJournal(acknowledge=acknowledge))
    assert happened == [
        "started is being written",
        "started is acknowledged",
        "it happens",
        "completed is being written",
        "completed is acknowledged",
        "its answer is used",
    ]


async def test_what_is_written() -> None:
    journal, shop = MemoryJournal(), Shop()
    await attempt(lambda agent: agent.step("buy", shop.buy, "tea", cents=3), journal)
    started, completed = journal.log
    assert started.key == completed.key
    kind, name, request, occurrence = started.key
    assert (kind, name, len(request), occurrence) == ("step", "buy", 64, 0)
    assert (started.state, started.tries, started.what) == (
        "started",
        1,
        {"args": ["tea"], "kwargs": {"cents": 3}},
    )
    assert completed == Written("completed", started.key, 1, b'{"bought":"tea","cents":3,"number":1}')


async def test_the_key_of_a_step_is_pinned_because_logs_keep_it() -> None:
    journal = MemoryJournal()
    await attempt(
        lambda agent: agent.step("f", lambda *_, **__: 0, {"b": 1, "a": [2.5, None, "ä"]}, z=True), journal
    )
    assert journal.log[0].key.request == "cd93a17db922dc68e1b90c924a3e5bd7890337d785e9ca8aaa110fbc20dff21b"


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ("text", "text"),
        (None, None),
        ((1, 2.5), [1, 2.5]),
        (Price(cents=3, of=("a",)), {"cents": 3, "of": ["a"]}),
        ([Price(cents=3)], [{"cents": 3, "of": []}]),
        ({"b": 1, "a": {"c": True}}, {"a": {"c": True}, "b": 1}),
    ],
)
async def test_an_answer_is_the_same_the_first_time_and_out_of_the_journal(answer: Any, given: Any) -> None:
    journal = MemoryJournal()
    calls: list[int] = []

    def ask() -> Any:
        calls.append(1)
        return answer

    async def work(agent: Agent) -> Any:
        return await agent.step("ask", ask)

    assert await attempt(work, journal) == given
    assert await attempt(work, MemoryJournal(journal.log)) == given
    assert len(calls) == 1
    assert journal.states == ["started", "completed"]


async def test_a_coroutine_function_and_a_plain_one_are_both_called() -> None:
    async def later(number: int) -> int:
        return number + 1

    assert await attempt(lambda agent: agent.step("later", later, 1), None) == 2
    assert await attempt(lambda agent: agent.step("now", max, 1, 3), None) == 3


async def test_arguments_may_be_pydantic_and_any_change_of_them_is_another_step() -> None:
    journal, shop = MemoryJournal(), Shop()
    for price in (Price(cents=1), Price(cents=2), Price(cents=1)):
        await attempt(methodcaller("step", "buy", shop.buy, price), journal)
    assert [call.cents for call in shop.calls] == [1, 2]


async def test_equal_steps_of_one_attempt_are_counted() -> None:
    journal, shop = MemoryJournal(), Shop()

    async def work(agent: Agent) -> Any:
        return [(await agent.step("buy", shop.buy, "tea"))["number"] for _ in range(3)]

    assert await attempt(work, journal) == [1, 2, 3]
    assert await attempt(work, journal) == [1, 2, 3]
    assert [written.key.occurrence for written in journal.log] == [0, 0, 1, 1, 2, 2]


async def test_a_step_inside_of_a_step_is_found_again_with_it() -> None:
    journal, shop = MemoryJournal(), Shop()

    async def work(agent: Agent) -> Any:
        return await agent.step("outer", lambda: agent.step("inner", shop.buy, "tea"))

    assert await attempt(work, journal) == await attempt(work, journal)
    assert shop.calls == ["tea"]
    assert [written.key.name for written in journal.log] == ["outer", "inner", "inner", "outer"]


async def test_outside_of_a_run_a_step_just_happens() -> None:
    shop = Shop()
    agent = Worker(lambda _: asyncio.sleep(0))
    assert await agent.step("buy", shop.buy, ("tea",)) == {"bought": ["tea"], "number": 1}
    assert (await agent.step("buy", shop.buy, ("tea",)))["number"] == 2


async def test_an_agent_that_runs_in_a_thread_is_journaled_on_the_workers_loop() -> None:
    journal, shop = MemoryJournal(), Shop()
    threads: list[tuple[str, int]] = []

    async def acknowledge(written: Written) -> None:
        threads.append((written.state, threading.get_ident()))

    def act() -> str:
        threads.append(("act", threading.get_ident()))
        return threading.current_thread().name

    async def work(agent: Agent) -> Any:
        async def both() -> Any:
            return await asyncio.gather(agent.step("act", act), agent.step("buy", shop.buy, "tea"))

        return await in_thread(both)

    journal = MemoryJournal(acknowledge=acknowledge)
    name, bought = await attempt(work, journal)
    assert (name, bought["bought"]) == ("callboard-blocking", "tea")
    assert await attempt(work, MemoryJournal(journal.log)) == [name, bought]
    assert shop.calls == ["tea"]
    assert {state for state, thread in threads if thread == threading.get_ident()} == {"started", "completed"}
    assert {state for state, thread in threads if thread != threading.get_ident()} == {"act"}


async def test_a_failure_in_a_thread_is_the_steps() -> None:
    journal, shop = MemoryJournal(), Shop(TimeoutError(), ValueError("no"))

    async def work(agent: Agent) -> Any:
        return await in_thread(lambda: agent.step("buy", shop.buy, "tea"))

    for error in (TimeoutError, ValueError):
        with pytest.raises(error):
            await attempt(work, journal)
    assert journal.states == ["started", "started", "failed"]


# What has no form in JSON -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [object(), {1, 2}, float("nan"), [float("inf")], {1: 2}, b"x", 2**70, "\ud800", Price]
)
async def test_an_argument_without_a_form_in_json_is_an_error_before_anything_happens(wrong: Any) -> None:
    journal, shop = MemoryJournal(), Shop()
    with pytest.raises(TypeError, match="the request of step 'buy' has no form in JSON"):
        await attempt(lambda agent: agent.step("buy", shop.buy, wrong), journal)
    assert (shop.calls, journal.log) == ([], [])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (object(), "the answer of step 'ask' has no form in JSON"),
        (float("nan"), "NaN"),
        ("x" * MAX_ANSWER_BYTES, "keep the bulk as an Artifact"),
    ],
)
async def test_an_answer_that_cannot_be_kept_is_said_to_have_failed(answer: Any, says: str) -> None:
    journal = MemoryJournal()
    with pytest.raises(InvalidOutputError, match=says):
        await attempt(lambda agent: agent.step("ask", lambda: answer), journal)
    assert journal.states == ["started", "failed"]
    error_type, message = journal.log[1].what
    assert (error_type, says in message) == ("invalid_output", True)


async def test_the_largest_answer_is_kept_and_a_large_request_is_known_by_its_hash_alone() -> None:
    journal = MemoryJournal()
    answer = "x" * (MAX_ANSWER_BYTES - 2)
    for _ in range(2):
        assert await attempt(lambda agent: agent.step("ask", lambda text: text, answer), journal) == answer
    assert journal.states == ["started", "completed"]
    assert journal.log[0].what is None
    fits = "x" * (MAX_REQUEST_BYTES - len('{"args":[""],"kwargs":{}}'))
    await attempt(lambda agent: agent.step("fits", len, fits), journal)
    assert journal.log[2].what == {"args": [fits], "kwargs": {}}


# Failures -----------------------------------------------------------------------------------------

CERTAIN = [
    ValueError("no"),
    ConnectionRefusedError(),
    OSError("no route"),
    RetryLaterError("later", after=3),
    httpx.ConnectError("no"),
    httpx.ConnectTimeout("no"),
    httpx.PoolTimeout("no"),
    httpx.HTTPStatusError("500", request=httpx.Request("GET", "http://a"), response=httpx.Response(500)),
]
UNCERTAIN = [
    TimeoutError(),
    ConnectionResetError(),
    BrokenPipeError(),
    httpx.ReadTimeout("no"),
    httpx.ReadError("no"),
    httpx.WriteError("no"),
    httpx.RemoteProtocolError("no"),
    asyncio.CancelledError(),
    SystemExit(),
]


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("error", CERTAIN, ids=name_of)
async def test_a_certain_failure_is_written_and_the_step_happens_again(error: Exception) -> None:
    journal, shop = MemoryJournal(), Shop(error)

    async def work(agent: Agent) -> Any:
        return await agent.step("buy", shop.buy, "tea")

    with pytest.raises(type(error)):
        await attempt(work, journal, in_doubt="park")
    assert journal.states == ["started", "failed"]
    assert (await attempt(work, journal, in_doubt="park"))["number"] == 2
    assert [(written.state, written.tries) for written in journal.log[2:]] == [
        ("started", 2),
        ("completed", 2),
    ]


@pytest.mark.parametrize("error", UNCERTAIN, ids=name_of)
async def test_after_an_uncertain_failure_the_step_is_in_doubt(error: BaseException) -> None:
    assert is_uncertain(error)
    if isinstance(error, SystemExit):
        return  # it would end the event loop of the test
    journal, shop = MemoryJournal(), Shop(error)

    async def work(agent: Agent) -> Any:
        return await agent.step("buy", shop.buy, "tea")

    with pytest.raises(type(error)):
        await attempt(work, journal)
    assert journal.states == ["started"]
    with pytest.raises(
        InDoubtError,
        match=r"step 'buy' \(.*, number 1\) was begun once and nobody knows.* its task can be published",
    ):
        await attempt(work, journal, in_doubt="park")
    assert (journal.states, shop.calls) == (["started"], ["tea"])
    assert (await attempt(work, journal, in_doubt="retry"))["number"] == 2
    assert [(written.state, written.tries) for written in journal.log[1:]] == [
        ("started", 2),
        ("completed", 2),
    ]


class NothingSentError(TimeoutError):
    uncertain = False


class PerhapsSentError(ValueError):
    uncertain = True


def test_an_error_may_say_itself_whether_it_is_certain() -> None:
    assert not is_uncertain(NothingSentError())
    assert is_uncertain(PerhapsSentError())


async def test_how_steps_end_is_counted_and_a_repeated_one_is_logged() -> None:
    journal, shop = MemoryJournal(), Shop(TimeoutError(), ValueError("no"))

    async def work(agent: Agent) -> Any:
        return await agent.step("buy", shop.buy, "tea")

    def counted(status: str) -> float:
        labels = {"agent": "reader", "kind": "step", "status": status}
        return metrics.REGISTRY.get_sample_value("callboard_steps_total", labels) or 0

    statuses = ["in_doubt", "repeated", "failed", "completed", "replayed", "parked"]
    before = [counted(status) for status in statuses]
    with pytest.raises(TimeoutError):
        await attempt(work, journal)
    with structlog.testing.capture_logs() as logged, pytest.raises(ValueError, match="no"):
        await attempt(work, journal)
    assert [(line["event"], line["log_level"], line["name"], line["tries"]) for line in logged] == [
        ("step is in doubt and happens again", "warning", "buy", 1)
    ]
    await attempt(work, journal)
    await attempt(work, journal)
    assert [counted(status) - known for status, known in zip(statuses, before, strict=True)] == [
        1,
        1,
        1,
        1,
        1,
        0,
    ]


async def test_a_canceled_step_writes_nothing() -> None:
    journal, begun = MemoryJournal(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(attempt(lambda agent: agent.step("hang", hang), journal))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.sleep(0)
    assert journal.states == ["started"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RetryLaterError("x", after=2), (True, 2.0)),
        (RetryLaterError("x"), (True, None)),
        (TimeoutError(), (True, None)),
        (ConnectionResetError(), (True, None)),
        (ValueError(), (False, None)),
        (InDoubtError("x"), (False, None)),
    ],
    ids=name_of,
)
def test_which_errors_may_be_tried_again(error: Exception, expected: tuple[bool, float | None]) -> None:
    assert (is_retryable(error), retry_after(error)) == expected


@pytest.mark.parametrize("said", [-1, float("nan"), float("inf"), "3", True, None])
def test_a_retry_after_that_is_no_time_is_none(said: Any) -> None:
    error = ValueError()
    error.retry_after = said  # type: ignore[attr-defined]
    assert retry_after(error) is None


# The end of an attempt ----------------------------------------------------------------------------


async def test_a_branch_that_goes_on_after_another_failed_is_not_paid_again() -> None:
    journal, shop, answered = MemoryJournal(), Shop(), asyncio.Event()
    fails = True
    others: list[asyncio.Task[None]] = []

    async def answer() -> None:
        for _ in range(20):  # long after the other branch has failed
            await asyncio.sleep(0)
        answered.set()

    async def slow() -> Any:
        await answered.wait()
        return await shop.buy("slow")

    async def quick() -> None:
        if fails:
            others.append(asyncio.create_task(answer()))
            raise RetryLaterError("busy")

    async def work(agent: Agent) -> Any:
        return (await asyncio.gather(agent.step("slow", slow), agent.step("quick", quick)))[0]

    with pytest.raises(RetryLaterError):
        await attempt(work, journal)
    assert journal.states == ["started", "started", "failed", "completed"]
    fails = False
    assert (await attempt(work, journal))["number"] == 1
    assert shop.calls == ["slow"]


async def test_after_its_end_an_attempt_begins_no_step() -> None:
    shop, ended = Shop(), asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def forgotten(agent: Agent) -> Any:
        await ended.wait()
        return await agent.step("late", shop.buy, "tea")

    async def work(agent: Agent) -> None:
        left.append(asyncio.create_task(forgotten(agent)))

    await attempt(work, MemoryJournal())
    ended.set()
    with pytest.raises(RuntimeError, match="step 'late' began after execute had ended"):
        await left[0]
    assert shop.calls == []


@pytest.mark.parametrize("while_waiting", [False, True])
async def test_a_canceled_attempt_cancels_the_steps_it_left_behind(*, while_waiting: bool) -> None:
    begun = asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def work(agent: Agent) -> None:
        left.append(asyncio.create_task(agent.step("hang", hang)))
        await begun.wait()
        if not while_waiting:
            await asyncio.Event().wait()

    journal = MemoryJournal()
    running = asyncio.create_task(attempt(work, journal))
    await begun.wait()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    done, _ = await asyncio.wait(left, timeout=5)
    assert [task.cancelled() for task in done] == [True]
    assert journal.states == ["started"]


# Any order, any crash -----------------------------------------------------------------------------

Program = str | tuple[str, list[Any]]

PROGRAMS: st.SearchStrategy[Program] = st.recursive(
    st.sampled_from("abc"),
    lambda inner: st.tuples(
        st.sampled_from(["one after the other", "together"]), st.lists(inner, max_size=4)
    ),
    max_leaves=10,
)


class World:
    """Runs a program whose every wait is ended by the test, in an order of its choice, until it crashes."""

    def __init__(self, chance: random.Random) -> None:
        self.log: list[Written] = []
        self.paid: list[Any] = []
        self._chance = chance
        self._waiting: list[asyncio.Future[None]] = []

    async def run(self, program: Program, moves: int | None) -> list[str] | None:
        """Run one attempt; after so many moves everything stops, as if killed, and nothing is given."""
        task = a_task(journal=MemoryJournal(self.log, lambda _: self._wait()))
        context = copy_context()
        context.run(set_current_task, task)
        self._waiting = []
        agent = Worker(lambda _: asyncio.sleep(0))
        running = asyncio.get_running_loop().create_task(self._follow(agent, program), context=context)
        while not running.done():
            if not self._waiting:
                await asyncio.sleep(0)
            elif moves is not None and (moves := moves - 1) < 0:
                running.cancel()
                written = len(self.log)
                await asyncio.gather(running, return_exceptions=True)
                assert len(self.log) == written  # the dead write nothing
                return None
            else:
                at = self._chance.randrange(len(self._waiting))
                self._waiting.pop(at).set_result(None)
                # Some time passes, or none: the next one may be ended before this one goes on.
                for _ in range(self._chance.randrange(4)):
                    await asyncio.sleep(0)
        return running.result()

    async def _follow(self, agent: Agent, program: Program) -> list[str]:
        if isinstance(program, str):
            return [await agent.step(program, self._pay, program)]
        how, parts = program
        if how == "together":
            found = await asyncio.gather(*(self._follow(agent, part) for part in parts))
        else:
            found = [await self._follow(agent, part) for part in parts]
        return [answer for answers in found for answer in answers]

    async def _pay(self, name: str) -> str:
        answer = f"{name}{len(self.paid)}"
        self.paid.append(answer)
        await self._wait()
        return answer

    async def _wait(self) -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(gate)
        await gate


async def check_crashes(program: Program, crashes: list[int], seed: int) -> None:
    """Run a program that is killed again and again, in any order of its waits, until it ends."""
    world = World(random.Random(seed))  # noqa: S311 (an order, not a secret)
    in_flight = 0
    for moves in [*crashes, None]:
        answers = await world.run(program, moves)
        check_log(world.log)
        assert len(world.paid) <= sum(written.state == "started" for written in world.log)
        in_flight += Counter(known.state for known in known_of(world.log).values())["started"]
    assert answers is not None
    assert Counter(f'"{answer}"'.encode() for answer in answers) == Counter(
        known.answer for known in known_of(world.log).values()
    )
    # Each payment is an answer that is used, or was in flight at a crash.
    assert len(world.paid) <= len(answers) + in_flight


def check_log(log: list[Written]) -> None:
    """Check that no step is begun again once its answer is there, and that each start is numbered."""
    last: dict[StepKey, Written] = {}
    for written in log:
        before = last.get(written.key)
        assert before is None or before.state != "completed"
        begun = 0 if before is None else before.tries
        assert written.tries == (begun + 1 if written.state == "started" else begun)
        last[written.key] = written


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    program=PROGRAMS,
    crashes=st.lists(st.integers(min_value=0, max_value=25), max_size=4),
    seed=st.integers(min_value=0, max_value=2**32),
)
def test_steps_in_any_order_with_any_crashes_are_paid_once_unless_in_doubt(
    program: Program, crashes: list[int], seed: int
) -> None:
    asyncio.run(check_crashes(program, crashes, seed))


async def test_a_run_that_is_repeated_after_its_end_pays_nothing() -> None:
    program: Program = ("together", ["a", ("one after the other", ["a", "b", "a"]), "b"])
    for seed in range(20):
        world = World(random.Random(seed))  # noqa: S311 (an order, not a secret)
        first = await world.run(program, None)
        again = await world.run(program, None)
        assert first is not None
        assert again is not None
        assert sorted(first) == sorted(again) == sorted(world.paid)
