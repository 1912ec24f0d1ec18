"""From a trainer that is set up to what it leaves: checkpoints on the way, then the figures of the run, its files and its record.

One way for every stage that trains. Knows nothing of methods, rows or losses. Next: `records.py`; `checkpoints.py`.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from transformers import TrainerState

from training.adapters import trainable_parameters
from training.checkpoints import CheckpointFolder
from training.disk import disk_error
from training.errors import TrainingError
from training.ranks import agreed, first_alone
from training.records import CHECKPOINTS, AdapterArtifact, RewardArtifact, digest_files, digest_of

_CHECKPOINT_BYTES_PER_PARAMETER = 12  # fp32 weights and AdamW's two moments
A = TypeVar("A", AdapterArtifact, RewardArtifact)


def checkpoints_for(out: Path, inputs: Sequence[object], model: Any) -> CheckpointFolder:
    """The checkpoints of the stage that fills `out`; one of other `inputs` is never resumed.

    Raises:
        TunegateError: there is too little space for those of this model.
    """
    checkpoints = CheckpointFolder(out / CHECKPOINTS, digest_of(list(inputs)))
    checkpoints.require_space(_CHECKPOINT_BYTES_PER_PARAMETER * trainable_parameters(model))
    return checkpoints


def run(trainer: Any, checkpoints: CheckpointFolder) -> None:
    """Train from the newest whole checkpoint, or from the start.

    Raises:
        TrainingError: the disk is full.
    """
    newest = agreed(checkpoints.newest_valid())
    first_alone(checkpoints.open)
    try:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    except OSError as error:
        raise disk_error(error, checkpoints.root) or TrainingError(
            f"a checkpoint could not be written: {error}", do="free some space; the next run goes on from the last one"
        ) from error


def figures(trainer: Any, started: float, out_of_memory: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the record of every stage says of its run, which began at `started` on the monotonic clock.

    Raises:
        TrainingError: not a single step was made.
    """
    first_loss, last_loss = _losses(trainer.state)
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_s": time.monotonic() - started,
        "trainable_parameters": trainable_parameters(trainer.model),
        "steps": trainer.state.global_step,
        "first_loss": first_loss,
        "last_loss": last_loss,
        "course": trainer.watch.course(trainer, out_of_memory),
    }


def _losses(state: TrainerState) -> tuple[float, float]:
    """The first and the last logged training loss, resumed runs included."""
    logged = [float(entry["loss"]) for entry in state.log_history if "loss" in entry]
    if not logged:
        raise TrainingError("the run logged no loss", why="not a single step was made", do="add rows, or lower the batch size")
    return logged[0], logged[-1]


def keep(artifact: A, checkpoints: CheckpointFolder, out: Path, save: Callable[[], None]) -> A:
    """Have the first process write what was trained; the checkpoints go last, when there is nothing left that could be lost."""

    def write() -> None:
        save()
        artifact.model_copy(update={"files": digest_files(out)}).write(out)
        checkpoints.remove()

    first_alone(write)
    return type(artifact).read(out)
