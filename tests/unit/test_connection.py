"""Security of the connection: what settings make of it, what they refuse, and that no secret is told."""

import asyncio
import base64
import json
import logging
import ssl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest
from aiokafka.conn import AIOKafkaConnection, CloseReason, create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest, SaslAuthenticateRequest_v0
from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI
from pydantic import SecretStr
from structlog.testing import capture_logs

from agents.core.errors import ConfigurationError
from streams.kafka import client_repairs
from streams.kafka.connection import Connection
from streams.kafka.oauth import ClientCredentials, GivenToken, TokenError, TokenFile
from streams.settings import Settings

SECRET = "hunter2"  # noqa: S105 (nobody's)
USER = {"sasl_username": "alice", "sasl_password": SECRET}
TOKEN_SERVER = {"oauth_client_id": "us", "oauth_client_secret": SECRET}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give what reads settings from variables, as processes do."""

    def read(servers: str = "kafka:9093", **values: object) -> Settings:
        for name, value in {"bootstrap_servers": servers, **values}.items():
            monkeypatch.setenv(f"CALLBOARD_{name.upper()}", str(value))
        return Settings.from_environment()

    return read


def test_the_local_kafka_needs_nothing() -> None:
    assert Settings().connection == Connection.plaintext("127.0.0.1:9092")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_who_we_are_reaches_both_kinds_of_clients(mechanism: str, configured: Any) -> None:
    settings = configured(security_protocol="SASL_SSL", sasl_mechanism=mechanism, **USER)
    connection = settings.connection
    assert connection is settings.connection
    options = connection.client_options
    assert options.pop("ssl_context") is connection.ssl_context is not None
    assert options == {
        "bootstrap_servers": "kafka:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "alice",
        "sasl_plain_password": SECRET,
        "sasl_oauth_token_provider": None,
    }
    broker = KafkaBroker(**connection.broker_options)
    assert (
        broker._connection_kwargs.items()
        >= {
            "security_protocol": "SASL_SSL",
            "ssl_context": connection.ssl_context,
            "sasl_mechanism": mechanism,
            "sasl_plain_username": "alice",
            "sasl_plain_password": SECRET,
        }.items()
    )
    assert SECRET not in AsyncAPI(broker).to_specification().to_json()


async def test_a_token_reaches_both_kinds_of_clients(configured: Any) -> None:
    settings = configured(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth_token=SECRET)
    options = settings.connection.client_options
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    assert await options["sasl_oauth_token_provider"].token() == SECRET
    broker = KafkaBroker(**settings.connection.broker_options)
    assert broker._connection_kwargs["sasl_oauth_token_provider"] is options["sasl_oauth_token_provider"]
    assert broker._connection_kwargs["security_protocol"] == "SASL_SSL"


def test_certificates_and_names_are_checked(configured: Any) -> None:
    context = configured(security_protocol="SSL").connection.ssl_context
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", ["sasl_password", "tls_key_password", "oauth_token", "oauth_client_secret"])
def test_no_secret_is_shown(name: str, configured: Any) -> None:
    settings = configured(**{name: SECRET})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_connection_shows_no_secret() -> None:
    provider = ClientCredentials("https://login/token", "us", SecretStr(SECRET))
    for token in (GivenToken(SecretStr(SECRET)), provider):
        connection = Connection("a:1", "SASL_SSL", None, "PLAIN", "alice", SecretStr(SECRET), token)
        assert SECRET not in f"{connection!r} {connection} {token!r}"


def test_a_wrong_setting_is_named_with_its_value_unless_it_is_a_secret(configured: Any) -> None:
    with pytest.raises(ConfigurationError, match="CALLBOARD_PARTITIONS='many': Input should be") as caught:
        configured(partitions="many", sasl_password=SECRET)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None  # pydantic's own error holds all values


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"security_protocol": "TLS"}, "CALLBOARD_SECURITY_PROTOCOL='TLS': Input should be 'PLAINTEXT', 'SSL'"),
    ({"tls_ca_file": "/ca.pem"}, "TLS_CA_FILE is set, and CALLBOARD_SECURITY_PROTOCOL, which is PLAINTEXT"),
    (USER, "CALLBOARD_SASL_USERNAME is set, .* set that to SASL_SSL, or unset CALLBOARD_SASL_USERNAME"),
    ({"security_protocol": "SSL", "oauth_token": SECRET}, "CALLBOARD_OAUTH_TOKEN is set, .* which is SSL"),
    (
        {"security_protocol": "SASL_PLAINTEXT", "tls_key_file": "/k", "allow_plaintext": True},
        "CALLBOARD_TLS_KEY_FILE is set, .* which is SASL_PLAINTEXT",
    ),
    (
        {"security_protocol": "SASL_SSL"},
        "needs CALLBOARD_SASL_MECHANISM: PLAIN, SCRAM-SHA-256, SCRAM",
    ),
    (
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_password": SECRET},
        "SASL_MECHANISM is PLAIN, which needs CALLBOARD_SASL_USERNAME",
    ),
    (
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "alice"},
        "which needs CALLBOARD_SASL_PASSWORD or CALLBOARD_SASL_PASSWORD_FILE",
    ),
    (
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", **USER, "oauth_scope": "kafka"},
        "CALLBOARD_OAUTH_SCOPE is set, and CALLBOARD_SASL_MECHANISM, which is PLAIN, has no use for it",
    ),
    (
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", **USER},
        "CALLBOARD_SASL_USERNAME is set, and CALLBOARD_SASL_MECHANISM, which is OAUTHBEARER",
    ),
    ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs one of .*; set are: none"),
    (
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token": SECRET,
            "oauth_token_file": "/t",
        },
        "set are: CALLBOARD_OAUTH_TOKEN, CALLBOARD_OAUTH_TOKEN_FILE",
    ),
    (
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token": SECRET,
            "oauth_client_id": "us",
        },
        "CALLBOARD_OAUTH_CLIENT_ID is set, which only means something together with CALLBOARD_OAUTH_",
    ),
    (
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token_url": "https://login/token",
        },
        "CALLBOARD_OAUTH_TOKEN_URL needs CALLBOARD_OAUTH_CLIENT_ID",
    ),
    *(
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "oauth_token_url": url,
                **TOKEN_SERVER,
            },
            "CALLBOARD_OAUTH_TOKEN_URL is no address that starts with https://",
        )
        for url in ("http://login/token", "login/token", "ftp://login/", f"https://us:{SECRET}@login/")
    ),
    (
        {"security_protocol": "SSL", "tls_key_password": SECRET},
        "a key for TLS is given without its certificate; set CALLBOARD_TLS_CERTIFICATE_FILE",
    ),
    (
        {"security_protocol": "SSL", "tls_ca_file": "/is/not"},
        "TLS_CA_FILE names '/is/not', .* No such",
    ),
    (
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", **USER, "sasl_password_file": "/p"},
        "CALLBOARD_SASL_PASSWORD and CALLBOARD_SASL_PASSWORD_FILE are both set",
    ),
    (
        {"servers": "", "security_protocol": "SSL"},
        "CALLBOARD_SECURITY_PROTOCOL is SSL, and the local Kafka, .*; set CALLBOARD_BOOTSTRAP_SERVERS",
    ),
    (
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **USER},
        "not this machine, .* not be encrypted: the password would travel readable, .*SASL_SSL.*ALLOW_PLAIN",
    ),
    (
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", "oauth_token": SECRET},
        "the token would travel readable",
    ),
    (
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", **USER},
        "would not be encrypted; set CALLBOARD_SECURITY_PROTOCOL to SASL_SSL",
    ),
]


@pytest.mark.parametrize(("values", "expected"), CONTRADICTIONS)
def test_what_contradicts_itself_is_refused_by_name(
    values: dict[str, Any], expected: str, configured: Any
) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        _ = configured(**values).connection
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_what_travels_readable_is_allowed_by_name_or_on_this_machine(configured: Any) -> None:
    values = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **USER}
    assert configured("localhost:9092", **values).connection.ssl_context is None
    assert configured(**values, allow_plaintext=True).connection.protocol == "SASL_PLAINTEXT"


# Files


def check_file(configured: Any, path: Path) -> Connection:
    settings = configured(
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="alice",
        sasl_password_file=path,
    )
    connection: Connection = settings.connection
    return connection


@pytest.mark.parametrize("content", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n"])
def test_a_secret_may_lie_in_a_file(content: str, configured: Any, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(content.encode())
    path.chmod(0o640)
    with capture_logs() as logs:
        connection = check_file(configured, path)
    assert connection.client_options["sasl_plain_password"] == SECRET
    assert logs == []


def test_a_file_that_everybody_may_read_is_warned_of(configured: Any, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(SECRET)
    path.chmod(0o644)
    with capture_logs() as logs:
        check_file(configured, path)
    (warning,) = logs
    assert warning["log_level"] == "warning"
    assert (warning["setting"], warning["file"]) == ("CALLBOARD_SASL_PASSWORD_FILE", str(path))
    assert SECRET not in str(logs)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "which cannot be read: No such file or directory; give the path"),
        (b"", "which does not hold one line"),
        (b" \n", "which does not hold one line"),
        (b"hunter2\nhunter3\n", "which does not hold one line"),
        (b"x" * 100_000, "which does not hold one line"),
        (b"\xff\xfe", "which is not text in UTF-8"),
    ],
)
def test_a_file_without_a_secret_is_refused(
    content: bytes | None, expected: str, configured: Any, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"CALLBOARD_SASL_PASSWORD_FILE names '{path}', {expected}"):
        check_file(configured, path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"tls_ca_file": "text"}, "CALLBOARD_TLS_CA_FILE names .* holds no certificate in PEM form"),
        (
            {"tls_certificate_file": "text"},
            "one of them is not in PEM form, or the key needs CALLBOARD_TLS_KEY",
        ),
        (
            {"tls_certificate_file": "text", "tls_key_file": "text", "tls_key_password": SECRET},
            r"\(CALLBOARD_TLS_KEY_FILE\): one of them is not in PEM form, or CALLBOARD_TLS_KEY_PASSWORD is",
        ),
        (
            {"tls_certificate_file": "text", "tls_key_file": "none"},
            "CALLBOARD_TLS_KEY_FILE names .* cannot be read",
        ),
    ],
)
def test_what_is_no_certificate_is_refused(
    values: dict[str, str], expected: str, configured: Any, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no certificate")
    named = {name: tmp_path / it if name.endswith("_file") else it for name, it in values.items()}
    with pytest.raises(ConfigurationError, match=expected) as caught:
        _ = configured(security_protocol="SSL", **named).connection
    assert SECRET not in str(caught.value)


# Tokens


async def test_a_token_file_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    provider = TokenFile(path, "CALLBOARD_OAUTH_TOKEN_FILE")
    for token in ("first", "second"):
        path.write_text(f"{token}\n")
        assert await provider.token() == token
    path.unlink()
    with pytest.raises(TokenError, match=r"CALLBOARD_OAUTH_TOKEN_FILE names .* cannot be read"):
        await provider.token()


class TokenServer(BaseHTTPRequestHandler):
    """Answers as the next of `answers` says, and remembers what it was asked."""

    answers: ClassVar[list[tuple[int, bytes]]] = []
    asked: ClassVar[list[tuple[str, dict[str, list[str]]]]] = []

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"])).decode()
        credentials = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        self.asked.append((credentials, parse_qs(content)))
        status, body = self.answers.pop(0)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def token_server(*answers: tuple[int, bytes]) -> Iterator[str]:
    TokenServer.answers[:], TokenServer.asked[:] = answers, []
    server = HTTPServer(("127.0.0.1", 0), TokenServer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def given(token: str, seconds: int) -> tuple[int, bytes]:
    return 200, json.dumps({"access_token": token, "expires_in": seconds}).encode()


async def test_a_token_is_asked_for_once_and_again_near_its_end(configured: Any) -> None:
    with token_server(given("short", 0), given("long", 3600)) as url:
        settings = configured(
            security_protocol="SASL_SSL",
            sasl_mechanism="OAUTHBEARER",
            oauth_token_url=url,
            oauth_client_id="us and them",
            oauth_client_secret=f"{SECRET}:",
            oauth_scope="kafka",
        )
        provider = settings.connection.client_options["sasl_oauth_token_provider"]
        assert await provider.token() == "short"
        assert await asyncio.gather(*(provider.token() for _ in range(3))) == ["long"] * 3
    expected = {"grant_type": ["client_credentials"], "scope": ["kafka"]}
    assert TokenServer.asked == [(f"us+and+them:{SECRET}%3A", expected)] * 2
    assert "long" not in repr(provider)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            (401, SECRET.encode()),
            "gives no token for client 'us': it answers with status 401; check CALLBOARD_O",
        ),
        ((302, b""), "status 302"),
        ((200, b"<html>hunter2</html>"), "answers with something that is no token"),
        ((200, b'["hunter2"]'), "answers with something that is no token"),
        ((200, b'{"token": "hunter2"}'), "answers with something that is no token"),
    ],
)
async def test_a_server_that_gives_no_token_is_named(answer: tuple[int, bytes], expected: str) -> None:
    with token_server(answer) as url, pytest.raises(TokenError, match=expected) as caught:
        await ClientCredentials(url, "us", SecretStr(SECRET)).token()
    assert len(TokenServer.asked) == 1
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_token_server_that_is_not_there_is_named() -> None:
    with token_server() as url:
        pass
    with pytest.raises(TokenError, match=f"CALLBOARD_OAUTH_TOKEN_URL {url} cannot be reached"):
        await ClientCredentials(url, "us", SecretStr(SECRET)).token()


# The client


async def test_a_refused_token_is_acknowledged_so_that_the_broker_refuses_it() -> None:
    connection = AIOKafkaConnection(
        "unused",
        1,
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauth_token_provider=GivenToken(SecretStr(SECRET)),
    )
    refused = connection.authenticator_oauth()
    assert await refused.step(None) == (f"n,,\x01auth=Bearer {SECRET}\x01\x01".encode(), True)
    assert await refused.step(b'{"status":"invalid_token"}') == (b"\x01", True)
    taken = connection.authenticator_oauth()
    await taken.step(None)
    assert await taken.step(b"") is None


async def test_the_client_has_its_writer_where_it_is_looked_for() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = client_repairs.PromptlyClosed("127.0.0.1", port)
        assert connection._writer is None
        connecting = asyncio.ensure_future(connection.connect())
        while connection._writer is None:
            await asyncio.sleep(0)
        assert isinstance(connection._writer, asyncio.StreamWriter)
        with pytest.raises(KafkaConnectionError):
            await connecting
        assert connection._writer is None


class GoneWriter:
    """Writes as uvloop does to a connection that is closed already."""

    def write(self, _: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def get_extra_info(self, _: str) -> None:
        return None

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("send", "what"), [("send", ApiVersionRequest()), ("_send_sasl_token", b"token")])
async def test_writing_to_a_connection_that_has_broken_is_an_error_the_client_knows(
    send: str, what: Any
) -> None:
    connection = client_repairs.PromptlyClosed("127.0.0.1", 9092)
    connection._reader, connection._writer = asyncio.StreamReader(), GoneWriter()
    connection._read_task = asyncio.get_running_loop().create_future()  # it has not noticed yet
    closed: list[object] = []
    connection._on_close_cb = lambda _, reason: closed.append(reason)
    with pytest.raises(KafkaConnectionError, match="broken"):
        getattr(connection, send)(what)
    assert closed == [CloseReason.CONNECTION_BROKEN]


def test_every_client_has_the_repairs() -> None:
    assert create_conn.__globals__["AIOKafkaConnection"] is client_repairs.PromptlyClosed
    assert create_conn.__globals__["OAuthAuthenticator"] is client_repairs.RefusableToken


def test_the_client_does_not_write_what_it_sends_to_prove_who_we_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("aiokafka.conn")
    log.debug("Request to %s:%d %d: %s", "kafka", 1, 1, SaslAuthenticateRequest_v0(SECRET.encode()))
    log.debug("Request to %s:%d %d: %s", "kafka", 1, 2, "another")
    assert [record.getMessage() for record in caplog.records] == ["Request to kafka:1 2: another"]
