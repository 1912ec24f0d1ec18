"""The file of deployments: the shipped one is sound, and every way to get one wrong is told with its line."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import cli
from flows.deployments import Schedule, read_deployments
from flows.errors import BAD_INPUT, DONE, FAILED, DeploymentError
from serving.slots import free_port
from tests.fakes_flows import ROOT, write_recipe

PROMOTE = {"name": "on-approval", "entrypoint": "flows.pipeline.promote", "work_pool": {"work_queue_name": "promotion"}}


def retrain(folder: Path, **changes: Any) -> dict[str, Any]:
    """A sound deployment, changed."""
    made: dict[str, Any] = {
        "name": "weekly",
        "entrypoint": "flows.pipeline.retrain",
        "parameters": {"recipe": str(write_recipe(folder)), "requester": "schedule"},
        "work_pool": {"work_queue_name": "training"},
    }
    return made | changes


def faults_of(folder: Path, *deployments: dict[str, Any]) -> str:
    """What is said about a file with these deployments."""
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"name": "tunegate", "deployments": list(deployments)}, sort_keys=False), encoding="utf-8")
    with pytest.raises(DeploymentError) as caught:
        read_deployments(path)
    return str(caught.value)


def test_the_shipped_file_runs_each_flow_and_trains_weekly() -> None:
    read = read_deployments(ROOT / "deploy" / "prefect.yaml")
    assert {deployment.flow.name for deployment in read.deployments} == {
        "retrain", "look-for-data", "collect", "promote", "watch", "evaluate", "rollback", "make-room",
        "take-up",
    }  # fmt: skip
    (weekly,) = read.deployments[0].schedules
    assert (weekly.cron, weekly.timezone) == ("0 3 * * 1", "UTC")


def test_every_flow_describes_its_parameters_for_the_form() -> None:
    described = {}
    for deployment in read_deployments(ROOT / "deploy" / "prefect.yaml").deployments:
        for name, schema in deployment.flow.parameters.model_dump()["properties"].items():
            described[f"{deployment.flow.name}.{name}"] = len(schema.get("description", "")) > 5
    assert len(described) >= 10
    assert [name for name, has in described.items() if not has] == []


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"cron": "0 3 * *"}, "has 4 fields, not 5"),
        ({"cron": "0 25 * * 1"}, "cannot be read"),
        ({"cron": "0 3 30 2 *"}, "names no date that comes"),
        ({"rrule": "DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY;COUNT=3"}, "lies in the past"),
        ({"rrule": "every day"}, "cannot be read"),
        ({"cron": "0 3 * * 1", "timezone": "Europe/Berlim"}, "did you mean Europe/Berlin?"),
        ({"cron": "0 3 * * 1", "interval": 3600}, "give exactly one of cron, interval and rrule"),
        ({}, "given: none"),
        ({"interval": 1}, "greater than or equal to 60"),
    ],
)
def test_a_schedule_that_would_not_run_as_meant_is_refused(tmp_path: Path, schedule: dict[str, Any], told: str) -> None:
    shown = faults_of(tmp_path, retrain(tmp_path, schedules=[schedule]))
    assert told in shown
    assert f"{tmp_path / 'prefect.yaml'}:" in shown


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"entrypoint": "flows.pipeline.retrian"}, "Input should be 'flows.pipeline.retrain'"),
        ({"parameters": {"recipe": "none.yaml", "requester": "me"}}, "none.yaml"),
        ({"parameters": {"recipes": "x"}}, "did you mean 'recipe'?"),
        ({"parameters": {}, "schedules": [{"interval": 3600}]}, "nobody is there to give recipe, requester"),
        ({"triggers": [{"expect": ["tunegate.data.changd"]}]}, "did you mean 'tunegate.data.changed'?"),
        ({"triggers": [{"expect": ["tunegate.data.changed"], "within": 0}]}, "greater than or equal to 1"),
        ({"work_pool": {"work_queue_name": "gpu"}}, "Input should be 'training', 'promotion' or 'watching'"),
    ],
)
def test_a_deployment_that_could_not_run_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in faults_of(tmp_path, retrain(tmp_path, **changes))


def test_a_trigger_must_give_what_the_flow_needs(tmp_path: Path) -> None:
    shown = faults_of(tmp_path, PROMOTE | {"triggers": [{"expect": ["tunegate.release.approved"], "parameters": {"actor": "x"}}]})
    assert "on an event, and nobody is there to give release_id" in shown


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    twice = [retrain(tmp_path), retrain(tmp_path, parameters={"recipes": "x"}), PROMOTE | {"schedules": [{"interval": 60}]}]
    shown = faults_of(tmp_path, *twice)
    assert all(told in shown for told in ("'weekly' is there twice", "no parameter 'recipes'", "nobody is there to give actor, release_id"))


def test_a_schedule_says_when_it_fires_next_in_its_own_time_zone() -> None:
    assert "Europe/Berlin, next " in Schedule(cron="0 3 * * 1", timezone="Europe/Berlin").in_words()
    assert Schedule(cron="0 3 * * 1", timezone="Europe/Berlin").in_words().endswith("03:00")


def commanded(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of `tunegate` with these words."""
    monkeypatch.setattr(sys, "argv", ["tunegate", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(str(ended.value.code))


def test_a_check_says_when_each_deployment_runs_next_and_needs_no_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert commanded(monkeypatch, "deploy", str(ROOT / "deploy" / "prefect.yaml"), "--check") == DONE
    shown = capsys.readouterr().out
    assert "retrain/weekly: 0 3 * * 1 UTC, next " in shown
    assert "promote/on-approval: on tunegate.release.approved, debounced 60 s" in shown
    assert "rollback/by-hand: by hand" in shown


@pytest.mark.parametrize(
    ("has_server", "status", "told"),
    [(False, BAD_INPUT, "no Prefect server is named"), (True, FAILED, "did not take the deployments: ConnectError")],
)
def test_without_a_server_that_answers_nothing_is_registered_and_the_address_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], has_server: bool, status: int, told: str
) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    address = f"http://127.0.0.1:{free_port()}/api" if has_server else None
    with temporary_settings({PREFECT_API_URL: address}):
        assert commanded(monkeypatch, "deploy", str(ROOT / "deploy" / "prefect.yaml")) == status
    shown = capsys.readouterr().err
    assert told in shown
    assert (address or "export PREFECT_API_URL=") in shown
