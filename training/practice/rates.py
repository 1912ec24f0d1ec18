"""The trap of a learning rate that belongs to another method: said by `tunegate plan`, before any hour of training.

A rate fit for an adapter wrecks a model that is trained whole, and one fit for a whole model leaves an adapter where it began. Knows
nothing of torch. Next: `training/methods.py`, which knows each method's range.
"""

from training.config import SftSection
from training.sections import Section

# Over an adapter; the papers train whole models at 5e-7 to 1e-6 (arXiv:2305.18290), adapters are trained at ten to a hundred times that.
PREFERENCE_RATES = (5e-7, 5e-4)


def odd_rates(sft: SftSection, preference: Section | None) -> tuple[str, ...]:
    """A sentence for each learning rate of a recipe that lies outside what is known to work for its method."""
    sections: list[tuple[str, str, float, tuple[float, float]]] = [("sft", sft.method, sft.learning_rate, sft.tuning.rates)]
    if preference is not None:
        # Whatever the ways to learn from preferences are, each has these two keys.
        sections.append(("preference", str(vars(preference)["method"]), float(vars(preference)["learning_rate"]), PREFERENCE_RATES))
    return tuple(sentence for section in sections if (sentence := _odd_rate(*section)))


def _odd_rate(section: str, method: str, rate: float, usual: tuple[float, float]) -> str | None:
    low, high = usual
    if low <= rate <= high:
        return None
    known = f"{section}.learning_rate {rate:g} is {{}} the range in which {method} is known to work, {low:g} to {high:g}: "
    if rate < low:
        return known.format("below") + "the run may end before anything is learned"
    return known.format("above") + "the loss may jump, turn into NaN, or fall while the model forgets what it knew"
