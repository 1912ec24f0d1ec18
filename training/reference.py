"""What a merged model does when transformers runs it: log-probabilities, greedy tokens, stop tokens and sampling defaults.

The server that gets this model must do the same. Everything is computed on the CPU, also where there is a GPU: on that one the
engine is starting at this moment, and counts on the memory it found free. Knows nothing of servers or suites.
Next: `flows/rendering.py`, which writes it down; `evaluation/parity.py`, which compares.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from training.attention import register
from training.errors import ModelError

# What an OpenAI-compatible server applies where neither the request nor the model's files say anything.
NEUTRAL: Mapping[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_MOST_SPECIAL = 64
_ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Continuation:
    """The greedy continuation of a prompt, and the natural-log probabilities of every token of both but the first.

    `exact` is computed in float32, `rounded` and `base` in bfloat16; `base` with the weights before the adapter.
    """

    prompt: tuple[int, ...]
    greedy: tuple[int, ...]
    exact: tuple[float, ...]
    rounded: tuple[float, ...]
    base: tuple[float, ...]


def continuations(folder: Path, base: Path, prompts: Sequence[Sequence[int]], new_tokens: int, pad_token_id: int) -> list[Continuation]:
    """Continue each prompt greedily by `new_tokens` tokens, fewer where the answer ends, and measure all of it three times."""
    # Half of the cores: the engine starts on the others, and threads that wait for one another on busy cores are slower than few.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    model = load_plain(folder)
    greedy = [row for batch in _cut(prompts) for row in _continue(model, batch, new_tokens, pad_token_id)]
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, greedy, strict=True)]
    rounded = _logprobs(model, rows, pad_token_id)
    with in_float32(model):
        exact = _logprobs(model, rows, pad_token_id)
    del model
    before = _logprobs(load_plain(base), rows, pad_token_id)
    return [
        Continuation(tuple(prompt), tuple(answer), *figures)
        for prompt, answer, *figures in zip(prompts, greedy, exact, rounded, before, strict=True)
    ]


def load_plain(folder: Path) -> Any:
    """The weights in `folder` in bfloat16, on the CPU, ready to be asked.

    Raises:
        ModelError: the folder cannot be loaded.
    """
    options: dict[str, Any] = {"dtype": torch.bfloat16, "local_files_only": True, "use_safetensors": True}
    try:
        return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=register(), **options).eval()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the model in {folder} cannot be loaded: {error}", do="delete that folder; the next run makes it again"
        ) from error


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Compute in float32 for a while, one layer's weights widened at a time: two whole copies of a large model may not fit.

    Widening a bfloat16 number and narrowing it again gives the same number.
    """
    hooks = []
    for layer in model.modules():
        if next(layer.parameters(recurse=False), None) is not None:
            hooks.append(layer.register_forward_pre_hook(lambda layer, _: _turn(layer, torch.float32)))
            hooks.append(layer.register_forward_hook(lambda layer, _, __: _turn(layer, torch.bfloat16)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _turn(layer: Any, dtype: torch.dtype) -> None:
    # Its own parameters alone: a buffer, such as the frequencies of positions, is float32 already and must stay so.
    for parameter in layer.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)


def stop_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Tokens at which an answer ends: the tokenizer's end token, and those of the generation defaults."""
    named = _generation_config(folder).eos_token_id
    ids = {named} if isinstance(named, int) else set(named or ())
    return tuple(sorted(ids | ({tokenizer.eos_token_id} - {None})))


def special_ids(tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's special tokens, the first 64 of them where it has hundreds in reserve."""
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return tuple(sorted({*marked, *tokenizer.all_special_ids})[:_MOST_SPECIAL])


def sampling_defaults(folder: Path) -> dict[str, float]:
    """Sampling settings that apply where a request names none: those of generation_config.json, else the neutral ones."""
    said = _generation_config(folder).to_diff_dict()
    return {name: neutral if said.get(name) is None else float(said[name]) for name, neutral in NEUTRAL.items()}


def _generation_config(folder: Path) -> Any:
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, local_files_only=True))


def _continue(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int, pad_token_id: int) -> list[list[int]]:
    width = max(len(ids) for ids in prompts)
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor([[pad_token_id] * (width - len(ids)) + list(ids) for ids in prompts]),
            attention_mask=torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]),
            generation_config=GenerationConfig(
                max_new_tokens=new_tokens,
                do_sample=False,
                repetition_penalty=1.0,
                pad_token_id=pad_token_id,
                eos_token_id=model.generation_config.eos_token_id,
            ),
        )
    ends = model.generation_config.eos_token_id
    return [_until(row, {ends} if isinstance(ends, int) else set(ends or ())) for row in output[:, width:].tolist()]


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to and with the first that ends the answer; what follows it is padding."""
    at = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: at + 1]


def _logprobs(model: Any, rows: Sequence[Sequence[int]], pad_token_id: int) -> list[tuple[float, ...]]:
    """Natural-log probability of each row's tokens but the first."""
    return [logprobs for batch in _cut(rows) for logprobs in _logprobs_of(model, batch, pad_token_id)]


def _logprobs_of(model: Any, rows: Sequence[Sequence[int]], pad_token_id: int) -> Iterator[tuple[float, ...]]:
    width = max(len(ids) for ids in rows)
    ids = torch.tensor([list(row) + [pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for row, states in zip(rows, hidden, strict=True):
            logits = model.get_output_embeddings()(states[: len(row) - 1]).float()
            yield tuple(logits.log_softmax(-1).gather(1, torch.tensor(row[1:])[:, None])[:, 0].tolist())


def _cut(rows: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]
