"""Kafka that encrypts and asks who one is: every way in serves all, and every refusal says why."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from agents.core.base import Artifact
from agents.core.errors import ConfigurationError
from streams import artifacts
from streams.artifacts import KafkaArtifacts
from streams.command_line.output import ExitCode
from streams.kafka.admin import BrokerUnreachableError, ensure_topics, partition_counts
from streams.kafka.connection import Connection
from streams.kafka.publisher import OwnPublisher
from streams.kafka.reader import Reader
from streams.settings import Settings
from tests.secure_kafka import PASSWORD, USER, SecureKafka, token

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
WRONG = "not the right horse"
Environment = dict[str, str]


def named(kafka: SecureKafka, listener: str, protocol: str, **more: str) -> Environment:
    """Give the settings that reach a listener, with the authority's certificate if it encrypts."""
    return {
        "CALLBOARD_BOOTSTRAP_SERVERS": getattr(kafka, listener),
        "CALLBOARD_SECURITY_PROTOCOL": protocol,
        **(
            {"CALLBOARD_TLS_CA_FILE": str(kafka.folder / "authority.pem")} if protocol.endswith("SSL") else {}
        ),
        **{f"CALLBOARD_{name.upper()}": value for name, value in more.items()},
    }


def user(mechanism: str, password: str = PASSWORD) -> Environment:
    return {"sasl_mechanism": mechanism, "sasl_username": USER, "sasl_password": password}


def certificate(kafka: SecureKafka) -> Environment:
    return {
        "tls_certificate_file": str(kafka.folder / "client.pem"),
        "tls_key_file": str(kafka.folder / "client.key"),
        "tls_key_password": PASSWORD,
    }


def bearer(secret: str) -> Environment:
    return {"sasl_mechanism": "OAUTHBEARER", "oauth_token": secret}


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Callable[[Environment], Connection]:
    """Give what makes a connection of an environment, as a worker does."""

    def connect(environment: Environment) -> Connection:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return Settings.from_environment().connection

    return connect


@pytest.mark.parametrize(
    "way", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "certificate", "unencrypted"]
)
async def test_every_way_in_serves_all_that_talks_to_kafka(
    way: str,
    secure_kafka: SecureKafka,
    connected: Callable[[Environment], Connection],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "aiokafka")
    secret = token("worker") if way == "OAUTHBEARER" else PASSWORD
    (tmp_path / "secret").write_text(f"{secret}\n")
    match way:
        case "OAUTHBEARER":
            environment = named(
                secure_kafka,
                "secure",
                "SASL_SSL",
                sasl_mechanism=way,
                oauth_token_file=str(tmp_path / "secret"),
            )
        case "certificate":
            environment = named(secure_kafka, "mutual", "SSL", **certificate(secure_kafka))
        case "unencrypted":
            environment = named(secure_kafka, "clear", "SASL_PLAINTEXT", **user("PLAIN"))
        case _:
            environment = named(secure_kafka, "secure", "SASL_SSL", **user(way))
            del environment["CALLBOARD_SASL_PASSWORD"]
            environment["CALLBOARD_SASL_PASSWORD_FILE"] = str(tmp_path / "secret")
    connection = connected(environment)
    topic = f"artifacts.{way.lower()}"
    assert await ensure_topics(connection, {topic: {}}, partitions=2, replication=1) == 2
    async with OwnPublisher(connection) as publisher:
        await publisher.send_and_wait(topic, 0, key=b"k", value=b"sent", headers=[])
        reference = await artifacts.publish(
            publisher, Artifact(name="a", content=b"content"), topic=topic, partition=1, key=None
        )
    async with Reader(connection) as reader:
        starts = await reader.first_offsets([(topic, 0)])
        assert [record.value async for record in reader.read(starts)] == [b"sent"]
    assert await KafkaArtifacts(connection, [topic]).read(reference) == b"content"
    assert "Request to" in caplog.text  # so the client did write what it sends
    assert secret not in caplog.text


REFUSALS: dict[str, tuple[Callable[[SecureKafka], Environment], str]] = {
    "certificate of an unknown authority": (
        lambda kafka: (
            named(kafka, "secure", "SASL_SSL", **user("PLAIN"))
            | {"CALLBOARD_TLS_CA_FILE": str(kafka.folder / "stranger.pem")}
        ),
        r"certificate that is not trusted \(.*\); set CALLBOARD_TLS_CA_FILE",
    ),
    "certificate of another host": (
        lambda kafka: named(kafka, "elsewhere", "SSL"),
        "certificate that is not for '127.0.0.1'; use a name in CALLBOARD_BOOTSTRAP_SERVERS",
    ),
    "expired certificate": (
        lambda kafka: named(kafka, "expired", "SSL"),
        r"certificate that is out of its time \(certificate has expired\); give the broker a new one",
    ),
    "no certificate of ours": (
        lambda kafka: named(kafka, "mutual", "SSL"),
        "does not take the certificate we show, or wants one .*; set CALLBOARD_TLS_CERTIFICATE_FILE",
    ),
    **{
        f"wrong password by {mechanism}": (
            lambda kafka, mechanism=mechanism: named(kafka, "secure", "SASL_SSL", **user(mechanism, WRONG)),
            rf"refuses user 'alice' with the password it was given \({mechanism}\); check CALLBOARD_SASL_",
        )
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    },
    "expired token": (
        lambda kafka: named(kafka, "secure", "SASL_SSL", **bearer(token("worker", seconds=-100))),
        "refuses our token; see to it that",
    ),
    "garbage for a token": (
        lambda kafka: named(kafka, "secure", "SASL_SSL", **bearer(WRONG.replace(" ", "-"))),
        "refuses our token; see to it that",
    ),
    "mechanism that is not offered": (
        lambda kafka: named(kafka, "clear", "SASL_PLAINTEXT", **user("SCRAM-SHA-512")),
        "does not know SCRAM-SHA-512; set CALLBOARD_SASL_MECHANISM",
    ),
    "plaintext at a port for TLS": (
        lambda kafka: named(kafka, "secure", "PLAINTEXT"),
        "encrypts on this port, and CALLBOARD_SECURITY_PROTOCOL is PLAINTEXT; set that to SSL or SASL_SSL",
    ),
    "password in plaintext at a port for TLS": (
        lambda kafka: named(kafka, "secure", "SASL_PLAINTEXT", **user("PLAIN")),
        "encrypts on this port, and CALLBOARD_SECURITY_PROTOCOL is SASL_PLAINTEXT",
    ),
    "TLS at a port for plaintext": (
        lambda kafka: named(kafka, "plain", "SASL_SSL", **user("PLAIN")),
        "does not encrypt on this port, and CALLBOARD_SECURITY_PROTOCOL is SASL_SSL; name its port for TLS",
    ),
    "nobody said who it is": (
        lambda kafka: named(kafka, "secure", "SSL"),
        "wants to know who we are, and CALLBOARD_SECURITY_PROTOCOL is SSL; set that to SASL_SSL",
    ),
    "nobody asked": (
        lambda kafka: named(kafka, "plain", "SASL_PLAINTEXT", **user("PLAIN")),
        "does not ask who we are; set CALLBOARD_SECURITY_PROTOCOL to PLAINTEXT",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_says_why_and_what_to_do(
    refusal: str,
    secure_kafka: SecureKafka,
    connected: Callable[[Environment], Connection],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    environment, expected = REFUSALS[refusal]
    connection = connected(environment(secure_kafka))
    with pytest.raises(BrokerUnreachableError, match=expected) as caught:
        await partition_counts(connection)
    message = str(caught.value)
    assert connection.servers in message
    assert "\n" not in message
    for secret in (PASSWORD, WRONG, WRONG.replace(" ", "-")):
        assert secret not in message + repr(connection) + caplog.text


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (["tail"], "wrong password by PLAIN"),
        (["publish", "my_custom", "Say hello"], "certificate of an unknown authority"),
        (["run", "examples.hello:app", "--port", "0"], "wrong password by SCRAM-SHA-512"),
    ],
)
def test_a_command_ends_with_that_line(command: list[str], refusal: str, secure_kafka: SecureKafka) -> None:
    environment, expected = REFUSALS[refusal]
    done = call(*command, environment=environment(secure_kafka))
    assert done.returncode == ExitCode.UNREACHABLE, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line == done.stderr.splitlines()[-1]
    assert re.search(expected, line)
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
    assert WRONG not in done.stderr + done.stdout


def test_a_task_goes_all_the_way_by_processes(secure_kafka: SecureKafka, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token("worker"))
    (tmp_path / "token").chmod(0o600)
    bearing = named(
        secure_kafka,
        "secure",
        "SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_file=str(tmp_path / "token"),
    )
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*COMMAND, "run", "examples.hello:app", "--port", "0", "--log-level", "debug"],
            cwd=ROOT,
            env=environment_of(bearing),
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline().startswith("http://127.0.0.1:"), log.read_text()
            knowing = named(secure_kafka, "secure", "SASL_SSL", **user("SCRAM-SHA-512"))
            published = call("publish", "my_custom", "Hi", "--wait", "--json", environment=knowing)
            assert published.returncode == ExitCode.OK, published.stderr
            told = json.loads(published.stdout)
            assert [result["status"] for result in told["results"]] == ["completed", "completed"]
            shown = call("show", told["workflow"], environment=bearing)
            assert "word_count  completed" in shown.stdout
        finally:
            worker.terminate()
            worker.communicate(timeout=60)
    assert worker.returncode == 0, log.read_text()
    said = log.read_text() + published.stderr + published.stdout
    assert PASSWORD not in said
    assert (tmp_path / "token").read_text() not in said


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"tls_key_password": WRONG}, "or CALLBOARD_TLS_KEY_PASSWORD is wrong"),
        ({"tls_key_password": ""}, "or the key needs CALLBOARD_TLS_KEY_PASSWORD"),
        ({"tls_key_file": "stranger.key"}, "they do not belong together"),
    ],
)
def test_a_certificate_and_a_key_that_do_not_fit_are_refused(
    values: Environment,
    expected: str,
    secure_kafka: SecureKafka,
    connected: Callable[[Environment], Connection],
) -> None:
    values = certificate(secure_kafka) | values
    values["tls_key_file"] = str(secure_kafka.folder / values["tls_key_file"])
    with pytest.raises(ConfigurationError, match=expected) as caught:
        connected(named(secure_kafka, "mutual", "SSL", **values))
    assert WRONG not in str(caught.value)


async def test_a_token_file_is_read_again_for_each_connection(
    secure_kafka: SecureKafka, connected: Callable[[Environment], Connection], tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(token("worker", seconds=-100))
    connection = connected(
        named(secure_kafka, "secure", "SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth_token_file=str(path))
    )
    with pytest.raises(BrokerUnreachableError, match="refuses our token"):
        await partition_counts(connection)
    await asyncio.to_thread(path.write_text, token("worker"))
    await partition_counts(connection)
    path.unlink()
    with pytest.raises(
        BrokerUnreachableError, match=f"CALLBOARD_OAUTH_TOKEN_FILE names '{path}', which cannot"
    ):
        await partition_counts(connection)


def test_readers_end_at_once_on_the_loop_of_workers(
    secure_kafka: SecureKafka, connected: Callable[[Environment], Connection]
) -> None:
    connection = connected(named(secure_kafka, "secure", "SASL_SSL", **user("PLAIN")))

    async def read_often() -> None:
        await ensure_topics(connection, {"often": {}}, partitions=6, replication=1)
        async with OwnPublisher(connection) as publisher:
            for partition in range(6):
                await publisher.send_and_wait("often", partition, key=None, value=b"x", headers=[])
        # A reader that stops has asked for more by then; uvloop would wait 30 s for what is on its way.
        async with asyncio.timeout(25):
            for _ in range(15):
                async with Reader(connection) as reader:
                    starts = await reader.first_offsets(await reader.partitions(["often"]))
                    assert len([record async for record in reader.read(starts)]) == 6

    uvloop.run(read_often())


COMMAND = (sys.executable, "-m", "streams.command_line")


def call(*arguments: str, environment: Environment) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment_of(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment_of(settings: Environment) -> Environment:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CALLBOARD_LLM": "off", **settings}
