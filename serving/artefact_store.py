"""Models kept at an address of any kind that fsspec knows (file, s3, gs, az), so that machines which serve need no disk in common.

    ADDRESS/models/DIGEST/FILES…        every file by its path in the model's folder
    ADDRESS/models/DIGEST/model.sig     where it is signed
    ADDRESS/models/DIGEST/record.json   written last: without it, nothing is there

A model goes there when it becomes a release, and comes to the folder that the registry names when a machine needs it and has it not:
that folder is the local cache. Every byte is hashed on its way and compared with the record, whose digest is the release's. A transfer
that is killed leaves nothing that counts. Knows nothing of who asks. Next: `artefact.py`, which looks at what is on the disk.
"""

import fcntl
import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from serving.artefact import read_model
from serving.errors import StoreError, StoreUnreachable
from serving.records import Release
from serving.settings import Settings, load_settings
from training.atomic import new_folder, require_space
from training.data.read_secrets import filled, masked, secrets_of, without
from training.errors import RecordError, TunegateError
from training.records import RECORD_NAME, SIGNATURE_NAME, FileDigest, verify_files

T = TypeVar("T")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_log = logging.getLogger(__name__)
_PIECE_BYTES = 8 << 20
_ATTEMPTS = 3
# A key that is refused, an address that is none: no later try finds it otherwise.
_STAYS = (PermissionError, ValueError, FileNotFoundError)
_FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class StoredModel:
    """A model at an address, or what is left of one: `size_bytes` is what lies there."""

    address: str
    digest: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{masked(self.address)}/models/{self.digest}"


@dataclass(frozen=True)
class ArtefactStore:
    """One address. `transfers` files are on their way at a time.

    Raises (in every method):
        StoreError: it cannot be reached, or refuses; after some attempts.
        RecordError: what is there, or here, is not what its record says.
    """

    address: str
    transfers: int = 8
    pause_s: float = _FIRST_PAUSE_S
    _filesystem: Any = field(init=False, repr=False, compare=False)
    _root: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        import fsspec

        address = filled(self.address, "TUNEGATE_ARTEFACT_URL")
        options = {"auto_mkdir": True} if address.startswith(("file:", "local:", "/")) else {}
        with self._reaching("opened", address):
            filesystem, root = fsspec.core.url_to_fs(address, **options)
        object.__setattr__(self, "_filesystem", filesystem)
        object.__setattr__(self, "_root", root.rstrip("/"))

    def holds(self, digest: str) -> bool:
        """Whether a whole model is there."""
        return self._attempted(lambda: bool(self._filesystem.exists(self._path(digest, RECORD_NAME))), f"asked for {digest[:12]}")

    def models(self) -> tuple[StoredModel, ...]:
        """Everything that lies there, whole or not, by digest."""
        self._filesystem.invalidate_cache()
        found = self._attempted(lambda: self._filesystem.find(f"{self._root}/models", detail=True), "listed")
        sizes = dict[str, int]()
        for path, facts in found.items():
            digest = path.rpartition("/models/")[2].partition("/")[0]
            sizes[digest] = sizes.get(digest, 0) + int(facts["size"] or 0)
        return tuple(StoredModel(self.address, digest, size) for digest, size in sorted(sizes.items()))

    def drop(self, digest: str) -> None:
        """Remove a model. Its record goes first: killed in the middle, it leaves nothing that anybody would take for a model."""
        if self.holds(digest):
            self._attempted(lambda: self._filesystem.rm_file(self._path(digest, RECORD_NAME)), f"freed of {digest[:12]}")
        self._filesystem.invalidate_cache()
        self._attempted(lambda: self._clear(f"{self._root}/models/{digest}"), f"freed of {digest[:12]}")

    def lies_below(self, folder: Path) -> bool:
        """Whether it is a part of this folder."""
        return "file" in self._protocols() and Path(self._root).resolve().is_relative_to(folder.resolve())

    def _protocols(self) -> tuple[str, ...]:
        named = self._filesystem.protocol
        return (named,) if isinstance(named, str) else tuple(named)

    def _clear(self, place: str) -> None:
        if self._filesystem.exists(place):
            self._filesystem.rm(place, recursive=True)

    def put(self, folder: Path) -> int:
        """Bring a model there; returns the bytes that went, 0 where it was there before."""
        record = read_model(folder)
        held = self.holds(record.digest)
        if not held:
            verify_files(folder, record.files)
            self._in_parallel(
                lambda file: self._attempted(lambda: self._send(folder, record.digest, file), f"given {file.path}"), record.files
            )
        if (folder / SIGNATURE_NAME).exists():  # it may have been signed since
            self._send_small(folder / SIGNATURE_NAME, record.digest)
        if not held:
            self._send_small(folder / RECORD_NAME, record.digest)
        return 0 if held else sum(file.size_bytes for file in record.files)

    def fetch(self, digest: str, folder: Path) -> None:
        """Bring a model here, as `folder`, which is whole or not there. Several processes may ask for it at once; one fetches."""
        with _alone(folder):
            if (folder / RECORD_NAME).exists():
                return
            if not self.holds(digest):
                raise StoreError(
                    f"{masked(self.address)} does not hold the model {digest[:12]}",
                    why="it can be served only from a machine that has it",
                    do="run the recipe again where TUNEGATE_ARTEFACT_URL is set; see whether it is the same address there",
                )
            with new_folder(folder) as made:
                self._fetch(digest, made)

    def _fetch(self, digest: str, made: Path) -> None:
        marker = self._attempted(lambda: self._filesystem.cat_file(self._path(digest, RECORD_NAME)), "asked for the record")
        (made / RECORD_NAME).write_bytes(marker)
        record = read_model(made)
        if record.digest != digest:
            raise self._altered(f"the record of {digest[:12]} is that of the model {record.digest[:12]}")
        if strange := [file.path for file in record.files if not _is_inside(file.path)]:
            raise self._altered(f"the record of {digest[:12]} names {strange[0]!r}, which is no place inside a model")
        require_space(made, sum(file.size_bytes for file in record.files))
        self._in_parallel(lambda file: self._attempted(lambda: self._receive(digest, file, made), f"asked for {file.path}"), record.files)
        signature = self._path(digest, SIGNATURE_NAME)
        if self._attempted(lambda: bool(self._filesystem.exists(signature)), "asked for a signature"):
            (made / SIGNATURE_NAME).write_bytes(self._attempted(lambda: self._filesystem.cat_file(signature), "asked for the signature"))

    def _send(self, folder: Path, digest: str, file: FileDigest) -> None:
        with (folder / file.path).open("rb") as source, self._filesystem.open(self._path(digest, file.path), "wb") as target:
            found = _copied(source, target)
        if found != file.sha256:
            raise RecordError(f"{folder / file.path} changed while it was sent", do="run the recipe again")

    def _send_small(self, file: Path, digest: str) -> None:
        content = file.read_bytes()
        self._attempted(lambda: self._filesystem.pipe_file(self._path(digest, file.name), content), f"given {file.name}")

    def _receive(self, digest: str, file: FileDigest, made: Path) -> None:
        place = made / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        with self._filesystem.open(self._path(digest, file.path), "rb") as source, place.open("wb") as target:
            found = _copied(source, target)
        if found != file.sha256:
            raise self._altered(f"{file.path} of {digest[:12]} hashes to {found[:12]}, its record says {file.sha256[:12]}")

    def _path(self, digest: str, name: str) -> str:
        return f"{self._root}/models/{digest}/{name}"

    def _in_parallel(self, transfer: Callable[[FileDigest], None], files: tuple[FileDigest, ...]) -> None:
        with ThreadPoolExecutor(self.transfers, thread_name_prefix="artefacts") as pool:
            largest_first = sorted(files, key=lambda file: -file.size_bytes)
            waiting = [pool.submit(transfer, file) for file in largest_first]
            try:
                for each in waiting:
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _attempted(self, step: Callable[[], T], what: str) -> T:
        for attempt in range(_ATTEMPTS - 1):
            try:
                with self._reaching(what, self.address):
                    return step()
            except StoreError as error:
                _log.warning("%s; trying again", error.what)
                time.sleep(self.pause_s * 2**attempt)
        with self._reaching(what, self.address):
            return step()

    @contextmanager
    def _reaching(self, what: str, address: str) -> Iterator[None]:
        try:
            yield
        except TunegateError:
            raise
        except ImportError as error:
            raise _lacks_package(address, error) from error
        except Exception as error:  # the client of each kind of address raises kinds of its own
            detail = without(secrets_of(address), " ".join(str(error).split()))[:300]
            kind = StoreError if isinstance(error, _STAYS) else StoreUnreachable
            raise kind(
                f"{masked(self.address)} cannot be {what}: {type(error).__name__}: {detail}",
                why="models are kept there for the machines that serve them",
                do="see whether it can be reached, and whether its keys are set",
            ) from error

    def _altered(self, what: str) -> RecordError:
        return RecordError(
            f"{masked(self.address)}: {what}",
            why="these are not the weights that were judged",
            do="delete that model there; the next run of its recipe brings it again",
        )


def _lacks_package(address: str, error: ImportError) -> StoreError:
    scheme = address.partition("://")[0]
    extra = _EXTRAS.get(scheme)
    do = f"install the extra that speaks it: pip install 'tunegate[{extra}]'" if extra else "install the fsspec package that speaks it"
    return StoreError(
        f"TUNEGATE_ARTEFACT_URL begins with {scheme}://, and what speaks that is not installed ({error.name or 'a package'} is missing)",
        why="models are kept there for the machines that serve them",
        do=do,
    )


def store_of(settings: Settings) -> ArtefactStore | None:
    """The store of the settings; None where models stay where they are made."""
    return ArtefactStore(settings.artefact_url, settings.artefact_transfers) if settings.artefact_url else None


def bring(settings: Settings, release: Release) -> None:
    """See to it that a release's model is on this disk, where there is a store to get it from.

    Raises:
        StoreError: it cannot be had, or belongs where this machine keeps nothing.
    """
    if not settings.artefact_url or (release.model_dir / RECORD_NAME).exists():
        return
    if not release.model_dir.is_relative_to(settings.home):
        raise StoreError(
            f"{release.id} was made in {release.model_dir}, which is not below {settings.home}",
            why="the registry names one folder for a model, on every machine",
            do="give TUNEGATE_HOME the same path on all machines of one registry",
        )
    store = store_of(settings)
    assert store is not None
    store.fetch(release.model_digest, release.model_dir)


def main(words: list[str]) -> int:
    """`python -m serving.artefact_store DIGEST FOLDER` fetches a model before an engine starts in a pod of its own."""
    settings = load_settings()
    store = store_of(settings)
    if store is None or len(words) != 2:
        print("usage: python -m serving.artefact_store DIGEST FOLDER, with TUNEGATE_ARTEFACT_URL set", file=sys.stderr)
        return 2
    try:
        store.fetch(words[0], Path(words[1]))
    except TunegateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _copied(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy to the end; returns the hex sha256 of what went by."""
    digest = hashlib.sha256()
    while piece := source.read(_PIECE_BYTES):
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest()


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not PurePosixPath(path).is_absolute()
        and ".." not in parts
        and path not in (RECORD_NAME, SIGNATURE_NAME)
        and "\\" not in path
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, whoever dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(folder.parent / f".{folder.name}.fetching", os.O_RDWR | os.O_CREAT, 0o600)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
