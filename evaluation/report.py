"""The verdict as one self-contained HTML page: reasons first, then numbers, then every prompt with both answers side by side.

Everything that comes from a model or a suite is made visible and passes through Jinja's autoescaping. The page's policy lets only
its own script and style run, named by their hashes, so text that got out of its place could do nothing; it needs no network, and
without its script it shows the same, unfiltered. Next: `report.html.j2`; `report_markdown.py` says the same for terminals.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from evaluation import report_text as text
from evaluation.report_answers import CHANGES, Change, answer_rows, count_changes, rule_rows
from evaluation.report_charts import forest, latency_curves, length_bars
from evaluation.report_numbers import number_rows, slices
from evaluation.report_provenance import Evidence, chain
from evaluation.rules import SEVERITIES
from training.atomic import write_text
from training.data.report_text import visible
from training.records import MergedModel, MergeMeasurement

_FOLDER = Path(__file__).parent
_LONGEST_TEXT = 8000
_OPENED = 3


def write_report(path: Path, evidence: Evidence) -> None:
    """Write the page to `path`, in one step."""
    write_text(path, render_report(evidence))


def render_report(evidence: Evidence) -> str:
    """The page."""
    candidate, champion, policy = evidence.candidate, evidence.champion, evidence.policy
    answers = answer_rows(candidate, champion)
    changes = count_changes(answers)
    numbers = number_rows(candidate, champion, evidence.verdict, policy)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            script=_own("report.js"),
            style=_own("report.css"),
            candidate=candidate,
            champion=champion,
            verdict=evidence.verdict,
            consequence=text.consequence(evidence.verdict),
            conditions=text.worst_first(evidence.verdict.conditions),
            figures=_figures(evidence, changes),
            confidence=f"{1 - 2 * policy.alpha:.0%}".replace("%", " %"),
            numbers=[(row, forest(row.difference, row.higher_is_better) if row.difference else None) for row in numbers],
            slices=slices(candidate, champion, policy.alpha),
            rules=rule_rows(candidate, champion),
            answers=answers,
            opened=min(_OPENED, changes.get("broken", 0)),
            changes=changes,
            change_names=CHANGES,
            severities=[severity for severity in SEVERITIES if any(row.severity == severity for row in answers)],
            topics=sorted({row.topic for row in answers}),
            curves=latency_curves(candidate, champion),
            bars=length_bars(candidate, champion),
            parity=evidence.parity,
            merged=evidence.merged,
            merges=_merges(evidence.merged) if evidence.merged else [],
            chain=chain(evidence),
            versions=evidence.versions,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "percent": text.percent,
        "moment": text.moment,
        "interval": text.interval,
        "difference": text.in_words,
        "ends": text.ends,
        "margin": text.margin,
        "count": lambda number: f"{number:,}",
        "place": lambda share: f"{share:.2f}",
        "sha256": lambda own: base64.b64encode(hashlib.sha256(own.encode()).digest()).decode(),
    }
    return environment


def _shown(value: Any) -> Any:
    """What the template prints: no text goes onto the page with characters that cannot be seen."""
    return visible(value, _LONGEST_TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value


def _own(name: str) -> Markup:
    """A file of ours that is part of the page as it is."""
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))  # noqa: S704  # no value of anybody's is put into it


def _figures(evidence: Evidence, changes: Mapping[Change, int]) -> list[tuple[str, str, str]]:
    """(name, number, tone) of the few numbers a person asks for first."""
    metrics = evidence.candidate.metrics
    kept, critical = metrics.get("rule_pass_rate"), metrics.get("critical_failures")
    found = [("Prompts", f"{len(evidence.candidate.answers):,}", "")]
    if kept is not None:
        found.append(("Keep all rules", text.percent(kept), ""))
    if critical is not None:
        found.append(("Critical failures", f"{critical:.0f}", "bad" if critical else ""))
    if evidence.champion is None:
        return found
    tones = {"broken": "bad", "fixed": "good"}
    kinds: tuple[Change, ...] = ("broken", "fixed", "changed", "same")
    return found + [
        (CHANGES[kind].capitalize(), f"{changes.get(kind, 0):,}", tones.get(kind, "") if changes.get(kind) else "") for kind in kinds
    ]


def _merges(merged: MergedModel) -> list[tuple[str, MergeMeasurement]]:
    """The adapter as it was trained, then every merge of it."""
    certificate = merged.certificate
    found = [(f"{each.variant}{' (kept)' if each.variant == certificate.chosen else ''}", each) for each in certificate.measurements]
    return [("adapter as trained", certificate.trained), *found]
