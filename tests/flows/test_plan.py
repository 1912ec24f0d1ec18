"""What `tunegate validate` finds before any hour of training."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.errors import RecipeError
from flows.plan import check_files, make_plan, show_plan
from flows.recipe import load_recipe
from tests.fakes_flows import recipe_values, write_recipe
from tests.fakes_suites import PROMPT, many_prompts, write_suite
from training.shapes import shape_of


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


def test_a_base_model_that_vllm_could_not_serve_is_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text('{"architectures": ["T5ForConditionalGeneration"]}', encoding="utf-8")
    values = recipe_values()
    values["model"]["base"] = "./t5"

    with pytest.raises(RecipeError, match="'T5ForConditionalGeneration' is not among the"):
        check_files(load_recipe(write_recipe(tmp_path, values)))
    assert check_files(load_recipe(write_recipe(tmp_path, values | {"purpose": "experiment"})))


def test_a_number_of_processes_that_does_not_divide_a_step_is_refused(tmp_path: Path) -> None:
    values = recipe_values() | {"devices": {"processes": 3}}
    values["sft"] |= {"batch_size": 4}
    with pytest.raises(RecipeError, match=r"devices.processes: 4 rows per step \(4 × 1\) cannot be shared equally by 3 processes"):
        load_recipe(write_recipe(tmp_path, values))


@pytest.mark.parametrize(
    ("processes", "sft", "said"),
    [
        (1, {}, "devices.processes is 1, and one process has nobody to share weights with"),
        (2, {"method": "full"}, "sft.method full has none: choose qlora, lora, rslora, dora, lora_plus, adalora"),
        (2, {"method": "lora", "also_train": ["norms"]}, "sft.also_train tunes some of them whole"),
        (2, {"quantization": {"type": "int8"}}, "devices.shard cannot cut weights in int8"),
    ],
)
def test_weights_that_cannot_be_shared_out_are_refused(tmp_path: Path, processes: int, sft: dict[str, Any], said: str) -> None:
    values = recipe_values() | {"devices": {"processes": processes, "shard": True}}
    values["sft"] = {"batch_size": 2, **sft}
    with pytest.raises(RecipeError, match=re.escape(said)):
        load_recipe(write_recipe(tmp_path, values))


def test_the_plan_counts_shared_out_weights_by_process(tmp_path: Path) -> None:
    values = recipe_values() | {"devices": {"processes": 4, "shard": True}}
    values["model"] |= {"base": "embedded:smollm2-135m-instruct"}
    values["sft"] = {"method": "lora", "batch_size": 4}
    shared = make_plan(load_recipe(write_recipe(tmp_path, values)))
    whole = make_plan(load_recipe(write_recipe(tmp_path, values | {"devices": {"processes": 4}})))

    (processes,) = [each for each in shared.resolved if each.key == "processes"]
    assert "1/4 of every block" in processes.because
    blocks = shape_of("embedded:smollm2-135m-instruct").linear_parameters()
    assert shared.training.memory_bytes["base weights"] == whole.training.memory_bytes["base weights"] - 2 * blocks * 3 // 4


def test_the_plan_says_what_each_process_does(tmp_path: Path) -> None:
    values = recipe_values() | {"devices": {"processes": 4}}
    values["model"] |= {"base": "embedded:smollm2-135m-instruct"}
    values["sft"] |= {"batch_size": 2, "gradient_accumulation": 8}
    plan = make_plan(load_recipe(write_recipe(tmp_path, values)))
    (processes,) = [each for each in plan.resolved if each.key == "processes"]
    assert (processes.value, plan.training.rows_per_step) == ("4", 16)
    assert "2 × 2 rows of a step" in processes.because


def test_a_plan_says_how_preferences_and_rewards_are_learned_from(tmp_path: Path) -> None:
    values = recipe_values() | {
        "preference": {"loss": "robust", "reference": "base"},
        "reward": {"min_accuracy": 0.7},
        "online": {"method": "rloo", "reward": "model", "prompts": "practice", "batch_size": 3},
    }
    values["model"]["base"] = "embedded:smollm2-135m-instruct"
    values["data"]["preferences"] = [{"path": "pairs.jsonl"}]

    said = {each.key: f"{each.value}; {each.because}" for each in make_plan(load_recipe(write_recipe(tmp_path, values))).resolved}

    assert said["preference stage"] == (
        "dpo, loss robust, beta 0.1, sft_weight 0, label_smoothing 0.1; data.preferences; held to the base model without an adapter"
    )
    assert said["reward model"] == "1 epochs of the pairs; measured on 0.1 of the pairs, refused below 70% in order"
    assert said["online stage"] == (
        "rloo, rewarded by model, 4 answers, beta 0.05; each step answers 3 prompts of practice, 64 tokens at most"
    )


def test_prompts_that_are_not_to_be_learned_from_are_found_before_anything_runs(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, recipe_values() | {"online": {"prompts": "practice"}})
    write_suite(tmp_path / "practice", prompts=[*many_prompts(1), PROMPT | {"id": "own", "topic": "sleep", "prompt": "How long?"}])

    with pytest.raises(RecipeError) as caught:
        check_files(load_recipe(path))

    assert caught.value.problems == (
        "small/p0 is the same as a prompt of online.prompts (small)",
        "small/p0 is the same as a prompt of online.prompts (small)",
        "no rule holds for prompt own of online.prompts: every answer to it would be worth the same",
    )


def test_a_learning_rate_of_another_method_is_said_before_any_hour_of_training(tmp_path: Path) -> None:
    values = recipe_values()
    values["model"]["base"] = "embedded:smollm2-135m-instruct"
    values["sft"] |= {"learning_rate": 0.05}
    plan = make_plan(load_recipe(write_recipe(tmp_path, values)))

    printed = StringIO()
    show_plan(Console(file=printed, width=400), plan)

    (warning,) = plan.warnings
    assert warning.startswith("sft.learning_rate 0.05 is above the range in which qlora is known to work, 1e-05 to 0.003")
    assert warning in printed.getvalue()
