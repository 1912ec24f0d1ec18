"""Opens the registry's database, SQLite or PostgreSQL: its revision is checked, transactions begin, errors speak plain words.

Both kinds behave the same: a reader sees one moment and blocks nobody; writers come one after the other, so that what a write
transaction reads is still true when it writes. Knows nothing of what the rows mean.
Next: `sqlite_file.py` and `postgres_server.py`, the two kinds; `migrate.py`, which brings an older one up to date.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from serving.errors import RegistryError, SettingsError
from serving.tables import REVISION

VERSION_TABLE = "alembic_version"


class Watch(Protocol):
    """Tells whether a commit was made, by anybody, since it was last asked."""

    def changed(self) -> bool:
        """True at the first call and after each commit; costs microseconds and waits for nobody.

        Raises:
            RegistryError: the database cannot be asked; True again once it can.
        """

    def forget(self) -> None:
        """Say True again next time: what changed could not be read."""

    def close(self) -> None:
        """Give the connection back."""


class Kind(Protocol):
    """What SQLite and PostgreSQL do differently."""

    name: str
    """The database in messages, without its password."""
    makes_itself: bool
    """Whether an empty database may be filled at its first use."""
    driver_errors: tuple[type[Exception], ...]

    def engine(self) -> Engine:
        """A pool of connections. Opens none yet."""

    def begin_writing(self, connection: Connection) -> None:
        """Let no other writer come between, until this transaction ends."""

    def end_writing(self, connection: Connection) -> None:
        """Have every watch told of the commit that follows."""

    def watch(self) -> Watch:
        """A watch with a connection of its own."""

    def explain(self, error: Exception) -> RegistryError:
        """The driver's error as what happened, why it matters and what to do."""


class Database:
    """One registry. Safe to use from several threads and processes.

    Raises:
        SettingsError: the URL names neither an SQLite file nor a PostgreSQL database.
        RegistryError: it is torn, locked, gone, not ours, or of another revision than this code.
    """

    def __init__(self, url: str, *, check: bool = True) -> None:
        self.kind = kind_of(url)
        with self.explained():
            self.engine = self.kind.engine()
        if check:
            self._check()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one moment and does not block writers."""
        with self.explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that no other writer can come between; undone when the block raises."""
        with self.explained(), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            self.kind.begin_writing(connection)
            yield connection
            self.kind.end_writing(connection)

    def watch(self) -> Watch:
        """Ask it, cheaply and often, whether anybody has committed."""
        with self.explained():
            return self.kind.watch()

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the driver's errors inside the block into `RegistryError`."""
        try:
            yield
        except _faults_of(self.kind) as error:
            raise self.kind.explain(error) from error

    def revision(self) -> str | None:
        """Where the database stands in `migrations/versions/`; None when it is empty.

        Raises:
            RegistryError: it holds somebody else's tables, or those of a time before there were revisions.
        """
        with self.read() as connection:
            return self._revision_at(connection)

    def _revision_at(self, connection: Connection) -> str | None:
        names = set(inspect(connection).get_table_names())
        if VERSION_TABLE in names:
            found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
            return found
        if "schema_version" in names and "transitions" in names:
            raise RegistryError(
                f"{self.kind.name} was made by a tunegate older than 0.3, which cannot be brought up to date",
                do="move it away, and keep it for its history; the next `tunegate run` makes a new one",
            )
        if names:
            raise RegistryError(
                f"{self.kind.name} is a database, but not a tunegate registry", do="set TUNEGATE_REGISTRY_URL to another one"
            )
        return None

    def _check(self) -> None:
        revision = self.revision()
        if revision is None and self.kind.makes_itself:
            with self.write() as connection:
                revision = self._revision_at(connection)  # another process may have made it meanwhile
                if revision is None:
                    from serving.migrate import create

                    create(connection)
                    return
        if revision != REVISION:
            raise wrong_revision(self.kind.name, revision)


def _faults_of(kind: Kind) -> tuple[type[Exception], ...]:
    return (SQLAlchemyError, OSError, *kind.driver_errors)


def kind_of(url: str) -> Kind:
    """The kind of database that this URL names.

    Raises:
        SettingsError: neither of the two.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    backend = parsed.get_backend_name() if parsed is not None else ""
    if parsed is not None and parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:"):
        from serving.sqlite_file import SqliteFile

        return SqliteFile(str(parsed.database))
    if parsed is not None and backend == "postgresql" and parsed.database:
        from serving.postgres_server import PostgresServer

        return PostgresServer(parsed)
    raise SettingsError(
        "TUNEGATE_REGISTRY_URL names neither an SQLite file nor a PostgreSQL database",
        why="the registry is shared by several processes, so it is a file or a server",
        do="unset it, or give sqlite:////absolute/path/registry.db or postgresql://user:password@host:5432/database",
    )


def wrong_revision(name: str, revision: str | None) -> RegistryError:
    """The database is empty, older or newer than this code."""
    if revision is None:
        return RegistryError(
            f"{name} is empty", why="a database on a server is not filled unasked", do="make the tables: tunegate registry upgrade"
        )
    if revision < REVISION:
        return RegistryError(
            f"{name} is at revision {revision}; this tunegate needs {REVISION}",
            why="it lacks tables or columns that this version writes",
            do="stop the server, back the database up, then: tunegate registry upgrade",
        )
    return RegistryError(
        f"{name} is at revision {revision}; this tunegate knows only {REVISION}",
        why="writing to it could lose what the newer version keeps there",
        do="use the tunegate that wrote it, or set TUNEGATE_REGISTRY_URL to another database",
    )
