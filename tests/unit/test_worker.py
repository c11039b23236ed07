"""An agent at work, with the real runtime: what each record becomes; nothing is said twice or lost."""

import asyncio
import json
import math
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from pydantic import BaseModel, field_serializer

from agents import metrics
from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Artifact, Workflow, current_task
from agents.core.errors import AgentError, ArtifactError, LLMUnavailableError
from streams import worker
from streams.envelope import RESULT, record_digest, result_id, run_id
from streams.kafka import publisher
from streams.kafka.publisher import RecordTooLargeError
from streams.topics import MAX_RECORD_BYTES
from tests.unit.worker_world import (
    DIGEST,
    START,
    TIME,
    FakeRecord,
    Passed,
    Worker,
    World,
    a_world,
    chain,
    diamond,
    event,
    replaced,
    result,
    settle,
    single,
    task,
    with_header,
    without,
)

REFERENCE = {
    "name": "report.md",
    "sha256": DIGEST,
    "size": 3,
    "topic": "artifacts.first",
    "partition": 0,
    "offset": 5,
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "RETRY_PAUSE", 0)


async def a_follower(**options: Any) -> World:
    agent = Worker(**options)
    return await a_world(chain(agent), agent=agent)


async def a_joiner() -> World:
    agent = Worker()
    return await a_world(diamond(agent), agent=agent)


# One record, one result


async def test_a_plain_task_becomes_a_result() -> None:
    world = await a_world()
    await world.give(task(7, {"input": "do it"}))
    done = world.result()
    assert world.agent.inputs == ["do it"]
    assert (done.topic, done.partition, done.key) == ("results.reader", 0, b"key")
    body = done.body
    assert (body["agent"], body["agent_version"], body["status"]) == ("reader", "1", "completed")
    assert (body["output"], body["error"], body["attempts"]) == ({"echo": "do it"}, None, 1)
    assert (body["followers"], body["verdict"], body["artifacts"]) == ([], None, [])
    assert body["root"] == {
        "agent": "reader",
        "id": "tasks.reader/0/7",
        "input": "do it",
        "input_omitted": False,
        "repository": None,
    }
    assert body["started_at"] <= body["finished_at"]
    run = run_id("app", "reader", "", "tasks.reader/0/7")
    assert body["run"] == run
    headers = done.headers
    assert headers["ce_id"] == result_id(run)
    assert (headers["ce_source"], headers["ce_type"]) == ("/callboard/app/reader", RESULT)
    assert (headers["ce_workflow"], headers["ce_status"]) == ("flow", "completed")
    assert (
        headers["ce_correlationid"] == headers["ce_pass"] == headers["ce_causationid"] == "tasks.reader/0/7"
    )
    assert headers["ce_causedigest"] == record_digest(task(7, {"input": "do it"}))
    assert world.committed() == 8


async def test_the_envelope_of_an_event_is_handed_on() -> None:
    world = await a_follower()
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    record = result(
        "first",
        3,
        hops=4,
        deadline=START + timedelta(hours=1),
        traceparent=trace,
        tracestate="vendor=1",
        llm="off",
    )
    await world.give(record)
    done = world.result()
    headers = done.headers
    assert (headers["ce_correlationid"], headers["ce_pass"], headers["ce_workflow"]) == (
        "id-0",
        "id-0",
        "flow",
    )
    assert (headers["ce_hops"], headers["ce_deadline"]) == ("3", "2026-01-31T13:00:00+00:00")
    assert headers["traceparent"] == f"00-{'a' * 32}-{done.body['run'][:16]}-01"
    assert (headers["tracestate"], headers["ce_causationid"]) == ("vendor=1", "first-3")
    assert done.body["followers"] == ["last"]
    assert done.body["root"]["input"] == "the root's"


async def test_a_follower_gets_the_output_and_the_whole_event() -> None:
    world = await a_follower()
    seen: list[Any] = []
    world.agent.answer = lambda _: seen.append(current_task())
    record = result("first", 3, {"rows": [1, 2]})
    await world.give(record)
    (it,) = seen
    assert it.input == {"rows": [1, 2]} == world.agent.inputs[0]
    assert (it.id, it.agent, it.workflow_id, it.root.agent) == ("first-3", "reader", "id-0", "first")
    (given,) = it.events
    assert (given.topic, given.partition, given.offset, given.key) == ("results.first", 0, 3, b"key")
    assert given.headers == record.headers
    assert given.payload == json.loads(record.value or b"")


async def test_the_event_of_a_task_is_whole_too() -> None:
    world = await a_world()
    seen: list[Any] = []
    world.agent.answer = lambda _: seen.append(current_task().events[0].payload)
    await world.give(task(0, {"input": "x", "tenant": "kept"}))
    assert seen == [{"input": "x", "tenant": "kept"}]


@pytest.mark.parametrize("value", ["text", {"a": 1}, [1], 3, None, ""])
async def test_any_json_is_an_input(value: Any) -> None:
    world = await a_world()
    await world.give(task(0, {"input": value}))
    assert world.agent.inputs == [value]
    assert world.result().body["root"]["input"] == value


async def test_a_large_input_is_not_carried_along() -> None:
    world = await a_world()
    await world.give(task(0, {"input": "x" * 70_000}))
    root = world.result().body["root"]
    assert (root["input"], root["input_omitted"]) == (None, True)


async def test_many_records_of_many_keys_are_all_answered_once() -> None:
    world = await a_world()
    records = [task(offset, key=f"k{offset % 7}".encode()) for offset in range(50)]
    await world.give(*records[:25])
    await world.give(*records[25:])
    done = world.results()
    assert sorted(it.body["root"]["id"] for it in done) == sorted(f"tasks.reader/0/{n}" for n in range(50))
    assert len({it.headers["ce_id"] for it in done}) == 50
    assert world.committed() == 50


async def test_the_same_record_gives_the_same_result_id_in_another_process() -> None:
    ids = []
    for _ in range(2):
        world = await a_world()
        await world.give(event(3))
        ids.append(world.result().headers["ce_id"])
    assert ids[0] == ids[1]


async def test_results_of_two_agents_or_apps_have_ids_of_their_own() -> None:
    ids = set()
    for app, name in (("app", "reader"), ("app", "writer"), ("other", "reader")):
        agent = Worker(name)
        world = await a_world(single(agent), agent=agent, app=app)
        await world.give(event(3, agent=name))
        ids.add(world.result().headers["ce_id"])
    assert len(ids) == 3


# Bad records: each exactly one failed result that names what and where, and the next record works

LARGE = b'{"input": "' + b"x" * MAX_RECORD_BYTES + b'"}'

BAD_TASKS = {
    "not JSON": (task(3, b"{nope"), "invalid_input", "no valid callboard.task.v1: value: Invalid JSON"),
    "no object": (task(3, [1]), "invalid_input", "no valid callboard.task.v1"),
    "no input": (task(3, {"inputs": 1}), "invalid_input", "input: Field required"),
    "null": (replaced(task(3), value=None), "invalid_input", "the value is null"),
    "empty": (task(3, b""), "invalid_input", "no valid callboard.task.v1"),
    "not UTF-8": (task(3, b'{"input": "\xff"}'), "invalid_input", "no valid callboard.task.v1"),
    "lone surrogate": (task(3, b'{"input": "\\ud800"}'), "invalid_input", "no valid callboard.task.v1"),
    "deep": (task(3, b'{"input": ' + b"[" * 10_000), "invalid_input", "no valid callboard.task.v1"),
    "too large": (task(3, LARGE), "invalid_input", f"at most {MAX_RECORD_BYTES} are taken"),
    "bad artifact": (
        task(3, {"input": 1, "artifacts": [REFERENCE | {"offset": -1}]}),
        "invalid_input",
        "artifacts.0.offset",
    ),
    "unknown type": (event(3, type="callboard.task.v1"), "invalid_input", "type 'x.v9' is unknown"),
    "type of a result": (event(3, type=RESULT), "invalid_input", f"type '{RESULT}' is unknown here"),
    "half of the headers": (without(event(3), "ce_type"), "invalid_event", "header ce_type is missing"),
    "empty id": (with_header(event(3), "ce_id", b""), "invalid_event", "header ce_id is missing"),
    "null header": (with_header(event(3), "ce_source", None), "invalid_event", "header ce_source is missing"),
    "binary header": (
        with_header(event(3), "ce_correlationid", b"\xff\xfe"),
        "invalid_event",
        "header ce_correlationid is not UTF-8",
    ),
    "binary id": (with_header(event(3), "ce_id", b"\xff\xfe"), "invalid_event", "header ce_id is not UTF-8"),
    "version": (with_header(event(3), "ce_specversion", b"0.3"), "invalid_event", "this version reads 1.0"),
    "deadline": (with_header(event(3), "ce_deadline", b"soon"), "invalid_event", "ce_deadline is 'soon'"),
    "hops": (with_header(event(3), "ce_hops", b"-1"), "invalid_event", "ce_hops is '-1'"),
    "twice": (
        replaced(event(3), headers=(*event(3).headers, ("ce_id", b"2"))),
        "invalid_event",
        "header ce_id is there 2 times",
    ),
    "long id": (with_header(event(3), "ce_id", b"x" * 5000), "invalid_event", "ce_id has 5000 bytes"),
    "structured": (
        task(3, {"specversion": "1.0"}, headers=(("content-type", b"application/cloudevents+json"),)),
        "invalid_event",
        "binary mode",
    ),
}
BAD_TASKS["unknown type"] = (with_header(event(3), "ce_type", b"x.v9"), *BAD_TASKS["unknown type"][1:])


@pytest.mark.parametrize("fault", BAD_TASKS)
async def test_a_bad_task_is_one_failed_result_and_the_next_one_works(fault: str) -> None:
    record, kind, says = BAD_TASKS[fault]
    world = await a_world()
    await world.give(record, task(4))
    failed, good = world.results()
    if failed.body["status"] == "completed":
        failed, good = good, failed
    assert (failed.body["status"], failed.headers["ce_status"]) == ("failed", "failed")
    error, message = failed.error
    assert (error, message.startswith("tasks.reader/0/3: ")) == (kind, True)
    assert says in message
    assert len(message) < 500
    assert (failed.body["attempts"], failed.body["output"]) == (0, None)
    assert failed.headers["ce_causedigest"] == record_digest(record)
    assert failed.headers["ce_workflow"] == "flow"
    assert (world.agent.inputs, good.body["status"]) == (["input 4"], "completed")
    assert world.committed() == 5


async def test_a_bad_task_has_the_same_result_id_each_time() -> None:
    for record, *_ in BAD_TASKS.values():
        ids = []
        for _ in range(2):
            world = await a_world()
            await world.give(record)
            ids.append(world.result().headers["ce_id"])
        assert ids[0] == ids[1]


async def test_a_bad_task_whose_failure_is_in_the_log_is_not_told_again() -> None:
    record = BAD_TASKS["half of the headers"][0]
    world = await a_world()
    await world.give(record)
    again = await a_world(outcomes={0: {world.result().headers["ce_id"]}})
    await again.give(record)
    assert again.results() == []
    assert again.committed() == 4


async def test_followers_of_a_bad_record_are_told_who_they_are() -> None:
    world = await a_follower()
    await world.give(task(0, b"{nope"), without(event(1), "ce_type"))
    assert [it.body["followers"] for it in world.results()] == [["last"], ["last"]]


async def test_a_bad_result_of_another_agent_fails_here() -> None:
    world = await a_follower()
    await world.give(result("first", 2, raw=b"{nope"))
    kind, message = world.failure()
    assert kind == "invalid_input"
    assert message.startswith("results.first/0/2: no valid callboard.result.v1")
    assert world.committed("results.first") == 3


async def test_a_plain_record_is_no_result() -> None:
    world = await a_follower()
    await world.give(without(result("first", 2), *[name for name, _ in result("first", 2).headers]))
    assert world.failure()[0] == "invalid_input"


async def test_an_input_that_does_not_fit_the_agents_type() -> None:
    class Number(Agent[int, int]):
        async def execute(self, input_data: int) -> AgentResult[int]:
            return AgentResult(status=AgentStatus.COMPLETED, output=input_data)

    agent = Number(AgentConfig(name="reader"))
    world = await a_world(single(agent), agent=agent)  # type: ignore[arg-type]
    await world.give(task(0, {"input": "three"}), task(1, {"input": 3}))
    failed, done = world.results()
    assert failed.error[0] == "invalid_input"
    assert "input of agent 'reader' is not valid" in failed.error[1]
    assert done.body["output"] == 3


# Which workflow


async def test_an_event_of_a_workflow_that_is_not_here() -> None:
    world = await a_world()
    await world.give(event(0, workflow="unheard"))
    kind, message = world.failure()
    assert kind == "invalid_input"
    assert "workflow 'unheard' (header ce_workflow) has no step 'reader'" in message
    assert "it has: flow" in message


async def test_an_event_without_its_workflow_where_several_fit() -> None:
    agent = Worker()
    one, two = Workflow("one"), Workflow("two")
    one.step(agent)
    two.step(agent)
    world = await a_world(one, two, agent=agent)
    await world.give(event(0), event(1, workflow="two"))
    failed, done = sorted(world.results(), key=lambda it: it.body["status"], reverse=True)
    assert "several workflows fit (one, two); say which with the header ce_workflow" in failed.error[1]
    assert (done.body["status"], done.headers["ce_workflow"]) == ("completed", "two")


async def test_a_result_of_a_workflow_that_is_not_ours_is_passed_over() -> None:
    world = await a_follower()
    await world.give(result("first", 0, workflow="somebody-elses"), result("first", 1))
    assert world.result().headers["ce_causationid"] == "first-1"
    assert world.committed("results.first") == 2


async def test_two_workflows_share_an_agent_without_cross_talk() -> None:
    agent = Worker()
    other = Workflow("other")
    other.step(agent)
    world = await a_world(chain(agent), other, agent=agent)
    await world.give(result("first", 0, workflow="other"), result("first", 1, workflow="flow"))
    assert world.result().headers["ce_workflow"] == "flow"


@pytest.mark.parametrize("value", [b"", None])
async def test_an_empty_workflow_header_is_none(value: bytes | None) -> None:
    world = await a_follower()
    await world.give(with_header(result("first", 0), "ce_workflow", value))
    assert world.result().body["status"] == "completed"


# Failure flows, parked ones are passed over


@pytest.mark.parametrize("status", ["failed", "canceled"])
async def test_a_follower_of_a_failure_fails_without_running(status: str) -> None:
    world = await a_follower()
    error = {"type": "ValueError", "message": "too blue"}
    past = START - timedelta(hours=1)  # a deadline is no reason to be silent
    await world.give(result("first", 0, None, status=status, body={"error": error}, deadline=past))
    done = world.result()
    assert world.agent.inputs == []
    assert done.error == ("upstream_failed", f"first {status}: too blue")
    assert (done.body["attempts"], done.body["started_at"], done.body["followers"]) == (0, None, ["last"])


async def test_a_failure_is_seen_in_the_payload_too() -> None:
    world = await a_follower()
    record = result("first", 0, None, status="failed", body={"error": {"type": "x", "message": "why"}})
    await world.give(without(record, "ce_status"))
    assert world.failure() == ("upstream_failed", "first failed: why")


async def test_where_header_and_payload_differ_the_failure_counts() -> None:
    world = await a_follower()
    error = {"error": {"type": "x", "message": "why"}}
    header_says = with_header(result("first", 0, "made"), "ce_status", b"failed")
    payload_says = with_header(
        result("first", 1, None, status="failed", body=error), "ce_status", b"completed"
    )
    await world.give(header_says, payload_says)
    assert [it.error for it in world.results()] == [
        ("upstream_failed", "first failed: no reason given"),
        ("upstream_failed", "first failed: why"),
    ]
    assert world.agent.inputs == []


async def test_a_parked_run_is_passed_over() -> None:
    world = await a_follower()
    parked = result("first", 0, None, status="parked")
    await world.give(parked, without(replaced(parked, offset=1), "ce_status"))
    assert (world.results(), world.agent.inputs) == ([], [])
    assert world.committed("results.first") == 2


# What execute may do


async def test_what_execute_raises_is_its_failure(capsys: pytest.CaptureFixture[str]) -> None:
    world = await a_world()

    def answer(_: Any) -> Any:
        raise ValueError("too blue")

    world.agent.answer = answer
    await world.give(task(0), task(1))
    failed = world.results()
    assert [it.error for it in failed] == [("ValueError", "too blue")] * 2
    assert [it.body["attempts"] for it in failed] == [1, 1]
    capsys.readouterr()  # its stack was logged


@pytest.mark.parametrize("message", ["file \udcff\udcfe", "x" * 5_000_000])
async def test_an_exception_may_say_anything_at_any_length(message: str) -> None:
    world = await a_world()

    def answer(_: Any) -> Any:
        raise AgentError(message)

    world.agent.answer = answer
    await world.give(task(0))
    kind, said = world.failure()
    assert kind == "agent_error"
    assert said in {r"file \udcff\udcfe", "x" * 8_000}


async def test_an_error_of_the_tree_keeps_its_type() -> None:
    world = await a_world(agent=Worker(retries=0))

    def answer(_: Any) -> Any:
        raise LLMUnavailableError("busy", retryable=True)

    world.agent.answer = answer
    await world.give(task(0))
    error = world.result().body["error"]
    assert error == {"type": "llm_unavailable", "message": "busy", "retryable": True}


async def test_an_agent_that_ends_the_process_only_fails() -> None:
    world = await a_world()
    world.agent.answer = lambda _: sys.exit(3)
    await world.give(task(0))
    assert world.failure() == ("SystemExit", "3")


async def test_an_agent_that_cancels_itself_only_fails() -> None:
    world = await a_world()

    def answer(_: Any) -> Any:
        raise asyncio.CancelledError

    world.agent.answer = answer
    await world.give(task(0))
    assert world.failure()[0] == "CancelledError"
    assert world.committed() == 1


async def test_an_execute_that_is_no_coroutine_is_a_failure_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await a_world()
    done = AgentResult[Any](status=AgentStatus.COMPLETED)
    monkeypatch.setattr(world.agent, "execute", lambda _: done)
    await world.give(task(0))
    assert world.failure() == (
        "invalid_output",
        "Worker.execute is no coroutine: write `async def execute`",
    )


@pytest.mark.parametrize("value", ["text", None, 3, {"status": "completed"}])
async def test_what_is_no_agent_result_is_a_failure_that_says_so(value: Any) -> None:
    world = await a_world()
    world.agent.answer = lambda _: Passed(value)
    await world.give(task(0))
    kind, message = world.failure()
    assert (kind, message) == (
        "invalid_output",
        f"Worker.execute returned {type(value).__name__}, not an AgentResult",
    )


async def test_a_result_may_say_parked_or_canceled_or_give_a_verdict() -> None:
    world = await a_world()
    world.agent.answer = lambda value: (
        AgentResult(status=AgentStatus.PARKED)
        if value == "p"
        else AgentResult(status=AgentStatus.COMPLETED, verdict="red")
    )
    await world.give(task(0, {"input": "p"}), task(1))
    parked, red = world.results()
    assert (parked.headers["ce_status"], parked.body["status"]) == ("parked", "parked")
    assert (red.body["verdict"], red.body["status"]) == ("red", "completed")


class Faulty(BaseModel):
    number: int = 1

    @field_serializer("number")
    def broken(self, _: int) -> int:
        raise RuntimeError("a broken serializer")


def cycle() -> list[Any]:
    it: list[Any] = []
    it.append(it)
    return it


@pytest.mark.parametrize(
    "output",
    [
        object(),
        b"\xff",
        "\ud800",
        math.nan,
        math.inf,
        {"deep": [{"er": -math.inf}]},
        10**400,
        {(1, 2): 3},
        {1, "a"},
        Faulty(),
        cycle(),
        current_task,
    ],
    ids=lambda it: type(it).__name__,
)
async def test_an_output_that_is_no_json_fails_and_frees_its_slot(output: Any) -> None:
    world = await a_world()
    outputs = [output, "fine"]
    world.agent.answer = lambda _: outputs.pop(0)
    await world.give(task(0), task(1))
    failed, good = world.results()
    kind, message = failed.error
    assert (kind, "cannot be written as JSON" in message) == ("invalid_output", True)
    assert (good.body["output"], world.committed()) == ("fine", 2)


class Verdict(BaseModel):
    good: bool
    score: float


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Verdict(good=True, score=0.5), {"good": True, "score": 0.5}),
        ({"verdicts": [Verdict(good=False, score=1)]}, {"verdicts": [{"good": False, "score": 1.0}]}),
        ({1: "a"}, {"1": "a"}),
        ((1, 2), [1, 2]),
        ({3, 1}, [1, 3]),
        ("naïve ✓", "naïve ✓"),
        ("NaN", "NaN"),
    ],
)
async def test_an_output_may_be_any_json_or_model(output: Any, expected: Any) -> None:
    world = await a_world()
    world.agent.answer = lambda _: output
    await world.give(task(0))
    assert world.result().body["output"] == expected


async def test_an_output_too_large_for_a_record() -> None:
    world = await a_world()
    world.agent.answer = lambda _: "x" * MAX_RECORD_BYTES
    await world.give(task(0), task(1))
    for failed in world.results():
        kind, message = failed.error
        assert kind == "result_too_large"
        assert "put the bulk into an artifact" in message
        assert (failed.body["root"]["agent"], failed.body["root"]["id"][:5]) == ("reader", "tasks")
    assert world.committed() == 2


# Artifacts


async def test_artifacts_are_published_first_and_inherited() -> None:
    world = await a_follower()
    world.agent.answer = lambda _: AgentResult(
        status=AgentStatus.COMPLETED, artifacts=(Artifact(name="mine.txt", content=b"abc"),)
    )
    inherited = REFERENCE | {"media_type": "text/markdown"}
    await world.give(result("first", 0, body={"artifacts": [inherited]}))
    assert world.producer.order == ["artifacts.reader", "results.reader"]
    report, mine = world.result().body["artifacts"]
    assert report == inherited
    assert (mine["name"], mine["topic"], mine["partition"], mine["offset"]) == (
        "mine.txt",
        "artifacts.reader",
        0,
        101,
    )
    assert (mine["size"], mine["sha256"][:8]) == (3, "ba7816bf")
    (chunk,) = world.producer.artifacts
    assert (chunk.value, chunk.key, chunk.headers["chunk"]) == (b"abc", b"key", "0/1")


async def test_an_artifact_replaces_an_inherited_one_of_its_name() -> None:
    world = await a_follower()
    world.agent.answer = lambda _: AgentResult(
        status=AgentStatus.COMPLETED, artifacts=(Artifact(name="report.md", content=b""),)
    )
    await world.give(result("first", 0, body={"artifacts": [REFERENCE]}))
    (only,) = world.result().body["artifacts"]
    assert (only["topic"], only["size"]) == ("artifacts.reader", 0)


async def test_inherited_artifacts_reach_followers_of_failures_too() -> None:
    world = await a_follower()
    failed = {"artifacts": [REFERENCE], "error": {"type": "x", "message": "y"}}
    await world.give(result("first", 0, None, status="failed", body=failed))
    assert [it["name"] for it in world.result().body["artifacts"]] == ["report.md"]


@pytest.mark.parametrize(
    "error", [ArtifactError("too large"), RecordTooLargeError("key"), RuntimeError("odd")]
)
async def test_an_artifact_that_cannot_be_published_fails_the_run(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world()
    world.agent.answer = lambda _: AgentResult(
        status=AgentStatus.COMPLETED, artifacts=(Artifact(name="a", content=b""),)
    )

    async def deliver(*_: Any, **__: Any) -> int:
        raise error

    monkeypatch.setattr(world.worker._publisher, "deliver", deliver)
    await world.give(task(0))
    assert world.failure()[1].endswith(str(error))
    assert world.committed() == 1


# Deadlines, hops


async def test_a_deadline_that_passed_before_the_start() -> None:
    world = await a_world()
    await world.give(event(0, deadline=START - timedelta(seconds=1)))
    done = world.result()
    assert (done.body["attempts"], done.body["started_at"], world.agent.inputs) == (0, None, [])
    message = "the deadline of tasks.reader/0/0 passed at 2026-01-31T11:59:59+00:00"
    assert done.error == ("deadline_exceeded", message)


async def test_a_deadline_that_passes_while_it_runs() -> None:
    world = await a_world()
    world.agent.hold = asyncio.Event()
    await world.give(event(0, deadline=START + timedelta(seconds=5)))
    await world.go(4.9)
    assert world.results() == []
    await world.go(0.1)
    done = world.result()
    assert done.error[0] == "deadline_exceeded"
    assert done.body["root"]["input"] == "input 0"
    assert done.body["attempts"] == 1
    assert done.body["started_at"] is not None
    assert world.committed() == 1


async def test_what_a_canceled_run_asked_a_model_is_told() -> None:
    world = await a_world(agent=(agent := Worker("asking")))

    async def answer(_: Any) -> Any:
        usage = current_task().usage
        usage.calls, usage.input_tokens, usage.output_tokens = 1, 20, 3
        await asyncio.Event().wait()

    agent.answer = answer
    await world.give(event(0, agent="asking", deadline=START + timedelta(seconds=5)))
    await world.go(5)
    assert world.result().body["usage"] == {"calls": 1, "input_tokens": 20, "output_tokens": 3}
    assert metrics.REGISTRY.get_sample_value("callboard_llm_calls_total", {"agent": "asking"}) == 1


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-31T12:00:00.0004Z"]
)
async def test_deadlines_at_the_edges_of_time(moment: str) -> None:
    world = await a_world()
    await world.give(with_header(event(0), "ce_deadline", moment.encode()))
    done = world.result()
    if done.body["status"] == "failed":
        assert done.error[0] == "deadline_exceeded"
        assert "the deadline of tasks.reader/0/0" in done.error[1]
    assert world.committed() == 1


async def test_an_agents_time_limit() -> None:
    agent = Worker(timeout=2.5)
    world = await a_world(single(agent), agent=agent)
    agent.hold = asyncio.Event()
    await world.give(task(0))
    await world.go(2.5)
    assert world.failure() == ("deadline_exceeded", "reader took longer than its time limit of 2.5 s")


async def test_hops_run_out() -> None:
    world = await a_follower()
    await world.give(result("first", 0, hops=1), result("first", 1, hops=0))
    done, refused = sorted(world.results(), key=lambda it: it.body["status"])
    assert (done.headers["ce_hops"], refused.headers["ce_hops"]) == ("0", "0")
    assert refused.error[0] == "hops_exhausted"
    assert refused.error[1].startswith("results.first/0/1 may go through no more agents")
    assert refused.body["root"]["agent"] == "first"
    assert len(world.agent.inputs) == 1


# Evidence mode


async def test_evidence_mode_is_said_on_every_result(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await a_world()
    await world.give(task(0), task(1, b"{nope"))
    assert [it.headers["ce_llm"] for it in world.results()] == ["off", "off"]
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    agent = Worker(llm="anthropic")
    asking = await a_world(chain(agent), agent=agent)
    await asking.give(result("first", 0), result("first", 1, llm="off"))
    assert [it.headers.get("ce_llm") for it in asking.results()] == [None, "off"]


# What is in the log already is not done again


async def test_a_run_with_an_outcome_is_not_run_again() -> None:
    outcome = result_id(run_id("app", "reader", "/test", "id-3"))
    world = await a_world(outcomes={0: {outcome}})
    await world.give(event(3), event(4))
    assert (world.agent.inputs, world.committed()) == (["input 4"], 5)
    assert world.asked == [{0: TIME - 60_000}]


async def test_the_log_is_asked_once_per_assignment() -> None:
    world = await a_world()
    await world.give(task(0))
    await world.give(task(1, timestamp=TIME + 5))
    assert len(world.asked) == 1
    await world.assign(0, adopt=True)
    await world.give(task(2))
    assert len(world.asked) == 1
    await world.assign(0)
    await world.give(task(3))
    assert len(world.asked) == 2


async def test_the_log_is_not_asked_for_what_came_before_the_first_assignment() -> None:
    world = World(Worker(), (single(),))
    await world.give(task(0), epoch=0)  # as the subscriber stamps it: it is read again after the assignment
    assert world.asked == []


async def test_the_log_is_asked_again_for_an_input_whose_backlog_is_older() -> None:
    world = await a_follower()
    outcome = result_id(run_id("app", "reader", "/test", "first-2"))
    await world.give(task(0))
    world.outcomes = {0: {outcome}}
    hour = 3_600_000
    await world.give(result("first", 2, timestamp=TIME - hour), result("first", 3, timestamp=TIME - hour))
    assert world.asked == [{0: TIME - 60_000}, {0: TIME - hour - 60_000}]
    assert world.agent.inputs == ["input 0", "made"]
    assert world.committed("results.first") == 4


@pytest.mark.parametrize("timestamp", [-1, 0, 59_999])
async def test_a_record_without_a_time_of_its_own(timestamp: int) -> None:
    world = await a_world()
    await world.give(task(0, timestamp=timestamp))
    assert world.asked == [{0: 0}]
    assert world.result().body["status"] == "completed"


async def test_a_batch_that_a_rebalance_overtakes_is_left_to_its_next_delivery() -> None:
    world = await a_world()
    world.asking = asyncio.Event()
    giving = asyncio.create_task(world.give(task(0)))
    await settle()
    await world.assign(0)
    world.asking.set()
    await giving
    assert (world.results(), world.committed()) == ([], None)
    await world.give(task(0))
    assert world.result().body["status"] == "completed"


async def test_a_duplicate_is_run_once() -> None:
    world = await a_world()
    world.agent.hold = asyncio.Event()
    await world.give(event(0, id="same"), event(1, id="same"))
    world.agent.hold.set()
    await settle()
    await world.give(event(2, id="same"), event(3, id="same", source="/other"))
    assert len(world.results()) == 2
    assert world.committed() == 4


async def test_a_duplicate_of_what_was_lost_does_not_hide_it() -> None:
    world = await a_world()
    world.agent.hold = asyncio.Event()
    await world.give(event(0, id="same"))
    await world.assign(0)  # not ours in between: the run was fenced
    world.agent.hold = None
    await world.give(event(0, id="same"), event(1, id="same"))
    assert (len(world.results()), world.committed()) == (1, 2)


# Joins


async def test_a_join_waits_for_both_and_commits_both() -> None:
    world = await a_joiner()
    await world.give(result("right", 4, "R"))
    assert (world.results(), world.committed("results.right")) == ([], 5)  # it is in the log of joins
    await world.give(result("left", 9, "L", body={"artifacts": [REFERENCE]}))
    done = world.result()
    assert world.agent.inputs == [{"left": "L", "right": "R"}]
    assert done.body["run"] == run_id("app", "reader", "join", "flow", "id-0")
    assert done.headers["ce_causationid"] == "left-9,right-4"
    assert done.headers["ce_causedigest"].count(",") == 1
    assert [it["name"] for it in done.body["artifacts"]] == ["report.md"]
    assert done.body["root"]["input"] == "the root's"
    assert (world.committed("results.left"), world.committed("results.right")) == (10, 5)


async def test_both_parts_in_one_batch() -> None:
    world = await a_joiner()
    await world.give(result("left", 0), result("right", 0))
    assert world.result().body["status"] == "completed"


async def test_rounds_and_workflows_are_not_mixed() -> None:
    world = await a_joiner()
    await world.give(result("left", 0, "L0"), result("right", 0, "R1", round="id-1"))
    assert world.results() == []
    await world.give(result("left", 1, "L1", round="id-1"), result("right", 1, "R0"))
    world.results()
    assert sorted(world.agent.inputs, key=str) == [
        {"left": "L0", "right": "R0"},
        {"left": "L1", "right": "R1"},
    ]


async def test_tasks_of_two_sources_with_one_id_begin_two_rounds() -> None:
    world = await a_world()
    uuid = "019c0c1e-0000-7000-8000-000000000001"
    await world.give(
        event(0, id="1", source="/a"),
        event(1, id="1", source="/b"),
        event(2, id=uuid),
        task(3),
        event(4, round="r"),
    )
    one, two, *named = [it.headers["ce_pass"] for it in world.results()]
    assert len({one, two, "1"}) == 3
    assert named == [uuid, "tasks.reader/0/3", "r"]


async def test_the_result_of_a_join_does_not_depend_on_which_part_came_last() -> None:
    seen = []
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    left = result("left", 0, llm="off", hops=3, deadline=START + timedelta(hours=2), traceparent=trace)
    right = result("right", 0, hops=5, deadline=START + timedelta(hours=1))
    for order in ((left, right), (right, left)):
        world = await a_joiner()
        world.worker._answers._evidence_only = False
        await world.give(*order)
        headers = world.result().headers
        seen.append({name: it for name, it in headers.items() if name != "ce_time"})
    assert seen[0] == seen[1]
    assert (seen[0]["ce_llm"], seen[0]["ce_hops"]) == ("off", "2")
    assert seen[0]["ce_deadline"] == "2026-01-31T13:00:00+00:00"


async def test_hops_run_out_at_a_join_too() -> None:
    world = await a_joiner()
    await world.give(result("left", 0, hops=0), result("right", 0, hops=0))
    assert world.failure()[0] == "hops_exhausted"
    assert (world.committed("results.left"), world.committed("results.right")) == (1, 1)


async def test_a_join_entered_in_the_middle_awaits_what_can_come() -> None:
    world = await a_joiner()
    await world.give(result("left", 0, "L", entry="left"))
    assert world.agent.inputs == [{"left": "L"}]
    assert world.result().body["root"]["agent"] == "left"


async def test_a_join_with_a_failed_part_fails_when_all_are_there() -> None:
    world = await a_joiner()
    error = {"error": {"type": "x", "message": "too blue"}}
    await world.give(result("left", 0, None, status="failed", body=error))
    assert world.results() == []
    await world.give(result("right", 0))
    assert world.failure() == ("upstream_failed", "left failed: too blue")
    assert world.agent.inputs == []


async def test_a_join_sees_a_failure_in_the_payload_too() -> None:
    world = await a_joiner()
    error = {"error": {"type": "x", "message": "too blue"}}
    failed = without(result("left", 0, None, status="failed", body=error), "ce_status")
    await world.give(failed, result("right", 0))
    assert world.failure() == ("upstream_failed", "left failed: too blue")


@pytest.mark.parametrize("order", [("left", "right"), ("right", "left")])
async def test_a_part_that_cannot_be_read_fails_the_join_once_and_nobody_waits(
    order: tuple[str, ...],
) -> None:
    world = await a_joiner()
    parts = {"left": result("left", 3, raw=b"{nope"), "right": result("right", 4)}
    for source in order:
        await world.give(parts[source])
    kind, message = world.failure()
    assert "results.left/0/3: no valid callboard.result.v1" in message
    assert kind == "upstream_failed"
    assert (world.committed("results.left"), world.committed("results.right")) == (4, 5)


async def test_a_duplicate_part_is_passed_over() -> None:
    world = await a_joiner()
    await world.give(result("left", 0, "L"), result("left", 1, "L again"), result("right", 0, "R"))
    await world.give(result("right", 1, "R again"), result("left", 2, "L once more"))
    assert world.agent.inputs == [{"left": "L", "right": "R"}]
    assert len(world.results()) == 1
    assert (world.committed("results.left"), world.committed("results.right")) == (3, 2)


async def test_a_join_whose_outcome_is_in_the_log_is_not_run_again() -> None:
    outcome = result_id(run_id("app", "reader", "join", "flow", "id-0"))
    agent = Worker()
    world = await a_world(diamond(agent), agent=agent, outcomes={0: {outcome}})
    await world.give(result("left", 0), result("right", 0))
    assert (world.results(), agent.inputs) == ([], [])
    assert (world.committed("results.left"), world.committed("results.right")) == (1, 1)


async def test_a_task_for_the_joining_agent_itself_is_not_joined() -> None:
    world = await a_joiner()
    await world.give(event(0))
    assert world.agent.inputs == ["input 0"]


async def test_a_task_cannot_take_the_place_of_a_join() -> None:
    # A source named like the workflow and an id like the round: still another run, with another result.
    world = await a_joiner()
    await world.give(event(0, source="flow", id="id-0"))
    await world.give(result("left", 0), result("right", 0))
    mine, joined = world.results()
    assert mine.headers["ce_id"] != joined.headers["ce_id"]


# Joins and rebalances


async def check_join_happens(world: World, *records: FakeRecord) -> None:
    await world.give(*records)
    assert world.result().body["output"] == {"echo": {"left": "L", "right": "R"}}
    assert (world.committed("results.left"), world.committed("results.right")) == (1, 1)
    assert (world.worker.joins_waiting, world.kept_joins()) == (0, {})
    assert world.worker.runtime.stats()["running"] == 0


LEFT, RIGHT = result("left", 0, "L"), result("right", 0, "R")


async def test_a_part_delivered_again_after_its_partition_came_back() -> None:
    world = await a_joiner()
    await world.give(LEFT)
    await world.assign(0, adopt=True)
    await world.give(LEFT)
    await check_join_happens(world, RIGHT)


async def test_a_part_delivered_again_after_its_partition_was_away() -> None:
    world = await a_joiner()
    await world.give(LEFT)
    await world.assign(0)
    await world.give(LEFT)
    await check_join_happens(world, RIGHT)


async def test_a_part_whose_partition_went_away_waits_in_the_log() -> None:
    world = await a_joiner()
    await world.give(LEFT)
    await world.assign(5)
    await settle()
    assert world.worker.joins_waiting == 0
    await world.assign(0)
    await settle()
    assert world.worker.joins_waiting == 1
    await check_join_happens(world, RIGHT)


async def test_the_last_part_read_before_a_rebalance_and_handled_after_it() -> None:
    world = await a_joiner()
    await world.give(LEFT)
    await world.assign(0, adopt=True)
    await world.give(RIGHT, epoch=world.epoch - 1)  # stale: the machine refuses it
    assert world.results() == []
    await check_join_happens(world, LEFT, RIGHT)


async def test_a_running_join_goes_on_when_its_partitions_come_back() -> None:
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    await world.give(LEFT, RIGHT)
    await world.assign(0, adopt=True)
    await world.give(LEFT, RIGHT)
    world.agent.hold.set()
    await settle()
    await check_join_happens(world)
    assert len(world.agent.inputs) == 1


@pytest.mark.parametrize("kept", ["tasks.reader", "results.left", None])
async def test_a_running_join_whose_partition_was_away_runs_again(kept: str | None) -> None:
    world = await a_joiner()
    world.agent.hold = held = asyncio.Event()
    await world.give(LEFT, RIGHT)
    await world.assign(0, keep={kept} if kept else set())
    world.agent.hold = None
    await settle()
    await world.give(LEFT, RIGHT)
    held.set()  # with the partition of its tasks kept, the run went on
    await settle()
    await check_join_happens(world)
    assert len(world.agent.inputs) == (1 if kept == "tasks.reader" else 2)


async def test_a_join_is_not_lost_while_its_lost_run_takes_its_time() -> None:
    world = await a_joiner()
    world.agent.hold, world.agent.linger = asyncio.Event(), asyncio.Event()
    await world.give(LEFT, RIGHT)
    await world.assign(0)
    linger, world.agent.hold = world.agent.linger, None
    await settle()
    linger.set()
    await settle()
    await check_join_happens(world)
    await world.give(result("left", 1, "late"), result("right", 1, "late"))
    assert world.results() == []


async def test_a_join_runs_after_a_restart_without_anything_being_read() -> None:
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    await world.give(RIGHT, LEFT)
    await world.assign(7)
    world.agent.hold = None
    await world.assign(0)
    await settle()
    await check_join_happens(world)


async def test_a_join_whose_result_is_in_the_log_is_only_finished_after_a_restart() -> None:
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    await world.give(LEFT, RIGHT)
    world.outcomes[0] = {result_id(run_id("app", "reader", "join", "flow", "id-0"))}
    await world.assign(0)
    await settle()
    assert (world.results(), world.kept_joins(), len(world.agent.inputs)) == ([], {}, 1)


async def test_a_join_that_fires_while_partitions_come_straight_back_is_not_lost() -> None:
    world = await a_joiner()
    world.producer.waiting = []
    await world.give(LEFT, RIGHT)
    (waiting,) = world.producer.waiting
    world.producer.waiting = None
    waiting.set_result(None)
    await world.assign(0, adopt=True)
    await settle()
    await check_join_happens(world)


async def test_a_part_is_not_done_before_kafka_has_it() -> None:
    world = await a_joiner()
    world.producer.waiting = []
    await world.give(LEFT)
    assert world.committed("results.left") is None
    world.producer.waiting[0].set_result(None)
    await settle()
    assert world.committed("results.left") == 1


async def test_a_join_whose_parts_are_not_kept_says_so_and_stays() -> None:
    world = await a_joiner()
    world.agent.hold = asyncio.Event()
    await world.give(LEFT, RIGHT)
    world.given.clear()
    await world.assign(0)
    await settle()
    assert world.worker.not_ready() == "results.left/0/0, the part of left of a join, is not kept any more"
    assert len(world.kept_joins()) == 3
    await world.assign(5)
    assert world.worker.not_ready() is None


# Publishing


async def test_a_publish_that_fails_is_tried_until_it_works() -> None:
    world = await a_world()
    world.producer.refuse = [KafkaTimeoutError()]
    world.producer.fail = [KafkaTimeoutError()]
    await world.give(task(0))
    await settle()
    assert world.result().body["status"] == "completed"
    assert (len(world.agent.inputs), world.committed()) == (1, 1)


async def test_nothing_is_committed_before_kafka_has_the_result() -> None:
    world = await a_world()
    world.producer.waiting = []
    await world.give(task(0))
    assert (len(world.results()), world.committed()) == (1, None)
    world.producer.waiting.pop().set_result(None)
    await settle()
    assert world.committed() == 1


async def test_a_lane_moves_on_when_kafka_has_the_result() -> None:
    world = await a_world()
    world.producer.waiting = []
    await world.give(task(0), task(1), task(2, key=b"other"))
    assert world.agent.inputs == ["input 0", "input 2"]
    world.producer.waiting.pop(0).set_result(None)
    await settle()
    assert world.agent.inputs == ["input 0", "input 2", "input 1"]


@pytest.mark.parametrize(
    "record",
    [
        event(0, key=b"k" * 40_000),
        event(0, key=b"k" * 2_000_000),
        with_header(event(0), "ce_correlationid", b"c" * 1_000_000),
        with_header(event(0), "tracestate", b"v=" + b"t" * 1_000_000),
        event(0, id="i" * 1024, source="s" * 1024, workflow_id="w" * 1024, key=b"k" * 32_768),
    ],
    ids=["large key", "huge key", "huge correlation", "huge trace state", "all at their limits"],
)
@pytest.mark.parametrize("output", [10, MAX_RECORD_BYTES - 10_000, MAX_RECORD_BYTES])
async def test_every_result_of_whatever_came_fits_into_a_record(record: FakeRecord, output: int) -> None:
    world = await a_world()
    world.agent.answer = lambda _: "x" * output
    await world.give(record, task(1, key=b"other"))
    assert len(world.results()) == 2
    assert world.committed() == 2


async def test_one_result_in_trouble_does_not_hold_up_the_others() -> None:
    world = await a_world()
    world.producer.refuse = [KafkaTimeoutError()]
    await world.give(*(task(offset, key=str(offset).encode()) for offset in range(5)))
    await settle()
    assert len(world.results()) == 5
    assert world.committed() == 5


# Backpressure, the end, and what is counted


async def test_a_full_partition_is_paused_and_read_on_later() -> None:
    agent = Worker(concurrency=1)
    world = await a_world(single(agent), agent=agent)
    agent.hold = asyncio.Event()
    giving = asyncio.create_task(
        world.give(*(task(offset, key=str(offset).encode()) for offset in range(2_100)))
    )
    await settle()
    assert world.membership.paused == {("tasks.reader", 0)}
    assert not giving.done()  # nothing more is read while every slot is busy and enough is queued
    agent.hold.set()
    await giving
    while world.committed() != 2_100:
        await settle()
    assert world.membership.paused == set()
    assert len(world.results()) == 2_100


async def test_a_lost_run_counts_as_no_failure() -> None:
    world = await a_world(agent=(agent := Worker("lost")))
    agent.hold = asyncio.Event()
    await world.give(task(0, agent="lost"))
    await world.assign(3)
    await settle()
    failures = {"agent": "lost", "type": "deadline_exceeded"}
    assert metrics.REGISTRY.get_sample_value("callboard_errors_total", failures) is None
    assert world.results() == []


async def test_stopping_drains_commits_and_cancels_what_is_left() -> None:
    world = await a_world()
    world.agent.hold = asyncio.Event()
    await world.give(task(0))
    await world.worker.stop()
    assert world.membership.commits_now == 1
    assert (world.results(), world.committed()) == ([], 0)


async def test_stopping_gives_up_committing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LAST_COMMIT_SECONDS", 0)
    world = await a_world()
    monkeypatch.setattr(world.membership, "commit_now", asyncio.Event().wait)
    await world.worker.stop()


async def test_stopping_gives_up_publishing() -> None:
    world = await a_world()
    world.producer.refuse = [KafkaTimeoutError()] * 1_000_000
    await world.give(task(0))
    await world.worker.stop()
    await settle()
    left = len(world.producer.refuse)
    await settle()
    assert len(world.producer.refuse) == left


async def test_a_lost_result_that_kafka_did_not_take_yet_is_not_published() -> None:
    world = await a_world()
    world.producer.refuse = [KafkaTimeoutError()] * 1_000_000
    await world.give(task(0), task(1, partition=0, key=b"other"))
    await world.assign(0)  # away in between: someone else may have run it
    world.producer.refuse.clear()
    await settle()
    assert world.results() == []
    await world.give(task(0), task(1, key=b"other"))
    assert len(world.results()) == 2
    assert world.committed() == 2


async def test_what_happens_is_counted() -> None:
    agent = Worker("counted")
    world = await a_world(single(agent), agent=agent)
    agent.answer = lambda value: 1 / 0 if value == "bad" else ask(value)

    async def ask(value: Any) -> Any:
        usage = current_task().usage
        usage.calls, usage.input_tokens, usage.output_tokens = 2, 30, 4
        return value

    await world.give(
        event(0, agent="counted"),
        event(1, {"input": "bad"}, agent="counted"),
        task(2, b"", agent="counted"),
        event(3, agent="counted", id="id-0"),
    )

    def count(name: str, **labels: str) -> float | None:
        return metrics.REGISTRY.get_sample_value(f"callboard_{name}", {"agent": "counted"} | labels)

    assert count("records_total", topic="tasks.counted") == 4
    assert count("runs_total", status="completed") == 1
    assert count("runs_total", status="failed") == 2
    assert count("errors_total", type="exception") == 1
    assert count("errors_total", type="invalid_input") == 1
    assert count("llm_calls_total") == 2
    assert (count("llm_tokens_total", direction="input"), count("llm_tokens_total", direction="output")) == (
        30,
        4,
    )
    assert count("skipped_total", reason="duplicate") == 1
    assert count("rebalances_total") == 1
    assert count("run_seconds_count") == 2


async def test_what_is_said_of_work_that_runs_nothing_is_not_said_of_the_run_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await a_world()
    answers, told = world.worker._answers, []
    encode = answers.encode

    def watched(work: Any, given: Any, result: Any) -> Any:
        try:
            told.append((work.kind, current_task().id))
        except LookupError:
            told.append((work.kind, None))
        return encode(work, given, result)

    monkeypatch.setattr(answers, "encode", watched)
    odd = replace(event(1), headers=(("ce_id", b"1"),))
    await world.give(event(0, key=b"a"), replace(odd, key=b"b"), event(2, key=b"c"))
    assert told == [("run", "id-0"), ("invalid", None), ("run", "id-2")]
