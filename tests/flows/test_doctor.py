"""Each thing the doctor looks at: well, and broken in the way it is there to find."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.doctor import CHECKS, Finding, Place, examine
from serving.keys import Scope
from serving.registry import Registry
from serving.settings import Settings
from serving.slots import free_port
from tests.fakes_serving import Clock, candidate, write_model
from tests.fakes_sinks import http_sink


@pytest.fixture
def place(tmp_path: Path) -> Place:
    settings = Settings(home=tmp_path, port=free_port())
    with Registry(settings.database_url) as registry:
        registry.create_key("app", [Scope.INFER])
    (tmp_path / "cpu.txt").write_text("pydantic==0.0.1\nno-such-package==1.0\n", encoding="utf-8")
    return Place(settings, requirements=tmp_path)


def found(place: Place, check: str) -> list[Finding]:
    return [each for each in examine(place) if each.check == check]


def test_a_fresh_home_is_well_but_for_the_pins_that_differ(place: Place) -> None:
    seen = examine(place)
    assert {each.check for each in seen} == set(CHECKS)
    assert [each.check for each in seen if each.mark == "fault"] == []
    (packages,) = [each for each in seen if each.check == "packages"]
    assert "2 of 2 packages differ: pydantic" in packages.said
    assert "no-such-package missing instead of 1.0" in packages.said


def test_the_pins_of_this_checkout_are_read() -> None:
    text = (Place.__dataclass_fields__["requirements"].default / "cpu.txt").read_text(encoding="utf-8")
    assert "\nvllm-cpu==" in text


def take_port(place: Place) -> None:
    holder = socket.socket()
    holder.bind((place.settings.host, place.settings.port))
    holder.listen()
    TAKEN.append(holder)


TAKEN: list[socket.socket] = []


def tear_registry(place: Place) -> None:
    for beside in place.settings.home.glob("registry.db-*"):
        beside.unlink()
    (place.settings.home / "registry.db").write_bytes(b"no database, but long enough to be looked at" * 100)


def show_slot_key(place: Place) -> None:
    folder = place.settings.slot_folder("clinic-1")
    folder.mkdir(parents=True)
    (folder / "key").write_text("secret", encoding="utf-8")
    (folder / "key").chmod(0o644)


def live_in_the_future(place: Place) -> None:
    clock = Clock()
    clock.time = datetime.now(UTC) + timedelta(hours=3)
    with Registry(place.settings.database_url, now=clock) as registry:
        candidate(registry)


def tear_base(place: Place) -> None:
    folder = place.settings.home / "base" / "tiny"
    write_model(folder)
    (folder / "model.safetensors").write_text("w")


def alter_history(place: Place) -> None:
    import sqlite3

    with Registry(place.settings.database_url) as registry:
        candidate(registry)
    with sqlite3.connect(place.settings.home / "registry.db") as connection:
        connection.execute("DROP TRIGGER audit_log_no_update")
        connection.execute("UPDATE audit_log SET actor = 'mallory'")


@pytest.mark.parametrize(
    ("spoil", "check", "said"),
    [
        (take_port, "port", "cannot listen"),
        (tear_registry, "registry", "is not an SQLite file"),
        (alter_history, "registry", "was changed after it was written"),
        (show_slot_key, "keys", "can be read by others"),
        (live_in_the_future, "clock", "ahead of this clock"),
        (tear_base, "base models", "model.safetensors is not whole"),
    ],
)
def test_what_is_broken_is_found_and_the_other_checks_go_on(place: Place, spoil: Callable[[Place], None], check: str, said: str) -> None:
    spoil(place)
    faults = [each for each in found(place, check) if each.mark == "fault"]
    assert any(said in each.said for each in faults)
    assert {each.check for each in examine(place)} == set(CHECKS)
    while TAKEN:
        TAKEN.pop().close()


def test_settings_of_notifications_that_cannot_be_used_are_a_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_NOTIFY_WEBHOOK_URL", "ftp://somewhere")
    (fault,) = found(place, "notifications")
    assert (fault.mark, "no http or https URL" in fault.said) == ("fault", True)


@pytest.mark.parametrize(("url", "mark"), [("", "ok"), ("file:///etc/passwd", "fault"), ("http://127.0.0.1:9", "fault")])
def test_prometheus_is_asked_only_where_there_should_be_one(place: Place, url: str, mark: str) -> None:
    (seen,) = found(Place(place.settings, place.requirements, url), "prometheus")
    assert seen.mark == mark


def test_an_answer_that_is_no_success_is_a_fault(place: Place) -> None:
    """The sink has no page, and answers 404."""
    with http_sink() as sink:
        (seen,) = found(Place(place.settings, place.requirements, sink.url.removesuffix("/hook")), "prometheus")
    assert seen.mark == "fault"
