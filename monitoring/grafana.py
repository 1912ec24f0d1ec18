"""Writes a dashboard as Grafana's JSON, by Grafana's own typed builders: a misspelt option is an error here and not an empty panel there.

Knows nothing of what the panels ask. Next: `provisioning.py`, which puts the files where Grafana finds them.
"""

from collections.abc import Callable

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

from monitoring import queries
from monitoring.dashboards import Board, Panel, Row

DATASOURCE_UID = "tunegate-prometheus"
TAG = "tunegate"
_DATASOURCE = DataSourceRef(type_val="prometheus", uid=DATASOURCE_UID)
_HEIGHTS = {"timeseries": 8, "stat": 5, "bars": 8}
_Made = timeseries.Panel | stat.Panel | bargauge.Panel
_LETTERS = "ABCDEFGH"


def dashboard_json(board: Board) -> str:
    """The dashboard as Grafana's file provisioning reads it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(uid_of(board))
        .description(board.says)
        .tags([TAG])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .annotation(_CHAMPION_CHANGES)
        .link(dashboard.DashboardLink("tunegate").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
    )
    number = 0
    for row in board.rows:
        made = made.with_row(_row(row, number := number + 1))
        for panel in row.panels:
            made = made.with_panel(_panel(panel).id(number := number + 1))
    return JSONEncoder(sort_keys=False, indent=2, ensure_ascii=False).encode(made.build()) + "\n"


def uid_of(board: Board) -> str:
    """The dashboard's address in Grafana."""
    return f"tunegate-{board.slug}"


class _ChampionChanges(dashboard.AnnotationQuery):
    """A vertical line at every promotion and rollback."""

    def build(self) -> AnnotationQuery:
        return AnnotationQuery("champion changes", _DATASOURCE, icon_color="blue", expr=queries.CHAMPION_CHANGES.expr)


_CHAMPION_CHANGES = _ChampionChanges()


def _row(row: Row, number: int) -> dashboard.Row:
    return dashboard.Row(row.title).id(number)


def _panel(panel: Panel) -> _Made:
    made = _MAKERS[panel.kind](panel)
    made = made.title(panel.title).description("\n".join(dict.fromkeys(query.help for query in panel.queries)))
    made = made.datasource(_DATASOURCE).unit(panel.queries[0].unit).span(panel.width).height(_HEIGHTS[panel.kind])
    made = made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(panel)))
    if not panel.span_all:
        made = made.min(0)
    if panel.decimals is not None:
        made = made.decimals(panel.decimals)
    for letter, query in zip(_LETTERS, panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).datasource(_DATASOURCE).expr(query.expr).legend_format(query.legend)
        made = made.with_target(target.range() if panel.kind == "timeseries" else target.instant())
    return made


def _stat(panel: Panel) -> stat.Panel:
    mode = options.BigValueTextMode.NAME if panel.by_label else options.BigValueTextMode.AUTO
    return (
        stat.Panel()
        .text_mode(mode)
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def _timeseries(panel: Panel) -> timeseries.Panel:
    line = options.GraphThresholdsStyleMode.OFF if panel.limit is None else options.GraphThresholdsStyleMode.LINE
    return (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(8)
        .show_points(options.VisibilityMode.NEVER)
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(line))
        .legend(common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).placement(options.LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )  # fmt: skip


def _steps(panel: Panel) -> list[Threshold]:
    low, high = ("green", "red") if panel.good == "below" else ("red", "green")
    steps = [Threshold(None, low if panel.limit is not None else "green")]
    return steps if panel.limit is None else [*steps, Threshold(panel.limit, high)]


def _bars(panel: Panel) -> bargauge.Panel:
    return (
        bargauge.Panel()
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


_MAKERS: dict[str, Callable[[Panel], _Made]] = {"timeseries": _timeseries, "stat": _stat, "bars": _bars}
