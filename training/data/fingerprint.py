"""Whether a source is still what it was: the digest of its bytes, where they lie on this disk. Next: `training/prepare.py`."""

from pathlib import Path

from training.atomic import sha256_of
from training.data.read_files import find_files
from training.data.sources import SourceSection
from training.records import digest_of


def fingerprint(section: SourceSection) -> str | None:
    """Hex sha256 over a local source's files and their names; None for what only reading it again can tell.

    Raises:
        DataError: nothing is there.
    """
    if not isinstance(section.path, Path):
        return None
    files = find_files(section.path).files
    return digest_of([[Path(file.path).name, sha256_of(Path(file.path))] for file in files])
