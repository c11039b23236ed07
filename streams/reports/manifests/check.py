"""The way through a check: find, read, render, compare with schemas, ask the rules, and say what came of it.

The verdict is made here and nowhere else; nothing that a file says has a part in it but as a value.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.file_tree import FileTree
from streams.reports.manifests.kubectl import HINT, ORIGIN, BuildError, NoKubectlError, find_kubectl
from streams.reports.manifests.kustomization import Kustomizations, file_in
from streams.reports.manifests.manifest import Manifest, at, is_object, manifests, pointer, text
from streams.reports.manifests.report import BrokenRule, Counts, Finding, ManifestsReport, NotChecked, Tool
from streams.reports.manifests.rules import BUILD, BY_ID, NO_SCHEMA, OBJECT, RULES, SCHEMA, YAML
from streams.reports.manifests.yaml_file import TooLargeError, YamlError, parse, read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from streams.reports.manifests.kubectl import Kubectl, Rendering
    from streams.reports.manifests.manifest import Pointer
    from streams.reports.manifests.report import Verdict
    from streams.reports.manifests.schema import Schemas

MAX_FINDINGS: Final = 1_000
MAX_MESSAGE: Final = 1_000
RESOURCES: Final = -1  # what resources of kustomizations belong to


def check(
    paths: Sequence[Path],
    *,
    kubernetes: str | None = None,
    skip: Collection[str] = (),
    kubectl: Callable[[], Kubectl] = find_kubectl,
) -> ManifestsReport:
    """Check what is below some paths.

    Args:
        paths: Files and folders that exist.
        kubernetes: The version whose schemas are used, by default the newest there is.
        skip: Ids of rules that are not asked.
        kubectl: Finds what renders overlays.

    Raises:
        ConfigurationError: If there are no schemas of that version of Kubernetes.
    """
    return _Check(FileTree(paths), kubernetes, frozenset(skip)).run(kubectl)


class _Check:
    def __init__(self, tree: FileTree, kubernetes: str | None, skip: frozenset[str]) -> None:
        self._tree = tree
        self._skip = skip
        self._not_checked = list(tree.not_checked)
        self._findings: dict[tuple[Any, ...], Finding] = {}
        self._tools = [Tool(name=name, version=version(name)) for name in ("callboard", "pyyaml")]
        self._files = self._overlays = self._objects = 0
        self._passed_over = list(tree.passed_over)
        self._completed: set[str] = (
            set()
        )  # files whose objects are in a rendering, where nothing may be missing
        self._schemas: Schemas | None = None
        try:
            from streams.reports.manifests.schema import Schemas  # noqa: PLC0415 (an extra: it may be missing)

            self._schemas = Schemas(kubernetes)
            self._tools.extend(self._schemas.tools)
        except ModuleNotFoundError as error:
            self._leave_out("schemas of all kinds", f"the package {error.name} is not installed: {HINT}")

    def run(self, kubectl: Callable[[], Kubectl]) -> ManifestsReport:
        kustomizations = Kustomizations(self._tree.kustomizations)
        wholes = self._read(kustomizations)
        rendered = self._rendered(kustomizations, kubectl)
        everything = [manifest for whole in (*wholes.values(), *rendered) for manifest in whole]
        for manifest in everything:
            if self._schemas and manifest.is_a("apiextensions.k8s.io", "CustomResourceDefinition"):
                self._schemas.learn(manifest)
        self._completed = {manifest.file for whole in rendered for manifest in whole}
        for manifest in everything:
            self._compare(manifest)
        for number, whole in wholes.items():
            if number != RESOURCES:  # those are asked about where they are deployed
                self._ask(whole)
        for whole in rendered:
            self._ask(whole)
        self._objects = len(everything)
        if not (everything or self._findings or self._not_checked):
            self._leave_out(
                "the paths that were given", "there are no objects of Kubernetes in their YAML and JSON files"
            )
        return self._report()

    def _read(self, kustomizations: Kustomizations) -> dict[int, list[Manifest]]:
        """Give the objects in files, by what they belong to."""
        resources, partial = kustomizations.resources, kustomizations.partial
        wholes: dict[int, list[Manifest]] = {}
        for path, number in self._tree.files.items():
            if path in partial:
                continue  # a patch is checked with what it patches
            shown = self._tree.shown(path)
            try:
                documents = read(path)
            except YamlError as error:
                self._find(YAML, shown, None, str(error))
                continue
            except TooLargeError as error:
                self._leave_out(shown, str(error))
                continue
            except OSError as error:
                self._leave_out(shown, f"cannot be read: {error.strerror}")
                continue
            found = [manifest for document in documents for manifest in manifests(document, shown)]
            if found:
                for number_in_file, document in enumerate(documents, start=1):
                    if not is_object(document):
                        said = f"document {number_in_file} of {len(documents)} is no object of Kubernetes"
                        self._find(OBJECT, shown, None, said)
                self._files += 1
                wholes.setdefault(RESOURCES if path in resources else number, []).extend(found)
            else:
                self._passed_over.append(shown)
        return wholes

    def _rendered(self, kustomizations: Kustomizations, find: Callable[[], Kubectl]) -> list[list[Manifest]]:
        """Give the objects of each overlay; what cannot be rendered is said."""
        overlays = kustomizations.overlays
        if kustomizations.left_out:
            self._leave_out(f"{kustomizations.left_out} kustomizations", "too many")
        if not overlays:
            return []
        try:
            kubectl = find()
        except NoKubectlError as error:
            for overlay in overlays:
                self._leave_out(self._tree.shown(overlay), f"not rendered: {error}")
            return []
        self._tools.append(Tool(name="kubectl", version=kubectl.version))
        self._tools.append(Tool(name="kustomize", version=kubectl.kustomize))
        found = []
        for overlay in overlays:
            shown = self._tree.shown(overlay)
            if needs := kustomizations.needs(overlay):
                self._leave_out(shown, f"not rendered: {'; '.join(needs[:5])}")
                continue
            file = self._tree.shown(file_in(overlay) or overlay)
            try:
                rendering = kubectl.render(overlay)
                documents = parse(rendering.content)
            except (BuildError, YamlError) as error:
                self._find(BUILD, file, None, str(error), overlay=shown)
                continue
            self._overlays += 1
            objects = [each for document in documents for each in manifests(document, file)]
            found.append([self._placed(each, rendering, shown) for each in objects])
        return found

    def _placed(self, manifest: Manifest, rendering: Rendering, overlay: str) -> Manifest:
        """Give a rendered object the file that it is from, and take away the annotation that said so."""
        annotations = at(manifest.value, "metadata", "annotations")
        file = manifest.file
        if rendering.root is not None and isinstance(annotations, dict):
            said = parse(text(annotations.pop(ORIGIN, "")).encode())
            if relative := text(at(said, 0, "path")) or text(at(said, 0, "configuredIn")):
                file = self._tree.shown((rendering.root / relative).resolve())
            if not annotations:
                del manifest.value["metadata"]["annotations"]
        return Manifest(manifest.value, file, overlay, manifest.place)

    def _compare(self, manifest: Manifest) -> None:
        """Compare an object with the schema of its kind."""
        missing = [name for name in ("api_version", "kind") if not getattr(manifest, name)]
        if missing or manifest.reference.name == "?":
            names = ["apiVersion" if name == "api_version" else name for name in missing]
            said = ", ".join(names + (["metadata.name"] if manifest.reference.name == "?" else []))
            self._break(OBJECT, manifest, (), f"missing: {said}")
        if missing or self._schemas is None:
            return
        if not self._schemas.knows(manifest):
            known = self._schemas.other_versions(manifest)
            other = f"; there is {', '.join(known)}" if known else ""
            named = f"{manifest.api_version} {manifest.kind}"
            said = f"no schema for {named} (Kubernetes {self._schemas.kubernetes}){other}"
            self._break(NO_SCHEMA, manifest, (), said)
        is_whole = manifest.overlay is not None or manifest.file not in self._completed
        for way, message in self._schemas.errors(manifest, is_whole=is_whole):
            self._break(SCHEMA, manifest, way, message)

    def _ask(self, whole: Sequence[Manifest]) -> None:
        """Ask every rule about objects that are deployed together."""
        for rule in RULES:
            if rule.broken is not None and rule.id not in self._skip:
                for manifest, way, message in rule.broken(whole):
                    self._break(rule.id, manifest, way, message)

    def _break(self, rule: str, manifest: Manifest, way: Pointer, message: str) -> None:
        path = pointer((*manifest.place, *way))
        self._find(rule, manifest.file, manifest, message, path=path, overlay=manifest.overlay)

    def _find(  # noqa: PLR0913 (one per field)
        self,
        rule: str,
        file: str,
        manifest: Manifest | None,
        message: str,
        *,
        path: str = "",
        overlay: str | None = None,
    ) -> None:
        about = manifest.reference if manifest else None
        key = rule, file, about and (about.kind, about.name), path, message
        known = self._findings.get(key)
        if known is None:
            self._findings[key] = Finding(
                rule=rule,
                severity=BY_ID[rule].severity,
                file=file,
                overlays=(overlay,) if overlay else (),
                object=about,
                path=path,
                message=message[:MAX_MESSAGE],
            )
        elif overlay and known.overlays and overlay not in known.overlays:
            # What was said of the file already need not be said of its renderings.
            same = (
                known.object
                if known.object == about
                else about and about.model_copy(update={"namespace": None})
            )
            changed = {"overlays": (*known.overlays, overlay), "object": same}
            self._findings[key] = known.model_copy(update=changed)

    def _leave_out(self, what: str, reason: str) -> None:
        self._not_checked.append(NotChecked(what=what, reason=reason))

    def _report(self) -> ManifestsReport:
        findings = sorted(self._findings.values(), key=lambda found: (found.severity, found.file))
        errors = sum(found.severity == "error" for found in findings)
        verdict: Verdict = "pass"
        if errors:
            verdict = "fail"
        elif self._not_checked:
            verdict = "incomplete"
        return ManifestsReport(
            verdict=verdict,
            kubernetes=self._schemas.kubernetes if self._schemas else None,
            counts=Counts(
                files=self._files,
                overlays=self._overlays,
                objects=self._objects,
                errors=errors,
                warnings=len(findings) - errors,
            ),
            findings=tuple(findings[:MAX_FINDINGS]),
            rules=tuple(
                BrokenRule(id=rule.id, reason=rule.reason, fix=rule.fix)
                for rule in RULES
                if any(finding.rule == rule.id for finding in findings)
            ),
            not_checked=tuple(self._not_checked),
            passed_over=tuple(self._passed_over),
            skipped_rules=tuple(sorted(self._skip)),
            tools=tuple(self._tools),
        )
