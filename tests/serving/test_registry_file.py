"""The registry's database under racing writers, and when it is locked, torn, gone, foreign or of another version; leases, heartbeat."""

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from serving.database import Watch
from serving.errors import AlreadyServing, RegistryError, SettingsError
from serving.postgres_server import WRITERS
from serving.records import SlotState
from serving.registry import Registry
from serving.tables import REVISION
from tests.fakes_postgres import Cluster
from tests.fakes_serving import EVIDENCE, Clock, approved, candidate, champion, server_info, slot_info, url_in

ROOT = Path(__file__).parents[2]
Beside = Callable[[str], None]

# Promotes its own release of each public name, every other one by steps, while the other process does the same; prints how that went.
RACER = """
import sys
from serving.errors import TransitionRefused
from serving.registry import Registry
url, me, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
registry = Registry(url)
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    try:
        if number % 2:
            registry.rollouts.start(f"name{number}-{me}", "e" * 64, f"racer {me}", registry.now())
        else:
            registry.promote(f"name{number}-{me}", "e" * 64, f"racer {me}")
        print("won", number, flush=True)
    except TransitionRefused as error:
        print("lost", number, flush=True)
"""

OPENER = "import sys; sys.stdin.readline(); from serving.registry import Registry; Registry(sys.argv[1]).create_key('k', [])"


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def go(racers: list[subprocess.Popen[str]]) -> list[str]:
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * len(racers)
    return answers


def test_of_two_racing_promotions_exactly_one_wins_every_time(registry_url: str) -> None:
    rounds = 100
    registry = Registry(registry_url)
    for number in range(rounds):
        champion(registry, name=f"name{number}", digest="0" * 64)
        for digest in "12":
            approved(registry, name=f"name{number}", digest=digest * 64)
    racers = [python(RACER, registry_url, me, str(rounds)) for me in ("2", "3")]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    answers = go(racers)
    won = Counter(line.split()[1] for answer in answers for line in answer.splitlines() if line.startswith("won"))
    snapshot = registry.snapshot()
    assert won == Counter({str(number): 1 for number in range(rounds)})
    assert (snapshot.generation, len(snapshot.champions), len(snapshot.canaries)) == (rounds + rounds // 2, rounds, rounds // 2)
    assert registry.verify().faults == ()
    registry.close()


def test_processes_that_open_a_new_registry_together_all_get_it(tmp_path: Path) -> None:
    go([python(OPENER, url_in(tmp_path)) for _ in range(4)])
    assert len(Registry(url_in(tmp_path)).keys()) == 4


@pytest.mark.parametrize(
    ("revision", "advice"), [("9999", "use the tunegate that wrote it"), ("0001", "back the database up, then: tunegate registry upgrade")]
)
def test_a_registry_of_another_version_is_left_alone(registry_url: str, beside: Beside, revision: str, advice: str) -> None:
    Registry(registry_url).close()
    beside(f"UPDATE alembic_version SET version_num = '{revision}'")
    try:
        with pytest.raises(RegistryError, match=f"is at revision {revision}") as refused:
            Registry(registry_url)
        assert advice in str(refused.value)
    finally:
        beside(f"UPDATE alembic_version SET version_num = '{REVISION}'")


def test_a_registry_from_before_there_were_migrations_is_named_and_kept(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "registry.db") as connection:
        connection.execute("CREATE TABLE schema_version (version INTEGER)")
        connection.execute("CREATE TABLE transitions (seq INTEGER)")
    with pytest.raises(RegistryError, match=r"older than 0\.3"):
        Registry(url_in(tmp_path))


def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "registry.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(RegistryError, match="not a tunegate registry"):
        Registry(url_in(tmp_path))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_text("These are notes, not a database." * 100)
    with pytest.raises(RegistryError, match=r"registry\.db is not an SQLite file"):
        Registry(url_in(tmp_path))


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    registry = Registry(url_in(tmp_path))
    champion(registry)
    registry.close()
    body = (tmp_path / "registry.db").read_bytes()
    (tmp_path / "registry.db").write_bytes(body[: len(body) // 2])
    with pytest.raises(RegistryError, match=r"registry\.db is torn"):
        Registry(url_in(tmp_path)).releases()


@pytest.mark.slow
def test_a_locked_file_is_an_error_after_a_while_and_readers_go_on(tmp_path: Path) -> None:
    registry = Registry(url_in(tmp_path))
    first = champion(registry)
    holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert registry.champion("clinic") == first
    with pytest.raises(RegistryError, match="locked by another process for more than 5 s"):
        registry.reject(first.id, "ann", "no")
    holder.close()


def test_a_registry_deleted_under_us_is_an_error_not_an_empty_registry(tmp_path: Path) -> None:
    registry = Registry(url_in(tmp_path))
    registry.close()
    (tmp_path / "registry.db").unlink()
    with pytest.raises(RegistryError, match="is gone or may not be opened"):
        registry.releases()
    assert not (tmp_path / "registry.db").exists()


def test_a_registry_taken_away_while_it_is_open_is_missed_and_found_again(tmp_path: Path) -> None:
    """An open connection would go on with the file that was there before, and a rollback be written where nobody looks."""
    registry, file, aside = Registry(url_in(tmp_path)), tmp_path / "registry.db", tmp_path / "aside.db"
    first, watch = champion(registry), registry.watch()
    assert [watch.changed(), watch.changed()] == [True, False]
    file.rename(aside)
    for look in (watch.changed, registry.snapshot):
        with pytest.raises(RegistryError, match="is gone or may not be opened"):
            look()
    aside.rename(file)
    assert (watch.changed(), registry.champion("clinic")) == (True, first)
    watch.close()
    registry.close()


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://u:secret@host/db", "postgresql://u:secret@h"])
def test_a_url_that_names_no_database_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match="TUNEGATE_REGISTRY_URL") as refused:
        Registry(url)
    assert "secret" not in str(refused.value)


def told_within(seconds: float, watch: Watch) -> bool:
    """Whether a watch says True in time: PostgreSQL's notices travel for a moment."""
    end = time.monotonic() + seconds
    while not watch.changed():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_a_watch_sees_commits_of_others_and_nothing_else(registry_url: str) -> None:
    ours, theirs = Registry(registry_url), Registry(registry_url)
    watch = ours.watch()
    assert [watch.changed(), watch.changed()] == [True, False]
    for registry in (theirs, ours):
        registry.create_key("k", [])
        assert told_within(5, watch)
        assert not watch.changed()
    watch.close()
    ours.close()
    theirs.close()


@pytest.mark.slow
def test_a_server_that_went_away_is_named_without_its_password_and_found_again_when_it_is_back(postgres: Cluster) -> None:
    registry = Registry(postgres.fresh())
    first, watch = champion(registry), registry.watch()
    assert watch.changed()
    postgres.stop()
    try:
        with pytest.raises(RegistryError, match="cannot be reached") as refused:
            registry.releases()
        with pytest.raises(RegistryError):
            # The first question may still read the server's last words.
            assert [watch.changed(), watch.changed()] == []
    finally:
        postgres.start()
    assert postgres.password not in str(refused.value)
    assert f"127.0.0.1:{postgres.port}/registry" in str(refused.value)
    assert (registry.champion("clinic"), watch.changed(), watch.changed()) == (first, True, False)
    watch.close()
    registry.close()


@pytest.mark.slow
def test_a_writer_that_holds_its_lock_for_too_long_is_an_error_and_readers_go_on(postgres: Cluster) -> None:
    registry = Registry(postgres.fresh())
    first = champion(registry)
    with psycopg.connect(postgres.url("registry")) as holder:
        holder.execute(f"SELECT pg_advisory_xact_lock({WRITERS})")
        assert registry.champion("clinic") == first
        with pytest.raises(RegistryError, match="locked by another writer for more than 5 s"):
            registry.create_key("k", [])
    registry.close()


def test_a_lost_database_is_named(postgres: Cluster) -> None:
    with pytest.raises(RegistryError, match="database is not there"):
        Registry(postgres.url("nowhere"))


def test_a_wrong_password_is_named_and_not_shown(postgres: Cluster) -> None:
    with pytest.raises(RegistryError, match="refuses this user or password") as refused:
        Registry(postgres.fresh().replace(postgres.password, "wrong-password"))
    assert "wrong-password" not in str(refused.value)


def test_every_wish_for_a_slot_is_kept_until_it_is_seen_to_end_or_all_are_taken_back(tmp_path: Path) -> None:
    clock = Clock()
    registry = Registry(url_in(tmp_path), now=clock)
    release = candidate(registry)
    for seconds in (60, 10):
        registry.want_slot(release.id, clock() + timedelta(seconds=seconds))
    long, short = registry.snapshot().leases[release.id]
    assert [(each.seconds, each.until) for each in (long, short)] == [(s, clock() + timedelta(seconds=s)) for s in (60, 10)]
    registry.forget_leases([short, long.model_copy(update={"until": clock()})])
    assert registry.snapshot().leases == {release.id: (long,)}
    registry.release_slot(release.id)
    assert registry.snapshot().leases == {}


def test_a_slot_row_is_replaced_and_dropped(tmp_path: Path) -> None:
    clock = Clock()
    registry = Registry(url_in(tmp_path), now=clock)
    release = candidate(registry)
    slot = slot_info(release.id, SlotState.STARTING, clock(), port=None)
    ready = slot.model_copy(update={"state": SlotState.READY, "base_url": "http://127.0.0.1:20123", "pid": 7})
    registry.set_slot(slot)
    registry.set_slot(ready)
    assert registry.slots() == (ready,)
    assert ready.base_url == "http://127.0.0.1:20123"
    registry.drop_slot(release.id)
    assert registry.slots() == ()


def test_a_second_server_is_refused_while_the_first_one_beats(tmp_path: Path) -> None:
    clock = Clock()
    registry = Registry(url_in(tmp_path), now=clock)
    registry.beat(server_info(clock, boot_id="one", pid=4711))
    clock.forward(4.9)
    with pytest.raises(AlreadyServing, match=r"process 4711 on box, gateway at 127\.0\.0\.1:8080"):
        registry.beat(server_info(clock, boot_id="two"))
    registry.beat(server_info(clock, boot_id="one"))


def test_a_server_that_stopped_beating_is_dead_after_five_seconds(tmp_path: Path) -> None:
    clock = Clock()
    registry = Registry(url_in(tmp_path), now=clock, monotonic=clock.seconds, pause=clock.forward)
    registry.beat(server_info(clock, boot_id="one"))
    assert registry.server() is not None
    clock.forward(4.9)
    assert registry.server() is not None
    clock.forward(0.1)
    assert registry.server() is None
    registry.beat(server_info(clock, boot_id="two"), gone=registry.last_server())
    live = registry.server()
    assert live is not None
    assert live.boot_id == "two"


def test_a_new_server_forgets_the_slots_of_the_one_before_and_a_heartbeat_does_not(tmp_path: Path) -> None:
    clock = Clock()
    registry = Registry(url_in(tmp_path), now=clock)
    release = candidate(registry)
    registry.beat(server_info(clock, boot_id="one"))
    slot = slot_info(release.id, SlotState.READY, clock())
    registry.set_slot(slot)
    registry.beat(server_info(clock, boot_id="one"))
    assert registry.slots() == (slot,)
    registry.beat(server_info(clock, boot_id="two"), gone=registry.last_server())
    assert registry.slots() == ()


def test_a_server_that_left_makes_room_at_once(tmp_path: Path) -> None:
    clock = Clock()
    registry = Registry(url_in(tmp_path), now=clock)
    registry.beat(server_info(clock, boot_id="one"))
    registry.leave("one")
    registry.beat(server_info(clock, boot_id="two"))


def test_a_transaction_that_fails_half_way_leaves_nothing(registry_url: str, beside: Beside) -> None:
    """The champion is retired before the other goes live; a refusal between the two must undo the first."""
    registry = Registry(registry_url)
    first = champion(registry)
    second = approved(registry, digest="b" * 64)
    beside("CREATE UNIQUE INDEX nobody_new ON releases ((CASE WHEN state IN ('live', 'retired') THEN 1 END))")
    try:
        with pytest.raises(RegistryError):
            registry.promote(second.id, EVIDENCE, "bob")
    finally:
        beside("DROP INDEX nobody_new")
    assert registry.champion("clinic") == first
    assert len(registry.history(first.id)) == 2
    registry.close()
