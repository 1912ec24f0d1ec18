"""Whether a recipe's data has changed since it was last told, without reading its rows: digests of files, ETags of addresses.

A change is told once it has stayed the same for two looks, so that a file half copied starts no training.
Knows nothing of Prefect. Next: `operations.py`, whose `look_for_data` tells it.
"""

import json
from pathlib import Path
from typing import Literal

import aiohttp
import fsspec
from pydantic import BaseModel, ConfigDict

from flows.collect_book import SOURCE_NAME, accepted_rows
from flows.recipe import Recipe
from training.atomic import write_text
from training.data.fingerprint import fingerprint
from training.data.read_secrets import filled, masked
from training.data.sources import SourceSection
from training.errors import DataError, InputError
from training.records import digest_of

Change = Literal["first look", "unchanged", "settling", "changed"]
_STAMPS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "generation", "md5Hash", "content_md5", "mtime", "size")


class Seen(BaseModel):
    """What was last told, and what the last look found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    told: str
    found: str


def seen_path(home: Path, recipe: Recipe) -> Path:
    """Where the looks at a recipe's data are remembered."""
    return home / "watched" / f"{recipe.name}.json"


def look(recipe: Recipe, home: Path) -> tuple[Change, str]:
    """Compare the data with what was last told; returns the digest to be given to `remember_told` after a change.

    Raises:
        DataError: a source is gone.
        InputError: no source can be watched.
    """
    found, path = stamp_of(recipe, home), seen_path(home, recipe)
    seen = _read(path)
    change: Change
    if seen is None:
        change, seen = "first look", Seen(told=found, found=found)
    elif found == seen.told:
        change, seen = "unchanged", Seen(told=found, found=found)
    elif found != seen.found:
        change, seen = "settling", Seen(told=seen.told, found=found)
    else:
        change = "changed"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, seen.model_dump_json())
    return change, found


def remember_told(recipe: Recipe, home: Path, found: str) -> None:
    """The change has been told; a crash before this tells it twice, which is harmless."""
    write_text(seen_path(home, recipe), Seen(told=found, found=found).model_dump_json())


def stamp_of(recipe: Recipe, home: Path) -> str:
    """A digest that changes with the data of the sources that can be watched: files, addresses and accepted rows, not queries and hubs."""
    stamps = {source.label: stamp for source in (*recipe.data.sft, *recipe.data.preferences) if (stamp := _stamp(source)) is not None}
    if (accepted := accepted_rows(home, recipe)) is not None:
        stamps[SOURCE_NAME] = accepted.name
    if not stamps:
        raise InputError(
            f"{recipe.name}: no source of its data can be watched",
            why="what a query or a hub returns is only known by reading it",
            do="run this recipe on a schedule, or have whoever writes the data call the webhook: tunegate hooks --help",
        )
    return digest_of(stamps)


def _stamp(source: SourceSection) -> str | None:
    if isinstance(source.path, Path):
        return fingerprint(source)
    return _stamp_of_address(source.path) if source.path is not None else None


def _stamp_of_address(address: str) -> str:
    shown = masked(address)
    try:
        filesystem, path = fsspec.core.url_to_fs(filled(address, "path"))
        info = filesystem.info(path)
    except (OSError, ValueError, ImportError, aiohttp.ClientError) as error:
        raise DataError(
            f"{shown} cannot be looked at: {type(error).__name__}",
            why="new rows there would not be noticed",
            do="restore it, correct the recipe's address, or give the worker access to it",
        ) from error
    stamp = {key: str(info[key]) for key in _STAMPS if info.get(key) is not None}
    if not stamp:
        raise DataError(
            f"{shown} says neither when it was changed nor how large it is",
            why="new rows there would not be noticed",
            do="run this recipe on a schedule instead",
        )
    return digest_of(stamp)


def _read(path: Path) -> Seen | None:
    try:
        return Seen.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} cannot be read: it was edited or torn", do=f"delete {path}; the next look starts anew") from error
