import math

import pytest

from training.certificate import certify
from training.errors import MergeError
from training.records import MergeMeasurement


def measured(variant: str, passes: int, perplexity: float, kl_nats: float = 0.1) -> MergeMeasurement:
    return MergeMeasurement.model_validate(
        {"variant": variant, "kl_nats": kl_nats, "flip_rate": 0.1, "perplexity": perplexity, "rule_passes": passes, "rule_prompts": 24}
    )


TRAINED = measured("trained", 18, 8.0, 0.0)


@pytest.mark.parametrize(
    ("bf16", "nf4", "chosen", "because"),
    [
        ((20, 9.0, 2.4), (15, 5.0, 0.0), "bf16_base", "20 of 24 validation prompts"),
        ((15, 5.0, 0.0), (20, 9.0, 2.4), "nf4_base", "against 15"),
        ((20, 9.0, 0.1), (19, 5.0, 2.4), "nf4_base", "its perplexity is 5.000 against 9.000"),
        ((19, 5.0, 2.4), (20, 9.0, 0.1), "bf16_base", "rule passes are within 1"),
        ((20, 5.0, 2.4), (20, 5.04, 0.1), "nf4_base", "KL to the trained model is 0.1000"),
        ((20, 5.0, 0.1), (20, 5.0, 0.1), "bf16_base", "perplexities are within 1%"),
        ((24, math.nan, 0.1), (3, 50.0, 0.1), "nf4_base", "the only usable merge"),
        ((24, 5.0, math.inf), (3, 50.0, 0.1), "nf4_base", "the only usable merge"),
    ],
)
def test_rules_decide_then_perplexity_then_kl(
    bf16: tuple[int, float, float], nf4: tuple[int, float, float], chosen: str, because: str
) -> None:
    certificate = certify(TRAINED, (measured("bf16_base", *bf16), measured("nf4_base", *nf4)))

    assert certificate.chosen == chosen
    assert because in certificate.reason


def test_the_choice_does_not_depend_on_the_order_of_the_merges() -> None:
    left, right = measured("bf16_base", 20, 9.0), measured("nf4_base", 12, 5.0)

    assert certify(TRAINED, (left, right)).chosen == certify(TRAINED, (right, left)).chosen


def test_no_usable_merge_is_an_error() -> None:
    with pytest.raises(MergeError, match="no merge gives finite numbers"):
        certify(TRAINED, (measured("bf16_base", 24, math.inf),))


def test_a_merge_with_infinite_figures_is_left_out_and_named() -> None:
    certificate = certify(TRAINED, (measured("bf16_base", 24, math.inf), measured("nf4_base", 3, 50.0)))

    assert [each.variant for each in certificate.measurements] == ["nf4_base"]
    assert "merged into the original bf16 weights was left out" in certificate.reason
