"""The fixture `secure_kafka`: a real Kafka that encrypts and asks who one is, with certificates of its own.

The product's local Kafka is for one machine and speaks plaintext. Here it gets more listeners, by lines after
its properties, of which Java takes the last of each name.
"""

import json
import shutil
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.local_broker import LocalBroker, server

from .kafka_fixture import free_port, shared_cache

PASSWORD = "correct horse battery staple"  # noqa: S105 (of a broker that ends with the test)
USER = "alice"


@dataclass(frozen=True)
class SecureKafka:
    """Where each listener is, and what it takes to get in.

    Attributes:
        plain: neither encrypted nor authenticated.
        secure: SASL_SSL with every mechanism.
        mutual: SSL, and the client has to show a certificate.
        elsewhere: SSL, with a certificate for another host.
        expired: SSL, with a certificate that is out of its time.
        clear: SASL without encryption.
        folder: of authority.pem, client.pem, client.key (the password is PASSWORD).
    """

    plain: str
    secure: str
    mutual: str
    elsewhere: str
    expired: str
    clear: str
    folder: Path

    @property
    def trusted(self) -> dict[str, str]:
        """The setting that trusts its authority."""
        return {"CALLBOARD_TLS_CA_FILE": str(self.folder / "authority.pem")}


def token(user: str, *, seconds: float = 3600) -> str:
    """Make a token that nobody signed, which Kafka takes unless it is told who signs."""
    now = time.time()
    claims = {"sub": user, "iat": now + min(0, seconds - 60), "exp": now + seconds, "scope": "kafka"}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


@pytest.fixture(scope="module")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """Yield a broker with one listener for every way to get in, or not."""
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made with the command openssl, which is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    _make_certificates(folder)
    names = ("plain", "secure", "mutual", "elsewhere", "expired", "clear")
    ports = {name: free_port() for name in names}
    broker = LocalBroker(tmp_path_factory.mktemp("secure"), ports["plain"], shared_cache(), train=False)
    usual = server.server_properties
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "server_properties", lambda port: usual(port) + _listeners(ports, folder))
        patch.setattr(subprocess, "run", _adding_user(subprocess.run))
        broker.up(print)
    yield SecureKafka(**{name: f"127.0.0.1:{port}" for name, port in ports.items()}, folder=folder)
    broker.down(print)


def _adding_user(run: Callable[..., Any]) -> Callable[..., Any]:
    """Let the command that makes the data folder also make the SCRAM user, whom no property can name."""

    def add(command: list[str], **options: Any) -> Any:
        if "kafka.tools.StorageTool" in command:
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                command += ["--add-scram", f'{mechanism}=[name="{USER}",password="{PASSWORD}"]']
        return run(command, **options)

    return add


def _listeners(ports: dict[str, int], folder: Path) -> str:
    protocols = {
        "plain": "PLAINTEXT",
        "secure": "SASL_SSL",
        "mutual": "SSL",
        "elsewhere": "SSL",
        "expired": "SSL",
        "clear": "SASL_PLAINTEXT",
        "controller": "PLAINTEXT",
    }
    where = [f"{name.upper()}://127.0.0.1:{port}" for name, port in ports.items()]
    jaas = "org.apache.kafka.common.security"
    lines = [
        f"listeners={','.join(where)},CONTROLLER://127.0.0.1:0",
        "inter.broker.listener.name=PLAIN",
        "listener.security.protocol.map="
        + ",".join(f"{name.upper()}:{protocol}" for name, protocol in protocols.items()),
        "listener.name.mutual.ssl.client.auth=required",
        "listener.name.mutual.ssl.truststore.type=PEM",
        f"listener.name.mutual.ssl.truststore.location={folder}/authority.pem",
    ]
    for name, certificate in (
        ("secure", "broker"),
        ("mutual", "broker"),
        ("elsewhere", "elsewhere"),
        ("expired", "expired"),
    ):
        lines += [
            f"listener.name.{name}.ssl.keystore.type=PEM",
            f"listener.name.{name}.ssl.keystore.location={folder}/{certificate}.pem",
        ]
    for name, mechanisms in (
        ("secure", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
        ("clear", ["PLAIN"]),
    ):
        of = f"listener.name.{name}"
        lines.append(f"{of}.sasl.enabled.mechanisms={','.join(mechanisms)}")
        modules = {
            "PLAIN": f'{jaas}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            "SCRAM-SHA-256": f"{jaas}.scram.ScramLoginModule required;",
            "SCRAM-SHA-512": f"{jaas}.scram.ScramLoginModule required;",
            "OAUTHBEARER": f"{jaas}.oauthbearer.OAuthBearerLoginModule required"
            ' unsecuredLoginStringClaim_sub="broker";',
        }
        lines += [f"{of}.{it.lower()}.sasl.jaas.config={modules[it]}" for it in mechanisms]
    return "\n".join(lines) + "\n"


def _make_certificates(folder: Path) -> None:
    """Make an authority, brokers' certificates with their keys in the same files, and a client's."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)  # noqa: S607 (as found)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl(
        "req",
        "-x509",
        *key,
        "-noenc",
        "-keyout",
        "authority.key",
        "-out",
        "authority.pem",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
    )
    openssl(
        "req",
        "-x509",
        *key,
        "-noenc",
        "-keyout",
        "stranger.key",
        "-out",
        "stranger.pem",
        "-days",
        "2",
        "-subj",
        "/CN=stranger",
    )
    for name, alternative, days in (
        ("broker", "DNS:localhost,IP:127.0.0.1", "2"),
        ("elsewhere", "DNS:kafka.example.org", "2"),
        ("expired", "DNS:localhost,IP:127.0.0.1", "0"),
        ("client", "DNS:client", "2"),
    ):
        secret = ["-passout", f"pass:{PASSWORD}"] if name == "client" else ["-noenc"]
        openssl("req", *key, *secret, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text(f"subjectAltName={alternative}")
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "authority.pem",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            "names",
            "-out",
            f"{name}.pem",
        )
        if name != "client":
            with (folder / f"{name}.pem").open("a") as file:
                file.write((folder / f"{name}.key").read_text())
