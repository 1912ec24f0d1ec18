"""Measures a run on held-out rows or prompts while it goes on, keeps the best weights, and stops when it gets no better.

What was measured stands in the trainer's own log, which its checkpoints hold: a resumed run decides as the uninterrupted one would have.
Without early stopping the rows are measured all the same, for the curves and to notice over-fitting. Next: `history.py`.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.atomic import new_folder
from training.config import SftSection
from training.errors import InputError, TrainingError
from training.measure import Judge, ValidationPrompt, count_passes
from training.practice.history import HELD_OUT, HELD_OUT_ACCURACY, PASS_RATE, Log, series
from training.practice.sections import EarlyStoppingSection, PreferenceStoppingSection

_BEST = "best-"
_KEYS = {"held_out_loss": HELD_OUT, "held_out_accuracy": HELD_OUT_ACCURACY, "rule_pass_rate": PASS_RATE}

Stopping = EarlyStoppingSection | PreferenceStoppingSection

PassRate = Callable[[Any], float]  # a model -> share of the validation prompts that it answers without breaking a critical rule


@dataclass(frozen=True)
class Standing:
    """The best measurement so far, and how many have followed that were no better."""

    step: int
    value: float
    worse_since: int


def standing(section: Stopping, log: Log) -> Standing | None:
    """Where a run stands by its log; None while nothing was measured. A tie goes to the earlier weights."""
    sign = -1.0 if section.metric == "held_out_loss" else 1.0
    best: Standing | None = None
    for step, value in series(log, _KEYS[section.metric]):
        if best is None or sign * (value - best.value) > section.min_gain:
            best = Standing(step, value, 0)
        else:
            best = Standing(best.step, best.value, best.worse_since + 1)
    return best


@dataclass(frozen=True)
class Validation:
    """Prompts that are neither trained on nor in the gate's suite, and who judges the answers."""

    prompts: Sequence[ValidationPrompt]
    judge: Judge
    max_new_tokens: int


def pass_rate_of(sft: SftSection, validation: Validation | None, tokenizer: Any) -> PassRate | None:
    """A measure of models by how they answer, where the recipe stops by it.

    Raises:
        InputError: it does, and there is no judge.
    """
    if sft.early_stopping is None or sft.early_stopping.metric != "rule_pass_rate":
        return None
    if validation is None or not validation.prompts:
        raise InputError("`sft.early_stopping.metric` is rule_pass_rate, and there are no prompts to answer", do="use held_out_loss")
    prompts, judge, max_new_tokens = validation.prompts, validation.judge, validation.max_new_tokens

    def measured(model: Any) -> float:
        was_training = model.training
        model.eval()
        with torch.autocast(model.device.type, torch.bfloat16):
            passes = count_passes(model, tokenizer, prompts, judge, max_new_tokens)
        model.train(was_training)
        return passes / len(prompts)

    return measured


class HeldOut(TrainerCallback):  # type: ignore[misc]
    """Measures every so many steps, or after each epoch, and at the end. `folder` is where the best weights are kept."""

    def __init__(self, every_steps: int | None, stopping: Stopping | None, folder: Path, pass_rate: PassRate | None = None) -> None:
        self._every_steps, self._stopping = every_steps, stopping
        self._folder, self._pass_rate = folder, pass_rate
        self.save: Callable[[str], None] | None = None  # the trainer's own way to write its weights; it knows of devices

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        every, epoch = self._every_steps, float(state.epoch or 0)
        due = state.global_step % every == 0 if every else epoch == int(epoch)
        if due or state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._stopping is None:
            return
        if self._stopping.metric == "rule_pass_rate" and self._pass_rate is not None:
            state.log_history.append({PASS_RATE: self._pass_rate(kwargs["model"]), "step": state.global_step})
        now = standing(self._stopping, state.log_history)
        if now is not None and now.step == state.global_step:
            self._keep(now.step, is_first=state.is_world_process_zero)
        if now is not None and now.worse_since >= self._stopping.patience and state.global_step < state.max_steps:
            control.should_training_stop = True
            control.should_save = False  # a run that is resumed from here would make one step more

    def kept_step(self, state: TrainerState) -> int:
        """The step whose weights are the outcome: the best one with early stopping, the last one without."""
        now = standing(self._stopping, state.log_history) if self._stopping else None
        return now.step if now else state.global_step

    def stopped(self, state: TrainerState) -> str:
        """Why the run ended before its last step; empty when it did not."""
        now = standing(self._stopping, state.log_history) if self._stopping else None
        if now is None or self._stopping is None or state.global_step >= state.max_steps:
            return ""
        return (
            f"stopped at step {state.global_step} of {state.max_steps}: {self._stopping.metric} was best at step {now.step} "
            f"({now.value:.4g}) and no better in {now.worse_since} measurements since"
        )

    def restore(self, state: TrainerState, load: Callable[[str], None]) -> None:
        """Put the best weights back.

        Raises:
            TrainingError: they are gone.
        """
        step = self.kept_step(state)
        if step == state.global_step:
            return
        folder = self._path(step)
        if not folder.is_dir():
            raise TrainingError(f"the best weights, of step {step}, are not in {folder}", do="delete the stage's folder and run it again")
        load(str(folder))

    def _keep(self, step: int, *, is_first: bool) -> None:
        """Write the best weights, and leave those before them: a killed run may go on from a step between the two."""
        assert self.save is not None
        if not is_first:
            self.save(str(self._path(step)))  # where a model is spread over devices, all have to take part; one writes
            return
        with new_folder(self._path(step)) as partial:
            self.save(str(partial))
        earlier = sorted(path for path in self._folder.glob(f"{_BEST}*") if path < self._path(step))
        for old in self._folder.glob(f"{_BEST}*"):
            if old not in (self._path(step), *earlier[-1:]):
                shutil.rmtree(old)  # what is of a later step was left by another run in this folder

    def _path(self, step: int) -> Path:
        return self._folder / f"{_BEST}{step:08d}"
