"""Tells the server how far a training is, for the metrics. Next: `serving/training_now.py`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.training_now import TRAINING_STAGES, TrainingNow, forget, tell
from training.progress import Progress, Report

_TELL_EVERY_S = 1.0


@contextmanager
def told_live(home: Path, public_name: str, stage: str, report: Report) -> Iterator[Report]:
    """A `Report` that also tells the server, for a stage that trains; what it told is taken back when the block ends."""
    training = next((each for each in TRAINING_STAGES if each == stage), None)
    if training is None:
        yield report
        return
    told_at = 0.0

    def told(progress: Progress) -> None:
        nonlocal told_at
        report(progress)
        if progress.figures and time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            figures = {"step": progress.done, "steps": progress.total, **progress.figures}
            tell(home, TrainingNow.model_validate({"at": time.time(), "public_name": public_name, "stage": training, **figures}))

    try:
        yield told
    finally:
        forget(home, public_name)
