"""Files and folders that are there whole or not at all.

Everything that must survive a crash is written here: beside its final place, flushed to the disk, then renamed.
Knows nothing of what it writes. Next: `records.py`.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TunegateError

_CHUNK_BYTES = 1 << 20
_TEMP_MARK = ".partial-"


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace `path` by `text` in one step; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well, and vanishes when it does not.

    An older `path` is replaced. The leftovers of a killed writer are swept first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        sync_tree(partial)
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(path.parent)


def sweep(path: Path) -> None:
    """Delete what killed writers of `path` left behind."""
    for leftover in path.parent.glob(f".{path.name}{_TEMP_MARK}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start writing what cannot be finished.

    Raises:
        TunegateError: the disk under `folder` has less than `needed_bytes` free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise TunegateError(
            f"the disk under {folder} has {free_bytes / 1e9:.2f} GB free, {needed_bytes / 1e9:.2f} GB are needed",
            why="a half-written model or checkpoint is worth nothing",
            do="free some space, or point TUNEGATE_HOME at a larger disk; the next run goes on where this one stopped",
        )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _partial(path: Path) -> Path:
    return path.parent / f".{path.name}{_TEMP_MARK}{uuid.uuid4().hex[:8]}"


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself, to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names, not its files, to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
