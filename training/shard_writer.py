"""Writes one safetensors file front to back while its tensors are computed: one pass for the bytes, their sha256 and the disk.

The header comes first and holds only names, types and shapes, so no tensor has to wait for another. Writing and hashing go on side
by side behind the caller's next computation, flushing behind the writing; a few megabytes at most are held. A file has its name only
when it is whole. Knows nothing of merging. Next: `fold.py`.
Format: 8 bytes length, JSON header, then the tensors (https://huggingface.co/docs/safetensors, checked by its reader in the tests).
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.atomic import sync_folder
from training.records import FileDigest

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
PARTIAL = ".partial"
_ALIGNMENT = 8
_BYTES_AHEAD = 16 << 20
_FLUSHED_BYTES = 128 << 20  # waiting for the disk starts here, not when the last byte is written


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: `dtype` as safetensors spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor's values."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class ShardWriter:
    """Writes `path`; the tensors' bytes come by `put`, in the order of `entries`, and `finish` makes the file count."""

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self._path, self._partial = path, path.with_name(path.name + PARTIAL)
        self._wanted_bytes = sum(entry.size_bytes for entry in entries)
        self._size_bytes, self._unflushed_bytes, self._ahead_bytes, self._sha256 = 0, 0, 0, hashlib.sha256()
        self._file = self._partial.open("wb", buffering=0)
        self._writer, self._hasher, self._flusher = ThreadPoolExecutor(1), ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._ahead: deque[tuple[int, Future[None], Future[None]]] = deque()
        self._flushes: list[Future[None]] = []
        header = _header(entries)
        self._header_bytes = len(header)
        self.put(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pool in (self._writer, self._hasher, self._flusher):
            pool.shutdown(cancel_futures=kind is not None)
        self._file.close()
        if kind is not None:
            self._partial.unlink(missing_ok=True)

    def put(self, block: Any) -> None:
        """Take the next bytes, an object with the buffer protocol that nobody changes afterwards."""
        content = memoryview(block).cast("B")
        self._ahead.append((len(content), self._writer.submit(self._write, content), self._hasher.submit(self._sha256.update, content)))
        self._ahead_bytes += len(content)
        while self._ahead_bytes > _BYTES_AHEAD:
            self._wait_for_oldest()

    def finish(self) -> FileDigest:
        """Wait until every byte is on the disk and give the file its name.

        Raises:
            ValueError: the blocks are not the tensors that were announced.
        """
        while self._ahead:
            self._wait_for_oldest()
        for flush in self._flushes:
            flush.result()
        if self._size_bytes != self._header_bytes + self._wanted_bytes:
            raise ValueError(f"{self._path.name}: {self._size_bytes - self._header_bytes} bytes of tensors, not {self._wanted_bytes}")
        os.fsync(self._file.fileno())
        os.replace(self._partial, self._path)
        sync_folder(self._path.parent)
        return FileDigest(path=self._path.name, size_bytes=self._size_bytes, sha256=self._sha256.hexdigest())

    def _wait_for_oldest(self) -> None:
        size_bytes, written, hashed = self._ahead.popleft()
        written.result()
        hashed.result()
        self._ahead_bytes -= size_bytes

    def _write(self, block: memoryview) -> None:
        while block:
            block = block[self._written(block) :]
        if self._unflushed_bytes >= _FLUSHED_BYTES:
            self._unflushed_bytes = 0
            self._flushes.append(self._flusher.submit(os.fdatasync, self._file.fileno()))

    def _written(self, block: memoryview) -> int:
        written = self._file.write(block) or 0
        self._size_bytes += written
        self._unflushed_bytes += written
        return written


def _header(entries: Sequence[Entry]) -> bytes:
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in entries:
        end = start + entry.size_bytes
        described[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def read_entries(path: Path) -> list[Entry]:
    """The tensors of a safetensors file in the order in which they lie there."""
    with path.open("rb") as file:
        described = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    described.pop("__metadata__", None)
    ordered = sorted(described.items(), key=lambda item: item[1]["data_offsets"])
    return [Entry(name, value["dtype"], tuple(value["shape"])) for name, value in ordered]
