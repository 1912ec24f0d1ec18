"""What decides whether a run can be repeated bit for bit: the seed, the algorithms, the machine's threads, the libraries. For its record.

On a CPU the same number of threads gives the same bits; on a GPU some sums are taken in the order in which their parts arrive, unless
the recipe asks for algorithms that do not (`sft.deterministic`). Next: `course.py`, which holds the record's part.
"""

import os
import platform
from importlib import metadata

import torch

from training.practice.course import Conditions

_DECIDING = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")


def be_deterministic(wanted: bool) -> None:
    """Take only algorithms that give the same bits each time, or whatever is fastest; call before the GPU is first used."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS shares its workspace between streams otherwise
    torch.use_deterministic_algorithms(wanted)


def conditions(seed: int) -> Conditions:
    """Under which conditions this process trains."""
    on_gpu = torch.cuda.is_available()
    return Conditions(
        seed=seed,
        repeatable=not on_gpu or torch.are_deterministic_algorithms_enabled(),
        device=torch.cuda.get_device_name() if on_gpu else platform.machine(),
        threads=torch.get_num_threads(),
        versions={name: metadata.version(name) for name in _DECIDING},
    )
