"""Logs written by hand, as the trainer keeps them."""

from typing import Any

import pytest

from training.practice.history import newest, overfitting


def log(training: list[float], held_out: dict[int, float]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for step, loss in enumerate(training, start=1):
        entries.append({"loss": loss, "step": step, "learning_rate": 1e-4})
        entries += [{"eval_loss": held_out[step], "step": step}] if step in held_out else []
    return entries


FALLING = [1.0, 0.9, 0.8, 0.7, 0.5, 0.3]


def test_a_held_out_loss_that_rises_while_training_falls_is_over_fitting_and_said_with_its_steps() -> None:
    """Lowest at step 2 (mean training loss of steps 1 and 2: 0.95), highest at step 6 (of steps 5 and 6: 0.40)."""
    said = overfitting(log(FALLING, {2: 1.10, 4: 1.15, 6: 1.30}))

    assert said == (
        "over-fitting since step 2: the held-out loss rose from 1.100 to 1.300 by step 6, while the training loss fell from 0.950 to 0.400"
    )


@pytest.mark.parametrize(
    ("training", "held_out"),
    [
        (FALLING, {2: 1.1, 4: 1.0, 6: 0.9}),
        (FALLING, {2: 1.10, 6: 1.11}),
        (FALLING, {6: 1.0}),
        (FALLING, {}),
        ([1.0, 1.1, 1.3, 1.5], {2: 1.0, 4: 1.6}),
    ],
    ids=[
        "both fall",
        "a rise by one percent is chance",
        "measured once",
        "never measured",
        "both rise: it diverges, another fault",
    ],
)
def test_what_is_no_over_fitting(training: list[float], held_out: dict[int, float]) -> None:
    assert overfitting(log(training, held_out)) is None


def test_the_newest_value_of_each_figure_is_shown() -> None:
    assert newest(log(FALLING, {2: 1.1})) == {"loss": 0.3, "held_out_loss": 1.1, "learning_rate": 1e-4}
