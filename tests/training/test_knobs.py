"""The keys of a recipe that shape a run do what they say: each is measured in a run of a few steps, none by reading arguments back."""

from collections.abc import Callable
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.fakes_training import TinyLine, sft_section
from training.adapters import new_adapter
from training.builders import load_base, load_tokenizer, settle
from training.checkpoints import CheckpointFolder
from training.devices import Ranks
from training.outcome import run
from training.prepare import TRAIN, VALIDATION, read_prepared
from training.progress import Progress, silent
from training.sft import AnswerTrainer
from training.watch import Watch

PEAK = 1e-3
ROUNDING = 2e-3  # of bf16 sums taken in another order
BASE = {"method": "lora", "dropout": 0.0, "epochs": 1, "batch_size": 4, "learning_rate": PEAK}


class Listening(TrainerCallback):  # type: ignore[misc]
    """What the optimizer is given at each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.lengths: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        slopes = [each.grad for each in kwargs["model"].parameters() if each.grad is not None]
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])
        self.lengths.append(float(torch.stack([each.float().square().sum() for each in slopes]).sum()) ** 0.5)


def trained(tiny: TinyLine, out: Path, report: Callable[[Progress], None] = silent, **changes: Any) -> tuple[AnswerTrainer, Listening]:
    section, listening = sft_section(**{**BASE, **changes}), Listening()
    settle(section.seed)
    adapted = new_adapter(load_base(Path(tiny.base.folder), None), section)
    checkpoints = CheckpointFolder(out / "checkpoints", "test")
    rows, held_back = (read_prepared(tiny.dataset_dir / name) for name in (TRAIN, VALIDATION))
    tokenizer = load_tokenizer(Path(tiny.base.folder))
    trainer = AnswerTrainer(adapted, section, tokenizer, rows, Watch(report, checkpoints), Ranks(), held_back)
    trainer.add_callback(listening)
    run(trainer, checkpoints)
    return trainer, listening


def losses(trainer: AnswerTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: (1 + cos(pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "constant_with_warmup": lambda done: 1.0,
}


@pytest.mark.parametrize("scheduler", SHAPES)
def test_the_rate_climbs_for_its_share_of_the_steps_and_falls_by_its_formula(tiny: TinyLine, tmp_path: Path, scheduler: str) -> None:
    """Step s of n, counted from 0, with w of them to warm up: s / w of the peak at first, and then the shape at (s - w) / (n - w)."""
    _, listening = trained(tiny, tmp_path, scheduler=scheduler, warmup_ratio=0.3)

    steps = len(listening.rates)
    warm = ceil(0.3 * steps)
    shape = SHAPES[scheduler]
    expected = [PEAK * (step / warm if step < warm else shape((step - warm) / (steps - warm))) for step in range(steps)]
    assert steps > warm + 2
    assert listening.rates == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_gradients_are_scaled_down_to_their_limit_and_no_further(tiny: TinyLine, tmp_path: Path) -> None:
    clipped, heard = trained(tiny, tmp_path / "clipped", max_grad_norm=0.01)
    free, freely = trained(tiny, tmp_path / "free", max_grad_norm=1000)

    logged = [entry["grad_norm"] for entry in clipped.state.log_history if "grad_norm" in entry]
    assert all(length > 0.02 for length in logged)  # as they were before
    assert heard.lengths == pytest.approx([0.01] * len(logged), rel=1e-3)
    assert freely.lengths == pytest.approx([entry["grad_norm"] for entry in free.state.log_history if "grad_norm" in entry], rel=1e-3)


def test_a_step_of_two_passes_is_the_step_of_one(tiny: TinyLine, tmp_path: Path) -> None:
    """The same rows in each step, and the mean over all their tokens: not the mean of the passes' means."""
    once, _ = trained(tiny, tmp_path / "once", batch_size=2, epochs=0.5)
    twice, _ = trained(tiny, tmp_path / "twice", batch_size=1, gradient_accumulation=2, epochs=0.5)

    assert len(losses(once)) > 3
    assert losses(twice) == pytest.approx(losses(once), rel=ROUNDING)


def test_noise_is_on_the_embeddings_in_training_only_and_a_resumed_run_draws_the_same(tiny: TinyLine, tmp_path: Path) -> None:
    """With a learning rate that moves nothing, only noise can tell two runs apart."""
    still = {"learning_rate": 1e-30, "checkpoint_every_steps": 2}
    plain, _ = trained(tiny, tmp_path / "plain", **still)
    noisy, _ = trained(tiny, tmp_path / "noisy", **still, neftune_alpha=10.0)

    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path / "stopped", press_ctrl_c, **still, neftune_alpha=10.0)
    resumed, _ = trained(tiny, tmp_path / "stopped", **still, neftune_alpha=10.0)

    assert all(abs(one - other) > 1e-4 for one, other in zip(losses(plain), losses(noisy), strict=True))
    assert losses(resumed) == losses(noisy)
    assert noisy.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
