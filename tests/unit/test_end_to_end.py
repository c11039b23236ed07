"""`make docker` cleans up whatever happens, and says when it checked nothing; the engine here is a script."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/docker/end_to_end.sh"
NOTHING_CHECKED = 7
DOCKER = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
{cases}
*publish*) echo '{{"workflow": "w-1", "status": "completed"}}' ;;
esac
"""


def run(folder: Path, cases: str | None) -> tuple[int, str, list[str]]:
    """Run it with a `docker` that answers as `cases` says, or without any."""
    log = folder / "asked"
    log.touch()
    for tool in ("bash", "dirname", "sed", "sh"):
        (folder / tool).symlink_to(
            next(place for place in (Path("/usr/bin") / tool, Path("/bin") / tool) if place.exists())
        )
    if cases is not None:
        program = folder / "docker"
        program.write_text(DOCKER.format(log=log, cases=cases))
        program.chmod(0o700)
    told = subprocess.run(
        [SCRIPT], check=False, capture_output=True, text=True, env={"PATH": str(folder)}, timeout=60
    )
    return told.returncode, told.stderr, log.read_text().splitlines()


@pytest.mark.parametrize(
    ("cases", "reason"),
    [
        (None, "the command docker is not installed"),
        ("version) exit 1 ;;", "no Docker engine answers"),
        ("'compose version') exit 1 ;;", "docker has no compose"),
    ],
)
def test_without_an_engine_nothing_is_checked_and_it_says_so(
    tmp_path: Path, cases: str | None, reason: str
) -> None:
    code, said, asked = run(tmp_path, cases)
    assert code == NOTHING_CHECKED
    assert f"nothing was checked: {reason}" in said
    assert not any("up" in words.split() for words in asked)


def test_a_task_is_done_and_everything_is_removed(tmp_path: Path) -> None:
    code, said, asked = run(tmp_path, "")
    assert (code, said) == (0, "")
    project = "compose --project-name callboard-end-to-end"
    asked = [words for words in asked if words.startswith(project)]
    verbs = [words.removeprefix(project).split()[0] for words in asked]
    assert verbs == ["up", "exec", "exec", "exec", "down"]
    assert "callboard show w-1" in asked[2]
    assert "--volumes" in asked[-1]


@pytest.mark.parametrize("step", ["* up *", "*publish*", "*show*", "*urllib*"])
def test_a_failure_is_one_and_everything_is_removed(tmp_path: Path, step: str) -> None:
    case = step.replace(" ", "\\ ")
    code, said, asked = run(tmp_path, f"{case}) exit 5 ;;")
    assert code == 5
    assert "make docker: failed" in said
    assert any(" logs " in words for words in asked)
    assert " down --volumes" in asked[-1]


def test_it_never_touches_the_records_of_the_developer() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    assert "name: callboard\n" in compose
    assert "--project-name callboard-end-to-end" in SCRIPT.read_text()
