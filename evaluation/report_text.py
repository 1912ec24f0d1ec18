"""Numbers and sentences as the report prints them, on the page and in Markdown alike. Next: `report.py`."""

import math
from collections.abc import Sequence

from evaluation.records import Condition, Outcome, Verdict
from evaluation.report_numbers import Difference
from training.data.report_text import counted, percent

__all__ = ["consequence", "counted", "ends", "in_words", "interval", "margin", "moment", "number", "percent", "worst_first"]

_WORST_FIRST = (Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
_CONSEQUENCE = {
    Outcome.PASS: "Every condition holds. It may take the champion's place once a named person approves this evidence.",
    Outcome.INCONCLUSIVE: "It is not promoted: what was measured neither shows that the conditions hold nor that they are broken.",
    Outcome.FAIL: "It is not promoted: at least one condition is broken.",
    Outcome.ERROR: "It is not promoted: something needed to judge it is missing or not comparable.",
}


def number(value: float | None) -> str:
    """Four digits; a dash for what was not measured."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}".replace("-", "−")


def moment(written: str) -> str:
    """`2030-01-01 12:00 UTC` of a record's time; the time as it is, where it is written otherwise."""
    day, _, clock = written.partition("T")
    return f"{day} {clock[:5]} UTC" if clock.endswith("+00:00") else written


def interval(bounds: tuple[float | None, float | None] | None) -> str:
    """Two ends of an interval; empty for none."""
    return "" if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def in_words(difference: Difference | None) -> str:
    """A signed difference, in percent where it is a share of the champion's number."""
    return "" if difference is None else _signed(difference.value, difference.ratio)


def ends(difference: Difference) -> str:
    """The interval of a difference, in the difference's own unit."""
    return " to ".join("open" if end is None else _signed(end, difference.ratio) for end in difference.interval or ())


def margin(difference: Difference) -> str:
    """The loss that the policy allows, in the difference's own unit."""
    assert difference.margin is not None
    return percent(difference.margin) if difference.ratio else number(difference.margin)


def worst_first(conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions that stopped it first; otherwise in the policy's order."""
    return sorted(conditions, key=lambda condition: _WORST_FIRST.index(condition.outcome))


def consequence(verdict: Verdict) -> str:
    """What the verdict means for the candidate, in a sentence."""
    return _CONSEQUENCE[verdict.outcome]


def _signed(value: float, ratio: bool) -> str:
    if value == 0:
        return "0"
    return (f"{100 * value:+.1f} %" if ratio else f"{value:+.3g}").replace("-", "−")
