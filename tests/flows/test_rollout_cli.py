"""`tunegate rollout`, `rollback` and `registry`: exit codes, JSON that is JSON, and sentences that say what to do."""

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from flows.errors import DONE, FAILED, REFUSED
from serving.registry import Registry
from tests.fakes_serving import EVIDENCE, approved, canary, champion, url_in

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    with Registry(url_in(tmp_path)) as opened:
        yield opened


@pytest.fixture
def tunegate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, as its entry point does; gives (status, out, err)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


def value(said: tuple[int, str, str]) -> Any:
    assert said[0] == DONE, said
    return json.loads(said[1])


def test_without_a_rollout_the_status_says_so(registry: Registry, tunegate: Run) -> None:
    assert tunegate("rollout", "status")[:2] == (DONE, "no rollout goes on\n")
    assert value(tunegate("rollout", "status", "--json")) == []


def test_a_rollout_is_shown_held_and_let_go_on(registry: Registry, tunegate: Run) -> None:
    canary(registry)
    assert "clinic-2 against clinic-1, by bob" in tunegate("rollout", "status")[1]
    assert value(tunegate("rollout", "pause", "clinic", "--json"))["status"] == "paused"
    assert [each["status"] for each in value(tunegate("rollout", "status", "clinic", "--json"))] == ["paused"]
    assert value(tunegate("rollout", "resume", "clinic", "--json"))["status"] == "running"


def test_an_aborted_release_is_approved_again_and_its_rollout_is_still_told(registry: Registry, tunegate: Run) -> None:
    canary(registry)
    assert value(tunegate("rollout", "abort", "clinic", "--as", "eve", "--json"))["state"] == "approved"
    assert [each["status"] for each in value(tunegate("rollout", "status", "clinic", "--json"))] == ["withdrawn"]


def test_a_rollback_ends_a_canary_and_names_the_champion(registry: Registry, tunegate: Run) -> None:
    canary(registry)
    assert value(tunegate("rollback", "clinic", "--as", "eve", "--json"))["id"] == "clinic-1"
    assert registry.release("clinic-2").state == "rolled_back"


def test_a_rollback_at_once_asks_nobody_whether_the_slot_is_ready(registry: Registry, tunegate: Run) -> None:
    champion(registry)
    registry.promote(approved(registry, digest="b" * 64).id, EVIDENCE, "bob")
    status, out, _ = tunegate("rollback", "clinic", "--as", "eve", "--at-once")
    assert (status, "clinic-1 is live again" in out) == (DONE, True)


@pytest.mark.parametrize("arguments", [("pause", "clinic"), ("resume", "clinic"), ("abort", "clinic", "--as", "eve")], ids=" ".join)
def test_what_is_not_there_is_refused(registry: Registry, tunegate: Run, arguments: tuple[str, ...]) -> None:
    champion(registry)
    status, _, err = tunegate("rollout", *arguments)
    assert (status, "no rollout goes on" in err) == (REFUSED, True)


def test_a_shadow_begins_and_ends(registry: Registry, tunegate: Run) -> None:
    champion(registry)
    release = approved(registry, digest="b" * 64)
    assert tunegate("rollout", "shadow", release.id, "--as", "eve", "--for", "60")[0] == DONE
    assert registry.snapshot().shadows["clinic"].release_id == release.id
    assert tunegate("rollout", "shadow", release.id, "--as", "eve", "--for", "0")[0] == DONE
    assert registry.snapshot().shadows == {}


def test_a_whole_history_is_told_with_its_head_and_a_noted_head_is_found_again(registry: Registry, tunegate: Run) -> None:
    champion(registry)
    found = value(tunegate("registry", "verify", "--json"))
    assert (found["steps"], found["faults"]) == (2, [])
    assert tunegate("registry", "verify", "--noted", found["head"])[0] == DONE
    assert tunegate("registry", "verify", "--noted", "f" * 64)[0] == FAILED


def test_a_changed_history_is_named_and_ends_with_1(registry: Registry, tunegate: Run, tmp_path: Path) -> None:
    champion(registry)
    with sqlite3.connect(tmp_path / "registry.db") as connection:
        connection.execute("DROP TRIGGER transitions_no_update")
        connection.execute("UPDATE transitions SET actor = 'eve' WHERE seq = 2")
    status, out, _ = tunegate("registry", "verify")
    assert (status, "step 2 (clinic-1 → live) was changed" in out) == (FAILED, True)


def test_the_tables_are_checked_and_an_older_registry_is_upgraded(registry: Registry, tunegate: Run, tmp_path: Path) -> None:
    assert "has the tables" in tunegate("registry", "check")[1]
    assert "is already at revision" in tunegate("registry", "upgrade")[1]
    with sqlite3.connect(tmp_path / "registry.db") as connection:
        connection.execute("DROP TABLE shadows")
    status, _, err = tunegate("registry", "check")
    assert (status, "differs from it" in err) == (FAILED, True)


def test_an_older_registry_says_which_command_brings_it_up_to_date(registry: Registry, tunegate: Run, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "registry.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    status, _, err = tunegate("status")
    assert (status, "tunegate registry upgrade" in err) == (FAILED, True)
