"""A slow and obvious twin of the Rust machine: the oracle of its tests, and never a fallback.

It scans where the machine indexes, and remembers where the machine forgets. What it does to the lists of a
turn happens in the machine's order, so whole turns can be compared.
"""

from dataclasses import dataclass, field

Offered = tuple[int, int, int, int, bytes | None, int | None, int, tuple[int, ...]]
Held = tuple[int, int, int, int]


@dataclass
class NaiveTurn:
    start: list[int] = field(default_factory=list)
    cancel: list[int] = field(default_factory=list)
    settled: list[tuple[int, str]] = field(default_factory=list)
    retries: list[tuple[int, int, int]] = field(default_factory=list)
    granted: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    commits: list[tuple[int, int]] = field(default_factory=list)
    pause: list[int] = field(default_factory=list)
    resume: list[int] = field(default_factory=list)
    wake_at: int | None = None


@dataclass
class Record:
    token: int
    partition: int
    offset: int
    state: str  # waiting, ready, executing, fenced (lost while executing), unacknowledged, held
    lane: object = None
    deadline: int | None = None
    nbytes: int = 0
    covers: tuple[int, ...] = ()
    covered_by: int | None = None
    end: int | None = None
    cancelled: bool = False


@dataclass
class Partition:
    epoch: int
    position: int
    told: int
    base: int
    untold: bool = False
    paused: bool = False
    received: dict[int, str] = field(
        default_factory=dict
    )  # unfinished, refused, done; nothing is ever removed

    def know(self, offset: int) -> bool:
        return offset < self.base or self.received.get(offset) in ("unfinished", "done")

    def advance(self) -> int:
        open_offsets = [offset for offset, progress in self.received.items() if progress != "done"]
        everything = max([self.base, *(offset + 1 for offset in self.received)])
        self.base = min(open_offsets, default=everything)
        return self.base


class NaiveMachine:
    def __init__(
        self, *, slots: int, max_queued_records: int, max_queued_bytes: int, timeout_ms: int | None = None
    ) -> None:
        self.slots = slots
        self.max_records = max_queued_records
        self.max_bytes = max_queued_bytes
        self.timeout_ms = timeout_ms
        self.records: dict[int, Record] = {}
        self.partitions: dict[int, Partition] = {}
        self.lanes: dict[object, list[int]] = {}  # the first one of each is its head
        self.ready: list[int] = []
        self.suspended = False
        self.flooded = False

    def turn(  # noqa: PLR0913 (the machine's contract)
        self,
        now: int,
        *,
        assigned: list[tuple[int, int, int, bool]] | None = None,
        revoked: bool = False,
        offered: list[Offered] | None = None,
        held: list[Held] | None = None,
        executed: list[int] | None = None,
        acknowledged: list[int] | None = None,
    ) -> NaiveTurn:
        self.now = now
        turn = NaiveTurn()
        for token in executed or []:
            self._executed(token, turn)
        for token in acknowledged or []:
            self._acknowledged(token)
        self.suspended = self.suspended or revoked
        if assigned is not None:
            self._assigned(assigned, turn)
        for part in held or []:
            self._held(part, turn)
        for record in offered or []:
            self._offered(record, turn)
        self._time(turn)
        self._start(turn)
        self._partitions(turn)
        times = [it.end for it in self._in("executing") if not it.cancelled]
        if not self.suspended:
            times += [it.deadline for it in self._in("ready")]
        turn.wake_at = min((at for at in times if at is not None), default=None)
        return turn

    def in_flight(self) -> int:
        return len(self._in("executing", "fenced", "unacknowledged"))

    def queued(self) -> int:
        return len(self._in("waiting", "ready"))

    def running(self) -> int:
        return len(self._in("executing", "fenced"))

    def stats(self) -> dict[str, int]:
        return {
            "slots": self.slots,
            "running": self.running(),
            "unacknowledged": len(self._in("unacknowledged")),
            "queued_records": self.queued(),
            "queued_bytes": sum(it.nbytes for it in self._in("waiting", "ready")),
            "held": len(self._in("held")),
            "retrying": 0,
            "retry_budget": 100,
            "waiting_asks": 0,
            "duplicates": 0,
            "partitions": len(self.partitions),
            "full_partitions": 0,
            "done_above_base": sum(
                1
                for partition in self.partitions.values()
                for offset, progress in partition.received.items()
                if progress == "done" and offset >= partition.base
            ),
        }

    def _in(self, *states: str) -> list[Record]:
        return [it for it in self.records.values() if it.state in states]

    def _executed(self, token: int, turn: NaiveTurn) -> None:
        record = self.records.get(token)
        if record is not None and record.state == "executing":
            record.state = "unacknowledged"
        elif record is not None and record.state == "fenced":
            self._remove(record)
            turn.settled.append((token, "fenced"))

    def _acknowledged(self, token: int) -> None:
        record = self.records.get(token)
        if record is None or record.state != "unacknowledged":
            return
        for done in [record, *(it for it in self._in("held") if it.covered_by == token)]:
            self.partitions[done.partition].received[done.offset] = "done"
            self.partitions[done.partition].untold = True
            self._remove(done)

    def _assigned(self, assigned: list[tuple[int, int, int, bool]], turn: NaiveTurn) -> None:
        before, self.partitions, self.suspended = self.partitions, {}, False
        lost = set(before)
        for number, epoch, position, adopt in assigned:
            self.partitions[number] = Partition(epoch, position, told=position, base=position)
            if adopt and number in before:
                lost.remove(number)
                self.partitions[number].base = before[number].base
                self.partitions[number].received = before[number].received
                self.partitions[number].untold = any(
                    progress == "done" and offset >= before[number].base
                    for offset, progress in before[number].received.items()
                )
        gone = [it for it in self.records.values() if it.partition in lost and it.state != "fenced"]
        for record in sorted(gone, key=lambda it: (it.partition, it.offset)):
            for part in self._in("held"):
                if part.covered_by == record.token:
                    part.covered_by = None
            if record.state == "executing":
                record.state = "fenced"
                if not record.cancelled:
                    turn.cancel.append(record.token)
            else:
                self._remove(record)
                turn.settled.append((record.token, "fenced"))

    def _refusal(self, number: int, epoch: int, offset: int) -> str | None:
        partition = self.partitions.get(number)
        if self.suspended or partition is None or partition.epoch != epoch or offset < partition.position:
            return "stale"
        return "redelivered" if partition.know(offset) else None

    def _held(self, part: Held, turn: NaiveTurn) -> None:
        token, number, epoch, offset = part
        if refusal := self._refusal(number, epoch, offset):
            turn.settled.append((token, refusal))
            return
        self.partitions[number].received[offset] = "unfinished"
        self.records[token] = Record(token, number, offset, "held")

    def _offered(self, record: Offered, turn: NaiveTurn) -> None:
        token, number, epoch, offset, key, deadline, nbytes, covers = record
        if refusal := self._refusal(number, epoch, offset):
            turn.settled.append((token, refusal))
            return
        free = [it.token for it in self._in("held") if it.covered_by is None]
        if not set(covers) <= set(free):
            self.partitions[number].received[offset] = "refused"
            turn.settled.append((token, "fenced"))
            return
        self.partitions[number].received[offset] = "unfinished"
        for part in covers:
            self.records[part].covered_by = token
        lane = ("own", token) if key is None else ("shared", key)
        self.records[token] = Record(token, number, offset, "waiting", lane, deadline, nbytes, covers)
        self.lanes.setdefault(lane, []).append(token)
        if self.lanes[lane] == [token]:
            self._make_ready(token)

    def _time(self, turn: NaiveTurn) -> None:
        for record in sorted(self._in("executing"), key=lambda it: (it.end or 0, it.token)):
            if record.end is not None and record.end <= self.now and not record.cancelled:
                record.cancelled = True
                turn.cancel.append(record.token)
        if self.suspended:
            return
        for record in sorted(self._in("ready"), key=lambda it: (it.deadline or 0, it.token)):
            if record.deadline is not None and record.deadline <= self.now:
                record.state = "unacknowledged"
                self.ready.remove(record.token)
                turn.settled.append((record.token, "expired"))

    def _start(self, turn: NaiveTurn) -> None:
        while not self.suspended and self.ready and self.running() < self.slots:
            record = self.records[self.ready.pop(0)]
            record.state = "executing"
            timeout = None if self.timeout_ms is None else self.now + self.timeout_ms
            record.end = min((at for at in (record.deadline, timeout) if at is not None), default=None)
            turn.start.append(record.token)

    def _partitions(self, turn: NaiveTurn) -> None:
        self.flooded = self.stats()["queued_bytes"] > self.max_bytes * (2 if self.flooded else 4)
        for number, partition in sorted(self.partitions.items()):
            base = partition.advance()
            if base > partition.told or partition.untold:
                partition.told, partition.untold = max(base, partition.told), False
                turn.commits.append((number, base))
            if self.suspended:
                continue
            queued = [it for it in self._in("waiting", "ready") if it.partition == number]
            count, nbytes = len(queued), sum(it.nbytes for it in queued)
            over = count > self.max_records or nbytes > self.max_bytes or (self.flooded and count > 0)
            low = count <= self.max_records // 2 and nbytes <= self.max_bytes // 2 and not self.flooded
            if not partition.paused and over:
                partition.paused = True
                turn.pause.append(number)
            elif partition.paused and low:
                partition.paused = False
                turn.resume.append(number)

    def _make_ready(self, token: int) -> None:
        self.records[token].state = "ready"
        self.ready.append(token)

    def _remove(self, record: Record) -> None:
        del self.records[record.token]
        if record.token in self.ready:
            self.ready.remove(record.token)
        line = self.lanes.get(record.lane, [])
        if record.token in line:
            was_head = line[0] == record.token
            line.remove(record.token)
            if was_head and line:
                self._make_ready(line[0])
