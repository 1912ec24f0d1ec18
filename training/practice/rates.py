"""The trap of a learning rate that belongs to another method: said by `tunegate plan` and `run`, before any hour of training.

A rate fit for an adapter wrecks a model that is trained whole, and one fit for a whole model leaves an adapter where it began. Knows
nothing of torch. Next: `training/methods.py`, which knows each method's range.
"""

from training.config import SftSection
from training.online_section import OnlineSection, RewardSection
from training.preference_section import PreferenceSection

# Over an adapter; the papers train whole models at 5e-7 to 1e-6 (arXiv:2305.18290), adapters are trained at ten to a hundred times that.
# Learning from rewards takes steps of the same kind, held to the same reference.
PREFERENCE_RATES = (5e-7, 5e-4)
Rated = SftSection | PreferenceSection | RewardSection | OnlineSection


def odd_rates(sft: SftSection, *later: PreferenceSection | RewardSection | OnlineSection | None) -> tuple[str, ...]:
    """A sentence for each learning rate of a recipe that lies outside what is known to work for its method."""
    return tuple(sentence for section in (sft, *later) if section is not None for sentence in odd_rate(section, sft))


def odd_rate(section: Rated, sft: SftSection) -> tuple[str, ...]:
    """The same of one section; a reward model is taught as `sft` says."""
    name, method, (low, high) = _usual(section, sft)
    rate = section.learning_rate
    if low <= rate <= high:
        return ()
    side, leads_to = (
        ("below", "the run may end before anything is learned")
        if rate < low
        else ("above", "the loss may jump, turn into NaN, or fall while the model forgets what it knew")
    )
    return (f"{name}.learning_rate {rate:g} is {side} the range in which {method} is known to work, {low:g} to {high:g}: {leads_to}",)


def _usual(section: Rated, sft: SftSection) -> tuple[str, str, tuple[float, float]]:
    if isinstance(section, SftSection):
        return "sft", section.method, section.tuning.rates
    if isinstance(section, RewardSection):
        return "reward", sft.method, sft.tuning.rates
    return ("preference" if isinstance(section, PreferenceSection) else "online"), section.method, PREFERENCE_RATES
