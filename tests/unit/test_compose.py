"""The compose file and the worker's image, as far as they can be checked without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from agents.core import llm
from streams.kafka.local_broker.jars import KAFKA_VERSION
from streams.kafka.local_broker.properties import server_properties
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
BROKER, WORKER = SERVICES["broker"], SERVICES["worker"]
DOCKERFILE = (ROOT / WORKER["build"]["dockerfile"]).read_text().replace("\\\n", " ")
INSTRUCTIONS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if re.match("[A-Z]+ ", line)]
LAST_FROM = max(place for place, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
FINAL = INSTRUCTIONS[LAST_FROM:]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def seconds(duration: str) -> int:
    assert re.fullmatch(r"(\d+m)?(\d+s)?", duration), duration
    return sum(int(n) * {"m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([ms])", duration))


def said(instruction: str, stage: list[list[str]]) -> list[str]:
    return [rest for name, rest in stage if name == instruction]


def variables(stage: list[list[str]]) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in said("ENV", stage) for pair in rest.split())


def option(name: str) -> str:
    command: list[str] = WORKER["command"]
    return command[command.index(name) + 1]


# What runs


def test_only_the_user_interface_waits_for_a_profile() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {"broker": [], "worker": [], "prometheus": [], "kafka-ui": ["ui"]}


@every_service
def test_image_is_pinned(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z][a-z/-]*:v?\d+\.\d+\.\d+", service["image"])


@pytest.mark.parametrize("base", said("FROM", INSTRUCTIONS))
def test_base_image_is_pinned(base: str) -> None:
    assert re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-slim-trixie( AS [a-z]+)?", base)


def test_versions_are_those_of_the_project() -> None:
    assert BROKER["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert WORKER["image"] == f"callboard-worker:{PROJECT['version']}"
    pythons = set(re.findall(r"^FROM python:(\d+\.\d+)", DOCKERFILE, re.MULTILINE))
    assert len(pythons) == 1, "an environment made by one Python does not run on another"
    assert f"Programming Language :: Python :: {pythons.pop()}" in PROJECT["classifiers"]
    rust = re.search(r"^FROM rust:(\d+)\.(\d+)", DOCKERFILE, re.MULTILINE)
    assert rust
    crate = tomllib.loads((ROOT / "rust-agents/Cargo.toml").read_text())["package"]
    assert tuple(map(int, rust.groups())) >= tuple(map(int, crate["rust-version"].split(".")))


# Who can reach it, and what it may do


@every_service
def test_ports_are_open_to_this_machine_alone(service: dict[str, Any]) -> None:
    assert "network_mode" not in service
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service["ports"])


@every_service
def test_service_has_least_privilege(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


def test_worker_is_nobody_and_writes_nowhere_but_to_tmp() -> None:
    assert WORKER["user"] == said("USER", FINAL)[-1] == "10001:10001"
    assert "--uid 10001 --gid callboard" in DOCKERFILE
    assert "groupadd --gid 10001 callboard" in DOCKERFILE
    assert WORKER["read_only"] is True
    assert [place.partition(":")[0] for place in WORKER["tmpfs"]] == ["/tmp"]  # noqa: S108 (the container's own)
    assert "volumes" not in WORKER
    environment = variables(FINAL)
    assert environment["HOME"] == "/tmp"  # noqa: S108 (the container's own)
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


# Life and death


@every_service
def test_service_tells_whether_it_is_healthy(service: dict[str, Any]) -> None:
    check = service["healthcheck"]
    assert check["test"][0] == "CMD", "a shell is not always there, and hides the exit code of a pipe"
    assert seconds(check["timeout"]) <= seconds(check["interval"])
    assert check["retries"] >= 3
    assert seconds(check["start_period"]) > 0


class _Worker(BaseHTTPRequestHandler):
    statuses: ClassVar = {"/healthz": 200, "/readyz": 200}

    def do_GET(self) -> None:
        self.send_response(self.statuses.get(self.path, 404))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("ready", "code"), [(200, 0), (503, 1)])
def test_worker_is_healthy_when_it_is_ready(monkeypatch: pytest.MonkeyPatch, ready: int, code: int) -> None:
    monkeypatch.setitem(_Worker.statuses, "/readyz", ready)
    _, python, flag, program = WORKER["healthcheck"]["test"]
    assert (python, flag) == ("python", "-c")
    assert f":{option('--port')}/" in program
    with HTTPServer(("127.0.0.1", 0), _Worker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = program.replace(f":{option('--port')}/", f":{server.server_port}/")
        finished = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
        server.shutdown()
    assert finished.returncode == code, finished.stderr.decode()


def test_worker_has_the_time_to_let_runs_end() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    assert seconds(WORKER["stop_grace_period"]) >= drain + 10
    # A signal reaches the command itself: no shell is between.
    assert [json.loads(entry) for entry in said("ENTRYPOINT", FINAL)] == [["callboard"]]
    assert isinstance(WORKER["command"], list)
    assert "entrypoint" not in WORKER


def test_worker_runs_an_application_that_is_in_the_image() -> None:
    assert said("WORKDIR", FINAL) == ["/app"]
    assert "examples /app/examples" in said("COPY", FINAL)
    module, _, name = WORKER["command"][1].partition(":")
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert re.search(rf"^{name} = AgentApp\(", source.read_text(), re.MULTILINE)


def test_clients_wait_for_the_broker() -> None:
    for name in ("worker", "kafka-ui"):
        assert SERVICES[name]["depends_on"] == {"broker": {"condition": "service_healthy"}}


# What they tell each other


def test_broker_keeps_what_the_local_kafka_keeps() -> None:
    local = dict(
        line.split("=", 1) for line in server_properties(9092).splitlines() if line and line[0] != "#"
    )
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in BROKER["environment"].items()
    }
    assert given.keys() >= {
        "auto.create.topics.enable",
        "log.retention.bytes",
        "log.retention.hours",
        "message.max.bytes",
        "offsets.retention.minutes",
    }
    places = {
        "controller.listener.names",
        "inter.broker.listener.name",
        "listener.security.protocol.map",
        "listeners",
        "log.dirs",
    }
    shared = (given.keys() & local.keys()) - places
    assert {name: given[name] for name in shared} == {name: local[name] for name in shared}
    assert f"kafka-data:{given['log.dirs']}" in BROKER["volumes"]


def test_everyone_finds_the_broker() -> None:
    environment = BROKER["environment"]
    doors = dict(door.split("://") for door in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(door.split("://") for door in environment["KAFKA_LISTENERS"].split(","))
    protocols = dict(
        pair.split(":") for pair in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    )
    assert listening.keys() == protocols.keys() == doors.keys() | {"CONTROLLER"}
    assert all(doors[name].endswith(listening[name]) for name in doors)
    inside = doors[environment["KAFKA_INTER_BROKER_LISTENER_NAME"]]
    assert inside == WORKER["environment"]["CALLBOARD_BOOTSTRAP_SERVERS"]
    assert inside == SERVICES["kafka-ui"]["environment"]["KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"]
    assert inside == BROKER["healthcheck"]["test"][-1]
    outside = doors["HOST"].removeprefix("localhost:")
    assert BROKER["ports"] == [f"127.0.0.1:{outside}:{outside}"]
    assert int(outside) == Settings.model_fields["kafka_port"].default
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@broker{listening['CONTROLLER']}"


def test_worker_is_started_with_settings_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = WORKER["environment"]
    known = {f"CALLBOARD_{name.upper()}" for name in Settings.model_fields} | {llm.CHOICE, *llm.CREDENTIALS}
    assert environment.keys() <= known
    for name in ("CALLBOARD_BOOTSTRAP_SERVERS", "CALLBOARD_ALLOW_PLAINTEXT"):
        monkeypatch.setenv(name, environment[name])
    assert Settings().connection.servers == environment["CALLBOARD_BOOTSTRAP_SERVERS"]


def test_no_language_model_is_used_and_no_key_is_given_unless_asked_for() -> None:
    assert WORKER["environment"][llm.CHOICE] == f"${{{llm.CHOICE}:-off}}"
    assert WORKER["environment"]["ANTHROPIC_API_KEY"] is None


def test_prometheus_reads_the_worker() -> None:
    source, target, mode = SERVICES["prometheus"]["volumes"][0].split(":")
    assert (target, mode) == ("/etc/prometheus/prometheus.yml", "ro")
    jobs = yaml.safe_load((ROOT / source).read_text())["scrape_configs"]
    job = next(job for job in jobs if job["job_name"] == "callboard")
    assert [targets["targets"] for targets in job["static_configs"]] == [[f"worker:{option('--port')}"]]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert option("--host") == "0.0.0.0", "inside its container, or nobody else reaches it"  # noqa: S104
    assert WORKER["ports"] == [f"127.0.0.1:{option('--port')}:{option('--port')}"]


# The image


def test_builder_sees_what_is_copied_and_nothing_else() -> None:
    copied = {
        source.partition("/")[0]
        for rest in said("COPY", INSTRUCTIONS)
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
        if not source.startswith("--")
    }
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert {"**/.*", "**/__pycache__", "**/*.so"} <= set(rules)


def test_image_is_built_from_locked_versions_only() -> None:
    commands = [
        command
        for rest in said("RUN", INSTRUCTIONS)
        for command in rest.split("&&")
        if re.match(r"\s*(pip|maturin) ", command)
    ]
    assert len(commands) == 4
    for command in commands:
        hashes = "--require-hashes" in command and "--only-binary :all:" in command
        assert hashes or "--no-index --no-deps" in command or "maturin build --release --locked" in command


@pytest.mark.parametrize("requirements", ["worker", "development"])
def test_locked_files_have_what_the_image_installs(requirements: str) -> None:
    text = (ROOT / f"requirements/{requirements}.txt").read_text()
    assert "--hash=sha256:" in text
    assert ("\nmaturin==" in text) is (requirements == "development")
    assert "\nanthropic==" in text, "a worker can be given a language model without another image"


def test_final_image_has_git_and_no_compiler() -> None:
    text = "\n".join(" ".join(instruction) for instruction in FINAL)
    assert re.search(r"install --yes --no-install-recommends git\s", text)
    assert not re.search(r"gcc|cargo|rust|maturin|pip ", text)


def compose() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if program := shutil.which(command[0]):
            found = [program, *command[1:]]
            told = subprocess.run([*found, "version", "--short"], check=False, capture_output=True, text=True)
            if told.returncode == 0 and int(re.findall(r"\d+", told.stdout or "0")[0]) >= 2:
                return found
    return None


def test_compose_itself_accepts_the_file() -> None:
    if (client := compose()) is None:
        pytest.skip("no compose client of version 2 or later is installed")
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    told = subprocess.run(
        [*client, "--file", ROOT / "docker-compose.yml", "--profile", "ui", "config", "--format", "json"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert told.returncode == 0, told.stderr
    resolved = json.loads(told.stdout)["services"]
    assert resolved.keys() == SERVICES.keys()
    assert resolved["worker"]["environment"][llm.CHOICE] == "off"
