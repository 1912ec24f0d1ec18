"""Which rows a process reads in which step: every row once an epoch, on one process or on many.

The order depends on the seed and the epoch alone, so a resumed run reads on where the killed one was, on any number of processes. Rows of
like length share a forward pass. Where the last rows of an epoch do not fill a pass, the processes of a spread run read blank rows,
which bear no loss, because all of them must make the same number of passes. Knows nothing of models. Next: `sft.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from training.devices import Ranks


class StepBatches(Sampler[list[int]]):
    """Row numbers of each forward pass of one process; the number behind the last row is the blank one."""

    def __init__(self, lengths: Sequence[int], rows_per_pass: int, passes: int, seed: int, ranks: Ranks) -> None:
        self.lengths, self.rows_per_pass, self.passes, self.seed, self.ranks = list(lengths), rows_per_pass, passes, seed, ranks
        self.epoch = 0

    @property
    def batch_sampler(self) -> "StepBatches":
        """The trainer tells the epoch to what it finds under this name."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The order of this epoch is wanted next."""
        self.epoch = epoch

    def __len__(self) -> int:
        steps, rest = divmod(len(self.lengths), self._rows_per_step)
        return steps * self.passes + self._passes_for(rest)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = get_length_grouped_indices(self.lengths, self._rows_per_step, generator=generator)
        for start in range(0, len(order), self._rows_per_step):
            yield from self._own(order[start : start + self._rows_per_step])

    @property
    def _rows_per_step(self) -> int:
        return self.rows_per_pass * self.passes * self.ranks.world

    def _passes_for(self, rows: int) -> int:
        return -(-rows // (self.rows_per_pass * self.ranks.world))

    def _own(self, rows: list[int]) -> Iterator[list[int]]:
        """This process's passes of one step: the passes are dealt out in turn, so that each gets long and short ones."""
        for number in range(self._passes_for(len(rows))):
            place = (number * self.ranks.world + self.ranks.rank) * self.rows_per_pass
            own = rows[place : place + self.rows_per_pass]
            blanks = self.rows_per_pass - len(own) if self.ranks.world > 1 else 0
            yield own + [len(self.lengths)] * blanks


class InSteps:
    """For a trainer: its rows come by `StepBatches`.

    The trainer sets `row_lengths`; where it is spread its data set ends with a blank row.
    """

    row_lengths: Sequence[int]
    ranks: Ranks
    collate_passes: Callable[[list[Any]], Any] | None = None
    """Makes a pass of rows to train on, where it is another function than for held-back rows."""

    def get_train_dataloader(self: Any) -> DataLoader[Any]:
        """Passes of this process; the trainer library's own would read rows twice to make the processes' numbers even."""
        args = self.args
        batches = StepBatches(self.row_lengths, args.per_device_train_batch_size, args.gradient_accumulation_steps, args.seed, self.ranks)
        collate = self.collate_passes or self.data_collator
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=collate, pin_memory=args.dataloader_pin_memory)
