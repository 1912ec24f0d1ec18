"""Decides which of the two merges is kept, from what was measured. A pure function of values; knows nothing of torch.

Next: `merge.py`, which makes and measures the merges.
"""

import math

from training.errors import MergeError
from training.records import MergeCertificate, MergeMeasurement, MergeVariant

RULE_TIE = 1  # prompts; a difference of one in a few dozen is chance
PERPLEXITY_TIE = 0.01  # relative

_NAMES = {
    "bf16_base": "merged into the original bf16 weights",
    "nf4_base": "merged into the dequantised NF4 weights",
    "fp4_base": "merged into the dequantised FP4 weights",
    "int8_base": "merged into the dequantised 8-bit weights",
}


def certify(trained: MergeMeasurement, measurements: tuple[MergeMeasurement, ...]) -> MergeCertificate:
    """Choose: more rule passes; within one prompt, the lower perplexity; within 1 %, the lower KL to the trained model.

    A merge whose perplexity or KL is not finite is left out of the certificate, and its reason says so.

    Raises:
        MergeError: no merge is left.
    """
    usable = [each for each in measurements if math.isfinite(each.perplexity) and math.isfinite(each.kl_nats)]
    if not usable:
        raise MergeError(
            "no merge gives finite numbers: " + "; ".join(f"{each.variant} perplexity {each.perplexity}" for each in measurements),
            why="such a model answers with noise",
            do="train again with a lower learning rate",
        )
    best, reason = usable[0], f"the only usable merge: {_NAMES[usable[0].variant]}"
    for other in usable[1:]:
        best, reason = _better(best, other)
    for broken in [each for each in measurements if each not in usable]:
        reason += f"; the model {_NAMES[broken.variant]} was left out, its figures are not finite"
    return MergeCertificate(trained=trained, measurements=tuple(usable), chosen=_variant(best), reason=reason)


def _variant(measurement: MergeMeasurement) -> MergeVariant:
    if measurement.variant == "trained":
        raise ValueError("the model as trained is not a merge and cannot be chosen")
    return measurement.variant


def _better(left: MergeMeasurement, right: MergeMeasurement) -> tuple[MergeMeasurement, str]:
    """The better of two, and why, naming the figure that decided."""
    if abs(left.rule_passes - right.rule_passes) > RULE_TIE:
        best, worse = (left, right) if left.rule_passes > right.rule_passes else (right, left)
        return best, (
            f"{_NAMES[best.variant]}: {best.rule_passes} of {best.rule_prompts} validation prompts break no critical rule, "
            f"against {worse.rule_passes}"
        )
    tie = f"rule passes are within {RULE_TIE} ({left.rule_passes} and {right.rule_passes} of {left.rule_prompts})"
    best, worse = (left, right) if left.perplexity <= right.perplexity else (right, left)
    if worse.perplexity > best.perplexity * (1 + PERPLEXITY_TIE):
        return best, f"{_NAMES[best.variant]}: {tie}, and its perplexity is {best.perplexity:.3f} against {worse.perplexity:.3f}"
    best, worse = (left, right) if left.kl_nats <= right.kl_nats else (right, left)
    return best, (
        f"{_NAMES[best.variant]}: {tie}, perplexities are within {PERPLEXITY_TIE:.0%}, "
        f"and its KL to the trained model is {best.kl_nats:.4f} nats against {worse.kl_nats:.4f}"
    )
