"""Measures a model on validation rows and prompts: how far it is from the trained one, and how it answers.

Takes models, rows and a judge as arguments; knows nothing of folders, merging or rules. Next: `certificate.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.chat import IGNORED, prompt_ids
from training.data.rows import Message
from training.flat_rows import seen

Judge = Callable[[str, str], bool]  # (prompt id, answer) -> no critical rule is broken

MAX_TOKENS_MEASURED = 4096  # answer tokens; their logits are held in fp32: 0.8 GB for a vocabulary of 49 000
_TOKENS_PER_BATCH = 2048  # padded, in one forward pass over whole rows
_CACHED_TOKENS = 16_384  # padded, while answering: a step costs a pass over the weights, however many rows share it
_ROWS_PER_CHUNK = 256


@dataclass(frozen=True)
class ValidationPrompt:
    """A conversation that ends with the user's turn, neither trained on nor in the gate's suite."""

    id: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class AnswerTokens:
    """`logits (answer tokens, vocabulary)` in fp32 on the CPU, and the ids that were to be said `(answer tokens,)`."""

    logits: torch.Tensor
    targets: torch.Tensor

    def perplexity(self) -> float:
        """exp of the mean cross entropy, in nats, over the answers' tokens."""
        return float(torch.nn.functional.cross_entropy(self.logits, self.targets).exp())


def answer_states(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states `(answer tokens, width)` and ids `(answer tokens,)` of a batch's labelled tokens, padded or flat, row by row."""
    hidden = model.base_model(**seen(inputs), use_cache=False).last_hidden_state
    targets = inputs["labels"][:, 1:]
    chosen = targets != IGNORED
    return hidden[:, :-1][chosen], targets[chosen]


def prompted_answer_states(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `answer_states`, for a model with trained vectors before the prompt, and its head `(vocabulary, width)` in between."""
    output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True, logits_to_keep=1)
    targets = inputs["labels"][:, 1:]
    chosen = targets != IGNORED
    hidden = output.hidden_states[-1][:, -inputs["labels"].shape[1] :]  # the vectors stand before the row
    return hidden[:, :-1][chosen], model.get_base_model().get_output_embeddings().weight, targets[chosen]


def spread_of_ranks(model: Any) -> torch.Tensor:
    """AdaLoRA's penalty, which keeps the rows of A and the columns of B apart: mean over all of ||MMᵀ - I||, weighted as configured."""
    weight = model.peft_config["default"].orth_reg_weight
    distances = []
    for name, matrix in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            square = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
            distances.append(torch.linalg.matrix_norm(square - torch.eye(len(square), device=square.device)))
    mean: torch.Tensor = torch.stack(distances).mean() * weight
    return mean


def answer_logits(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `(answer tokens, vocabulary)` and ids `(answer tokens,)` of the labelled tokens of a padded batch, row by row."""
    hidden, targets = answer_states(model, inputs)
    return model.get_output_embeddings()(hidden), targets


def read_answers(model: Any, rows: Sequence[dict[str, list[int]]], pad_token_id: int) -> AnswerTokens:
    """Run the model over the rows and keep the logits of the labelled tokens, the first 4096 of them."""
    logits, targets, left = [], [], MAX_TOKENS_MEASURED
    with torch.inference_mode():
        for batch in _batches(rows, pad_token_id):
            on_device = {key: value.to(model.device) for key, value in batch.items()}
            batch_logits, batch_targets = answer_logits(_plain(model), on_device)
            logits.append(batch_logits[:left].float().cpu())
            targets.append(batch_targets[:left].cpu())
            left -= len(targets[-1])
            if left <= 0:
                break
    return AnswerTokens(torch.cat(logits), torch.cat(targets))


def divergence(trained: AnswerTokens, merged: AnswerTokens) -> tuple[float, float]:
    """Mean KL(trained || merged) per answer token in nats, and the share of tokens whose greedy choice differs."""
    kl, flips = 0.0, 0
    for start in range(0, len(trained.logits), _ROWS_PER_CHUNK):
        left, right = (each.logits[start : start + _ROWS_PER_CHUNK].log_softmax(-1) for each in (trained, merged))
        kl += float(torch.nn.functional.kl_div(right, left, reduction="sum", log_target=True))
        flips += int((left.argmax(-1) != right.argmax(-1)).sum())
    return max(kl, 0.0) / len(trained.logits), flips / len(trained.logits)


def count_passes(model: Any, tokenizer: Any, prompts: Sequence[ValidationPrompt], judge: Judge, max_new_tokens: int) -> int:
    """How many prompts the model answers, greedily, without breaking a critical rule."""
    answers = answer_all(model, tokenizer, prompts, max_new_tokens)
    return sum(judge(prompt.id, answers[prompt.id]) for prompt in prompts)


def answer_all(model: Any, tokenizer: Any, prompts: Sequence[ValidationPrompt], max_new_tokens: int) -> dict[str, str]:
    """Greedy answers by prompt id; prompts of like length are answered together, padded on the left."""
    rendered = sorted(((prompt.id, prompt_ids(tokenizer, prompt.messages)) for prompt in prompts), key=lambda item: len(item[1]))
    answers: dict[str, str] = {}
    for batch in _by_tokens(rendered, max_new_tokens, _CACHED_TOKENS):
        width = max(len(ids) for _, ids in batch)
        padded = [[tokenizer.pad_token_id] * (width - len(ids)) + ids for _, ids in batch]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for _, ids in batch]
        with torch.inference_mode():
            output = model.generate(
                input_ids=torch.tensor(padded, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        answers |= {prompt_id: text.strip() for (prompt_id, _), text in zip(batch, texts, strict=True)}
    return answers


def _plain(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _batches(rows: Sequence[dict[str, list[int]]], pad_token_id: int) -> Iterator[dict[str, torch.Tensor]]:
    """Padded batches `(rows, seq)` in order of length, so that every model sees the same tokens in the same order."""
    ordered = sorted(
        ((str(number), row["input_ids"], row["labels"]) for number, row in enumerate(rows)), key=lambda row: (len(row[1]), row[0])
    )
    for batch in _by_tokens(ordered, 0, _TOKENS_PER_BATCH):
        width = max(len(row[1]) for row in batch)
        yield {
            "input_ids": torch.tensor([ids + [pad_token_id] * (width - len(ids)) for _, ids, _ in batch]),
            "labels": torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, _, labels in batch]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for _, ids, _ in batch]),
        }


def _by_tokens(ordered: Sequence[Any], extra: int, most: int) -> Iterator[list[Any]]:
    """Cut rows sorted by length into batches of at most `most` tokens, padding and `extra` tokens per row included."""
    batch: list[Any] = []
    for row in ordered:
        if batch and (len(batch) + 1) * (len(row[1]) + extra) > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
