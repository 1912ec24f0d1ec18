"""Measures a run's speed and memory, step by step. Next: `training/watch.py`, which logs them."""

import time

import psutil
import torch


class Meter:
    """Tokens a second since it was last asked."""

    def __init__(self) -> None:
        self._tokens, self._at = 0, time.monotonic()

    def tokens_per_s(self, tokens: int) -> float:
        """`tokens` is how many have been trained on so far."""
        now = time.monotonic()
        speed = (tokens - self._tokens) / max(now - self._at, 1e-9)
        self._tokens, self._at = tokens, now
        return speed


def memory_bytes() -> float:
    """The peak of the GPU's memory in this process, or the memory of the process where there is no GPU."""
    return float(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss)
