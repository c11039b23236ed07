"""What a worker does when runs fail, processes die and events come twice."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agents.core import AgentResult
from agents.core.budget import Budget, Spent
from agents.core.errors import BudgetExceededError, InDoubtError, InvalidInputError, RetryLaterError
from agents.core.step import Recorded, StepKey
from agents.core.task import current_task
from streams import dead_letters, hint
from streams.envelope import place
from streams.hint import Hint
from streams.work import RunHistory
from tests.unit.worker_world import (
    CLUSTER,
    START,
    TIME,
    FakeRecord,
    Worker,
    World,
    a_world,
    as_bytes,
    chain,
    event,
    result,
    settle,
    single,
    task,
)


def failing(*errors: BaseException | None) -> Any:
    """Answer with these one after the other; none is success, and so is everything after the last."""
    left = list(errors)

    def answer(value: Any) -> Any:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return f"did {value}"

    return answer


async def retried(*errors: BaseException | None, **options: Any) -> World:
    agent = Worker(**{"retries": 2, "backoff": 1, "max_backoff": 10} | options)
    agent.answer = failing(*errors)
    return await a_world(agent=agent)


# Attempts


async def test_what_may_pass_is_tried_again_and_nobody_sees_the_failure() -> None:
    world = await retried(ConnectionResetError("gone"), RetryLaterError("busy"))
    await world.give(event(0))
    assert world.results() == []
    await world.go(2)
    await world.go(4)
    (done,) = world.results()
    assert (done.body["status"], done.body["attempts"], done.body["output"]) == (
        "completed",
        3,
        "did input 0",
    )
    assert world.letters() == []
    assert world.committed() == 1


async def test_a_retry_waits_as_long_as_it_was_told() -> None:
    world = await retried(RetryLaterError("busy", after=30))
    await world.give(event(0))
    await world.go(29.9)
    assert len(world.agent.inputs) == 1
    await world.go(0.2)
    assert len(world.agent.inputs) == 2
    assert world.result().body["status"] == "completed"


async def test_while_one_waits_its_key_waits_and_others_go_on() -> None:
    world = await retried(TimeoutError("slow"))
    await world.give(event(0), event(1), event(2, key=b"other"))
    assert world.agent.inputs == ["input 0", "input 2"]
    await world.go(2)
    assert world.agent.inputs == ["input 0", "input 2", "input 0", "input 1"]


async def test_after_the_last_attempt_comes_a_letter_and_then_a_failed_result() -> None:
    world = await retried(*[TimeoutError("slow")] * 3)
    record = event(0, {"input": "x", "unknown": 1})
    await world.give(record)
    await world.go(2)
    await world.go(4)
    order = [it for it in world.producer.order if it.startswith(("dead", "results"))]
    assert order == ["dead.reader", "results.reader"]
    (failed,) = world.results()
    assert failed.error == ("TimeoutError", "slow")
    assert failed.body["attempts"] == 3
    (letter,) = world.letters()
    assert (letter.key, letter.value, letter.partition) == (record.key, record.value, record.partition)
    assert letter.headers["dlt-reason"] == dead_letters.RETRIES_EXHAUSTED
    assert letter.headers["dlt-attempts"] == "3"
    assert letter.headers["dlt-error-type"] == "TimeoutError"
    assert letter.headers["dlt-run"] == failed.body["run"]
    assert letter.headers["dlt-first-time"] == failed.body["started_at"]
    assert world.committed() == 1


async def test_no_offset_is_done_before_its_letter_and_its_result_are_in_the_log() -> None:
    world = await retried(ValueError("no"))
    world.producer.waiting = []
    await world.give(event(0))
    assert (len(world.letters()), world.results(), world.committed()) == (1, [], None)
    world.producer.waiting.pop().set_result(None)
    await settle()
    assert (len(world.results()), world.committed()) == (1, None)
    world.producer.waiting.pop().set_result(None)
    await settle()
    assert world.committed() == 1


@pytest.mark.parametrize(
    ("error", "letters"),
    [(ValueError("no"), 1), (InvalidInputError("no"), 1), (SystemExit(3), 1), (InDoubtError("who knows"), 0)],
)
async def test_what_will_not_pass_is_tried_once(error: BaseException, letters: int) -> None:
    world = await retried(error)
    await world.give(event(0))
    await world.go(100)
    assert len(world.agent.inputs) == 1
    assert len(world.letters()) == letters


async def test_a_returned_failure_is_an_outcome_and_no_letter() -> None:
    world = await retried()
    world.agent.answer = lambda _: AgentResult.failed(ValueError("the tests fail"))
    await world.give(event(0))
    assert world.failure() == ("ValueError", "the tests fail")
    assert world.letters() == []


async def test_a_returned_failure_that_may_pass_is_tried_again() -> None:
    world = await retried()
    answers = [AgentResult.failed(ConnectionError("gone")), "fine"]
    world.agent.answer = lambda _: answers.pop(0)
    await world.give(event(0))
    await world.go(2)
    assert world.result().body["output"] == "fine"


async def test_a_deadline_ends_the_waiting_for_the_next_attempt() -> None:
    world = await retried(RetryLaterError("busy", after=60))
    await world.give(event(0, deadline=START.replace(second=30)))
    await world.go(31)
    assert world.failure()[0] == "deadline_exceeded"
    assert (world.letters(), len(world.agent.inputs), world.committed()) == ([], 1, 1)


async def test_what_waits_for_its_next_attempt_holds_up_no_stop() -> None:
    world = await retried(RetryLaterError("busy", after=60))
    await world.give(event(0))
    await world.worker.stop()
    assert (world.results(), world.committed("tasks.reader")) == ([], 0)
    assert hint.read(world.membership.metadata["tasks.reader", 0], CLUSTER).starts == 0


# Dead letters


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (task(0, b"{nope"), dead_letters.INVALID),
        (FakeRecord("tasks.reader", 0, None), dead_letters.INVALID),
        (task(0, b"[]"), dead_letters.INVALID),
        (event(0, hops=0), dead_letters.REFUSED),
    ],
)
async def test_a_letter_is_its_event_byte_for_byte(record: FakeRecord, reason: str) -> None:
    world = await a_world()
    await world.give(record)
    (letter,) = world.letters()
    assert (letter.key, letter.value) == (record.key, record.value)
    assert letter.headers["dlt-reason"] == reason
    assert letter.headers["kafka_dlt-original-topic"] == record.topic
    assert letter.headers["kafka_dlt-original-partition"] == "0"
    assert letter.headers["kafka_dlt-original-offset"] == "0"
    assert letter.headers["kafka_dlt-original-timestamp"] == str(TIME)
    kept = FakeRecord(
        letter.topic, 7, letter.value, tuple((n, v.encode()) for n, v in letter.headers.items()), letter.key
    )
    read = dead_letters.read(kept)
    assert read is not None
    assert (tuple(read.headers), read.origin) == (tuple(record.headers), place(record))


async def test_failures_of_others_are_no_letters_here() -> None:
    agent = Worker()
    world = await a_world(chain(agent), agent=agent)
    await world.give(result("first", 0, status="failed", body={"output": None}))
    assert world.failure()[0] == "upstream_failed"
    assert world.letters() == []


async def test_a_redriven_letter_of_a_letter_is_read_as_the_last_one() -> None:
    first = dead_letters.write(
        [event(0)],
        dead_letters.Failure("poison", "poison", "m", 1, None),
        run="1",
        agent="a",
        agent_version="1",
    )[0]
    again = FakeRecord("tasks.a", 3, first.value, tuple(first.headers), first.key)
    second = dead_letters.write(
        [again], dead_letters.Failure("refused", "x", "y", 0, None), run="2", agent="a", agent_version="1"
    )[0]
    read = dead_letters.read(FakeRecord("dead.a", 9, second.value, tuple(second.headers), second.key))
    assert read is not None
    assert (read.run, read.failure.reason, read.origin) == ("2", "refused", "tasks.a/0/3")
    assert tuple(read.headers) == tuple(again.headers)


def test_what_is_no_letter_is_not_read_as_one() -> None:
    assert dead_letters.read(event(0)) is None


@pytest.mark.parametrize(
    "headers",
    [
        [("ce_id", b"\xae"), ("ce_id", b"\xff")],
        [("ce_id", b"1"), ("ce_id", b"1")],  # and nothing else an event has
    ],
)
async def test_bad_events_that_claim_the_same_name_are_told_one_by_one(
    headers: list[tuple[str, bytes]],
) -> None:
    world = await a_world()
    records = [FakeRecord("tasks.reader", n, b"{}", (header,)) for n, header in enumerate(headers)]
    await world.give(*records)
    assert len({it.headers["ce_id"] for it in world.results()}) == 2
    assert len({it.headers["dlt-id"] for it in world.letters()}) == 2
    restarted = await a_world()
    await restarted.give(*records)
    assert len(restarted.results()) == 2


# Journal


async def stepping(world: World) -> list[str]:
    """Let the agent do one step per run, and remember each time it really happens."""
    happened: list[str] = []

    async def answer(value: Any) -> Any:
        def act(word: str) -> str:
            happened.append(word)
            return f"{word}!"

        return await world.agent.step("act", act, value)

    world.agent.answer = answer
    return happened


async def test_a_step_is_in_the_log_before_it_happens_and_its_answer_before_it_is_used() -> None:
    world = await a_world()
    happened = await stepping(world)
    world.producer.waiting = []
    await world.give(event(0))
    (started,) = world.journal()
    assert (happened, started.body["state"], started.body["kind"], started.body["name"]) == (
        [],
        "started",
        "step",
        "act",
    )
    assert started.body["place"] == "tasks.reader/0/0"
    world.producer.waiting.pop().set_result(None)
    await settle()
    (completed,) = world.journal()
    assert (happened, completed.body["state"], completed.body["answer"]) == (
        ["input 0"],
        "completed",
        "input 0!",
    )
    assert world.results() == []
    world.producer.waiting.pop().set_result(None)
    await settle()
    done = world.result()
    assert done.body["output"] == "input 0!"
    assert started.key == completed.key == done.body["run"].encode()
    assert started.headers["ce_type"] == "callboard.journal.v1"
    assert started.headers["ce_causationid"] == "id-0"


async def interrupted(state: str, answer: bytes | None = None, **options: Any) -> tuple[World, list[str]]:
    """Run an event that a process before began with, and of which the journal knows one step."""
    first = await a_world()
    await stepping(first)
    await first.give(event(0))
    run = first.result().body["run"]
    written = first.journal()[0].body
    key = StepKey("step", "act", written["request"], 0)
    history = RunHistory({key: Recorded(state, answer, 1)})  # type: ignore[arg-type]
    world = await a_world(agent=Worker(**options), histories={0: {run: history}})
    happened = await stepping(world)
    await world.give(event(0))
    return world, happened


async def test_an_answer_in_the_journal_is_not_paid_again() -> None:
    world, happened = await interrupted("completed", b'"known"')
    assert (happened, world.result().body["output"], world.journal()) == ([], "known", [])


async def test_a_step_in_doubt_is_repeated_and_told() -> None:
    world, happened = await interrupted("started")
    assert (happened, world.result().body["output"]) == (["input 0"], "input 0!")
    started, completed = world.journal()
    assert (started.body["state"], started.body["try"], completed.body["try"]) == ("started", 2, 2)


async def test_a_step_in_doubt_parks_the_run_of_an_agent_that_wants_that() -> None:
    world, happened = await interrupted("started", in_doubt="park")
    (parked,) = world.results()
    assert happened == []
    assert (parked.body["status"], parked.headers["ce_status"]) == ("parked", "parked")
    assert parked.error[0] == "in_doubt"
    assert (world.letters(), world.committed()) == ([], 1)


async def test_the_second_attempt_finds_the_answers_of_the_first() -> None:
    world = await retried()
    happened: list[str] = []
    errors = [ConnectionError("gone")]

    def act() -> str:
        happened.append("once")
        return "said"

    async def answer(_: Any) -> Any:
        said = await world.agent.step("act", act)
        if errors:
            raise errors.pop()
        return said

    world.agent.answer = answer
    await world.give(event(0))
    await world.go(2)
    assert (happened, world.result().body["output"]) == (["once"], "said")


async def test_a_worker_that_may_have_lost_its_partitions_does_nothing_until_it_knows() -> None:
    world = await a_world()
    happened = await stepping(world)
    world.membership.certain.clear()
    await world.give(event(0))
    assert (happened, world.agent.inputs, world.journal()) == ([], [], [])
    world.membership.certain.set()
    await settle()
    assert happened == ["input 0"]


async def test_a_step_whose_worker_was_frozen_before_it_happened_waits_to_know() -> None:
    world = await a_world()
    happened = await stepping(world)
    world.producer.waiting = []
    await world.give(event(0))
    world.membership.certain.clear()
    world.producer.waiting.pop().set_result(None)
    await settle()
    assert happened == []
    await world.assign(1)  # the partition went to somebody else meanwhile
    world.membership.certain.set()
    await settle()
    assert (happened, world.results()) == ([], [])


async def test_a_stop_with_runs_that_do_not_end_in_time_is_no_death() -> None:
    world = await a_world()
    world.agent.hold = asyncio.Event()
    await world.give(event(0))
    await world.worker.stop()
    assert hint.read(world.membership.metadata["tasks.reader", 0], CLUSTER).starts == 0


async def test_what_a_producer_stamped_is_looked_for_from_the_beginning() -> None:
    world = await a_world()
    await world.give(replace(event(0), timestamp=TIME + 10**9, timestamp_type=0))
    assert world.asked == [{0: 0}]


# Duplicates


async def test_an_event_that_comes_twice_after_a_restart_is_passed_over() -> None:
    identity = f"{len('/test')}:/testid-0".encode()
    world = await a_world(events=[("tasks.reader", 0, 3, identity, TIME)])
    world.membership.committed["tasks.reader", 0] = 4
    await world.assign(0)
    await world.give(event(4, id="id-0"), event(5))
    assert (world.agent.inputs, world.committed()) == (["input 5"], 6)


async def test_the_window_is_read_once() -> None:
    world = await a_world(events=[])
    asked: list[Any] = []
    restore = world.worker._past._restore

    async def watched(since: Any, before: Any) -> Any:
        asked.append(dict(before))
        return await restore(since, before)

    world.worker._past._restore = watched
    await world.give(event(0))
    await world.give(event(1))
    assert asked == [{("tasks.reader", 0): 0}]


# Care


async def dying(times: int, *, reach: int = 1, ends: int | None = None) -> World:
    """Take over a partition on which members died before, having started everything below `reach`."""
    known = Hint(CLUSTER)
    for _ in range(times):
        known = hint.go_on(hint.begin(known, 0, slots=16), 0, reach=reach, done=b"")
    world = World(agent := Worker(), (single(agent),))
    world.membership.metadata["tasks.reader", 0] = known.text()
    if ends is not None:
        world.ends["tasks.reader", 0] = ends
    await world.assign(0)
    return world


async def test_after_a_death_runs_are_begun_in_the_log_first() -> None:
    world = await dying(1)
    world.producer.waiting = []
    await world.give(event(0), event(1, key=b"other"))
    assert world.agent.inputs == []
    assert [(it.body["kind"], it.body["state"]) for it in world.journal()] == [("run", "started")] * 2
    while world.producer.waiting:
        world.producer.waiting.pop().set_result(None)
        await settle()
    assert world.agent.inputs == ["input 0", "input 1"]


@pytest.mark.parametrize(("deaths", "told"), [(0, 1), (1, 16)])
async def test_after_a_death_commits_are_due_as_if_every_slot_had_ended(deaths: int, told: int) -> None:
    world = await dying(deaths)
    assert world.agent.config.concurrency == 16
    await world.give(event(0))
    assert (world.committed(), world.membership.ended) == (1, told)


async def test_after_two_deaths_events_run_one_at_a_time() -> None:
    world = await dying(2)
    world.agent.hold = asyncio.Event()
    await world.give(event(0), event(1, key=b"other"))
    assert world.agent.inputs == ["input 0"]
    world.agent.hold.set()
    await settle()
    assert [it.body["kind"] for it in world.journal()] == ["run", "run"]
    assert len(world.results()) == 2


async def test_what_nobody_dead_has_seen_runs_at_the_same_time() -> None:
    world = await dying(2, ends=1)
    world.agent.hold = asyncio.Event()
    await world.give(event(0), event(1, key=b"other"), event(2, key=b"third"))
    assert world.agent.inputs == ["input 0"]  # the others wait for their turn behind it
    world.agent.hold.set()
    await settle()
    world.agent.hold = asyncio.Event()
    await world.give(event(3), event(4, key=b"other"))
    assert world.agent.inputs[3:] == ["input 3", "input 4"]
    world.agent.hold.set()
    await settle()


async def test_without_a_death_nothing_is_written() -> None:
    world = await dying(0)
    world.agent.hold = asyncio.Event()
    await world.give(event(0), event(1, key=b"other"))
    assert (len(world.agent.inputs), world.journal()) == (2, [])
    world.agent.hold.set()
    await settle()


async def test_what_the_third_member_died_of_is_isolated_and_the_next_event_runs() -> None:
    careful = await dying(2)
    careful.agent.hold = asyncio.Event()
    await careful.give(event(0))
    run = careful.journal()[0].body["run"]
    world = await dying(3)
    world.histories = {0: {run: RunHistory(begun={2, 3})}}
    await world.give(event(0), event(1))
    failed, fine = world.results()
    assert failed.error[0] == "poison"
    assert fine.body["status"] == "completed"
    (letter,) = world.letters()
    assert (letter.headers["dlt-reason"], letter.value) == (dead_letters.POISON, event(0).value)
    assert world.agent.inputs == ["input 1"]
    careful.agent.hold.set()
    await settle()


@pytest.mark.parametrize("begun", [set(), {5}, {3, 5}])
async def test_an_event_of_one_death_or_none_or_with_another_between_is_not_isolated(begun: set[int]) -> None:
    careful = await dying(2)
    await careful.give(event(0))
    run = careful.result().body["run"]
    world = await dying(5)
    world.histories = {0: {run: RunHistory(begun=begun)}}
    await world.give(event(0))
    assert world.result().body["status"] == "completed"


async def test_who_gets_past_it_begins_anew() -> None:
    world = await dying(3)
    await world.give(*(event(offset, key=f"{offset}".encode()) for offset in range(40)))
    while world.committed() != 40:
        await settle()
    assert hint.read(world.membership.metadata["tasks.reader", 0], CLUSTER).starts == 1


# Budgets


async def test_a_budget_is_split_among_followers_and_what_is_left_goes_on() -> None:
    agent = Worker()
    world = await a_world(chain(agent), agent=agent)

    async def answer(value: Any) -> Any:
        allowance = current_task().allowance
        assert allowance is not None
        number = await allowance.reserve(1_000)
        with pytest.raises(BudgetExceededError):
            await allowance.reserve(1)
        allowance.settle(number, Spent(1, 20, 10))
        return value

    world.agent.answer = answer
    await world.give(result("first", 0, budget=Budget(calls=4, tokens=1_000)))
    assert world.result().headers["ce_budget"] == "calls=3;tokens=970"


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (Budget(calls=0), "no model calls are left in the budget"),
        (Budget(tokens=99), "a model call of up to 100 tokens does not fit"),
        (Budget(usd=0), "no money is left in the budget"),
    ],
)
async def test_what_does_not_fit_into_the_budget_is_not_asked(budget: Budget, says: str) -> None:
    world = await a_world()

    async def answer(value: Any) -> Any:
        allowance = current_task().allowance
        assert allowance is not None
        await allowance.reserve(100)
        return value

    world.agent.answer = answer
    await world.give(event(0, budget=budget))
    kind, message = world.failure()
    assert kind == "budget_exceeded"
    assert says in message


async def test_a_broken_budget_is_a_bad_event() -> None:
    world = await a_world()
    headers = (*event(0).headers, ("ce_budget", b"calls=many"))
    await world.give(FakeRecord("tasks.reader", 0, as_bytes({"input": 1}), headers))
    kind, message = world.failure()
    assert kind == "invalid_event"
    assert "ce_budget" in message
