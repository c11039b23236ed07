"""What the rules of causes look at, and how they point at it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from streams.reports.argocd.application import (
    Application,
    OperationState,
    ResourceResult,
    ResourceState,
    Status,
)
from streams.reports.argocd.judgement import ENDED, Question
from streams.reports.argocd.report import Confidence, Evidence
from streams.reports.argocd.revision import is_commit

SHORT = 300


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule looks at.

    Attributes:
        application: What was read.
        question: What was asked.
        since: Since when a change could have been picked up: the push, or the beginning of waiting.
        pods: What is wrong with its pods.
    """

    application: Application
    question: Question
    since: datetime
    pods: tuple[Evidence, ...] = ()

    @property
    def status(self) -> Status:
        """The application's status; empty for one that was just created."""
        return self.application.status or Status()

    @property
    def is_expected(self) -> bool:
        """Whether Argo CD compared with the expected commit."""
        return self.question.expected.among(self.status.sync.all)

    @property
    def operation(self) -> OperationState | None:
        """The operation, unless it ended and was for another commit: then it explains nothing of this one."""
        state = self.status.operation_state
        if state is None or state.phase not in ENDED:
            return state
        commits = [revision for revision in state.revisions if is_commit(revision)]
        return None if commits and not self.question.expected.among(commits) else state

    @property
    def has_synced(self) -> bool:
        """Whether the last operation was for the expected commit, and succeeded."""
        state = self.status.operation_state
        if state is None or state.phase != "Succeeded" or self.application.operation is not None:
            return False
        return self.question.expected.among(state.revisions)


Found = tuple[Confidence, list[Evidence]] | None


def or_none(confidence: Confidence, evidence: Iterable[Evidence]) -> Found:
    """Say that a rule fits if there is evidence."""
    found = list(evidence)
    return (confidence, found) if found else None


def evidence(path: str, value: str) -> Evidence:
    """Point at something; long texts are cut."""
    return Evidence(path=path, value=value if len(value) <= SHORT else value[:SHORT] + "…")


def named(resource: ResourceState) -> str:
    """Name a resource for people."""
    return "/".join(part for part in (resource.kind, resource.namespace, resource.name) if part)


def conditions(case: Case, *types: str) -> Iterator[Evidence]:
    """Give the conditions of some types."""
    for index, condition in enumerate(case.status.conditions):
        if condition.type in types:
            yield evidence(f"status.conditions[{index}]", f"{condition.type}: {condition.message}")


def out_of_sync(case: Case) -> Iterator[tuple[int, ResourceState]]:
    """Give the resources that differ from Git."""
    for index, resource in enumerate(case.status.resources):
        if resource.status == "OutOfSync":
            yield index, resource


def left_over(case: Case) -> list[tuple[int, ResourceState]]:
    """Give the resources that are in the cluster but no longer in Git."""
    # What an earlier operation left over is still there.
    state = case.status.operation_state
    done = state.sync_result.resources if state is not None else ()
    skipped = {_key(result) for result in done if result.status == "PruneSkipped"}
    return [
        (index, resource)
        for index, resource in out_of_sync(case)
        if resource.requires_pruning or _key(resource) in skipped
    ]


def results(case: Case) -> tuple[ResourceResult, ...]:
    """Give what the operation did with each resource."""
    return case.operation.sync_result.resources if case.operation is not None else ()


def _key(one: ResourceState | ResourceResult) -> tuple[str, str, str, str]:
    return one.group, one.kind, one.namespace, one.name


def health_of(case: Case, kind: str, health: str) -> Iterator[Evidence]:
    """Give the resources of a kind with that health."""
    for index, resource in enumerate(case.status.resources):
        if resource.kind == kind and resource.health is not None and resource.health.status == health:
            text = f"{named(resource)} {health}: {resource.health.message}"
            yield evidence(f"status.resources[{index}].health", text)


def messages_with(case: Case, pattern: re.Pattern[str]) -> Iterator[Evidence]:
    """Give the messages that fit a pattern."""
    for path, text in _messages(case):
        if match := pattern.search(text):
            # What fits may stand far behind; show it, with what is before it.
            begin = max(0, match.end() - SHORT // 2)
            yield evidence(path, text[begin:])


def _messages(case: Case) -> Iterator[tuple[str, str]]:
    """Give every message of the Application, the most special first."""
    status = case.status
    yield from ((clue.path, clue.value) for clue in case.pods)
    for index, resource in enumerate(status.resources):
        if resource.health is not None and resource.health.message:
            yield f"status.resources[{index}].health.message", f"{named(resource)}: {resource.health.message}"
    for index, result in enumerate(results(case)):
        if result.message:
            path = f"status.operationState.syncResult.resources[{index}].message"
            yield path, f"{result.kind}/{result.name}: {result.message}"
    if case.operation is not None and case.operation.message:
        yield "status.operationState.message", case.operation.message
    for index, condition in enumerate(status.conditions):
        # A SyncError is about the commit that was compared last.
        if condition.type != "SyncError" or case.is_expected:
            yield f"status.conditions[{index}].message", condition.message
    if status.health.message:
        yield "status.health.message", status.health.message
