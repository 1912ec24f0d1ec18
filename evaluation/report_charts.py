"""The geometry of the report's charts, in percent of their frame, so that one chart fits a phone and a wide screen.

Everything is a number of our own: no text of a model or a suite enters a chart. Better is always to the right.
Next: `report.html.j2`, which draws them.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.records import AnswerRecord, Scorecard
from evaluation.report_numbers import Difference

_AIR = 1.12  # of the widest thing in a forest row
_MOST_STEPS = 300
_BINS = 24
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Forest:
    """One row: where the measured difference, its interval and the allowed loss stand; 50 is no difference."""

    value: float
    low: float
    high: float
    margin: float | None
    tone: Literal["better", "worse", "open"]


@dataclass(frozen=True, slots=True)
class Curves:
    """Empirical distributions of one quantity: `paths` are for a frame of 1000 × 1000, ours first."""

    title: str
    unit: str
    paths: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]
    medians: tuple[float, ...]
    longest: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Two histograms over one axis: `ours` grows up from the middle, `theirs` down. Each bar: x, width, height, title."""

    title: str
    ours: tuple[tuple[float, float, float, str], ...]
    theirs: tuple[tuple[float, float, float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    cut_off: tuple[int, ...]


def forest(difference: Difference, higher_is_better: bool) -> Forest | None:
    """A row of the forest plot; None without an interval. Every row has its own scale, but all share the middle."""
    if difference.interval is None:
        return None
    sign = 1.0 if higher_is_better else -1.0
    ends = [sign * math.inf * side if end is None else sign * end for end, side in zip(difference.interval, (-1, 1), strict=True)]
    low, high, value = min(ends), max(ends), sign * difference.value
    known = [abs(each) for each in (low, high, value, difference.margin or 0.0) if math.isfinite(each)]
    widest = max(known) * _AIR or 1.0

    def place(x: float) -> float:
        return 50.0 + 50.0 * max(-1.0, min(1.0, x / widest))

    tone: Literal["better", "worse", "open"] = "better" if low > 0 else "worse" if high < 0 else "open"
    margin = place(-difference.margin) if difference.margin is not None else None
    return Forest(place(value), place(low), place(high), margin, tone)


def latency_curves(candidate: Scorecard, champion: Scorecard | None) -> list[Curves]:
    """How many answers were there after how many seconds, whole and at their first token."""
    cards = [card for card in (candidate, champion) if card]
    whole = _curves("Whole answer", [[answer.latency_s for answer in card.answers] for card in cards])
    first = _curves(
        "First token", [[answer.ttft_s if answer.ttft_s is not None else answer.latency_s for answer in card.answers] for card in cards]
    )
    return [each for each in (whole, first) if each]


def length_bars(candidate: Scorecard, champion: Scorecard | None) -> Bars | None:
    """How long the answers are, in tokens where the servers counted them, in characters otherwise."""
    cards = [card for card in (candidate, champion) if card]
    counted = all(answer.completion_tokens is not None for card in cards for answer in card.answers)
    lengths = [[_length(answer, counted) for answer in card.answers] for card in cards]
    if not lengths[0]:
        return None
    ticks = _nice_ticks(max(max(each, default=0) for each in lengths) or 1)
    top, unit = ticks[-1], "tokens" if counted else "characters"
    counts = [_histogram(each, top) for each in lengths]
    tallest = max(max(each) for each in counts)
    bars = [_bars(each, top, tallest, unit) for each in counts]
    cut_off = tuple(sum(answer.finish_reason == "length" for answer in card.answers) for card in cards)
    return Bars(
        f"{unit.capitalize()} per answer",
        bars[0],
        bars[1] if len(bars) > 1 else (),
        tuple((100 * x / top, f"{x:g}") for x in ticks),
        cut_off,
    )


def _length(answer: AnswerRecord, counted: bool) -> int:
    return (answer.completion_tokens or 0) if counted else len(answer.answer)


def _curves(title: str, seconds: Sequence[Sequence[float]]) -> Curves | None:
    if not all(seconds):
        return None
    ticks = _nice_ticks(max(max(each) for each in seconds) or 1.0)
    ordered = [sorted(each) for each in seconds]
    return Curves(
        title=title,
        unit="s",
        paths=tuple(_steps(each, ticks[-1]) for each in ordered),
        ticks=tuple((100.0 * x / ticks[-1], f"{x:g}") for x in ticks),
        medians=tuple(float(np.quantile(each, 0.5)) for each in ordered),
        longest=tuple(float(np.quantile(each, 0.95)) for each in ordered),
    )


def _steps(ordered: Sequence[float], top: float) -> str:
    """The staircase of an empirical distribution; of many values, a step at every n-th."""
    every = max(1, math.ceil(len(ordered) / _MOST_STEPS))
    path = ["M0 1000"]
    for index in sorted({*range(every - 1, len(ordered), every), len(ordered) - 1}):
        path.append(f"H{1000 * ordered[index] / top:.1f}V{1000 - 1000 * (index + 1) / len(ordered):.1f}")
    return "".join([*path, "H1000"])


def _histogram(lengths: Sequence[int], top: float) -> list[int]:
    edges = [top * step / _BINS for step in range(1, _BINS)]
    counts = [0] * _BINS
    for length in lengths:
        counts[bisect_right(edges, length)] += 1
    return counts


def _bars(counts: Sequence[int], top: float, tallest: int, unit: str) -> tuple[tuple[float, float, float, str], ...]:
    width = 100.0 / _BINS
    return tuple(
        (step * width, width * 0.86, 48.0 * count / tallest, f"{top * step / _BINS:.0f} to {top * (step + 1) / _BINS:.0f} {unit}: {count}")
        for step, count in enumerate(counts)
        if count
    )


def _nice_ticks(highest: float) -> list[float]:
    """Round steps from 0 to the first that reaches `highest`."""
    rough = highest / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * count for count in range(math.ceil(highest / step * (1 - 1e-9)) + 1)]
