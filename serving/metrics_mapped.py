"""The numbers of one gateway worker, in files that stay when it is killed: a number's new value is one store into mapped memory.

The files are prometheus_client's multiprocess mode, which reads them; its own values take a lock and pack two numbers for every step.
One event loop counts in a worker, so there is nobody to lock out. Next: `metrics_workers.py`, which joins the files.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key


def count_in(folder: str, number: int) -> None:
    """Have metrics made from now on count in files of this number; the next worker under it goes on from there."""
    values.ValueClass = partial(MappedValue, _Files(Path(folder), number))


class _Files:
    """One for each type of metric, as the reader wants them."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._of: dict[str, MmapedDict] = {}

    def of(self, kind: str) -> MmapedDict:
        if kind not in self._of:
            self._of[kind] = MmapedDict(str(self._folder / f"{kind}_{self._number}.db"))  # type: ignore[no-untyped-call]
        return self._of[kind]


class MappedValue:
    """What prometheus_client's metrics keep a number in."""

    _multiprocess = True

    def __init__(
        self, files: _Files, typ: str, metric_name: str, name: str, labelnames: Sequence[str], labelvalues: Sequence[str], help_text: str,
        multiprocess_mode: str = "", **_: Any,
    ) -> None:  # fmt: skip
        file = files.of(f"{typ}_{multiprocess_mode}" if multiprocess_mode else typ)
        key = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
        self._value: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]
        # A file that grows is mapped anew; what is looked into here stays mapped, and is the same memory.
        self._place = memoryview(file._m)[file._positions[key] :][:8].cast("d")

    def inc(self, amount: float) -> None:
        """Add."""
        self._value = self._place[0] = self._value + amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Put another value in; no metric of ours says when that was."""
        self._value = self._place[0] = value

    def get(self) -> float:
        """The value."""
        return self._value

    def set_exemplar(self, exemplar: object) -> None:
        """The files have no room for one."""

    def get_exemplar(self) -> None:
        """None."""
