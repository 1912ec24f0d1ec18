"""The registry in one SQLite file, with a write-ahead log. Made when it is not there.

Knows nothing of tables. Next: `database.py`, which uses it.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from serving.errors import RegistryError, RegistryUnreachable

_BUSY_MS = 5_000
_WHY = "without it nothing can be promoted, approved or started"


class SqliteFile:
    """What is SQLite's own about the registry."""

    makes_itself = True
    driver_errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, database: str) -> None:
        self.path = Path(database).absolute()
        self.name = str(self.path)

    def engine(self) -> Engine:
        """A pool of connections to the file, which is made if it is not there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=_BUSY_MS / 1000)) as first:
            first.execute("PRAGMA journal_mode=WAL")
        engine = create_engine("sqlite://", creator=self.open, poolclass=QueuePool)
        event.listen(engine, "begin", _begin)
        event.listen(engine, "connect", self._remember)
        event.listen(engine, "checkout", self._check_still_there)
        return engine

    def begin_writing(self, connection: Connection) -> None:
        """Nothing: BEGIN IMMEDIATE has taken the file's write lock."""

    def end_writing(self, connection: Connection) -> None:
        """Nothing: SQLite counts commits itself."""

    def watch(self) -> "SqliteWatch":
        """A watch with a connection of its own."""
        return SqliteWatch(self)

    def explain(self, error: Exception) -> RegistryError:
        """SQLite's message in other words."""
        message = str(getattr(error, "orig", None) or error)
        for mark, what, do in _FAULTS:
            if mark in message.lower():
                kind = RegistryUnreachable if mark == _BUSY else RegistryError
                return kind(f"the registry {self.path} {what} ({message})", why=_WHY, do=do)
        return RegistryError(f"the registry {self.path} cannot be used: {message}", why=_WHY)

    def identity(self) -> tuple[int, int] | None:
        """Which file lies at the path now; None when there is none. An open connection goes on with a file that was taken away."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _remember(self, _: object, record: ConnectionPoolEntry) -> None:
        record.info["identity"] = self.identity()

    def _check_still_there(self, _: object, record: ConnectionPoolEntry, __: object) -> None:
        if record.info["identity"] != self.identity():
            raise DisconnectionError  # has the pool open it anew

    def open(self) -> sqlite3.Connection:
        """A connection to the file, which must be there."""
        # mode=rw: a registry that was deleted under a running server is an error, not an empty registry.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        return connection


class SqliteWatch:
    """Reads the counter of commits that SQLite keeps in shared memory. Takes no lock."""

    def __init__(self, file: SqliteFile) -> None:
        self._file, self._connection, self._identity = file, file.open(), file.identity()
        self._seen: int | None = None

    def changed(self) -> bool:
        """See `database.Watch`."""
        try:
            if self._identity != self._file.identity():
                self._open_anew()
            seen = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            self.forget()
            raise self._file.explain(error) from error
        changed, self._seen = seen != self._seen, seen
        return changed

    def forget(self) -> None:
        """See `database.Watch`."""
        self._seen = None

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def _open_anew(self) -> None:
        connection, identity = self._file.open(), self._file.identity()
        self._connection.close()
        self._connection, self._identity, self._seen = connection, identity, None


_BUSY = "locked"
_FAULTS = (
    (_BUSY, f"is locked by another process for more than {_BUSY_MS // 1000} s", "find that process (fuser shows it), then try again"),
    ("malformed", "is torn", "put back a copy; `sqlite3 registry.db .recover` may save the rest"),
    ("not a database", "is not an SQLite file", "put back a copy, or set TUNEGATE_REGISTRY_URL to another file"),
    ("disk is full", "cannot grow: the disk is full", "free some space, then try again"),
    ("readonly", "may not be written to", "give this user the right to write to the file and its folder"),
    ("unable to open", "is gone or may not be opened", "put it back, or check the rights of the file and its folder"),
    ("no such table", "has lost a table", "put back a copy"),
    ("append-only", "keeps its history", "add a new transition instead of changing an old one"),
)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
