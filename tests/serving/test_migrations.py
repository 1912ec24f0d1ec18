"""The migrations: from nothing and from the revision before, over both databases, to exactly the tables that the code uses."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

import serving.migrate
from serving.errors import RegistryError
from serving.lifecycle import State
from serving.migrate import check, upgrade
from serving.registry import Registry
from serving.tables import REVISION
from tests.fakes_postgres import Cluster
from tests.fakes_serving import EVIDENCE, approved, champion, url_in

# Two steps as revision 0001 kept them, without hashes.
OLD_ROWS = (
    "INSERT INTO releases VALUES ('clinic-1', 'clinic', 1, 'live', 'd', '/m', NULL, NULL, NULL, 'demo', 'ann', "
    "'2030-01-01 00:00:00.000000', '{\"public_name\": \"clinic\"}')",
    "INSERT INTO transitions VALUES (1, 'clinic-1', NULL, 'candidate', 'ann', 'added', NULL, '2030-01-01 00:00:00.000000')",
    "INSERT INTO transitions VALUES (2, 'clinic-1', 'candidate', 'live', 'ann', 'first', NULL, '2030-01-01 00:00:01.500000')",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return url_in(tmp_path)
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.empty()


def run(url: str, *statements: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))
    engine.dispose()


def test_the_newest_file_is_the_revision_that_the_code_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(serving.migrate.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_from_nothing_the_migrations_lead_to_the_tables_of_the_code(empty_url: str) -> None:
    done = upgrade(empty_url)
    assert (done.before, done.after) == (None, REVISION)
    assert empty_url.rpartition("/")[2] in check(empty_url)
    with Registry(empty_url) as registry:
        champion(registry)
        registry.promote(approved(registry, digest="b" * 64).id, EVIDENCE, "bob")
        assert registry.verify().faults == ()


def test_from_the_revision_before_every_row_is_kept_and_the_history_is_linked(empty_url: str) -> None:
    upgrade(empty_url, "0001")
    run(empty_url, *OLD_ROWS)
    with pytest.raises(RegistryError, match=f"is at revision 0001; this tunegate needs {REVISION}"):
        Registry(empty_url)
    done = upgrade(empty_url)
    check(empty_url)
    assert (done.before, done.after) == ("0001", REVISION)
    with Registry(empty_url) as registry:
        found = registry.verify()
        assert (found.steps, found.faults) == (2, ())
        assert [step.to_state for step in registry.history("clinic-1")] == [State.CANDIDATE, State.LIVE]
        assert registry.verify([found.head]).faults == ()


@pytest.mark.parametrize("statement", ["UPDATE transitions SET actor = 'eve'", "DELETE FROM transitions"])
def test_a_migrated_history_is_append_only_too(empty_url: str, statement: str) -> None:
    upgrade(empty_url, "0001")
    run(empty_url, *OLD_ROWS)
    upgrade(empty_url)
    with pytest.raises(Exception, match="append-only"):
        run(empty_url, statement)


def test_a_migrated_history_still_refuses_a_step_in_nobodys_name(tmp_path: Path) -> None:
    """SQLite makes the table anew to add columns, and would lose what it is not told."""
    upgrade(url_in(tmp_path))
    with pytest.raises(Exception, match="CHECK"):
        run(url_in(tmp_path), "INSERT INTO transitions VALUES (1, 'x', NULL, 'candidate', '', 'x', NULL, 'x', 'x', 'x')")


def test_upgrading_twice_changes_nothing(empty_url: str) -> None:
    upgrade(empty_url)
    done = upgrade(empty_url)
    assert (done.before, done.after) == (REVISION, REVISION)


def test_a_registry_made_at_its_first_use_is_what_the_migrations_would_have_made(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Registry(url_in(tmp_path / "a")).close()
    upgrade(url_in(tmp_path / "b"))
    check(url_in(tmp_path / "a"))
    assert triggers(tmp_path / "a") == triggers(tmp_path / "b") != []


def triggers(folder: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(folder / "registry.db")) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name").fetchall()


def test_an_empty_server_database_is_not_filled_unasked(postgres: Cluster) -> None:
    with pytest.raises(RegistryError, match="is empty") as refused:
        Registry(postgres.empty())
    assert "tunegate registry upgrade" in str(refused.value)


@pytest.mark.parametrize("change", ["DROP TABLE shadows", "ALTER TABLE releases ADD COLUMN colour TEXT", "DROP INDEX one_canary"])
def test_a_table_that_was_changed_by_hand_is_found(empty_url: str, change: str) -> None:
    upgrade(empty_url)
    run(empty_url, change)
    with pytest.raises(RegistryError, match="differs from it"):
        check(empty_url)


def test_a_newer_database_is_not_upgraded(empty_url: str) -> None:
    upgrade(empty_url)
    run(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryError, match=f"knows only {REVISION}"):
        upgrade(empty_url)


def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(empty_url: str) -> None:
    """A table of the second revision is in the way; nothing of that revision may be left."""
    upgrade(empty_url, "0001")
    run(empty_url, *OLD_ROWS, "CREATE TABLE tallies (worker TEXT)")
    with pytest.raises(RegistryError):
        upgrade(empty_url)
    run(empty_url, "DROP TABLE tallies")
    assert upgrade(empty_url).before == "0001"
    check(empty_url)
