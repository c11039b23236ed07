"""The schemas of other projects' resources that come with us, and how they are derived again.

Each file in `crds/` says which repository, commit, file and license it is from. To derive them from clones of
these repositories:

    python -m streams.reports.manifests.vendored kedacore/keda=CLONE argoproj/argo-cd=CLONE ...
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from streams.reports.manifests.crd import schemas_of
from streams.reports.manifests.yaml_file import parse

FOLDER: Final = Path(__file__).parent / "crds"
CHANGES: Final = "closed for unknown fields; without descriptions, defaults, formats, CEL, status"


@dataclass(frozen=True, slots=True)
class Source:
    """Where definitions are from.

    Args:
        repository: On GitHub.
        release: The tag.
        commit: What the tag was when the schemas were derived.
        files: Files with CustomResourceDefinitions.
        license: Of these files.
        notice: What the license asks to be passed on.
    """

    repository: str
    release: str
    commit: str
    files: tuple[str, ...]
    license: str = "Apache-2.0"
    notice: str = ""


SOURCES: Final = (
    Source(
        "kedacore/keda",
        "v2.20.2",
        "68a5b5028f35b22d50597c69819ab32c4e92f21a",
        (
            "config/crd/bases/keda.sh_scaledobjects.yaml",
            "config/crd/bases/keda.sh_triggerauthentications.yaml",
        ),
    ),
    Source(
        "argoproj/argo-cd",
        "v3.5.1",
        "109ca7ca71139e514114499d294a492e7910a965",
        ("manifests/crds/application-crd.yaml", "manifests/crds/appproject-crd.yaml"),
    ),
    Source(
        "strimzi/strimzi-kafka-operator",
        "1.2.0",
        "6c7b43c4af0db547c10463ba09d1dfa6f5e156a0",
        ("install/cluster-operator/043-Crd-kafkatopic.yaml",),
    ),
    Source(
        "prometheus-operator/prometheus-operator",
        "v0.93.0",
        "f8fafd475f3d132e239432ae6172de60a6cb6516",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        ),
        notice="CoreOS Project, Copyright 2015 CoreOS, Inc. This product includes software developed at"
        " CoreOS, Inc. (http://www.coreos.com/).",
    ),
)


@cache
def vendored() -> dict[tuple[str, str], dict[str, Any]]:
    """Give each schema by (apiVersion, kind)."""
    found = {}
    for file in sorted(FOLDER.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        found[content["apiVersion"], content["kind"]] = content["schema"]
    return found


def derived(source: Source, clone: Path) -> dict[str, str]:
    """Give the text of each file that is derived from a source, by its name."""
    made = {}
    for file in source.files:
        content = subprocess.run(  # noqa: S603 (an argument list; what is in the table above)
            ["git", "-C", str(clone), "show", f"{source.commit}:{file}"],  # noqa: S607 (git is on the PATH)
            capture_output=True,
            check=True,
        ).stdout
        for definition in parse(content):
            for version, kind, schema in schemas_of(definition, patterns=True):
                head = {
                    "apiVersion": version,
                    "kind": kind,
                    "derived_from": f"https://github.com/{source.repository}/blob/{source.commit}/{file}",
                    "release": source.release,
                    "license": source.license,
                    "changes": CHANGES,
                }
                if source.notice:
                    head["notice"] = source.notice
                name = f"{kind}.{version.replace('/', '.')}.json".lower()
                made[name] = json.dumps(head | {"schema": schema}, indent=None, separators=(",", ":")) + "\n"
    return made


def main() -> int:
    """Derive the schemas of the sources whose clones are given."""
    parser = argparse.ArgumentParser(prog="python -m streams.reports.manifests.vendored", description=__doc__)
    parser.add_argument("clones", nargs="+", metavar="REPOSITORY=CLONE")
    clones = dict(each.partition("=")[::2] for each in parser.parse_args().clones)
    if unknown := set(clones) - {source.repository for source in SOURCES}:
        parser.error(f"not in the table of sources: {', '.join(sorted(unknown))}")
    for source in SOURCES:
        if source.repository in clones:
            for name, content in derived(source, Path(clones[source.repository])).items():
                (FOLDER / name).write_text(content, encoding="utf-8")
                sys.stderr.write(f"{name}: {len(content):,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
