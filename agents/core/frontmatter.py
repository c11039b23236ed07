"""Reads Markdown with YAML frontmatter so that it says one thing to every reader, or is refused.

Other readers are lenient: they end frontmatter early, keep the last of repeated keys, and show no invisible
characters. What one of them could take differently is an error here.
"""

import unicodedata
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

MOST_BYTES: Final = 64 * 1024
FENCE: Final = "---"
UNQUOTED: Final = "mapping values are not allowed here"


class FrontmatterError(Exception):
    """A file cannot be taken; `problems` says why, without its name."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems


def read(path: Path) -> tuple[dict[str, Any], str]:
    """Take a file apart into the fields of its frontmatter and its body.

    Raises:
        FrontmatterError: If it cannot be read, or not in one way alone.
    """
    lines = _text(path).split("\n")
    if lines[0].rstrip() != FENCE:
        raise FrontmatterError(f"there is no frontmatter; the first line has to be `{FENCE}`")
    end = next((number for number, line in enumerate(lines[1:], start=1) if line.rstrip() == FENCE), None)
    if end is None:
        raise FrontmatterError(f"the frontmatter has no end; close it with a line `{FENCE}`")
    for number, line in enumerate(lines[1:end], start=2):
        if FENCE in line:
            raise FrontmatterError(
                f"line {number}: `{FENCE}` within the frontmatter; others take it for its end, and what comes"
                " then, such as `tools`, for text: leave it out"
            )
    try:
        fields = yaml.load("\n".join(lines[1:end]), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader, and stricter)
    except yaml.MarkedYAMLError as error:
        # One more than the mark's, which counts from 0, and one for the fence.
        place = f"line {error.problem_mark.line + 2}: " if error.problem_mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        said += "; quote a text that has `: ` in it" if error.problem == UNQUOTED else ""
        raise FrontmatterError(f"{place}the frontmatter is no YAML that can be read: {said}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FrontmatterError(f"the frontmatter is no YAML that can be read: {error}") from None
    if not isinstance(fields, dict):
        raise FrontmatterError("the frontmatter has no fields; write `name: ...` and so on, one a line")
    return {str(name): value for name, value in fields.items()}, "\n".join(lines[end + 1 :]).strip()


def invisible(text: str) -> str | None:
    """Give the first control, formatting or private character: a model reads it, a person does not."""
    for character in text:
        if unicodedata.category(character).startswith("C") and character not in "\t\n":
            return f"U+{ord(character):04X}"
    return None


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise FrontmatterError("it is no file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise FrontmatterError(f"it has more than {MOST_BYTES} bytes; an agent's job is told in fewer")
        text = data.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise FrontmatterError(f"it cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FrontmatterError(f"it is no UTF-8 (byte {error.start}); save it as UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if character := invisible(line):
            raise FrontmatterError(f"line {number} has the invisible character {character}; remove it")
    return text


class _StrictLoader(yaml.SafeLoader):
    """Refuses what lets YAML say something else than it seems to: repeated keys, and references."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                problem="references (`*name`) are not allowed; write the value out",
                problem_mark=self.get_mark(),
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 (its base's)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    problem="merging (`<<`) is not allowed; write the fields out", problem_mark=key.start_mark
                )
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{str(key.value)!r} is there twice; keep one", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
