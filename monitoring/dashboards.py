"""The gateway's Grafana dashboard, built from the named queries.

Plain dictionaries in Grafana's JSON model (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/).
Knows nothing of where Grafana runs. Next: `provisioning.py`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from monitoring import queries
from monitoring.alerts import ERROR_RATIO_LIMIT, LATENCY_P95_LIMIT_S
from monitoring.queries import Query, first_token_quantile, latency_quantile

DATASOURCE_UID = "tunegate-prometheus"
_DATASOURCE = {"type": "prometheus", "uid": DATASOURCE_UID}
_COLUMNS = 24


@dataclass(frozen=True)
class Panel:
    """One picture of one or more queries of the same unit. `limit` draws the objective as a red line."""

    title: str
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    kind: Literal["timeseries", "stat"] = "timeseries"
    limit: float | None = None
    by_label: str = ""
    """For a stat: the labels to show instead of the value."""


PANELS = (
    Panel("Champion", (queries.CHAMPIONS,), 8, 5, "stat", by_label="name"),
    Panel("Generation", (queries.GENERATION,), 4, 5, "stat"),
    Panel("Slots", (queries.SLOT_STATES,), 8, 5, "stat", by_label="name"),
    Panel("Error ratio, all releases", (queries.ERROR_RATIO_OVERALL,), 4, 5, "stat", limit=ERROR_RATIO_LIMIT),
    Panel("Requests by outcome", (queries.REQUESTS_BY_OUTCOME,)),
    Panel("Requests by release", (queries.REQUESTS_BY_RELEASE,)),
    Panel("Error ratio by release", (queries.ERROR_RATIO,), limit=ERROR_RATIO_LIMIT),
    Panel("Upstream errors", (queries.UPSTREAM_ERRORS,)),
    Panel("Latency by release", (latency_quantile(0.5), latency_quantile(0.95), latency_quantile(0.99)), limit=LATENCY_P95_LIMIT_S),
    Panel("Time to first token", (first_token_quantile(0.5), first_token_quantile(0.95))),
    Panel("In flight", (queries.IN_FLIGHT,)),
    Panel("Tokens a second", (queries.TOKENS,)),
    Panel("Release transitions", (queries.TRANSITIONS,), 8),
    Panel("Gateway CPU", (queries.GATEWAY_CPU,), 8),
    Panel("Gateway memory", (queries.GATEWAY_MEMORY,), 8),
)


def gateway_dashboard() -> dict[str, Any]:
    """The whole dashboard in Grafana's JSON model."""
    return {
        "uid": "tunegate-gateway",
        "title": "tunegate gateway",
        "tags": ["tunegate"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "panels": _laid_out(PANELS),
        "templating": {"list": []},
        "annotations": {"list": [_champion_changes()]},
    }


def _champion_changes() -> dict[str, Any]:
    """A vertical line at every promotion and rollback."""
    return {
        "name": "champion changes",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": queries.CHAMPION_CHANGES.expr,
        "titleFormat": "champion changed",
    }


def _laid_out(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Left to right, a new row when the next one does not fit."""
    placed, x, y, row_height = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _COLUMNS:
            x, y, row_height = 0, y + row_height, 0
        placed.append(_panel(panel, number) | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}})
        x, row_height = x + panel.width, max(row_height, panel.height)
    return placed


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": panel.kind == "stat",
        }
        for index, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": "\n".join(query.help for query in panel.queries),
        "datasource": _DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": _field_defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _field_defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    defaults: dict[str, Any] = {"unit": panel.queries[0].unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        line = "off" if panel.limit is None else "line"
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "thresholdsStyle": {"mode": line}}
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {
            "reduceOptions": reduce,
            "textMode": panel.by_label or "value",
            "colorMode": "value",
            "graphMode": "none",
            "orientation": "auto",
        }
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
