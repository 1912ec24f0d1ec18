"""The verdict as one self-contained HTML page: reasons first, then numbers, then every broken rule with both answers side by side.

Everything that comes from a model or a suite passes through Jinja's autoescaping; evidence is highlighted by cutting an answer
into pieces, never by building markup from it. The page needs no network and follows the reader's light or dark setting.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from evaluation.aggregates import METRICS
from evaluation.config import GateSection, MetricName
from evaluation.gate import difference
from evaluation.records import AnswerRecord, Condition, Scorecard, Verdict
from evaluation.rules import SEVERITIES, RuleResult
from training.atomic import write_text
from training.records import DatasetManifest, MergedModel

_TEMPLATE = "report.html.j2"
_LATENCIES: tuple[MetricName, ...] = ("latency_p50_s", "latency_p95_s", "ttft_p50_s", "ttft_p95_s")


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer; `mark` is "" or the role of the evidence in it."""

    text: str
    mark: str


@dataclass(frozen=True)
class Side:
    """One model's answer to a prompt, ready to print."""

    subject: str
    pieces: tuple[Piece, ...]
    broken: tuple[RuleResult, ...]
    finish_reason: str


@dataclass(frozen=True)
class Case:
    """A prompt on which at least one of the two models broke a rule."""

    answer: AnswerRecord
    change: str
    severity: str
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class NumberRow:
    """One metric, of both models, with the interval of their difference."""

    name: str
    unit: str
    ours: str
    theirs: str
    difference: str
    interval: str
    better: bool | None


def write_report(
    path: Path,
    candidate: Scorecard,
    champion: Scorecard | None,
    verdict: Verdict,
    *,
    merged: MergedModel | None = None,
    dataset: DatasetManifest | None = None,
) -> None:
    """Write the page to `path`, in one step."""
    template = _environment().get_template(_TEMPLATE)
    page = template.render(
        candidate=candidate,
        champion=champion,
        verdict=verdict,
        merged=merged,
        dataset=dataset,
        failed_first=sorted(verdict.conditions, key=_worst_first),
        numbers=list(_numbers(candidate, champion)),
        latencies=[(name, candidate.metrics.get(name), champion.metrics.get(name) if champion else None) for name in _LATENCIES],
        cases=sorted(_cases(candidate, champion), key=_most_severe_first),
        show=_show,
        show_interval=_show_interval,
    )
    write_text(path, page)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _worst_first(condition: Condition) -> int:
    return ("ERROR", "FAIL", "INCONCLUSIVE", "PASS").index(condition.outcome.value)


def _numbers(candidate: Scorecard, champion: Scorecard | None) -> Iterator[NumberRow]:
    for name, metric in METRICS.items():
        ours, theirs = candidate.metrics.get(name), champion.metrics.get(name) if champion else None
        if ours is None and theirs is None:
            continue
        change, interval, better = "", "", None
        if ours is not None and theirs is not None and champion is not None:
            change = f"{ours - theirs:+.4g}"
            better = None if ours == theirs else (ours > theirs) == metric.higher_is_better
            interval = _difference_interval(name, candidate, champion)
        yield NumberRow(name, metric.unit, _show(ours), _show(theirs), change, interval, better)


def _difference_interval(name: MetricName, candidate: Scorecard, champion: Scorecard) -> str:
    """Two-sided 90 % interval of the paired difference; empty when the two cannot be compared."""
    interval = difference(candidate, champion, name, GateSection(resamples=400))
    return "" if interval is None else _show_interval((interval.low, interval.high))


def _cases(candidate: Scorecard, champion: Scorecard | None) -> Iterator[Case]:
    theirs = {answer.prompt_id: answer for answer in champion.answers} if champion else {}
    for answer in candidate.answers:
        other = theirs.get(answer.prompt_id)
        broken = (*answer.broken, *(other.broken if other else ()))
        if not broken:
            continue
        change = (
            "broken by both"
            if answer.broken and other and other.broken
            else "broken by the candidate"
            if answer.broken
            else "fixed by the candidate"
        )
        severity = min((result.severity for result in (answer.broken or broken)), key=SEVERITIES.index)
        sides = [_side(candidate.subject, answer)] + ([_side(champion.subject, other)] if champion and other else [])
        yield Case(answer=answer, change=change, severity=severity, sides=tuple(sides))


def _most_severe_first(case: Case) -> tuple[bool, int, str]:
    return case.change == "fixed by the candidate", SEVERITIES.index(case.severity), case.answer.prompt_id


def _side(subject: str, answer: AnswerRecord) -> Side:
    return Side(subject=subject, pieces=cut_pieces(answer.answer, answer.rules), broken=answer.broken, finish_reason=answer.finish_reason)


def cut_pieces(answer: str, results: Sequence[RuleResult]) -> tuple[Piece, ...]:
    """Cut an answer where its evidence begins and ends. Forbidden wins over denied, and that over meant."""
    marks = [""] * len(answer)
    spans = [span for result in results for span in result.evidence]
    for role in ("meant", "denied", "forbidden"):
        for span in spans:
            if span.role == role:
                marks[span.start : span.end] = [role] * (span.end - span.start)
    pieces: list[Piece] = []
    start = 0
    for at in range(1, len(answer) + 1):
        if at == len(answer) or marks[at] != marks[start]:
            pieces.append(Piece(answer[start:at], marks[start]))
            start = at
    return tuple(pieces)


def _show(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _show_interval(interval: tuple[float | None, float | None] | None) -> str:
    return "" if interval is None else f"{_show(interval[0])} … {_show(interval[1])}"
