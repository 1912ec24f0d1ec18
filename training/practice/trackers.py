"""Sends what a run logs to TensorBoard, MLflow or Weights & Biases, if the recipe asks for it and the package is there.

Nothing is imported that is not asked for, and a package that is missing is said before anything runs. Where they send to is for their
own environment variables to say (`MLFLOW_TRACKING_URI`, `WANDB_PROJECT`, `WANDB_MODE`); TensorBoard's files lie beside the run's folder.
Next: `curves.py`, which needs none of them.
"""

from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, Literal

from training.errors import InputError
from training.practice.course import TENSORBOARD_SUFFIX

Tracker = Literal["tensorboard", "mlflow", "wandb"]
_PACKAGES: Mapping[Tracker, str] = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}


def require_trackers(wanted: Sequence[Tracker]) -> None:
    """Raises: InputError naming every package that the recipe asks for and this environment lacks."""
    if missing := [name for name in wanted if util.find_spec(name) is None]:
        packages = " ".join(_PACKAGES[name] for name in missing)
        raise InputError(
            f"`sft.report_to` names {', '.join(missing)}, which is not installed here",
            why="the run would not be seen where it is looked for",
            do=f"`uv pip install {packages}`, or remove it there; the page of curves beside the run's folder needs no package",
        )


def trackers(wanted: Sequence[Tracker], out: Path) -> list[Any]:
    """The trainer's callbacks that send, for a run that fills the folder `out`."""
    return [_tracker(name, out) for name in wanted]


def _tracker(name: Tracker, out: Path) -> Any:
    """Stages end without the interpreter's own exit, at which both packages would send what is still on its way: it is sent at the end."""
    from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

    class ToMlflow(MLflowCallback):  # type: ignore[misc]
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self._initialized and state.is_world_process_zero:
                self._ml_flow.flush_async_logging()
            super().on_train_end(args, state, control, **kwargs)

    class ToWandb(WandbCallback):  # type: ignore[misc]
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_train_end(args, state, control, **kwargs)
            if self._initialized and state.is_world_process_zero:
                self._wandb.finish()

    match name:
        case "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            return TensorBoardCallback(SummaryWriter(str(out.with_name(f"{out.name}{TENSORBOARD_SUFFIX}"))))
        case "mlflow":
            return ToMlflow()
        case "wandb":
            return ToWandb()
