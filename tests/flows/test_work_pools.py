"""Deployments for pools of containers and Jobs: every variable is held against the worker's own template, every path against the mounts,
and what the workers would start is what Kubernetes and docker-py take."""

import inspect
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS
from docker.types import DeviceRequest, HostConfig
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_docker.worker import DockerWorker

from flows import cli
from flows.container_paths import for_containers
from flows.deployments import Deployment, read_deployments
from flows.errors import DONE, DeploymentError, ServingFailed
from flows.serving_control import ensure_server, open_registry
from serving.settings import Settings
from tests.fakes_cluster import without_what_prefect_misplaces
from tests.fakes_flows import ROOT, write_recipe
from tests.fakes_pools import configured, in_docker, on_cluster, recipe_in

NOWHERE = "http://127.0.0.1:9/api"


def file_of(folder: Path, pool: dict[str, Any], recipe: Path | None = None, **changes: Any) -> Path:
    """A file with one deployment for this pool."""
    parameters = {"recipe": str(recipe or recipe_in(folder)), "requester": "schedule"}
    one = {"name": "weekly", "entrypoint": "flows.pipeline.retrain", "parameters": parameters, "work_pool": pool} | changes
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"name": "tunegate", "deployments": [one]}, sort_keys=False), encoding="utf-8")
    return path


def sound(folder: Path, pool: dict[str, Any]) -> Deployment:
    (deployment,) = read_deployments(file_of(folder, pool)).deployments
    return deployment


def faults_of(path: Path) -> str:
    with pytest.raises(DeploymentError) as caught:
        read_deployments(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"imag": "x"}, "no variable 'imag'; did you mean 'image'?"),
        ({"gpus": "1"}, "gpus: '1' is not of type 'integer'"),
        ({"gpus": 0}, "gpus: 0 is less than the minimum of 1"),
        ({"cpu_request": "2 cores"}, "'2 cores' is not written like 500m or 64Gi"),
        ({"image_pull_policy": "Sometimes"}, "'Sometimes' is not one of ['IfNotPresent', 'Always', 'Never']"),
        ({"image": "registry.example/tunegate"}, "is another image tomorrow"),
        ({"image": "tunegate:latest"}, "is another image tomorrow"),
        ({"image": None}, "Prefect's own image, in which tunegate is not installed"),
        ({"namespace": "My_Space"}, "'My_Space' is not written like tunegate"),
        ({"volumes": [{"name": "home", "persistentVolumeClaims": {"claimName": "x"}}]}, "did you mean 'persistentVolumeClaim'?"),
        ({"volumes": [{"name": "home", "hostPath": {"path": "/"}}]}, "unknown key 'hostPath'"),
        ({"volumes": [{"name": "home"}]}, "exactly one of persistentVolumeClaim, configMap, secret, nfs, emptyDir is expected"),
        ({"volumes": [{"name": "hom", "emptyDir": {}}]}, "there is no volume 'home'; did you mean 'hom'?"),
        ({"volume_mounts": [{"name": "home", "mountPath": "/dev/shm"}]}, "'/dev/shm' is there already"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "s3cr3t"}}, "AWS_SECRET_ACCESS_KEY holds a secret, which would stand in clear"),
        ({"env": {"TUNEGATE_NOTIFY_SLACK_URL": "https://hooks.example/s3cr3t"}}, "TUNEGATE_NOTIFY_SLACK_URL holds a secret"),
        ({"env": {"TUNEGATE_REGISTRY_URL": "postgresql://u:s3cr3t@db/x"}}, "TUNEGATE_REGISTRY_URL holds a secret"),
        ({"env": {"HF_TOKEN": "{{ prefect.variables.s3cr3t }}"}}, "HF_TOKEN holds a secret"),
        ({"env_from": []}, "the registry would be SQLite"),
        ({"volume_mounts": []}, "(TUNEGATE_HOME) is not mounted: data, checkpoints and models would go with the container"),
        ({"env": {"TUNEGATE_VERIFY_KEY": "/etc/keys/public.pem"}}, "names /etc/keys/public.pem, where the container has nothing mounted"),
        ({"env": {"TUNEGATE_ARTEFACT_URL": "file:///srv/store"}}, "names /srv/store, where the container has nothing mounted"),
        ({"env": {"TUNEGATE_OUTSIDE_URL": "http://127.0.0.1:8000"}}, "TUNEGATE_OUTSIDE_URL names the loopback"),
    ],
)
def test_what_a_job_could_not_be_made_of_is_refused_and_no_secret_is_shown(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    env = on_cluster(tmp_path)["job_variables"]["env"]
    together = changes | ({"env": env | changes["env"]} if "env" in changes else {})
    shown = faults_of(file_of(tmp_path, on_cluster(tmp_path, **together)))
    assert told in shown
    assert "s3cr3t" not in shown.replace("prefect.variables.s3cr3t", "")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"privileged": True}, "no variable 'privileged'"),
        ({"gpus": 1}, "no variable 'gpus'"),
        ({"device_requests": [{"count": 1}]}, "'capabilities' is a required property"),
        ({"device_requests": [{"capabilities": [["gpu"]], "counts": 1}]}, "unknown key 'counts'; did you mean 'count'?"),
        ({"mem_limit": "64 GB"}, "'64 GB' is not written like 512m or 64g"),
        ({"network_mode": "host"}, "take its runs for dead: add pid_mode: host"),
        ({"pid_mode": "private"}, "'private' is not one of ['host']"),
        ({"volumes": ["/srv"]}, "'/srv' is not written like /srv/tunegate:/var/lib/tunegate"),
        ({"registry_credentials": {"username": "u", "password": "s3cr3t", "registry_url": "r"}}, "password holds a secret"),
    ],
)
def test_what_a_container_could_not_be_made_of_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    shown = faults_of(file_of(tmp_path, in_docker(tmp_path, **changes)))
    assert told in shown
    assert "s3cr3t" not in shown


def test_a_process_is_held_against_its_workers_template_too(tmp_path: Path) -> None:
    pool = {"work_queue_name": "training", "job_variables": {"image": "tunegate:gpu", "env": {"HF_TOKEN": "x"}}}
    shown = faults_of(file_of(tmp_path, pool))
    assert "no variable 'image'" in shown
    assert "HF_TOKEN holds a secret" in shown


def test_each_fault_is_told_with_its_line_and_all_at_once(tmp_path: Path) -> None:
    path = file_of(tmp_path, on_cluster(tmp_path, gpux=1, cpu_limit=4, image="tunegate"))
    shown, lines = faults_of(path), path.read_text(encoding="utf-8").splitlines()
    for key in ("gpux", "cpu_limit", "image"):
        (line,) = [number for number, text in enumerate(lines, 1) if text.strip().startswith(f"{key}:")]
        assert f"{path}:{line}: weekly: {key}: " in shown


def test_references_and_anchors_are_taken(tmp_path: Path) -> None:
    env = {"HF_TOKEN": "{{ prefect.blocks.secret.hub }}", "TUNEGATE_HOME": str(tmp_path)}
    deployment = sound(tmp_path, on_cluster(tmp_path, env=env, finished_job_ttl="{{ prefect.variables.ttl }}"))
    assert deployment.work_pool.env["HF_TOKEN"] == "{{ prefect.blocks.secret.hub }}"


def test_one_pool_is_of_one_type(tmp_path: Path) -> None:
    path = file_of(tmp_path, in_docker(tmp_path))
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["deployments"].append(values["deployments"][0] | {"name": "other", "work_pool": on_cluster(tmp_path) | {"name": "containers"}})
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    assert "the pool 'containers' is of the type docker above, and of kubernetes here" in faults_of(path)


@pytest.mark.parametrize("make", [in_docker, on_cluster])
def test_a_recipe_that_is_not_mounted_is_refused(tmp_path: Path, make: Any) -> None:
    shown = faults_of(file_of(tmp_path, make(tmp_path / "home"), recipe_in(tmp_path / "mine")))
    assert "is a path of this machine; the container of the pool" in shown


@pytest.mark.parametrize(
    ("make", "instead"), [(in_docker, "set outside, or job_variables.network_mode: host"), (on_cluster, "set outside")]
)
def test_a_recipe_whose_engine_a_container_does_not_reach_is_refused(tmp_path: Path, make: Any, instead: str) -> None:
    shown = faults_of(file_of(tmp_path, make(tmp_path), write_recipe(tmp_path)))
    assert "serving.engine: vllm listens on the loopback of the server's machine" in shown
    assert instead in shown


def test_a_container_on_the_hosts_network_reaches_the_servers_engines(tmp_path: Path) -> None:
    file = read_deployments(file_of(tmp_path, in_docker(tmp_path, network_mode="host", pid_mode="host"), write_recipe(tmp_path)))
    assert file.deployments[0].unread == ()


def test_data_beside_no_mount_is_told_with_its_key_in_the_recipe(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path / "home")
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text((tmp_path / "home" / "rows.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    values["data"]["sft"][0]["path"] = str(elsewhere)
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    shown = faults_of(file_of(tmp_path, in_docker(tmp_path / "home"), recipe))
    assert f"data.sft.0.path: {elsewhere} is not on a volume that the container has mounted" in shown


def test_a_recipe_behind_a_bind_mount_is_read_and_one_on_a_claim_is_said_to_be_unread(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    inside = Path("/data") / recipe.name
    variables = {"volumes": [f"{tmp_path}:/data"], "env": {"TUNEGATE_HOME": "/data"}}
    (read,) = read_deployments(file_of(tmp_path, in_docker(tmp_path, **variables), inside)).deployments
    (unread,) = read_deployments(file_of(tmp_path, on_cluster(Path("/data")), inside)).deployments
    assert (read.unread, unread.unread) == ((), ("recipe",))


def test_a_check_says_which_file_nobody_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, on_cluster(Path("/data")), Path("/data/recipe.yaml"))
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["tunegate", "deploy", str(path), "--check"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == DONE
    assert "! retrain/weekly: recipe /data/recipe.yaml lies on a volume: not read here" in capsys.readouterr().out


@pytest.mark.parametrize("flow", ["flows.pipeline.promote", "flows.operations.watch", "flows.operations.roll_back"])
def test_what_asks_the_gateway_stays_beside_the_server(tmp_path: Path, flow: str) -> None:
    shown = faults_of(file_of(tmp_path, on_cluster(tmp_path), entrypoint=flow, parameters={}))
    assert "asks the gateway at the address it listens on" in shown


def test_a_job_that_prefects_worker_would_submit_fits_kubernetes_schema(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        made: Any = configured(sound(tmp_path, on_cluster(tmp_path)))
    job = without_what_prefect_misplaces(made.job_manifest)
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}, "requests": {"memory": "64Gi"}}
    assert (container["command"][0], container["args"][0], container["image"]) == ("/usr/bin/env", "prefect", "tunegate:gpu")
    assert pod["nodeSelector"] == {"gpu": "true"}
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("stage", False)
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    env = {each["name"]: each["value"] for each in container["env"]}
    assert (env["TUNEGATE_START_SERVER"], env["TUNEGATE_ARTEFACT_URL"]) == ("false", "s3://models/tunegate")


def test_a_job_of_a_pool_where_nothing_optional_is_said_fits_it_too(tmp_path: Path) -> None:
    keep = {"image", "env", "env_from", "volumes", "volume_mounts"}
    pool = on_cluster(tmp_path)
    pool["job_variables"] = {name: value for name, value in pool["job_variables"].items() if name in keep}
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        made: Any = configured(sound(tmp_path, pool))
    job = without_what_prefect_misplaces(made.job_manifest)
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    assert (job["metadata"]["namespace"], job["spec"]["ttlSecondsAfterFinished"]) == ("tunegate", 86_400)


def test_what_docker_would_be_given_is_what_docker_py_takes(tmp_path: Path) -> None:
    class Daemon:
        """Says which Docker it is; that is all the worker asks before it starts a container."""

        def version(self) -> dict[str, str]:
            return {"Version": "28.0.0"}

    with temporary_settings({PREFECT_API_URL: "http://prefect:4200/api"}):
        made: Any = configured(sound(tmp_path, in_docker(tmp_path)))
        given = DockerWorker._build_container_settings(object(), Daemon(), made)  # type: ignore[arg-type]
    assert given.keys() <= {*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS, "image", "command", "network", "volumes"}
    host = {key: value for key, value in given.items() if key in inspect.signature(HostConfig).parameters}
    config = HostConfig("1.47", **host)
    assert config["DeviceRequests"] == [DeviceRequest(driver="nvidia", count=1, capabilities=[["gpu"]])]
    assert (config["CapDrop"], config["SecurityOpt"], config["Init"]) == (["ALL"], ["no-new-privileges:true"], True)
    assert (config["ShmSize"], config["Memory"]) == (2 << 30, 64 << 30)
    assert (given["entrypoint"], given["command"].split()[0]) == (["/usr/bin/env"], "prefect")
    assert (given["volumes"], given["privileged"]) == ([f"{tmp_path}:{tmp_path}"], False)


def test_a_store_is_told_to_containers_where_it_is_an_address_and_no_folder() -> None:
    assert for_containers(Settings(artefact_url="s3://b/x")) == {"TUNEGATE_ARTEFACT_URL": "s3://b/x"}
    assert for_containers(Settings(artefact_url="/srv/store")) == for_containers(Settings()) == {}


def test_a_run_in_a_container_starts_no_server_that_would_end_with_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, start_server=False)
    with open_registry(settings) as registry, pytest.raises(ServingFailed, match="no server lives at this registry"):
        ensure_server(settings, registry)


def test_the_example_for_a_cluster_sends_what_needs_a_gpu_to_jobs_and_all_else_beside_the_server(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "kubernetes" / "stages" / "prefect.yaml").read_text(encoding="utf-8")
    recipe = recipe_in(tmp_path)
    path = tmp_path / "prefect.yaml"
    path.write_text(text.replace("/var/lib/tunegate/recipes/medical.yaml", str(recipe)).replace("/var/lib/tunegate", str(tmp_path))
        .replace("    env:\n", f"    env:\n      TUNEGATE_HOME: {tmp_path}\n"), encoding="utf-8")  # fmt: skip
    pools = {each.flow.name: each.work_pool.type for each in read_deployments(path).deployments}
    assert {flow for flow, kind in pools.items() if kind == "kubernetes"} == {"retrain", "evaluate"}
    assert {kind for flow, kind in pools.items() if flow not in ("retrain", "evaluate")} == {"process"}
    assert len(pools) >= 5
