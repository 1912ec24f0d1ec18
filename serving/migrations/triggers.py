"""The triggers that keep the history and the audit log append-only, in the words of each database, against changes past our code, too.

Used by the migrations and when an SQLite registry is made. Next: `serving/history.py`, which tells whether somebody got past these.
"""

from sqlalchemy import Connection

_REFUSAL = "the history is append-only"


def add_triggers(connection: Connection, table: str = "transitions") -> None:
    """Guard a table: rows are added, and that is all."""
    for statement in {"sqlite": _sqlite, "postgresql": _postgresql}[connection.dialect.name](table):
        connection.exec_driver_sql(statement)


def drop_triggers(connection: Connection, table: str = "transitions") -> None:
    """Let a migration change a guarded table."""
    for statement in {"sqlite": _sqlite_gone, "postgresql": _postgresql_gone}[connection.dialect.name](table):
        connection.exec_driver_sql(statement)


def _sqlite(table: str) -> list[str]:
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for verb in ("UPDATE", "DELETE")
    ]


def _sqlite_gone(table: str) -> list[str]:
    return [f"DROP TRIGGER {table}_no_update", f"DROP TRIGGER {table}_no_delete"]


def _postgresql(table: str) -> list[str]:
    act = f"EXECUTE FUNCTION {table}_append_only()"
    return [
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {act}",
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {act}",
    ]


def _postgresql_gone(table: str) -> list[str]:
    return [
        f"DROP TRIGGER {table}_no_change ON {table}",
        f"DROP TRIGGER {table}_no_truncate ON {table}",
        f"DROP FUNCTION {table}_append_only()",
    ]
