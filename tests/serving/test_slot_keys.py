"""Which slots a gateway asks, and with which key: never a loopback that is not its own, never a key in the clear."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from serving.machine import loopback
from serving.records import SlotInfo, SlotState
from serving.settings import Settings
from serving.slot_folder import read_loopback, write_key
from serving.slot_keys import SlotKeys
from tests.fakes_serving import slot_info

HERE = slot_info("clinic-1", SlotState.READY, datetime.now(UTC))
KEY = SecretStr("key")


def at(url: str) -> SlotInfo:
    return HERE.model_copy(update={"base_url": url, "pid": None})


def keys_in(home: Path, **settings: Any) -> SlotKeys:
    return SlotKeys(Settings(home=home, **settings))


def started_in(home: Path) -> Path:
    folder = home / "slots" / "clinic-1"
    folder.mkdir(parents=True)
    write_key(folder, KEY)
    return folder


@pytest.mark.parametrize("url", ["http://127.0.0.1:20001", "http://localhost:20001", "http://[::1]:20001"])
def test_a_slot_on_this_loopback_has_the_key_in_its_folder(tmp_path: Path, url: str) -> None:
    folder = started_in(tmp_path)
    assert read_loopback(folder) == loopback()
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert keys_in(tmp_path)(at(url)) == KEY


def test_a_slot_on_another_machines_loopback_is_not_asked_even_if_its_folder_is_shared(tmp_path: Path) -> None:
    (started_in(tmp_path) / "loopback").write_text("another boot/4026531840")
    assert keys_in(tmp_path)(HERE) is None


def test_a_slot_on_loopback_whose_folder_is_not_here_is_not_asked(tmp_path: Path) -> None:
    assert keys_in(tmp_path)(HERE) is None


@pytest.mark.parametrize(
    ("url", "own", "key"),
    [
        ("https://engine.example", KEY, KEY),
        ("http://engine.example:8000", KEY, None),
        ("http://engine.example:8000", SecretStr(""), SecretStr("none")),
    ],
)
def test_an_engine_elsewhere_has_the_key_of_the_settings_unless_others_could_read_it(
    tmp_path: Path, url: str, own: SecretStr, key: SecretStr | None
) -> None:
    keys = keys_in(tmp_path, outside_url="https://engine.example", outside_key=own)
    assert keys(at(url)) == key


def test_why_a_slot_is_not_asked_is_said_once_for_each_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = keys_in(tmp_path)
    with caplog.at_level(logging.ERROR):
        for url in ("http://127.0.0.1:20001", "http://127.0.0.1:20001", "http://127.0.0.1:20002"):
            keys(at(url))
    assert [record.message.partition(" is not asked")[0] for record in caplog.records] == [
        "slot clinic-1 at http://127.0.0.1:20001",
        "slot clinic-1 at http://127.0.0.1:20002",
    ]
