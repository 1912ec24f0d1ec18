"""What `tunegate validate` finds before any hour of training."""

from pathlib import Path

import pytest

from flows.errors import RecipeError
from flows.plan import check_files, make_plan
from flows.recipe import load_recipe
from tests.fakes_flows import recipe_values, write_recipe


def test_what_cannot_be_evaluated_is_found_all_at_once(tmp_path: Path) -> None:
    """Repeated greedy answers, and a folder of task files that holds none."""
    values = recipe_values()
    values["evaluation"] |= {"repetitions": 3, "forgetting": {"tasks": ["mine"], "folder": "tasks"}}
    with pytest.raises(RecipeError) as caught:
        check_files(load_recipe(write_recipe(tmp_path, values)))
    found = str(caught.value)
    assert "evaluation.repetitions is 3, but small asks for greedy answers" in found
    assert f"{tmp_path / 'tasks'}: no task files (*.yaml)" in found


def test_a_recipe_that_can_be_evaluated_is_fine(tmp_path: Path) -> None:
    assert len(check_files(load_recipe(write_recipe(tmp_path)))) == 3


def test_a_number_of_processes_that_does_not_divide_a_step_is_refused(tmp_path: Path) -> None:
    values = recipe_values() | {"devices": {"processes": 3}}
    values["sft"] |= {"batch_size": 4}
    with pytest.raises(RecipeError, match=r"devices.processes: 4 rows per step \(4 × 1\) cannot be shared equally by 3 processes"):
        load_recipe(write_recipe(tmp_path, values))


def test_the_plan_says_what_each_process_does(tmp_path: Path) -> None:
    values = recipe_values() | {"devices": {"processes": 4}}
    values["model"] |= {"base": "embedded:smollm2-135m-instruct"}
    values["sft"] |= {"batch_size": 2, "gradient_accumulation": 8}
    plan = make_plan(load_recipe(write_recipe(tmp_path, values)))
    (processes,) = [each for each in plan.resolved if each.key == "processes"]
    assert (processes.value, plan.training.rows_per_step) == ("4", 16)
    assert "2 × 2 rows of a step" in processes.because
