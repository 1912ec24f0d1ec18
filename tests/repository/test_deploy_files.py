"""The files of deploy/ are read by the tools that will read them; what no tool here reads says so in its head."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flows.work_pools import template_of
from monitoring.alerts import ALERTS
from serving.cluster_api import KINDS
from serving.cluster_objects import objects_of
from serving.cluster_settings import ClusterSettings
from serving.config import ServingSection
from serving.lifecycle import State
from serving.records import Release
from serving.settings import Settings
from tests.repository.checkout import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
NO_SCHEMA = {"ServiceMonitor", "PrometheusRule"}


def run(program: str, *arguments: str, **env: str) -> str:
    """The output of a tool that must be there and must be content."""
    path = shutil.which(program, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    assert path is not None, f"{program} is missing: .ci/run and make setup install it"
    done = subprocess.run([path, *arguments], cwd=DEPLOY, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def composed(*options: str, files: tuple[str, ...] = ("compose.yaml",), **env: str) -> dict[str, Any]:
    """compose.yaml, and what is laid over it, as docker compose understands them."""
    needed = {"POSTGRES_PASSWORD": "p", "GRAFANA_PASSWORD": "g"} | env
    read = [option for file in files for option in ("-f", file)]
    shown: dict[str, Any] = yaml.safe_load(run("docker-compose", *read, *options, "config", **needed))
    return shown


def objects(folder: str) -> list[dict[str, Any]]:
    """What a kustomization renders."""
    return [each for each in yaml.safe_load_all(run("kubectl", "kustomize", f"kubernetes/{folder}")) if each]


def of_kind(folder: str, kind: str) -> list[dict[str, Any]]:
    return [each for each in objects(folder) if each["kind"] == kind]


def test_programs_that_only_tests_run_are_pinned_by_hash_and_in_no_image() -> None:
    pins = DEPLOY / "requirements"
    tools = [block for block in re.split(r"\n(?=\S)", (pins / "tools.txt").read_text(encoding="utf-8")) if block.strip()]
    assert len(tools) == 3
    assert [block for block in tools if not re.fullmatch(r"[a-z-]+==[0-9.]+( \\\n +--hash=sha256:[0-9a-f]{64})+\n?", block)] == []
    names = {block.partition("==")[0] for block in tools}
    assert names & {name for pin in ("cpu", "gpu", "dev") for name in pinned(pin)} == set()
    assert "tools.txt" not in (DEPLOY / "containers" / "Dockerfile").read_text(encoding="utf-8")


def pinned(name: str) -> dict[str, str]:
    """Package -> version of one file of pins."""
    lines = (DEPLOY / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return {package: version for package, _, version in (line.partition("==") for line in lines)}


def test_what_only_tests_need_is_pinned_apart_and_in_no_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[\[=<>]", each)[0].lower() for each in project["optional-dependencies"]["dev"]}
    assert len(asked) >= 12
    assert asked - pinned("dev").keys() == set()
    for engine in ("cpu", "gpu"):
        assert len(pinned(engine)) > 200
        assert pinned("dev").keys() & pinned(engine).keys() == set(), f"pinned twice: in dev.txt and {engine}.txt"
    assert '-r "deploy/requirements/$EXTRA.txt"\n' in (DEPLOY / "containers" / "Dockerfile").read_text(encoding="utf-8")


def test_the_container_file_pleases_hadolint_and_does_not_run_as_root() -> None:
    run("hadolint", "--failure-threshold", "style", "containers/Dockerfile")
    lines = (DEPLOY / "containers" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    assert [line for line in lines if line.startswith("FROM ") and (":" not in line or ":latest" in line)] == []


def test_compose_is_read_with_every_service_pinned_watched_and_restarted() -> None:
    services = composed("--profile", "tls")["services"]
    assert services.keys() == {
        "postgres", "prefect", "tunegate", "worker", "deploy", "hooks", "prometheus", "alertmanager", "grafana", "tls",
    }  # fmt: skip
    assert [name for name, each in services.items() if ":" not in each["image"] or each["image"].endswith(":latest")] == []
    assert [name for name, each in services.items() if not each.get("restart")] == []
    in_the_image = {"tunegate", "tls", "deploy"}
    assert [name for name, each in services.items() if "healthcheck" not in each and name not in in_the_image] == []


def test_with_gpus_engines_and_trainings_get_them_and_nothing_else_changes() -> None:
    plain, gpu = composed()["services"], composed(files=("compose.yaml", "compose.gpu.yaml"))["services"]
    assert plain.keys() == gpu.keys()
    devices = {name: each.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices") for name, each in gpu.items()}
    wanted = [{"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}]
    assert {name: each for name, each in devices.items() if each} == {"tunegate": wanted, "worker": wanted}
    changed = {name for name in plain if {**gpu[name], "deploy": None} != {**plain[name], "deploy": None}}
    assert changed == {name for name, each in plain.items() if each["image"] == "tunegate:cpu"}
    assert {gpu[name]["image"] for name in changed} == {"tunegate:gpu"}


def test_compose_opens_nothing_but_loopback_and_the_tls_door() -> None:
    services = composed("--profile", "tls")["services"]
    published = [(name, port) for name, each in services.items() for port in each.get("ports", [])]
    assert len(published) >= 6
    assert {name for name, port in published if port.get("host_ip") != "127.0.0.1"} == {"tls"}


@pytest.mark.parametrize("missing", ["POSTGRES_PASSWORD", "GRAFANA_PASSWORD"])
def test_compose_refuses_to_start_without_a_password(missing: str) -> None:
    with pytest.raises(AssertionError, match=f"{missing}.*needed, see env.example"):
        composed(**{missing: ""})


def test_the_example_names_every_variable_that_compose_reads() -> None:
    named = {line.partition("=")[0] for line in (DEPLOY / "env.example").read_text(encoding="utf-8").splitlines() if "=" in line}
    asked = {line.split()[0] for line in run("docker-compose", "-f", "compose.yaml", "config", "--variables").splitlines()[1:]}
    assert len(asked) >= 6
    assert asked - named == {"TUNEGATE_REGISTRY_URL"} - named


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed: the TLS file goes UNCHECKED (apt-get install caddy)")
def test_caddy_passes_on_the_open_routes_and_nothing_else() -> None:
    run("caddy", "validate", "--adapter", "caddyfile", "--config", "tls/Caddyfile", DOMAIN="models.example.org")
    adapted = run("caddy", "adapt", "--adapter", "caddyfile", "--config", "tls/Caddyfile", DOMAIN="models.example.org")
    (site,) = json.loads(adapted[adapted.index('{"apps"') :].splitlines()[0])["apps"]["http"]["servers"]["srv0"]["routes"]
    passed_on, refused = site["handle"][0]["routes"]
    assert site["match"] == [{"host": ["models.example.org"]}]
    assert passed_on["match"] == [{"path": ["/v1/*", "/health"]}]
    assert passed_on["handle"][0]["routes"][0]["handle"][0] | {"handler": "reverse_proxy"} == {
        "handler": "reverse_proxy", "flush_interval": -1, "upstreams": [{"dial": "tunegate:8080"}],
    }  # fmt: skip
    assert refused["handle"] == [{"handler": "static_response", "status_code": 404}]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: it goes UNCHECKED (apt-get install prometheus)")
def test_promtool_reads_what_the_pod_of_the_gateway_scrapes() -> None:
    run("promtool", "check", "config", "kubernetes/base/prometheus.yml")


def test_the_units_please_systemd(tmp_path: Path) -> None:
    assert len(UNITS) == 4
    here = [tmp_path / unit.name for unit in UNITS]
    for unit, copy in zip(UNITS, here, strict=True):  # the programs lie where this interpreter does
        copy.write_text(
            unit.read_text(encoding="utf-8").replace("/srv/tunegate/.venv/bin", str(Path(sys.executable).parent)), encoding="utf-8"
        )
    assert run("systemd-analyze", "verify", "--man=no", *map(str, here)).strip() == ""


def test_alertmanager_takes_its_file() -> None:
    assert "SUCCESS" in run("amtool", "check-config", "alertmanager/alertmanager.yml")


@pytest.mark.parametrize(("folder", "at_least"), [("base", 10), ("release", 4), ("engines", 17), ("training", 4), ("stages", 23)])
def test_every_kubernetes_object_fits_its_schema(folder: str, at_least: int) -> None:
    checked = [each for each in objects(folder) if each["kind"] not in NO_SCHEMA]
    for each in checked:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
    assert len(checked) >= at_least


def test_a_wrong_kubernetes_object_would_be_noticed() -> None:
    (deployment,) = of_kind("release", "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", ["base", "release", "engines", "training", "stages"])
def test_no_pod_runs_as_root_or_may_become_it(folder: str) -> None:
    pods = [each["spec"]["template"]["spec"] for each in objects(folder) if each["kind"] in ("Deployment", "StatefulSet", "Job")]
    assert pods
    assert [pod for pod in pods if pod["securityContext"]["runAsNonRoot"] is not True or pod["enableServiceLinks"] is not False] == []
    containers = [container for pod in pods for container in pod["containers"]]
    assert [each["name"] for each in containers if each["securityContext"]["allowPrivilegeEscalation"] is not False] == []


def test_only_gateways_and_the_monitoring_reach_an_engine() -> None:
    (policy,) = [each for each in of_kind("base", "NetworkPolicy") if each["metadata"]["name"] == "engines"]
    (engine,) = of_kind("release", "Deployment")
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= engine["spec"]["template"]["metadata"]["labels"].items()
    callers = [one for rule in policy["spec"]["ingress"] for one in rule["from"]]
    admitted = callers[0]["podSelector"]["matchLabels"].items()
    pods = {each["metadata"]["name"]: pod_of(each) for each in objects("engines") if each["kind"] in ("Deployment", "StatefulSet")}
    assert {name for name, pod in pods.items() if admitted <= pod["metadata"]["labels"].items()} == {"tunegate", "gateway"}
    assert [list(one) for one in callers] == [["podSelector"], ["namespaceSelector"]]


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]
    return found


def gateway_objects() -> dict[str, dict[str, Any]]:
    """Kind -> the object of the gateways beside the server's."""
    return {each["kind"]: each for each in objects("engines") if each["metadata"]["name"] == "gateway"}


def test_gateways_are_two_at_least_and_neither_a_drain_nor_an_update_takes_the_last_one() -> None:
    found = gateway_objects()
    spec = found["Deployment"]["spec"]
    assert spec["replicas"] == found["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    labels = pod_of(found["Deployment"])["metadata"]["labels"].items()
    selectors = [spec["selector"]["matchLabels"], found["Service"]["spec"]["selector"]]
    selectors += [found[kind]["spec"]["podSelector" if kind == "NetworkPolicy" else "selector"]["matchLabels"] for kind in (
        "PodDisruptionBudget", "NetworkPolicy")]  # fmt: skip
    assert [selector for selector in selectors if not selector.items() <= labels] == []
    assert found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items() <= found["Service"]["metadata"]["labels"].items()


def test_a_gateway_drains_before_it_is_killed_and_reads_the_servers_registry() -> None:
    pod = pod_of(gateway_objects()["Deployment"])["spec"]
    container = pod["containers"][0]
    assert container["args"] == ["serve", "--gateway-only"]
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause_s + Settings().drain_s
    (server,) = of_kind("engines", "StatefulSet")
    shared = ("TUNEGATE_REGISTRY_URL", "TUNEGATE_OUTSIDE_URL", "TUNEGATE_OUTSIDE_KEY")
    told = [{one["name"]: one for one in each["env"]} for each in (container, pod_of(server)["spec"]["containers"][0])]
    assert [name for name in shared if told[0][name] != told[1][name]] == []
    assert {name.removeprefix("TUNEGATE_").lower() for name in told[0]} <= Settings.model_fields.keys()


@pytest.mark.parametrize("path", ["base/prometheus.yml", "engines/prometheus-gateway.yml"])
def test_prometheus_reads_its_file_in_a_pod(path: str) -> None:
    assert "SUCCESS" in run("promtool", "check", "config", f"kubernetes/{path}", POD_NAME="gateway-1")


def test_prefects_worker_makes_jobs_and_reads_pods_in_its_namespace_and_nothing_else() -> None:
    (role,) = [each for each in of_kind("stages", "Role") if each["metadata"]["name"] == "prefect-worker"]
    allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {resource for resource, _ in allowed} == {"jobs", "pods", "pods/log"}
    assert {verb for resource, verb in allowed if resource != "jobs"} == {"get", "list", "watch"}
    assert of_kind("stages", "ClusterRole") == []
    with_token = [each["metadata"]["name"] for each in objects("stages") if each["kind"] in ("Deployment", "StatefulSet")
                  and pod_of(each)["spec"].get("automountServiceAccountToken")]  # fmt: skip
    assert with_token == ["prefect-worker"]


def test_stages_and_their_worker_are_let_in_where_they_have_to_ask_and_share_the_servers_home() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind("stages", "NetworkPolicy")}
    label = template_of("kubernetes")["job_configuration"]["job_manifest"]["spec"]["template"]["metadata"]["labels"]
    (engines,) = policies["engines-stages"]["ingress"]
    assert engines["from"] == [{"podSelector": {"matchLabels": label}}]
    (prefect,) = policies["prefect-stages"]["ingress"]
    (term,) = prefect["from"][0]["podSelector"]["matchExpressions"]
    (worker,) = [each for each in of_kind("stages", "Deployment") if each["metadata"]["name"] == "prefect-worker"]
    assert {label[term["key"]], pod_of(worker)["metadata"]["labels"][term["key"]]} == set(term["values"])
    (server,) = of_kind("stages", "StatefulSet")
    (home,) = server["spec"]["volumeClaimTemplates"]
    assert home["spec"]["accessModes"] == ["ReadWriteMany"]
    example = (DEPLOY / "kubernetes" / "stages" / "prefect.yaml").read_text(encoding="utf-8")
    assert f"claimName: {home['metadata']['name']}-{server['metadata']['name']}-0" in example


def made_by_the_server() -> list[dict[str, Any]]:
    """What the server would apply for a release."""
    section = ServingSection(public_name="clinic", engine="outside")
    named: dict[str, Any] = {"id": "clinic-2", "number": 2, "public_name": "clinic", "recipe_name": "demo", "requester": "ann"}
    evidence = {"evidence_digest": None, "report_path": None, "judged_against": None, "model_digest": "a" * 64}
    at = datetime(2030, 1, 1, tzinfo=UTC)
    release = Release(**named, **evidence, state=State.LIVE, model_dir=Path("/srv/m"), serving=section, created_at=at)
    return objects_of(release, Settings(artefact_url="s3://b/x"), ClusterSettings())


def test_the_server_may_do_what_its_engines_need_and_nothing_else() -> None:
    (role,) = of_kind("engines", "Role")
    allowed = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert allowed == {KINDS[each["kind"]].rpartition("/")[2] for each in made_by_the_server()}
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "create", "update", "delete"}
    (server,) = of_kind("engines", "StatefulSet")
    mounted = [
        container["name"]
        for container in server["spec"]["template"]["spec"]["containers"]
        for mount in container["volumeMounts"]
        if mount["name"] == "service-account"
    ]
    assert mounted == ["server"]


def test_an_engine_of_the_servers_making_is_like_the_one_by_hand_and_only_the_gateway_reaches_it() -> None:
    made = {each["kind"]: each for each in made_by_the_server()}
    by_hand = {each["kind"]: each for each in objects("release")}
    assert made.keys() == by_hand.keys()
    pods = [kept["Deployment"]["spec"]["template"]["spec"] for kept in (made, by_hand)]
    for key in ("securityContext", "enableServiceLinks", "automountServiceAccountToken"):
        assert pods[0][key] == pods[1][key]
    engines = [pod["containers"][0] for pod in pods]
    assert [each["securityContext"] for each in engines] == [engines[0]["securityContext"]] * 2
    assert made["HorizontalPodAutoscaler"]["spec"]["metrics"] == by_hand["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (policy,) = [each for each in of_kind("base", "NetworkPolicy") if each["metadata"]["name"] == "engines"]
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_services_and_autoscaler_find_what_they_point_at() -> None:
    (engine,), (service,), (scaler,) = (of_kind("release", kind) for kind in ("Deployment", "Service", "HorizontalPodAutoscaler"))
    assert service["spec"]["selector"].items() <= engine["spec"]["template"]["metadata"]["labels"].items()
    assert scaler["spec"]["scaleTargetRef"]["name"] == engine["metadata"]["name"]
    services = {each["metadata"]["name"]: each for each in of_kind("base", "Service")}
    (monitor,) = [each for each in of_kind("base", "ServiceMonitor") if each["metadata"]["name"] == "tunegate"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= services["tunegate"]["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in services["tunegate"]["spec"]["ports"]}


def test_the_operator_gets_the_same_alerts_and_promtool_reads_them(tmp_path: Path) -> None:
    (rule,) = of_kind("base", "PrometheusRule")
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    assert f"{len(ALERTS)} rules found" in run("promtool", "check", "rules", str(path))


def test_the_example_for_kserve_is_one_document() -> None:
    (service,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "examples" / "kserve.yaml").read_text(encoding="utf-8"))
    assert service["kind"] == "InferenceService"
