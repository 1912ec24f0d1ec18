import math
from typing import Any

import pytest
import torch

from training.errors import TrainingError
from training.practice.loss import cause, check_loss, check_weights

SOUND: dict[str, Any] = {"loss": 0.9, "grad_norm": 1.2, "learning_rate": 2e-4, "step": 11}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(loss: float) -> None:
    with pytest.raises(TrainingError, match="at step 12"):
        check_loss(loss, 12, 0)


def test_a_loss_of_exactly_zero_three_times_in_a_row_stops_the_run() -> None:
    zeros = check_loss(0.0, 2, check_loss(0.0, 1, 0))

    with pytest.raises(TrainingError, match="exactly 0 at 3 steps"):
        check_loss(0.0, 3, zeros)


def test_one_zero_between_real_losses_is_allowed() -> None:
    assert check_loss(0.5, 3, check_loss(0.0, 2, check_loss(0.7, 1, 0))) == 0


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([], "never finite, so the base model's weights or the first rows"),
        ([SOUND | {"grad_norm": math.inf}], "the gradient was not finite at step 11"),
        ([SOUND | {"grad_norm": 4000.0}], "the gradient had grown to 4000 at step 11: the learning rate"),
        ([SOUND, SOUND | {"loss": 7.5, "step": 12}], "the loss had already jumped to 7.500: the learning rate"),
        ([SOUND, {"eval_loss": 1.0, "step": 11}], "sound at step 11, so a row of this step"),
        ([SOUND | {"loss": math.nan}], "never finite"),
    ],
)
def test_the_likely_cause_is_read_from_what_was_logged_before(history: list[dict[str, Any]], said: str) -> None:
    assert said in cause([*history, {"loss": math.nan, "step": 13}])


def test_broken_weights_never_become_a_checkpoint() -> None:
    model = torch.nn.Linear(2, 2)
    check_weights(model, 3)
    model.weight.data[0, 1] = math.nan

    with pytest.raises(TrainingError, match="weight is no longer finite at step 4"):
        check_weights(model, 4)


def test_a_frozen_weight_is_not_what_is_checkpointed() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.data[0, 1] = math.nan
    model.weight.requires_grad_(False)

    check_weights(model, 4)
