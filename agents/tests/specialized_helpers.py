"""What the tests of the shipped agents share: tasks without Kafka, and repositories made on the spot."""

import asyncio
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from agents.core import Agent, AgentConfig, AgentResult, AgentStatus, Artifact, Task
from agents.core.errors import ArtifactError
from agents.core.llm import LLMReply, ReplyDetails
from agents.core.task import ArtifactReference, RepositoryReference, Root, set_current_task

SAMPLE = Path(__file__).parents[2] / "examples" / "sample_shop"
OFF = AgentConfig(llm="off")
GOAL = "make the tests pass and clean up"


class MemoryStore:
    """Keeps artifacts in memory, by digest."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def put(self, name: str, content: bytes) -> ArtifactReference:
        digest = hashlib.sha256(content).hexdigest()
        self.contents[digest] = content
        return ArtifactReference(
            name=name, sha256=digest, size=len(content), topic="artifacts.test", partition=0, offset=0
        )

    async def read(self, reference: ArtifactReference) -> bytes:
        if reference.sha256 not in self.contents:
            raise ArtifactError(f"artifact {reference.name!r} is gone")
        return self.contents[reference.sha256]


class World:
    """One workflow: its repository, and the artifacts so far."""

    def __init__(
        self, repository: RepositoryReference | None, content: bytes | None = None, root_input: Any = None
    ) -> None:
        self.store = MemoryStore()
        self.repository = repository
        self.root_input = root_input
        self.artifacts: dict[str, ArtifactReference] = {}
        if content is not None:
            self.add("repository", content)

    def add(self, name: str, content: bytes) -> None:
        self.artifacts[name] = self.store.put(name, content)

    async def content(self, name: str) -> bytes:
        return await self.store.read(self.artifacts[name])

    async def run(self, agent: Agent[Any, Any], given: Any) -> AgentResult[Any]:
        """Run an agent as the runtime does, and keep its artifacts for the next one."""
        task = Task(
            id="test",
            agent=agent.name,
            run_id="0" * 64,
            workflow_id="test",
            input=given,
            root=Root(agent=agent.name, id="test", input=self.root_input, repository=self.repository),
            events=(),
            artifacts=dict(self.artifacts),
            deadline=None,
            store=self.store,
        )
        context = copy_context()
        context.run(set_current_task, task)
        result = await asyncio.get_running_loop().create_task(agent.execute(given), context=context)
        artifact: Artifact
        for artifact in result.artifacts:
            self.add(artifact.name, artifact.content)
        return result

    async def output(self, agent: Agent[Any, Any], given: Any) -> dict[str, Any]:
        """Run an agent that must complete, and give what it tells the next one."""
        result = await self.run(agent, given)
        assert result.status is AgentStatus.COMPLETED
        assert isinstance(result.output, dict)
        assert len(orjson.dumps(result.output)) < 200_000
        return result.output


class Repository:
    """A git repository in a temporary folder."""

    def __init__(self, folder: Path, files: Mapping[str, str | bytes] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main", "--template=")
        if files:
            self.commit(files)

    def git(self, *arguments: str, given: bytes | None = None) -> str:
        people = {
            f"GIT_{who}_{what}": "test@localhost"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        done = subprocess.run(  # noqa: S603 (the tests' own arguments)
            ["git", *arguments],  # noqa: S607 (whichever git is there)
            cwd=self.folder,
            env={**os.environ, **people, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
            input=given,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    def commit(self, files: Mapping[str, str | bytes]) -> str:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--message", "test")
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


class ScriptedModel:
    """A model that gives prepared answers and keeps the questions."""

    asks = True

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    async def ask(
        self, prompt: str, *, system: str | None, model: str, max_tokens: int, **_: object
    ) -> LLMReply:
        assert system
        self.questions.append(prompt)
        details = ReplyDetails(model=model, stop_reason="end_turn", input_tokens=max_tokens, output_tokens=1)
        return LLMReply(self.answers.pop(0), details)


@contextmanager
def answered(*answers: str) -> Iterator[ScriptedModel]:
    """Let a scripted model answer whatever agents ask."""
    model = ScriptedModel(*answers)
    with patch.object(Agent, "llm", new=model):
        yield model
