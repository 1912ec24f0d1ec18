import pytest
from pydantic import ValidationError

from training.config import DataSection, ModelSection, SftSection


def test_qlora_without_a_quantization_block_is_nf4_with_double_quantisation() -> None:
    section = SftSection()

    assert section.quantization is not None
    assert (section.quantization.type, section.quantization.double_quant) == ("nf4", True)


def test_lora_with_a_quantization_block_is_refused() -> None:
    with pytest.raises(ValidationError, match="remove `quantization`"):
        SftSection.model_validate({"method": "lora", "quantization": {"type": "nf4"}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 0),
        ("dropout", 1.0),
        ("learning_rate", 0),
        ("epochs", -1),
        ("batch_size", 0),
        ("warmup_ratio", 1),
        ("seed", -1),
        ("scheduler", "x"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        SftSection.model_validate({key: value})


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="lerning_rate"):
        SftSection.model_validate({"lerning_rate": 1e-4})


def test_the_head_cannot_carry_an_adapter() -> None:
    with pytest.raises(ValidationError, match="lm_head cannot carry an adapter"):
        SftSection.model_validate({"target_modules": ["q_proj", "lm_head"]})


def test_a_misspelt_embedded_model_names_those_there_are() -> None:
    with pytest.raises(ValidationError, match="smollm2-135m-instruct"):
        ModelSection(base="embedded:smollm")


def test_moving_the_data_folder_does_not_change_the_digest() -> None:
    here, there = (DataSection.model_validate({"sft": [{"path": f"{folder}/sft.jsonl"}]}) for folder in ("/a", "/b"))

    assert here.digest == there.digest


def test_every_key_has_a_description() -> None:
    fields = [field for section in (ModelSection, DataSection, SftSection) for field in section.model_fields.values()]

    assert len(fields) > 25
    assert all(field.description for field in fields)
