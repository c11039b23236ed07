"""The guard hook: what each agent may do, a corpus of ways around it, and that whatever goes wrong blocks."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2].resolve()
SETTINGS = json.loads((ROOT / ".claude/settings.json").read_text())
HOOK = SETTINGS["hooks"]["PreToolUse"][0]["hooks"][0]["command"]
SHA = "0123456789abcdef0123456789abcdef01234567"
GRANT, NO_CONCERN = "granted", "no concern of the guard"

_spec = importlib.util.spec_from_file_location("guard", ROOT / ".claude/hooks/guard.py")
assert _spec is not None
assert _spec.loader is not None
guard = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(guard)

GOOD = {
    "k8s-validator": "callboard validate-manifests --json deploy",
    "python-test-runner": "callboard report-tests --json -- tests/unit/test_guard.py",
    "argocd-sync-monitor": f"callboard argocd-status callboard --revision {SHA} --wait 9m --json",
}


def call(agent: str | None, tool: str = "Bash", **given: Any) -> dict[str, Any]:
    """Give a call as Claude Code 2.1.330 writes it."""
    of_agent = {} if agent is None else {"agent_id": "a1", "agent_type": agent}
    return {
        "session_id": "s",
        "transcript_path": "/home/somebody/.claude/s.jsonl",
        "cwd": str(ROOT),
        "permission_mode": "dontAsk",
        "hook_event_name": "PreToolUse",
        "tool_name": tool,
        "tool_input": given,
        "tool_use_id": "toolu_1",
        **of_agent,
    }


def judged(asked: Any, **places: Path) -> str:
    """Give what the guard says: one of the two words above, or the reason for blocking."""
    try:
        parsed = guard.parsed(asked if isinstance(asked, bytes) else json.dumps(asked).encode())
        return GRANT if guard.grants(parsed, **places) else NO_CONCERN
    except guard.BlockedError as error:
        return str(error)


def blocked(agent: str, command: Any, **given: Any) -> str:
    said = judged(call(agent, command=command, **given))
    assert said not in {GRANT, NO_CONCERN}, command
    assert f"{agent} may only run `callboard " in said
    return said


ALLOWED = [
    *GOOD.items(),
    *((agent, f".venv/bin/{command}") for agent, command in GOOD.items()),
    ("k8s-validator", "callboard validate-manifests deploy/kubernetes/base deploy/argocd/ --json"),
    ("k8s-validator", "callboard validate-manifests 'deploy/kubernetes' --kubernetes 1.34"),
    ("k8s-validator", 'callboard  validate-manifests  "a_b/c-d.yaml"'),
    ("python-test-runner", "callboard report-tests"),
    ("python-test-runner", "callboard report-tests --json --limit 540"),
    ("python-test-runner", "callboard report-tests --json -- -x tests agents/tests"),
    ("python-test-runner", "callboard report-tests -- tests/unit/test_a.py::TestIt::test_it"),
    ("python-test-runner", "callboard report-tests -- 'tests/unit/test_a.py::test_it[a-b c=1]'"),
    ("python-test-runner", "callboard report-tests -- -k 'guard and not (slow or late)' -m 'not kafka'"),
    ("argocd-sync-monitor", f"callboard argocd-status shop --revision {SHA}"),
    (
        "argocd-sync-monitor",
        "callboard argocd-status shop --revision 1a2b3c4 --pushed-at 5m --via argocd",
    ),
    (
        "argocd-sync-monitor",
        f"callboard argocd-status shop --revision {SHA} --pushed-at 2026-01-31T12:00:00+01:00",
    ),
    (
        "argocd-sync-monitor",
        f"callboard argocd-status --revision {SHA} --namespace argocd shop --wait 90s",
    ),
]


@pytest.mark.parametrize(("agent", "command"), ALLOWED)
def test_an_agent_may_run_its_command(agent: str, command: str) -> None:
    assert judged(call(agent, command=command, description="x", timeout=600_000)) == GRANT


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
def test_a_shell_takes_what_is_allowed_for_the_same_words(shell: str) -> None:
    if not (program := shutil.which(shell)):
        pytest.skip(f"there is no {shell} here")
    for _, command in ALLOWED:
        printed = subprocess.run(
            [program, "-c", f"printf '%s\\0' {command}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert printed.stdout.split("\0")[:-1] == shlex.split(command)


@pytest.mark.parametrize("agent", GOOD)
def test_no_character_of_a_shell_fits_in_anywhere(agent: str) -> None:
    command = GOOD[agent]
    for character in ";&|<>$`\\!*?~#{}^()[]'\"\n\r\t\v\f\0\x1b\x7f\x85\xa0\xe9\u0430\u200b\u2028\uff1b":
        for place in range(len(command) + 1):
            blocked(agent, command[:place] + character + command[place:])


@pytest.mark.parametrize(
    "around",
    [
        "{}; rm -rf x",
        "{};id",
        "{} && id",
        "{} || id",
        "{} | tee x",
        "{} & id",
        "{} > x",
        "{} >> x",
        "{} < x",
        "{} 2>&1",
        "{} <<< x",
        "{} $(id)",
        "{} `id`",
        "{} ${{HOME}}",
        "{} $HOME",
        '{} "$(id)"',
        "{}\nid",
        "{}\r\nid",
        "{}\n",
        "{}\t",
        "{} \\\n id",
        "{}\x00",
        "{} #",
        "{} !!",
        "{} *",
        "{} ?",
        "{} ~",
        "{} {{a,b}}",
        "{} <(id)",
        "{} a\\ b",
        "{} 'a'b",
        "{} 'a",
        '{} "a',
        "{} a''b",
        "({})",
        "{{ {}; }}",
        "! {}",
        " {}",
        "{} ",
        "X=1 {}",
        "PATH=/tmp {}",
        "PYTHONSTARTUP=x {}",
        "env {}",
        "env X=1 {}",
        "sudo {}",
        "exec {}",
        "eval '{}'",
        "sh -c '{}'",
        "timeout 5 {}",
        "nohup {}",
        "time {}",
        "cd /tmp && {}",
        "/usr/bin/{}",
        "./{}",
        "../{}",
        "/opt/x/.venv/bin/{}",
        ".venv/bin/../../x/{}",
        "c{}",
        "CALLBOARD_{}",
        "\u0441{}",
        "{}\u00a0x",
        "{}\u2028id",
        "{}\uff1bid",
        "{} \u202e",
        "{} --help",
        "{} -h",
        "{} --json --json",
        "{} --version",
        "{} -- -- x",
        "{} ''",
        "{}" + " a" * 900,
        "{} " + "a" * 100_000,
        "{}" + "[" * 1_000,
        "{}" + "/a" * 900 + "!",
    ],
)
@pytest.mark.parametrize("agent", GOOD)
def test_nothing_goes_around_it(agent: str, around: str) -> None:
    blocked(agent, around.format(GOOD[agent]))


@pytest.mark.parametrize("agent", GOOD)
def test_an_agent_may_not_run_the_command_of_another(agent: str) -> None:
    for other in GOOD.keys() - {agent}:
        blocked(agent, GOOD[other])


@pytest.mark.parametrize("agent", GOOD)
@pytest.mark.parametrize(
    "command",
    [
        "",
        "callboard",
        "callboard run x:app",
        "callboard --help",
        "ls",
        "cat .env",
        "kubectl get pods",
        "kubectl delete pod x",
        "argocd app sync shop",
        "pytest",
        "python3 -c pass",
        "\u0441allboard validate-manifests deploy",
        "CALLBOARD validate-manifests deploy",
        "callboard Validate-Manifests deploy",
    ],
)
def test_an_agent_may_run_nothing_else(agent: str, command: str) -> None:
    blocked(agent, command)


@pytest.mark.parametrize(
    ("agent", "arguments", "reason"),
    [
        ("k8s-validator", "", "1 to 16 arguments, not 0"),
        ("k8s-validator", "--json", "1 to 16 arguments, not 0"),
        ("k8s-validator", "/etc", "'/etc' is not allowed here"),
        ("k8s-validator", "..", "'..' is not allowed here"),
        ("k8s-validator", "deploy/../../x", "is not allowed here"),
        ("k8s-validator", ".env", "is not allowed here"),
        ("k8s-validator", "deploy/.env", "is not allowed here"),
        ("k8s-validator", "deploy//x", "is not allowed here"),
        (
            "k8s-validator",
            "--skip no-latest deploy",
            "'--skip' is not allowed here, only --json, --kubernetes",
        ),
        ("k8s-validator", "deploy --kubernetes latest", "--kubernetes may not be 'latest'"),
        ("k8s-validator", "--json=x deploy", "'--json=x' is not allowed here"),
        ("k8s-validator", "-- deploy", "'--' is not allowed here"),
        ("k8s-validator", "http://x/y", "is not allowed here"),
        ("k8s-validator", "'a b'", "is not allowed here"),
        ("python-test-runner", "tests", "'tests' is not allowed here"),
        (
            "python-test-runner",
            "--python /opt/python",
            "'--python' is not allowed here, only --json, --limit",
        ),
        ("python-test-runner", "--no-rerun", "'--no-rerun' is not allowed here"),
        ("python-test-runner", "--limit 99999", "--limit may not be '99999'"),
        ("python-test-runner", "-- --lf", "'--lf' is not allowed here"),
        ("python-test-runner", "-- -p evil", "'-p' is not allowed here, only -x, -k, -m"),
        ("python-test-runner", "-- -pevil", "'-pevil' is not allowed here"),
        ("python-test-runner", "-- --rootdir /tmp", "'--rootdir' is not allowed here"),
        ("python-test-runner", "-- --rootdir=/tmp", "is not allowed here"),
        ("python-test-runner", "-- -c file", "'-c' is not allowed here"),
        ("python-test-runner", "-- -o addopts=x", "'-o' is not allowed here"),
        ("python-test-runner", "-- --override-ini x=y", "is not allowed here"),
        ("python-test-runner", "-- --junitxml=x", "is not allowed here"),
        ("python-test-runner", "-- --basetemp=/", "is not allowed here"),
        ("python-test-runner", "-- --pyargs os", "is not allowed here"),
        ("python-test-runner", "-- --confcutdir=x", "is not allowed here"),
        ("python-test-runner", "-- --pdbcls=a:b", "is not allowed here"),
        ("python-test-runner", "-- @file", "'@file' is not allowed here"),
        ("python-test-runner", "-- -- tests", "'--' is not allowed here"),
        ("python-test-runner", "-- /tmp/test_x.py", "is not allowed here"),
        ("python-test-runner", "-- examples/sample_shop/tests", "is not allowed here"),
        ("python-test-runner", "-- tests/../../x", "is not allowed here"),
        ("python-test-runner", "-- tests2/x", "is not allowed here"),
        ("python-test-runner", "-- tests/a.py::x::", "is not allowed here"),
        ("python-test-runner", "-- -k", "-k may not be None"),
        ("python-test-runner", "-- -k -p", "-k may not be '-p'"),
        ("python-test-runner", "-- -k __import__('os')", "as one plain command"),
        ("python-test-runner", "-- -k 'a.b'", "-k may not be 'a.b'"),
        ("python-test-runner", "-- -k a -k b", "-k is there twice"),
        ("argocd-sync-monitor", f"--revision {SHA}", "1 to 1 arguments, not 0"),
        ("argocd-sync-monitor", f"a b --revision {SHA}", "1 to 1 arguments, not 2"),
        ("argocd-sync-monitor", "a --revision HEAD", "--revision may not be 'HEAD'"),
        ("argocd-sync-monitor", f"a --revision {SHA[:6]}", "--revision may not be"),
        ("argocd-sync-monitor", f"a --revision={SHA}", "is not allowed here"),
        ("argocd-sync-monitor", f"a --revision {SHA} --revision {SHA}", "--revision is there twice"),
        ("argocd-sync-monitor", f"a --revision {SHA} --wait 2h", "--wait may not be '2h'"),
        ("argocd-sync-monitor", f"a --revision {SHA} --wait 10m", "--wait may not be '10m'"),
        ("argocd-sync-monitor", f"a --revision {SHA} --pushed-at now", "--pushed-at may not be 'now'"),
        ("argocd-sync-monitor", f"a --revision {SHA} --via ssh", "--via may not be 'ssh'"),
        (
            "argocd-sync-monitor",
            f"a --revision {SHA} --from-file /etc/passwd",
            "'--from-file' is not allowed",
        ),
        ("argocd-sync-monitor", f"a --revision {SHA} --kubeconfig x", "is not allowed here"),
        ("argocd-sync-monitor", f"a --revision {SHA} --context x", "is not allowed here"),
        ("argocd-sync-monitor", f"a --revision {SHA} --namespace -x", "--namespace may not be '-x'"),
        ("argocd-sync-monitor", f"A --revision {SHA}", "'A' is not allowed here"),
        ("argocd-sync-monitor", f"a/b --revision {SHA}", "'a/b' is not allowed here"),
    ],
)
def test_arguments_have_one_of_the_listed_forms(agent: str, arguments: str, reason: str) -> None:
    assert reason in blocked(agent, f"{' '.join(GOOD[agent].split()[:2])} {arguments}".rstrip())


@pytest.mark.parametrize(
    "given",
    [
        {"run_in_background": True},
        {"run_in_background": "no"},
        {"dangerouslyDisableSandbox": True},
        {"something_new": 1},
    ],
)
def test_a_command_runs_plainly_or_not_at_all(given: dict[str, Any]) -> None:
    assert "in the foreground" in blocked("k8s-validator", GOOD["k8s-validator"], **given)


@pytest.mark.parametrize("command", [None, 1, ["callboard"], {"a": 1}])
def test_a_command_is_a_text(command: Any) -> None:
    blocked("k8s-validator", command)
    assert "may only run" in judged(call("k8s-validator"))


@pytest.mark.parametrize("folder", ["/tmp", str(ROOT / "deploy"), str(ROOT.parent), None])  # noqa: S108
def test_a_command_runs_in_the_root_of_the_repository(folder: str | None) -> None:
    asked = call("k8s-validator", command=GOOD["k8s-validator"]) | {"cwd": folder}
    assert f"runs its command in {ROOT}, not in {folder!r}" in judged(asked)


@pytest.mark.parametrize("agent", GOOD)
@pytest.mark.parametrize(
    "tool", ["Write", "Edit", "Grep", "Glob", "Agent", "Task", "WebFetch", "Skill", "bash", "mcp__x__y", ""]
)
def test_an_agent_may_use_no_other_tool(agent: str, tool: str) -> None:
    said = judged(call(agent, tool, command=GOOD[agent]))
    assert f"{agent} may not use {tool!r}, only Read, Bash, StructuredOutput" in said


def test_a_tool_that_the_guard_cannot_judge_is_blocked_though_listed(tmp_path: Path) -> None:
    rules = json.loads(guard.TABLE.read_text())
    rules["agents"]["k8s-validator"]["tools"].append("Grep")
    path = tmp_path / "table.json"
    path.write_text(json.dumps(rules))
    assert "nothing here can judge it" in judged(call("k8s-validator", "Grep", pattern="."), table=path)


def test_an_agent_may_report() -> None:
    assert judged(call("k8s-validator", "StructuredOutput", verdict="pass")) == NO_CONCERN


def test_an_agent_may_read_what_is_in_the_repository() -> None:
    for path in (
        "README.md",
        "deploy/x/kustomization.yaml",
        "tests/unit/not_there.py",
        "streams/secret_files.py",
    ):
        assert judged(call("k8s-validator", "Read", file_path=str(ROOT / path), limit=5)) == NO_CONCERN


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/proc/self/environ",
        "README.md",
        "~/.kube/config",
        "",
        str(ROOT),
        str(ROOT.parent / "x"),
        f"{ROOT}x/README.md",
        f"{ROOT}/../x",
        f"{ROOT}/deploy/../../x",
        f"{ROOT}/a\0b",
        *(f"{ROOT}/{name}" for name in (".env", ".ENV", ".env.local", "production.env", "deploy/tls.key")),
        *(f"{ROOT}/{name}" for name in ("a.pem", "A.PEM", "a.\uff50em", "x/id_rsa", "my-kubeconfig.yaml")),
        *(
            f"{ROOT}/{name}"
            for name in (".git/config", ".kube/config", ".aws/x", ".netrc", "credentials.json", ".envrc")
        ),
        f"{ROOT}/.claude/settings.local.json",
    ],
)
def test_an_agent_may_read_nothing_else_and_no_secrets(path: str) -> None:
    assert "k8s-validator may" in judged(call("k8s-validator", "Read", file_path=path))


def test_a_link_leads_to_no_secret_and_hides_none(tmp_path: Path) -> None:
    project = (tmp_path / "project").resolve()
    project.mkdir()
    (tmp_path / "outside").write_text("x")
    (project / ".env").write_text("x")
    (project / "plain").write_text("x")
    (project / "out").symlink_to(tmp_path / "outside")
    (project / "to_secret").symlink_to(project / ".env")
    (project / "a.pem").symlink_to(project / "plain")
    for name, reason in (("out", "only read below"), ("to_secret", "'.env'"), ("a.pem", "'a.pem'")):
        said = judged(call("k8s-validator", "Read", file_path=str(project / name)), project=project)
        assert reason in said
    fine = call("k8s-validator", "Read", file_path=str(project / "plain"))
    assert judged(fine, project=project) == NO_CONCERN


@pytest.mark.parametrize("given", [{"file_path": 1}, {}, {"file_path": "/x", "new": 1}])
def test_a_read_of_unknown_form_is_blocked(given: dict[str, Any]) -> None:
    assert "may read with" in judged(call("k8s-validator", "Read", **given))


def test_the_main_thread_and_agents_of_others_are_left_alone(tmp_path: Path) -> None:
    for agent in (None, "general-purpose", "Explore", "plugin:k8s-validator"):
        for tool in ("Bash", "Write", "Read", "mcp__x__y"):
            assert judged(call(agent, tool, command="rm -rf x; id", file_path="/etc/passwd")) == NO_CONCERN
    assert judged(call(None), table=tmp_path / "absent") == NO_CONCERN


def test_as_the_main_thread_an_agent_is_held_to_its_command_too() -> None:
    # `claude --agent NAME`: the call has no agent_id then.
    asked = call("k8s-validator", command="id")
    del asked["agent_id"]
    assert "may only run" in judged(asked)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"agent_type": None}, "does not say whose"),
        ({"agent_type": ""}, "does not say whose"),
        ({"agent_type": ["k8s-validator"]}, "does not say whose"),
        ({"hook_event_name": "PostToolUse"}, "not of the form"),
        ({"hook_event_name": None}, "not of the form"),
        ({"tool_name": None}, "not of the form"),
        ({"tool_input": None}, "not of the form"),
        ({"tool_input": "callboard validate-manifests deploy"}, "not of the form"),
    ],
)
def test_a_call_of_unknown_form_is_blocked(change: dict[str, Any], reason: str) -> None:
    assert reason in judged(call("k8s-validator", command=GOOD["k8s-validator"]) | change)


def test_an_agent_without_a_name_is_blocked() -> None:
    asked = call("k8s-validator")
    del asked["agent_type"]
    assert "does not say whose" in judged(asked)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{} {}",
        b"\xff\xfe",
        b'{"agent_type": "k8s-validator", "agent_type": "Explore"}',
        b'{"tool_input": {"command": "a", "command": "b"}}',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"a": "' + b"x" * guard.LONGEST_CALL + b'"}',
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_call_that_cannot_be_read_is_blocked(data: bytes) -> None:
    assert "the call " in judged(data)


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"version": 1}',
        b'{"version": 2, "agents": {}}',
        b'{"version": 1, "agents": []}',
        b'{"version": 1, "version": 1, "agents": {}}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_table_that_cannot_be_read_allows_nothing(tmp_path: Path, table: bytes) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(table)
    for agent in ("k8s-validator", "Explore"):
        assert f"the table {path} " in judged(call(agent, command=GOOD["k8s-validator"]), table=path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a repository with the guard in it, at a path that a shell has to be careful with."""
    folder = tmp_path / "it's a $HOME; project"
    shutil.copytree(
        ROOT / ".claude/hooks", folder / ".claude/hooks", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def run(project: Path, data: bytes, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the hook as Claude Code does: by a shell, with the repository in the environment."""
    given = {"PATH": os.environ["PATH"], "CLAUDE_PROJECT_DIR": str(project)} | environment
    return subprocess.run(
        ["/bin/sh", "-c", HOOK], input=data, env=given, capture_output=True, check=False, timeout=60
    )


def test_the_process_grants_blocks_and_leaves_alone(project: Path) -> None:
    good = call("k8s-validator", command=GOOD["k8s-validator"]) | {"cwd": str(project)}
    granted = run(project, json.dumps(good).encode())
    assert (granted.returncode, granted.stderr) == (0, b"")
    output = json.loads(granted.stdout)["hookSpecificOutput"]
    assert (output["hookEventName"], output["permissionDecision"]) == ("PreToolUse", "allow")

    bad = call("k8s-validator", command=f"{GOOD['k8s-validator']}; id") | {"cwd": str(project)}
    refused = run(project, json.dumps(bad).encode())
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"Blocked by .claude/hooks/guard.py: k8s-validator may only run `callboard" in refused.stderr

    left_alone = run(project, json.dumps(call(None, command="rm -rf x")).encode())
    assert (left_alone.returncode, left_alone.stdout, left_alone.stderr) == (0, b"", b"")


@pytest.mark.parametrize("data", [b"", b"{", b'{"agent_type": 1}', b'{"agent_id": "a1"}'])
def test_the_process_blocks_what_it_cannot_read(project: Path, data: bytes) -> None:
    done = run(project, data)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"Blocked by .claude/hooks/guard.py: the call ")


def test_the_process_says_what_a_terminal_can_show(project: Path) -> None:
    asked = call("k8s-validator", command="a\ud800\x1b[2J") | {"cwd": str(project)}
    done = run(project, json.dumps(asked).encode())
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("fault", ["no table", "no guard", "broken guard", "wrong rule", "no python"])
def test_the_process_blocks_when_it_cannot_judge(project: Path, tmp_path: Path, fault: str) -> None:
    hooks, environment = project / ".claude/hooks", {}
    if fault == "no table":
        (hooks / "allowed_commands.json").unlink()
    elif fault == "no guard":
        (hooks / "guard.py").unlink()
    elif fault == "broken guard":
        (hooks / "guard.py").write_text("def")
    elif fault == "wrong rule":
        (hooks / "allowed_commands.json").write_text('{"version": 1, "agents": {"k8s-validator": {}}}')
    else:
        environment = {"PATH": str(tmp_path)}
    asked = call("k8s-validator", command=GOOD["k8s-validator"]) | {"cwd": str(project)}
    done = run(project, json.dumps(asked).encode(), **environment)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr


def test_the_process_blocks_what_it_cannot_judge_in_time(project: Path) -> None:
    guard_file = project / ".claude/hooks/guard.py"
    text = guard_file.read_text()
    in_time = f"MOST_SECONDS = {guard.MOST_SECONDS}"
    assert in_time in text
    guard_file.write_text(text.replace(in_time, "MOST_SECONDS = 1"))
    environment = {"PATH": os.environ["PATH"], "CLAUDE_PROJECT_DIR": str(project)}
    with subprocess.Popen(["/bin/sh", "-c", HOOK], stdin=subprocess.PIPE, env=environment) as waiting:
        assert waiting.wait(60) == 2


def test_the_settings_give_it_more_time_than_it_takes() -> None:
    assert SETTINGS["hooks"]["PreToolUse"][0]["hooks"][0]["timeout"] > guard.MOST_SECONDS
