"""Reads the JUnit reports that pytest writes, as files that whoever ran beside the tests may have written.

Bounded, and refused as soon as a document type is declared, before any entity can be; expat on its own loads
nothing from outside. It does not judge: what a test's outcome means is for who asked for the run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.parsers import expat

TEXT_LIMIT = 64 * 1024
"""Characters kept of what a test case says."""

MOST_DIGITS = 10

Kind = Literal["passed", "failure", "error", "skipped", "unfinished"]
KINDS: dict[str, Kind] = {"failure": "failure", "error": "error", "skipped": "skipped"}


@dataclass(slots=True)
class Case:
    """One `testcase` element.

    Attributes:
        place: Its `classname`, a module and classes with dots between them.
        file: Where it is, in the family xunit1; else empty.
        line: The same, counted from 1.
        kind: A test that failed and then broke its tear-down is one failed test.
        skip: The `type` of a skip: `pytest.skip` or `pytest.xfail`.
        problems: How often it says that something failed; tests with subtests do so several times.
    """

    name: str
    place: str
    file: str
    line: int | None
    kind: Kind = "passed"
    skip: str = ""
    message: str = ""
    text: str = ""
    problems: int = 0

    @property
    def node_id(self) -> str:
        """Name the test the way pytest does on its command line, as far as the report has it."""
        place = self.place
        if self.file:
            module = self.file.removesuffix(".py").replace("/", ".")
            place = "::".join([self.file, *filter(None, place.removeprefix(module).split("."))])
        return "::".join(filter(None, (place, self.name)))


class JUnitError(Exception):
    """A report cannot be used; the message continues a sentence about the run it is of."""


def read_cases(report: Path, limit: int) -> list[Case]:
    """Read a report of at most `limit` bytes.

    Raises:
        JUnitError: If it is missing, too large, or not what pytest writes.
    """
    try:
        if report.is_symlink() or report.stat().st_size > limit:
            raise JUnitError("its report is too large to be read")
        content = report.read_bytes()
    except OSError:
        raise JUnitError("it ended without a report") from None
    reader = _Reader()
    try:
        reader.parser.Parse(content, True)  # noqa: FBT003 (expat takes no keyword: this is all of it)
    except (expat.ExpatError, _DocumentTypeError) as error:
        raise JUnitError(f"its report cannot be read: {error}") from None
    # pytest lists a test that was interrupted, but does not count it.
    if reader.cases and len(reader.cases) > reader.counted and reader.cases[-1].kind == "passed":
        reader.cases[-1].kind = "unfinished"
    return reader.cases


class _DocumentTypeError(Exception):
    """The report declares what pytest never does."""


class _Reader:
    """Collects the test cases."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.counted = 0
        self.inside = False
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self.refuse
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text

    def refuse(self, *_: Any) -> None:
        raise _DocumentTypeError("it declares a document type")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "testsuite":
            self.counted += _number(attributes.get("tests", "")) or 0
        elif tag == "testcase":
            line = _number(attributes.get("line", ""))  # counted from 0
            self.cases.append(
                Case(
                    name=attributes.get("name", ""),
                    place=attributes.get("classname", ""),
                    file=attributes.get("file", ""),
                    line=None if line is None else line + 1,
                )
            )
        elif self.cases and (kind := KINDS.get(tag)):
            self.inside = True
            case = self.cases[-1]
            case.problems += kind != "skipped"
            if case.kind in {"passed", "skipped"}:
                case.kind = kind
                case.skip = attributes.get("type", "")
            case.message = case.message or attributes.get("message", "")

    def end(self, tag: str) -> None:
        if tag in KINDS:
            self.inside = False

    def text(self, text: str) -> None:
        if self.inside and len(self.cases[-1].text) < TEXT_LIMIT:
            self.cases[-1].text += text[:TEXT_LIMIT]


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < MOST_DIGITS else None
