"""Releases are signed where a key is set, and only files that are what was judged."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from flows.signatures import sign_if_asked, sign_release
from serving.errors import SettingsError
from serving.registry import Registry
from serving.settings import Settings
from tests.fakes_keys import write_key_pair
from tests.fakes_serving import candidate, url_in, write_model
from training.errors import RecordError
from training.records import SIGNATURE_NAME
from training.signing import verify_signature


def settings_with(folder: Path, password: str = "") -> tuple[Settings, Path]:
    private, public = write_key_pair(folder, password)
    return Settings(home=folder / "home", signing_key=private, signing_key_password=SecretStr(password)), public


def test_without_a_key_nothing_is_signed(tmp_path: Path) -> None:
    write_model(tmp_path / "m")

    sign_if_asked(Settings(home=tmp_path / "home"), tmp_path / "m")

    assert not (tmp_path / "m" / SIGNATURE_NAME).exists()


def test_what_becomes_a_release_is_signed_once(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    settings, public = settings_with(tmp_path, "secret")

    sign_if_asked(settings, tmp_path / "m")
    first = (tmp_path / "m" / SIGNATURE_NAME).read_bytes()
    sign_if_asked(settings, tmp_path / "m")

    verify_signature(tmp_path / "m", public)
    assert (tmp_path / "m" / SIGNATURE_NAME).read_bytes() == first


def test_a_release_is_signed_anew_with_the_key_of_today(tmp_path: Path) -> None:
    old, _ = settings_with(tmp_path / "old")
    new, public = settings_with(tmp_path / "new")
    with Registry(url_in(tmp_path)) as registry:
        release = candidate(registry, digest=write_model(tmp_path / "m"), folder=tmp_path / "m")
        sign_if_asked(old, release.model_dir)

        sign_release(new, release)

    verify_signature(release.model_dir, public)


def test_files_that_were_altered_are_not_signed(tmp_path: Path) -> None:
    settings, _ = settings_with(tmp_path)
    with Registry(url_in(tmp_path)) as registry:
        release = candidate(registry, digest=write_model(tmp_path / "m"), folder=tmp_path / "m")
    (tmp_path / "m" / "extra.py").write_text("import os")

    with pytest.raises(RecordError, match="does not belong here"):
        sign_release(settings, release)
    assert not (tmp_path / "m" / SIGNATURE_NAME).exists()


def test_signing_without_a_key_says_which_variable_is_missing(tmp_path: Path) -> None:
    with Registry(url_in(tmp_path)) as registry:
        release = candidate(registry, digest=write_model(tmp_path / "m"), folder=tmp_path / "m")

    with pytest.raises(SettingsError, match="TUNEGATE_SIGNING_KEY is not set"):
        sign_release(Settings(home=tmp_path / "home"), release)
