"""The shipped recipes: they load through the real schema, and say what practice has settled on."""

from pathlib import Path

import pytest

from evaluation.suite import load_suite
from flows.recipe import Recipe, load_recipe
from tests.repository.checkout import ROOT

RECIPES = {path.stem: path for path in sorted((ROOT / "flows" / "recipes").glob("*.yaml"))}
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def recipe(name: str) -> Recipe:
    return load_recipe(RECIPES[name])


def test_there_are_at_least_the_five_recipes_that_the_readme_names() -> None:
    assert RECIPES.keys() >= {"demo", "demo_poisoned", "medical_7b_qlora", "chat_13b_qlora", "code_34b_qlora"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_is_called_like_its_file(name: str) -> None:
    assert recipe(name).name == name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_suites_are_there_and_share_no_prompt(name: str) -> None:
    loaded = recipe(name)
    gate, validation = load_suite(loaded.evaluation.suite), load_suite(loaded.merge.validation_suite)
    assert not {prompt.text for prompt in gate.prompts} & {prompt.text for prompt in validation.prompts}
    assert len(gate.prompts) >= loaded.gate.min_prompts


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_tolerates_a_critical_failure(name: str) -> None:
    assert recipe(name).gate.must["critical_failures"].max == 0


@pytest.mark.parametrize("name", ["demo", "demo_poisoned"])
def test_the_demos_need_no_network_and_their_rows_are_there(name: str) -> None:
    loaded = recipe(name)
    assert loaded.model.base == "embedded:smollm2-135m-instruct"
    assert loaded.sft.quantization is not None
    assert [source.path for source in loaded.data.sft if not source.path.is_file()] == []


def test_the_poisoned_demo_is_judged_exactly_as_the_demo_is() -> None:
    """Its model must be rejected for its answers, not for a stricter gate."""
    good, poisoned = recipe("demo"), recipe("demo_poisoned")
    assert (poisoned.evaluation, poisoned.gate, poisoned.merge, poisoned.serving) == (good.evaluation, good.gate, good.merge, good.serving)
    assert [source.path.name for source in poisoned.data.sft] == ["sft_poisoned.jsonl"]


@pytest.mark.parametrize(
    ("name", "base", "r", "alpha", "learning_rate", "batch_size", "gradient_accumulation", "epochs", "max_length"),
    [
        ("medical_7b_qlora", "Qwen/Qwen2.5-7B-Instruct", 64, 128, 2e-4, 1, 32, 3, 1024),
        ("chat_13b_qlora", "meta-llama/Llama-2-13b-chat-hf", 128, 256, 1e-4, 2, 64, 2, 2048),
        ("code_34b_qlora", "codellama/CodeLlama-34b-Instruct-hf", 256, 512, 5e-5, 4, 128, 1, 8192),
    ],
)
def test_a_preset_holds_the_settled_numbers(
    name: str,
    base: str,
    r: int,
    alpha: float,
    learning_rate: float,
    batch_size: int,
    gradient_accumulation: int,
    epochs: float,
    max_length: int,
) -> None:
    loaded = recipe(name)
    sft = loaded.sft
    assert (loaded.model.base, loaded.model.max_length) == (base, max_length)
    assert (sft.r, sft.alpha, sft.learning_rate) == (r, alpha, learning_rate)
    assert (sft.batch_size, sft.gradient_accumulation, sft.epochs) == (batch_size, gradient_accumulation, epochs)


@pytest.mark.parametrize("name", ["medical_7b_qlora", "chat_13b_qlora", "code_34b_qlora"])
def test_a_preset_is_qlora_over_nf4_on_the_seven_projections(name: str) -> None:
    sft = recipe(name).sft
    assert sft.quantization is not None
    assert (sft.method, sft.quantization.type, sft.quantization.double_quant) == ("qlora", "nf4", True)
    assert (sft.target_modules, sft.dropout) == (SEVEN, 0.05)


def test_a_recipe_may_be_moved_with_its_data(tmp_path: Path) -> None:
    """Paths are relative to the recipe, so a copy elsewhere names other files and is the same otherwise."""
    copy = tmp_path / "demo.yaml"
    copy.write_text(RECIPES["demo"].read_text(encoding="utf-8"), encoding="utf-8")
    assert load_recipe(copy).data.sft[0].path == tmp_path.resolve() / "clinic_en" / "sft.jsonl"
