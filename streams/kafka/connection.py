"""How Kafka is reached: where, encrypted or not, and as whom; one value that every client is made with."""

import logging
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import SecretStr

import streams.kafka.client_repairs  # for what it does
import streams.kafka.protocol  # noqa: F401 (the same)
from streams.kafka.oauth import TokenProvider

if TYPE_CHECKING:
    from faststream.security import BaseSecurity

# Kafka's own names.
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

SASL_AUTHENTICATE = 36  # its number in Kafka's protocol


@dataclass(frozen=True, slots=True)
class Connection:
    """What it takes to talk to one Kafka. Never shows a secret: `repr` leaves them out.

    Attributes:
        servers: host:port, or several with commas between.
        protocol: Whether the connection is encrypted (SSL) and whether the client says who it is (SASL).
        ssl_context: Whom to trust and which certificate to show, for the protocols with SSL.
        mechanism: How the client proves who it is, for the protocols with SASL.
        username: For every mechanism but OAUTHBEARER.
        password: The same.
        token: Gives a token for each new connection, for OAUTHBEARER.
        is_named: Whether `CALLBOARD_BOOTSTRAP_SERVERS` names it; otherwise it is the local Kafka.
    """

    servers: str
    protocol: Protocol = "PLAINTEXT"
    ssl_context: SSLContext | None = field(default=None, repr=False)
    mechanism: Mechanism | None = None
    username: str | None = None
    password: SecretStr | None = field(default=None, repr=False)
    token: TokenProvider | None = field(default=None, repr=False)
    is_named: bool = field(default=False, repr=False, compare=False)

    @classmethod
    def plaintext(cls, servers: str) -> Self:
        """Give a connection that is neither encrypted nor authenticated: on one machine, and for tests."""
        return cls(servers)

    @property
    def client_options(self) -> dict[str, Any]:
        """What an aiokafka client takes; holds secrets as they are."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "security_protocol": self.protocol,
            "ssl_context": self.ssl_context,
        }
        if self.mechanism is not None:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self._password
            options["sasl_oauth_token_provider"] = self.token
        return options

    @property
    def broker_options(self) -> dict[str, Any]:
        """What a FastStream `KafkaBroker` takes; holds secrets as they are."""
        return {
            "bootstrap_servers": self.servers,
            "security": self._security(),
            "sasl_oauth_token_provider": self.token,
        }

    @property
    def _password(self) -> str | None:
        return self.password.get_secret_value() if self.password is not None else None

    def _security(self) -> "BaseSecurity | None":
        from faststream import security  # noqa: PLC0415 (commands without FastStream need not wait for it)

        context, name, password = self.ssl_context, self.username or "", self._password or ""
        match self.mechanism:
            case None:
                return security.BaseSecurity(context) if context is not None else None
            case "PLAIN":
                return security.SASLPlaintext(name, password, context)
            case "SCRAM-SHA-256":
                return security.SASLScram256(name, password, context)
            case "SCRAM-SHA-512":
                return security.SASLScram512(name, password, context)
            case "OAUTHBEARER":
                return security.SASLOAuthBearer(context)


class _WithoutCredentials(logging.Filter):
    """Drops the line in which the client, at level DEBUG, writes passwords and tokens as it sends them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be written."""
        told = record.args if isinstance(record.args, tuple) else ()
        return not any(getattr(it, "API_KEY", None) == SASL_AUTHENTICATE for it in told)


# For whoever configures logging, not only for ours; and a logger's own filter goes before every handler.
logging.getLogger("aiokafka.conn").addFilter(_WithoutCredentials())
