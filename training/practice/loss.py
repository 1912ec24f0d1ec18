"""The trap of a loss that is not a number, or exactly 0: the run stops at once, says at which step and why, and keeps what was good.

Next: `training/watch.py`, which asks at every step and before every checkpoint.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from training.errors import TrainingError

_ZERO_STEPS = 3  # a single batch may truly have no loss left; three in a row mean that no token bears loss
_LARGE_GRADIENT = 100.0  # before clipping; healthy runs stay below ten
_JUMP = 2.0


def check_loss(loss: float, step: int, zeros_before: int, history: Sequence[Mapping[str, Any]] = ()) -> int:
    """Return how many steps in a row had a loss of exactly 0, this one included; `history` is the trainer's log up to this step.

    Raises:
        TrainingError: the loss is not finite, or has been 0 for three steps.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}: {cause(history)}",
            why="the trained weights are lost from here on; going on would only burn time",
            do="lower `learning_rate`, raise `warmup_ratio`, and look at the rows of that step; the last good checkpoint is kept",
        )
    zeros = zeros_before + 1 if loss == 0 else 0
    if zeros >= _ZERO_STEPS:
        raise TrainingError(
            f"the loss is exactly 0 at {zeros} steps in a row, up to step {step}",
            why="nothing is learned: no token bears loss, or the preferred and rejected answers already cannot be closer",
            do="look at the labels in train.jsonl of the dataset folder, and at `learning_rate`",
        )
    return zeros


def check_weights(model: torch.nn.Module, step: int) -> None:
    """Look at what would go into a checkpoint, so that the one before is never displaced by a broken one.

    Raises:
        TrainingError: a trained weight is not finite.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise TrainingError(
                f"{name} is no longer finite at step {step}",
                why="the trained weights are lost from here on, although the last logged loss was sound",
                do="lower `learning_rate`; the last good checkpoint is kept",
            )


def cause(history: Sequence[Mapping[str, Any]]) -> str:
    """What most likely broke the loss, from what was logged before it did."""
    steps = [entry for entry in history if "loss" in entry]
    before = [entry for entry in steps if math.isfinite(entry["loss"])]
    if not before:
        return "it was never finite, so the base model's weights or the first rows are broken, and no learning rate will help"
    last, rate = before[-1], float(before[-1].get("learning_rate", 0.0))
    norms = [float(entry["grad_norm"]) for entry in before if entry.get("grad_norm") is not None]
    if norms and not math.isfinite(norms[-1]):
        return f"the gradient was not finite at step {last['step']}, where the loss still was ({last['loss']:.3f})"
    if norms and norms[-1] > _LARGE_GRADIENT:
        return f"the gradient had grown to {norms[-1]:.0f} at step {last['step']}: the learning rate ({rate:g}) is too high"
    if last["loss"] > _JUMP * min(entry["loss"] for entry in before):
        return f"the loss had already jumped to {last['loss']:.3f}: the learning rate ({rate:g}) is too high"
    return f"loss ({last['loss']:.3f}) and gradient were sound at step {last['step']}, so a row of this step is broken"
