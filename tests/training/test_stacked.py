"""Stacked projections and the chunked loss against peft's and torch's own, in fp32 so that only the algorithm can differ."""

from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.fakes_training import TinyLine
from training.answer_loss import answer_loss
from training.stacked import stack_projections

EVERY_PROJECTION = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LAYERS = 2  # of the tiny model


def adapted(tiny: TinyLine, **changes: Any) -> Any:
    """A model whose adapters are not zero, the same for every call."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(tiny.base.folder, dtype=torch.float32).requires_grad_(False)
    settings = {"r": 4, "lora_alpha": 12, "target_modules": EVERY_PROJECTION, "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    return peft.get_peft_model(model, peft.LoraConfig(**(settings | changes)))


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_logits_and_every_gradient_are_those_of_peft(tiny: TinyLine) -> None:
    ids = torch.randint(3, 300, (3, 17))
    outcomes = []
    for stacked in (False, True):
        model = adapted(tiny)
        if stacked:
            assert stack_projections(model) == len(EVERY_PROJECTION) * LAYERS
        logits = model(ids).logits
        logits.square().mean().backward()
        outcomes.append((logits.detach(), gradients(model)))

    (logits, expected), (own_logits, own) = outcomes
    torch.testing.assert_close(own_logits, logits, rtol=1e-4, atol=1e-5)
    assert own.keys() == expected.keys()
    assert len(own) == 2 * len(EVERY_PROJECTION) * LAYERS
    for name, gradient in expected.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_the_frozen_weights_are_held_once(tiny: TinyLine) -> None:
    model = adapted(tiny)
    stack_projections(model)
    attention = model.base_model.model.model.layers[0].self_attn

    storages = {getattr(attention, name).base_layer.weight.untyped_storage().data_ptr() for name in ("q_proj", "k_proj", "v_proj")}

    assert len(storages) == 1


@pytest.mark.parametrize("changes", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_what_is_not_plain_lora_keeps_pefts_own_forward(tiny: TinyLine, changes: dict[str, Any]) -> None:
    assert stack_projections(adapted(tiny, **changes)) == 0


def test_a_model_without_its_adapter_is_the_base_model_again(tiny: TinyLine) -> None:
    ids = torch.randint(3, 300, (2, 9))
    plain, model = adapted(tiny), adapted(tiny)
    stack_projections(model)

    with plain.disable_adapter(), model.disable_adapter():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)


def test_a_second_adapter_is_used_when_it_is_the_active_one(tiny: TinyLine) -> None:
    ids = torch.randint(3, 300, (2, 9))
    outcomes = []
    for stacked in (False, True):
        model = adapted(tiny)
        if stacked:
            stack_projections(model)
        torch.manual_seed(9)
        model.add_adapter("ref", peft.LoraConfig(r=4, target_modules=EVERY_PROJECTION, init_lora_weights=False))
        model.set_adapter("ref")
        outcomes.append(model(ids).logits)

    torch.testing.assert_close(outcomes[1], outcomes[0])


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("tokens", [1, 64, 150])
def test_the_loss_and_its_gradients_are_those_of_torch(tokens: int, trained_head: bool) -> None:
    torch.manual_seed(5)
    values, targets = torch.randn(300, 16), torch.randint(0, 300, (tokens,))
    outcomes = []
    for loss in (answer_loss, lambda hidden, head, targets: torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="sum")):
        hidden = torch.randn(tokens, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        head = values.clone().requires_grad_(trained_head)
        total = loss(hidden, head, targets)
        (total / 7).backward()
        outcomes.append((total.detach(), hidden.grad, head.grad))

    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-4, atol=1e-5)
    assert (outcomes[0][2] is not None) == trained_head


def test_under_autocast_a_head_in_fp32_is_multiplied_in_bf16_and_gets_its_gradient_in_fp32() -> None:
    torch.manual_seed(5)
    hidden, targets = torch.randn(80, 16), torch.randint(0, 300, (80,))
    head = torch.randn(300, 16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = answer_loss(hidden, head, targets)
    rounded.backward()
    exact = torch.nn.functional.cross_entropy(hidden @ head.detach().T, targets, reduction="sum")

    assert rounded != exact
    assert rounded.item() == pytest.approx(exact.item(), rel=0.01)
    assert head.grad is not None
    assert head.grad.dtype == torch.float32
