"""The few statistics the gate stands on. Pure functions of numbers, each with the source of its formula.

`alpha` is always one-sided: a one-sided bound at alpha is one end of the two-sided interval at 2·alpha.
Knows nothing of metrics or policies. Next: `gate.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Two bounds, each of which alone is wrong with probability alpha."""

    low: float
    high: float


def wilson_interval(successes: int, trials: int, alpha: float) -> Interval:
    """Interval of a proportion, 0-1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    from scipy.stats import binomtest  # imported where it is used: it takes seconds, and most commands judge nothing

    ci = binomtest(successes, trials).proportion_ci(confidence_level=1 - 2 * alpha, method="wilson")
    return Interval(float(ci.low), float(ci.high))


def zero_failures_bound(trials: int, alpha: float) -> float:
    """The largest true failure rate that still shows no failure in `trials` with probability alpha: 1 - alpha^(1/n).

    At alpha 0.05 it is close to 3/n, the "rule of three".
    Source: Hanley & Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249 (1983).
    """
    return float(1 - alpha ** (1 / trials))


def mcnemar_exact(gained: int, lost: int) -> float:
    """One-sided p that `gained` (worse before, better now) against `lost` is chance, when each change is a fair coin.

    Source: McNemar, Psychometrika 12 (1947), with the exact binomial tail instead of chi-square. No change at all gives 1.
    """
    from scipy.stats import binomtest

    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)


def paired_proportion_interval(gained: int, lost: int, pairs: int, alpha: float) -> Interval:
    """Interval of p(candidate) - p(champion) on the same `pairs`, within [-1, 1].

    Wald's interval for matched pairs after adding 1/2 to each cell of the 2x2 table, so that it does not shrink to a point when
    nothing changed. Source: Agresti & Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24 (2005).
    """
    from scipy.stats import norm

    b, c, n = gained + 0.5, lost + 0.5, pairs + 2.0
    centre = (b - c) / n
    half = float(norm.ppf(1 - alpha)) * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))


def paired_bootstrap(
    candidate: Rows, champion: Rows, value: Callable[[Rows], float], *, ratio: bool, alpha: float, resamples: int, seed: int
) -> Interval:
    """Interval of value(candidate) - value(champion), or of that difference as a share of value(champion) when `ratio`.

    The prompts are drawn with replacement, the same ones for both models, which keeps easy and hard prompts paired; the bounds are
    the alpha and 1 - alpha quantiles of the resampled differences (percentile method), outward to the next resample.
    Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; for corpus BLEU: Koehn, EMNLP 2004.

    Args:
        candidate: what `value` needs of each prompt, shape (prompts, k).
        champion: the same prompts in the same order, shape (prompts, k).
        value: the corpus number of any rows.
        ratio: differences as a share of the champion's number.
        alpha: probability that one bound is wrong.
        resamples: how many times the prompts are drawn.
        seed: the same seed draws the same prompts.
    """
    draws = np.random.default_rng(seed).integers(0, len(candidate), size=(resamples, len(candidate)))
    differences = np.array([_difference(value(candidate[draw]), value(champion[draw]), ratio) for draw in draws])
    return Interval(float(np.quantile(differences, alpha, method="lower")), float(np.quantile(differences, 1 - alpha, method="higher")))


def _difference(candidate: float, champion: float, ratio: bool) -> float:
    difference = candidate - champion
    if not ratio or difference == 0:
        return difference
    return difference / champion if champion else math.copysign(math.inf, difference)
