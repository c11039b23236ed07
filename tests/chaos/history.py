"""What happened in a run, as data: what was published, every record, commit and model call, and every fault.

A history is all the checker sees. It can be kept in a folder and checked again by anybody, later, elsewhere.
Never talks to Kafka: `recorder.py` does.
"""

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record, exactly as it was read; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def place(self) -> str:
        """Where it is: topic/partition/offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Published:
    """A record whose publish was acknowledged.

    Attributes:
        at: When it was acknowledged; seconds since 1970, as all times here.
        place: Where it is: topic/partition/offset.
        agent: Whose tasks it is one of.
        expect: "result": every agent behind it has one result; "dead": it ends as a dead letter.
    """

    at: float
    place: str
    agent: str
    expect: str = "result"


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed offset, as it was seen at some time."""

    at: float
    agent: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the provider's ledger.

    Attributes:
        at: When the request was received.
        until: When it was answered.
        sha256: Of the request.
        prompt: Its text; JSON that names the run, the agent and the number of the call.
        answer: Id of the answer.
        outcome: "ok", or what the script did instead.
        retry_after: Seconds the client was told to wait, or none.
    """

    at: float
    until: float
    sha256: str
    prompt: str
    answer: str
    outcome: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to the system, or seen to happen.

    Attributes:
        at: When.
        what: E.g. "kill".
        who: Whom it was done to.
        disrupts: Calls in flight at this moment may be in doubt afterwards, and so be repeated once.
        process: If only those of one process may be: its id.
    """

    at: float
    what: str
    who: str
    disrupts: bool = False
    process: int | None = None


@dataclass(frozen=True)
class Application:
    """What the checker has to know about the application under test; nothing of its code.

    Attributes:
        prefix: Of all its topics.
        follows: Agents, and whose results each one works on.
        joins: Agents that wait for all they follow.
        limits: Most model calls in flight per agent, over all workers; none: not checked.
        grace: Seconds that work may outlast its deadline.
        attempts: Most tries of one call, not counting those a disruption repeats; none: not checked.
    """

    prefix: str
    follows: Mapping[str, tuple[str, ...]]
    joins: frozenset[str] = frozenset()
    limits: Mapping[str, int] | None = None
    grace: float = 2.0
    attempts: int | None = None

    def topic(self, kind: str, agent: str) -> str:
        """Name a topic of an agent."""
        return f"{self.prefix}{kind}.{agent}"

    def behind(self, agent: str) -> set[str]:
        """Give an agent and all that come after it."""
        found, waiting = set(), [agent]
        while waiting:
            found.add(one := waiting.pop())
            waiting += [it for it, sources in self.follows.items() if one in sources and it not in found]
        return found


@dataclass
class History:
    """Everything there is to know about one run."""

    application: Application
    published: list[Published] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write it to files of JSON lines in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        app = asdict(self.application) | {"joins": sorted(self.application.joins)}
        (folder / "application.json").write_text(json.dumps(app))
        _write(folder / "published.jsonl.gz", map(asdict, self.published))
        _write(folder / "records.jsonl.gz", map(_plain, self.records))
        _write(folder / "commits.jsonl.gz", map(asdict, self.commits))
        _write(folder / "calls.jsonl.gz", map(asdict, self.calls))
        _write(folder / "events.jsonl.gz", map(asdict, self.events))

    @classmethod
    def load(cls, folder: Path) -> "History":
        """Read what `save` wrote."""
        app = json.loads((folder / "application.json").read_text())
        app["follows"] = {agent: tuple(sources) for agent, sources in app["follows"].items()}
        app["joins"] = frozenset(app["joins"])
        return cls(
            Application(**app),
            _read(folder / "published.jsonl.gz", lambda it: Published(**it)),
            _read(folder / "records.jsonl.gz", _record),
            _read(folder / "commits.jsonl.gz", lambda it: Commit(**it)),
            _read(folder / "calls.jsonl.gz", lambda it: Call(**it)),
            _read(folder / "events.jsonl.gz", lambda it: Event(**it)),
        )


def read_ledger(path: Path) -> list[Call]:
    """Read the provider's ledger; a last line that is not whole was never answered, and is left out."""
    lines = path.read_bytes().splitlines(keepends=True)
    return [Call(**json.loads(line)) for line in lines if line.endswith(b"\n")]


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def _read(path: Path, make: Callable[[Any], T]) -> list[T]:
    def lines() -> Iterator[T]:
        with gzip.open(path, "rt") as file:
            for line in file:
                yield make(json.loads(line))

    return list(lines())


def _plain(record: Record) -> dict[str, Any]:
    return {
        "place": [record.topic, record.partition, record.offset],
        "timestamp": record.timestamp,
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": [[name, _text(value)] for name, value in record.headers],
    }


def _record(plain: Any) -> Record:
    topic, partition, offset = plain["place"]
    headers = tuple((name, _bytes(value)) for name, value in plain["headers"])
    key, value = _bytes(plain["key"]), _bytes(plain["value"])
    return Record(topic, partition, offset, plain["timestamp"], key, value, headers)


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
