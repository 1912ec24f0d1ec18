import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.fakes_training import TinyLine, sft_section
from training.adapters import new_adapter, trainable_parameters
from training.builders import load_base
from training.config import ModelSection, PreferenceSection, SftSection
from training.errors import ModelError
from training.memory import plan_training, steps_for
from training.shapes import KNOWN_SHAPES, shape_from_config, shape_of, trainable_in

QWEN = "Qwen/Qwen2.5-7B-Instruct"
MODEL = ModelSection(base=QWEN, max_length=1024)
MEDICAL = SftSection(r=64, alpha=128, learning_rate=2e-4, batch_size=1, gradient_accumulation=32, epochs=3)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("embedded:smollm2-135m-instruct", 0.1345),
        (QWEN, 7.616),
        ("meta-llama/Llama-2-13b-chat-hf", 13.016),
        ("codellama/CodeLlama-34b-Instruct-hf", 33.744),
    ],
)
def test_a_known_shape_has_the_published_number_of_parameters(name: str, billions: float) -> None:
    assert shape_of(name).parameters() / 1e9 == pytest.approx(billions, rel=2e-3)


def test_a_shape_read_from_a_folder_counts_what_the_model_has(tiny: TinyLine) -> None:
    shape = shape_of(tiny.base.folder)

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny.base.folder), dtype=torch.bfloat16)
    assert shape.parameters() == sum(weight.numel() for weight in model.parameters())


def test_trainable_parameters_are_those_peft_makes(tiny: TinyLine) -> None:
    section = sft_section(r=8, target_modules=["q_proj", "v_proj", "down_proj"])

    assert trainable_in(shape_of(tiny.base.folder), section) == trainable_parameters(
        new_adapter(load_base(Path(tiny.base.folder), None), section)
    )


def test_the_7b_preset_has_the_published_adapter_size_and_fits_a_24_gb_card() -> None:
    """r 64 on the seven projections of Qwen2.5-7B: 161 480 704 trainable parameters."""
    plan = plan_training(shape_of(QWEN), MODEL, MEDICAL, rows=10_000, tokens_per_row=300)

    assert plan.trainable_parameters == 161_480_704
    assert (plan.rows_per_step, plan.steps, plan.tokens) == (32, 939, 9_000_000)
    assert 6e9 < plan.total_memory_bytes < 24e9
    assert plan.servable


@pytest.mark.parametrize(("rows", "per_step", "epochs", "steps"), [(322, 4, 2, 162), (322, 4, 0.3, 25), (1, 32, 1, 1), (None, 4, 2, None)])
def test_steps_are_counted_as_the_trainer_counts_them(rows: int | None, per_step: int, epochs: float, steps: int | None) -> None:
    assert steps_for(rows, per_step, epochs) == steps


def test_double_quantisation_saves_close_to_0_4_bits_per_weight() -> None:
    shape = shape_of(QWEN)
    plain = SftSection.model_validate({"quantization": {"double_quant": False}})

    double, single = (plan_training(shape, MODEL, each).memory_bytes["base weights"] for each in (SftSection(), plain))

    assert (single - double) * 8 / shape.linear_parameters() == pytest.approx(0.373, abs=0.01)


def test_preference_steps_are_planned_when_there_are_pairs() -> None:
    plan = plan_training(shape_of(QWEN), MODEL, MEDICAL, PreferenceSection(), rows=100, pairs=120)

    assert plan.preference_steps == 60


def test_rows_longer_than_the_models_context_are_refused_before_training() -> None:
    with pytest.raises(ModelError, match="`max_length` is 8192, the model reads at most 4096"):
        plan_training(shape_of("meta-llama/Llama-2-13b-chat-hf"), ModelSection(base="x", max_length=8192), MEDICAL)


def test_an_unknown_model_names_those_that_can_be_planned() -> None:
    with pytest.raises(ModelError) as caught:
        shape_of("acme/secret-70b")

    assert all(shape.name in caught.value.do for shape in KNOWN_SHAPES.values())


def test_a_config_without_the_sizes_names_the_missing_keys() -> None:
    with pytest.raises(ModelError, match="hidden_size, intermediate_size"):
        shape_from_config("odd", json.loads('{"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 10}'))
