"""Rows behind each other in one sequence against the same rows alone: fp32, so that only what rows see of each other can differ."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from tests.fakes_training import TinyLine
from training.attention import LONGEST, NAME, register
from training.chat import IGNORED
from training.flat_rows import collator, keeps_rows_apart, seen, tokens_in

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def rows_of(*lengths: int) -> list[dict[str, list[int]]]:
    """Rows whose first third is a prompt."""
    torch.manual_seed(1)
    ids = [torch.randint(3, 300, (length,)).tolist() for length in lengths]
    return [{"input_ids": row, "labels": [IGNORED] * (len(row) // 3) + row[len(row) // 3 :]} for row in ids]


def losses(model: Any, batch: dict[str, Any], rows: list[dict[str, list[int]]]) -> torch.Tensor:
    """Cross entropy, in nats, of each row's answer."""
    logits = model(**seen(batch), use_cache=False).logits
    states = logits[0].split([len(row["input_ids"]) for row in rows]) if "cu_seq_lens_q" in batch else logits
    each = (
        torch.nn.functional.cross_entropy(given[: len(row["labels"]) - 1], torch.tensor(row["labels"][1:]), ignore_index=IGNORED)
        for given, row in zip(states, rows, strict=True)
    )
    return torch.stack(list(each))


@pytest.mark.parametrize("lengths", [(5, 9, 13, 30), (LONGEST + 8, 7, 40)], ids=["short", "one beyond the limit"])
@pytest.mark.parametrize("attention", [NAME, "sdpa", "eager"])
def test_flat_rows_have_the_loss_and_the_gradient_of_padded_ones(attention: str, lengths: tuple[int, ...]) -> None:
    register()
    torch.manual_seed(2)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, max_position_embeddings=1024, attn_implementation=attention))
    rows, outcomes = rows_of(*lengths), []
    for flat in (False, True):
        model.zero_grad()
        each = losses(model, collator(0, flat=flat)(rows), rows)
        each.sum().backward()
        outcomes.append((each.detach(), model.model.layers[0].self_attn.q_proj.weight.grad))

    (padded, gradient), (flat_losses, flat_gradient) = outcomes
    torch.testing.assert_close(flat_losses, padded, rtol=0, atol=1e-5)
    torch.testing.assert_close(flat_gradient, gradient, rtol=1e-3, atol=1e-6)


def test_a_window_over_the_last_tokens_is_kept_within_each_row() -> None:
    register()
    torch.manual_seed(2)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6, attn_implementation=NAME))
    rows = rows_of(20, 11, 25)

    padded, flat = (losses(model, collator(0, flat=flat)(rows), rows) for flat in (False, True))

    torch.testing.assert_close(flat, padded, rtol=0, atol=1e-5)


def test_a_flat_batch_holds_no_padding_and_every_token_that_bears_loss() -> None:
    rows = rows_of(5, 9, 13)
    rows[1]["labels"][0] = rows[1]["input_ids"][0]  # no token stands before it in its row
    padded, flat = (collator(0, flat=flat)(rows) for flat in (False, True))

    assert (padded["input_ids"].numel(), flat["input_ids"].numel()) == (39, 27)
    assert tokens_in(padded) == tokens_in(flat) == 27
    assert (flat["labels"][:, 1:] != IGNORED).sum() == (padded["labels"][:, 1:] != IGNORED).sum()


class Leaking(LlamaForCausalLM):
    """Every token sees the one before it, whosever row that is in."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model.norm.register_forward_hook(lambda module, inputs, states: states + states.roll(1, dims=1))


def test_a_model_that_lets_rows_see_each_other_is_found_out() -> None:
    register()
    config = LlamaConfig(**SIZES, attn_implementation=NAME)

    assert keeps_rows_apart(LlamaForCausalLM(config))
    assert not keeps_rows_apart(Leaking(config))


def test_another_attention_than_ours_is_not_trusted_with_flat_rows(tiny: TinyLine) -> None:
    ours, torchs = (AutoModelForCausalLM.from_pretrained(Path(tiny.base.folder), attn_implementation=name) for name in (register(), "sdpa"))

    assert (keeps_rows_apart(ours), keeps_rows_apart(torchs)) == (True, False)
