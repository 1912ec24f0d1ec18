"""The trap of a batch that does not fit: fewer rows in a pass, as many more passes in a step, and the run goes on.

The steps stay what they were: the same rows in each, the same mean over their tokens. Everything a run is built from is let go of and
built again, because what was under way when memory ran out is of no use. Knows nothing of models. Next: `training/sft.py`.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from training.errors import TrainingError
from training.sections import Section

S = TypeVar("S", bound=Section)
T = TypeVar("T")

# What torch raises where there is no class of its own for it: the allocator of a CPU, and cuBLAS for its workspace.
_SAID_BY_TORCH = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Passes:
    """How a step's rows are dealt out: so many at a time, so many times."""

    rows: int
    number: int

    def of(self, section: S) -> S:
        """The section of a recipe as it is carried out."""
        return section.model_copy(update={"batch_size": self.rows, "gradient_accumulation": self.number})

    def smaller(self) -> "Passes | None":
        """At most half as many rows at a time for the same step, or None where there is but one."""
        rows = next((rows for rows in range(self.rows // 2, 0, -1) if self.rows % rows == 0), None)
        return Passes(rows, self.number * (self.rows // rows)) if rows else None


def with_smaller_passes(passes: Passes, attempt: Callable[[Passes], T], *, fixed: str = "") -> tuple[T, tuple[str, ...]]:
    """What `attempt` returns, called again with smaller passes each time it runs out of memory; and a sentence for each of those times.

    `fixed` is why smaller passes would not make the same steps; the run ends then, and says so.

    Raises:
        TrainingError: a single row does not fit.
    """
    said: list[str] = []
    while True:
        try:
            return attempt(passes), tuple(said)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = None if fixed else passes.smaller()
            if smaller is None:
                raise TrainingError(
                    f"memory ran out with {passes.rows} {'row' if passes.rows == 1 else 'rows'} in a pass"
                    + (f": {fixed}; halve this stage's `batch_size`, and double its `gradient_accumulation`" if fixed else ""),
                    why="the model and its longest row do not fit into this machine's memory",
                    do="lower `model.max_length`, quantise the base weights (`sft.method: qlora`), or take a device with more memory",
                ) from error
        said.append(
            f"memory ran out with {passes.rows} rows in a pass: went on with {smaller.rows} rows and {smaller.number} passes in a step"
        )
        passes = smaller
        _let_go()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in this process."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(mark in str(error) for mark in _SAID_BY_TORCH)


def _let_go() -> None:
    """Free what the failed attempt left behind; its traceback, which held on to all of it, is gone by now."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
