"""What happens beside every training step: the loss is looked at, progress is reported, checkpoints are sealed.

One callback for every trainer. Knows nothing of models or losses. Next: `sft.py`.
"""

import time
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.checkpoints import CheckpointFolder
from training.errors import TrainingError
from training.practice.collation import check_collation
from training.practice.course import CURVES_SUFFIX, Course
from training.practice.curves import CurvesPage
from training.practice.history import HELD_OUT, HELD_OUT_ACCURACY, MEMORY, PASS_RATE, TOKENS_PER_S, newest, overfitting, series
from training.practice.loss import check_loss, check_weights
from training.practice.meter import Meter, memory_bytes
from training.practice.seeds import conditions
from training.practice.trackers import Tracker, trackers
from training.progress import Progress, Report
from training.ranks import first_alone


class Watch(TrainerCallback):  # type: ignore[misc]
    """Guards the loss, reports progress and seals checkpoints; afterwards it knows how the run went."""

    def __init__(
        self, report: Report, checkpoints: CheckpointFolder, warnings: tuple[str, ...] = (), report_to: Sequence[Tracker] = ()
    ) -> None:
        self.report, self.checkpoints, self.warnings = report, checkpoints, warnings
        self.tokens = 0  # tokens without padding, counted by the trainer
        out = checkpoints.root.parent
        self.curves = CurvesPage(out.with_name(f"{out.name}{CURVES_SUFFIX}"), out.name)
        self.callbacks: list[TrainerCallback] = [self, *trackers(report_to, out)]  # they are told what this one has added
        self._zeros, self._started, self._first_step = 0, 0.0, 0
        self._counted = Meter()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loader, tokenizer = kwargs["train_dataloader"], kwargs["processing_class"]
        check_collation(loader.collate_fn, loader.dataset, tokenizer.pad_token_id)
        self._started, self._first_step = time.monotonic(), state.global_step
        self._counted.tokens_per_s(self.tokens)
        passed_over = [f"{name} is damaged and was passed over" for name in self.checkpoints.damaged]
        self.report(Progress(state.global_step, state.max_steps, "steps", "; ".join(["resumed"] * bool(state.global_step) + passed_over)))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        try:
            self._zeros = check_loss(float(logs["loss"]), state.global_step, self._zeros, state.log_history)
        except TrainingError as error:
            self._draw(state, running=False, said=(error.what,))
            raise
        figures = {TOKENS_PER_S: self._counted.tokens_per_s(self.tokens), MEMORY: memory_bytes()}
        logs |= figures
        state.log_history[-1] |= figures
        shown = newest(state.log_history)
        self.report(Progress(state.global_step, state.max_steps, "steps", self._note(float(logs["loss"]), state), shown))
        self._draw(state, running=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        over = overfitting(state.log_history)
        self._draw(state, running=False, said=(over,) if over else ())

    def _draw(self, state: TrainerState, *, running: bool, said: tuple[str, ...] = ()) -> None:
        if state.is_world_process_zero:
            self.curves.draw(state.log_history, state.max_steps, running=running, said=(*self.warnings, *said))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        check_weights(kwargs["model"], state.global_step)
        first_alone(lambda: self.checkpoints.seal(state.global_step))

    def course(self, trainer: Any, out_of_memory: tuple[str, ...] = ()) -> Course:
        """How a run went, once it has ended."""
        state, held_out = trainer.state, getattr(trainer, "held_out", None)
        kept_step = held_out.kept_step(state) if held_out else state.global_step
        over = overfitting(state.log_history)
        if over and kept_step != state.global_step:
            over += f"; the weights of step {kept_step} are kept"
        return Course(
            warnings=(*self.warnings, *([over] if over else [])),
            held_out=tuple(series(state.log_history, HELD_OUT)),
            held_out_accuracies=tuple(series(state.log_history, HELD_OUT_ACCURACY)),
            pass_rates=tuple(series(state.log_history, PASS_RATE)),
            kept_step=kept_step,
            rows_per_pass=trainer.args.per_device_train_batch_size,
            passes_per_step=trainer.args.gradient_accumulation_steps,
            out_of_memory=out_of_memory,
            conditions=conditions(trainer.args.seed),
            stopped=held_out.stopped(state) if held_out else "",
        )

    def _note(self, loss: float, state: TrainerState) -> str:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        left_s = (state.max_steps - state.global_step) * elapsed_s / max(state.global_step - self._first_step, 1)
        speed = f", {self.tokens / elapsed_s:.0f} tokens/s" if self.tokens else ""
        return f"loss {loss:.3f}{speed}, {left_s:.0f} s left"
