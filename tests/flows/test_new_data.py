"""New data is told once it has settled, and once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.new_data import look, remember_told, seen_path
from flows.operations import collect, look_for_data
from flows.recipe import Recipe, load_recipe
from serving.registry import Registry
from serving.settings import load_settings
from tests.fakes_flows import ROW, recipe_values, write_recipe
from training.errors import DataError, InputError, TunegateError


def recipe_of(folder: Path, **source: object) -> Recipe:
    return load_recipe(write_recipe(folder, recipe_values() | {"data": {"sft": [source]}}))


def test_a_change_is_told_when_two_looks_agree_and_not_again(tmp_path: Path) -> None:
    recipe, home = recipe_of(tmp_path, path="rows.jsonl"), tmp_path / "home"
    seen = [look(recipe, home)[0], look(recipe, home)[0]]
    (tmp_path / "rows.jsonl").write_text(ROW * 2, encoding="utf-8")
    seen.append(look(recipe, home)[0])
    (tmp_path / "rows.jsonl").write_text(ROW * 3, encoding="utf-8")  # still being written
    seen.append(look(recipe, home)[0])
    change, found = look(recipe, home)
    remember_told(recipe, home, found)
    assert [*seen, change, look(recipe, home)[0]] == ["first look", "unchanged", "settling", "settling", "changed", "unchanged"]


def test_a_change_that_could_not_be_told_is_found_again(tmp_path: Path) -> None:
    recipe, home = recipe_of(tmp_path, path="rows.jsonl"), tmp_path / "home"
    look(recipe, home)
    (tmp_path / "rows.jsonl").write_text(ROW * 2, encoding="utf-8")
    assert [look(recipe, home)[0] for _ in range(3)] == ["settling", "changed", "changed"]


def test_an_address_is_watched_by_what_its_store_says_of_it(tmp_path: Path) -> None:
    rows = tmp_path / "there" / "rows.jsonl"
    rows.parent.mkdir()
    rows.write_text(ROW, encoding="utf-8")
    recipe, home = recipe_of(tmp_path, path=f"file://{rows}"), tmp_path / "home"
    look(recipe, home)
    rows.write_text(ROW * 2, encoding="utf-8")
    assert [look(recipe, home)[0] for _ in range(2)] == ["settling", "changed"]


def test_an_address_that_is_gone_is_one_clear_error_without_its_password(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, path=f"file://{tmp_path}/gone.jsonl")
    with pytest.raises(DataError, match=r"gone\.jsonl cannot be looked at: FileNotFoundError"):
        look(recipe, tmp_path / "home")


def test_data_that_only_reading_can_tell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no source of its data can be watched"):
        look(recipe_of(tmp_path, dataset="org/rows"), tmp_path / "home")


def test_a_torn_memory_says_what_to_do(tmp_path: Path) -> None:
    recipe, home = recipe_of(tmp_path, path="rows.jsonl"), tmp_path / "home"
    look(recipe, home)
    seen_path(home, recipe).write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="what to do: delete"):
        look(recipe, home)


@pytest.mark.parametrize(("flow", "said"), [(look_for_data.fn, "look-for-data of recipe.yaml"), (collect.fn, "collection of recipe.yaml")])
def test_people_are_told_once_of_a_scheduled_look_that_fails_every_quarter_of_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: Callable[[Path], object], said: str
) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "home"))
    recipe = write_recipe(tmp_path, recipe_values() | {"data": {"sft": [{"path": f"file://{tmp_path}/gone.jsonl"}]}})
    if flow is collect.fn:
        recipe.write_text("name: [", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(TunegateError):
            flow(recipe)
    with Registry(load_settings().database_url) as registry:
        assert [(line.kind, line.subject) for line in registry.approvals.lines()] == [("run.failed", said)]
