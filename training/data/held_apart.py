"""Training and judging are held apart: an evaluation whose prompts were trained on is refused, even long after.

Next: `leakage.py`, which takes such rows out of the training data in the first place.
"""

from collections.abc import Sequence
from pathlib import Path

from training.data.leakage import SuitePrompt
from training.data.leakage_keys import TrainKeys, manifest_overlap
from training.errors import DataError

TRAIN_KEYS = "train_keys.txt"

_LISTED = 20


def refuse_trained_prompts(dataset_dir: Path, prompts: Sequence[SuitePrompt]) -> None:
    """Raises: DataError naming the prompts that were trained on: a model that has seen the questions is not judged by them."""
    if trained := manifest_overlap(TrainKeys.read(dataset_dir / TRAIN_KEYS), prompts):
        named = ", ".join(f"{prompt.suite}/{prompt.id}" for prompt in trained[:_LISTED])
        raise DataError(
            f"{len(trained)} prompts of the evaluation are among the rows that are trained on: {named}",
            why="the verdict would say how well the model remembers, not how well it answers",
            do="set `data.leakage.action: remove`, or take those prompts out of the suite",
        )
