"""The registry in a PostgreSQL database: several machines may share it. Needs the extra `postgres` (psycopg).

Writers queue for one advisory lock, as they do for SQLite's file; commits are told to watches by NOTIFY.
Knows nothing of tables. Next: `database.py`, which uses it.
"""

from contextlib import suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from serving.errors import RegistryError, RegistryUnreachable, SettingsError

try:
    import psycopg
except ImportError as error:
    raise SettingsError(
        "TUNEGATE_REGISTRY_URL names a PostgreSQL database, but psycopg is not installed",
        do="install the extra: uv pip install 'tunegate[postgres]'",
    ) from error

_PATIENCE_S = 5
_WHY = "without it nothing can be promoted, approved or started"
# Any number will do as long as nobody else who uses this database takes the same one.
WRITERS = 0x74756E65_67617465
_CHANNEL = "tunegate_registry"


class PostgresServer:
    """What is PostgreSQL's own about the registry."""

    makes_itself = False
    driver_errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self.name = url.set(drivername="postgresql").render_as_string(hide_password=True)

    def engine(self) -> Engine:
        """A pool; a connection that the server has dropped meanwhile is replaced before it is used."""
        engine = create_engine(self._url, connect_args=_connect_arguments(), pool_pre_ping=True)
        event.listen(engine, "begin", _begin)
        return engine

    def begin_writing(self, connection: Connection) -> None:
        """Wait for the writers before, as long as `_PATIENCE_S`."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITERS})

    def end_writing(self, connection: Connection) -> None:
        """PostgreSQL delivers this when, and only if, the transaction commits."""
        connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")

    def watch(self) -> "PostgresWatch":
        """A watch with a connection of its own."""
        return PostgresWatch(self, self._url)

    def explain(self, error: Exception) -> RegistryError:
        """The server's message in other words; its words never hold the password."""
        message = " ".join(str(getattr(error, "orig", None) or error).split())
        for mark, what, do in _FAULTS:
            if mark in message.lower():
                kind = RegistryUnreachable if mark in _MAY_PASS else RegistryError
                return kind(f"the registry {self.name} {what} ({message})", why=_WHY, do=do)
        return RegistryError(f"the registry {self.name} cannot be used: {message}", why=_WHY)


class PostgresWatch:
    """Listens for the commits of everybody; a connection that broke is made again at the next question."""

    def __init__(self, server: PostgresServer, url: URL) -> None:
        self._server, self._url = server, url
        self._connection: psycopg.Connection[Any] | None = self._listening()
        self._fresh = True

    def changed(self) -> bool:
        """See `database.Watch`. Reads what has arrived; asks the server nothing."""
        try:
            if self._connection is None:
                self._connection, self._fresh = self._listening(), True
            told = sum(1 for _ in self._connection.notifies(timeout=0))
        except (psycopg.Error, OSError) as error:
            self.close()
            raise self._server.explain(error) from error
        changed, self._fresh = bool(told) or self._fresh, False
        return changed

    def forget(self) -> None:
        """See `database.Watch`."""
        self._fresh = True

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _listening(self) -> "psycopg.Connection[Any]":
        plain = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(plain, autocommit=True, **_connect_arguments())
        connection.execute(f"LISTEN {_CHANNEL}")
        return connection


def _connect_arguments() -> dict[str, Any]:
    """A server that is gone, or a lock that is held, is an error after `_PATIENCE_S` and not a wait for ever."""
    return {
        "connect_timeout": _PATIENCE_S,
        "tcp_user_timeout": _PATIENCE_S * 1000,
        "keepalives_idle": _PATIENCE_S,
        "keepalives_interval": _PATIENCE_S,
        "keepalives_count": 2,
        "application_name": "tunegate",
        "options": f"-c lock_timeout={_PATIENCE_S}s -c idle_in_transaction_session_timeout=60s",
    }


def _begin(connection: Connection) -> None:
    """A reader sees one moment in all its statements; a writer sees what the writer before it has committed."""
    if not connection.get_execution_options().get("writes"):
        with suppress(SQLAlchemyError):  # the first statement that matters will say what is wrong
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


_MAY_PASS = ("lock timeout", "connection")
_FAULTS = (
    ("lock timeout", f"is locked by another writer for more than {_PATIENCE_S} s", "find it in pg_stat_activity, then try again"),
    ("append-only", "keeps its history", "add a new transition instead of changing an old one"),
    ("password authentication failed", "refuses this user or password", "correct TUNEGATE_REGISTRY_URL"),
    ("does not exist", "lacks a table, or the database is not there", "tunegate registry upgrade; or put back a copy"),
    ("permission denied", "may not be used by this user", "grant it the rights to the tables"),
    ("no space left", "cannot grow: the disk is full", "free some space, then try again"),
    ("connection", "cannot be reached", "start the server, or correct TUNEGATE_REGISTRY_URL"),
)
