"""Sends what a run logs to TensorBoard, MLflow or Weights & Biases, if the recipe asks for it and the package is there.

Nothing is imported that is not asked for, and a package that is missing is said before anything runs. Where they send to is for their
own environment variables to say (`MLFLOW_TRACKING_URI`, `WANDB_PROJECT`, `WANDB_MODE`); TensorBoard's files lie beside the run's folder.
Next: `curves.py`, which needs none of them.
"""

from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any, Literal

from training.errors import InputError
from training.practice.course import TENSORBOARD_SUFFIX

Tracker = Literal["tensorboard", "mlflow", "wandb"]


def require_trackers(wanted: Sequence[Tracker]) -> None:
    """Raises: InputError naming every package that the recipe asks for and this environment lacks."""
    if missing := [name for name in wanted if util.find_spec(name) is None]:
        raise InputError(
            f"`sft.report_to` names {', '.join(missing)}, which is not installed here",
            why="the run would not be seen where it is looked for",
            do=f"`uv pip install {' '.join(missing)}`, or remove it there; the page of curves beside the run's folder needs no package",
        )


def trackers(wanted: Sequence[Tracker], out: Path) -> list[Any]:
    """The trainer's callbacks that send, for a run that fills the folder `out`."""
    return [_tracker(name, out) for name in wanted]


def _tracker(name: Tracker, out: Path) -> Any:
    from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

    if name == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        return TensorBoardCallback(SummaryWriter(str(out.with_name(f"{out.name}{TENSORBOARD_SUFFIX}"))))
    return MLflowCallback() if name == "mlflow" else WandbCallback()
