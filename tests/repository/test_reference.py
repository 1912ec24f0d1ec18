"""The generated tables: true, complete, and written without harm."""

import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flows.recipe import Recipe
from flows.reference import BEGIN, END, RECORDS, SETTINGS, Key, page_with, pages, recipe_keys, record_fields, setting_keys, write
from tests.repository.checkout import ROOT
from training.errors import TunegateError


def fields_below(model: type[BaseModel]) -> int:
    """Every field at any depth, counted by the annotations: an oracle that does not use the JSON schema."""
    return sum(1 + sum(map(fields_below, models_in(field.annotation))) for field in model.model_fields.values())


def models_in(kind: Any) -> list[type[BaseModel]]:
    """The models that an annotation names, inside unions, lists and mappings too."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for argument in typing.get_args(kind) for model in models_in(argument)]


def copy_of_the_pages(folder: Path) -> dict[Path, str]:
    """The committed pages below `folder`, and their text."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in pages()}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text, encoding="utf-8")
    return texts


def key(name: str) -> Key:
    return next(each for each in (*recipe_keys(), *setting_keys()) if each.name == name)


def test_the_committed_pages_are_up_to_date(tmp_path: Path) -> None:
    texts = copy_of_the_pages(tmp_path)
    assert len(texts) == 4
    assert write(tmp_path) == [], "run: make generated"


def test_a_stale_page_is_made_true_again_and_what_people_wrote_stays(tmp_path: Path) -> None:
    texts = copy_of_the_pages(tmp_path)
    for name, text in texts.items():
        (tmp_path / name).write_text(page_with(text, "| old |\n", str(name)), encoding="utf-8")
    assert write(tmp_path) == [tmp_path / name for name in texts]
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in texts} == texts


@pytest.mark.parametrize("text", ["no marks", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_page_without_its_two_marks_is_refused(text: str) -> None:
    with pytest.raises(TunegateError, match=r"page\.md: needs one line"):
        page_with(text, "x", "page.md")


def test_every_key_and_every_setting_is_in_a_table() -> None:
    assert len(recipe_keys()) == fields_below(Recipe) > 60
    assert len(setting_keys()) == sum(map(fields_below, SETTINGS)) >= 20


def test_every_key_and_every_setting_is_described() -> None:
    assert [each.name for each in (*recipe_keys(), *setting_keys()) if len(each.description) < 4] == []


def test_every_field_of_a_record_is_in_a_table_and_described() -> None:
    for record in RECORDS:
        fields = record_fields(record)
        assert len(fields) == fields_below(record) > 10
        assert [each.name for each in fields if len(each.description) < 4] == []


def test_every_number_has_a_bound() -> None:
    """A gate's bounds have none: they bound metrics in the metrics' own units."""
    free = [each.name for each in (*recipe_keys(), *setting_keys()) if "number" in each.type and not each.bounds]
    bounded = ("gate.must", "gate.slices[].must", "approval.auto.bounds")
    assert sorted(free) == sorted(f"{where}.METRIC.{end}" for where in bounded for end in ("min", "max"))


@pytest.mark.parametrize(
    ("name", "kind", "default", "bounds"),
    [
        ("sft.r", "whole number", "`16`", "≥ 1, ≤ 1024"),
        ("sft.dropout", "number", "`0.05`", "≥ 0, < 1"),
        ("data.sft[].path", "path or null", "`null`", ""),
        ("data.preferences", "list of section", "`[]`", ""),
        ("preference", "section or null", "`null`", ""),
        ("gate.must", "metric → section", '`{"critical_failures": {"max": 0.0, "proven": false}}`', ""),
        ("gate.must_not_regress.METRIC.by_ratio", "number or null", "`null`", "≥ 0"),
        ("gate.should_improve", "list of metric", "`[]`", ""),
        ("TUNEGATE_PORT", "whole number", "`8080`", "≥ 1, ≤ 65535"),
        ("TUNEGATE_REGISTRY_URL", "secret text", "empty", ""),
    ],
)
def test_a_key_is_told_as_the_schema_has_it(name: str, kind: str, default: str, bounds: str) -> None:
    told = key(name)
    assert (told.type, told.default, told.bounds) == (kind, default, bounds)
