"""What `tunegate validate` finds before any hour of training."""

from pathlib import Path

import pytest

from flows.errors import RecipeError
from flows.plan import check_files
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
