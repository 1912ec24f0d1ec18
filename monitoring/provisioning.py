"""The files Prometheus and Grafana read, rendered from code: `python -m monitoring` writes them below `deploy/`.

Prometheus runs on the gateway's machine, because `/metrics` answers nobody else.
Knows nothing of running servers. Next: `deploy/prometheus/prometheus.yml`, which is one of the files.
"""

from pathlib import Path
from typing import Any

import yaml

from monitoring.alerting import ACTIONS
from monitoring.alerts import ALERTS
from monitoring.dashboards import BOARDS
from monitoring.grafana import DATASOURCE_UID, dashboard_json
from monitoring.queries_engine import ENGINE_JOB

GATEWAY = "127.0.0.1:8080"
ALERTMANAGER = "127.0.0.1:9093"
HOOKS_URL = "http://127.0.0.1:8090/alerts"
PROMETHEUS_URL = "http://127.0.0.1:9090"
DASHBOARDS_IN_GRAFANA = "/etc/grafana/dashboards"
_HEADER = "# Written by `python -m monitoring`; change monitoring/ instead.\n"


def files() -> dict[str, str]:
    """Path below `deploy/` -> content."""
    return {
        "prometheus/prometheus.yml": _yaml(prometheus_config(GATEWAY)),
        "prometheus/alerts.yml": _yaml(_alert_groups()),
        "kubernetes/base/prometheus-rule.yaml": _yaml(_prometheus_rule()),
        **{name: _yaml(tests) for name, tests in _alert_tests().items()},
        "alertmanager/alertmanager.yml": _yaml(_alertmanager()),
        **{f"grafana/dashboards/{board.slug}.json": dashboard_json(board) for board in BOARDS},
        "grafana/provisioning/datasources/tunegate.yml": _yaml(_datasource()),
        "grafana/provisioning/dashboards/tunegate.yml": _yaml(_dashboard_provider()),
    }


def write(deploy: Path) -> list[Path]:
    """Write every file below `deploy` and return their paths."""
    written = []
    for name, content in files().items():
        path = deploy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def prometheus_config(gateway: str, *, interval: str = "5s") -> dict[str, Any]:
    """Prometheus' own configuration; `gateway` is host:port, `interval` the time between two scrapes and two evaluations."""
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": ["alerts.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER]}]}]},
        "scrape_configs": [
            {"job_name": "tunegate", "metrics_path": "/metrics", "static_configs": [{"targets": [gateway]}]},
            _engines(gateway, interval),
        ],
    }


def _alert_groups() -> dict[str, Any]:
    return {"groups": [{"name": "tunegate", "rules": [alert.rule() for alert in ALERTS]}]}


def _prometheus_rule() -> dict[str, Any]:
    """The same alerts for the Prometheus operator."""
    meta = {"name": "tunegate", "labels": {"app.kubernetes.io/name": "tunegate"}}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": meta, "spec": _alert_groups()}


def _engines(gateway: str, interval: str) -> dict[str, Any]:
    """The engines come and go on ports of their own; the gateway knows which are ready, and whose they are."""
    return {
        "job_name": ENGINE_JOB,
        "http_sd_configs": [{"url": f"http://{gateway}/metrics/slots", "refresh_interval": interval}],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "vllm:.+", "action": "keep"}],
    }


def _alertmanager() -> dict[str, Any]:
    """An example of a route: pages at once and again, tickets gathered for the day. The addresses are to be filled in."""
    return {
        "route": {
            "receiver": "tickets",
            "group_by": ["alertname", "public_name", "release"],
            "group_wait": "1m",
            "group_interval": "1h",
            "repeat_interval": "1d",
            "routes": [
                {"matchers": [f'action=~"{"|".join(ACTIONS)}"'], "receiver": "tunegate", "continue": True},
                {
                    "matchers": ['severity="page"'],
                    "receiver": "pager",
                    "group_wait": "10s",
                    "group_interval": "5m",
                    "repeat_interval": "1h",
                },
                # The root's receiver hears only what no route takes, and the first one takes tickets too.
                {"receiver": "tickets"},
            ],
        },
        # A gateway that is down explains whatever else seems wrong behind it.
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="TunegateGatewayDown"'],
                "target_matchers": ['alertname=~"Tunegate.+"', 'alertname!="TunegateGatewayDown"'],
            }
        ],
        "receivers": [
            {"name": "tunegate", "webhook_configs": [{"url": HOOKS_URL, "send_resolved": False, "http_config": {"authorization": _key()}}]},
            {"name": "pager", "webhook_configs": [{"url": "http://127.0.0.1:9094/page"}]},
            {"name": "tickets", "webhook_configs": [{"url": "http://127.0.0.1:9094/ticket"}]},
        ],
    }


def _key() -> dict[str, str]:
    # A key of the gateway's with the scope admin; tunegate hooks asks for it.
    return {"type": "Bearer", "credentials_file": "/run/secrets/hooks_key"}


def _alert_tests() -> dict[str, dict[str, Any]]:
    """One file for each interval: promtool evaluates every rule at every step of a whole file."""
    intervals = sorted({alert.test_interval for alert in ALERTS})
    return {f"prometheus/alerts.{interval}.test.yml": _tests_every(interval) for interval in intervals}


def _tests_every(interval: str) -> dict[str, Any]:
    tests = [test for alert in ALERTS if alert.test_interval == interval for test in alert.tests()]
    return {"rule_files": ["alerts.yml"], "evaluation_interval": interval, "tests": tests}


def _datasource() -> dict[str, Any]:
    # timeInterval is the scrape interval: Grafana makes $__rate_interval at least four of them.
    source = {"name": "tunegate", "uid": DATASOURCE_UID, "type": "prometheus", "access": "proxy", "url": PROMETHEUS_URL, "isDefault": True}
    return {"apiVersion": 1, "datasources": [source | {"jsonData": {"timeInterval": "5s"}}]}


def _dashboard_provider() -> dict[str, Any]:
    provider = {"name": "tunegate", "type": "file", "allowUiUpdates": False, "options": {"path": DASHBOARDS_IN_GRAFANA}}
    return {"apiVersion": 1, "providers": [provider]}


def _yaml(content: dict[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=140)
