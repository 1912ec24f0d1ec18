"""The few statistics the gate stands on. Pure functions of numbers, each with the source of its formula.

`alpha` is always one-sided: a one-sided bound at alpha is one end of the two-sided interval at 2·alpha.
Knows nothing of metrics or policies. Next: `resampling.py`, for scores that have no formula.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, betaincinv, ndtr, ndtri, stdtrit

Rows = NDArray[np.float64]
Correction = Literal["holm", "benjamini_hochberg"]


@dataclass(frozen=True)
class Interval:
    """Two bounds, each of which alone is wrong with probability alpha."""

    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The same interval in another unit; `factor` is positive."""
        return Interval(self.low * factor, self.high * factor)


def wilson_interval(share: float, trials: int, alpha: float) -> Interval:
    """Interval of a proportion, 0-1; `share` may be a mean of shares of `trials` prompts, which varies less than the formula allows for.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    z = float(ndtri(1 - alpha))
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def failure_rate_bound(failures: int, trials: int, alpha: float) -> float:
    """The largest true failure rate that still shows so few failures with probability alpha. Exact.

    Without a failure it is 1 - alpha^(1/n), at alpha 0.05 close to 3/n: the "rule of three".
    Source: Clopper & Pearson, Biometrika 26 (1934); Hanley & Lippman-Hand, "If nothing goes wrong, is everything all right?",
    JAMA 249 (1983).
    """
    return 1.0 if failures >= trials else float(betaincinv(failures + 1, trials - failures, 1 - alpha))


def trials_to_claim(rate: float, alpha: float) -> int:
    """How many trials without a failure it takes to claim that the true failure rate is below `rate`."""
    return math.ceil(math.log(alpha) / math.log1p(-rate))


def mcnemar_exact(gained: int, lost: int) -> float:
    """One-sided p that `gained` (worse before, better now) against `lost` is chance, when each change is a fair coin.

    Source: McNemar, Psychometrika 12 (1947), with the exact binomial tail instead of chi-square. No change at all gives 1.
    """
    return 1.0 if gained == 0 else float(bdtrc(gained - 1, gained + lost, 0.5))


def small_sample_z(trials: int, alpha: float) -> float:
    """The normal quantile of 1 - alpha, widened for what a standard error of few trials does not know.

    Source: Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015), section 5.3.
    """
    return math.inf if trials < 2 else math.sqrt(trials / (trials - 1)) * float(stdtrit(trials - 1, 1 - alpha))


def widened_alpha(trials: int, alpha: float) -> float:
    """The tail that a percentile of a bootstrap has to leave so that one of so few trials is wrong with probability alpha."""
    return float(ndtr(-small_sample_z(trials, alpha)))


def paired_share_interval(differences: Rows, alpha: float) -> Interval:
    """Interval of the mean of per-prompt differences of shares, each within [-1, 1]; with one answer each they are -1, 0 or 1.

    Tango's score interval: the differences that a score test for matched pairs does not reject. Unlike Wald's interval, also with
    Agresti and Min's half counts, it keeps its error where nearly all changes go one way, as they do at a margin
    (`deploy/decisions/0010-gate-statistics.md`). Differences of several answers each enter with their own mean and mean square.
    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17 (1998).

    Args:
        differences: candidate minus champion, shape (prompts,).
        alpha: probability that one bound is wrong.
    """
    n, total = len(differences), float(differences.sum())
    moved = max(float((differences**2).sum()), abs(total))
    gained, lost = (moved + total) / 2, (moved - total) / 2
    z = small_sample_z(n, alpha)
    return Interval(_where_rejected(gained, lost, n, z, -1.0), _where_rejected(gained, lost, n, z, 1.0))


def _where_rejected(gained: float, lost: float, n: int, z: float, side: float) -> float:
    """Between the measured difference (never rejected) and `side`: the last difference with |score| <= z, by bisection."""
    inside, outside = (gained - lost) / n, side
    if math.isinf(z):
        return side
    for _ in range(60):
        middle = (inside + outside) / 2
        rejected = abs(_tango_score(gained, lost, n, middle)) > z
        inside, outside = (inside, middle) if rejected else (middle, outside)
    return outside


def _tango_score(gained: float, lost: float, n: int, difference: float) -> float:
    """How many standard errors the measured difference lies from `difference`, the error taken at the likeliest table that has it."""
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    likeliest = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # the share of lost prompts
    variance = n * (2 * likeliest + difference * (1 - difference))
    distance = gained - lost - n * difference
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def corrected(p_values: Sequence[float], method: Correction) -> list[float]:
    """p-values of a family of claims, made so that each may be compared with alpha itself; in the given order.

    `holm` bounds the chance that any claim is wrong, `benjamini_hochberg` the expected share of wrong ones among the claims made.
    Sources: Holm, Scandinavian Journal of Statistics 6 (1979); Benjamini & Hochberg, JRSS B 57 (1995).
    """
    count = len(p_values)
    order = sorted(range(count), key=lambda at: p_values[at])
    adjusted = [1.0] * count
    if method == "holm":
        largest = 0.0
        for rank, at in enumerate(order):
            largest = max(largest, min(1.0, p_values[at] * (count - rank)))
            adjusted[at] = largest
        return adjusted
    smallest = 1.0
    for rank, at in reversed(list(enumerate(order, start=1))):
        smallest = min(smallest, p_values[at] * count / rank)
        adjusted[at] = smallest
    return adjusted
