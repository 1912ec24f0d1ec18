"""How a stage says how far it is. The stage reports; who listens (a bar, a log, Prefect) is not its business."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units, with a short note such as the current loss. `total` 0 means unknown; `figures` are a training's own."""

    done: int
    total: int
    unit: str
    note: str = ""
    figures: Mapping[str, float] | None = None


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A `Report` that listens to nothing."""
