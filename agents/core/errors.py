"""Every error an agent or its runtime can end a run with, and whether trying again may help.

AgentError
├── ConfigurationError      the program is put together wrongly; raised at start, never per event
│   └── WorkflowError       a graph of agents that cannot work
├── InvalidInputError       the event's payload is not what this agent takes
├── ArtifactError           an artifact is missing, incomplete or not what its digest says
├── RepositoryError         a repository cannot be opened, or may not be
├── DeadlineExceededError   the event's deadline or the agent's time limit passed
├── UpstreamFailedError     an agent this one follows failed
├── HopsExhaustedError      the event went through more agents than its publisher allowed
├── InvalidOutputError      what an agent gave back is no result, or has no form in JSON
├── ResultTooLargeError     the result does not fit into one record
└── LLMError
    ├── LLMOffError         no model is to be asked (evidence mode)
    ├── LLMIncompleteError  the model stopped before its answer was whole
    └── LLMUnavailableError the provider refused or could not be reached
"""

from typing import ClassVar


class AgentError(Exception):
    """Base of all errors that end a run.

    Attributes:
        type: The stable name that goes into a failed result (`error.type`).
        retryable: Whether the same work may succeed later without a change.
    """

    type: ClassVar[str] = "agent_error"
    retryable: bool = False


class ConfigurationError(AgentError):
    """The program is put together wrongly; the message names the setting and the choices."""

    type = "configuration"


class WorkflowError(ConfigurationError):
    """A workflow that cannot work, found while it is being declared."""

    type = "workflow"


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
    """

    type = "llm_unavailable"

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


def all_errors() -> tuple[type[AgentError], ...]:
    """Give every class of the tree above, for those who count or document them."""
    found: list[type[AgentError]] = [AgentError]
    for kind in found:
        found += kind.__subclasses__()
    return tuple(found)
