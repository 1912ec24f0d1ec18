"""What so many prompts can show, before or after they are asked. Pure arithmetic; alpha is one-sided.

A difference is called detectable when candidates that truly have it are shown to have it 4 times in 5.
Next: `conditions.py`, which tells it with each comparison, and `flows/gate_cli.py`, which tells it for a recipe.
"""

import math

import numpy as np
from scipy.special import ndtri

from evaluation.statistics import paired_share_interval, small_sample_z

POWER = 0.8
_SHORTFALL = float(ndtri(POWER))  # how many standard errors below its mean a result in the unlucky fifth begins


def detectable_share(prompts: int, changed: float, alpha: float) -> float | None:
    """The smallest gain that an exact McNemar test shows, as a share of the prompts; None when `changed` leaves no room for it.

    The normal approximation with a correction of one prompt for the steps of the exact test.
    Source: Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43 (1987).

    Args:
        prompts: how many.
        changed: share of them on which the two models fare differently, gains and losses together.
        alpha: of the claim.
    """
    gain = (float(ndtri(1 - alpha)) + _SHORTFALL) * math.sqrt(changed / prompts) + 1 / prompts
    return gain if gain <= changed else None


def detectable_score(prompts: int, error: float, alpha: float) -> float | None:
    """The smallest change of a score that is shown, from its standard error; also the margin that an equal model keeps."""
    change = (small_sample_z(prompts, alpha) + _SHORTFALL) * error
    return change if math.isfinite(change) else None


def sure_margin_share(prompts: int, changed: float, alpha: float) -> float:
    """The smallest margin within which an equal model is shown to be 4 times in 5, as a share of the prompts.

    It is where the interval of an unlucky result ends: `changed` prompts fare differently, with more losses than gains by chance.
    """
    moved = changed * prompts
    lost = min(moved, (moved + _SHORTFALL * math.sqrt(moved)) / 2)
    whole = math.ceil(lost)
    gained = math.floor(moved - lost)
    rest = max(0, prompts - whole - gained)
    return -paired_share_interval(np.repeat([-1.0, 1.0, 0.0], [whole, gained, rest]), alpha).low


def prompts_to_show(claims: int, alpha: float) -> int:
    """How many prompts a slice needs so that the worst that can happen, every one of them lost, is shown after correction."""
    return math.ceil(math.log2(claims / alpha) - 1e-9)
