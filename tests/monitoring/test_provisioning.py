"""The committed Prometheus and Grafana files: up to date, valid, and about metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import queries, queries_engine, queries_line, queries_rollouts, queries_training
from monitoring.alerting import ACTIONS, Alert
from monitoring.alerts import ALERTS
from monitoring.dashboards import BOARDS, Board
from monitoring.grafana import uid_of
from monitoring.provisioning import files, write
from monitoring.queries import Query
from monitoring.queries_engine import ENGINE_SERIES
from serving.metrics import series_names

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: the rules go UNCHECKED (apt-get install prometheus)"
)

QUERY_FILES = (queries, queries_rollouts, queries_engine, queries_line, queries_training)
NAMED = [value for module in QUERY_FILES for value in vars(module).values() if isinstance(value, Query)]
PANELS = [panel for board in BOARDS for panel in board.panels]
PANEL_QUERIES = [query for panel in PANELS for query in panel.queries]
EXPRESSIONS = {query.name: query.expr for query in [*NAMED, *PANEL_QUERIES]} | {alert.name: alert.expr for alert in ALERTS}
README = (DEPLOY.parent / "monitoring/README.md").read_text(encoding="utf-8")
TEST_FILES = sorted(name for name in files() if name.endswith(".test.yml"))
_PROMETHEUS_OWN = {"up"}


@pytest.mark.parametrize("name", files())
def test_the_committed_file_is_what_the_code_writes(name: str) -> None:
    assert (DEPLOY / name).read_text(encoding="utf-8") == files()[name], "run: python -m monitoring"


def test_write_writes_every_file(tmp_path: Path) -> None:
    assert sorted(path.relative_to(tmp_path).as_posix() for path in write(tmp_path)) == sorted(files())


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_in_a_query_panel_or_alert_exists(name: str) -> None:
    used = set(re.findall(r"\b(?:tunegate|process)_\w+|\bvllm:\w+|\bup\b", EXPRESSIONS[name]))
    assert used
    assert used <= series_names() | _PROMETHEUS_OWN | ENGINE_SERIES


def test_every_alert_says_how_bad_what_and_what_to_do() -> None:
    assert len(ALERTS) == 21
    for alert in ALERTS:
        assert alert.severity in {"page", "ticket"}
        assert alert.summary
        assert alert.runbook


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {alert.name: {bool(case.fires) for case in alert.cases} for alert in ALERTS} == {alert.name: {True, False} for alert in ALERTS}


def test_every_alert_has_a_chapter_in_the_runbook() -> None:
    assert [alert.name for alert in ALERTS if f"\n### {alert.name}\n" not in README] == []
    assert len(re.findall(r"^### Tunegate", README, re.MULTILINE)) == len(ALERTS)


def test_the_two_objectives_are_in_the_rules() -> None:
    """14.4 times 0.1 % and 14.4 times 5 %, over one hour and five minutes."""
    rules = {alert.name: alert.expr for alert in ALERTS}
    assert rules["TunegateErrorBudgetBurnsFast"].count("> 0.0144") == 2
    assert rules["TunegateLatencyBudgetBurnsFast"].count("> 0.72") == 2
    assert 'le="2.0"' in rules["TunegateLatencyBudgetBurnsFast"]


def test_prometheus_scrapes_the_gateway_where_it_listens_by_default() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    gateway, engines = config["scrape_configs"]
    assert gateway["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]
    assert [found["url"] for found in engines["http_sd_configs"]] == ["http://127.0.0.1:8080/metrics/slots"]


def written(board: Board) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((DEPLOY / f"grafana/dashboards/{board.slug}.json").read_text())
    return dashboard


def rectangles(dashboard: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    return [(p["x"], p["y"], p["x"] + p["w"], p["y"] + p["h"]) for p in (panel["gridPos"] for panel in dashboard["panels"])]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.slug)
def test_no_two_panels_overlap_and_all_fit_the_grid(board: Board) -> None:
    places = rectangles(written(board))
    assert len(places) == len(board.rows) + len(list(board.panels))
    assert all(right <= 24 for _, _, right, _ in places)
    pairs = [(a, b) for index, a in enumerate(places) for b in places[index + 1 :]]
    assert not [(a, b) for a, b in pairs if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.slug)
def test_every_panel_asks_the_provisioned_datasource_and_explains_itself(board: Board) -> None:
    datasource = yaml.safe_load(files()["grafana/provisioning/datasources/tunegate.yml"])["datasources"][0]["uid"]
    panels = [panel for panel in written(board)["panels"] if panel["type"] != "row"]
    assert len(panels) == len(list(board.panels))
    for panel in panels:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {datasource}
        assert panel["description"]


def test_panels_and_boards_have_numbers_and_addresses_of_their_own() -> None:
    assert len({uid_of(board) for board in BOARDS}) == len({written(board)["uid"] for board in BOARDS}) == 5
    for board in BOARDS:
        numbers = [panel["id"] for panel in written(board)["panels"]]
        assert len(set(numbers)) == len(numbers)


def test_the_queries_of_one_panel_share_a_unit() -> None:
    assert {panel.title: len({query.unit for query in panel.queries}) for panel in PANELS} == {panel.title: 1 for panel in PANELS}


def test_every_question_is_asked_by_a_panel_an_alert_or_an_annotation() -> None:
    asked = {query.name for query in PANEL_QUERIES} | {queries.CHAMPION_CHANGES.name}
    everywhere = "\n".join(part for alert in ALERTS for part in (alert.expr, *alert.signals))
    in_alerts = {query.name for query in NAMED for w in ("5m", "10m", "1h", "3d") if query.over(w) in everywhere}
    assert [query.name for query in NAMED if query.name not in asked | in_alerts] == []


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROMTOOL or "promtool", *arguments], capture_output=True, text=True, timeout=180, check=False)


@needs_promtool
def test_promtool_accepts_the_configuration_and_counts_every_rule() -> None:
    result = promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(ALERTS)} rules found" in result.stdout


@needs_promtool
@pytest.mark.slow
@pytest.mark.parametrize("name", TEST_FILES)
def test_promtool_sees_each_alert_fire_and_keep_quiet_as_the_cases_say(name: str) -> None:
    result = promtool("test", "rules", str(DEPLOY / name))
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_is_given_every_case() -> None:
    given = sum(len(yaml.safe_load((DEPLOY / name).read_text())["tests"]) for name in TEST_FILES)
    assert given == sum(len(alert.cases) for alert in ALERTS)


@needs_promtool
def test_promtool_notices_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    """The check of the check: with the limit raised a hundredfold, the firing case must fail."""
    write(tmp_path)
    rules = tmp_path / "prometheus/alerts.yml"
    rules.write_text(rules.read_text().replace("> 0.001", "> 0.1"))
    assert promtool("test", "rules", str(tmp_path / "prometheus/alerts.1h.test.yml")).returncode != 0


AMTOOL = shutil.which("amtool")


needs_amtool = pytest.mark.skipif(
    AMTOOL is None, reason="amtool is not installed: the example route goes UNCHECKED (apt-get install prometheus-alertmanager)"
)


def receivers(labels: dict[str, str]) -> list[str]:
    """Who is told of an alert with these labels, as Alertmanager's own tool says."""
    config = f"--config.file={DEPLOY}/alertmanager/alertmanager.yml"
    given = [f"{name}={value}" for name, value in labels.items()]
    routed = subprocess.run([AMTOOL or "amtool", "config", "routes", "test", config, *given], capture_output=True, text=True)
    assert routed.returncode == 0, routed.stderr
    return routed.stdout.strip().split(",")


@needs_amtool
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alertmanager_tells_people_of_each_alert_and_the_hooks_of_those_that_start_something(alert: Alert) -> None:
    people = {"page": "pager", "ticket": "tickets"}[alert.severity]
    assert receivers({"alertname": alert.name, **alert.labels}) == (["tunegate", people] if alert.action else [people])


@needs_amtool
@pytest.mark.parametrize("action", ACTIONS)
def test_an_alert_of_ones_own_with_an_action_reaches_the_hooks_and_the_people(action: str) -> None:
    assert receivers({"alertname": "Mine", "action": action}) == ["tunegate", "tickets"]


def test_drift_and_broken_rules_start_the_collection() -> None:
    assert {alert.name: alert.action for alert in ALERTS if alert.action} == {"TunegateRulesBroken": "collect", "TunegateDrift": "collect"}
