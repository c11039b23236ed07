"""Every error an agent or its runtime can end a run with, and whether trying again may help.

AgentError
├── ConfigurationError      the program is put together wrongly; raised at start, never per event
│   ├── WorkflowError       a graph of agents that cannot work
│   └── AgentFileError      a file that describes an agent is not as it has to be
├── InvalidInputError       the event's payload is not what this agent takes
├── ArtifactError           an artifact is missing, incomplete or not what its digest says
├── RepositoryError         a repository cannot be opened, or may not be
├── DeadlineExceededError   the event's deadline or the agent's time limit passed
├── UpstreamFailedError     an agent this one follows failed
├── HopsExhaustedError      the event went through more agents than its publisher allowed
├── BudgetExceededError     the workflow has no calls, tokens or money left for this
├── JoinTimeoutError        not every awaited result came in time
├── RoundsExhaustedError    a way back was taken as often as the workflow allows
├── RetryLaterError         raised by agents: the same work may succeed later
├── InDoubtError            a step was begun before a crash, and nobody knows whether it happened
├── PoisonError             the event took its process down again and again
├── InvalidOutputError      what an agent gave back is no result, or has no form in JSON
├── ResultTooLargeError     the result does not fit into one record
└── LLMError
    ├── LLMOffError         no model is to be asked (evidence mode)
    ├── LLMIncompleteError  the model stopped before its answer was whole
    └── LLMUnavailableError the provider refused or could not be reached
"""

import math
from collections.abc import Sequence
from typing import ClassVar


class AgentError(Exception):
    """Base of all errors that end a run.

    Attributes:
        type: The stable name that goes into a failed result (`error.type`).
        retryable: Whether the same work may succeed later without a change.
        retry_after: Seconds to wait at least before that, if somebody said so.
        uncertain: Whether what failed may have happened nevertheless: its step stays in doubt.
    """

    type: ClassVar[str] = "agent_error"
    retryable: bool = False
    retry_after: float | None = None
    uncertain: bool = False


class ConfigurationError(AgentError):
    """The program is put together wrongly; the message names the setting and the choices."""

    type = "configuration"


class WorkflowError(ConfigurationError):
    """A workflow that cannot work, found while it is being declared."""

    type = "workflow"


class AgentFileError(ConfigurationError):
    """A file that describes an agent is not as it has to be.

    Args:
        problems: All that is wrong, each with its file, its field and what to write instead.
    """

    type = "agent_file"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class InvalidInputError(AgentError):
    """The payload of an event is not what this agent takes."""

    type = "invalid_input"


class ArtifactError(AgentError):
    """An artifact is missing, incomplete or not what its digest says."""

    type = "artifact"


class RepositoryError(AgentError):
    """A repository cannot be opened, or this worker may not open it."""

    type = "repository"


class DeadlineExceededError(AgentError):
    """The event's deadline or the agent's own time limit passed."""

    type = "deadline_exceeded"


class UpstreamFailedError(AgentError):
    """An agent that this one follows ended with a failed result."""

    type = "upstream_failed"


class HopsExhaustedError(AgentError):
    """The event went through as many agents as its publisher allowed."""

    type = "hops_exhausted"


class BudgetExceededError(AgentError):
    """The workflow has no calls, tokens or money left for what was to be done."""

    type = "budget_exceeded"


class JoinTimeoutError(AgentError):
    """A join's time limit passed before every awaited result was there."""

    type = "join_timeout"


class RoundsExhaustedError(AgentError):
    """A way back was to be taken more often than the workflow allows."""

    type = "rounds_exhausted"


class RetryLaterError(AgentError):
    """Raised by agents when the same work may succeed later.

    Args:
        message: What happened.
        after: Seconds to wait at least, if somebody said so (a retry-after); none: the runtime decides.
    """

    type = "retry_later"
    retryable = True

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = after


class InDoubtError(AgentError):
    """A step was begun before a crash and nobody knows whether it happened; its agent wants a person to look.

    The run ends parked, not failed.
    """

    type = "in_doubt"


class PoisonError(AgentError):
    """The event took its process down again and again, and was isolated."""

    type = "poison"


class InvalidOutputError(AgentError):
    """What an agent gave back is no result, or has no form in JSON."""

    type = "invalid_output"


class ResultTooLargeError(AgentError):
    """The result does not fit into one Kafka record; its bulk belongs into an artifact."""

    type = "result_too_large"


class LLMError(AgentError):
    """A model could not be asked, or did not answer usefully."""

    type = "llm"


class LLMOffError(LLMError):
    """Evidence mode: no model is to be asked."""

    type = "llm_off"


class LLMIncompleteError(LLMError):
    """The model stopped before its answer was whole.

    Attributes:
        partial: The text up to there.
    """

    type = "llm_incomplete"

    def __init__(self, message: str, *, partial: str) -> None:
        super().__init__(message)
        self.partial = partial


class LLMUnavailableError(LLMError):
    """The provider refused the call or could not be reached.

    Args:
        message: What happened.
        retryable: Whether the provider says that waiting may help.
        retry_after: Seconds to wait at least, if the provider said so.
        uncertain: Whether it may have answered, and be paid for it, without the answer getting here.
    """

    type = "llm_unavailable"

    def __init__(
        self, message: str, *, retryable: bool, retry_after: float | None = None, uncertain: bool = False
    ) -> None:
        super().__init__(message)
        self.retryable, self.retry_after, self.uncertain = retryable, retry_after, uncertain


def is_retryable(error: BaseException) -> bool:
    """Tell whether the same work may succeed later: the error says so, or is a lost connection or a time-out.

    An exception of anybody's may say so by an attribute `retryable`, which wins.
    """
    said = getattr(error, "retryable", None)
    return said if isinstance(said, bool) else isinstance(error, ConnectionError | TimeoutError)


def retry_after(error: BaseException) -> float | None:
    """Give the seconds to wait at least before trying again, if the error tells."""
    said = getattr(error, "retry_after", None)
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said < math.inf:
        return None
    return float(said)


def all_errors() -> tuple[type[AgentError], ...]:
    """Give every class of the tree above, for those who count or document them."""
    found: list[type[AgentError]] = [AgentError]
    for kind in found:
        found += kind.__subclasses__()
    return tuple(found)
