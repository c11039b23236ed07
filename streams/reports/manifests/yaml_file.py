"""Reads YAML the way Kubernetes does, within limits: a manifest may come from a stranger."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES: Final = 5 * 1024 * 1024
MAX_NODES: Final = 500_000
MAX_DEPTH: Final = 100
MAX_DIGITS: Final = 40

Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(Exception):
    """A file is no YAML that Kubernetes would read; the message says what is wrong."""


class TooLargeError(Exception):
    """A file is larger than what is read here."""


def read(path: Path) -> list[Any]:
    """Give the documents of a file, without those that are empty.

    Raises:
        YamlError: If it is no YAML.
        TooLargeError: If it has more than `MAX_FILE_BYTES`.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise TooLargeError(f"larger than {MAX_FILE_BYTES // 1024 // 1024} MiB")
    # JSON is YAML but for tabs between values; within them, JSON has none.
    return parse(content.replace(b"\t", b" ") if path.suffix.lower() == ".json" else content)


def parse(content: bytes) -> list[Any]:
    """Give the documents of a text, without those that are empty.

    Raises:
        YamlError: If it is no YAML.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"not UTF-8: byte {error.start} is 0x{content[error.start]:02x}") from None
    try:
        _check_depth(text)
        return [value for value in yaml.load_all(text, Loader=Loader) if value is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise YamlError(f"{error.problem or error.context or 'no YAML'}{where}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise YamlError(" ".join(str(error).split())) from None


class Loader(Base):  # type: ignore[misc] # which of two classes it is, only the installation knows
    """Makes JSON values: keys are strings, times stay text, and what aliases repeat is counted."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = 0

    def construct_document(self, node: yaml.Node) -> Any:
        """Make the value of one document, unless aliases blow it up."""
        size, depth = _measure(node, {}, set())
        self._nodes += size
        if self._nodes > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES:,} values, with what aliases repeat")
        if depth > MAX_DEPTH + 1:
            raise YamlError(f"nested deeper than {MAX_DEPTH} levels, with what aliases repeat")
        return super().construct_document(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 (theirs)
        """Make an object; a key that is there twice would lose one of its values."""
        del deep
        seen: set[str] = set()
        for key, _ in node.value:
            name = self._key(key)
            if name in seen and key.tag != MERGE:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} twice", key.start_mark)
            seen.add(name)
        self.flatten_mapping(node)
        return {self._key(key): self.construct_object(value, deep=True) for key, value in node.value}

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            said = "a key that is no text (of a template, check what it makes)"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
        return str(node.value)


MERGE: Final = "tag:yaml.org,2002:merge"
INTEGER: Final = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)")
NUMBER: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def _integer(loader: Any, node: Any) -> int:
    text = _text(loader, node)
    if not INTEGER.fullmatch(text) or len(text) > MAX_DIGITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"{text[:MAX_DIGITS]} is no integer", node.start_mark
        )
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        digits = f"0o{digits}"
    return int(sign + digits.replace("_", ""), 0)


def _number(loader: Any, node: Any) -> float:
    text = _text(loader, node)
    value = float(text) if NUMBER.fullmatch(text) and text[-1] in "0123456789." else math.nan
    if not math.isfinite(value):
        raise yaml.constructor.ConstructorError(
            None, None, f"{text[:MAX_DIGITS]} is no number", node.start_mark
        )
    return value


def _text(loader: Any, node: Any) -> str:
    return str(loader.construct_scalar(node))


def _map(loader: Any, node: Any) -> dict[str, Any]:
    made: dict[str, Any] = loader.construct_mapping(node)
    return made


def _list(loader: Any, node: Any) -> list[Any]:
    made: list[Any] = loader.construct_sequence(node, deep=True)
    return made


def _refused(loader: Any, suffix: str, node: yaml.Node) -> None:
    del loader, suffix
    raise yaml.constructor.ConstructorError(
        None, None, f"tag {node.tag!r} is not known here", node.start_mark
    )


def _tagged(by_name: dict[str, Any]) -> dict[str, Any]:
    return {f"tag:yaml.org,2002:{name}": value for name, value in by_name.items()}


# What YAML 1.1 knows beyond JSON (times, 12:30 as a number, sets) is text for Kubernetes, or an error.
Loader.yaml_constructors = _tagged(
    {
        "null": yaml.constructor.SafeConstructor.construct_yaml_null,
        "bool": yaml.constructor.SafeConstructor.construct_yaml_bool,
        "int": _integer,
        "float": _number,
        "str": _text,
        "map": _map,
        "seq": _list,
    }
)
Loader.yaml_multi_constructors = {None: _refused}
KEPT: Final = set(_tagged({"null": 0, "bool": 0, "merge": 0}))
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in KEPT]
    for first, resolvers in Base.yaml_implicit_resolvers.items()
}
for tag, written in (("int", INTEGER), ("float", NUMBER)):
    whole = re.compile(f"(?:{written.pattern})$")
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", whole, list("-+.0123456789"))


def _check_depth(text: str) -> None:
    """Refuse what would exhaust the stack, before anything recursive sees it."""
    depth = 0
    for event in yaml.parse(text, Loader=Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlError(f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _measure(
    node: yaml.Node, known: dict[yaml.Node, tuple[int, int]], above: set[yaml.Node]
) -> tuple[int, int]:
    """Count the values of a node and its levels, with what aliases repeat; each node is looked at once."""
    if node in known:
        return known[node]
    if node in above:
        raise YamlError("an alias that holds itself")
    above.add(node)
    size, depth = 1, 0
    if isinstance(node, yaml.CollectionNode):
        pairs = isinstance(node, yaml.MappingNode)
        for each in [part for pair in node.value for part in pair] if pairs else node.value:
            inner_size, inner_depth = _measure(each, known, above)
            size, depth = size + inner_size, max(depth, inner_depth)
    above.discard(node)
    known[node] = size, depth + 1
    return known[node]
