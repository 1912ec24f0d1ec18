"""The committed Prometheus and Grafana files: up to date, valid, and about metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import queries
from monitoring.alerts import ALERTS
from monitoring.dashboards import PANELS, gateway_dashboard
from monitoring.provisioning import files, write
from monitoring.queries import Query, first_token_quantile, latency_quantile
from serving.metrics import series_names

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: the rules go UNCHECKED (apt-get install prometheus)"
)

NAMED = [value for value in vars(queries).values() if isinstance(value, Query)]
PANEL_QUERIES = [query for panel in PANELS for query in panel.queries]
EXPRESSIONS = {query.name: query.expr for query in [*NAMED, *PANEL_QUERIES]} | {alert.name: alert.expr for alert in ALERTS}
_PROMETHEUS_OWN = {"up"}


@pytest.mark.parametrize("name", files())
def test_the_committed_file_is_what_the_code_writes(name: str) -> None:
    assert (DEPLOY / name).read_text(encoding="utf-8") == files()[name], "run: python -m monitoring"


def test_write_writes_every_file(tmp_path: Path) -> None:
    assert sorted(path.relative_to(tmp_path).as_posix() for path in write(tmp_path)) == sorted(files())


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_in_a_query_panel_or_alert_exists(name: str) -> None:
    used = set(re.findall(r"\b(?:tunegate|process)_\w+|\bup\b", EXPRESSIONS[name]))
    assert used
    assert used <= series_names() | _PROMETHEUS_OWN


def test_every_alert_says_how_bad_what_and_what_to_do() -> None:
    assert len(ALERTS) == 6
    for alert in ALERTS:
        assert alert.severity in {"page", "ticket"}
        assert alert.summary
        assert alert.runbook


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {alert.name: {bool(case.fires) for case in alert.cases} for alert in ALERTS} == {alert.name: {True, False} for alert in ALERTS}


def test_the_two_objectives_are_in_the_rules() -> None:
    rules = {alert.name: alert.expr for alert in ALERTS}
    assert "> 0.001" in rules["TunegateErrorRatioHigh"]
    assert "histogram_quantile(0.95" in rules["TunegateLatencyP95High"]
    assert "> 2\n" in rules["TunegateLatencyP95High"]


def test_prometheus_scrapes_the_gateway_where_it_listens_by_default() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert [target for job in config["scrape_configs"] for c in job["static_configs"] for target in c["targets"]] == ["127.0.0.1:8080"]


def rectangles(dashboard: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    return [(p["x"], p["y"], p["x"] + p["w"], p["y"] + p["h"]) for p in (panel["gridPos"] for panel in dashboard["panels"])]


def test_no_two_panels_overlap_and_all_fit_the_grid() -> None:
    places = rectangles(gateway_dashboard())
    assert len(places) == len(PANELS)
    assert all(right <= 24 for _, _, right, _ in places)
    pairs = [(a, b) for index, a in enumerate(places) for b in places[index + 1 :]]
    assert not [(a, b) for a, b in pairs if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]


def test_every_panel_asks_the_provisioned_datasource_and_explains_itself() -> None:
    datasource = yaml.safe_load(files()["grafana/provisioning/datasources/tunegate.yml"])["datasources"][0]["uid"]
    for panel in gateway_dashboard()["panels"]:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {datasource}
        assert panel["description"]


def test_the_queries_of_one_panel_share_a_unit() -> None:
    assert {panel.title: len({query.unit for query in panel.queries}) for panel in PANELS} == {panel.title: 1 for panel in PANELS}


def test_the_dashboard_shows_what_was_promised() -> None:
    wanted = [
        queries.REQUESTS_BY_OUTCOME, queries.ERROR_RATIO, latency_quantile(0.5), latency_quantile(0.95), latency_quantile(0.99),
        first_token_quantile(0.95), queries.IN_FLIGHT, queries.TOKENS, queries.CHAMPIONS, queries.GENERATION, queries.SLOT_STATES,
    ]  # fmt: skip
    assert [query.name for query in wanted if query not in PANEL_QUERIES] == []
    assert json.loads((DEPLOY / "grafana/dashboards/gateway.json").read_text())["uid"] == "tunegate-gateway"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROMTOOL or "promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)


@needs_promtool
def test_promtool_accepts_the_configuration_and_counts_every_rule() -> None:
    result = promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(ALERTS)} rules found" in result.stdout


@needs_promtool
def test_promtool_sees_each_alert_fire_and_keep_quiet_as_the_cases_say() -> None:
    result = promtool("test", "rules", str(DEPLOY / "prometheus/alerts.test.yml"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(yaml.safe_load((DEPLOY / "prometheus/alerts.test.yml").read_text())["tests"]) == sum(len(alert.cases) for alert in ALERTS)


@needs_promtool
def test_promtool_notices_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    """The check of the check: with the limit raised a hundredfold, the firing cases must fail."""
    write(tmp_path)
    rules = tmp_path / "prometheus/alerts.yml"
    rules.write_text(rules.read_text().replace("> 0.001", "> 0.1"))
    assert promtool("test", "rules", str(tmp_path / "prometheus/alerts.test.yml")).returncode != 0
