"""Settings: where they come from, which are refused, and that nothing leaves this machine in the clear."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agents.core.errors import ConfigurationError
from streams.settings import Settings


def test_without_any_setting_it_is_the_local_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALLBOARD_HOME", raising=False)
    settings = Settings()
    assert settings.connection.servers == "127.0.0.1:9092"
    assert Settings(kafka_port=9192).connection.servers == "127.0.0.1:9192"
    assert (settings.topic_prefix, settings.partitions, settings.replication) == ("", 6, 1)
    assert (settings.new_edge, settings.allow_plaintext) == ("beginning", False)


def test_they_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "BOOTSTRAP_SERVERS": "localhost:1234",
        "HOME": str(tmp_path),
        "TOPIC_PREFIX": "team.",
        "PARTITIONS": "12",
        "NEW_EDGE": "latest",
        "DRAIN_SECONDS": "1.5",
        "UNKNOWN": "ignored",
    }.items():
        monkeypatch.setenv(f"CALLBOARD_{name}", value)
    settings = Settings()
    assert (settings.connection.servers, settings.home, settings.topic_prefix) == (
        "localhost:1234",
        tmp_path,
        "team.",
    )
    assert (settings.partitions, settings.new_edge, settings.drain_seconds) == (12, "latest", 1.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"partitions": 0},
        {"replication": 0},
        {"kafka_port": 0},
        {"kafka_port": 65_536},
        {"topic_prefix": "a b"},
        {"topic_prefix": "A."},
        {"topic_prefix": "a" * 65},
        {"topic_prefix": "a.\n"},
        {"new_edge": "earliest"},
        {"drain_seconds": -1},
        {"drain_seconds": float("nan")},
        {"session_timeout_ms": 10},
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**wrong)
    assert [problem["loc"] for problem in caught.value.errors()] == [tuple(wrong)]


def test_settings_do_not_change_later() -> None:
    with pytest.raises(ValidationError):
        Settings().partitions = 3


@pytest.mark.parametrize(
    "servers",
    [
        "localhost:9092",
        "LOCALHOST:9092",
        "127.0.0.1:9092",
        "127.0.0.53:9092",
        "[::1]:9092",
        "localhost:9092,127.0.0.1:9093",
        " localhost:9092 , [::1]:9093 ",
    ],
)
def test_this_machine_needs_no_encryption(servers: str) -> None:
    assert Settings(bootstrap_servers=servers).connection.servers == servers.replace(" ", "")


@pytest.mark.parametrize(
    "servers",
    [
        "kafka:9092",
        "10.0.0.1:9092",
        "0.0.0.0:9092",
        "localhost.example.org:9092",
        "127.0.0.1.example.org:9092",
        "localhost:9092,kafka:9092",
        "[2001:db8::1]:9092",
    ],
)
def test_plaintext_to_another_machine_is_refused_unless_allowed(servers: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not this machine.*CALLBOARD_ALLOW_PLAINTEXT=true"):
        _ = Settings(bootstrap_servers=servers).connection
    assert Settings(bootstrap_servers=servers, allow_plaintext=True).connection.servers == servers


@pytest.mark.parametrize(
    "servers",
    [
        "localhost",
        "kafka",
        "localhost:",
        "localhost:x",
        "localhost:0",
        "localhost:70000",
        ":9092",
        "localhost:9092,",
        "::1",
        "PLAINTEXT://localhost:9092",
    ],
)
@pytest.mark.parametrize("allowed", [True, False])
def test_what_is_no_address_is_said_to_be_none(servers: str, *, allowed: bool) -> None:
    with pytest.raises(ConfigurationError, match=r"CALLBOARD_BOOTSTRAP_SERVERS .* not host:port"):
        _ = Settings(bootstrap_servers=servers, allow_plaintext=allowed).connection


@pytest.mark.parametrize("servers", ["", "  "])
def test_an_empty_address_is_none(servers: str) -> None:
    assert Settings(bootstrap_servers=servers).connection.servers == "127.0.0.1:9092"
