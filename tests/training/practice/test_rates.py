import pytest

from training.config import SftSection
from training.methods import Name
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
    found = odd_rates(SftSection(method=method, learning_rate=rate), None)

    assert len(found) == bool(said)
    assert said is None or said in found[0]


def test_the_rate_of_preference_tuning_is_looked_at_too() -> None:
    (found,) = odd_rates(SftSection(), PreferenceSection(learning_rate=2e-3))

    assert found.startswith("preference.learning_rate 0.002 is above")
    assert found.endswith("the loss may jump, turn into NaN, or fall while the model forgets what it knew")
