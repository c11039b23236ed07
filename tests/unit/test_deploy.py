"""What Kubernetes is told agrees with the application: overlays are rendered and compared with the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import certifi
import pytest
import typer.main
import yaml

from agents.core import Workflow, llm
from streams import AgentApp
from streams.command_line import program
from streams.kafka.subscriber import rebalance_timeout_ms
from streams.reports.manifests.check import check
from streams.reports.manifests.kubectl import find_kubectl
from streams.settings import Settings
from streams.supervisor import STOP_MARGIN_SECONDS

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
README = (ROOT / "deploy/README.md").read_text()
SECRETS = "/run/secrets/kafka"
KEDA_MECHANISMS = {"SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512", "PLAIN": "plaintext"}
CUSTOM = {"keda.sh", "kafka.strimzi.io", "monitoring.coreos.com", "argoproj.io"}  # come with operators

Object = dict[str, Any]
every_overlay = pytest.mark.parametrize("overlay", ["dev", "production"])


@cache
def rendered(folder: str) -> list[Object]:
    """Give all objects of a folder under deploy/."""
    told = subprocess.run(
        [find_kubectl().program, "kustomize", ROOT / "deploy" / folder], check=True, capture_output=True
    )
    return list(yaml.safe_load_all(told.stdout))


def objects(overlay: str, kind: str) -> dict[str, Object]:
    found = rendered(f"kubernetes/overlays/{overlay}")
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def one(overlay: str, kind: str) -> Object:
    (found,) = objects(overlay, kind).values()
    return found


def pod(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]
    return found


def container(deployment: Object) -> Object:
    (found,) = pod(deployment)["containers"]
    return dict(found)


def environment(overlay: str, deployment: Object) -> dict[str, str]:
    """Give what a worker's environment is; a value from a Secret is its key there."""
    worker = container(deployment)
    found: dict[str, str] = {}
    for source in worker["envFrom"]:
        found |= objects(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    for variable in worker["env"]:
        found[variable["name"]] = variable.get("value") or variable["valueFrom"]["secretKeyRef"]["key"]
    return found


def settings(
    overlay: str, deployment: Object, monkeypatch: pytest.MonkeyPatch, secrets: Path | None = None
) -> Settings:
    for name, value in environment(overlay, deployment).items():
        monkeypatch.setenv(name, value.replace(SECRETS, str(secrets)))
    return Settings.from_environment()


@cache
def workflow() -> Workflow:
    """Give what the workers run; its module asks the environment, so no test module imports it."""
    found: Workflow = import_module("examples.improve_repository").workflow
    return found


@cache
def application() -> AgentApp:
    return AgentApp(workflow(), settings=Settings())


def options(deployment: Object) -> dict[str, Any]:
    """Read the arguments of a worker as the command does."""
    command, *arguments = container(deployment)["args"]
    known = typer.main.get_command(program)
    run = known.get_command(known.make_context("callboard", [command]), command)  # type: ignore[attr-defined]
    found: dict[str, Any] = run.make_context(command, arguments).params
    return found


# What is rendered


def test_everything_is_checked_and_nothing_is_wrong() -> None:
    report = check([ROOT / "deploy"])
    assert (report.findings, report.not_checked, report.verdict) == ((), (), "pass")
    assert report.counts.overlays == 3  # dev, production, argocd


@every_overlay
def test_everything_is_in_the_namespace_and_says_whose_it_is(overlay: str) -> None:
    home = one(overlay, "Namespace")["metadata"]["name"]
    for each in rendered(f"kubernetes/overlays/{overlay}"):
        metadata = each["metadata"]
        assert metadata["labels"]["app.kubernetes.io/name"] == "callboard", metadata["name"]
        if each["kind"] not in {"Namespace", "KafkaTopic"}:
            assert metadata["namespace"] == home


@pytest.mark.parametrize("component", sorted(each.name for each in (KUBERNETES / "components").iterdir()))
def test_an_overlay_can_take_any_component_alone(tmp_path: Path, component: str) -> None:
    base, chosen = (
        os.path.relpath(KUBERNETES / part, tmp_path) for part in ("base", f"components/{component}")
    )
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{base}]\ncomponents: [{chosen}]\n")
    report = check([tmp_path])
    assert (report.findings, report.not_checked, report.verdict) == ((), (), "pass")
    used = yaml.safe_load((KUBERNETES / "overlays/production/kustomization.yaml").read_text())["components"]
    assert f"../../components/{component}" in used


def test_dev_takes_no_operator() -> None:
    groups = {each["apiVersion"].partition("/")[0] for each in rendered("kubernetes/overlays/dev")}
    assert not groups & CUSTOM


# The workers


@every_overlay
def test_each_agent_has_a_deployment_of_its_own_that_its_settings_can_start(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("correct horse battery staple\n")
    shutil.copy(certifi.where(), tmp_path / "ca.crt")
    run = []
    for deployment in objects(overlay, "Deployment").values():
        with monkeypatch.context() as patch:
            chosen = settings(overlay, deployment, patch, tmp_path)
            assert options(deployment)["application"] == "examples.improve_repository:app"
            run += list(AgentApp(workflow(), settings=chosen)._members)
            llm.chosen_backend()
    assert sorted(run) == sorted(workflow().steps)


@every_overlay
def test_settings_are_ones_that_there_are(overlay: str) -> None:
    known = {f"CALLBOARD_{name.upper()}" for name in Settings.model_fields} | {llm.CHOICE, *llm.CREDENTIALS}
    for deployment in objects(overlay, "Deployment").values():
        assert environment(overlay, deployment).keys() <= known
        assert pod(deployment)["enableServiceLinks"] is False, "or Services become settings"


@every_overlay
def test_workers_differ_in_their_agent_alone(overlay: str) -> None:
    def common(deployment: Object) -> Object:
        worker, rest = container(deployment), dict(pod(deployment))
        variables = [each for each in worker.pop("env") if each["name"] not in own]
        rest.pop("topologySpreadConstraints")  # names the agent, too
        return {**rest, "containers": [worker], "env": variables}

    own = {"CALLBOARD_ONLY", llm.CHOICE, *llm.CREDENTIALS}
    first, *others = map(common, objects(overlay, "Deployment").values())
    assert all(other == first for other in others)


@every_overlay
def test_image_is_the_one_that_is_built(overlay: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]
    for deployment in objects(overlay, "Deployment").values():
        image = container(deployment)["image"].rpartition("/")[2]
        assert image == compose["image"] == f"callboard-worker:{project['version']}"


@every_overlay
def test_worker_is_nobody_and_writes_to_its_scratch_folder_alone(overlay: str) -> None:
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    for deployment in objects(overlay, "Deployment").values():
        context, worker = pod(deployment)["securityContext"], container(deployment)
        assert context["runAsNonRoot"] is True
        assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
        assert worker["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "HOME=/tmp" in dockerfile
        written = {each["mountPath"] for each in worker["volumeMounts"] if not each.get("readOnly")}
        assert written == {"/tmp"}  # noqa: S108 (the container's own)
    assert all(
        not pod(each)["automountServiceAccountToken"] for each in objects(overlay, "Deployment").values()
    )
    assert one(overlay, "ServiceAccount")["automountServiceAccountToken"] is False


@every_overlay
def test_pages_are_where_they_are_looked_for(overlay: str) -> None:
    served = {path for path, _ in application().routes}
    for deployment in objects(overlay, "Deployment").values():
        worker = container(deployment)
        (port,) = worker["ports"]
        assert port == {"name": "http", "containerPort": options(deployment)["port"]}
        assert options(deployment)["host"] == "0.0.0.0"  # noqa: S104 (in its pod)
        probes = {name: worker[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert {each["port"] for each in probes.values()} == {"http"}
        assert {name: each["path"] for name, each in probes.items()} == {
            "startup": "/healthz",
            "liveness": "/healthz",
            "readiness": "/readyz",
        }
        assert {each["path"] for each in probes.values()} <= served
        (service,) = one(overlay, "Service")["spec"]["ports"]
        assert (service["port"], service["targetPort"]) == (port["containerPort"], "http")
    for monitor in objects(overlay, "PodMonitor").values():
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["path"] in served
        assert endpoint["port"] == "http"


@every_overlay
def test_worker_has_the_time_it_takes(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for deployment in objects(overlay, "Deployment").values():
        with monkeypatch.context() as patch:
            chosen = settings(overlay, deployment, patch)
        worker = container(deployment)
        startup, liveness = worker["startupProbe"], worker["livenessProbe"]
        stop = pod(deployment)["terminationGracePeriodSeconds"]
        assert stop > chosen.drain_seconds + STOP_MARGIN_SECONDS
        # It starts to serve when its group has made room for it.
        begin = startup["periodSeconds"] * startup["failureThreshold"]
        assert begin > rebalance_timeout_ms(chosen.drain_seconds) / 1000
        # The watchdog says where a process hangs; a kill from outside does not.
        assert liveness["periodSeconds"] * (liveness["failureThreshold"] - 1) > chosen.block_limit


@every_overlay
def test_rollout_never_waits_for_a_worker_without_partitions(overlay: str) -> None:
    for deployment in objects(overlay, "Deployment").values():
        assert "replicas" not in deployment["spec"]
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@every_overlay
def test_each_deployment_has_a_disruption_budget_of_its_own(overlay: str) -> None:
    budgets = objects(overlay, "PodDisruptionBudget")
    deployments = objects(overlay, "Deployment")
    assert budgets.keys() == deployments.keys()
    for name, budget in budgets.items():
        assert budget["spec"]["selector"] == deployments[name]["spec"]["selector"]
        assert budget["spec"]["maxUnavailable"] == 1
    selectors = [str(each["spec"]["selector"]) for each in deployments.values()]
    assert len(set(selectors)) == len(selectors)


@every_overlay
def test_annotations_say_what_a_worker_does(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = application()
    for deployment in objects(overlay, "Deployment").values():
        with monkeypatch.context() as patch:
            chosen = settings(overlay, deployment, patch)
        (name,) = chosen.only
        _, *others = inputs(app, name)
        assert deployment["metadata"]["annotations"] == {
            "callboard.dev/app": app.name,
            "callboard.dev/agent": name,
            **({"callboard.dev/inputs": ",".join(others)} if others else {}),
            "callboard.dev/deadline-seconds": f"{chosen.drain_seconds:.0f}",
        }


# Scaling


def inputs(app: AgentApp, agent: str) -> list[str]:
    worker, _ = app._members[agent]
    return [topic for topics in app._inputs(worker).values() for topic in topics]


def test_workers_are_scaled_by_the_lag_of_their_own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    deployments, scaled = objects("production", "Deployment"), objects("production", "ScaledObject")
    app = application()
    assert len(scaled) == len(deployments)
    for each in scaled.values():
        deployment = deployments[each["spec"]["scaleTargetRef"]["name"]]
        with monkeypatch.context() as patch:
            chosen = settings("production", deployment, patch)
        (name,) = chosen.only
        worker, _ = app._members[name]
        for trigger in each["spec"]["triggers"]:
            metadata = trigger["metadata"]
            assert trigger["type"] == "kafka"
            assert metadata["consumerGroup"] == app.group(name)
            assert metadata["bootstrapServersFromEnv"] in environment("production", deployment)
            assert int(metadata["lagThreshold"]) == worker.agent.config.concurrency
            begins = {"beginning": "earliest", "latest": "latest"}[chosen.new_edge]
            assert metadata["offsetResetPolicy"] == begins
            assert trigger["authenticationRef"]["name"] in objects("production", "TriggerAuthentication")
        assert [trigger["metadata"]["topic"] for trigger in each["spec"]["triggers"]] == inputs(app, name)
        assert each["spec"]["maxReplicaCount"] == chosen.partitions


def test_a_worker_is_not_taken_away_from_a_task() -> None:
    app = application()
    for each in objects("production", "ScaledObject").values():
        (name,) = {
            trigger["metadata"]["consumerGroup"].rpartition(".")[2] for trigger in each["spec"]["triggers"]
        }
        worker, _ = app._members[name]
        behavior = each["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] > worker.agent.config.llm_timeout
        assert each["spec"]["cooldownPeriod"] > worker.agent.config.llm_timeout
        # What a join waits for and runs is no lag: at zero, nobody would tell its time limit or run it.
        assert each["spec"]["minReplicaCount"] >= worker.router.joins


# Kafka


def test_topics_are_those_that_the_application_would_make(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, *_ = objects("production", "Deployment").values()
    with monkeypatch.context() as patch:
        chosen = settings("production", deployment, patch)
    app = application()
    names = [topic for agent in app._agents() for topic in app.topics.of(agent)]
    names += [app.topics.joins(agent) for agent in app._joining_agents()]
    made = objects("production", "KafkaTopic").values()
    assert {each["spec"]["topicName"]: each["spec"]["config"] for each in made} == {
        name: app.topics.config(name) for name in names
    }
    for each in made:
        assert (each["spec"]["partitions"], each["spec"]["replicas"]) == (
            chosen.partitions,
            chosen.replication,
        )
        assert each["metadata"]["name"] == each["spec"]["topicName"].replace("_", "-")


def test_kafka_lets_in_who_scales_as_it_does_workers() -> None:
    deployment, *_ = objects("production", "Deployment").values()
    variables = environment("production", deployment)
    spec = one("production", "TriggerAuthentication")["spec"]
    maps = objects("production", "ConfigMap")
    told = {each["parameter"]: maps[each["name"]]["data"][each["key"]] for each in spec["configMapTargetRef"]}
    assert told["sasl"] == KEDA_MECHANISMS[variables["CALLBOARD_SASL_MECHANISM"]]
    assert told["tls"] == "enable"
    assert variables["CALLBOARD_SECURITY_PROTOCOL"] == "SASL_SSL"
    files = {variables[f"CALLBOARD_{name}_FILE"] for name in ("SASL_PASSWORD", "TLS_CA")}
    secret = {each["parameter"]: (each["name"], each["key"]) for each in spec["secretTargetRef"]}
    (mounted,) = [each["secret"] for each in pod(deployment)["volumes"] if "secret" in each]
    assert {f"{SECRETS}/{each['path']}" for each in mounted["items"]} == files
    assert secret == {
        "username": (mounted["secretName"], variables["CALLBOARD_SASL_USERNAME"]),
        "password": (mounted["secretName"], "password"),
        "ca": (mounted["secretName"], "ca.crt"),
    }


@every_overlay
def test_secrets_are_only_referred_to_and_the_guide_says_how_to_make_them(overlay: str) -> None:
    assert not objects(overlay, "Secret")
    wanted: set[tuple[str, str]] = set()
    for deployment in objects(overlay, "Deployment").values():
        for variable in container(deployment)["env"]:
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                wanted.add((reference["name"], reference["key"]))
        for volume in pod(deployment)["volumes"]:
            for item in volume.get("secret", {}).get("items", ()):
                wanted.add((volume["secret"]["secretName"], item["key"]))
    made = {
        (name, key)
        for name, keys in re.findall(r"create secret generic (\S+) ((?:[^\n]*\\\n)*[^\n]*)", README)
        for key in re.findall(r"--from-(?:literal|file)=([\w.-]+)=", keys)
    }
    assert made >= wanted
    assert bool(wanted) is (overlay == "production")


# Who can reach whom


def ports(rules: list[Object]) -> set[Any]:
    return {port["port"] for rule in rules for port in rule["ports"]}


def selects(policy: Object, deployment: Object) -> bool:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selector = policy["spec"]["podSelector"]
    assert all(each["operator"] == "NotIn" for each in selector.get("matchExpressions", ()))
    return selector.get("matchLabels", {}).items() <= labels.items() and not any(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


@every_overlay
def test_a_worker_reaches_what_it_needs_and_nobody_else_reaches_it(overlay: str) -> None:
    policies = objects(overlay, "NetworkPolicy")
    deny = policies.pop("default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert all(rule["ports"] for policy in policies.values() for rule in policy["spec"].get("egress", ()))
    for deployment in objects(overlay, "Deployment").values():
        variables = environment(overlay, deployment)
        mine = [policy["spec"] for policy in policies.values() if selects(policy, deployment)]
        kafka = int(variables["CALLBOARD_BOOTSTRAP_SERVERS"].rpartition(":")[2])
        needed = {53, kafka} | ({443} if variables[llm.CHOICE] == "anthropic" else set())
        assert ports([rule for spec in mine for rule in spec.get("egress", ())]) == needed
        entered = ports([rule for spec in mine for rule in spec.get("ingress", ())])
        assert entered == ({"http"} if objects(overlay, "PodMonitor") else set())


@every_overlay
def test_kafka_is_where_the_network_policy_lets_workers_go(overlay: str) -> None:
    (rule,) = objects(overlay, "NetworkPolicy")["kafka"]["spec"]["egress"]
    (place,) = rule["to"]
    namespace = place["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    for deployment in objects(overlay, "Deployment").values():
        host = environment(overlay, deployment)["CALLBOARD_BOOTSTRAP_SERVERS"].partition(":")[0]
        assert host.endswith(f".{namespace}.svc")
    for topic in objects(overlay, "KafkaTopic").values():
        assert topic["metadata"]["namespace"] == namespace
        assert host == f"{topic['metadata']['labels']['strimzi.io/cluster']}-kafka-bootstrap.{namespace}.svc"


@every_overlay
def test_who_runs_code_of_others_has_no_key_of_a_model(overlay: str) -> None:
    variables = environment(overlay, objects(overlay, "Deployment")["worker-testing"])
    assert variables[llm.CHOICE] == "off"
    assert not variables.keys() & set(llm.CREDENTIALS)


# Argo CD


def argocd(kind: str, namespace: str = "argocd") -> Object:
    (found,) = (
        each
        for each in rendered("argocd")
        if each["kind"] == kind and each["metadata"]["namespace"] == namespace
    )
    return found


def test_project_allows_what_there_is_and_nothing_else() -> None:
    application, project = argocd("Application")["spec"], argocd("AppProject")
    assert application["project"] == project["metadata"]["name"]
    assert [application["source"]["repoURL"]] == project["spec"]["sourceRepos"]
    assert application["source"]["path"] == "deploy/kubernetes/overlays/production"
    deployed = rendered("kubernetes/overlays/production")
    kinds = {
        (each["apiVersion"].rpartition("/")[0], each["kind"])
        for each in deployed
        if each["kind"] != "Namespace"
    }
    allowed = [(each["group"], each["kind"]) for each in project["spec"]["namespaceResourceWhitelist"]]
    assert sorted(allowed) == sorted(kinds)
    assert project["spec"]["clusterResourceWhitelist"] == [{"group": "", "kind": "Namespace"}]
    places = {each["metadata"].get("namespace", "callboard") for each in deployed}
    assert {each["namespace"] for each in project["spec"]["destinations"]} == places
    servers = {each["server"] for each in project["spec"]["destinations"]}
    assert servers == {application["destination"]["server"]}


def test_argo_leaves_the_number_of_workers_to_who_scales_them() -> None:
    spec = argocd("Application")["spec"]
    assert spec["ignoreDifferences"] == [
        {"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]}
    ]
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]
    assert spec["syncPolicy"]["retry"]["backoff"]["factor"] > 1


def test_argo_never_removes_records() -> None:
    kept = [*objects("production", "KafkaTopic").values(), one("production", "Namespace")]
    for each in kept:
        options = each["metadata"]["annotations"]["argocd.argoproj.io/sync-options"].split(",")
        assert {"Prune=false", "Delete=false"} <= set(options)


def test_monitor_only_looks() -> None:
    roles = {each["metadata"]["namespace"]: each for each in rendered("argocd") if each["kind"] == "Role"}
    allowed = {
        (resource, verb)
        for role in roles.values()
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {verb for _, verb in allowed} <= {"get", "list", "watch"}
    assert {resource for resource, _ in allowed} == {"applications", "pods", "events", "pods/log"}
    assert "ClusterRole" not in {each["kind"] for each in rendered("argocd")}
    for binding in (each for each in rendered("argocd") if each["kind"] == "RoleBinding"):
        assert binding["roleRef"]["name"] == roles[binding["metadata"]["namespace"]]["metadata"]["name"]
        assert [each["name"] for each in binding["subjects"]] == [
            argocd("ServiceAccount")["metadata"]["name"]
        ]
