"""A `preference` section takes its method's defaults, and says everything that does not fit in one go."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from tests.fakes_training import sft_section
from training.preference_methods import PREFERENCES, LossName, readers_of
from training.preference_section import PreferenceSection


def section(**values: Any) -> PreferenceSection:
    return PreferenceSection.model_validate(values)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("dpo", "dpo, loss sigmoid, beta 0.1, sft_weight 0"),
        ("kto", "kto, loss kto, beta 0.1, desirable_weight 1, undesirable_weight 1"),
        ("orpo", "orpo, beta 0.1, sft_weight 1"),
        ("cpo", "cpo, loss sigmoid, beta 0.1, sft_weight 1, label_smoothing 0"),
        ("simpo", "simpo, beta 2, margin 1, sft_weight 0"),
    ],
)
def test_what_is_left_out_is_as_the_methods_paper_has_it(method: str, words: str) -> None:
    assert section(method=method).in_words == words


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"method": "simpo", "loss": "hinge"}, "method simpo has no loss hinge; it has a single loss: remove the key"),
        ({"method": "kto", "loss": "sigmoid"}, "method kto has no loss sigmoid; its losses are kto, apo_zero_unpaired"),
        ({"method": "orpo", "reference": "sft"}, "method orpo does not read `reference`; it belongs to dpo, kto"),
        ({"margin": 1.0}, "method dpo with loss sigmoid does not read `margin`; it belongs to simpo"),
        ({"label_smoothing": 0.1}, "does not read `label_smoothing`; it belongs to dpo with loss robust, dpo with loss exo_pair"),
        ({"loss": "exo_pair", "label_smoothing": 0.0}, "loss exo_pair needs a label_smoothing above 0"),
        ({"method": "kto", "batch_size": 1}, "loss kto compares the rows of a batch"),
        ({"loss": "aot", "batch_size": 1}, "loss aot compares the rows of a batch"),
        ({"loss": "robust", "label_smoothing": 0.5}, "less than 0.5"),
        ({"method": "kto", "held_out_fraction": 0.1}, "method kto learns from single answers, and holds no pairs back"),
        ({"early_stopping": {}}, "`early_stopping` measures on held-back pairs, and there are none: set held_out_fraction"),
        ({"held_out_every_steps": 3}, "`held_out_every_steps` measures on held-back pairs"),
        ({"method": "ppo"}, "'dpo', 'kto', 'orpo', 'cpo' or 'simpo'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault.replace("(", r"\(").replace("`", ".")):
        section(**values)


def test_all_that_does_not_fit_is_named_together() -> None:
    with pytest.raises(ValidationError) as caught:
        section(method="kto", margin=1.0, label_smoothing=0.1, batch_size=1)

    assert str(caught.value).count("does not read") == 2
    assert "compares the rows of a batch" in str(caught.value)


@pytest.mark.parametrize("method", PREFERENCES)
def test_a_section_that_was_written_out_reads_back_the_same(method: str) -> None:
    assert section(**section(method=method).model_dump()) == section(method=method)


@pytest.mark.parametrize(
    ("method", "sft", "faults"),
    [
        ("dpo", {}, 0),
        ("dpo", {"also_train": ["norms"]}, 1),  # the reference would move with them
        ("orpo", {"also_train": ["norms"]}, 0),
        ("simpo", {"method": "adalora"}, 1),
    ],
)
def test_it_says_what_of_fine_tuning_it_cannot_go_on_from(method: str, sft: dict[str, Any], faults: int) -> None:
    assert len(section(method=method).misfits(sft_section(**sft))) == faults


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, ""),
        ({"loss": "nca_pair"}, ""),
        ({"method": "orpo"}, ""),
        ({"loss": "aot"}, "preference.loss aot compares the rows of a pass with each other"),
        ({"method": "kto"}, "preference.loss kto compares the rows of a pass with each other"),
        ({"method": "kto", "loss": "apo_zero_unpaired"}, "preference.method kto goes through its rows in batches that are fixed"),
        ({"held_out_fraction": 0.1}, "preference.held_out_fraction has pairs measured in one process only"),
        ({"sft_weight": 0.5}, "preference.sft_weight is 0.5, and of dpo its mean is over the tokens of one process"),
    ],
)
def test_it_says_by_name_what_several_processes_cannot_share_out(values: dict[str, Any], reason: str) -> None:
    faults = section(**values).misfits(sft_section(), processes=2)

    assert len(faults) == bool(reason)
    assert all(f"devices.processes is 2, and {reason}" in fault for fault in faults)


def test_it_cannot_go_on_from_what_is_no_lora_adapter() -> None:
    sft = sft_section().model_validate({"method": "full", "learning_rate": 1e-5})

    assert "preference tuning goes on from a LoRA adapter, and sft.method full makes none" in section().misfits(sft)


def test_every_loss_and_every_special_key_belongs_to_a_method() -> None:
    assert {loss for method in PREFERENCES.values() for loss in method.losses} == set(get_args(LossName))
    assert readers_of("reference") == ["dpo", "kto"]
