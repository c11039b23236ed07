"""Reads an Application once, or until its deployment ended well, badly or late; is told the time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from streams.reports.argocd.application import Application, Status, joined
from streams.reports.argocd.judgement import Judgement, Question, judge
from streams.reports.argocd.report import Transition
from streams.reports.argocd.revision import Expected
from streams.reports.argocd.source import ApplicationSource, ReadError

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 15.0
GROWTH = 1.5
JITTER = 0.2
MOST_TRANSITIONS = 200


@dataclass(frozen=True, slots=True)
class Time:
    """What tells the time, lets it pass, and draws the jitter.

    Attributes:
        now: The time of day, with its zone.
        monotonic: Seconds that only grow.
        sleep: Waits for seconds.
        random: Draws from 0 to 1.
    """

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Order:
    """What to watch for.

    Attributes:
        application: Its name.
        namespace: Where it is; none if whatever is read is taken.
        expected: The commit.
        pushed_at: When it was pushed, if that is known.
        wait: Seconds to wait for it; none: read once.
    """

    application: str
    namespace: str | None
    expected: Expected
    pushed_at: datetime | None = None
    wait: float | None = None


@dataclass(slots=True)
class Watched:
    """What was seen so far.

    Attributes:
        order: What is watched for.
        began: When.
        application: The last good reading, with its `judgement` and its time, `read_at`.
        failing_since: Since which monotonic second every good reading was judged `failed`.
        good: Readings that were good, as `failed` counts the others.
        last_error: What the last one of those said.
        last_failed: Whether the last reading was one of those.
        transitions: The states it was in, without the first ones, so many as `forgotten`.
    """

    order: Order
    began: datetime
    application: Application | None = None
    judgement: Judgement | None = None
    read_at: datetime | None = None
    failing_since: float | None = None
    good: int = 0
    failed: int = 0
    last_error: str | None = None
    last_failed: bool = False
    transitions: list[Transition] = field(default_factory=list)
    forgotten: int = 0

    def take(self, application: Application, time: Time) -> bool:
        """Take a reading; tells whether the state changed."""
        self.application, self.read_at = application, time.now()
        question = Question(self.order.expected, self.order.pushed_at, self.read_at)
        self.judgement = judge(application, question)
        self.good += 1
        self.last_failed = False
        if self.judgement.verdict != "failed":
            self.failing_since = None
        elif self.failing_since is None:
            self.failing_since = time.monotonic()
        state = _state(application, self.read_at)
        last = self.transitions[-1] if self.transitions else None
        if last is not None and state.model_copy(update={"at": last.at}) == last:
            return False
        self.transitions.append(state)
        if len(self.transitions) > MOST_TRANSITIONS:
            del self.transitions[0]
            self.forgotten += 1
        return True

    def miss(self, error: ReadError) -> None:
        """Take note of a reading that failed."""
        self.failed += 1
        self.last_error = str(error)
        self.last_failed = True

    def has_ended(self, monotonic: float) -> bool:
        """Tell whether more waiting is in vain, or not needed."""
        if self.judgement is None or self.last_failed:
            return False
        if self.judgement.verdict == "failed" and self.failing_since is not None:
            return monotonic - self.failing_since >= self.judgement.patience.total_seconds()
        return self.judgement.verdict == "ok"


def watch(
    source: ApplicationSource, order: Order, time: Time, tell: Callable[[str], None]
) -> tuple[Watched, float]:
    """Read until the order is answered; gives what was seen, and how many seconds that took.

    Args:
        source: Where to read.
        order: What to watch for.
        time: Tells it, and lets it pass.
        tell: Is told what is going on, for people.
    """
    begin = time.monotonic()
    seen = Watched(order, time.now())
    pause = FIRST_PAUSE
    while True:
        try:
            has_changed = seen.take(_named(source.read(), order), time)
        except ReadError as error:
            seen.miss(error)
            if not error.passing:
                break
            tell(f"a reading failed ({seen.failed} so far): {error}")
            has_changed = False
        else:
            tell(_told(seen))
        if order.wait is None or seen.has_ended(time.monotonic()):
            break
        left = begin + order.wait - time.monotonic()
        if left <= 0:
            break
        pause = FIRST_PAUSE if has_changed else min(LONGEST_PAUSE, pause * GROWTH)
        time.sleep(min(left, pause * (1 + JITTER * (2 * time.random() - 1))))
    return seen, time.monotonic() - begin


def _named(application: Application, order: Order) -> Application:
    """Make sure that it is the one that was asked for."""
    name, namespace = application.metadata.name, application.metadata.namespace
    if name != order.application:
        raise ReadError(
            f"what was read is the Application {name!r}, not {order.application!r}", passing=False
        )
    if order.namespace is not None and namespace not in (None, order.namespace):
        raise ReadError(
            f"what was read is in the namespace {namespace!r}, not in {order.namespace!r} (--namespace)",
            passing=False,
        )
    return application


def _told(seen: Watched) -> str:
    state = seen.transitions[-1]
    revision = (state.revision or "none")[:12]
    return (
        f"{seen.order.application}: sync {state.sync}, health {state.health or 'none'},"
        f" operation {state.phase or 'none'}, revision {revision}"
    )


def _state(application: Application, at: datetime) -> Transition:
    status = application.status or Status()
    state = status.operation_state
    return Transition(
        at=at,
        sync=status.sync.status,
        health=status.health.status or None,
        phase=state.phase or None if state is not None else None,
        revision=joined(status.sync.all) or None,
    )
