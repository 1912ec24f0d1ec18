"""What happens beside every training step: the loss is looked at, progress is reported, checkpoints are sealed.

One callback for both trainers. Knows nothing of models or losses. Next: `sft.py`.
"""

import math
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.checkpoints import CheckpointFolder
from training.errors import TrainingError
from training.progress import Progress, Report
from training.ranks import first_alone

_ZERO_STEPS = 3  # a single batch may truly have no loss left; three in a row mean that no token bears loss


def check_loss(loss: float, step: int, zeros_before: int) -> int:
    """Return how many steps in a row had a loss of exactly 0, this one included.

    Raises:
        TrainingError: the loss is not finite, or has been 0 for three steps.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}",
            why="the adapter's weights are lost from here on; going on would only burn time",
            do="lower `learning_rate`, raise `warmup_ratio`, and look at the rows of that step; the last checkpoint is kept",
        )
    zeros = zeros_before + 1 if loss == 0 else 0
    if zeros >= _ZERO_STEPS:
        raise TrainingError(
            f"the loss is exactly 0 at {zeros} steps in a row, up to step {step}",
            why="nothing is learned: no token bears loss, or the preferred and rejected answers already cannot be closer",
            do="look at the labels in train.jsonl of the dataset folder, and at `learning_rate`",
        )
    return zeros


class Watch(TrainerCallback):  # type: ignore[misc]
    """Guards the loss, reports progress and seals checkpoints; afterwards it knows the first and the last loss."""

    def __init__(self, report: Report, checkpoints: CheckpointFolder) -> None:
        self.report, self.checkpoints = report, checkpoints
        self.tokens = 0  # tokens without padding, counted by the trainer
        self._zeros, self._started, self._first_step = 0, 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._started, self._first_step = time.monotonic(), state.global_step
        passed_over = [f"{name} is damaged and was passed over" for name in self.checkpoints.damaged]
        self.report(Progress(state.global_step, state.max_steps, "steps", "; ".join(["resumed"] * bool(state.global_step) + passed_over)))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        self._zeros = check_loss(float(logs["loss"]), state.global_step, self._zeros)
        self.report(Progress(state.global_step, state.max_steps, "steps", self._note(float(logs["loss"]), state)))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        first_alone(lambda: self.checkpoints.seal(state.global_step))

    def _note(self, loss: float, state: TrainerState) -> str:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        left_s = (state.max_steps - state.global_step) * elapsed_s / max(state.global_step - self._first_step, 1)
        speed = f", {self.tokens / elapsed_s:.0f} tokens/s" if self.tokens else ""
        return f"loss {loss:.3f}{speed}, {left_s:.0f} s left"


def losses(state: TrainerState) -> tuple[float, float]:
    """The first and the last logged training loss, resumed runs included."""
    logged = [float(entry["loss"]) for entry in state.log_history if "loss" in entry]
    if not logged:
        raise TrainingError("the run logged no loss", why="not a single step was made", do="add rows, or lower the batch size")
    return logged[0], logged[-1]
