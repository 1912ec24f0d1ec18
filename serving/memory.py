"""How much memory an engine will take, and how much there is: what decides whether a new one fits beside the old one.

On a CPU that is this machine's memory, or what its container may have of it; on a GPU the share of it that each recipe asks for, which
vLLM takes at once and whole. Next: `places.py`, which decides by it.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from serving.engine import kv_cache_gib, runs_on_cpu
from serving.records import Release

_GIB = 1 << 30
# A vLLM process on a CPU beyond weights and cache: measured 1.2 GiB with SmolLM2-135M.
_PROGRAM_BYTES = int(1.2 * _GIB)
# Left to everything else on the machine.
_SPARE_BYTES = _GIB // 2
# vLLM takes a little more than its share.
_GPU_USABLE = 0.98
_CGROUP = Path("/sys/fs/cgroup")


class Memory(Protocol):
    """One kind of memory."""

    def needs(self, release: Release) -> float:
        """What the release's engine will take."""
        ...

    def room(self, engines: Collection[int]) -> float:
        """What engines may take in all, those with these process ids included."""
        ...

    def words(self, amount: float) -> str:
        """An amount for people."""
        ...


class MachineMemory:
    """Bytes of this machine."""

    def needs(self, release: Release) -> float:
        """Weights as they are served, a cache for every seat, and the program."""
        section, folder = release.serving, release.model_dir
        try:
            weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            cache = kv_cache_gib(folder, section) * _GIB
        except (OSError, ValueError, KeyError):
            return 0.0  # what is wrong with these files is said when they are verified
        return weights * (2 if section.dtype == "float32" else 1) + cache + _PROGRAM_BYTES

    def room(self, engines: Collection[int]) -> float:
        """What is free, and what the engines have taken of it."""
        return _available() - _SPARE_BYTES + sum(_resident(engines))

    def words(self, amount: float) -> str:
        """In GiB."""
        return f"{max(0.0, amount) / _GIB:.1f} GiB"


class GpuMemory:
    """Shares of the GPUs, which all engines of a machine have in common."""

    def needs(self, release: Release) -> float:
        """The recipe's `gpu_memory_utilization`."""
        return release.serving.gpu_memory_utilization

    def room(self, engines: Collection[int]) -> float:
        """Nearly all of it; whatever else is on the GPU, vLLM itself meets and names at its start."""
        return _GPU_USABLE

    def words(self, amount: float) -> str:
        """In percent."""
        return f"{max(0.0, amount):.0%} of the GPU"


def memory_of_this_machine() -> Memory:
    """The kind that this machine's vLLM runs in."""
    return MachineMemory() if runs_on_cpu() else GpuMemory()


def _available() -> int:
    free = psutil.virtual_memory().available
    limit, used, cached = (_cgroup(name) for name in ("memory.max", "memory.current", "memory.stat"))
    return free if limit is None or used is None else min(free, limit - used + (cached or 0))


def _cgroup(name: str) -> int | None:
    """A number of this container, in bytes; of `memory.stat`, the file pages that it can do without."""
    try:
        text = (_CGROUP / name).read_text(encoding="ascii")
    except OSError:
        return None
    if name == "memory.stat":
        text = next((line.split()[1] for line in text.splitlines() if line.startswith("inactive_file ")), "0")
    return int(text) if text.strip().isdigit() else None


def _resident(engines: Collection[int]) -> Iterator[int]:
    """What each engine holds, from one look at the machine's processes for all of them."""
    processes = {process.pid: process for process in psutil.process_iter()} if engines else {}
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        with suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(pid)
    for engine in engines:
        family = [engine]
        for pid in family:  # it grows while it is read: children, their children, and so on
            family += children.get(pid, ())
        # Forked processes share what they have imported: the largest alone is nearer to the truth than the sum.
        yield max(_rss(processes[pid]) if pid in processes else 0 for pid in family)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
