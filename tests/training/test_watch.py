import math

import pytest

from training.errors import TrainingError
from training.watch import check_loss


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
