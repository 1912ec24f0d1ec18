"""The geometry of the report's charts: which bar stands where, in percent of its frame. The templates draw them.

Everything is a number of our own, so a chart carries no text of a row. Positions are relative, so one chart fits a phone and
a wide screen. Next: `report.html.j2`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.data.profile import DataProfile, PrivacyMode
from training.data.profile_histogram import Histogram
from training.data.reasons import REASONS, STAGES, Stage

_MOST_TICKS = 7
_FINE_OCTAVES = 8
_SHOWN_NAMES = 12

_PRIVACY_NAMES: dict[PrivacyMode, str] = {
    "mask": "Personal data masked",
    "drop_row": "Without personal data",
    "count": "Personal data counted",
    "off": "Personal data not looked for",
}
_STAGE_NAMES: dict[Stage, str] = {  # of those without a condition
    "parsed": "Read and well-formed",
    "clean": "Not empty after cleaning",
    "language": "In a wanted language",
    "balanced": "Within weights and caps",
}


@dataclass(frozen=True)
class FunnelStep:
    """Rows left after a step; `lost_to` are the reasons at this step, most rows first."""

    name: str
    rows: int
    lost: int
    lost_to: tuple[tuple[str, int], ...]
    width: float
    lost_width: float


@dataclass(frozen=True)
class Bar:
    """One bar of the length chart, in percent from the left and bottom; the refused part stands on top of the kept one."""

    x: float
    width: float
    kept_height: float
    refused_height: float
    title: str


@dataclass(frozen=True)
class LengthChart:
    """Lengths on a logarithmic axis. `limit_x` is where rows are cut off, or None."""

    unit: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, int], ...]
    limit_x: float | None
    limit: int | None
    tallest_rows: int


@dataclass(frozen=True)
class ShareBar:
    """One named share."""

    name: str
    rows: int
    share: float
    width: float


def funnel(profile: DataProfile) -> tuple[FunnelStep, ...]:
    """From the rows that came in to those that are used, step by step."""
    top = max(profile.rows_in, 1)
    left = profile.rows_in
    steps = [FunnelStep("Rows in", left, 0, (), 100.0 * left / top, 0.0)]
    for stage in STAGES:
        lost_to = tuple((code, rows) for code, rows in profile.dropped.items() if REASONS[code].stage == stage)
        lost = sum(rows for _, rows in lost_to)
        left -= lost
        steps.append(FunnelStep(_step_name(profile, stage), left, lost, lost_to, 100.0 * left / top, 100.0 * lost / top))
    return tuple(steps)


def _step_name(profile: DataProfile, stage: Stage) -> str:
    """What a row has gone through; a step that looked at nothing must not pass for one that found nothing."""
    if stage == "private":
        return _PRIVACY_NAMES[profile.privacy]
    if stage == "unique":
        return "Unique" if profile.duplicates.sought else "Duplicates not looked for"
    if stage == "leak_free":
        sought = profile.suites or profile.leaks or profile.dropped.get("leaked")
        return "Not in an evaluation suite" if sought else "No suite to compare with"
    if stage == "length":
        return "Fits the model" if profile.tokenizer else "Tokens not counted"
    return _STAGE_NAMES[stage]


def length_chart(profile: DataProfile) -> LengthChart | None:
    """Tokens per row where they were counted, characters otherwise; None when there is no row."""
    if profile.tokens.rows or profile.tokens_refused.rows:
        return _chart(profile.tokens, profile.tokens_refused, "tokens", profile.max_length)
    return _chart(profile.characters, Histogram(), "characters", None) if profile.characters.rows else None


def shares(counts: Mapping[str, int]) -> tuple[ShareBar, ...]:
    """The largest shares, the rest as one."""
    total, most = sum(counts.values()), max(counts.values(), default=1)
    first = dict(list(counts.items())[:_SHOWN_NAMES])
    if rest := total - sum(first.values()):
        first[f"{len(counts) - len(first)} others"] = rest
    return tuple(ShareBar(name, rows, rows / total, 100.0 * min(rows / most, 1.0)) for name, rows in first.items())


def _chart(kept: Histogram, refused: Histogram, unit: str, limit: int | None) -> LengthChart:
    lowest, highest = (pick(edge for lengths in (kept, refused) for edge, _ in lengths.bins) for pick in (min, max))
    edges = _edges(lowest, highest, limit)
    left, right = (math.log2(max(edge, 1)) for edge in (edges[0], edges[-1]))

    def place(value: float) -> float:
        return 100.0 * (math.log2(max(value, 1)) - left) / (right - left)

    counts = list(zip(kept.counts_between(edges[:-1]), refused.counts_between(edges[:-1]), strict=True))
    tallest = max(a + b for a, b in counts)
    bars = tuple(
        Bar(
            x=place(low),
            width=place(high) - place(low),
            kept_height=100.0 * a / tallest,
            refused_height=100.0 * b / tallest,
            title=f"{low:,}–{high - 1:,} {unit}: {a:,} rows kept" + (f", {b:,} refused" if b else ""),
        )
        for low, high, (a, b) in zip(edges, edges[1:], counts, strict=False)
        if a + b
    )
    shown_limit = limit if limit and edges[0] <= limit + 1 <= edges[-1] else None
    return LengthChart(
        unit, bars, _ticks(edges[0], edges[-1], place), place(shown_limit + 1) if shown_limit else None, shown_limit, tallest
    )


def _edges(lowest: int, highest: int, limit: int | None) -> list[int]:
    """Equal steps of the logarithmic axis round the lengths that occur; the limit is an edge, so no bar stands on both its sides."""
    if limit and lowest <= 2 * limit <= 4 * highest:  # near enough to be shown
        lowest, highest = min(lowest, limit), max(highest, limit)
    anchor = limit + 1 if limit else 1
    per_octave = 4 if highest < max(lowest, 1) << _FINE_OCTAVES else 2
    first, last = (math.log2(max(length, 1) / anchor) * per_octave for length in (lowest, highest + 1))
    edges = sorted({round(anchor * 2 ** (step / per_octave)) for step in range(math.floor(first), math.ceil(last) + 1)})
    # Rounding, and a length of 0, may leave an end outside.
    return [min(edges[0], lowest), *edges[1:], *([] if edges[-1] > max(highest, edges[0]) else [2 * edges[-1]])]


def _ticks(lowest: int, highest: int, place: Callable[[float], float]) -> tuple[tuple[float, int], ...]:
    powers = [1 << power for power in range(40) if lowest <= 1 << power <= highest]
    every = math.ceil(len(powers) / _MOST_TICKS)
    return tuple((place(power), power) for power in powers[::every]) if powers else ()
