"""Which shards of a fold are finished: a line for each, on the disk before the next is begun.

It lies beside the folder, because the folder is what is served. A journal of other inputs is begun anew, a torn last line is passed
over, and a shard whose bytes are not those of its line is made again. Next: `fold.py`.
"""

import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from training.atomic import sha256_of
from training.records import FileDigest


class FoldJournal:
    """The journal of the fold that fills `folder`, which is emptied first unless a fold of the same inputs goes on.

    `inputs` is the digest of all that the outcome depends on; empty if nobody knows, and then nothing goes on.
    """

    def __init__(self, folder: Path, inputs: str) -> None:
        self._folder, self._path = folder, folder.with_name(f"{folder.name}.jsonl")
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        goes_on = bool(inputs and lines) and lines[0] == _head(inputs)
        if not goes_on:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._finished = {file.path: file for file in map(_whole, lines[1:]) if file} if goes_on else {}
        self._file = self._path.open("a" if goes_on else "w", encoding="utf-8")
        self._write("" if goes_on else _head(inputs))  # a line may be torn: the next one must not be appended to it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def has(self, name: str) -> bool:
        """Whether this shard is finished, every byte as it was written."""
        known, path = self._finished.get(name), self._folder / name
        return known is not None and path.is_file() and path.stat().st_size == known.size_bytes and sha256_of(path) == known.sha256

    def add(self, shard: FileDigest) -> None:
        """This shard is on the disk."""
        self._finished[shard.path] = shard
        self._write(shard.model_dump_json())

    def digest_of(self, path: Path) -> FileDigest:
        """A file of the folder: shards were hashed when they were written."""
        known = self._finished.get(path.name)
        return known or FileDigest(path=path.name, size_bytes=path.stat().st_size, sha256=sha256_of(path))

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _head(inputs: str) -> str:
    return json.dumps({"inputs": inputs})


def _whole(line: str) -> FileDigest | None:
    try:
        return FileDigest.model_validate_json(line)
    except ValueError:
        return None
