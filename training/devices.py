"""Several processes that train one model: how many there are, what of a step each one does, and what cannot be spread.

Rows per step are the recipe's, however many processes share them: the same recipe on one GPU or on sixteen makes the same steps over the
same rows. Knows nothing of torch, so that a plan costs no import. Next: `ranks.py`, which joins the others; `launch.py`, which starts them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from training.config import SftSection
from training.errors import InputError
from training.methods import METHODS
from training.sections import Section


class DevicesSection(Section):
    """What a recipe says of the devices that train; but for rounding, the outcome does not depend on it."""

    processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="processes that train on this machine, one for each GPU; WORLD_SIZE, set by a launcher, goes before it",
    )
    shard: bool = Field(
        default=False,
        description="each process holds a part of every block's frozen weights (FSDP), for models that do not fit on one GPU; LoRA methods",
    )

    def misfits(self, sft: SftSection) -> list[str]:
        """Why the weights of what `sft` trains cannot be shared out; empty when they can, or need not."""
        if not self.shard:
            return []
        faults = []
        if self.processes == 1:
            faults.append("devices.processes is 1, and one process has nobody to share weights with: raise it, or remove devices.shard")
        if sft.tuning.family != "lora":
            able = ", ".join(name for name, method in METHODS.items() if method.family == "lora")
            faults.append(
                f"devices.shard shares out weights that are frozen beside an adapter; sft.method {sft.method} has none: choose {able}"
            )
        moved = [f"sft.{key}" for key in ("also_train", "experts") if getattr(sft, key)]
        if moved:
            faults.append(
                f"devices.shard shares out frozen weights, and {' and '.join(moved)} tunes some of them whole: remove one of the two"
            )
        if sft.quantization is not None and sft.quantization.type == "int8":
            faults.append("devices.shard cannot cut weights in int8, only those in nf4, fp4 or bf16: change sft.quantization.type")
        return faults


ALONE = DevicesSection()


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, on all machines and on this one."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0


def ranks_here(environment: Mapping[str, str] = os.environ) -> Ranks:
    """What a launcher (torchrun, accelerate, a job controller) says of this process in its environment; without one it is alone.

    Raises:
        InputError: the variables contradict each other.
    """
    if not is_launched(environment):
        return Ranks()
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    said = {name: environment.get(name, usual) for name, usual in names.items()}
    numbers = [int(value) if value.isdecimal() else -1 for value in said.values()]
    rank, world, local_rank, local_world = numbers
    if not (0 <= rank < world and 0 <= local_rank < local_world <= world):
        raise InputError(
            "the launcher's variables contradict each other: " + ", ".join(f"{name}={value}" for name, value in said.items()),
            why="the processes would wait for each other for ever",
            do="start with torchrun, or unset RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE to train in one process",
        )
    return Ranks(*numbers)


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in environment and "WORLD_SIZE" in environment


def require_others(ranks: Ranks, *, shard: bool) -> None:
    """Raises: InputError when weights are to be shared out, and there is one process only."""
    if shard and ranks.world == 1:
        raise InputError(
            "`devices.shard` shares weights out among processes, and this training was started as one",
            do="start as many as there are GPUs, or remove the key",
        )


def shared_out(rows_per_pass: int, passes: int, world: int) -> tuple[int, int]:
    """Rows per forward pass and passes per step of each process, for the step that one process makes in `passes` passes.

    Passes are shared out first; a pass is cut only where there are too few, into equal parts that are no larger.

    Raises:
        InputError: the rows of a step cannot be shared out equally.
    """
    if fault := unequal_shares(rows_per_pass, passes, world):
        raise InputError(
            fault,
            why="the same recipe makes the same steps on any number of devices",
            do=f"make `batch_size` × `gradient_accumulation` a multiple of {world}, or train with fewer processes",
        )
    share = rows_per_pass * passes // world
    largest = next(size for size in range(min(rows_per_pass, share), 0, -1) if share % size == 0)
    return largest, share // largest


def unequal_shares(rows_per_pass: int, passes: int, world: int) -> str | None:
    """A sentence when the rows of a step cannot be shared out equally."""
    rows = rows_per_pass * passes
    return f"{rows} rows per step ({rows_per_pass} × {passes}) cannot be shared equally by {world} processes" if rows % world else None
