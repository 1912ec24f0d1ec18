"""Measures ways to merge against the model that was trained, and says which one to keep and why.

Merging into the original bf16 weights serves another model than the one that was trained on NF4-rounded weights; another is not
always worse. So nothing is assumed: both are measured on the validation rows and on the recipe's own validation prompts, which are
neither trained on nor in the gate's suite. The choice is a pure function of the figures. Next: `merge.py`, which makes the candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from training.chat import IGNORED, prompt_ids
from training.formats import Message
from training.records import MergeCertificate, MergeMeasurement, MergeVariant

Judge = Callable[[str, str], bool]
"""(prompt id, answer) -> whether the answer breaks no critical rule."""

_ROWS_PER_PASS = 8
_PROMPTS_PER_PASS = 32
# Log-probabilities of the trained model are kept for this many answer tokens: 0.4 GB of fp32 at 50,000 words.
_MAX_TOKENS = 2048
# Rule passes that differ by this much or less are noise, and perplexity decides.
_TIE = 1


@dataclass(frozen=True)
class ValidationPrompt:
    """One conversation that ends with the user."""

    id: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class Trial:
    """What every model is measured on: prepared rows, prompts, and the judge of answers."""

    tokenizer: Any
    rows: Sequence[dict[str, list[int]]]
    prompts: Sequence[ValidationPrompt]
    judge: Judge
    max_new_tokens: int


def log_probabilities(model: Any, trial: Trial) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 log-probabilities `(tokens, vocabulary)` and ids `(tokens,)` of the rows' answer tokens, at most 2048 of them."""
    scores, targets = [], []
    for batch in _batches(trial.rows, trial.tokenizer.pad_token_id):
        with torch.no_grad():
            hidden = model.base_model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
            ).last_hidden_state
            labels = batch["labels"][:, 1:]
            logits = model.get_output_embeddings()(hidden[:, :-1][labels != IGNORED])
        scores.append(logits.float().log_softmax(-1).cpu())
        targets.append(labels[labels != IGNORED].cpu())
        if sum(map(len, targets)) >= _MAX_TOKENS:
            break
    return torch.cat(scores)[:_MAX_TOKENS], torch.cat(targets)[:_MAX_TOKENS]


def measure_trained(model: Any, trial: Trial) -> tuple[MergeMeasurement, torch.Tensor]:
    """The adapter as it was trained: its figures, and its log-probabilities `(tokens, vocabulary)` for the others to be compared with."""
    scores, targets = log_probabilities(model, trial)
    return _measurement("trained", model, scores, scores, targets, trial), scores


def measure(variant: MergeVariant, model: Any, trained: torch.Tensor, trial: Trial) -> MergeMeasurement:
    """A merged model's figures against the log-probabilities `(tokens, vocabulary)` of the adapter as it was trained."""
    scores, targets = log_probabilities(model, trial)
    return _measurement(variant, model, trained, scores, targets, trial)


def _measurement(
    variant: MergeVariant | Literal["trained"], model: Any, trained: torch.Tensor, scores: torch.Tensor, targets: torch.Tensor, trial: Trial
) -> MergeMeasurement:
    kl = (trained.exp() * (trained - scores)).sum(-1)
    answers = generate(model, trial)
    return MergeMeasurement(
        variant=variant,
        kl_nats=max(0.0, float(kl.mean())),
        flip_rate=float((trained.argmax(-1) != scores.argmax(-1)).float().mean()),
        perplexity=float(torch.exp(-scores[torch.arange(len(targets)), targets].mean())),
        rule_passes=sum(trial.judge(prompt.id, answer) for prompt, answer in zip(trial.prompts, answers, strict=True)),
        rule_prompts=len(trial.prompts),
    )


def generate(model: Any, trial: Trial) -> list[str]:
    """Greedy answers to the trial's prompts, in their order. Prompts of like length share a batch, padded on the left."""
    ids = [prompt_ids(trial.tokenizer, prompt.messages) for prompt in trial.prompts]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    answers = [""] * len(ids)
    for start in range(0, len(order), _PROMPTS_PER_PASS):
        places = order[start : start + _PROMPTS_PER_PASS]
        width = max(len(ids[place]) for place in places)
        pad = trial.tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (width - len(ids[place])) + ids[place] for place in places], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids[place])) + [1] * len(ids[place]) for place in places], device=model.device)
        with torch.no_grad():
            output = model.generate(
                input_ids=input_ids, attention_mask=mask, max_new_tokens=trial.max_new_tokens, do_sample=False, pad_token_id=pad
            )
        for place, row in zip(places, output, strict=True):
            answers[place] = trial.tokenizer.decode(row[width:], skip_special_tokens=True)
    return answers


def certify(trained: MergeMeasurement, measurements: Sequence[MergeMeasurement]) -> MergeCertificate:
    """Keep the merge that keeps the rules; where two keep them alike (±1 prompt), the one with the lower perplexity."""
    most = max(each.rule_passes for each in measurements)
    safe = [each for each in measurements if each.rule_passes >= most - _TIE]
    chosen = min(safe, key=lambda each: (each.perplexity, each.variant))
    return MergeCertificate(
        trained=trained,
        measurements=tuple(measurements),
        chosen=cast(MergeVariant, chosen.variant),
        reason=_reason(chosen, measurements, len(safe)),
    )


def _reason(chosen: MergeMeasurement, measurements: Sequence[MergeMeasurement], alike: int) -> str:
    others = [each for each in measurements if each is not chosen]
    passes = f"{chosen.rule_passes}/{chosen.rule_prompts} validation prompts keep every critical rule"
    if not others:
        return f"{chosen.variant} is the only merge there is: {passes}, perplexity {chosen.perplexity:.2f}"
    other = others[0]
    if alike > 1:
        return (
            f"{chosen.variant}: {passes} ({other.variant}: {other.rule_passes}), and its perplexity is lower: "
            f"{chosen.perplexity:.2f} against {other.perplexity:.2f}"
        )
    return f"{chosen.variant}: {passes}, {other.variant} only {other.rule_passes} (perplexity {chosen.perplexity:.2f} against {other.perplexity:.2f})"


def _batches(rows: Sequence[dict[str, list[int]]], pad: int) -> Iterator[dict[str, torch.Tensor]]:
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    for start in range(0, len(by_length), _ROWS_PER_PASS):
        batch = by_length[start : start + _ROWS_PER_PASS]
        width = max(len(row["input_ids"]) for row in batch)
        yield {
            "input_ids": torch.tensor([row["input_ids"] + [pad] * (width - len(row["input_ids"])) for row in batch]),
            "labels": torch.tensor([row["labels"] + [IGNORED] * (width - len(row["labels"])) for row in batch]),
            "attention_mask": torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch]),
        }
