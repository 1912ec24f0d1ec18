"""The files Prometheus and Grafana read, rendered from code: `python -m monitoring` writes them below `deploy/`.

Prometheus runs on the gateway's machine, because `/metrics` answers nobody else.
Knows nothing of running servers. Next: `deploy/prometheus/prometheus.yml`, which is one of the files.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from monitoring.alerts import ALERTS
from monitoring.dashboards import DATASOURCE_UID, gateway_dashboard

GATEWAY = "127.0.0.1:8080"
PROMETHEUS_URL = "http://127.0.0.1:9090"
DASHBOARDS_IN_GRAFANA = "/etc/grafana/dashboards"
_HEADER = "# Written by `python -m monitoring`; change monitoring/ instead.\n"


def files() -> dict[str, str]:
    """Path below `deploy/` -> content."""
    return {
        "prometheus/prometheus.yml": _yaml(prometheus_config(GATEWAY)),
        "prometheus/alerts.yml": _yaml({"groups": [{"name": "tunegate", "rules": [alert.rule() for alert in ALERTS]}]}),
        "prometheus/alerts.test.yml": _yaml(_alert_tests()),
        "grafana/dashboards/gateway.json": json.dumps(gateway_dashboard(), indent=2, ensure_ascii=False) + "\n",
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
        "scrape_configs": [{"job_name": "tunegate", "metrics_path": "/metrics", "static_configs": [{"targets": [gateway]}]}],
    }


def _alert_tests() -> dict[str, Any]:
    return {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test for alert in ALERTS for test in alert.tests()]}


def _datasource() -> dict[str, Any]:
    # timeInterval is the scrape interval: Grafana makes $__rate_interval at least four of them.
    source = {"name": "tunegate", "uid": DATASOURCE_UID, "type": "prometheus", "access": "proxy", "url": PROMETHEUS_URL, "isDefault": True}
    return {"apiVersion": 1, "datasources": [source | {"jsonData": {"timeInterval": "5s"}}]}


def _dashboard_provider() -> dict[str, Any]:
    provider = {"name": "tunegate", "type": "file", "allowUiUpdates": False, "options": {"path": DASHBOARDS_IN_GRAFANA}}
    return {"apiVersion": 1, "providers": [provider]}


def _yaml(content: dict[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=140)
