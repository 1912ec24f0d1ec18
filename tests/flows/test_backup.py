"""A backup holds what releases rest on, can be put back, and is refused when a byte of it has changed."""

import shutil
from pathlib import Path

import pytest

from flows.backup import make_backup, restore_backup
from flows.errors import BackupError
from serving.registry import Registry
from serving.settings import Settings
from tests.fakes_flows import QuickStages, finish_training, open_small_line, write_recipe
from tests.fakes_postgres import postgres_cluster
from training.records import MergedModel, verify_files


@pytest.fixture
def used(tmp_path: Path) -> Settings:
    """A home with a release whose model is finished, a stage that is not, and a log."""
    settings = Settings(home=tmp_path / "home")
    settings.home.mkdir()
    with Registry(settings.database_url) as registry:
        line = open_small_line(write_recipe(tmp_path / "recipe"), settings, registry, QuickStages())
        merged = finish_training(line)
        registry.add_release(
            public_name="clinic",
            model_digest=merged.record.digest,
            model_dir=merged.folder,
            serving=line.recipe.serving,
            recipe_name="small",
            requester="ann",
        )
    unfinished = settings.home / "runs" / "small" / "sft-unfinished"
    unfinished.mkdir()
    (unfinished / "checkpoint.safetensors").write_text("half", encoding="utf-8")
    (settings.home / "serve.log").write_text("log", encoding="utf-8")
    return settings


def test_what_was_backed_up_is_there_again_byte_for_byte(used: Settings, tmp_path: Path) -> None:
    with Registry(used.database_url) as in_use:
        in_use.releases()
        made = make_backup(used, tmp_path / "backup")
    assert len(made.files) > 10
    shutil.move(used.home, tmp_path / "lost")
    assert restore_backup(used, tmp_path / "backup") == made
    with Registry(used.database_url) as registry:
        (release,) = registry.releases()
    verify_files(release.model_dir, MergedModel.read(release.model_dir).files)
    assert not (used.home / "serve.log").exists()
    assert not (used.home / "runs" / "small" / "sft-unfinished").exists()


def test_a_flipped_bit_a_missing_and_a_strange_file_are_all_named_and_nothing_is_restored(used: Settings, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    make_backup(used, backup)
    shutil.move(used.home, tmp_path / "lost")
    weights, config = sorted(backup.rglob("merge-*/model.safetensors"))[0], sorted(backup.rglob("merge-*/config.json"))[0]
    weights.write_text("other", encoding="utf-8")
    config.unlink()
    (backup / "strange").write_text("?", encoding="utf-8")
    with pytest.raises(BackupError) as caught:
        restore_backup(used, backup)
    assert all(
        told in str(caught.value) for told in ("model.safetensors has other bytes", "config.json is missing", "strange does not belong")
    )
    assert not used.home.exists()


def test_a_restore_overwrites_nothing_and_names_the_home_it_belongs_to(used: Settings, tmp_path: Path) -> None:
    make_backup(used, tmp_path / "backup")
    with pytest.raises(BackupError, match="a restore overwrites nothing"):
        restore_backup(used, tmp_path / "backup")
    with pytest.raises(BackupError, match=f"set TUNEGATE_HOME={used.home}"):
        restore_backup(Settings(home=tmp_path / "elsewhere"), tmp_path / "backup")


def test_half_a_backup_is_none(used: Settings, tmp_path: Path) -> None:
    make_backup(used, tmp_path / "backup")
    (tmp_path / "backup" / "record.json").unlink()
    with pytest.raises(BackupError, match="is no backup"):
        restore_backup(used, tmp_path / "backup")
    with pytest.raises(BackupError, match="a backup never replaces another"):
        make_backup(used, tmp_path / "backup")


def test_a_home_without_a_registry_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="there is no registry"):
        make_backup(Settings(home=tmp_path / "nothing"), tmp_path / "backup")


def test_a_registry_on_postgresql_goes_into_the_backup_and_back(tmp_path: Path) -> None:
    import psycopg

    with postgres_cluster() as cluster:
        before, after = cluster.empty(), cluster.empty()
        cluster.run(before, "CREATE TABLE releases AS SELECT 'clinic-1' AS id")
        settings = {"home": tmp_path / "home"}
        make_backup(Settings(**settings, registry_url=before), tmp_path / "backup")
        restore_backup(Settings(**settings, registry_url=after), tmp_path / "backup")
        with psycopg.connect(after) as connection:
            assert connection.execute("SELECT id FROM releases").fetchall() == [("clinic-1",)]
