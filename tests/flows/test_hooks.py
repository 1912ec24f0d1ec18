"""The webhooks: only a key with the scope, only known shapes, only firing alerts; and Alertmanager is told to try again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect.events import Resource, ResourceSpecification
from starlette.testclient import TestClient

from flows.deployments import read_deployments
from flows.errors import PrefectUnreachable
from flows.events import ALERT_FIRING, DATA_CHANGED
from flows.hooks import create_app
from monitoring.alerting import Alert
from monitoring.alerts import ALERTS
from serving.keys import Scope
from serving.registry import Registry
from tests.fakes_flows import ROOT
from tests.fakes_prefect import as_alertmanager

ALERT = {"status": "firing", "labels": {"alertname": "RowsDrift", "action": "retrain", "instance": "a:1"}, "annotations": {"x": "y"}}


class Hooks:
    """The app over a real registry, with a Prefect that writes down what it hears."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(f"sqlite:///{folder / 'registry.db'}")
        self.heard: list[tuple[str, str, Mapping[str, str]]] = []
        self.is_down = False
        self.client = TestClient(create_app(self.registry.key_index, self._announce))

    def _announce(self, event: str, resource: str, labels: Mapping[str, str]) -> bool:
        if self.is_down:
            raise PrefectUnreachable("nobody answers")
        self.heard.append((event, resource, labels))
        return True

    def key(self, scope: Scope) -> str:
        return self.registry.create_key("alertmanager", [scope])[1].get_secret_value()

    def post(self, path: str, body: Any, key: str | None = None) -> int:
        content = body if isinstance(body, bytes) else json.dumps(body)
        headers = {"Authorization": f"Bearer {key or self.key(Scope.ADMIN)}"}
        return int(self.client.post(path, content=content, headers=headers).status_code)


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks(tmp_path)


def test_each_firing_alert_is_an_event_with_the_labels_that_automations_match(hooks: Hooks) -> None:
    resolved = ALERT | {"status": "resolved"}
    assert hooks.post("/alerts", {"version": "4", "status": "firing", "alerts": [ALERT, resolved]}) == 202
    labels = {"tunegate.alert": "RowsDrift", "tunegate.action": "retrain"}
    assert hooks.heard == [(ALERT_FIRING, "tunegate.alert.RowsDrift", labels)]


def test_news_of_data_names_the_recipe(hooks: Hooks) -> None:
    assert hooks.post("/data", {"recipe": "clinic"}) == 202
    assert hooks.heard == [(DATA_CHANGED, "tunegate.recipe.clinic", {"tunegate.recipe": "clinic"})]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        {"recipe": "{{ 1 + 1 }}"},
        {"recipe": "../other"},
        {"recipe": "a" * 200},
        {"recipe": "clinic", "path": "/"},
        {},
    ],
)
def test_what_is_no_name_is_refused(hooks: Hooks, body: Any) -> None:
    assert hooks.post("/data", body) == 400
    assert hooks.heard == []


def test_a_body_without_end_is_not_read_to_its_end(hooks: Hooks) -> None:
    assert hooks.post("/data", b" " * (1 << 21)) == 413


def test_a_stranger_and_a_caller_without_the_scope_are_refused(hooks: Hooks) -> None:
    refused = [hooks.post("/data", {"recipe": "clinic"}, key) for key in ("sk-unknown", hooks.key(Scope.INFER))]
    assert (refused, hooks.heard) == ([401, 403], [])


def test_while_prefect_is_down_alertmanager_is_told_to_try_again(hooks: Hooks) -> None:
    hooks.is_down = True
    assert hooks.post("/alerts", {"version": "4", "alerts": [ALERT]}) == 503


def started_by(event: str, labels: Mapping[str, str]) -> list[str]:
    """The shipped deployments that wait for this event, matched as Prefect matches it."""
    resource = Resource({"prefect.resource.id": "tunegate.any", **labels})
    return [
        deployment.name
        for deployment in read_deployments(ROOT / "deploy/prefect.yaml").deployments
        for trigger in deployment.triggers
        if event in trigger.expect and ResourceSpecification(dict(trigger.match)).matches(resource)
    ]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_a_shipped_alert_starts_what_its_action_says_and_no_other_does(hooks: Hooks, alert: Alert) -> None:
    assert hooks.post("/alerts", as_alertmanager(alert)) == 202
    ((event, resource, labels),) = hooks.heard
    assert resource == f"tunegate.alert.{alert.name}"
    assert started_by(event, labels) == (["from-production"] if alert.action == "collect" else [])


def test_an_alert_of_ones_own_that_asks_for_it_trains(hooks: Hooks) -> None:
    hooks.post("/alerts", {"version": "4", "alerts": [ALERT]})
    assert started_by(hooks.heard[0][0], hooks.heard[0][2]) == ["weekly"]
