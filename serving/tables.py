"""The registry's tables and the file they live in: opening, version check, transactions, errors in plain words.

Writers take SQLite's write lock at BEGIN, so what a transaction reads is still true when it writes. The schema uses only what
PostgreSQL has as well, except the triggers that keep the history append-only, which are SQLite's.
Knows nothing of what the rows mean. Next: `registry.py`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    DDL,
    JSON,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeDecorator

from serving.errors import RegistryError, SettingsError
from serving.lifecycle import State
from serving.records import SlotState

SCHEMA_VERSION = 1
_BUSY_MS = 5_000

metadata = MetaData()


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, kept as naive UTC: SQLite drops the zone, and equal lengths keep text order equal to time order."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def _states(kind: type[State] | type[SlotState], name: str) -> Enum:
    values = [each.value for each in kind]
    return Enum(kind, name=name, native_enum=False, create_constraint=True, length=32, values_callable=lambda _: values)


schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

# One row; grows by one whenever the champion of any public name changes.
generation = Table("generation", metadata, Column("value", Integer, nullable=False))

releases = Table(
    "releases",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("public_name", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", _states(State, "release_state"), nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("model_dir", Text, nullable=False),
    Column("evidence_digest", String(64)),
    Column("report_path", Text),
    Column("judged_against", String(80)),
    Column("recipe_name", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("serving", JSON, nullable=False),
    UniqueConstraint("public_name", "number"),
)
# The database itself refuses a second champion, whatever the code above it does.
Index(
    "one_champion",
    releases.c.public_name,
    unique=True,
    sqlite_where=releases.c.state == State.LIVE,
    postgresql_where=releases.c.state == State.LIVE,
)

transitions = Table(
    "transitions",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("release_id", ForeignKey("releases.id"), nullable=False, index=True),
    Column("from_state", _states(State, "from_state")),
    Column("to_state", _states(State, "to_state"), nullable=False),
    Column("actor", Text, CheckConstraint("length(actor) > 0", name="somebody"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence_digest", String(64)),
    Column("at", UtcTime, nullable=False),
)
for _verb in ("UPDATE", "DELETE"):
    _trigger = DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy 2.1 leaves it untyped
        f"CREATE TRIGGER transitions_no_{_verb.lower()} BEFORE {_verb} ON transitions "
        "BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END"
    )
    event.listen(transitions, "after_create", _trigger.execute_if(dialect="sqlite"))

slot_leases = Table(
    "slot_leases",
    metadata,
    Column("release_id", ForeignKey("releases.id"), primary_key=True),
    Column("until", UtcTime, nullable=False),
)
slots = Table(
    "slots",
    metadata,
    Column("release_id", ForeignKey("releases.id"), primary_key=True),
    Column("state", _states(SlotState, "slot_state"), nullable=False),
    Column("port", Integer),
    Column("pid", Integer),
    Column("restarts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
server = Table(
    "server",
    metadata,
    Column("boot_id", String(32), primary_key=True),
    Column("hostname", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("beat_at", UtcTime, nullable=False),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
    Column("expires_at", UtcTime),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("max_concurrent", Integer),
)


class Database:
    """One registry file, made when it is not there. Safe to use from several threads and processes.

    Raises:
        SettingsError: the URL is not `sqlite:///<path>`.
        RegistryError: the file is torn, locked, not ours, or written by a newer tunegate.
    """

    def __init__(self, url: str) -> None:
        self.path = _path_of(url)
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_MS / 1000)) as first:
                first.execute("PRAGMA journal_mode=WAL")
        self._engine = self._connectable()
        with self.write() as connection:
            self._prepare(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one moment and does not block writers."""
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that no other writer can come between; undone when the block raises."""
        with self._explained(), self._engine.connect().execution_options(immediate=True) as connection, connection.begin():
            yield connection

    def watch(self) -> "Watch":
        """Ask it, cheaply and often, whether anybody has committed."""
        with self._explained():
            return Watch(self.path, self._open())

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def _connectable(self) -> Engine:
        engine = create_engine("sqlite://", creator=self._open, poolclass=QueuePool)
        event.listen(engine, "begin", _begin)
        return engine

    def _open(self) -> sqlite3.Connection:
        # mode=rw: a registry that was deleted under a running server is an error, not an empty registry.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _prepare(self, connection: Connection) -> None:
        names = set(inspect(connection).get_table_names())
        if not names:
            metadata.create_all(connection)
            connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
            connection.execute(insert(generation).values(value=0))
        found = connection.scalar(select(schema_version.c.version)) if not names or "schema_version" in names else None
        if found is None:
            raise RegistryError(f"{self.path} is a database, but not a tunegate registry", do="set TUNEGATE_REGISTRY_URL to another file")
        if found != SCHEMA_VERSION:
            raise RegistryError(
                f"{self.path} has schema version {found}; this tunegate knows version {SCHEMA_VERSION}",
                why="writing to it could lose what the other version keeps there",
                do="use the tunegate that wrote it, or set TUNEGATE_REGISTRY_URL to another file",
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise explain(self.path, str(getattr(error, "orig", None) or error)) from error


class Watch:
    """Tells whether a commit was made, by anybody, since it was last asked."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self._seen: int | None = None

    def changed(self) -> bool:
        """True at the first call and after each commit. Costs some microseconds and takes no lock."""
        try:
            seen = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise explain(self._path, str(error)) from error
        changed, self._seen = seen != self._seen, seen
        return changed

    def forget(self) -> None:
        """Say True again next time: what changed could not be read."""
        self._seen = None

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


def explain(path: Path, message: str) -> RegistryError:
    """Turn SQLite's message into what happened, why it matters and what to do."""
    for mark, what, do in _FAULTS:
        if mark in message.lower():
            why = "without it nothing can be promoted, approved or started"
            return RegistryError(f"the registry {path} {what} ({message})", why=why, do=do)
    return RegistryError(f"the registry {path} cannot be used: {message}")


_FAULTS = (
    ("locked", f"is locked by another process for more than {_BUSY_MS // 1000} s", "find that process (fuser shows it), then try again"),
    ("malformed", "is torn", "put back a copy; `sqlite3 registry.db .recover` may save the rest"),
    ("not a database", "is not an SQLite file", "put back a copy, or set TUNEGATE_REGISTRY_URL to another file"),
    ("disk is full", "cannot grow: the disk is full", "free some space, then try again"),
    ("readonly", "may not be written to", "give this user the right to write to the file and its folder"),
    ("unable to open", "is gone or may not be opened", "put it back, or check the rights of the file and its folder"),
    ("no such table", "has lost a table", "put back a copy"),
    ("append-only", "keeps its history", "add a new transition instead of changing an old one"),
)


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _path_of(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise SettingsError(
            "TUNEGATE_REGISTRY_URL does not name an SQLite file",
            why="the registry is shared by several processes, so it is a file",
            do="unset it, or give sqlite:////absolute/path/registry.db",
        )
    return Path(parsed.database).absolute()
