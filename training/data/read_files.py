"""Which files a path stands for: a file, a folder, a glob, or any of these behind an fsspec address; and how each is opened.

Files come in the order of their names. In a folder or glob, what is hidden or has an ending that no reader knows is listed
as skipped, with the reason. Knows nothing of what is in a file. Next: `readers.py`.
"""

import glob
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from training.data.read_secrets import filled, masked, secrets_of, without
from training.errors import DataError

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet")
PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".gzip", ".zstd")
HIDDEN = "is hidden (its name or folder begins with a dot or an underscore)"
SILENCE_S = 60.0  # of a web server
_GLOB = frozenset("*?[")
_WEB = ("http", "https")


@dataclass(frozen=True)
class DataFile:
    """A file to be read: how a person would call it, where it lies, how large it is on disk where that is known."""

    name: str
    path: str
    size_bytes: int | None
    opener: Callable[[], BinaryIO]

    def open(self) -> BinaryIO:
        """Raises: DataError when it cannot be opened."""
        try:
            return self.opener()
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"data file {self.path} cannot be read: {_said(error)}", do="make it a readable file") from None


@dataclass(frozen=True)
class SkippedFile:
    """A file that lay there and was not read."""

    path: str
    why: str

    @property
    def is_hidden(self) -> bool:
        """Whether nobody would expect it to be read."""
        return self.why == HIDDEN


@dataclass(frozen=True)
class FoundFiles:
    """What a path stands for. `many` tells a folder or a glob from a single file."""

    files: tuple[DataFile, ...]
    skipped: tuple[SkippedFile, ...] = ()
    many: bool = False


def find_files(path: Path | str) -> FoundFiles:
    """The files behind `path`, which is a URL where it is text.

    Raises:
        DataError: nothing is there, nothing in it can be read, or the address cannot be reached.
    """
    found = _local(path.expanduser()) if isinstance(path, Path) else _remote(path)
    if found.files:
        return found
    shown = str(path) if isinstance(path, Path) else masked(path)
    if found.skipped:
        listed = "; ".join(f"{file.path} {file.why}" for file in found.skipped[:5])
        raise DataError(f"{shown} holds no file that can be read: {listed}", do=f"supported endings: {', '.join(ENDINGS + PACKED_ENDINGS)}")
    if isinstance(path, Path) and path.expanduser().is_dir():
        raise DataError(f"the folder {shown} holds no file", do="name the folder that the files lie in, or put them there")
    what = f"no file matches {shown}" if _GLOB & set(shown) else f"data file {shown} is not there"
    raise DataError(what, do="correct the path, or put the file there; a relative path starts at the recipe, or where the command runs")


def stem_ending(name: str) -> str:
    """The ending that says what is in a file: that before `.gz` and the like, in lower case."""
    lowered = name.lower()
    packed = next((ending for ending in PACKED_ENDINGS if lowered.endswith(ending)), "")
    return os.path.splitext(lowered.removesuffix(packed))[1]


def _local(path: Path) -> FoundFiles:
    try:
        if path.is_dir():
            inside = (os.path.join(folder, name) for folder, _, names in os.walk(path, onerror=_raise) for name in names)
            return _sorted_out(inside, path.parent, path)
        if path.exists() or not _GLOB & set(str(path)):
            return FoundFiles((_local_file(path, path.name),) if path.exists() else ())
        matches = glob.glob(str(path), recursive=True, include_hidden=True)
        fixed = Path(*path.parts[: next(number for number, part in enumerate(path.parts) if _GLOB & set(part))])
        return _sorted_out((match for match in matches if os.path.isfile(match)), fixed.parent, fixed)
    except (OSError, ValueError) as error:
        raise DataError(f"data file {path} cannot be read: {_said(error)}", do="correct the path, or who may read it") from None


def _sorted_out(paths: Iterable[str], named_from: Path, root: Path) -> FoundFiles:
    files: list[DataFile] = []
    skipped: list[SkippedFile] = []
    for each in sorted(paths):
        why = _why_skipped(os.path.relpath(each, root))
        if not why and not os.path.isfile(each):
            why = "is no regular file"
        if why:
            skipped.append(SkippedFile(each, why))
        else:
            files.append(_local_file(Path(each), Path(os.path.relpath(each, named_from)).as_posix()))
    return FoundFiles(tuple(files), tuple(skipped), many=True)


def _why_skipped(relative: str) -> str:
    if any(part.startswith((".", "_")) and part not in (".", "..") for part in Path(relative).parts):
        return HIDDEN
    if relative.lower().endswith((*ENDINGS, *PACKED_ENDINGS)):
        return ""
    return "has an ending that no reader knows"


def _local_file(path: Path, name: str) -> DataFile:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"data file {path} is no regular file", do="name a file, a folder or a glob")
    return DataFile(name, str(path), about.st_size, partial(cast("Callable[..., BinaryIO]", open), path, "rb", buffering=0))


def _remote(url: str) -> FoundFiles:
    """Through fsspec, whose every file system raises errors of its own."""
    address = filled(url, "path")
    try:
        return _listed(address)
    except DataError:
        raise
    except FileNotFoundError as error:
        if error.__cause__ is None:
            return FoundFiles(())
        said = without(secrets_of(address, url), str(error.__cause__))
        raise DataError(f"{masked(url)} is not there or cannot be reached: {said}", do="check the address and the connection") from None
    except ImportError as error:
        raise DataError(
            f"{masked(url)} needs a package that is not installed: {error}",
            do="install it beside tunegate; for s3:// that is `tunegate[s3]`",
        ) from None
    except Exception as error:  # noqa: BLE001  # botocore, aiohttp, paramiko and others share no base class
        said = without(secrets_of(address, url), f"{type(error).__name__}: {error}")
        raise DataError(f"{masked(url)} cannot be read: {said}", do="check the address and that it can be reached from here") from None


def _listed(address: str) -> FoundFiles:
    import fsspec  # 60 ms, and needed for addresses alone

    scheme = address.partition("://")[0]
    # An instance that fsspec kept would answer with the listing of its first look, to a watcher for ever.
    system, path = fsspec.core.url_to_fs(address, skip_instance_cache=True, **_patience(scheme))
    wild = _GLOB - {"?"} if scheme in _WEB else _GLOB  # there, a question mark begins the query
    if wild & set(path) and not system.exists(path):
        return _remote_many(system, scheme, system.glob(path))
    about = system.info(path)
    if about["type"] == "directory":
        return _remote_many(system, scheme, system.find(path), path.rstrip("/"))
    return FoundFiles((_remote_file(system, scheme, path),))


def _patience(scheme: str) -> dict[str, Any]:
    """How long a web server may be silent. aiohttp's own limit is on the whole answer: five minutes, which a large file may well take."""
    if scheme not in _WEB:
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)}}


def _remote_many(system: Any, scheme: str, paths: Iterable[str], root: str = "") -> FoundFiles:
    files: list[DataFile] = []
    skipped: list[SkippedFile] = []
    for path in sorted(paths):
        why = _why_skipped(path.removeprefix(root).lstrip("/") if root else path.rpartition("/")[2])
        if why:
            skipped.append(SkippedFile(masked(f"{scheme}://{path.lstrip('/')}"), why))
        elif not system.isdir(path):
            files.append(_remote_file(system, scheme, path))
    return FoundFiles(tuple(files), tuple(skipped), many=True)


def _remote_file(system: Any, scheme: str, path: str) -> DataFile:
    shown = masked(path if "://" in path else f"{scheme}://{path.lstrip('/')}").partition("?")[0]
    size = system.info(path).get("size")
    return DataFile(shown, shown, size, partial(_open_remote, system, path, shown))


def _open_remote(system: Any, path: str, shown: str) -> BinaryIO:
    try:
        return cast(BinaryIO, system.open(path, "rb"))
    except Exception as error:  # noqa: BLE001  # as in `_remote`
        said = without(secrets_of(path), f"{type(error).__name__}: {error}")
        raise DataError(f"{shown} cannot be read: {said}", do="check the address and that it can be reached from here") from None


def _raise(error: OSError) -> None:
    raise error


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
