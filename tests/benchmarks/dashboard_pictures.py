"""Draws every panel of every dashboard from what a real Prometheus answered, for people to look at.

    PANELS_FILE=panels.json python -m pytest tests/monitoring/test_live_prometheus.py
    python -m tests.benchmarks.dashboard_pictures panels.json FOLDER     writes one HTML page for each dashboard

Not Grafana, but the same queries, legends, units, limits and widths. Not run by pytest.
"""

import html
import json
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
_COLUMN, _HEIGHT, _PAD = 48, 170, 52
_SUFFIX = {"s": " s", "reqps": " req/s", "bytes": " MB", "percentunit": " %"}
_FACTOR = {"bytes": 1e-6, "percentunit": 100}


def main(arguments: list[str]) -> None:
    """Write the pages and name them."""
    panels, folder = json.loads(Path(arguments[0]).read_text(encoding="utf-8")), Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    for board, shown in groupby(panels, key=lambda panel: panel["board"]):
        page = folder / f"{board.split()[-1]}.html"
        page.write_text(_page(board, list(shown)), encoding="utf-8")
        print(page)


def _page(board: str, panels: list[dict[str, Any]]) -> str:
    parts = [f"<h1>{html.escape(board)}</h1>"]
    for row, shown in groupby(panels, key=lambda panel: panel["row"]):
        parts += [f"<h2>{html.escape(row)}</h2>", "<div class=row>", *map(_panel, shown), "</div>"]
    style = (
        "body{font:12px sans-serif;width:1200px;margin:8px}h1,h2{margin:4px}.row{display:flex;flex-wrap:wrap}"
        ".panel{border:1px solid #ccc;margin:2px;padding:4px;box-sizing:border-box}.big{font-size:20px}.bad{color:#c00}.good{color:#080}"
    )
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{''.join(parts)}"


def _panel(panel: dict[str, Any]) -> str:
    body = {"stat": _stat, "bars": _bars, "timeseries": _lines}[panel["kind"]](panel)
    return f"<div class=panel style='width:{panel['width'] * _COLUMN - 4}px'><b>{html.escape(panel['title'])}</b><br>{body}</div>"


def _legend(series: dict[str, Any]) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: series["metric"].get(label[1], ""), series["legend"])


def _number(value: float, panel: dict[str, Any]) -> str:
    value *= _FACTOR.get(panel["unit"], 1)
    digits = panel["decimals"]
    return (f"{value:.3g}" if digits is None else f"{value:.{digits}f}") + _SUFFIX.get(panel["unit"], "")


def _stat(panel: dict[str, Any]) -> str:
    out = []
    for series in panel["series"]:
        value = float(series["values"][-1][1])
        beyond = panel["limit"] is not None and (value > panel["limit"]) == (panel["good"] == "below")
        name = html.escape(_legend(series))
        text = name if panel["by_label"] else f"{_number(value, panel)} <small>{name}</small>"
        out.append(f"<span class='big {'bad' if beyond else 'good'}'>{text}</span>")
    return "<br>".join(out) or "No data"


def _bars(panel: dict[str, Any]) -> str:
    last = [(float(series["values"][-1][1]), _legend(series)) for series in panel["series"]]
    longest = max((value for value, _ in last), default=0) or 1
    bar = "<span style='display:inline-block;height:10px;background:#2ca02c;width:{}px'></span>"
    name_box = "<span style='display:inline-block;width:170px'>{}</span>"
    lines = [
        name_box.format(html.escape(name)) + bar.format(int(value / longest * 260)) + " " + _number(value, panel) for value, name in last
    ]
    return "<br>".join(lines) or "No data"


def _lines(panel: dict[str, Any]) -> str:
    points = [(at, float(value)) for series in panel["series"] for at, value in series["values"] if value != "NaN"]
    if not points:
        return "No data"
    width = panel["width"] * _COLUMN - 20
    limit = [panel["limit"]] if panel["limit"] is not None else []
    low, high = min(0, *(value for _, value in points)), max(*(value for _, value in points), *limit, 1e-9) * 1.05
    first, last = min(at for at, _ in points), max(at for at, _ in points)

    def place(at: float, value: float) -> str:
        x = _PAD + (at - first) / (last - first or 1) * (width - _PAD - 4)
        return f"{x:.1f},{_HEIGHT - 6 - (value - low) / (high - low) * (_HEIGHT - 14):.1f}"

    marks = "".join(
        f"<text x=0 y={place(first, value).split(',')[1]} font-size=10>{_number(value, panel)}</text>"
        for value in (low, (low + high) / 2, high)
    )
    drawn = [f"<polyline fill=none stroke=red stroke-dasharray=4 points='{place(first, at)} {place(last, at)}'/>" for at in limit]
    names = []
    for number, series in enumerate(panel["series"]):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(place(at, float(value)) for at, value in series["values"] if value != "NaN")
        drawn.append(f"<polyline fill=none stroke='{colour}' stroke-width=1.5 points='{line}'/>")
        names.append(f"<span style='color:{colour}'>■ {html.escape(_legend(series))}</span>")
    return f"<svg width={width} height={_HEIGHT}>{marks}{''.join(drawn)}</svg><br>{' '.join(names)}"


if __name__ == "__main__":
    main(sys.argv[1:])
