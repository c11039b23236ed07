"""Publishing dead letters again: what goes together, what is refused, and that a repetition is no copy."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import pytest

from streams.command_line import redriving
from streams.command_line.output import CommandError, ExitCode
from streams.command_line.redriving import Order
from streams.dead_letters import DeadLetter, Failure, write
from streams.envelope import RESULT, TASK, Envelope, Headers, decode, encode
from streams.kafka.admin import BrokerUnreachableError
from streams.kafka.publisher import PublishError
from streams.kafka.reader import Place, Reader
from streams.redrive import (
    MAX_REASON_BYTES,
    NewEvent,
    RedriveError,
    Redriven,
    agents_of,
    checked,
    letters,
    prepare,
    publish,
    redriven_before,
    rounds,
    whole,
)
from streams.rounds import entry
from streams.settings import Settings
from streams.topics import Topics
from tests.unit.worker_world import TIME, FakeRecord

if TYPE_CHECKING:
    from streams.kafka.publisher import Publisher

TOPICS = Topics("here.")
PLACES = {(TOPICS.tasks("reader"), 0), (TOPICS.tasks("reader"), 1)}


class Log:
    """A log in memory: read as by a Reader, written as by a Publisher."""

    def __init__(self) -> None:
        self.records: dict[Place, list[FakeRecord]] = {place: [] for place in PLACES}
        self.fault: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def topics(self) -> dict[str, int]:
        return {topic: 2 for topic, _ in self.records}

    def add(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Iterable[Any]
    ) -> int:
        there = self.records.setdefault((topic, partition), [])
        there.append(FakeRecord(topic, len(there), value, tuple(headers), key, partition, TIME + len(there)))
        return len(there) - 1

    async def partitions(self, topics: Iterable[str]) -> list[Place]:
        wanted = set(topics)
        return sorted(place for place in self.records if place[0] in wanted)

    async def first_offsets(self, places: Iterable[Place], *, since: int | None = None) -> dict[Place, int]:
        return await self.first_offsets_since(dict.fromkeys(places, since or 0))

    async def first_offsets_since(self, since: Mapping[Place, int]) -> dict[Place, int]:
        return {at: sum(it.timestamp < time for it in self.records[at]) for at, time in since.items()}

    async def read(
        self, starts: Mapping[Place, int], *, ends: Mapping[Place, int] | None = None
    ) -> AsyncIterator[FakeRecord]:
        for place, start in starts.items():
            for record in self.records[place][start : None if ends is None else ends[place]]:
                yield record

    async def send_and_wait(
        self, topic: str, partition: int, *, key: bytes | None, value: bytes, headers: Headers
    ) -> int:
        if self.fault is not None:
            raise self.fault
        return self.add(topic, partition, key, value, headers)

    # As the library knows it.

    @property
    def reader(self) -> Reader:
        return cast("Reader", self)

    def bury(self, *events: FakeRecord, run: str = "run", agent: str = "reader") -> None:
        failure = Failure("not_retryable", "ValueError", "no", 1, None)
        for letter in write(events, failure, run=run, agent=agent, agent_version="1"):
            self.add(TOPICS.dead(agent), events[0].partition, letter.key, letter.value, letter.headers)

    async def known(self) -> list[DeadLetter]:
        return await letters(self.reader, TOPICS, ["reader"])

    async def before(self) -> dict[str, list[Redriven]]:
        return await redriven_before(self.reader, TOPICS, await self.known())

    async def events(self, *, reason: str = "fixed", edited: bytes | None = None) -> list[NewEvent]:
        """Prepare all that were not published before."""
        known = await self.known()
        values = {} if edited is None else {letter.id: edited for letter in known}
        found = []
        for together in rounds(known, known, await self.before()):
            found += await prepare(self.reader, TOPICS, together, places=PLACES, reason=reason, edited=values)
        return found

    async def redrive(self, event: NewEvent) -> Redriven:
        return await publish(cast("Publisher", self), event)


def task(offset: int = 0, value: bytes | None = b'{"input": 1}', **more: Any) -> FakeRecord:
    headers = encode(Envelope(f"id{offset}", "/test", TASK, "w", round="first", **more))
    return FakeRecord(TOPICS.tasks("reader"), offset, value, tuple(headers), partition=1)


def result(agent: str = "first", **more: Any) -> FakeRecord:
    value = json.dumps({"agent": agent, "status": "completed", "output": "x"}).encode()
    headers = encode(Envelope(agent, "/test", RESULT, "w", round="first", status="completed", **more))
    return FakeRecord(TOPICS.results(agent), 3, value, tuple(headers), partition=1)


def envelope_of(event: NewEvent) -> Envelope:
    return decode(FakeRecord(event.topic, 0, event.value, tuple(event.headers)))


async def refused(log: Log, said: str, edited: bytes | None = None) -> None:
    with pytest.raises(RedriveError, match=said):
        await log.events(edited=edited)


async def test_a_letter_becomes_a_new_event_of_its_workflow() -> None:
    log = Log()
    log.bury(task(value=b' {"input" : 1}', workflow="flow", hops=3, traceparent=None))
    (event,) = await log.events(reason="ü" * 900)
    assert (event.topic, event.partition, event.key, event.value) == (
        "here.tasks.reader",
        1,
        b"key",
        b' {"input" : 1}',
    )
    new = envelope_of(event)
    assert (new.type, new.workflow_id, new.workflow, new.hops) == (TASK, "w", "flow", 3)
    assert new.id != "id0"
    assert new.round not in {None, "first"}
    assert entry(new.rounds) == "reader"
    assert event.header("ce_redriveof") == (await log.known())[0].id
    assert event.header("ce_redrivereason") == "ü" * (MAX_REASON_BYTES // 2)


async def test_what_made_it_fail_by_itself_is_left_out() -> None:
    log = Log()
    log.bury(task(hops=0, deadline=datetime(2020, 1, 1, tzinfo=UTC), rounds="a:no>b=3"))
    (event,) = await log.events()
    new = envelope_of(event)
    assert (new.hops, new.deadline, new.rounds) == (None, None, "reader:redrive>reader=1")


async def test_a_plain_task_keeps_the_name_of_its_workflow() -> None:
    log = Log()
    log.bury(FakeRecord(TOPICS.tasks("reader"), 5, b'{"input": 1}', (("mine", b"1"),), None, 1))
    (event,) = await log.events()
    assert envelope_of(event).workflow_id == "here.tasks.reader/1/5"
    assert event.key is None
    assert ("mine", b"1") in event.headers


async def test_a_repeated_header_is_there_once() -> None:
    log = Log()
    odd = task()
    log.bury(
        FakeRecord(odd.topic, 0, odd.value, (*odd.headers, ("ce_workflow", b"a"), ("ce_workflow", b"b")))
    )
    (event,) = await log.events()
    assert envelope_of(event).workflow == "a"


async def test_a_second_time_is_refused_and_again_is_another_event() -> None:
    log = Log()
    log.bury(task())
    (event,) = await log.events()
    repeated = await log.events()
    assert repeated[0].header("ce_id") == event.header("ce_id")
    await log.redrive(event)
    await log.redrive(repeated[0])  # nobody knew whether the first one arrived
    known, before = await log.known(), await log.before()
    assert [each.id for each in before[known[0].id]] == [event.header("ce_id")]
    (none,) = rounds(known, known, before)
    assert none.letters == ()
    assert "here.tasks.reader/1/0" in none.refused[known[0].id]
    (again,) = rounds(known, known, before, again=True)
    (second,) = await prepare(log.reader, TOPICS, again, places=PLACES, reason="")
    assert second.header("ce_id") != event.header("ce_id")
    assert second.header("ce_pass") != event.header("ce_pass")
    await log.redrive(second)
    assert len((await log.before())[known[0].id]) == 2


async def test_the_letters_of_a_join_go_into_one_new_round() -> None:
    log = Log()
    log.bury(result("left", rounds="a:no>b=1"), result("right", rounds="a:no>b=1"))
    known = await log.known()
    (together,) = rounds(known[1:], known, await log.before())
    assert list(together.letters) == known
    events = await prepare(log.reader, TOPICS, together, places=PLACES, reason="")
    assert len({event.header("ce_pass") for event in events}) == 1
    assert len({event.header("ce_id") for event in events}) == 2
    # What a join waits for depends on where the round began.
    assert [envelope_of(event).rounds for event in events] == ["a:no>b=1"] * 2


async def test_the_rest_of_an_interrupted_join_follows_into_its_round() -> None:
    log = Log()
    log.bury(result("left"), result("right"))
    left, right = await log.events()
    await log.redrive(left)
    known = await log.known()
    (rest,) = rounds(known, known, await log.before())
    assert ([letter.id for letter in rest.letters], list(rest.refused)) == ([known[1].id], [known[0].id])
    (event,) = await prepare(log.reader, TOPICS, rest, places=PLACES, reason="")
    assert event.header("ce_pass") == left.header("ce_pass")
    assert event.header("ce_id") == right.header("ce_id")


async def test_a_join_of_which_a_letter_is_gone_is_refused() -> None:
    log = Log()
    log.bury(result("left"), result("right"))
    (known, _) = await log.known()
    (none,) = rounds([known], [known], {})
    assert none.letters == ()
    assert "only 1 are still kept" in none.refused[known.id]


async def test_what_cannot_be_published() -> None:
    log = Log()
    log.bury(task(value=None))
    await refused(log, "no value")
    assert (await log.events(edited=b'{"input": 2}'))[0].value == b'{"input": 2}'
    log = Log()
    log.bury(task(value=bytes(3_000_000)))
    await refused(log, "3,000,000 bytes.*tasks.reader/1/0.*--edit")
    log = Log()
    odd = task()
    log.bury(FakeRecord(odd.topic, 0, odd.value, (*odd.headers, ("ce_hops", b"many"))))
    await refused(log, "ce_hops.*callboard publish reader")
    log = Log()
    log.bury(FakeRecord(odd.topic, 0, odd.value, odd.headers, partition=9))
    await refused(log, "no partition here.tasks.reader/9")


async def test_a_letter_that_is_gone_meanwhile() -> None:
    log = Log()
    log.bury(task())
    (letter,) = await log.known()
    log.records[TOPICS.dead("reader"), 1].clear()
    with pytest.raises(RedriveError, match="no longer kept"):
        await whole(log.reader, letter)


async def test_letters_are_read_once_without_values_and_others_are_passed_over() -> None:
    log = Log()
    log.bury(task())
    log.bury(task())  # a worker died before its result was out
    log.add(TOPICS.dead("reader"), 1, None, b"noise", ())
    forged = write([task()], Failure("", "", "", 0, None), run="x", agent="other", agent_version="")[0]
    log.add(TOPICS.dead("reader"), 1, None, None, forged.headers)
    (letter,) = await log.known()
    assert (letter.record.value, letter.size, letter.record.offset) == (None, 12, 0)
    assert (await whole(log.reader, letter)).record.value == b'{"input": 1}'


def test_agents_with_letters() -> None:
    assert agents_of(["here.dead.b", "here.dead.a", "dead.c", "here.tasks.d"], TOPICS) == ["a", "b"]


@pytest.mark.parametrize(
    ("event", "value", "said"),
    [
        (task(), b"{", "no valid callboard.task.v1"),
        (task(), b'{"inputs": 1}', "input: Field required"),
        (task(), b'{"input": 1, "repositry": 1}', "repositry"),
        (task(), bytes(2_097_153), "2,097,153 bytes"),
        (result(), b'{"input": 1}', "no valid callboard.result.v1"),
        (result(), b'{"agent": "other", "status": "completed"}', "cannot be edited"),
    ],
)
async def test_an_edited_value_fits_its_schema(event: FakeRecord, value: bytes, said: str) -> None:
    log = Log()
    log.bury(event)
    await refused(log, said, value)


async def test_an_edited_value_may_have_what_the_original_had() -> None:
    log = Log()
    log.bury(task(value=b'{"input": 1, "theirs": 2}'))
    (letter,) = await log.known()
    checked(await whole(log.reader, letter), b'{"input": 2, "theirs": 3}')


async def test_an_edited_status_is_the_header_too() -> None:
    log = Log()
    log.bury(result())
    (event,) = await log.events(edited=b'{"agent": "first", "status": "failed"}')
    assert envelope_of(event).status == "failed"


# What a person typed -----------------------------------------------------------------------------

EDITED = b'{"input": "typed"}\n'


class Desk:
    """A person who edits the only letter of a log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.log = Log()
        self.log.bury(task())
        monkeypatch.setattr(redriving, "Reader", lambda _: self.log)
        monkeypatch.setattr(redriving, "OwnPublisher", lambda _: self.log)
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        # An editor that puts a new file, which everybody may read, in the place of the old one.
        text = EDITED.decode().strip()
        monkeypatch.setenv("VISUAL", f"sh -c 'echo {json.dumps(text)} > $0.new; mv $0.new $0'")

    async def redrive(self, **more: Any) -> ExitCode:
        (letter,) = await self.log.known()
        order = Order(ids=[letter.id], because="x", editor=True, **more)
        return await redriving.redrive(Settings(topic_prefix="here."), order)

    def check_kept(self, told: str) -> None:
        """Expect that what was typed is in a file, only for its owner, and that this was said."""
        (file,) = self.folder.iterdir()
        assert f"the edited value is kept: give it with --edit {file}" in told
        assert file.read_bytes() == EDITED
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.fixture(name="desk")
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


async def test_what_was_typed_is_removed_when_it_is_in_the_log(desk: Desk) -> None:
    assert await desk.redrive() == ExitCode.OK
    assert [it.value for it in desk.log.records[TOPICS.tasks("reader"), 1]] == [EDITED]
    assert list(desk.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (PublishError("not now"), ExitCode.UNREACHABLE),
        (asyncio.CancelledError(), ExitCode.INTERRUPTED),
    ],
)
async def test_what_was_typed_is_kept_if_kafka_does_not_take_it(
    desk: Desk, fault: BaseException, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.log.fault = fault
    with pytest.raises(CommandError) as refusal:
        await desk.redrive()
    assert refusal.value.code == code
    desk.check_kept(capsys.readouterr().err)


async def test_what_was_typed_is_kept_if_kafka_is_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Gone(Log):
        async def __aenter__(self) -> Self:
            raise BrokerUnreachableError("no Kafka broker answers")

    monkeypatch.setattr(redriving, "OwnPublisher", lambda _: Gone())
    with pytest.raises(BrokerUnreachableError):
        await desk.redrive()
    desk.check_kept(capsys.readouterr().err)


async def test_what_was_typed_is_kept_if_it_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streams.redrive.MAX_MESSAGE_BYTES", len(EDITED))
    assert await desk.redrive() == ExitCode.FAILED
    told = capsys.readouterr().err
    assert "a record at most 19" in told
    desk.check_kept(told)


async def test_what_was_typed_to_try_it_is_kept(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert await desk.redrive(dry_run=True) == ExitCode.OK
    desk.check_kept(capsys.readouterr().err)
    assert desk.log.records[TOPICS.tasks("reader"), 1] == []
