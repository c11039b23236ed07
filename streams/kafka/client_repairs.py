"""Faults of the Kafka client, two of them only on secured connections, put right for every client at once.

Whoever makes clients imports `Connection`, which imports this; nothing here is ever called by name.
"""

from collections.abc import Callable
from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError


class RefusableToken(conn.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka ships no types
    """Hears when a broker refuses a token, which the client would take for consent.

    The broker answers with a reason, waits for a byte that says we have read it, and only then refuses (RFC
    7628, 3.2.3). Without that byte the next request gets an empty answer, and the cluster seems to have no
    brokers.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Give what to send next, if anything."""
        if payload:
            return b"\x01", True
        answer: tuple[bytes, bool] | None = await super().step(payload)
        return answer


class PromptlyClosed(conn.AIOKafkaConnection):  # type: ignore[misc]  # as above
    """Ends an encrypted connection at once, and knows one that has ended.

    A client that stops waits for its connections to be closed. If an answer is still on its way then, as it
    usually is with a consumer, uvloop waits 30 s for the other side's farewell (MagicStack/uvloop#471), and a
    restore, which ends with a consumer that stops, takes as long. Nothing is lost: what matters was
    acknowledged before. Without uvloop, a farewell that nobody waits for would outlive the event loop.

    Writing to one that has just broken raises a RuntimeError with uvloop, which the client does not know:
    what coordinates the group would end by it, and the member never come back to its group.
    """

    def send(self, *given: Any, **named: Any) -> Any:
        """Send a request; gives what waits for the answer."""
        return self._unless_ended(super().send, *given, **named)

    def _send_sasl_token(self, *given: Any, **named: Any) -> Any:
        return self._unless_ended(super()._send_sasl_token, *given, **named)

    def _unless_ended(self, send: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return send(*given, **named)
        except RuntimeError as error:
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"connection to {self._host}:{self._port} broken: {error}") from error

    def close(self, reason: Any = None, exc: BaseException | None = None) -> Any:
        """Close the connection; gives a future of its end."""
        writer = self._writer  # there until it is closed; a contract test holds it
        if writer is not None and writer.get_extra_info("ssl_object") is not None:
            writer.transport.abort()
        return super().close(reason=reason, exc=exc)


conn.OAuthAuthenticator = RefusableToken
conn.AIOKafkaConnection = PromptlyClosed
