"""A recipe is understood whole or refused with every fault, and its digest says whether two recipes would do the same."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.errors import BAD_INPUT, RecipeError
from flows.recipe import load_recipe
from tests.fakes_flows import recipe_values, write_recipe

Values = dict[str, Any]
FULL = """\
name: small
model: {base: org/tiny, max_length: 64}
data:
  sft: [{path: rows.jsonl}]
sft:
  learning_rat: 0.1
  epochs: many
merge: {validation_suite: validation}
evaluation: {suite: suite}
gate: {min_prompts: 0}
serving: {public_name: clinic}
sevring: {}
"""


def faults(path: Path) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == BAD_INPUT
    return caught.value.problems


def changed(tmp_path: Path, change: Callable[[Values], None]) -> Path:
    values = recipe_values()
    change(values)
    return write_recipe(tmp_path, values)


def test_every_fault_is_named_at_once_with_file_line_key_and_the_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(FULL, encoding="utf-8")
    problems = faults(path)
    whole = "\n".join(problems)
    assert f"{path}:6: sft.learning_rat: unknown key; did you mean 'learning_rate'?" in whole
    assert f"{path}:7: sft.epochs: " in whole
    assert "(found 'many')" in whole
    assert f"{path}:10: gate.min_prompts: " in whole
    assert f"{path}:12: sevring: unknown key; did you mean 'serving'?" in whole
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: [", "not YAML"),
        ("- name", "a recipe is a mapping of sections, this is a list"),
        ("", "a recipe is a mapping of sections, this is a NoneType"),
        ("name: a\nname: b\n", "recipe.yaml:2: the key 'name' is there twice; the first is in line 1"),
        ("name: a\n", "recipe.yaml:1: model: is missing"),
        ("name: ../up\n", "recipe.yaml:1: name: "),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    assert any(fault in problem for problem in faults(path))


def test_a_recipe_that_is_not_there_and_one_that_is_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert faults(tmp_path / "none.yaml") == (f"{tmp_path / 'none.yaml'}: no such file",)
    assert "not UTF-8" in faults(tmp_path / "latin.yaml")[0]


def test_a_folder_instead_of_a_recipe_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path) == (f"{tmp_path}: cannot be read: Is a directory",)


def preferences_without_section(values: Values) -> None:
    values["data"]["preferences"] = [{"path": "pairs.jsonl"}]


def section_without_preferences(values: Values) -> None:
    values["preference"] = {"beta": 0.2}


def served_shorter_than_trained(values: Values) -> None:
    values["model"]["max_length"] = 256


def validated_on_the_gates_prompts(values: Values) -> None:
    values["merge"]["validation_suite"] = "../recipe/suite"


def compared_by_nobody(values: Values) -> None:
    values["gate"]["judge_win_rate"] = {}


def compared_by_a_guard(values: Values) -> None:
    compared_by_nobody(values)
    values["evaluation"]["judge"] = {"base_url": "http://127.0.0.1:9", "model": "guard", "style": "llama_guard"}


def one_engine_but_speeds_compared(values: Values) -> None:
    values["serving"]["change"] = "recreate"
    values["gate"]["must_not_regress"] = {"latency_p95_s": {"by_ratio": 0.5}}


def reward_for_nothing(values: Values) -> None:
    preferences_without_section(values)
    values["reward"] = {}


def reward_from_labels(values: Values) -> None:
    reward_for_nothing(values)
    values |= {"preference": {"method": "kto"}, "purpose": "experiment"}


def rewarded_by_no_model(values: Values) -> None:
    values["online"] = {"reward": "model", "prompts": "practice"}


def rewarded_on_the_gates_prompts(values: Values) -> None:
    values["online"] = {"prompts": "suite"}


def held_to_weights_that_move(values: Values) -> None:
    preferences_without_section(values)
    values["preference"] = {"method": "kto"}
    values["sft"]["also_train"] = ["norms"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (preferences_without_section, "data.preferences is given, but there is no `preference` section"),
        (section_without_preferences, "there is a `preference` section, but data.preferences names no file"),
        (served_shorter_than_trained, "serving.max_model_len (128) is below model.max_length (256)"),
        (validated_on_the_gates_prompts, "merge.validation_suite is evaluation.suite"),
        (compared_by_nobody, "gate.judge_win_rate needs a judge that compares; evaluation.judge is absent"),
        (compared_by_a_guard, "gate.judge_win_rate needs a judge that compares; evaluation.judge is llama_guard"),
        (one_engine_but_speeds_compared, "serving.change: recreate runs one engine at a time"),
        (reward_for_nothing, "nothing uses the reward model: set online.reward: model, or purpose: experiment"),
        (reward_from_labels, "a reward model learns from pairs, and with preference.method kto labelled answers may be among"),
        (rewarded_by_no_model, "online.reward is model, but there is no `reward` section to train one"),
        (rewarded_on_the_gates_prompts, "online.prompts is a suite that the model is judged by"),
        (held_to_weights_that_move, "preference.method kto holds the model to a reference that is the same weights with another adapter"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(tmp_path: Path, change: Callable[[Values], None], fault: str) -> None:
    assert fault in faults(changed(tmp_path / "recipe", change))[0]


def test_all_combinations_that_do_not_fit_are_named_together(tmp_path: Path) -> None:
    def change(values: Values) -> None:
        section_without_preferences(values)
        served_shorter_than_trained(values)
        validated_on_the_gates_prompts(values)

    whole = "\n".join(faults(changed(tmp_path / "recipe", change)))
    assert all(each in whole for each in ("preference", "max_model_len", "validation_suite"))


def test_paths_are_relative_to_the_recipes_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(tmp_path / "deep" / "recipe")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(path.relative_to(tmp_path))
    assert recipe.data.sft[0].path == path.parent / "rows.jsonl"
    assert recipe.evaluation.suite == path.parent / "suite"
    assert recipe.merge.validation_suite == path.parent / "validation"


@pytest.mark.parametrize(("given", "found"), [("./model", "model"), ("../model", "../model"), ("org/tiny", None)])
def test_a_base_model_is_a_path_only_when_it_begins_like_one(tmp_path: Path, given: str, found: str | None) -> None:
    path = changed(tmp_path / "recipe", lambda values: values["model"].update(base=given))
    expected = given if found is None else str((path.parent / found).resolve())
    assert load_recipe(path).model.base == expected


def test_an_absolute_path_and_a_home_path_stay_what_they_are(tmp_path: Path) -> None:
    def change(values: Values) -> None:
        values["evaluation"]["suite"] = str(tmp_path / "elsewhere")
        values["data"]["sft"] = [{"path": "~/rows.jsonl"}]

    recipe = load_recipe(changed(tmp_path / "recipe", change))
    assert recipe.evaluation.suite == tmp_path / "elsewhere"
    assert recipe.data.sft[0].path == Path("~/rows.jsonl").expanduser()


def test_a_recipe_is_frozen(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    with pytest.raises(ValidationError):
        recipe.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        recipe.sft.epochs = 9  # type: ignore[misc]


def test_the_digest_does_not_change_with_spelling_order_or_written_defaults(tmp_path: Path) -> None:
    plain = load_recipe(write_recipe(tmp_path)).digest
    values = recipe_values()
    values["sft"] |= {"method": "qlora", "quantization": {"double_quant": True}}
    reordered = dict(reversed(values.items()))
    assert load_recipe(write_recipe(tmp_path, reordered)).digest == plain


CHANGES: list[tuple[str, str, Any]] = [
    ("model", "max_length", 65),
    ("model", "revision", "abc"),
    ("data", "system_prompt", "Be kind."),
    ("data", "sft", [{"path": "rows.jsonl", "format": "alpaca"}]),
    ("sft", "seed", 8),
    ("merge", "max_validation_rows", 3),
    ("evaluation", "concurrency", 3),
    ("gate", "alpha", 0.04),
    ("gate", "must", {"critical_failures": {"max": 1}}),
    ("serving", "max_num_seqs", 3),
]


@pytest.mark.parametrize(("section", "key", "value"), CHANGES, ids=[f"{section}.{key}" for section, key, _ in CHANGES])
def test_a_changed_key_is_another_digest(tmp_path: Path, section: str, key: str, value: Any) -> None:
    plain = load_recipe(write_recipe(tmp_path)).digest
    assert load_recipe(changed(tmp_path, lambda values: values[section].update({key: value}))).digest != plain


def test_a_recipe_folder_that_is_moved_keeps_its_digest(tmp_path: Path) -> None:
    here = write_recipe(tmp_path / "here")
    shutil.copytree(here.parent, tmp_path / "there")
    assert load_recipe(here).digest == load_recipe(tmp_path / "there" / "recipe.yaml").digest


def test_what_cannot_be_served_is_refused_before_training_unless_it_is_an_experiment(tmp_path: Path) -> None:
    values = recipe_values() | {"sft": {"method": "prefix_tuning"}}
    with pytest.raises(RecipeError, match="set purpose: experiment"):
        load_recipe(write_recipe(tmp_path / "production", values))
    assert load_recipe(write_recipe(tmp_path / "tried", values | {"purpose": "experiment"})).sft.method == "prefix_tuning"
