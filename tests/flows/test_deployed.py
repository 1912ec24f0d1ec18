"""The shipped deployments on a real Prefect server with a real worker: a schedule looks, data trains, an approval over HTTP promotes.

Training is finished beforehand; everything else is real but the engines' answers.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from flows import new_data
from flows.deployments import DEBOUNCE_S, DeploymentFile, read_deployments
from flows.events import ALERT_FIRING, APPROVED, DATA_CHANGED, announce
from flows.recipe import load_recipe
from flows.registering import Limits, register
from serving.keys import Scope
from serving.lifecycle import State
from serving.records import Release
from tests.fakes_flows import ROOT, SAFE, QuickStages, Site, finish_training, open_small_line, recipe_values, until, write_recipe
from tests.fakes_postgres import postgres_cluster
from tests.fakes_prefect import POLL_S, PrefectServer, prefect_server

pytestmark = pytest.mark.slow

STORM = 100


@pytest.fixture
def server(prefect: PrefectServer) -> Iterator[PrefectServer]:
    with prefect.ours():
        yield prefect


@pytest.fixture
def told_site(server: PrefectServer, tmp_path: Path) -> Iterator[Site]:
    """A server that tells Prefect what happens to its releases."""
    made = Site(tmp_path / "home")
    with made.serving(PREFECT_API_URL=server.url):
        yield made
    made.registry.close()


def shipped(folder: Path, recipe: Path, at: datetime) -> DeploymentFile:
    """deploy/prefect.yaml for another recipe, whose data is looked at from `at` on, which a slow machine may miss, and then again."""
    values: Any = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text(encoding="utf-8"))
    for each in values["deployments"]:
        if "recipe" in each.get("parameters", {}):
            each["parameters"]["recipe"] = str(recipe)
        if each["entrypoint"].endswith("look_for_data"):
            each["schedules"] = [{"rrule": f"DTSTART:{at:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=MINUTELY;COUNT=5"}]
        for trigger in each.get("triggers", []):
            if "tunegate.recipe" in trigger.get("match", {}):
                trigger["match"] = {"tunegate.recipe": load_recipe(recipe).name}
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return read_deployments(path)


def test_a_schedule_finds_new_data_a_storm_trains_once_and_an_approval_promotes(
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

    soon = datetime.now(UTC) + timedelta(seconds=5)
    registered = register(shipped(tmp_path, recipe, soon), Limits(), site.environment)
    assert len(registered) == 7
    with server.worker({}):
        assert server.wait_for_run("look-for-data")["deployment_id"] is not None
        for _ in range(STORM):
            announce(DATA_CHANGED, "tunegate.recipe.deployed", {"tunegate.recipe": "deployed"})
        run = server.wait_for_run("retrain")
        release = site.registry.release("deployed-2")
        assert release.state is State.AWAITING_APPROVAL
        assert shown(server, "verdict").startswith("# PASS: deployed-2, against deployed-1")

        approve_over_http(site, release)
        server.wait_for_run("promote")
        assert site.registry.release(release.id).state is State.LIVE
        until(lambda: bool(server.runs("watch")), 120, POLL_S)
        until(lambda: release.id in server.events("tunegate.release.promoted"), 120, POLL_S)
    assert [each["id"] for each in server.runs("retrain")] == [run["id"]], f"{STORM} events within {DEBOUNCE_S} s are one"
    assert [server.events(f"tunegate.release.{what}").count(release.id) for what in ("approved", "promoted")] == [1, 1], "told once"
    print(in_words(server, run))


def approve_over_http(site: Site, release: Release) -> None:
    """As an application of the approver's would, with a key of its own."""
    _, secret = site.registry.create_key("bob", [Scope.APPROVE])
    with httpx.Client(base_url=f"{site.url}/admin", headers={"Authorization": f"Bearer {secret.get_secret_value()}"}) as admin:
        until(lambda: admin.get("/releases").status_code == 200)
        assert admin.post(f"/releases/{release.id}/approve", json={"evidence_digest": release.evidence_digest}).status_code == 200


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


def test_on_postgresql_a_storm_is_one_run_too_and_registering_again_replaces(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, recipe_values("stormy") | {"name": "stormy"})
    never = datetime.now(UTC) + timedelta(days=30)
    with postgres_cluster() as cluster:
        database = cluster.empty().replace("postgresql://", "postgresql+asyncpg://")
        with prefect_server(tmp_path / "prefect", database) as server, server.ours():
            file = shipped(tmp_path, recipe, never)
            assert register(file, Limits(), {}) == register(file, Limits(training=2), {})
            assert len(server.post("/deployments/filter", {})) == 7
            limits = {queue["name"]: queue["concurrency_limit"] for queue in server.post("/work_pools/tunegate/queues/filter", {})}
            assert limits == {"default": None, "training": 2, "promotion": 1, "watching": 16}
            for _ in range(STORM):
                announce(DATA_CHANGED, "tunegate.recipe.stormy", {"tunegate.recipe": "stormy"})
            for _ in range(STORM):
                announce(ALERT_FIRING, "tunegate.alert.TunegateDrift", {"tunegate.alert": "TunegateDrift"})
            for _ in range(2):  # events are taken in order: once this one has led to a run, the storm is over
                announce(APPROVED, "tunegate.release.a-2", {"tunegate.release": "a-2", "tunegate.actor": "bob"})
            until(lambda: len(started_by_event(server, "promote")) == 1, 180, POLL_S)
            assert [len(started_by_event(server, flow)) for flow in ("retrain", "collect")] == [1, 1]


def started_by_event(server: PrefectServer, flow: str) -> list[dict[str, Any]]:
    """Runs of a flow that no calendar asked for."""
    found = server.post("/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
    return [run for run in found if not run["auto_scheduled"]]
