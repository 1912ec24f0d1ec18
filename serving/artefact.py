"""Are these the weights that were judged? Asked before every start of an engine.

Knows nothing of processes. Next: `supervisor.py`.
"""

import json
from pathlib import Path

from serving.records import Release
from training.errors import RecordError
from training.inert import pickles, strayed_shards
from training.records import RECORD_NAME, BaseModelRecord, FileDigest, MergedModel, verify_files
from training.signing import verify_signature

Fingerprint = frozenset[tuple[str, int, int]]


def verify_artefact(release: Release, public_key: Path | None = None) -> tuple[FileDigest, ...]:
    """Hash every file of the release's model again and compare with its record, and the record with the release; returns the hashes.

    With a public key, its owner must have signed them too. Nor is a folder served that would run code when loaded, or have files read
    outside it, though its record says that it was judged so. Python files that a recipe let a base model bring stay where they are: no
    engine is ever told to trust them.

    Raises:
        RecordError: a file or the record is missing, extra, altered, or is of another model; its signature does not hold; or the above.
    """
    folder = release.model_dir
    record = read_model(folder)
    if record.digest != release.model_digest:
        raise RecordError(
            f"{folder} holds the model {record.digest[:12]}, but {release.id} is {release.model_digest[:12]}",
            why="these are not the weights that were judged",
            do="restore the folder, or run the recipe again",
        )
    verify_files(folder, record.files)
    if public_key is not None:
        verify_signature(folder, public_key)
    if faults := pickles(folder) + strayed_shards(folder):
        raise RecordError(
            f"{folder} is not served: " + "; ".join(faults),
            why="weights are loaded from safetensors in this folder only; a pickle runs code when it is read",
            do="find out who put them there before the record was written; run the recipe again",
        )
    return record.files


def read_model(folder: Path) -> MergedModel | BaseModelRecord:
    """The record of a model that can be served.

    Raises:
        RecordError: it is not there, or cannot be read.
    """
    return MergedModel.read(folder) if _kind(folder) == MergedModel.__name__ else BaseModelRecord.read(folder)


def fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and change times below `folder`: differs once somebody has mended it, and costs no hashing."""
    try:
        found = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    except OSError:
        return frozenset()
    return frozenset((str(path), status.st_size, status.st_mtime_ns) for path, status in found)


def _kind(folder: Path) -> str:
    try:
        body = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # The record is read again, by a reader that can say what is wrong with it.
        return ""
    if not isinstance(body, dict):
        raise RecordError(f"{folder / RECORD_NAME} cannot be read: it holds a {type(body).__name__}", do="run the recipe again")
    return str(body.get("kind"))
