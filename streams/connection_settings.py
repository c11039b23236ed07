"""Settings that say which Kafka it is and how to get in; what contradicts itself is refused by name."""

import re
import ssl
from collections.abc import Iterable
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agents.core.errors import ConfigurationError
from streams.kafka.connection import Connection, Mechanism, Protocol
from streams.kafka.oauth import ClientCredentials, GivenToken, TokenFile, TokenProvider
from streams.secret_files import read_secret, unreadable, warn_if_open_to_all

PREFIX = "CALLBOARD_"
ADDRESS = re.compile(r"(?P<host>[^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")
TOKEN_SOURCES = ("oauth_token", "oauth_token_file", "oauth_token_url")


class ConnectionSettings(BaseSettings):
    """How Kafka is reached. Secrets are never shown, not even when they are wrong."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    bootstrap_servers: str | None = Field(default=None, description="host:port list; unset: the local Kafka")
    allow_plaintext: bool = Field(default=False, description="allow unencrypted Kafka on other machines")
    kafka_port: int = Field(
        default=9092, ge=1, le=65535, description="port of the local Kafka, loopback only"
    )
    security_protocol: Protocol = Field(default="PLAINTEXT", description="as Kafka names them")
    tls_ca_file: Path | None = Field(default=None, description="whom to trust (PEM); unset: the system's")
    tls_certificate_file: Path | None = Field(default=None, description="the client's own (PEM)")
    tls_key_file: Path | None = Field(default=None, description="its key (PEM), if in a file of its own")
    tls_key_password: SecretStr | None = Field(default=None, description="of the key")
    tls_key_password_file: Path | None = Field(default=None, description="the same, in a file")
    sasl_mechanism: Mechanism | None = Field(default=None, description="how the client proves who it is")
    sasl_username: str | None = Field(default=None, description="for PLAIN and SCRAM")
    sasl_password: SecretStr | None = Field(default=None, description="for PLAIN and SCRAM")
    sasl_password_file: Path | None = Field(default=None, description="the same, in a file")
    oauth_token: SecretStr | None = Field(default=None, description="for OAUTHBEARER")
    oauth_token_file: Path | None = Field(default=None, description="the same, in a file; read each time")
    oauth_token_url: str | None = Field(default=None, description="where tokens are to be had")
    oauth_client_id: str | None = Field(default=None, description="who asks for tokens")
    oauth_client_secret: SecretStr | None = Field(default=None, description="its proof")
    oauth_client_secret_file: Path | None = Field(default=None, description="the same, in a file")
    oauth_scope: str | None = Field(default=None, description="what to ask for")

    @field_validator("bootstrap_servers")
    @classmethod
    def _unset_when_empty(cls, value: str | None) -> str | None:
        return value if value is not None and value.strip() else None

    @cached_property
    def connection(self) -> Connection:
        """How Kafka is reached; files with passwords and certificates are read once.

        Raises:
            ConfigurationError: If settings contradict each other, one is missing, a file cannot be read, or
                something would travel readable between machines and nothing allows that.
        """
        self._refuse_unused()
        servers = self._servers()
        encrypted, known = self._encrypted, self.security_protocol.startswith("SASL")
        return Connection(
            servers,
            self.security_protocol,
            ssl_context=self._ssl_context() if encrypted else None,
            is_named=self.bootstrap_servers is not None,
            **(self._credentials() if known else {}),
        )

    @property
    def _encrypted(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    def _servers(self) -> str:
        if self.bootstrap_servers is None:
            if self.security_protocol != "PLAINTEXT":
                raise ConfigurationError(
                    f"CALLBOARD_SECURITY_PROTOCOL is {self.security_protocol}, and the local Kafka, which has"
                    " no other protocol than PLAINTEXT, would be used; set CALLBOARD_BOOTSTRAP_SERVERS to the"
                    " Kafka that it is meant for"
                )
            return f"127.0.0.1:{self.kafka_port}"
        servers = [server.strip() for server in self.bootstrap_servers.split(",")]
        for server in servers:
            address = ADDRESS.fullmatch(server)
            if address is None or not 0 < int(address["port"]) <= 65_535:  # noqa: PLR2004 (TCP's highest)
                raise ConfigurationError(
                    f"CALLBOARD_BOOTSTRAP_SERVERS is {self.bootstrap_servers!r}, and {server!r} in it is not"
                    " host:port; give one or several separated by commas, e.g. kafka-1:9092,kafka-2:9092"
                )
            if not (self._encrypted or self.allow_plaintext or _is_loopback(address["host"])):
                raise ConfigurationError(
                    f"CALLBOARD_BOOTSTRAP_SERVERS names {server!r}, which is not this machine, and the"
                    f" connection would not be encrypted{self._readable()}; set CALLBOARD_SECURITY_PROTOCOL"
                    f" to {'SSL' if self.security_protocol == 'PLAINTEXT' else 'SASL_SSL'}, or"
                    " CALLBOARD_ALLOW_PLAINTEXT=true if the network between is yours"
                )
        return ",".join(servers)

    def _readable(self) -> str:
        """Say what a stranger on the way would get."""
        if self.security_protocol == "PLAINTEXT" or self.sasl_mechanism is None:
            return ""
        what = {"PLAIN": "the password", "OAUTHBEARER": "the token"}.get(self.sasl_mechanism)
        return f": {what} would travel readable, and all records with it" if what else ""

    def _refuse_unused(self) -> None:
        unused = {
            "PLAINTEXT": ("tls_", "sasl_", "oauth_"),
            "SSL": ("sasl_", "oauth_"),
            "SASL_PLAINTEXT": ("tls_",),
            "SASL_SSL": (),
        }[self.security_protocol]
        for name in self._given():
            if name.startswith(unused or ("-",)):
                fitting = "SSL" if name.startswith("tls_") else "SASL_SSL"
                raise ConfigurationError(
                    f"{_variable(name)} is set, and CALLBOARD_SECURITY_PROTOCOL, which is"
                    f" {self.security_protocol}, has no use for it; set that to {fitting}, or unset"
                    f" {_variable(name)}"
                )

    def _given(self) -> list[str]:
        return [name for name in type(self).model_fields if getattr(self, name) is not None]

    # TLS

    def _ssl_context(self) -> ssl.SSLContext:
        authority = self.tls_ca_file
        if authority is not None:
            _require_readable(authority, "CALLBOARD_TLS_CA_FILE")
        try:
            context = ssl.create_default_context(cafile=authority)
        except ssl.SSLError:
            raise ConfigurationError(
                f"CALLBOARD_TLS_CA_FILE names {str(authority)!r}, which holds no certificate in PEM form"
                " (-----BEGIN CERTIFICATE-----)"
            ) from None
        password = self._secret("tls_key_password")
        if self.tls_certificate_file is not None:
            self._show_certificate(context, self.tls_certificate_file, password)
        elif self.tls_key_file is not None or password is not None:
            raise ConfigurationError(
                "a key for TLS is given without its certificate; set CALLBOARD_TLS_CERTIFICATE_FILE, or unset"
                " CALLBOARD_TLS_KEY_FILE and its password"
            )
        return context

    def _show_certificate(
        self, context: ssl.SSLContext, certificate: Path, password: SecretStr | None
    ) -> None:
        _require_readable(certificate, "CALLBOARD_TLS_CERTIFICATE_FILE")
        key, variable = certificate, "CALLBOARD_TLS_CERTIFICATE_FILE"
        if self.tls_key_file is not None:
            key, variable = self.tls_key_file, "CALLBOARD_TLS_KEY_FILE"
            _require_readable(key, variable)
        warn_if_open_to_all(key, variable)

        def answer() -> str:
            # Without an answer, OpenSSL would ask at the terminal.
            return password.get_secret_value() if password is not None else ""

        try:
            context.load_cert_chain(certificate, key, answer)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"the certificate in {str(certificate)!r} (CALLBOARD_TLS_CERTIFICATE_FILE) cannot be used"
                f" with the key in {str(key)!r} ({variable}):"
                f" {_why_unusable(error, given=password is not None)}"
            ) from None

    # SASL

    def _credentials(self) -> dict[str, Any]:
        if self.sasl_mechanism is None:
            raise ConfigurationError(
                f"CALLBOARD_SECURITY_PROTOCOL is {self.security_protocol}, which needs"
                " CALLBOARD_SASL_MECHANISM: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
            )
        if self.sasl_mechanism == "OAUTHBEARER":
            self._refuse_others(["sasl_username", "sasl_password", "sasl_password_file"])
            return {"mechanism": self.sasl_mechanism, "token": self._token_provider()}
        self._refuse_others(name for name in self._given() if name.startswith("oauth_"))
        password = self._secret("sasl_password")
        for name, value in (("sasl_username", self.sasl_username), ("sasl_password", password)):
            if value is None:
                other = " or CALLBOARD_SASL_PASSWORD_FILE" if name == "sasl_password" else ""
                raise ConfigurationError(
                    f"CALLBOARD_SASL_MECHANISM is {self.sasl_mechanism}, which needs {_variable(name)}{other}"
                )
        return {"mechanism": self.sasl_mechanism, "username": self.sasl_username, "password": password}

    def _refuse_others(self, names: Iterable[str]) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{_variable(name)} is set, and CALLBOARD_SASL_MECHANISM, which is {self.sasl_mechanism},"
                    " has no use for it; unset one of them"
                )

    def _token_provider(self) -> TokenProvider:
        given = [name for name in TOKEN_SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigurationError(
                "CALLBOARD_SASL_MECHANISM is OAUTHBEARER, which needs one of"
                f" {', '.join(map(_variable, TOKEN_SOURCES))}; set are:"
                f" {', '.join(map(_variable, given)) or 'none'}"
            )
        if self.oauth_token_url is not None:
            return self._client_credentials(self.oauth_token_url)
        for name in self._given():
            if name.startswith(("oauth_client_", "oauth_scope")):
                raise ConfigurationError(
                    f"{_variable(name)} is set, which only means something together with"
                    " CALLBOARD_OAUTH_TOKEN_URL; unset it"
                )
        if self.oauth_token is not None:
            return GivenToken(self.oauth_token)
        assert self.oauth_token_file is not None  # noqa: S101 (one of the three is given)
        self._secret("oauth_token")  # what is wrong from the beginning is said at the beginning
        return TokenFile(self.oauth_token_file, "CALLBOARD_OAUTH_TOKEN_FILE")

    def _client_credentials(self, url: str) -> ClientCredentials:
        parts = urlsplit(url)
        local = parts.scheme == "http" and _is_loopback(parts.hostname or "")
        if not (parts.hostname and (parts.scheme == "https" or local)) or parts.password is not None:
            raise ConfigurationError(
                "CALLBOARD_OAUTH_TOKEN_URL is no address that starts with https:// and holds no password;"
                " the client's secret would travel readable"
            )
        secret = self._secret("oauth_client_secret")
        if self.oauth_client_id is None or secret is None:
            raise ConfigurationError(
                "CALLBOARD_OAUTH_TOKEN_URL needs CALLBOARD_OAUTH_CLIENT_ID, and CALLBOARD_OAUTH_CLIENT_SECRET"
                " or CALLBOARD_OAUTH_CLIENT_SECRET_FILE"
            )
        return ClientCredentials(url, self.oauth_client_id, secret, self.oauth_scope)

    def _secret(self, name: str) -> SecretStr | None:
        """Give a secret from its variable, or from the file that another variable names."""
        value: SecretStr | None = getattr(self, name)
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            return value
        variable = _variable(f"{name}_file")
        if value is not None:
            raise ConfigurationError(f"{_variable(name)} and {variable} are both set; unset one of them")
        secret = SecretStr(read_secret(path, variable))
        warn_if_open_to_all(path, variable)
        return secret


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _require_readable(path: Path, variable: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, variable, error) from None


def _why_unusable(error: ssl.SSLError, *, given: bool) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "they do not belong together"
    known = "CALLBOARD_TLS_KEY_PASSWORD is wrong" if given else "the key needs CALLBOARD_TLS_KEY_PASSWORD"
    return f"one of them is not in PEM form, or {known}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
