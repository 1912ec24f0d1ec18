"""The triggers that keep the history append-only, in the words of each database: past our code, too, nothing is changed or deleted.

Used by the migrations and when an SQLite registry is made. Next: `serving/history.py`, which tells whether somebody got past these.
"""

from sqlalchemy import Connection

_REFUSAL = "the history is append-only"
_SQLITE = [
    f"CREATE TRIGGER transitions_no_{verb.lower()} BEFORE {verb} ON transitions BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    for verb in ("UPDATE", "DELETE")
]
_POSTGRESQL = [
    f"CREATE FUNCTION transitions_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
    "CREATE TRIGGER transitions_no_change BEFORE UPDATE OR DELETE ON transitions FOR EACH ROW EXECUTE FUNCTION transitions_append_only()",
    "CREATE TRIGGER transitions_no_truncate BEFORE TRUNCATE ON transitions FOR EACH STATEMENT EXECUTE FUNCTION transitions_append_only()",
]
_GONE = {
    "sqlite": ["DROP TRIGGER transitions_no_update", "DROP TRIGGER transitions_no_delete"],
    "postgresql": [
        "DROP TRIGGER transitions_no_change ON transitions",
        "DROP TRIGGER transitions_no_truncate ON transitions",
        "DROP FUNCTION transitions_append_only()",
    ],
}


def add_triggers(connection: Connection) -> None:
    """Guard the history."""
    for statement in {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}[connection.dialect.name]:
        connection.exec_driver_sql(statement)


def drop_triggers(connection: Connection) -> None:
    """Let a migration change the table of the history."""
    for statement in _GONE[connection.dialect.name]:
        connection.exec_driver_sql(statement)
