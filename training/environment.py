"""The environment that a training or merging process needs, set by whoever starts it. Knows nothing of torch. Next: `builders.py`."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1

# Threads look for new work for a while before they sleep. A training step is some thousand small operations: with threads that
# sleep at once it takes 1.3 times as long, with threads that never do one busy neighbour on the same cores slows it tenfold.
_SPINS = "50000"

# Freed memory stays with the process. Given back, large tensors are new pages to fault in: 734 000 faults, not 566 000, over ten steps.
_KEPT_BYTES = str(1 << 33)


def stage_environment(cores: int) -> dict[str, str]:
    """Environment of a process that trains or merges; it must be there before torch is imported."""
    return {
        "OMP_NUM_THREADS": str(cores),
        "GOMP_SPINCOUNT": _SPINS,
        "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES,
        "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def die_with_parent() -> None:
    """Have this process killed when the one that started it is gone, however that ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
