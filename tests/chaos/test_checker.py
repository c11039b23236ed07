"""The checker reports nothing on a clean history, and on one with a single planted fault exactly that one."""

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .checker import check, identity
from .history import Application, Call, Commit, Event, History, Published, Record

FOLLOWS = {
    "researcher": (),
    "developer": ("researcher",),
    "code_reviewer": ("developer",),
    "testing": ("developer",),
    "documentation": ("code_reviewer", "testing"),
}
APPLICATION = Application(prefix="", follows=FOLLOWS, joins=frozenset({"documentation"}))
BEGIN = 1_800_000_000.0


def wire_digest(record: Record) -> str:
    """What the wire contract calls a record's digest, written down once more."""
    parts = [record.key, record.value, *(value for _, value in record.headers)]
    names = [name.encode() for name, _ in record.headers]
    lengths = [0xFFFFFFFF if part is None else len(part) for part in parts] + [len(name) for name in names]
    data = b"callboard-record-v1" + struct.pack(f">{len(lengths)}I", *lengths)
    return hashlib.sha256(data + b"".join(part or b"" for part in parts) + b"".join(names)).hexdigest()


def time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


class Writer:
    """Writes a history as the product would, one thing after the other."""

    def __init__(self) -> None:
        self.history = History(APPLICATION)
        self.now = BEGIN
        self._ends: dict[str, int] = {}

    def append(
        self, topic: str, key: str, value: object, headers: dict[str, str], at: float | None = None
    ) -> Record:
        self.now += 0.1
        offset = self._ends.get(topic, 0)
        self._ends[topic] = offset + 1
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        encoded = tuple((name, text.encode()) for name, text in headers.items())
        stamp = round((self.now if at is None else at) * 1000)
        record = Record(topic, 0, offset, stamp, key.encode(), raw, encoded)
        self.history.records.append(record)
        return record

    def task(self, agent: str, name: str, key: str, value: object, expect: str = "result") -> Record:
        headers = {"ce_specversion": "1.0", "ce_id": name, "ce_source": "/test", "ce_correlationid": name}
        record = self.append(f"tasks.{agent}", key, value, headers)
        self.history.published.append(Published(self.now, record.place, agent, expect))
        return record

    def entry(self, agent: str, run: str, state: str, instance: str = "w1", **more: object) -> Record:
        value = {"run": run, "agent": agent, "kind": "llm", "name": "m", "request": "r", "occurrence": 0}
        value |= {"state": state, "instance": instance} | more
        return self.append(f"journal.{agent}", run, value, {"ce_type": "callboard.journal.v1"})

    def call(self, agent: str, run: str, answer: str, outcome: str = "ok") -> None:
        self.now += 0.1
        prompt = json.dumps({"run": run, "agent": agent, "call": 0})
        self.history.calls.append(Call(self.now, self.now + 0.05, "r", prompt, answer, outcome))
        self.now += 0.1

    def commit(self, agent: str, cause: Record) -> None:
        self.now += 0.1
        self.history.commits.append(Commit(self.now, agent, cause.topic, 0, cause.offset + 1))
        self.now += 0.1

    def run(self, agent: str, causes: list[Record]) -> Record:
        key, workflow = (causes[0].key or b"").decode(), dict(causes[0].headers)["ce_correlationid"] or b""
        run, answer = f"run-{agent}-{workflow.decode()}", f"msg_{agent}_{workflow.decode()}"
        begun = self.now
        prompt = json.dumps({"run": run, "agent": agent, "call": 0})
        self.entry(agent, run, "started", question={"messages": [{"content": prompt}]})
        self.call(agent, run, answer)
        self.entry(agent, run, "completed", answer={"text": answer})
        return self.result(agent, run, causes, "completed", {"answers": [answer]}, begun, key)

    def result(  # noqa: PLR0913, PLR0917 (what a result says)
        self, agent: str, run: str, causes: list[Record], status: str, output: object, begun: float, key: str
    ) -> Record:
        names = [(dict(it.headers).get("ce_id") or it.place.encode()).decode() for it in causes]
        workflow = (dict(causes[0].headers).get("ce_correlationid") or names[0].encode()).decode()
        value = {
            "run": run,
            "attempts": 1,
            "started_at": time_text(begun),
            "finished_at": time_text(self.now),
            "output": output,
        }
        headers = {
            "ce_specversion": "1.0",
            "ce_id": f"result-of-{run}",
            "ce_source": f"/callboard/test/{agent}",
            "ce_type": "callboard.result.v1",
            "ce_correlationid": workflow,
            "ce_pass": workflow,
            "ce_status": status,
            "ce_causationid": ",".join(names),
            "ce_causedigest": ",".join(map(wire_digest, causes)),
        }
        record = self.append(f"results.{agent}", key, value, headers)
        for cause in causes:
            self.commit(agent, cause)
        return record


def clean() -> History:
    """Four workflows with two keys, and one record that became a dead letter."""
    writer = Writer()
    names = ["a1", "b1", "a2", "b2"]
    roots = [writer.task("researcher", name, name[0], {"input": name}) for name in names]
    for root in roots:
        research = writer.run("researcher", [root])
        patch = writer.run("developer", [research])
        review = writer.run("code_reviewer", [patch])
        tests = writer.run("testing", [patch])
        writer.run("documentation", [review, tests])
    bad = writer.task("documentation", "bad", "c", b"\xff", "dead")
    origin = {f"kafka_dlt-original-{part}": it for part, it in zip(*_place(bad), strict=True)}
    headers = {name: (value or b"").decode() for name, value in bad.headers}
    letter = {"dlt-id": "letter-1", "dlt-reason": "invalid_event"} | origin
    writer.append("dead.documentation", "c", b"\xff", headers | letter)
    writer.result("documentation", "run-bad", [bad], "failed", None, writer.now, "c")
    return writer.history


def _place(record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return ("topic", "partition", "offset"), (record.topic, str(record.partition), str(record.offset))


def _workflow(record: Record) -> str:
    return (dict(record.headers)["ce_correlationid"] or b"").decode()


# What the planted faults change -----------------------------------------------------------------


def index(history: History, topic: str, workflow: str) -> int:
    """Find the first record of a topic that is about a workflow."""
    return next(
        number
        for number, record in enumerate(history.records)
        if record.topic == topic and dict(record.headers)["ce_correlationid"] == workflow.encode()
    )


def entries(history: History, agent: str, workflow: str) -> list[int]:
    """Find what the journal says of a run: its start, then its end."""
    run = f"run-{agent}-{workflow}".encode()
    topic = f"journal.{agent}"
    return [n for n, it in enumerate(history.records) if it.topic == topic and it.key == run]


def change(history: History, number: int, **more: object) -> None:
    history.records[number] = replace(history.records[number], **more)  # type: ignore[arg-type]


def set_header(history: History, number: int, name: str, value: str) -> None:
    headers = tuple((known, it) for known, it in history.records[number].headers if known != name)
    change(history, number, headers=(*headers, (name, value.encode())))


def set_value(history: History, number: int, **more: object) -> None:
    value = json.loads(history.records[number].value or b"") | more
    change(history, number, value=json.dumps(value).encode())


def append_copy(history: History, number: int) -> int:
    record = history.records[number]
    end = max(it.offset for it in history.records if it.topic == record.topic) + 1
    history.records.append(replace(record, offset=end, timestamp=history.records[-1].timestamp + 100))
    return len(history.records) - 1


def call_of(history: History, workflow: str) -> int:
    return next(n for n, it in enumerate(history.calls) if it.answer == f"msg_documentation_{workflow}")


def without_commits(history: History, agent: str) -> None:
    history.commits = [it for it in history.commits if it.agent != agent]


def lost(history: History) -> None:
    without_commits(history, "documentation")
    del history.records[index(history, "results.documentation", "a2")]


def duplicate_result(history: History) -> None:
    append_copy(history, index(history, "results.documentation", "a1"))


def second_outcome(history: History) -> None:
    number = append_copy(history, index(history, "results.documentation", "a1"))
    set_header(history, number, "ce_id", "another-one")


def repeated_journaled(history: History) -> None:
    call = history.calls[call_of(history, "b1")]
    history.calls.append(replace(call, at=call.at + 60, until=call.until + 60, answer="msg_again"))


def unlogged_call(history: History) -> None:
    del history.records[entries(history, "documentation", "b1")[0]]


def call_twice(history: History, outcome: str = "ok", retry_after: float | None = None) -> None:
    """Let a call be made twice before the journal has an answer, both times written down before."""
    started, completed = entries(history, "documentation", "b1")
    number = call_of(history, "b1")
    call = history.calls[number]
    second = replace(call, at=call.at + 0.05, until=call.until + 0.05, answer=call.answer)
    first = replace(call, answer="msg_other", outcome=outcome, retry_after=retry_after)
    history.calls[number : number + 1] = [first, second]
    again = append_copy(history, started)
    middle = (history.records[started].timestamp + history.records[completed].timestamp) // 2
    change(history, again, timestamp=middle)
    # In between, not behind: offsets of a journal are its order.
    change(history, completed, offset=history.records[again].offset + 1)


def repeated_without_reason(history: History) -> None:
    call_twice(history)


def too_early(history: History) -> None:
    call_twice(history, "429", 30.0)


def two_answers(history: History) -> None:
    number = append_copy(history, entries(history, "documentation", "a1")[1])
    set_value(history, number, answer={"text": "msg_quite_another"})


def invented_answer(history: History) -> None:
    set_value(
        history, index(history, "results.documentation", "a1"), output={"answers": ["msg_never_bought"]}
    )


def unjournaled_answer(history: History) -> None:
    del history.records[entries(history, "documentation", "a1")[1]]


def order_break(history: History) -> None:
    without_commits(history, "documentation")
    one, two = (index(history, "results.documentation", name) for name in ("a1", "a2"))
    first, second = history.records[one], history.records[two]
    change(history, one, offset=second.offset, timestamp=second.timestamp)
    change(history, two, offset=first.offset, timestamp=first.timestamp)


def overlap(history: History) -> None:
    early = history.records[index(history, "results.documentation", "a1")].timestamp - 10
    change(history, entries(history, "documentation", "a2")[0], timestamp=early)


def unknown_cause(history: History) -> None:
    set_header(history, index(history, "results.documentation", "a1"), "ce_causedigest", "0" * 64)


def missing_record(history: History) -> None:
    history.published.append(Published(BEGIN, "tasks.researcher/0/77", "researcher"))


def early_commit(history: History) -> None:
    history.commits.append(Commit(BEGIN, "testing", "results.developer", 0, 1))


def too_many_at_once(history: History) -> None:
    history.application = replace(APPLICATION, limits={"documentation": 1})
    number = call_of(history, "a1")
    history.calls[number] = replace(history.calls[number], until=history.calls[number].until + 60)


def late_start(history: History) -> None:
    set_header(history, index(history, "results.documentation", "a2"), "ce_deadline", time_text(BEGIN))


def late_call(history: History) -> None:
    number = index(history, "results.documentation", "b2")
    began = history.records[entries(history, "documentation", "b2")[0]].timestamp / 1000
    history.application = replace(APPLICATION, grace=0.0)
    set_value(history, number, started_at=time_text(began - 1))
    set_header(history, number, "ce_deadline", time_text(began - 0.5))


def changed_letter(history: History) -> None:
    change(history, index(history, "dead.documentation", "bad"), value=b"\xfe")


def letter_without_reason(history: History) -> None:
    set_header(history, index(history, "dead.documentation", "bad"), "dlt-reason", "")


def letter_of_nothing(history: History) -> None:
    number = append_copy(history, index(history, "dead.documentation", "bad"))
    set_header(history, number, "dlt-id", "letter-2")
    set_header(history, number, "kafka_dlt-original-offset", "999")


def duplicate_letter(history: History) -> None:
    append_copy(history, index(history, "dead.documentation", "bad"))


def unexpected_letter(history: History) -> None:
    number = next(n for n, it in enumerate(history.published) if it.expect == "dead")
    history.published[number] = replace(history.published[number], expect="result")


def no_letter(history: History) -> None:
    del history.records[index(history, "dead.documentation", "bad")]


def fenced_write(history: History) -> None:
    started, completed = entries(history, "documentation", "a1")
    second = append_copy(history, started)
    change(history, second, timestamp=history.records[started].timestamp + 1)
    set_value(history, second, instance="w2")
    change(history, completed, offset=history.records[second].offset + 1)


PLANTED: dict[Callable[[History], None], tuple[str, str]] = {
    lost: ("I1", "lost"),
    duplicate_result: ("I2", "duplicate result"),
    second_outcome: ("I2", "second outcome"),
    repeated_journaled: ("I3", "repeated call, journaled"),
    repeated_without_reason: ("I3", "repeated call"),
    unlogged_call: ("I3", "unlogged call"),
    too_early: ("I3", "too early"),
    two_answers: ("I3", "two answers"),
    invented_answer: ("I3", "invented answer"),
    unjournaled_answer: ("I3", "unjournaled answer"),
    order_break: ("I4", "order break"),
    overlap: ("I4", "overlap"),
    unknown_cause: ("I5", "unknown cause"),
    missing_record: ("I5", "missing record"),
    early_commit: ("I6", "early commit"),
    too_many_at_once: ("I7", "too many at once"),
    late_start: ("I9", "late work"),
    late_call: ("I9", "late work"),
    changed_letter: ("I10", "changed letter"),
    letter_without_reason: ("I10", "letter without reason"),
    letter_of_nothing: ("I10", "letter of nothing"),
    duplicate_letter: ("I10", "duplicate letter"),
    unexpected_letter: ("I10", "unexpected letter"),
    no_letter: ("I10", "no letter"),
    fenced_write: ("I11", "fenced write"),
}


def test_a_clean_history_has_no_violation() -> None:
    report = check(clean())
    assert report.violations == []
    assert report.counts["tasks"] == 5
    assert report.counts["results"] == 21
    assert report.counts["calls"] == 20
    assert report.counts["lost"] == report.counts["in doubt"] == 0


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_nothing_else(plant: Callable[[History], None]) -> None:
    history = clean()
    plant(history)
    found = check(history).violations
    assert [(violation.invariant, violation.kind) for violation in found] == [PLANTED[plant]], found


def test_a_call_in_flight_at_a_fault_may_be_repeated_and_is_counted() -> None:
    history = clean()
    call_twice(history)
    moment = history.calls[call_of(history, "b1") - 1].at
    history.events.append(Event(moment, "kill", "worker 1", disrupts=True))
    report = check(history)
    assert report.violations == []
    assert report.counts["in doubt"] == report.counts["in flight at faults"] == 1


def test_the_death_of_one_worker_excuses_nothing_of_another() -> None:
    history = clean()
    call_twice(history)
    for number in entries(history, "documentation", "b1"):
        set_value(history, number, instance="here-12")
    kill = Event(history.calls[call_of(history, "b1") - 1].at, "kill", "worker 1", disrupts=True, process=2)
    history.events.append(kill)
    assert [it.kind for it in check(history).violations] == ["repeated call"]
    history.events.append(replace(kill, process=12))
    assert check(history).violations == []


def test_a_good_record_may_be_given_up_after_two_deaths_with_it_under_way_and_not_sooner() -> None:
    history = clean()
    started, _ = entries(history, "documentation", "b1")
    set_value(history, started, instance="here-1")
    set_value(history, append_copy(history, started), instance="here-2")
    run = "run-documentation-b1"
    cause = history.records[index(history, "results.testing", "b1")]
    letter = {"dlt-id": "letter-2", "dlt-reason": "poison", "dlt-run": run}
    letter |= {f"kafka_dlt-original-{part}": it for part, it in zip(*_place(cause), strict=True)}
    added = tuple((name, text.encode()) for name, text in letter.items())
    history.records.append(
        replace(cause, topic="dead.documentation", offset=9, headers=cause.headers + added)
    )
    kills = [Event(BEGIN, "kill", "worker", disrupts=True, process=number) for number in (1, 2)]
    history.events.append(kills[0])
    assert "unexpected letter" in {it.kind for it in check(history).violations}
    history.events.append(kills[1])
    report = check(history)
    assert "unexpected letter" not in {it.kind for it in report.violations}
    assert report.counts["condemned"] == 1


def joins_log(part: Record, kept: Iterable[tuple[int, float]], *, overwritten: int | None) -> list[Record]:
    """What is left of a join's own log: offsets, with seconds after a part; at one its key was emptied."""
    of_others, own = ('["test","other"]', f'["test","{_workflow(part)}","testing"]')
    return [
        Record(
            topic="joins.documentation",
            partition=0,
            offset=offset,
            timestamp=part.timestamp + round(after * 1000),
            key=(own if offset == overwritten else of_others).encode(),
            value=None,
            headers=(),
        )
        for offset, after in kept
    ]


@pytest.mark.parametrize(
    ("kept", "overwritten", "kinds"),
    [
        pytest.param([(3, 0.5)], 3, [], id="its record may be the one that is gone"),
        pytest.param([(0, -1.0), (3, 0.5)], 3, [], id="or be in a gap behind what is kept"),
        pytest.param([(0, 0.5), (1, 0.6)], 1, ["early commit"], id="nothing is gone"),
        pytest.param([(3, 0.5)], None, ["early commit"], id="nothing was written over its record"),
        pytest.param([(3, -0.5), (4, 0.5)], 4, ["early commit"], id="what is gone was there before the part"),
        pytest.param([(0, 0.3), (3, 0.5)], 3, ["early commit"], id="what is gone came after the commit"),
        pytest.param(
            [(0, 0.5), (3, 0.6)], 0, ["early commit"], id="what is gone came after its key was empty"
        ),
    ],
)
def test_only_a_part_that_cannot_have_been_compacted_away_proves_an_early_commit(
    kept: list[tuple[int, float]], overwritten: int | None, kinds: list[str]
) -> None:
    history = clean()
    part = history.records[index(history, "results.testing", "a1")]
    history.commits.append(Commit(part.timestamp / 1000 + 0.2, "documentation", part.topic, 0, 1))
    history.records += joins_log(part, kept, overwritten=overwritten)
    report = check(history)
    assert [violation.kind for violation in report.violations] == kinds
    assert kinds or report.counts["parts compacted away"] == 1


def test_a_part_in_the_own_log_of_a_join_may_be_passed_over_from_then_on() -> None:
    history = clean()
    part = history.records[index(history, "results.testing", "a1")]
    value = json.dumps({"part": {"digest": wire_digest(part)}}).encode()
    kept = joins_log(part, [(0, 0.1)], overwritten=0)
    history.records += [replace(record, value=value) for record in kept]
    early = Commit(part.timestamp / 1000 + 0.2, "documentation", part.topic, 0, 1)
    history.commits.append(early)
    assert check(history).violations == []
    history.commits.append(replace(early, at=early.at - 0.2))
    assert [violation.kind for violation in check(history).violations] == ["early commit"]


def test_a_second_copy_of_a_part_may_be_passed_over_with_the_first() -> None:
    history = clean()
    number = index(history, "results.testing", "b2")
    part = history.records[number]
    copy = replace(part, offset=part.offset + 1, headers=(*part.headers, ("ce_time", b"another")))
    history.records.append(copy)
    kept, *_ = joins_log(part, [(0, 0.1)], overwritten=0)
    early = Commit(part.timestamp / 1000 + 0.2, "documentation", part.topic, 0, copy.offset + 1)
    history.commits = [it for it in history.commits if it.agent != "documentation"] + [early]
    kinds = ["duplicate result"]
    assert [it.kind for it in check(history).violations] == [*kinds, "early commit"]
    value = json.dumps({"part": {"digest": wire_digest(part)}}).encode()
    history.records.append(replace(kept, value=value))
    assert [it.kind for it in check(history).violations] == kinds


def test_what_is_no_text_is_no_name() -> None:
    history = clean()
    number = index(history, "tasks.documentation", "bad")
    first = history.records[number]
    headers = tuple((name, b"\xae" if name == "ce_id" else value) for name, value in first.headers)
    assert identity(replace(first, headers=headers)) == first.place


def test_an_answer_that_a_thawed_worker_journaled_is_told_apart() -> None:
    history = clean()
    started, completed = entries(history, "documentation", "b1")
    number = call_of(history, "b1")
    call = history.calls[number]
    late = history.records[completed].timestamp / 1000 + 1
    history.calls.insert(number + 1, replace(call, at=late, until=late, answer="msg_again"))
    again = append_copy(history, started)
    change(history, again, timestamp=round(late * 1000) - 10)
    set_value(history, again, instance="w2")
    history.events.append(Event(call.at, "freeze", "worker 1", disrupts=True))
    assert [it.kind for it in check(history).violations] == ["repeated call, zombie"]


def test_a_letter_without_a_result_is_found() -> None:
    history = clean()
    without_commits(history, "documentation")
    del history.records[index(history, "results.documentation", "bad")]
    assert {it.kind for it in check(history).violations} == {"lost", "letter without result"}


def test_a_history_can_be_kept_and_checked_by_itself(tmp_path: Path) -> None:
    history = clean()
    duplicate_result(history)
    history.save(tmp_path)
    assert History.load(tmp_path) == history
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.checker", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "I2 duplicate result" in done.stdout


def test_the_checker_shares_no_code_with_what_it_checks() -> None:
    forbidden = ("agents", "streams", "aiokafka", "faststream")
    code = (
        "import sys, tests.chaos.checker; "
        f"print([name for name in sys.modules if name.partition('.')[0] in {forbidden}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
