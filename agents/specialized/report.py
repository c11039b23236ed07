"""Turns facts into Markdown that reads well in a terminal and on GitHub; reads and asks nothing.

All that comes out of a repository stands in code spans, so that it cannot become markup.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from agents.specialized.facts import (
    NO_JUDGEMENT,
    SEVERITIES,
    Coverage,
    Finding,
    Patch,
    Review,
    Suite,
    clean,
)

MOST_ROWS = 40
MOST_LOW = 10
FEW = 3


@dataclass(frozen=True, slots=True)
class Story:
    """All that a report is made of; what is missing was not done."""

    goal: str
    repository: str
    commit: str
    files: int
    python_files: int
    patched: bool
    patch: Patch | None
    review: Review | None
    suite: Suite | None
    coverage: Coverage


def headline(story: Story) -> str:
    """Say how it went, in one line."""
    return clean("; ".join(f"{what}: {result}" for what, result in _results(story)), 500)


def markdown(story: Story, judgement: str = NO_JUDGEMENT) -> str:
    """Write the report.

    Args:
        story: The facts.
        judgement: The model's closing words, if there is a model.
    """
    sections: tuple[Callable[[Story], Iterable[str]], ...] = (_looked_at, _patch, _findings, _tests, _api)
    lines = [
        f"# Report on {code(story.repository)}",
        "",
        f"**Goal:** {code(story.goal) if story.goal else 'none was given'}",
        "",
        "| what | outcome |",
        "|---|---|",
        *(f"| **{what}** | {result} |" for what, result in _results(story)),
    ]
    if judgement != NO_JUDGEMENT:
        lines += ["", *_quoted(judgement)]
    for section in sections:
        lines += ["", *section(story)]
    lines += ["", "## Suggested changelog entry", "", changelog(story)]
    lines += ["", "## What was not done", "", *(f"- {text}" for text in _not_done(story, judgement))]
    lines += ["", "## Next steps", ""]
    lines += [f"{number}. {step}" for number, step in enumerate(_next_steps(story), 1)]
    return "\n".join(lines) + "\n"


def changelog(story: Story) -> str:
    """Draft a changelog entry, in the words of keepachangelog.com."""
    patch = story.patch
    if patch is None or not patch.changed:
        return "*Nothing changed, so there is nothing to tell.*"
    files = _count(len(patch.changed) + patch.changed_left_out, "file")
    rules = ", ".join(code(rule) for rule in sorted(patch.fixes)[:MOST_LOW])
    more = ", and more" if len(patch.fixes) > MOST_LOW else ""
    lines = ["### Changed", "", f"- Cleaned up {files} without a change in behaviour ({rules}{more})."]
    if not patch.fixes:
        lines[-1] = f"- Changed {files}."
    if story.suite and story.suite.fixed:
        lines += ["", "### Fixed", ""]
        lines += [f"- What {code(test)} tests." for test in story.suite.fixed[:MOST_LOW]]
    return "\n".join(lines)


def code(text: str) -> str:
    """Put text of unknown origin into a code span that it cannot end."""
    shown = clean(text) or " "
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _results(story: Story) -> Iterator[tuple[str, str]]:
    if story.patch:
        yield "Patch", story.patch.summary
    elif story.patched:
        yield "Patch", "one came with the task"
    if story.review:
        found = ", ".join(f"{story.review.counts.get(severity, 0)} {severity}" for severity in SEVERITIES)
        yield "Review", f"{story.review.verdict.replace('_', ' ')} ({found})"
    if story.suite:
        yield "Tests", _tests_in_short(story.suite)
    missing = story.coverage.public - story.coverage.documented
    yield "Documentation", f"{story.coverage.percent:g} % of the public API, {missing} without a docstring"


def _tests_in_short(suite: Suite) -> str:
    counts = [
        f"{number} {what}"
        for number, what in (
            (suite.passed, "passed"),
            (suite.failed, "failed"),
            (suite.errors, "with errors"),
            (suite.skipped, "skipped"),
        )
        if number
    ]
    known = f" ({len(suite.still_failing)} failed before the patch too)" if suite.still_failing else ""
    return ", ".join(counts) + known if counts else suite.problem or "there are none"


def _looked_at(story: Story) -> Iterator[str]:
    yield "## What was looked at"
    yield ""
    yield (
        f"{code(story.repository)} at commit {code(story.commit[:12])}: {_count(story.files, 'file')},"
        f" {story.python_files} of them Python."
    )
    research = story.patch.research if story.patch else None
    if research is None:
        return
    yield ""
    yield f"- {research.repository.lines} lines of text, {_count(research.tests, 'test file')}"
    if research.repository.packages:
        yield f"- packages: {_codes(research.repository.packages)}"
    if research.repository.entry_points:
        yield f"- entry points: {_codes(research.repository.entry_points)}"
    if research.files:
        yield f"- files that matter most: {_codes(research.files[:FEW])}"
    for note in research.notes:
        yield f"- {code(note)}"
    if research.judgement != NO_JUDGEMENT:
        yield ""
        yield from _quoted(research.judgement)


def _patch(story: Story) -> Iterator[str]:
    yield "## The patch"
    yield ""
    patch = story.patch
    if patch is None:
        yield "There is no report of one."
        return
    if not patch.changed:
        yield f"It is empty: {patch.summary}. Rules: {patch.rules}."
    else:
        yield f"The artifact {code(patch.artifact or 'patch')}: {patch.summary}. Rules: {patch.rules}."
        yield ""
        yield "| file | + | - |"
        yield "|---|---:|---:|"
        for file in patch.changed[:MOST_ROWS]:
            path = code(file.path).replace("|", "\\|")
            yield f"| {path} | {_number(file.insertions)} | {_number(file.deletions)} |"
        if len(patch.changed) > MOST_ROWS or patch.changed_left_out:
            yield f"| and {len(patch.changed) - MOST_ROWS + patch.changed_left_out} more | | |"
    if patch.fixes:
        yield ""
        yield "Fixed: " + ", ".join(
            f"{count} x {code(rule)}" for rule, count in list(patch.fixes.items())[:MOST_ROWS]
        )
    if patch.judgement != NO_JUDGEMENT:
        yield ""
        yield from _quoted(patch.judgement)


def _findings(story: Story) -> Iterator[str]:
    yield "## Findings"
    yield ""
    review = story.review
    if review is None:
        yield "There is no report of a review."
        return
    yield f"**{review.verdict.replace('_', ' ').capitalize()}**: {review.verdict_rule}."
    yield f"Reviewed: {_count(len(review.reviewed), 'file')} ({review.scope})."
    for severity in SEVERITIES:
        found = [finding for finding in review.findings if finding.severity == severity]
        if found:
            yield ""
            yield f"### {severity.capitalize()} ({review.counts.get(severity, len(found))})"
            yield ""
            yield from _listed(found, MOST_LOW if severity == "low" else MOST_ROWS)
    if review.judgement != NO_JUDGEMENT:
        yield ""
        yield from _quoted(review.judgement)


def _listed(found: list[Finding], most: int) -> Iterator[str]:
    for finding in found[:most]:
        changed = ", on a changed line" if finding.on_changed_line else ""
        place = code(f"{finding.path}:{finding.line}")
        yield f"- {place} {finding.tool} {code(finding.rule)}{changed}: {code(finding.message)}"
    rest = Counter(finding.rule for finding in found[most:])
    if rest:
        yield "- and: " + ", ".join(f"{count} x {code(rule)}" for rule, count in rest.most_common(MOST_ROWS))


def _tests(story: Story) -> Iterator[str]:
    yield "## Tests"
    yield ""
    suite = story.suite
    if suite is None:
        yield "There is no report of a test run."
        return
    network = "without a network" if suite.network == "cut" else "with the network: it could not be cut here"
    yield f"**{suite.verdict.replace('_', ' ').capitalize()}**: {_tests_in_short(suite)}; run {network}."
    if suite.problem:
        yield ""
        yield f"Not the whole story: {code(suite.problem)}"
    if suite.failures:
        yield ""
    for failure in suite.failures[:MOST_ROWS]:
        place = (
            code(f"{failure.file}:{failure.line}" if failure.line else failure.file) if failure.file else ""
        )
        yield f"- {code(failure.test)} {place}{_blame(suite, failure.test)}: {code(failure.message)}"
    if suite.fixed:
        yield ""
        yield f"Fixed by the patch: {_codes(suite.fixed)}"
    if suite.left_running:
        yield ""
        left = _count(suite.left_running, "process", "processes")
        yield f"The tests left {left} running, which were ended."
    if suite.judgement != NO_JUDGEMENT:
        yield ""
        yield from _quoted(suite.judgement)


def _blame(suite: Suite, test: str) -> str:
    if test in suite.newly_failing:
        return " **newly failing with the patch**"
    return " (failed before the patch too)" if test in suite.still_failing else ""


def _api(story: Story) -> Iterator[str]:
    coverage = story.coverage
    yield "## Public API without docstrings"
    yield ""
    if not coverage.missing:
        yield "None."
        return
    yield f"{coverage.public - coverage.documented} of {coverage.public}:"
    yield ""
    for entry in coverage.missing[:MOST_ROWS]:
        yield f"- {code(f'{entry.path}:{entry.line}')} {entry.what} {code(entry.name)}"
    left = len(coverage.missing) - MOST_ROWS + coverage.missing_left_out
    if left > 0:
        yield f"- and {left} more"


def _not_done(story: Story, judgement: str) -> Iterator[str]:
    if judgement == NO_JUDGEMENT:
        yield "No language model was asked: this is evidence without judgement; only safe fixes were made."
    if story.suite is None:
        yield "No tests were run."
    if story.review is None:
        yield "Nothing was reviewed."
    research = story.patch.research if story.patch else None
    for left in research.left_out if research else ():
        yield f"{_count(left.count, 'file')} not read ({left.why}): {_codes(left.examples)}"
    for fact in (story.patch, story.review, story.suite):
        for note in fact.notes if fact else ():
            yield code(note)
    if story.patch and story.patch.remaining:
        yield f"{_count(story.patch.remaining, 'finding')} of the linter cannot be fixed safely by a tool."


def _next_steps(story: Story) -> Iterator[str]:
    suite, review, patch = story.suite, story.review, story.patch
    if suite and suite.newly_failing:
        yield f"Do not apply the patch as it is: it breaks {_codes(suite.newly_failing)}."
    elif patch and patch.changed:
        yield f"Read and apply the patch: `git apply {patch.artifact or 'patch'}`."
    if suite and suite.problem:
        yield f"Make the tests run to their end: {code(suite.problem)}."
    for test in suite.still_failing[:FEW] if suite else ():
        yield f"Repair what {code(test)} tests; it failed before the patch too."
    if suite and suite.failures and not suite.patched:
        yield f"Repair what {_codes([failure.test for failure in suite.failures[:FEW]])} test."
    for finding in (
        [finding for finding in review.findings if finding.severity == "high"][:FEW] if review else ()
    ):
        yield f"Look at {code(f'{finding.path}:{finding.line}')}: {code(finding.message)}"
    for finding in (
        [finding for finding in review.findings if finding.tool == "radon"][:FEW] if review else ()
    ):
        yield f"Take {code(f'{finding.path}:{finding.line}')} apart: {code(finding.message)}."
    if story.coverage.missing:
        yield f"Write {_count(story.coverage.public - story.coverage.documented, 'docstring')}."
    if suite and suite.verdict == "no_tests":
        yield "Write a first test: there is none."


def _quoted(text: str) -> Iterator[str]:
    """Quote a model's words, so that they cannot pass for the report's own."""
    yield "> **The model's judgement**"
    yield ">"
    for line in text.splitlines():
        yield f"> {line}".rstrip()


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(code(text) for text in texts)


def _count(number: int, what: str, several: str = "") -> str:
    return f"{number} {what if number == 1 else several or what + 's'}"


def _number(value: int | None) -> str:
    return "binary" if value is None else str(value)
