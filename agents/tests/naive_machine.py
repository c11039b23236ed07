"""A slow and obvious twin of the Rust machine: the oracle of its tests, and never a fallback.

It scans where the machine indexes, and remembers where the machine forgets. What it does to the lists of a
turn happens in the machine's order, so whole turns can be compared.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

Budget = tuple[int | None, int | None, int | None]
Assigned = tuple[int, int, int, bool, bytes | None, int]
Offered = tuple[
    int,  # token
    int,  # partition
    int,  # epoch
    int | None,  # offset
    bytes | None,  # lane
    int | None,  # deadline
    int,  # nbytes
    bytes | None,  # identity
    int,  # timestamp
    Budget | None,
]
BITMAP, RUNS = b"\x01", b"\x02"
RETRY, DEPOSIT = 1_000, 200


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
    offset: int | None
    state: str  # waiting, ready, executing, fenced (lost while executing), backoff, unacknowledged
    lane: object = None
    deadline: int | None = None
    nbytes: int = 0
    end: int | None = None
    cancelled: bool = False
    failed: int = 0
    due: int | None = None  # of the next attempt
    expires: int | None = None  # while it waits for the next attempt
    budget: Budget = (None, None, None)
    spent: tuple[int, int, int] = (0, 0, 0)  # calls, tokens, millionths of a dollar


@dataclass
class Ask:
    ask: int
    token: int
    price: tuple[int, int]
    granted: bool = False


@dataclass
class Partition:
    epoch: int
    position: int
    told: int | None
    base: int
    reach: int
    careful_until: int
    restored: set[int]  # done before a restart
    paused: bool = False
    full: bool = False
    # unfinished or done; nothing is ever removed
    received: dict[int, str] = field(default_factory=dict)
    sightings: dict[int, tuple[bytes, int]] = field(default_factory=dict)  # identity and time by offset
    gated: list[tuple[int, int]] = field(default_factory=list)
    alone: int | None = None

    def know(self, offset: int) -> bool:
        return offset < self.base or offset in self.received or offset in self.restored

    def advance(self) -> int:
        everything = max([self.base, *(offset + 1 for offset in self.received)])
        self.base = min(self.open(), default=everything)
        return self.base

    def open(self) -> list[int]:
        return [offset for offset, progress in self.received.items() if progress != "done"]

    def done(self) -> list[int]:
        finished = {offset for offset, progress in self.received.items() if progress == "done"}
        return sorted(offset for offset in finished | self.restored if offset >= self.base)

    def blocked(self) -> bool:
        return bool(self.open())

    def repeats(self, offset: int, identity: bytes, timestamp: int, reach: tuple[int, int]) -> bool:
        return any(
            known == identity and 0 < offset - lower <= reach[0] and timestamp - then <= reach[1]
            for lower, (known, then) in self.sightings.items()
        )

    def note(self, offset: int, identity: bytes, timestamp: int, records: int) -> None:
        if records:
            self.sightings.setdefault(offset, (identity, timestamp))
            lowest = max(self.sightings) - records
            self.sightings = {it: what for it, what in self.sightings.items() if it >= lowest}


class Rate:
    def __init__(self, per_minute: int | None) -> None:
        self.unit = None if per_minute is None else Fraction(60_000, per_minute)
        self.at_once = max(1, (per_minute or 0) // 10)
        self.paid_until: Fraction | None = None

    def allowed_at(self) -> int | None:
        if self.unit is None or self.paid_until is None:
            return None
        return math.ceil(self.paid_until - (self.at_once - 1) * self.unit)

    def take(self, now: int, units: int) -> None:
        if self.unit is not None:
            before = Fraction(now) if self.paid_until is None else max(self.paid_until, Fraction(now))
            self.paid_until = before + units * self.unit

    def settle(self, taken: int, really: int) -> None:
        if self.unit is not None and self.paid_until is not None:
            self.paid_until += (really - taken) * self.unit


class NaiveMachine:
    def __init__(  # noqa: PLR0913 (the machine's limits)
        self,
        *,
        slots: int,
        max_queued_records: int,
        max_queued_bytes: int,
        timeout_ms: int | None = None,
        retries: int = 0,
        backoff_ms: int = 500,
        max_backoff_ms: int = 60_000,
        retry_budget: int = 100,
        dedupe_records: int = 2_000,
        dedupe_ms: int = 3_600_000,
        calls_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        max_done_bytes: int = 2_600,
        seed: int = 0,
    ) -> None:
        self.slots = slots
        self.max_records = max_queued_records
        self.max_bytes = max_queued_bytes
        self.timeout_ms = timeout_ms
        self.retries, self.backoff_ms, self.max_backoff_ms = retries, backoff_ms, max_backoff_ms
        self.budget = self.max_budget = retry_budget * RETRY
        self.filled: int | None = None
        self.dedupe = (dedupe_records, dedupe_ms)
        self.calls, self.tokens = Rate(calls_per_minute), Rate(tokens_per_minute)
        self.max_done_bytes = max_done_bytes
        self.dice = seed
        self.records: dict[int, Record] = {}
        self.partitions: dict[int, Partition] = {}
        self.lanes: dict[object, list[int]] = {}  # the first one of each is its head
        self.ready: list[int] = []
        self.asks: list[Ask] = []
        self.duplicates = 0
        self.suspended = False
        self.flooded = False

    def turn(  # noqa: PLR0913 (the machine's contract)
        self,
        now: int,
        *,
        assigned: list[Assigned] | None = None,
        revoked: bool = False,
        seen: list[tuple[int, int, bytes, int]] | None = None,
        offered: list[Offered] | None = None,
        executed: list[int] | None = None,
        failed: list[tuple[int, int | None]] | None = None,
        acknowledged: list[int] | None = None,
        asked: list[tuple[int, int, int, int]] | None = None,
        spent: list[tuple[int, int, int]] | None = None,
    ) -> NaiveTurn:
        self.now = now
        turn = NaiveTurn()
        self._reports(spent or [], executed or [], failed or [], acknowledged or [], turn)
        if assigned is not None:
            self._assigned(assigned, turn)
        self.suspended = self.suspended or revoked
        for number, offset, identity, timestamp in seen or []:
            if number in self.partitions:
                self.partitions[number].note(offset, identity, timestamp, self.dedupe[0])
        for record in offered or []:
            self._offered(record, turn)
        for call, token, tokens, money in asked or []:
            self._asked(Ask(call, token, (tokens, money)), turn)
        self._time(turn)
        self._start(turn)
        self._grant(turn)
        self._partitions(turn)
        turn.wake_at = self._wake_at()
        return turn

    def commit_of(self, number: int) -> tuple[int, int, bytes]:
        partition = self.partitions[number]
        done = encode(partition.done(), partition.base, self.max_done_bytes)
        return partition.base, max(partition.reach, partition.base), done

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
            "retrying": len(self._in("backoff")),
            "retry_budget": self.budget // RETRY,
            "waiting_asks": sum(1 for it in self.asks if not it.granted),
            "duplicates": self.duplicates,
            "partitions": len(self.partitions),
            "full_partitions": sum(1 for it in self.partitions.values() if it.full),
            "done_above_base": sum(len(it.done()) for it in self.partitions.values()),
        }

    def _in(self, *states: str) -> list[Record]:
        return [it for it in self.records.values() if it.state in states]

    # Runs end -----------------------------------------------------------------------------------

    def _reports(
        self,
        spent: list[tuple[int, int, int]],
        executed: list[int],
        failed: list[tuple[int, int | None]],
        acknowledged: list[int],
        turn: NaiveTurn,
    ) -> None:
        for ask, *price in spent:
            self._spent(ask, price)
        for token in executed:
            self._executed(token, turn)
        for token, retry_after in failed:
            self._failed(token, retry_after or 0, turn)
        for token in acknowledged:
            self._acknowledged(token)

    def _executed(self, token: int, turn: NaiveTurn) -> None:
        record = self.records.get(token)
        if record is None or record.state not in ("executing", "fenced"):
            return
        self._end_asks(token, turn)
        if record.state == "executing":
            record.state = "unacknowledged"
            if not record.cancelled:
                self.budget = min(self.budget + DEPOSIT, self.max_budget)
        else:
            self._remove(record)
            turn.settled.append((token, "fenced"))

    def _failed(self, token: int, retry_after: int, turn: NaiveTurn) -> None:
        record = self.records.get(token)
        if record is None or record.state != "executing":
            self._executed(token, turn)  # of a fenced run it does not matter how it ended
            return
        self._end_asks(token, turn)
        record.failed += 1
        late = record.deadline is not None and record.deadline <= self.now
        if record.failed > self.retries and not late:
            record.state = "unacknowledged"
            turn.settled.append((token, "exhausted"))
            return
        longest = min(self.max_backoff_ms, self.backoff_ms * 2 ** (record.failed - 1))
        delay = max(self._roll(longest), retry_after)
        record.state, record.cancelled = "backoff", False
        record.due, record.expires = self.now + delay, record.deadline
        if record.deadline is not None and record.due >= record.deadline:
            record.due, record.expires = None, self.now
        else:
            turn.retries.append((token, record.failed, delay))

    def _acknowledged(self, token: int) -> None:
        record = self.records.get(token)
        if record is None or record.state != "unacknowledged":
            return
        partition = self.partitions[record.partition]
        if record.offset is not None:
            partition.received[record.offset] = "done"
            partition.told = None
        self._remove(record)
        if partition.alone == token:
            partition.alone = None
            self._open_gate(partition)

    # Assignment ---------------------------------------------------------------------------------

    def _assigned(self, assigned: list[Assigned], turn: NaiveTurn) -> None:
        before, self.partitions, self.suspended = self.partitions, {}, False
        lost = set(before)
        for number, epoch, position, adopt, done, careful_until in assigned:
            restored = set(decode(done or b"", position))
            fresh = Partition(epoch, position, position, position, position, careful_until, restored)
            self.partitions[number] = fresh
            if adopt and number in before:
                lost.remove(number)
                known = self.partitions[number] = before[number]
                known.epoch, known.position, known.paused = epoch, position, False
                known.told = None if known.done() else position
        gone = [it for it in self.records.values() if it.partition in lost and it.state != "fenced"]
        for record in sorted(gone, key=lambda it: (it.partition, it.offset is None, it.offset, it.token)):
            self._fence(record, turn)

    def _fence(self, record: Record, turn: NaiveTurn) -> None:
        if record.state == "executing":
            record.state = "fenced"
            if not record.cancelled:
                turn.cancel.append(record.token)
            self._refuse_asks(record.token, turn)
        else:
            self._remove(record)
            # Of a failure of this very turn nobody was told yet.
            turn.retries = [it for it in turn.retries if it[0] != record.token]
            turn.settled = [it for it in turn.settled if it[0] != record.token]
            turn.settled.append((record.token, "fenced"))

    # Records come -------------------------------------------------------------------------------

    def _refusal(self, number: int, epoch: int, offset: int | None) -> str | None:
        partition = self.partitions.get(number)
        if self.suspended or partition is None or partition.epoch != epoch:
            return "stale"
        if offset is None:
            return None
        if offset < partition.position:
            return "stale"
        return "redelivered" if partition.know(offset) else None

    def _redelivered(self, number: int, offset: int) -> None:
        if offset in self.partitions[number].restored:
            self.partitions[number].received[offset] = "done"

    def _offered(self, record: Offered, turn: NaiveTurn) -> None:
        token, number, _, offset, key, deadline, nbytes, _, _, budget = record
        if refusal := self._refusal_of_offer(record):
            turn.settled.append((token, refusal))
            return
        partition = self.partitions[number]
        if offset is not None:
            partition.received[offset] = "unfinished"
        lane = ("own", token) if key is None else ("shared", key)
        self.records[token] = Record(token, number, offset, "waiting", lane, deadline, nbytes)
        self.records[token].budget = budget or (None, None, None)
        careful = partition.base if offset is None else offset
        if careful < partition.careful_until or partition.alone is not None or partition.gated:
            partition.gated.append((0 if offset is None else offset, token))
            self._open_gate(partition)
        else:
            self._enter_lane(token)

    def _refusal_of_offer(self, record: Offered) -> str | None:
        _, number, epoch, offset, _, _, _, identity, timestamp, _ = record
        refusal = self._refusal(number, epoch, offset)
        if refusal == "stale":
            return refusal
        partition = self.partitions[number]
        if offset is not None:
            repeats = identity is not None and partition.repeats(offset, identity, timestamp, self.dedupe)
            if identity is not None:
                partition.note(offset, identity, timestamp, self.dedupe[0])
            if refusal:
                self._redelivered(number, offset)
                return refusal
            if repeats:
                partition.received[offset] = "done"
                partition.told = None
                self.duplicates += 1
                return "duplicate"
        return None

    def _open_gate(self, partition: Partition) -> None:
        while partition.alone is None and partition.gated:
            first = min(partition.gated)
            partition.gated.remove(first)
            if first[0] < partition.careful_until:
                partition.alone = first[1]
            self._enter_lane(first[1])

    def _enter_lane(self, token: int) -> None:
        line = self.lanes.setdefault(self.records[token].lane, [])
        line.append(token)
        if line == [token]:
            self._make_ready(token)

    # Calls --------------------------------------------------------------------------------------

    def _asked(self, ask: Ask, turn: NaiveTurn) -> None:
        run = self.records.get(ask.token)
        if run is None or run.state != "executing" or run.cancelled:
            turn.refused.append((ask.ask, "ended"))
            return
        after = _sum(run.spent, (1, *ask.price))
        for most, much, reason in zip(run.budget, after, ("calls", "tokens", "money"), strict=True):
            if most is not None and much > most:
                turn.refused.append((ask.ask, reason))
                return
        run.spent = after
        self.asks.append(ask)

    def _spent(self, number: int, price: Iterable[int]) -> None:
        for ask in [it for it in self.asks if it.ask == number]:
            self.asks.remove(ask)
            run = self.records[ask.token]
            tokens, money = price if ask.granted else (0, 0)
            calls = 0 if ask.granted else -1
            run.spent = _sum(run.spent, (calls, tokens - ask.price[0], money - ask.price[1]))
            if ask.granted:
                self.tokens.settle(ask.price[0], tokens)

    def _refuse_asks(self, token: int, turn: NaiveTurn) -> None:
        for ask in [it for it in self.asks if it.token == token and not it.granted]:
            self._spent(ask.ask, (0, 0))
            turn.refused.append((ask.ask, "ended"))

    def _end_asks(self, token: int, turn: NaiveTurn) -> None:
        self._refuse_asks(token, turn)
        self.asks = [it for it in self.asks if it.token != token]

    def _grant(self, turn: NaiveTurn) -> None:
        while (at := self._next_grant()) is not None and at <= self.now:
            ask = next(it for it in self.asks if not it.granted)
            ask.granted = True
            self.calls.take(self.now, 1)
            self.tokens.take(self.now, ask.price[0])
            turn.granted.append(ask.ask)

    def _next_grant(self) -> int | None:
        if all(it.granted for it in self.asks):
            return None
        times = [at for at in (self.calls.allowed_at(), self.tokens.allowed_at()) if at is not None]
        return max(times, default=self.now)

    # Time, starts and partitions ----------------------------------------------------------------

    def _time(self, turn: NaiveTurn) -> None:
        for record in sorted(self._in("executing"), key=lambda it: (it.end or 0, it.token)):
            if record.end is not None and record.end <= self.now and not record.cancelled:
                record.cancelled = True
                turn.cancel.append(record.token)
                self._refuse_asks(record.token, turn)
        if self.suspended:
            return
        late = [(at, it) for it in self._in("ready", "backoff") if (at := _expiry(it)) is not None]
        for at, record in sorted(late, key=lambda it: (it[0], it[1].token)):
            if at <= self.now:
                if record.state == "ready":
                    self.ready.remove(record.token)
                record.state = "unacknowledged"
                turn.settled.append((record.token, "expired"))
        passed = self.max_budget if self.filled is None else self.now - self.filled
        self.budget, self.filled = min(self.budget + passed, self.max_budget), self.now
        for due, token in sorted((it.due or 0, it.token) for it in self._in("backoff")):
            if due <= self.now and self.budget >= RETRY:
                self.budget -= RETRY
                self._make_ready(token)

    def _start(self, turn: NaiveTurn) -> None:
        if self.suspended:
            return
        for partition in self.partitions.values():
            base = partition.advance()
            size = len(encode(partition.done(), base, 1_000_000))
            partition.full = 4 * size >= 3 * self.max_done_bytes and size > 0 and partition.blocked()
        for token in list(self.ready):
            record = self.records[token]
            if self.running() == self.slots or not self._may_start(record):
                continue
            self.ready.remove(token)
            record.state = "executing"
            timeout = None if self.timeout_ms is None else self.now + self.timeout_ms
            record.end = min((at for at in (record.deadline, timeout) if at is not None), default=None)
            turn.start.append(token)
            if record.offset is not None:
                partition = self.partitions[record.partition]
                partition.reach = max(partition.reach, record.offset + 1)

    def _may_start(self, record: Record) -> bool:
        partition = self.partitions[record.partition]
        helps = record.failed or record.offset is None or record.offset == partition.base
        begun = [it for it in self._in("ready") if it.failed]
        begun += self._in("executing", "unacknowledged", "backoff")
        alone = not any(it.partition == record.partition and it.offset is not None for it in begun)
        return bool(not partition.full or helps or alone)

    def _partitions(self, turn: NaiveTurn) -> None:
        self.flooded = self.stats()["queued_bytes"] > self.max_bytes * (2 if self.flooded else 4)
        for number, partition in sorted(self.partitions.items()):
            base = partition.advance()
            if partition.told is None or base > partition.told:
                partition.told = base
                turn.commits.append((number, base))
            if self.suspended:
                continue
            queued = [it for it in self._in("waiting", "ready") if it.partition == number]
            count, nbytes = len(queued), sum(it.nbytes for it in queued)
            over = count > self.max_records or nbytes > self.max_bytes or (self.flooded and count > 0)
            low = count <= self.max_records // 2 and nbytes <= self.max_bytes // 2 and not self.flooded
            if not partition.paused and (over or partition.full):
                partition.paused = True
                turn.pause.append(number)
            elif partition.paused and low and not partition.full:
                partition.paused = False
                turn.resume.append(number)

    def _wake_at(self) -> int | None:
        times = [it.end for it in self._in("executing") if not it.cancelled]
        times.append(self._next_grant())
        if not self.suspended:
            times += [_expiry(it) for it in self._in("ready", "backoff")]
            dues = [it.due for it in self._in("backoff") if it.due is not None]
            if dues:
                times.append(max(min(dues), self.now + max(0, RETRY - self.budget)))
        return min((at for at in times if at is not None), default=None)

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

    def _roll(self, most: int) -> int:
        """Give a number from 0 to `most`, by SplitMix64."""
        mask = 2**64 - 1
        self.dice = (self.dice + 0x9E3779B97F4A7C15) & mask
        mixed = self.dice
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        mixed ^= mixed >> 31
        return mixed * (most + 1) >> 64


def encode(done: Iterable[int], base: int, most: int) -> bytes:
    """Encode offsets of at least `base` in at most `most` bytes, leaving out the highest if need be."""
    offsets = sorted(done)
    bits = [it - base for it in offsets if it - base < 8 * (most - 1)]
    bitmap = sum(1 << bit for bit in bits)
    as_bitmap = bitmap.to_bytes((bitmap.bit_length() + 7) // 8, "little")
    as_runs, held, at = b"", 0, base
    for start, end in runs_of(offsets):
        run = varint(start - at) + varint(end - start)
        if len(as_runs) + len(run) > most - 1:
            break
        as_runs, held, at = as_runs + run, held + end - start, end
    if not bits and not held:
        return b""
    if (len(bits), -len(as_bitmap)) > (held, -len(as_runs)):
        return BITMAP + as_bitmap
    return RUNS + as_runs


def decode(encoded: bytes, base: int) -> list[int]:
    """Decode what `encode` wrote; anything else is nothing. For small sets only."""
    offsets: list[int] = []
    if encoded[:1] == BITMAP:
        bitmap = int.from_bytes(encoded[1:], "little")
        offsets = [base + bit for bit in range(bitmap.bit_length()) if bitmap >> bit & 1]
    elif encoded[:1] == RUNS:
        numbers, shift, value = [], 0, 0
        for byte in encoded[1:]:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # no more bytes of this number
                numbers.append(value)
                shift, value = 0, 0
        at = base
        for gap, length in zip(numbers[::2], numbers[1::2], strict=False):
            if length > 100_000:  # not what a test encodes
                return []
            offsets += range(at + gap, at + gap + length)
            at += gap + length
    return offsets if encode(offsets, base, len(encoded)) == encoded else []


def runs_of(offsets: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for offset in offsets:
        if runs and runs[-1][1] == offset:
            runs[-1] = (runs[-1][0], offset + 1)
        else:
            runs.append((offset, offset + 1))
    return runs


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, int, int]:
    calls, tokens, money = (a + b for a, b in zip(one, other, strict=True))
    return calls, tokens, money


def _expiry(record: Record) -> int | None:
    return record.expires if record.state == "backoff" else record.deadline
