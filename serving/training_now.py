"""How far each training is right now: one small file for each public name, for the metrics and nothing else.

Whoever runs the training writes, the server reads; a file is replaced in one step and removed when the stage ends. One that was left
by a killed run is old, and does not count. Next: `metrics_training.py`, which shows it; `flows/live_training.py`, which writes.
"""

import logging
import os
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_log = logging.getLogger(__name__)

TrainingStage = Literal["sft", "preference", "reward", "online"]
TRAINING_STAGES: tuple[TrainingStage, ...] = get_args(TrainingStage)
FOLDER = "training"
FRESH_S = 900.0  # a step of a large model on a slow machine takes minutes


class TrainingNow(BaseModel):
    """The newest step of one training at `at` (seconds since 1970)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    public_name: str
    stage: TrainingStage
    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    loss: float | None = None
    held_out_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_s: float | None = None
    memory_bytes: float | None = None


def tell(home: Path, now: TrainingNow) -> None:
    """Replace what is known of this public name's training. A file that cannot be written is no reason to lose a night of training."""
    path = _path(home, now.public_name)
    try:
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(now.model_dump_json(), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        _log.warning("%s cannot be written, so the metrics do not show this training: %s", path, error)


def forget(home: Path, public_name: str) -> None:
    """The training of this public name has ended, in whatever way."""
    _path(home, public_name).unlink(missing_ok=True)


def trainings(home: Path, at: float) -> list[TrainingNow]:
    """What is being trained at `at`; what cannot be read, or is old, is passed over."""
    found = []
    for path in sorted((home / FOLDER).glob("*.json")):
        try:
            now = TrainingNow.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if at - now.at < FRESH_S:
            found.append(now)
    return found


def _path(home: Path, public_name: str) -> Path:
    return home / FOLDER / f"{public_name}.json"
