"""The shipped deployments on a real Prefect server with a real worker: a schedule looks, data trains, an approval over HTTP promotes,
an alert collects.

Training is finished beforehand; everything else is real but the engines' answers.
"""

import asyncio
import copy
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.states import Submitting
from prefect_kubernetes.worker import KubernetesWorker
from starlette.testclient import TestClient

from flows import new_data
from flows.deployments import DEBOUNCE_S, DeploymentFile, read_deployments
from flows.events import ALERT_FIRING, DATA_CHANGED
from flows.hooks import create_app
from flows.operations import roll_back
from flows.recipe import load_recipe
from flows.registering import Environments, Limits, Silence, register
from monitoring.alerting import Alert
from monitoring.alerts_line import DRIFTED
from serving.keys import Scope
from serving.lifecycle import State
from serving.records import Release
from tests.fakes_cluster import FakeCluster, fake_cluster
from tests.fakes_flows import ROOT, SAFE, QuickStages, Site, finish_training, open_small_line, recipe_values, until, write_recipe
from tests.fakes_pools import in_docker, on_cluster, recipe_in, run_as_a_node_would
from tests.fakes_postgres import postgres_cluster
from tests.fakes_prefect import POLL_S, PrefectServer, as_alertmanager, prefect_server
from training.errors import InputError

pytestmark = pytest.mark.slow

STORM = 100
WORKER = ROOT / "deploy" / "kubernetes" / "stages" / "worker.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """On PostgreSQL: on SQLite under load, Prefect has been seen to lose a trigger ("database is locked")."""
    with postgres_cluster() as cluster:
        database = cluster.empty().replace("postgresql://", "postgresql+asyncpg://")
        with prefect_server(tmp_path_factory.mktemp("prefect"), database) as made, made.ours():
            yield made


@pytest.fixture
def told_site(server: PrefectServer, tmp_path: Path) -> Iterator[Site]:
    """A server that tells Prefect what happens to its releases."""
    made = Site(tmp_path / "home")
    with made.serving(PREFECT_API_URL=server.url):
        yield made
    made.registry.close()


def shipped(
    folder: Path, recipe: Path, at: datetime, *, looking: str = "look_for_data", rule: str = "FREQ=MINUTELY;COUNT=5"
) -> DeploymentFile:
    """deploy/prefect.yaml for another recipe, of whose schedules only that of `looking` is left: from `at` on, which a slow machine may
    miss, and then again.
    """
    values: Any = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text(encoding="utf-8"))
    for each in values["deployments"]:
        if "recipe" in each.get("parameters", {}):
            each["parameters"]["recipe"] = str(recipe)
        each.pop("schedules", None)
        if each["entrypoint"].endswith(looking):
            each["schedules"] = [{"rrule": f"DTSTART:{at:%Y%m%dT%H%M%SZ}\nRRULE:{rule}"}]
        for trigger in each.get("triggers", []):
            if "tunegate.recipe" in trigger.get("match", {}):
                trigger["match"] = {"tunegate.recipe": load_recipe(recipe).name}
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return read_deployments(path)


def test_a_schedule_finds_new_data_a_storm_trains_once_and_an_approval_over_http_promotes(
    told_site: Site, server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = told_site
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    recipe = write_recipe(tmp_path, recipe_values("deployed") | {"name": "deployed"})
    finish_training(open_small_line(recipe, site.settings, site.registry, QuickStages(SAFE)))
    loaded = load_recipe(recipe)
    new_data.remember_told(loaded, site.settings.home, "what it was last week")
    assert new_data.look(loaded, site.settings.home)[0] == "settling"

    soon, environment = datetime.now(UTC) + timedelta(seconds=5), Environments(site.environment)
    file = shipped(tmp_path, recipe, soon)
    assert register(file, Limits(training=2), environment) == register(file, Limits(), environment)
    assert len(server.post("/deployments/filter", {})) == len(file.deployments)
    limits = {queue["name"]: queue["concurrency_limit"] for queue in server.post("/work_pools/tunegate/queues/filter", {})}
    assert limits == {"default": None, "training": 1, "promotion": 1, "watching": 16}
    with server.worker({}):
        assert server.wait_for_run("look-for-data")["deployment_id"] is not None
        alert_over_http(site, DRIFTED)
        server.storm(DATA_CHANGED, {"tunegate.recipe": "deployed"}, STORM)
        server.storm(ALERT_FIRING, {"tunegate.action": "collect"}, STORM)
        run = server.wait_for_run("retrain")
        release = site.registry.release("deployed-2")
        assert release.state is State.AWAITING_APPROVAL
        assert shown(server, "verdict").startswith("# PASS: deployed-2, against deployed-1")

        approve_over_http(site, release)
        server.wait_for_run("promote")
        assert site.registry.release(release.id).state is State.LIVE
        until(lambda: bool(server.runs("watch")), 120, POLL_S)
        server.wait_for_run("collect")
        until(lambda: release.id in server.events("tunegate.release.promoted"), 120, POLL_S)
    assert [each["id"] for each in server.runs("retrain")] == [run["id"]], f"{STORM} events within {DEBOUNCE_S} s are one"
    assert len(server.runs("collect")) == 1
    assert [server.events(f"tunegate.release.{what}").count(release.id) for what in ("approved", "promoted")] == [1, 1], "told once"
    print(in_words(server, run))


def test_a_run_whose_process_was_killed_is_ended_after_its_silence(server: PrefectServer, tmp_path: Path) -> None:
    """No worker is there to tell Prefect: the machine, as it were, has died with both."""
    register(shipped(tmp_path, write_recipe(tmp_path / "recipe"), datetime.now(UTC)), Limits(), Environments(), Silence(10, 10))
    with get_client(sync_client=True) as client:
        taken = client.create_flow_run(roll_back, parameters={"public_name": "clinic", "actor": "ann", "reason": "worse"})
        client.set_flow_run_state(taken.id, Submitting())
    endless = "from prefect import flow\nimport time\n@flow(name='endless')\ndef endless(): time.sleep(600)\nendless()"
    env = {**server.env, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    running = subprocess.Popen([sys.executable, "-c", endless], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    try:
        until(lambda: server.count_events("prefect.flow-run.heartbeat", of="endless") == 1, 120, POLL_S)
    finally:
        running.kill()
        running.wait()
    assert server.runs("endless")[0]["state_type"] == "RUNNING"
    ended = server.wait_for_run("endless", "CRASHED")
    assert ended["state"]["message"] == "no sign of life for 10 s: its process is gone"
    assert server.wait_for_run("rollback", "CRASHED")["id"] == str(taken.id), "a worker had taken it and died over it"


def test_pools_of_every_type_are_made_and_prefects_worker_has_a_cluster_run_a_job(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's own worker takes a run from the server and hands it to an API that enforces Kubernetes' schemas, with the rights that
    its role in deploy/kubernetes/stages gives it. No container runs: the Job's command does, with the Job's environment."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED", "false")
    server.post("/work_pools/", {"name": "trainings", "type": "kubernetes", "base_job_template": as_its_worker_makes_it()})
    cluster, pid = asyncio.run(run_in_a_cluster(tmp_path))
    made = {pool["name"]: pool["type"] for pool in server.post("/work_pools/filter", {})}
    assert made.items() >= {("beside", "process"), ("containers", "docker"), ("trainings", "kubernetes")}
    namespace, _, name = pid.partition(":")
    assert (namespace, cluster.calls) == ("tunegate", [f"POST jobs {name}", f"DELETE jobs {name}"])
    role = next(each for each in yaml.safe_load_all(WORKER.read_text(encoding="utf-8")) if each["kind"] == "Role")
    (verbs,) = [rule["verbs"] for rule in role["rules"] if rule["resources"] == ["jobs"]]
    assert {{"POST": "create", "DELETE": "delete"}[call.split()[0]] for call in cluster.calls} <= set(verbs)


def test_a_pool_that_is_there_with_another_type_or_another_template_is_left_alone(server: PrefectServer, tmp_path: Path) -> None:
    template = as_its_worker_makes_it()
    template["variables"]["properties"]["namespace"]["default"] = "somebody's"
    server.post("/work_pools/", {"name": "trainings-old", "type": "kubernetes", "base_job_template": template})
    server.post("/work_pools/", {"name": "containers-old", "type": "process"})
    before = server.post("/deployments/count", {})
    with pytest.raises(InputError) as caught:
        register(three_pools(tmp_path, suffix="-old"), Limits(), Environments())
    shown = str(caught.value)
    assert "containers-old: it is of the type process, and the file says docker" in shown
    assert "trainings-old: look-for-data/in-jobs: gpus: the base job template has no variable 'gpus'" in shown
    assert server.post("/deployments/count", {}) == before


def as_its_worker_makes_it() -> dict[str, Any]:
    """The template of a pool whose worker was there before its first deployment."""
    made: dict[str, Any] = copy.deepcopy(KubernetesWorker.get_default_base_job_template())
    return made


def three_pools(folder: Path, suffix: str = "", **of_cluster: Any) -> DeploymentFile:
    """One deployment for a pool of each type."""
    pools = {
        "in-processes": {"name": "beside", "work_queue_name": "watching"},
        "in-containers": in_docker(folder),
        "in-jobs": on_cluster(folder, **of_cluster),
    }
    one = {"entrypoint": "flows.operations.look_for_data", "parameters": {"recipe": str(recipe_in(folder))}}
    values = [one | {"name": name, "work_pool": pool | {"name": pool["name"] + suffix}} for name, pool in pools.items()]
    path = folder / "pools.yaml"
    path.write_text(yaml.safe_dump({"name": "tunegate", "deployments": values}), encoding="utf-8")
    return read_deployments(path)


async def run_in_a_cluster(folder: Path) -> tuple[FakeCluster, str]:
    """What a cluster was asked for by Prefect's worker, which begins a run and takes its Job away; and what Prefect calls that."""
    async with fake_cluster() as cluster, get_client() as client:
        file = three_pools(folder, cluster_config={"config": cluster.as_seen_by(folder), "context_name": "fake"})
        await asyncio.to_thread(register, file, Limits(), Environments())
        deployment = await client.read_deployment_by_name("look-for-data/in-jobs")
        asked = await client.create_flow_run_from_deployment(deployment.id)
        worker = KubernetesWorker(work_pool_name="trainings")
        await worker.start(run_once=True)
        (job,) = [each for (resource, _), each in cluster.objects.items() if resource == "jobs"]
        secrets = {"stages": {"TUNEGATE_REGISTRY_URL": f"sqlite:///{folder / 'registry.db'}"}}
        await asyncio.to_thread(run_as_a_node_would, job, secrets, folder)
        assert (await client.read_flow_run(asked.id)).state_type == "COMPLETED"
        pid = (await client.read_flow_run(asked.id)).infrastructure_pid or ""
        template = (await client.read_work_pool("trainings")).base_job_template
        configuration = await worker.job_configuration.from_template_and_values(template, deployment.job_variables, client=client)
        await worker.kill_infrastructure(pid, configuration)
        return cluster, pid


def approve_over_http(site: Site, release: Release) -> None:
    """As an application of the approver's would, with a key of its own."""
    _, secret = site.registry.create_key("bob", [Scope.APPROVE])
    with httpx.Client(base_url=f"{site.url}/admin", headers={"Authorization": f"Bearer {secret.get_secret_value()}"}) as admin:
        until(lambda: admin.get("/releases").status_code == 200)
        assert admin.post(f"/releases/{release.id}/approve", json={"evidence_digest": release.evidence_digest}).status_code == 200


def alert_over_http(site: Site, alert: Alert) -> None:
    """As Alertmanager does, with a key of its own, to the hooks that tell the real Prefect."""
    _, secret = site.registry.create_key("alertmanager", [Scope.ADMIN])
    hooks = TestClient(create_app(site.registry.key_index), headers={"Authorization": f"Bearer {secret.get_secret_value()}"})
    assert hooks.post("/alerts", json=as_alertmanager(alert)).json() == {"told": 1}


def shown(server: PrefectServer, key: str) -> str:
    """The artifact of this key."""
    found = server.post("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})
    return str(found[0]["data"]) if found else ""


def in_words(server: PrefectServer, run: dict[str, Any]) -> str:
    """Where a run's time went."""
    tasks = server.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    stages_s = sum(task["total_run_time"] for task in tasks)
    waited_s = (moment(run["start_time"]) - moment(run["created"])).total_seconds()
    within_s = run["total_run_time"] - stages_s
    return f"{len(tasks)} stages {stages_s:.2f} s; from event to start {waited_s:.2f} s; between stages {within_s:.2f} s"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
