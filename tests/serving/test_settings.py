"""Settings from the environment, and the recipe's serving section."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from serving.config import ServingSection
from serving.errors import SettingsError
from serving.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TUNEGATE_{name.upper()}", raising=False)


def test_every_field_says_what_it_is_and_in_which_unit() -> None:
    fields = Settings.model_fields
    assert len(fields) >= 15
    assert [name for name, field in fields.items() if not field.description] == []
    units = {"_s": "seconds", "_bytes": "bytes"}
    silent = [
        name for name, field in fields.items() for end, unit in units.items() if name.endswith(end) and unit not in str(field.description)
    ]
    assert silent == []


def test_every_number_has_bounds() -> None:
    numbers = {name: field for name, field in Settings.model_fields.items() if field.annotation in (int, float)}
    assert len(numbers) >= 15
    assert [name for name, field in numbers.items() if len(field.metadata) < 2] == []


def test_the_registry_is_in_home_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    assert load_settings().database_url == SecretStr(f"sqlite:///{tmp_path}/registry.db")
    monkeypatch.setenv("TUNEGATE_REGISTRY_URL", "sqlite:////elsewhere/r.db")
    assert load_settings().database_url == SecretStr("sqlite:////elsewhere/r.db")


def test_home_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().home == tmp_path / ".tunegate"


def test_all_faults_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_PORT", "70000")
    monkeypatch.setenv("TUNEGATE_WARM_S", "soon")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "TUNEGATE_PORT='70000': Input should be less than or equal to 65535" in str(refused.value)
    assert "TUNEGATE_WARM_S='soon': Input should be a valid number" in str(refused.value)


def test_the_port_that_kubernetes_writes_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_PORT", "tcp://10.0.0.7:8080")
    with pytest.raises(SettingsError, match="enableServiceLinks: false"):
        load_settings()


def test_settings_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_RESTART_CAP_S", "0.5")
    with pytest.raises(SettingsError, match=r"restart_cap_s \(0\.5\) is below restart_first_s \(1\.0\)"):
        load_settings()


def test_a_password_in_the_registry_url_is_not_printed() -> None:
    settings = Settings(registry_url=SecretStr("sqlite:////secret/r.db"))
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("name", ["", "Clinic", "-clinic", "clinic/one", "a" * 64, 'x"y', "clinic\n"])
def test_a_public_name_that_would_not_fit_a_label_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        ServingSection(public_name=name)


def test_an_unknown_key_in_the_serving_section_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_num_seq"):
        ServingSection.model_validate({"public_name": "clinic", "max_num_seq": 4})
