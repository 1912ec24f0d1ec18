"""A disk that is full, read-only or somebody else's: a number of the system's, told as what happened, where, and what to do.

Any write of any library may meet it, so it is told in one place, at the top of a process, instead of at each write. What was written
before is whole: everything that must survive is made beside its place and renamed. Next: `atomic.py`.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.errors import DiskError, TunegateError

_ROOM = "free some space, or point TUNEGATE_HOME at a larger disk; the next run goes on where this one stopped"
_RIGHTS = "give this user the right to it, or name another place; the next run goes on where this one stopped"
_MEANS = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the quota of this user is used up", _ROOM),
    errno.EFBIG: ("the file may not grow any further", _ROOM),
    errno.EROFS: ("the disk is read-only", _RIGHTS),
    errno.EACCES: ("this user may not", _RIGHTS),
}
# Libraries in Rust and C++ give the system's words instead of its number; torch's writer does not even give those.
_MARKS = {"os error 28": errno.ENOSPC, "No space left on device": errno.ENOSPC, "os error 122": errno.EDQUOT, "os error 30": errno.EROFS}
_MARKS |= {"os error 13": errno.EACCES, "PytorchStreamWriter failed writing": errno.ENOSPC, "at inline_container.cc": errno.ENOSPC}


@contextmanager
def disk_faults_told(near: Path) -> Iterator[None]:
    """Raise what the disk has done to the block as a `DiskError`; `near` is where it writes, for errors that name no file."""
    try:
        yield
    except TunegateError:
        raise
    except Exception as error:
        told = disk_error(error, near)
        if told is None:
            raise
        raise told from error


def disk_error(error: BaseException, near: Path) -> DiskError | None:
    """The error in plain words, if it or what it was raised from is the disk's; None for any other."""
    each: BaseException | None = error
    while each is not None:
        number = _number(each)
        if number is not None:
            named = getattr(each, "filename", None)
            return _told(number, Path(named) if isinstance(named, str) else near)
        each = each.__cause__
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in _MEANS:
        return error.errno
    return next((number for mark, number in _MARKS.items() if mark in str(error)), None)


def _told(number: int, path: Path) -> DiskError:
    what, do = _MEANS[number]
    return DiskError(f"{path} cannot be written or opened: {what}{_free(path)}", why="what was finished before is whole and is kept", do=do)


def _free(path: Path) -> str:
    """How much room there is, where anybody may know."""
    with suppress(OSError, StopIteration):
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
        return f" ({shutil.disk_usage(there).free / 1e6:.1f} MB are free under {there})"
    return ""
