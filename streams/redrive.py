"""Publishes dead letters again, on purpose, as new events for the one agent that could not process them.

The same key and value, the same partition number; a new id, a new round of the workflow, and headers that say
which letter it repeats and why. The id follows from the letter and the number of the redrive, so that a
redrive which is repeated because nobody knows whether it worked is recognized as the same event. Letters of
one run, which are the parts of a join, go into one new round together: alone none of them leads to anything.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from agents.core.errors import AgentError
from streams import envelope as envelopes
from streams import rounds as ways
from streams.dead_letters import REDRIVE_OF, REDRIVE_REASON, DeadLetter, read
from streams.envelope import RESULT, TASK, EnvelopeError, Headers
from streams.kafka.publisher import Publisher
from streams.kafka.reader import CLOCK_SKEW_MS, Place, Reader
from streams.payloads import ResultPayload, TaskPayload
from streams.topics import MAX_MESSAGE_BYTES, MAX_RECORD_BYTES, Topics

MAX_REASON_BYTES = 1_000
SOURCE = "/callboard/redrive"
# Of the original: the rest of them still holds for the new event. A deadline has passed by now.
REPLACED = frozenset({"ce_specversion", "ce_type", "ce_id", "ce_source", "ce_time", "ce_pass"})
DROPPED = frozenset({"ce_deadline", REDRIVE_OF, REDRIVE_REASON})
MOST_REDRIVES = 1_000
FRAMING_BYTES = 1_024

Tell = Callable[[int], None]


class RedriveError(AgentError):
    """A letter cannot be published again; the message says why and what to do."""

    type = "redrive"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a record of which only the place and the key are needed."""

    topic: str
    partition: int
    offset: int
    timestamp: int = 0
    timestamp_type: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Redriven:
    """A letter that was published again.

    Attributes:
        letter: Its id.
        id: `ce_id` of the new event.
        place: topic/partition/offset of the new event.
        because: Why, for people.
        timestamp: When, in milliseconds since 1970; none: just now.
    """

    letter: str
    id: str
    place: str
    because: str
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """Letters that are published again together.

    Attributes:
        letters: Which; they are of one run.
        number: Of the redrive, from 1.
        refused: Why letters that were asked for are none of them, by id.
    """

    letters: tuple[DeadLetter, ...]
    number: int
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What a letter becomes; `topic` and `partition` are where it goes."""

    letter: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Headers

    def header(self, name: str) -> str:
        """Give a header's text, or nothing."""
        return next((value.decode() for each, value in self.headers if each == name), "")


def agents_of(existing: Iterable[str], topics: Topics) -> list[str]:
    """Tell which agents have a topic of dead letters, of all topics that exist."""
    start = topics.dead("")
    return sorted(topic.removeprefix(start) for topic in existing if topic.startswith(start))


async def letters(
    reader: Reader,
    topics: Topics,
    agents: Iterable[str],
    *,
    since: int | None = None,
    tell: Tell = lambda _: None,
) -> list[DeadLetter]:
    """Read the dead letters of agents, oldest first; without their values, which `whole` gives.

    Args:
        reader: Of the log.
        topics: Topic names.
        agents: Whose.
        since: Milliseconds since 1970: only later ones.
        tell: Called with the number of records read, after each.
    """
    found: dict[str, DeadLetter] = {}
    places = await reader.partitions(topics.dead(agent) for agent in agents)
    count = 0
    async for record in reader.read(await reader.first_offsets(places, since=since)):
        count += 1
        tell(count)
        letter = read(record)
        # A worker that dies before its run's result is out writes the same letters again: the first counts.
        if letter is not None and topics.dead(letter.agent) == record.topic and letter.id not in found:
            kept = Kept(record.topic, record.partition, record.offset, record.timestamp, key=record.key)
            found[letter.id] = replace(letter, record=kept)
    return sorted(found.values(), key=lambda it: (it.record.timestamp, it.record.partition, it.record.offset))


async def whole(reader: Reader, letter: DeadLetter) -> DeadLetter:
    """Give a letter with its value.

    Raises:
        RedriveError: If it is not there any more.
    """
    at = letter.record.topic, letter.record.partition
    first = (await reader.first_offsets([at]))[at]
    if first <= letter.record.offset:
        async for record in reader.read({at: letter.record.offset}, ends={at: letter.record.offset + 1}):
            again = read(record)
            if again is not None and again.id == letter.id:
                return again
    raise RedriveError(f"letter {letter.id} is no longer kept at {envelopes.place(letter.record)}")


async def redriven_before(
    reader: Reader, topics: Topics, wanted: Sequence[DeadLetter], *, tell: Tell = lambda _: None
) -> dict[str, list[Redriven]]:
    """Tell which letters were published again already, and as what; copies of one event count once.

    Args:
        reader: Of the log.
        topics: Topic names.
        wanted: Letters.
        tell: Called with the number of records read, after each.
    """
    found: dict[str, dict[str, Redriven]] = {letter.id: {} for letter in wanted}
    oldest: dict[Place, int] = {}
    for letter in wanted:
        at = topics.tasks(letter.agent), letter.record.partition
        oldest[at] = min(oldest.get(at, letter.record.timestamp), letter.record.timestamp)
    existing = set(await reader.partitions({topic for topic, _ in oldest}))
    since = {at: max(0, time - CLOCK_SKEW_MS) for at, time in oldest.items() if at in existing}
    count = 0
    async for record in reader.read(await reader.first_offsets_since(since)):
        count += 1
        tell(count)
        headers = dict(record.headers)
        letter_id, identity, because = (
            (headers.get(name) or b"").decode(errors="replace")
            for name in (REDRIVE_OF, "ce_id", REDRIVE_REASON)
        )
        if letter_id in found:
            again = Redriven(letter_id, identity, envelopes.place(record), because, record.timestamp)
            found[letter_id].setdefault(identity, again)
    return {letter_id: list(events.values()) for letter_id, events in found.items()}


def rounds(
    chosen: Iterable[DeadLetter],
    known: Iterable[DeadLetter],
    before: Mapping[str, Sequence[Redriven]],
    *,
    again: bool = False,
) -> list[Round]:
    """Put letters together that belong together: those of a join come all, or those that are still missing.

    Args:
        chosen: Which ones were asked for.
        known: All there are, of the same agents.
        before: What `redriven_before` found.
        again: Publish also what was published before.
    """
    runs: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in known:
        runs.setdefault((letter.agent, letter.run), []).append(letter)
    asked: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in chosen:
        asked.setdefault((letter.agent, letter.run), []).append(letter)
    return [_round(own, runs[run], before, again=again) for run, own in asked.items()]


def _round(
    asked: list[DeadLetter],
    family: list[DeadLetter],
    before: Mapping[str, Sequence[Redriven]],
    *,
    again: bool,
) -> Round:
    last = max(_last_number(letter, before) for letter in family)
    if len(family) < asked[0].parts:
        why = (
            f"it is one of {asked[0].parts} that belong together, of which only {len(family)} are still kept;"
            " the join would wait for the others for ever"
        )
        return Round((), last, {letter.id: why for letter in asked})
    if again:
        return Round(tuple(family), last + 1)
    # A redrive that was interrupted left some of a join's parts out: they follow the others into their round.
    left = tuple(letter for letter in family if not before.get(letter.id))
    refused = {
        letter.id: "it was published again already, as"
        f" {', '.join(event.place for event in before[letter.id])}; to do it once more, say --again"
        for letter in asked
        if before.get(letter.id)
    }
    return Round(left, max(last, 1), refused)


def _last_number(letter: DeadLetter, before: Mapping[str, Sequence[Redriven]]) -> int:
    left = {event.id for event in before.get(letter.id, ())}
    last = 0
    for number in range(1, MOST_REDRIVES):
        if not left:
            break
        if (identity := _identity(letter, number)) in left:
            left.remove(identity)
            last = number
    return last


def _identity(letter: DeadLetter, number: int) -> str:
    return envelopes.result_id(f"{letter.id}/redrive", number)


def headers_of(letter: DeadLetter, number: int, reason: str, *, status: str | None = None) -> Headers:
    """Make the headers of the event that repeats a letter.

    Args:
        letter: Which one.
        number: Of the redrive, from 1.
        reason: Why, for people; recorded with the event.
        status: Of an edited result.
    """
    own: Headers = []
    names: set[str] = set()
    for name, value in letter.headers:
        # The first of a repeated CloudEvents header counts; an event with two would be refused.
        if not (name.startswith("ce_") and name in names):
            own.append((name, value))
        names.add(name)
    known = {name: value for name, value in own if value is not None}
    left_out = REPLACED | DROPPED
    added: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", RESULT.encode() if is_result(letter) else TASK.encode()),
        ("ce_id", _identity(letter, number).encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_time", envelopes.now().encode()),
        # All parts of a join go into one new round, so that they meet again.
        ("ce_pass", envelopes.result_id(f"{letter.run}/redrive", number).encode()),
        (REDRIVE_OF, letter.id.encode()),
        (REDRIVE_REASON, cut(reason).encode()),
    ]
    # Parts of a join keep theirs: what it waits for depends on where their round began.
    if letter.parts == 1:
        added.append(("ce_rounds", ways.redriven(letter.agent).encode()))
        left_out |= {"ce_rounds"}
    if not known.get("ce_correlationid"):
        added.append(("ce_correlationid", workflow_of(letter).encode()))
        left_out |= {"ce_correlationid"}
    if not known.get("ce_hops", b"1").strip(b"0"):
        left_out |= {"ce_hops"}  # it is why the event was refused; publishing it again lifts that limit
    if status is not None:
        added.append(("ce_status", status.encode()))
        left_out |= {"ce_status"}
    return added + [(name, value) for name, value in own if name not in left_out]


def cut(reason: str) -> str:
    """Give as much of a reason as is recorded."""
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


def is_result(letter: DeadLetter) -> bool:
    """Tell whether the event was another agent's result; otherwise it was a task."""
    prefix = letter.record.topic.removesuffix(Topics().dead(letter.agent))
    is_from_results = letter.origin.startswith(Topics(prefix).results(""))
    return is_from_results or dict(letter.headers).get("ce_type") == RESULT.encode()


def workflow_of(letter: DeadLetter) -> str:
    """Tell which workflow the event belongs to: a plain task is named by its place."""
    known = dict(reversed(letter.headers))
    identity = known.get("ce_correlationid") or known.get("ce_id")
    return identity.decode(errors="replace") if identity else letter.origin


def checked(letter: DeadLetter, value: bytes) -> ResultPayload | TaskPayload:
    """Check an edited value against the schema of what it is.

    Args:
        letter: Whole, because fields that the original has are allowed whatever they are.
        value: The edited one.

    Raises:
        RedriveError: If it does not fit.
    """
    kind: type[TaskPayload | ResultPayload] = ResultPayload if is_result(letter) else TaskPayload
    title = kind.model_config.get("title")
    if len(value) > MAX_RECORD_BYTES:
        raise RedriveError(
            f"the edited value has {len(value):,} bytes, a record at most {MAX_RECORD_BYTES:,}; put the bulk"
            " into an artifact"
        )
    try:
        payload = kind.model_validate_json(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise RedriveError(f"the edited value is no valid {title}: {problems}") from None
    original = _object(letter.record.value)
    if unknown := _object(value).keys() - kind.model_fields.keys() - original.keys():
        raise RedriveError(
            f"the edited value has what {title} does not know: {', '.join(sorted(unknown))}; it has:"
            f" {', '.join(kind.model_fields)}"
        )
    if isinstance(payload, ResultPayload) and payload.agent != original.get("agent", payload.agent):
        raise RedriveError(
            f"the edited value is a result of {payload.agent!r}, the original one of {original['agent']!r}:"
            " whose result it is cannot be edited"
        )
    return payload


def _object(value: bytes | None) -> dict[str, object]:
    try:
        read_value = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}
    return read_value if isinstance(read_value, dict) else {}


async def prepare(  # noqa: PLR0913 (keyword-only how)
    reader: Reader,
    topics: Topics,
    together: Round,
    *,
    places: Collection[Place],
    reason: str,
    edited: Mapping[str, bytes] | None = None,
) -> list[NewEvent]:
    """Make the events of one round, all of them or none.

    Args:
        reader: Of the log.
        topics: Topic names.
        together: Which letters.
        places: The partitions that exist.
        reason: Why, for people.
        edited: Values by letter id, in place of the original ones.

    Raises:
        RedriveError: If one of them cannot be published, or would be refused again for what is known here.
    """
    events = []
    for slim in together.letters:
        letter = await whole(reader, slim)
        value = (edited or {}).get(letter.id)
        status = None
        if value is not None:
            payload = checked(letter, value)
            status = payload.status.value if isinstance(payload, ResultPayload) else None
        headers = headers_of(letter, together.number, reason, status=status)
        content = value if value is not None else _value_of(letter)
        event = NewEvent(
            letter.id,
            topics.tasks(letter.agent),
            letter.record.partition,
            letter.record.key,
            content,
            headers,
        )
        _check(event, letter, places)
        events.append(event)
    return events


def _value_of(letter: DeadLetter) -> bytes:
    value = letter.record.value
    if value is not None:
        return value
    if letter.omitted_bytes is not None:
        raise RedriveError(
            f"letter {letter.id} does not hold its event: {letter.omitted_bytes:,} bytes are more than a"
            f" record of the application takes; the event itself is at {letter.origin}; give a smaller"
            " value with --edit"
        )
    raise RedriveError(f"the event of letter {letter.id} has no value (null): give it one with --edit")


def _check(event: NewEvent, letter: DeadLetter, places: Collection[Place]) -> None:
    if (event.topic, event.partition) not in places:
        raise RedriveError(
            f"there is no partition {event.topic}/{event.partition}: does the application still exist, with"
            " as many partitions?"
        )
    size = len(event.key or b"") + len(event.value)
    size += sum(len(name) + len(value or b"") + 10 for name, value in event.headers) + FRAMING_BYTES
    if size > MAX_MESSAGE_BYTES:
        raise RedriveError(
            f"letter {letter.id} has {size:,} bytes with its headers, a record at most {MAX_MESSAGE_BYTES:,};"
            " give a smaller value with --edit"
        )
    topic, partition, offset = letter.origin.rsplit("/", 2)
    try:
        envelopes.decode(Kept(topic, int(partition), int(offset), headers=event.headers))
    except (EnvelopeError, ValueError) as error:
        raise RedriveError(
            f"its headers would be refused again: {error}; publish it as a new task: callboard publish"
            f" {letter.agent}"
        ) from None


async def publish(publisher: Publisher, event: NewEvent) -> Redriven:
    """Publish one of them; returns when all replicas have it.

    Args:
        publisher: To Kafka.
        event: What `prepare` made.

    Raises:
        PublishError: If Kafka did not acknowledge it. It may be there or not: again, its id is the same.
    """
    offset = await publisher.send_and_wait(
        event.topic, event.partition, key=event.key, value=event.value, headers=event.headers
    )
    place = f"{event.topic}/{event.partition}/{offset}"
    return Redriven(event.letter, event.header("ce_id"), place, event.header(REDRIVE_REASON))
