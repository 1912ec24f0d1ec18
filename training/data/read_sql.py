"""The rows of an SQL query to records, streamed from the server, inside a transaction that is always rolled back.

What the person sees of the database's address and of its messages never holds a password. Next: `read_secrets.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.read_record import Read, Reading, record_of
from training.data.read_secrets import filled, secrets_of, without
from training.errors import DataError

_FETCHED_ROWS = 1000


def read_query(database: str, query: str, reading: Reading) -> Iterator[Read]:
    """Yield a `Record` or a `Rejected` for each row of the query's result.

    Raises:
        DataError: the address, the driver, the connection or the query is wrong; with the database's own words.
    """
    address = filled(database, "database")
    try:
        yield from _rows(address, query, reading)
    except DataError as error:
        secrets = secrets_of(address, database)
        raise DataError(without(secrets, error.what), why=without(secrets, error.why), do=without(secrets, error.do)) from None


def _rows(address: str, query: str, reading: Reading) -> Iterator[Read]:
    import sqlalchemy as sa  # a quarter of a second, and needed for queries alone

    try:
        url = sa.engine.make_url(address)
        if url.drivername == "postgresql":  # SQLAlchemy would look for psycopg2; psycopg is the one that is installed here
            url = url.set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise DataError(
            f"`database` is not an SQLAlchemy address: {error}", do="write it as dialect://user:${PASSWORD}@host/name"
        ) from None
    except ImportError as error:
        raise DataError(f"the driver for this database is not installed: {error}", do="install it beside tunegate") from None
    _refuse_missing_file(engine.url)
    seen = 0

    def bytes_read() -> int:
        return reading.bytes_before

    try:
        with engine.connect().execution_options(stream_results=True, no_parameters=True) as connection:
            result = connection.exec_driver_sql(query)
            if not result.returns_rows:
                raise DataError("the query returns no rows: it is no SELECT", do="write a query that selects")
            columns = _columns(list(result.keys()))
            for seen, row in enumerate(result.yield_per(_FETCHED_ROWS), start=1):
                yield record_of(reading, seen, dict(zip(columns, row, strict=True)), bytes_read)
            connection.rollback()
    except sa.exc.SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error)
        raise DataError(
            f"{reading.name}: the query failed after {seen:,} rows: {said}", do="try the query in the database's own client"
        ) from None
    except (OSError, ValueError, TypeError) as error:  # drivers raise these unwrapped while converting values
        raise DataError(f"{reading.name}: the query failed after {seen:,} rows: {type(error).__name__}: {error}") from None


def _columns(names: list[str]) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"the query gives more than one column called {', '.join(twice)[:200]}", do="name each one with AS")
    return names


def _refuse_missing_file(url: Any) -> None:
    """SQLite makes an empty database where there is none, and then says only that the table is missing."""
    name = url.database
    if url.get_backend_name() == "sqlite" and name and name != ":memory:" and not name.startswith("file:") and not Path(name).is_file():
        raise DataError(f"the SQLite database {name} is not there", do="correct the path in `database`; relative ones start at this folder")
