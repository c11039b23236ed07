"""What a deployment can choose, read from `CALLBOARD_*` environment variables."""

import re
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agents.core.errors import ConfigurationError
from streams.kafka.connection import Connection
from streams.kafka.local_broker import default_home

ADDRESS = re.compile(r"(?P<host>[^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")


class Settings(BaseSettings):
    """Every setting of workers and of the command line."""

    model_config = SettingsConfigDict(env_prefix="CALLBOARD_", frozen=True, extra="ignore")

    bootstrap_servers: str | None = Field(default=None, description="host:port list; unset: the local Kafka")
    allow_plaintext: bool = Field(default=False, description="allow unencrypted Kafka on other machines")
    home: Path = Field(default_factory=default_home, description="what the local Kafka keeps on disk")
    kafka_port: int = Field(
        default=9092, ge=1, le=65535, description="port of the local Kafka, loopback only"
    )
    topic_prefix: str = Field(
        default="", pattern="^[a-z0-9._-]{0,64}$", description="before every topic name"
    )
    partitions: int = Field(default=6, ge=1, le=10_000, description="of topics that have to be created")
    replication: int = Field(default=1, ge=1, le=32_767, description="of topics that have to be created")
    new_edge: Literal["beginning", "latest"] = Field(
        default="beginning", description="where a new follower starts in results that are already there"
    )
    drain_seconds: float = Field(default=20.0, ge=0, le=3600, description="what runs get to end at shutdown")
    session_timeout_ms: int = Field(
        default=10_000, ge=1_000, description="after which a dead worker is replaced"
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _unset_when_empty(cls, value: str | None) -> str | None:
        return value if value is not None and value.strip() else None

    @cached_property
    def connection(self) -> Connection:
        """How Kafka is reached.

        Raises:
            ConfigurationError: If it is no address, or on another machine and nothing allows plaintext.
        """
        if self.bootstrap_servers is None:
            return Connection.plaintext(f"127.0.0.1:{self.kafka_port}")
        servers = [server.strip() for server in self.bootstrap_servers.split(",")]
        for server in servers:
            address = ADDRESS.fullmatch(server)
            if address is None or not 0 < int(address["port"]) <= 65_535:  # noqa: PLR2004 (TCP's highest)
                raise ConfigurationError(
                    f"CALLBOARD_BOOTSTRAP_SERVERS is {self.bootstrap_servers!r}, and {server!r} in it is not"
                    " host:port; give one or several separated by commas, e.g. kafka-1:9092,kafka-2:9092"
                )
            if not _is_loopback(address["host"]) and not self.allow_plaintext:
                raise ConfigurationError(
                    f"CALLBOARD_BOOTSTRAP_SERVERS names {server!r}, which is not this machine, and the"
                    " connection would not be encrypted; set CALLBOARD_ALLOW_PLAINTEXT=true if the network"
                    " between is yours"
                )
        return Connection.plaintext(",".join(servers))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
