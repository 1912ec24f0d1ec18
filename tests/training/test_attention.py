"""The short-row attention against torch's own, on the tiny model (fp32, so that only the algorithm can differ)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.fakes_training import TinyLine
from training.attention import LONGEST, register


def model_with(tiny: TinyLine, attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny.base.folder, dtype=torch.float32, attn_implementation=attention)


def batch(side: str) -> dict[str, torch.Tensor]:
    """Three rows of 4, 9 and 13 tokens, padded on one side."""
    torch.manual_seed(1)
    ids, mask = torch.randint(3, 300, (3, 13)), torch.ones(3, 13, dtype=torch.long)
    for row, length in enumerate((4, 9, 13)):
        padding = slice(length, None) if side == "right" else slice(0, 13 - length)
        mask[row, padding] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_logits_and_gradients_are_those_of_torchs_attention(tiny: TinyLine, side: str) -> None:
    inputs = batch(side)
    real = inputs["attention_mask"].bool()
    outcomes = []
    for attention in ("sdpa", register()):
        model = model_with(tiny, attention)
        logits = model(**inputs).logits[real]
        logits.square().mean().backward()
        outcomes.append((logits.detach(), model.model.layers[0].self_attn.q_proj.weight.grad))

    (logits, gradient), (own_logits, own_gradient) = outcomes
    torch.testing.assert_close(own_logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own_gradient, gradient, rtol=1e-3, atol=1e-6)


def test_greedy_answers_of_padded_rows_are_the_same_with_a_cache(tiny: TinyLine) -> None:
    inputs = batch("left")

    answers = [model_with(tiny, attention).generate(**inputs, max_new_tokens=8, do_sample=False) for attention in ("sdpa", register())]

    assert torch.equal(answers[0], answers[1])


def test_rows_beyond_the_limit_go_to_torch(tiny: TinyLine) -> None:
    ids = torch.randint(3, 300, (1, LONGEST + 8))
    folder = Path(tiny.base.folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=register(), max_position_embeddings=1024)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa", max_position_embeddings=1024)

    torch.testing.assert_close(model(ids).logits, plain(ids).logits)
