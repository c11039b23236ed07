"""What rules ask of objects that run pods: their containers, environment, and which agents they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from streams.reports.manifests.manifest import Manifest, Pointer, at, objects, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEMPLATE: Final[Pointer] = ("spec", "template")
# Where the pod's metadata and spec are, by (group, kind).
PODS: Final[dict[tuple[str, str], Pointer]] = {
    ("", "Pod"): (),
    ("", "ReplicationController"): TEMPLATE,
    ("apps", "Deployment"): TEMPLATE,
    ("apps", "StatefulSet"): TEMPLATE,
    ("apps", "DaemonSet"): TEMPLATE,
    ("apps", "ReplicaSet"): TEMPLATE,
    ("batch", "Job"): TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
ENDING: Final = {"Job", "CronJob"}
APP: Final = "callboard.dev/app"
AGENT: Final = "callboard.dev/agent"
INPUTS: Final = "callboard.dev/inputs"
DEADLINE: Final = "callboard.dev/deadline-seconds"
SETTINGS: Final = "CALLBOARD_"


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod, and where it is in the object."""

    value: dict[str, Any]
    way: Pointer
    is_initial: bool

    @property
    def name(self) -> str:
        """Its name, for messages."""
        return text(self.value.get("name")) or "?"


@dataclass(frozen=True, slots=True)
class Workload:
    """An object that runs pods."""

    manifest: Manifest
    template: Pointer

    @property
    def spec_way(self) -> Pointer:
        """Where the pod's spec is."""
        return (*self.template, "spec")

    @property
    def spec(self) -> dict[str, Any]:
        """The pod's spec."""
        found = at(self.manifest.value, *self.spec_way)
        return found if isinstance(found, dict) else {}

    @property
    def is_ending(self) -> bool:
        """Say whether its pods are done some time."""
        is_kind = self.manifest.kind in ENDING
        return is_kind or (
            self.manifest.kind == "Pod" and text(self.spec.get("restartPolicy")) in {"Never", "OnFailure"}
        )

    @property
    def labels(self) -> dict[str, Any]:
        """The labels of its pods."""
        found = at(self.manifest.value, *self.template, "metadata", "labels")
        return found if isinstance(found, dict) else {}

    @property
    def containers(self) -> list[Container]:
        """All containers, those that run before the others too."""
        return [
            Container(value, (*self.template, *way), key == "initContainers")
            for key in ("initContainers", "containers")
            for way, value in objects(at(self.manifest.value, *self.template), "spec", key)
        ]

    def annotation(self, name: str) -> str:
        """Give an annotation of the object, or of its pods."""
        of_pods = at(self.manifest.value, *self.template, "metadata", "annotations", name)
        return text(at(self.manifest.value, "metadata", "annotations", name)) or text(of_pods)

    def names(self, annotation: str) -> list[str]:
        """Give the names in an annotation, which commas separate."""
        return [name.strip() for name in self.annotation(annotation).split(",") if name.strip()]

    def setting(self, name: str, maps: Iterable[Manifest]) -> str | None:
        """Give what a setting of Callboard has in it: from the environment, or from a ConfigMap at hand."""
        data = self._data(maps)
        for container in self.containers:
            found: Any = None
            for _, source in objects(container.value, "envFrom"):
                prefix = text(source.get("prefix"))
                if name.startswith(prefix):
                    of_map = at(data, text(at(source, "configMapRef", "name")), name.removeprefix(prefix))
                    found = of_map if of_map is not None else found
            for _, variable in objects(container.value, "env"):
                if variable.get("name") == name:
                    reference = at(variable, "valueFrom", "configMapKeyRef")
                    of_map = at(data, text(at(reference, "name")), text(at(reference, "key")))
                    found = variable.get("value", of_map)
            if isinstance(found, str):
                return found
        return None

    def runs_agents(self, maps: Iterable[Manifest]) -> bool:
        """Say whether Callboard runs in it: by its annotations, its command or its settings."""
        if any(self.annotation(name) for name in (APP, AGENT, INPUTS, DEADLINE)):
            return True
        data = self._data(maps)
        for container in self.containers:
            words = [*_list(container.value.get("command")), *_list(container.value.get("args"))]
            names = [text(each.get("name")) for _, each in objects(container.value, "env")]
            for _, source in objects(container.value, "envFrom"):
                names += data.get(text(at(source, "configMapRef", "name")), ())
            if "callboard" in words or any(name.startswith(SETTINGS) for name in names):
                return True
        return False

    def _data(self, maps: Iterable[Manifest]) -> dict[str, dict[str, Any]]:
        """Give what is in each ConfigMap at hand."""
        return {
            each.name: found
            for each in maps
            if each.is_a("", "ConfigMap")
            and each.namespace == self.manifest.namespace
            and isinstance(found := at(each.value, "data"), dict)
        }


def workloads(manifests: Iterable[Manifest]) -> Iterator[Workload]:
    """Give those that run pods."""
    for manifest in manifests:
        template = PODS.get((manifest.group, manifest.kind))
        if template is None and objects(manifest.value, *TEMPLATE, "spec", "containers"):
            template = TEMPLATE  # of a kind that is not Kubernetes' own
        if template is not None:
            yield Workload(manifest, template)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
