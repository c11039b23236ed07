"""Agents on Apache Kafka: the application, the wire contract and the command line.

`AgentApp` is loaded when first asked for, so that `callboard --help` does not wait for the Kafka clients.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.app import AgentApp

__all__ = ["AgentApp"]


def __getattr__(name: str) -> Any:
    if name == "AgentApp":
        from streams.app import AgentApp  # noqa: PLC0415 (see above)

        return AgentApp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
