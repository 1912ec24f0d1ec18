"""The processes that train one model together, as each of them sees it: joins them, lets one write, lets all agree.

Alone, every function here does the plain thing. Knows nothing of trainers. Next: `step_batches.py`, what each of them reads.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from training.devices import Ranks, ranks_here

T = TypeVar("T")

# A launcher ends all processes when one dies, so a wait is never for the dead; others may prepare data for hours.
_PATIENCE = timedelta(hours=24)


def join() -> Ranks:
    """Meet the other processes, if a launcher says that there are any; each takes its own GPU where there are some."""
    ranks = ranks_here()
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank)
    if ranks.world > 1 and not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)
    return ranks


def leave() -> None:
    """Part from the others, when all have come this far."""
    if distributed.is_initialized():
        wait_for_all()
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()


def agreed(value: T) -> T:
    """The first process's value, for all of them."""
    if not distributed.is_initialized():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def summed(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if distributed.is_initialized():
        value = value.clone()
        distributed.all_reduce(value)
    return value


def first_alone(work: Callable[[], object]) -> None:
    """Let one process do something to the disk while the others wait before and after it."""
    wait_for_all()
    if ranks_here().first:
        work()
    wait_for_all()


def as_forward(model: Any, own: Any, work: Callable[[Any, dict[str, Any]], Any], inputs: dict[str, Any]) -> Any:
    """`work(own, inputs)` as one forward pass of `model`, which wraps `own`.

    What gathers gradients and shards of weights hangs on the wrapper's call: a pass around it would train each process alone.
    """
    if not distributed.is_initialized():
        return work(own, inputs)
    usual, was_set = own.forward, "forward" in own.__dict__

    def restore() -> None:
        if was_set:
            own.forward = usual
        else:
            own.__dict__.pop("forward", None)

    def once(inputs: dict[str, Any]) -> Any:
        restore()
        return work(own, inputs)

    own.forward = once
    try:
        return model(inputs=inputs)
    finally:
        restore()
