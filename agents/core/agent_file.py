"""Reads agents that are written as Markdown files with YAML frontmatter, and refuses what it does not know.

The format is that of `.claude/agents/`, whose own reader is lenient: it drops what it cannot understand,
and an agent without `tools` gets all of them. Here a file is a typed definition, or an error that says what
to write instead, so that no agent may do more than its file says. Reads files only; starts nothing, and
resolves no tool.
"""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agents.core.errors import AgentFileError
from agents.core.frontmatter import FrontmatterError, invisible, read

ModelAlias = Literal["haiku", "sonnet", "opus"]
Tool = Literal["Read", "Grep", "Glob", "Edit", "Write", "Bash", "StructuredOutput"]
PermissionMode = Literal["default", "dontAsk", "plan"]
Effort = Literal["low", "medium", "high", "xhigh", "max"]

# What an alias means moves with time; what ran has to be known later, so it is pinned here and nowhere else.
MODEL_IDS: Final[dict[ModelAlias, str]] = {
    "haiku": "claude-haiku-5-5",
    "sonnet": "claude-sonnet-5-5",
    "opus": "claude-opus-5-5",
}

MOST_FILES: Final = 100
MOST_TURNS: Final = 50
LONGEST_DESCRIPTION: Final = 1_000
NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
LONGEST_NAME: Final = 63
LONGEST_SHOWN: Final = 80

MISSING: Final = {
    "name": "write the file's name without `.md`",
    "description": "write when to use the agent, and when not",
    "model": f"write one of {', '.join(get_args(ModelAlias))}; without it the agent would run on any model",
    "tools": "write a YAML list of all it may use; without one it would get every tool there is",
    "maxTurns": f"write how often it may call the model at most, 1 to {MOST_TURNS}",
    "permissionMode": "write `dontAsk`: what is not allowed is denied, since nobody is there to ask",
}
REFUSED: Final = {
    "disallowedTools": "list what it may use in `tools`, and nothing else",
    "hooks": "they run commands of the file's choice, and do not run where the folder is not trusted; what"
    " guards an agent belongs into the settings of whoever runs it",
    "mcpServers": "they start programs of the file's choice; an agent has the tools of `tools` alone",
    "skills": "they bring text and tools that are not in this file; write what it has to know into the body",
    "memory": "it brings Write and Edit, and makes a run depend on earlier ones",
    "isolation": "where an agent works is decided by whoever runs it",
    "background": "how an agent is waited for is decided by whoever runs it",
    "initialPrompt": "what an agent is asked is decided by whoever runs it",
    "color": "it says nothing about what the agent does",
}
REASONS: Final = {
    "maxTurns": "an agent that may go on without an end costs without an end",
    "permissionMode": "any other mode lets an agent do more than its file says, with nobody to ask",
}
REFUSED_TOOLS: Final = {
    "*": "it stands for every tool there is",
    "Agent": "an agent that starts others passes its own limits by",
    "Task": "an agent that starts others passes its own limits by",
    "WebFetch": "its answers come from elsewhere, and cannot be had again for an audit",
    "WebSearch": "its answers come from elsewhere, and cannot be had again for an audit",
}


class AgentDefinition(BaseModel):
    """One agent as its file describes it; every field but `effort` has to be there."""

    model_config = ConfigDict(
        title="agent definition", frozen=True, extra="forbid", strict=True, hide_input_in_errors=True
    )

    name: str = Field(max_length=LONGEST_NAME, description="name of the agent and of its file")
    description: str = Field(max_length=LONGEST_DESCRIPTION, description="when to use it")
    model: ModelAlias = Field(description="which model, by a name that outlives versions")
    tools: tuple[Tool, ...] = Field(description="all it may use; empty: none")
    max_turns: int = Field(alias="maxTurns", ge=1, le=MOST_TURNS, description="most questions to the model")
    permission_mode: PermissionMode = Field(alias="permissionMode", description="what happens unless allowed")
    effort: Effort | None = Field(default=None, description="how hard the model thinks; none: its default")
    body: str = Field(min_length=1, description="what the agent is told about its job")

    @property
    def model_id(self) -> str:
        """The one version of the model that `model` stands for."""
        return MODEL_IDS[self.model]

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("write lower-case letters, digits and single hyphens, a letter first")
        return name

    @field_validator("description")
    @classmethod
    def _can_be_read(cls, description: str) -> str:
        if character := invisible(description):  # YAML's escapes may make one
            raise ValueError(f"it has the invisible character {character}; remove it")
        if not description.strip():
            raise ValueError(MISSING["description"])
        return description.strip()

    @field_validator("model", mode="before")
    @classmethod
    def _is_an_alias(cls, model: Any) -> Any:
        if model == "inherit":
            raise ValueError("an agent that runs by itself inherits no model; write which one it needs")
        if isinstance(model, str) and model not in MODEL_IDS:
            raise ValueError(
                f"write one of {', '.join(MODEL_IDS)}; versions are pinned in one place, not here"
            )
        return model

    @field_validator("tools", mode="before")
    @classmethod
    def _are_known_tools(cls, tools: Any) -> Any:
        if not isinstance(tools, list | tuple):
            raise ValueError(  # noqa: TRY004 (pydantic collects ValueErrors only)
                "write a YAML list, one tool a line; `[]` is none"
            )
        wrong = [problem for tool in tools if (problem := _wrong_tool(tool))]
        wrong += [f"{tool!r} is there twice" for tool in _repeated(tools)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return tuple(tools)


def load_file(path: Path) -> AgentDefinition:
    """Read one agent.

    Args:
        path: The Markdown file; its name without `.md` is the agent's.

    Raises:
        AgentFileError: If it is not an agent as this module wants it; with everything that is wrong.
    """
    try:
        return _definition(path)
    except FrontmatterError as error:
        raise AgentFileError([f"{path}: {problem}" for problem in error.problems]) from None


def load_folder(folder: Path) -> dict[str, AgentDefinition]:
    """Read all agents of a folder and the folders in it; give them by name, in the order of names.

    Args:
        folder: Where the files are; everything in it that ends with `.md` has to be an agent.

    Raises:
        AgentFileError: If any is wrong, none is there or two have one name; with all that is wrong.
    """
    files = sorted(islice(folder.rglob("*.md"), MOST_FILES + 1))
    if not files:
        raise AgentFileError([f"{folder}: there is no agent; write one as NAME.md"])
    if len(files) > MOST_FILES:
        raise AgentFileError([f"{folder}: more than {MOST_FILES} agents; is this the right folder?"])
    problems: list[str] = []
    found: dict[str, AgentDefinition] = {}
    places: dict[str, Path] = {}
    for path in files:
        try:
            definition = load_file(path)
        except AgentFileError as error:
            problems += error.problems
            continue
        if definition.name in found:
            problems.append(
                f"{path}: {places[definition.name]} has the name {definition.name!r}, too; rename one"
            )
        found[definition.name], places[definition.name] = definition, path
    if problems:
        raise AgentFileError(problems)
    return dict(sorted(found.items()))


def _definition(path: Path) -> AgentDefinition:
    fields, body = read(path)
    if "body" in fields:
        raise FrontmatterError("`body` is no field; write the text below the second `---`")
    try:
        definition = AgentDefinition.model_validate(fields | {"body": body})
    except ValidationError as error:
        raise FrontmatterError(*(_told(problem, fields) for problem in error.errors())) from None
    if definition.name != path.stem:
        raise FrontmatterError(f"name: it is {definition.name!r}; write {path.stem!r}, as the file's name is")
    return definition


def _told(problem: Any, fields: dict[str, Any]) -> str:
    """Say one of pydantic's problems as this module's errors are said."""
    name = str(problem["loc"][0])
    if problem["type"] == "missing":
        return f"{name}: it is missing; {MISSING[name]}"
    if problem["type"] == "extra_forbidden" and name in REFUSED:
        return f"{name}: refused; {REFUSED[name]}"
    if problem["type"] == "extra_forbidden":
        return f"{_shown(name)}: refused; no such field is known, only {', '.join([*MISSING, 'effort'])}"
    if name == "body":
        return "there is no text below the frontmatter; write what the agent has to do"
    said = problem["msg"].removeprefix("Value error, ")
    advice = f"; {REASONS[name]}" if name in REASONS else ""
    return f"{name}: {_shown(fields[name])} cannot be taken: {said[0].lower()}{said[1:]}{advice}"


def _wrong_tool(tool: Any) -> str | None:
    if not isinstance(tool, str):
        return f"{_shown(tool)} is no name of a tool; write a text"
    known = ", ".join(get_args(Tool))
    if tool in REFUSED_TOOLS:
        return f"{tool!r} is refused: {REFUSED_TOOLS[tool]}; write some of {known}"
    if "(" in tool:
        return (
            f"{_shown(tool)} is refused: a pattern neither restricts nor allows anything here; write"
            f" {_shown(tool.partition('(')[0].strip())}, and list its commands where they are allowed"
        )
    if tool.startswith("mcp__"):
        return f"{tool!r} is refused: {REFUSED['mcpServers']}"
    return None if tool in get_args(Tool) else f"{_shown(tool)} is not known; write some of {known}"


def _repeated(tools: Sequence[Any]) -> list[Any]:
    return [
        tool
        for number, tool in enumerate(tools)
        if tool in tools[:number] and tool not in tools[number + 1 :]
    ]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
