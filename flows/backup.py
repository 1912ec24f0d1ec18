"""A copy of the registry and of everything its releases rest on, and the way back.

The registry is copied first, as of one moment, while it is in use; then the finished stages it may point at, which never change. The
manifest comes last: a folder without it is no backup. Logs, slots, unfinished stages and Prefect's own database are left out.
Knows nothing of where backups are kept. Next: `deploy/README.md`.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal

from sqlalchemy.engine import URL, make_url

from flows.errors import BackupError
from serving.registry import utc_now
from serving.settings import Settings
from training.atomic import new_folder, require_space, sha256_of
from training.records import RECORD_NAME, FileDigest, Record

KEPT = ("base", "runs", "profiles", "scorecards", "judged", "reviews", "review_keys", "collected", "watched")
_SQLITE_COPY, _POSTGRES_COPY, _HOME = "registry.db", "registry.pgdump", "home"


class BackupManifest(Record):
    """What a backup holds, by digest; `home` is where it belongs, because the registry names folders there."""

    volatile = Record.volatile | {"home"}

    home: Path
    database: Literal["sqlite", "postgresql"]
    files: tuple[FileDigest, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)


def make_backup(settings: Settings, folder: Path) -> BackupManifest:
    """Back up to a new folder, which is whole or not there.

    Raises:
        BackupError: the folder exists, or the registry cannot be copied.
    """
    url = make_url(settings.database_url.get_secret_value())
    if folder.exists():
        raise BackupError(f"{folder} exists", why="a backup never replaces another", do="name a folder that does not exist")
    chosen = list(_chosen(settings.home))
    require_space(folder.absolute().parent, sum(path.stat().st_size for path in chosen))
    with new_folder(folder.absolute()) as made:
        made.chmod(0o700)  # key hashes, and which side of a blind review is which
        _copy_database(url, made)
        for path in chosen:
            target = made / _HOME / path.relative_to(settings.home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        kind: Literal["sqlite", "postgresql"] = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
        manifest = BackupManifest(created_at=utc_now().isoformat(), home=settings.home, database=kind, files=tuple(_digests(made)))
        manifest.write(made)
    return manifest


def restore_backup(settings: Settings, folder: Path) -> BackupManifest:
    """Put a backup where it came from, after every file has been checked.

    Raises:
        BackupError: it is not whole, belongs elsewhere, or something is there already.
    """
    if not (folder / RECORD_NAME).is_file():
        raise BackupError(f"{folder} is no backup: it has no {RECORD_NAME}", do="give a folder that `tunegate backup` made")
    manifest, url = BackupManifest.read(folder), make_url(settings.database_url.get_secret_value())
    _check_place(manifest, settings, url)
    _check_files(folder, manifest)
    settings.home.mkdir(parents=True, exist_ok=True)
    if (folder / _HOME).is_dir():
        shutil.copytree(folder / _HOME, settings.home, dirs_exist_ok=True)
    _restore_database(url, folder)  # last: what it points at is there
    return manifest


def _check_place(manifest: BackupManifest, settings: Settings, url: URL) -> None:
    if manifest.home != settings.home:
        raise BackupError(
            f"this backup belongs to {manifest.home}, and TUNEGATE_HOME is {settings.home}",
            why="the registry names each model's folder in full",
            do=f"set TUNEGATE_HOME={manifest.home}",
        )
    if manifest.database != url.get_backend_name():
        raise BackupError(
            f"this backup is of a registry on {manifest.database}, and TUNEGATE_REGISTRY_URL names {url.get_backend_name()}",
            do="set TUNEGATE_REGISTRY_URL to a database of the same kind",
        )
    present = [name for name in (*KEPT, _SQLITE_COPY) if (settings.home / name).exists()]
    if present:
        raise BackupError(
            f"{settings.home} holds {', '.join(present)}", why="a restore overwrites nothing", do="move the old folder away, then restore"
        )


def _check_files(folder: Path, manifest: BackupManifest) -> None:
    found = {file.path: file for file in _digests(folder)}
    wanted = {file.path: file for file in manifest.files}
    faults = [f"{path} is missing" for path in sorted(wanted.keys() - found.keys())]
    faults += [f"{path} does not belong here" for path in sorted(found.keys() - wanted.keys())]
    faults += [f"{path} has other bytes than recorded" for path in sorted(wanted.keys() & found.keys()) if wanted[path] != found[path]]
    if faults:
        shown = "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")
        raise BackupError(f"{folder} is not what was backed up: {shown}", why="nothing was restored", do="use another copy of the backup")


def _chosen(home: Path) -> Iterator[Path]:
    """Every regular file worth keeping; of `runs` and `base`, the finished folders alone."""
    for name in KEPT:
        for folder, inner, files in os.walk(home / name):
            here = Path(folder)
            inner[:] = sorted(each for each in inner if not each.startswith("."))  # what a killed writer left
            if name in ("runs", "base") and _is_stage(here, home / name) and RECORD_NAME not in files:
                inner.clear()
                continue
            yield from (here / file for file in sorted(files) if (here / file).is_file() and not (here / file).is_symlink())


def _is_stage(folder: Path, root: Path) -> bool:
    return len(folder.relative_to(root).parts) == (2 if root.name == "runs" else 1)


def _digests(folder: Path) -> Iterator[FileDigest]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != RECORD_NAME:
            yield FileDigest(path=name, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def _copy_database(url: URL, folder: Path) -> None:
    if url.get_backend_name() != "sqlite":
        _postgres("pg_dump", url, "--format=custom", "--no-owner", f"--file={folder / _POSTGRES_COPY}")
        return
    source = Path(str(url.database))
    if not source.is_file():
        raise BackupError(f"there is no registry at {source}", do="set TUNEGATE_HOME to the home that is to be backed up")
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old, closing(sqlite3.connect(folder / _SQLITE_COPY)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")  # one file, not three


def _restore_database(url: URL, folder: Path) -> None:
    if url.get_backend_name() != "sqlite":
        _postgres("pg_restore", url, "--no-owner", "--exit-on-error", "--single-transaction", str(folder / _POSTGRES_COPY))
        return
    target = Path(str(url.database))
    if target.exists():
        raise BackupError(f"{target} exists", why="a restore overwrites nothing", do="move it away, then restore")
    shutil.copy2(folder / _SQLITE_COPY, target)


def _postgres(program: str, url: URL, *arguments: str) -> None:
    given = {"PGHOST": url.host, "PGPORT": url.port, "PGUSER": url.username, "PGPASSWORD": url.password, "PGDATABASE": url.database}
    env: Mapping[str, str] = {**os.environ, **{name: str(value) for name, value in given.items() if value is not None}}
    # A password among the arguments could be read by every user of this machine.
    database = ["--dbname", str(url.database)] if program == "pg_restore" else []
    try:
        done = subprocess.run([program, *database, *arguments], env=env, capture_output=True, text=True)
    except FileNotFoundError:
        raise BackupError(f"{program} is not installed", do="install PostgreSQL's client, of the server's version or newer") from None
    if done.returncode:
        raise BackupError(f"{program} ended with {done.returncode}: {done.stderr.strip()[-400:]}", do="read PostgreSQL's message above")
