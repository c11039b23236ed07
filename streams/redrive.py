"""Publishes dead letters again, on purpose, as new events for the one agent that could not process them.

The same key and value, the same partition number; a new id, a new round of the workflow, and a header that
says which letter it repeats. The id follows from the letter and the number of the redrive, so that a redrive
which is repeated because nobody knows whether it worked is recognized as the same event.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from agents.core.errors import AgentError
from streams import envelope as envelopes
from streams.dead_letters import DeadLetter, read
from streams.envelope import RESULT, TASK, Headers
from streams.kafka.publisher import Publisher
from streams.kafka.reader import Reader
from streams.payloads import ResultPayload, TaskPayload
from streams.topics import Topics

OF, REASON = "ce_redriveof", "ce_redrivereason"
MAX_REASON_BYTES = 1_000
SOURCE = "/callboard/redrive"
# Of the original: the rest of them still holds for the new event.
REPLACED = frozenset({"ce_id", "ce_source", "ce_time", "ce_pass", "ce_deadline", "ce_rounds", OF, REASON})


class RedriveError(AgentError):
    """A letter cannot be published again; the message says why and what to do."""

    type = "redrive"


@dataclass(frozen=True, slots=True)
class Redriven:
    """A letter that was published again.

    Attributes:
        letter: Its id.
        id: `ce_id` of the new event.
        place: topic/partition/offset of the new event.
    """

    letter: str
    id: str
    place: str


async def letters(
    reader: Reader, topics: Topics, agents: Iterable[str], *, since: int | None = None
) -> list[DeadLetter]:
    """Read the dead letters of agents, oldest first.

    Args:
        reader: Of the log.
        topics: Topic names.
        agents: Whose.
        since: Milliseconds since 1970: only later ones.
    """
    found = []
    places = await reader.partitions(topics.dead(agent) for agent in agents)
    async for record in reader.read(await reader.first_offsets(places, since=since)):
        letter = read(record)
        if letter is not None:
            found.append(letter)
    return sorted(found, key=lambda letter: letter.record.timestamp)


async def redriven_before(
    reader: Reader, topics: Topics, wanted: Sequence[DeadLetter]
) -> dict[str, list[str]]:
    """Tell which letters were published again already: the ids of the new events by letter id."""
    found: dict[str, list[str]] = {letter.id: [] for letter in wanted}
    oldest: dict[tuple[str, int], int] = {}
    for letter in wanted:
        at = topics.tasks(letter.agent), letter.record.partition
        oldest[at] = min(oldest.get(at, letter.record.timestamp), letter.record.timestamp)
    async for record in reader.read(await reader.first_offsets_since(oldest)):
        headers = dict(record.headers)
        letter_id = (headers.get(OF) or b"").decode(errors="replace")
        if letter_id in found:
            found[letter_id].append((headers.get("ce_id") or b"").decode(errors="replace"))
    return found


def headers_of(letter: DeadLetter, number: int, reason: str) -> Headers:
    """Make the headers of the event that repeats a letter.

    Args:
        letter: Which one.
        number: Of the redrive, from 1.
        reason: Why, for people; recorded with the event.
    """
    known = {name: value for name, value in letter.headers if value is not None}
    identity = envelopes.result_id(f"{letter.id}/redrive", number)
    # All parts of a join go into one new round, so that they meet again.
    new_round = envelopes.result_id(f"{letter.run}/redrive", number)
    kind = known.get("ce_type", TASK.encode())
    if kind not in {TASK.encode(), RESULT.encode()}:
        kind = TASK.encode()
    started = known.get("ce_correlationid") or known.get("ce_id") or letter.origin.encode()
    added: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", kind),
        ("ce_id", identity.encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_time", envelopes.now().encode()),
        ("ce_pass", new_round.encode()),
        (OF, letter.id.encode()),
        (REASON, reason.encode()[:MAX_REASON_BYTES]),
    ]
    if "ce_correlationid" not in known:
        added.append(("ce_correlationid", started))
    fixed = REPLACED | {"ce_specversion", "ce_type"}
    if known.get("ce_hops") == b"0":
        fixed |= {"ce_hops"}  # it is why the event was refused; publishing it again lifts that limit
    return added + [(name, value) for name, value in letter.headers if name not in fixed]


def checked(letter: DeadLetter, value: bytes) -> bytes:
    """Check an edited value against the schema of what it is.

    Raises:
        RedriveError: If it does not fit.
    """
    is_result = dict(letter.headers).get("ce_type") == RESULT.encode()
    kind: type[TaskPayload | ResultPayload] = ResultPayload if is_result else TaskPayload
    title = kind.model_config.get("title")
    try:
        kind.model_validate_json(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise RedriveError(f"the edited value is no valid {title}: {problems}") from None
    if unknown := orjson.loads(value).keys() - kind.model_fields.keys():
        raise RedriveError(
            f"the edited value has what {title} does not know: {', '.join(sorted(unknown))}; it has:"
            f" {', '.join(kind.model_fields)}"
        )
    return value


async def redrive(  # noqa: PLR0913 (keyword-only how)
    publisher: Publisher,
    topics: Topics,
    letter: DeadLetter,
    *,
    before: Mapping[str, Sequence[str]],
    reason: str,
    again: bool = False,
    value: bytes | None = None,
) -> Redriven:
    """Publish one letter again; returns when it is in the log.

    Args:
        publisher: To Kafka.
        topics: Topic names.
        letter: Which one.
        before: What `redriven_before` found.
        reason: Why, for people.
        again: Do it although it was done before.
        value: An edited value, in place of the original one.

    Raises:
        RedriveError: If it was done before, or the original value was too large to be kept.
    """
    earlier = before.get(letter.id, ())
    if earlier and not again:
        raise RedriveError(
            f"letter {letter.id} was published again already, as {', '.join(earlier)}; to do it once more, say"
            " --again"
        )
    content = value if value is not None else letter.record.value
    if content is None and letter.omitted_bytes is not None:
        raise RedriveError(
            f"letter {letter.id} does not hold its event: {letter.omitted_bytes} bytes are more than a record"
            f" of the application takes; the event itself is at {letter.origin}"
        )
    headers = headers_of(letter, len(earlier) + 1, reason)
    topic, partition = topics.tasks(letter.agent), letter.record.partition
    offset = await publisher.deliver(
        topic, partition, key=letter.record.key, value=content or b"", headers=headers
    )
    return Redriven(letter.id, dict(headers)["ce_id"].decode(), f"{topic}/{partition}/{offset}")
