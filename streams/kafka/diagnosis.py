"""Why a Kafka lets nobody in, in words that say what to do: its client only tells that it did not work.

Connects once more and looks at what comes back. Repeats nothing of what a broker says about
credentials.
"""

import asyncio
import socket
import ssl
from contextlib import suppress

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from streams.kafka.connection import Connection
from streams.kafka.oauth import TokenError

LIMIT_SECONDS = 5.0  # per try

# Numbers of OpenSSL, of which the module ssl has no names.
NOT_YET_VALID, EXPIRED, WRONG_HOST, WRONG_ADDRESS = 9, 10, 62, 64


async def reason(connection: Connection) -> str | None:
    """Say why no server of a connection lets us in; none if it is as simple as that nobody is there."""
    for host, port, _ in collect_hosts(connection.servers, randomize=False):
        if told := await _reason(connection, host, port):
            return told
    return None


async def _reason(connection: Connection, host: str, port: int) -> str | None:
    options = connection.client_options | {"request_timeout_ms": int(LIMIT_SECONDS * 1000)}
    del options["bootstrap_servers"]
    where, protocol = f"the Kafka at {host}:{port}", connection.protocol
    try:
        client = await create_conn(host, port, **options)
    except (OSError, KafkaError) as error:
        return _about_entrance(error, connection, where, host) or await _about_port(
            error, protocol, where, (host, port)
        )
    try:
        # The first request that a port with SASL refuses to those who have not said who they are.
        await client.send(MetadataRequest([]))
    except (OSError, KafkaError):
        if connection.mechanism is not None:
            return None
        wanted = "SASL_PLAINTEXT" if protocol == "PLAINTEXT" else "SASL_SSL"
        return (
            f"{where} wants to know who we are, and CALLBOARD_SECURITY_PROTOCOL is {protocol}; set that to"
            f" {wanted}, and CALLBOARD_SASL_MECHANISM"
        )
    finally:
        await client.close()
    return None


def _about_entrance(error: Exception, connection: Connection, where: str, host: str) -> str | None:
    """Read what the error says by itself."""
    # A connection that ends while it is being made has what its reader met as the cause.
    cause = error.__cause__ or error
    told = None
    match cause:
        case TokenError():
            told = str(cause)
        case SaslAuthenticationFailed():
            told = f"{where} refuses {_what_we_showed(connection)}"
        case UnsupportedSaslMechanismError():
            told = (
                f"{where} does not know {connection.mechanism}; set CALLBOARD_SASL_MECHANISM to what it does"
            )
        case IllegalSaslStateError():
            without = connection.protocol.removeprefix("SASL_")
            told = f"{where} does not ask who we are; set CALLBOARD_SECURITY_PROTOCOL to {without}"
        case ssl.SSLCertVerificationError():
            told = _about_certificate(cause, where, host)
        case ssl.SSLError() if "ALERT" in (cause.reason or ""):
            told = (
                f"{where} does not take the certificate we show, or wants one"
                f" ({cause.reason.lower().replace('_', ' ')}); set CALLBOARD_TLS_CERTIFICATE_FILE"
            )
    return told


async def _about_port(error: Exception, protocol: str, where: str, at: tuple[str, int]) -> str | None:
    """Try whether the port speaks what we do not."""
    if isinstance(error, ConnectionRefusedError | TimeoutError | socket.gaierror):
        return None
    if protocol.endswith("SSL") and await _speaks_plaintext(*at):
        return (
            f"{where} does not encrypt on this port, and CALLBOARD_SECURITY_PROTOCOL is {protocol}; name its"
            " port for TLS in CALLBOARD_BOOTSTRAP_SERVERS"
        )
    if protocol.endswith("PLAINTEXT") and await _speaks_tls(*at):
        return (
            f"{where} encrypts on this port, and CALLBOARD_SECURITY_PROTOCOL is {protocol}; set that to SSL"
            " or SASL_SSL"
        )
    return None


async def _speaks_plaintext(host: str, port: int) -> bool:
    with suppress(OSError, KafkaError):
        client = await create_conn(host, port, request_timeout_ms=int(LIMIT_SECONDS * 1000))
        await client.close()
        return True
    return False


async def _speaks_tls(host: str, port: int) -> bool:
    # Whom we talk to does not matter: nothing is said.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError):
        async with asyncio.timeout(LIMIT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.transport.abort()
        return True
    return False


def _what_we_showed(connection: Connection) -> str:
    if connection.mechanism == "OAUTHBEARER":
        return "our token; see to it that it is for this Kafka and not out of its time (CALLBOARD_OAUTH_...)"
    return (
        f"user {connection.username!r} with the password it was given ({connection.mechanism}); check"
        " CALLBOARD_SASL_USERNAME and CALLBOARD_SASL_PASSWORD"
    )


def _about_certificate(error: ssl.SSLCertVerificationError, where: str, host: str) -> str:
    if error.verify_code in (WRONG_HOST, WRONG_ADDRESS):
        return (
            f"{where} shows a certificate that is not for {host!r}; use a name in CALLBOARD_BOOTSTRAP_SERVERS"
            " that the certificate has, or give the broker a certificate with this one"
        )
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return (
            f"{where} shows a certificate that is out of its time ({error.verify_message}); give the broker a"
            " new one, or set this machine's clock right"
        )
    return (
        f"{where} shows a certificate that is not trusted ({error.verify_message}); set CALLBOARD_TLS_CA_FILE"
        " to the certificate of the authority that signed it"
    )
