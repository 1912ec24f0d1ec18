"""How numbers, bounds and comparisons are put into words for people. Knows nothing of how they were decided."""

from collections.abc import Sequence

from evaluation.config import Bound, Margin
from evaluation.statistics import failure_rate_bound, trials_to_claim

_NAMED = 5
_CLAIM = 0.01


def show(value: float) -> str:
    """Four digits are as many as such numbers carry."""
    return f"{value:.4g}"


def change(difference: float, relative: bool) -> str:
    """A difference with its sign."""
    return f"{difference:+.1%}" if relative else f"{difference:+.3g}"


def worsening(loss: float, relative: bool) -> str:
    """A loss (positive) or a gain (negative)."""
    size = amount(abs(loss), relative)
    return "no different" if loss == 0 else f"{size} {'worse' if loss > 0 else 'better'}"


def amount(value: float, relative: bool) -> str:
    """A size without a sign."""
    return f"{value:.1%}" if relative else f"{value:.3g}"


def count(number: int, noun: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def in_words(bound: Bound) -> str:
    """A bound, e.g. `≥ 0.9`."""
    low = f"≥ {bound.min:g}" if bound.min is not None else ""
    high = f"≤ {bound.max:g}" if bound.max is not None else ""
    return " and ".join(part for part in (low, high) if part) + (", proven" if bound.proven else "")


def margin_in_words(margin: Margin, higher_is_better: bool) -> str:
    """A margin, e.g. `at most 0.02 lower`."""
    allowed = f"{margin.by_ratio:.1%} of the champion's" if margin.by_ratio is not None else show(margin.by or 0.0)
    return f"at most {allowed} {'lower' if higher_is_better else 'higher'}"


def names(prompts: Sequence[str]) -> str:
    """The first few prompts by name, and how many more there are."""
    more = len(prompts) - _NAMED
    return ", ".join(prompts[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def failures_claim(failures: int, prompts: int, alpha: float) -> str:
    """What so many failures on so many prompts allow to claim about the true rate."""
    bound = failure_rate_bound(failures, prompts, alpha)
    claim = f"with {1 - alpha:.0%} confidence no more is claimed than that the true rate is below {bound:.1%}"
    if failures or bound <= _CLAIM:
        return claim
    return f"{claim}; to claim {_CLAIM:.0%} takes {trials_to_claim(_CLAIM, alpha)} prompts without one"
