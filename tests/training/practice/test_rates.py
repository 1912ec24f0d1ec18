from pathlib import Path

import pytest

from training.config import SftSection
from training.methods import Name
from training.online_section import OnlineSection, RewardSection
from training.practice.rates import odd_rates
from training.preference_section import PreferenceSection


@pytest.mark.parametrize(
    ("method", "rate", "said"),
    [
        ("full", 2e-4, None),
        ("full", 2e-3, "above the range in which full is known to work, 1e-07 to 0.0002"),
        ("lora", 2e-4, None),
        ("ia3", 1e-6, "below the range in which ia3 is known to work, 0.0001 to 0.05"),
    ],
)
def test_a_learning_rate_far_from_what_is_known_to_work_is_said_with_the_range(method: Name, rate: float, said: str | None) -> None:
    found = odd_rates(SftSection(method=method, learning_rate=rate))

    assert len(found) == bool(said)
    assert said is None or said in found[0]


def test_the_rate_of_preference_tuning_is_looked_at_too() -> None:
    (found,) = odd_rates(SftSection(), PreferenceSection(learning_rate=2e-3))

    assert found.startswith("preference.learning_rate 0.002 is above")
    assert found.endswith("the loss may jump, turn into NaN, or fall while the model forgets what it knew")


def test_every_stage_that_learns_has_its_own_range() -> None:
    """A reward model is taught as `sft` says; learning from rewards takes steps like those of preference tuning."""
    reward, online = RewardSection(learning_rate=0.01), OnlineSection(prompts=Path("practice"), learning_rate=1e-3)

    first, second = odd_rates(SftSection(), PreferenceSection(), reward, online)

    assert first.startswith("reward.learning_rate 0.01 is above the range in which qlora is known to work, 1e-05 to 0.003")
    assert second.startswith("online.learning_rate 0.001 is above the range in which grpo is known to work, 5e-07 to 0.0005")
