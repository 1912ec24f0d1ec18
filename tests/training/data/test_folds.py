"""K folds for small data: each fold is held back in one run, and trained on in all the others."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.plan import make_plan
from flows.recipe import load_recipe
from tests.fakes_flows import recipe_values, write_recipe
from tests.training.data.test_gather import gathered, row, write
from training.data.config import DataSection
from training.data.profile import DataProfile, SourceProfile
from training.data.report_fixes import to_fix
from training.errors import DataError

FOLDS = 4


def split(tmp_path: Path, numbers: range, fold: int) -> tuple[set[str], set[str]]:
    """Questions that are trained on, and those held back."""
    path = write(tmp_path / "rows.jsonl", [row(number) for number in numbers])
    found, _ = gathered(tmp_path, [{"path": path}], folds=FOLDS, fold=fold)
    train, held_back = ({found.rows[number].question_key for number in found.sides[side]} for side in ("train", "validation"))
    return train, held_back


def test_the_folds_together_hold_back_every_row_once_and_train_on_the_complement(tmp_path: Path) -> None:
    splits = [split(tmp_path, range(60), fold) for fold in range(FOLDS)]

    everything = set().union(*(held_back for _, held_back in splits))
    assert sum(len(held_back) for _, held_back in splits) == len(everything) == 60
    assert all(held_back and train == everything - held_back for train, held_back in splits)


def test_rows_that_are_added_leave_every_old_row_in_its_fold(tmp_path: Path) -> None:
    few, many = split(tmp_path, range(40), 1), split(tmp_path, range(80), 1)

    assert few[0] < many[0]
    assert few[1] < many[1]


def test_the_same_question_is_in_one_fold_whatever_it_is_answered(tmp_path: Path) -> None:
    answers = [{"instruction": row(number)["instruction"], "output": answer} for number in range(40) for answer in ("Yes, today.", "No.")]
    found, _ = gathered(tmp_path, [{"path": write(tmp_path / "rows.jsonl", answers)}], folds=FOLDS, duplicates={"near": False})

    keys = {side: [found.rows[number].question_key for number in found.sides[side]] for side in ("train", "validation")}  # type: ignore[index]
    assert not set(keys["train"]) & set(keys["validation"])
    assert all(found.count(key) == 2 for found in keys.values() for key in found)


def test_more_folds_than_questions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(1), row(2)])

    with pytest.raises(DataError, match="folds are empty: there are 2 different questions"):
        gathered(tmp_path, [{"path": path}], folds=5)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"fold": 1}, "needs `folds`"),
        ({"folds": 5, "fold": 5}, "the last one is 4, not 5"),
        ({"folds": 5, "validation_fraction": 0.1}, "leave one of them out"),
        ({"folds": 1}, "greater than or equal to 2"),
        ({"folds": 5, "fold": -1}, "greater than or equal to 0"),
    ],
)
def test_a_split_that_cannot_be_meant_is_refused(keys: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataSection.model_validate({"sft": [{"path": "rows.jsonl"}], **keys})


def planned(tmp_path: Path, **data: object) -> str:
    values = recipe_values()
    values["model"]["base"] = "embedded:smollm2-135m-instruct"
    values["data"] |= data
    path = write_recipe(tmp_path, values)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row(number)) + "\n" for number in range(50)), encoding="utf-8")
    (said,) = [each for each in make_plan(load_recipe(path)).resolved if each.key == "held back"]
    return f"{said.value}: {said.because}"


def test_a_plan_says_which_fold_is_held_back_and_how_to_judge_on_all(tmp_path: Path) -> None:
    said = planned(tmp_path, folds=5, fold=2)

    assert said.startswith("fold 2 of 5, about 10 rows")
    assert "a run for each data.fold from 0 to 4" in said


def test_a_plan_for_small_data_without_folds_says_that_there_are_folds(tmp_path: Path) -> None:
    assert "`data.folds: 5` would validate on every row once" in planned(tmp_path)


def test_the_report_stops_advising_folds_once_they_are_used() -> None:
    small = DataProfile(sources=(SourceProfile(name="a", rows_in=120, kept=120, changed=0),))

    assert "`data.folds: 5`" in to_fix(small)[-1]
    assert to_fix(small.model_copy(update={"fold": "fold 2 of folds 0 to 4"})) == []


@pytest.mark.parametrize("keys", [{}, {"validation_fraction": 0.2}, {"folds": 5}, {"folds": 5, "fold": 3}])
def test_a_section_written_out_with_its_defaults_can_be_read_again(keys: dict[str, object]) -> None:
    """As a stage's own process reads it."""
    section = DataSection.model_validate({"sft": [{"path": "rows.jsonl"}], **keys})

    assert DataSection.model_validate_json(section.model_dump_json()) == section
