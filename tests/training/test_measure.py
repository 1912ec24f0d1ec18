import math
from pathlib import Path

import pytest
import torch

from tests.fakes_training import QUESTIONS, TinyLine
from training.builders import load_base, load_tokenizer
from training.measure import AnswerTokens, ValidationPrompt, answer_all, count_passes, divergence, read_answers
from training.prepare import VALIDATION, read_prepared

PROMPTS = [
    ValidationPrompt(f"p{number}", ({"role": "user", "content": "Hi " * number + question},))
    for number, question in enumerate(QUESTIONS[:6])
]


def tokens(probabilities: list[list[float]]) -> AnswerTokens:
    return AnswerTokens(torch.tensor(probabilities).log(), torch.zeros(len(probabilities), dtype=torch.long))


def test_kl_and_flips_are_those_of_a_two_word_vocabulary() -> None:
    """KL((0.5, 0.5) || (0.25, 0.75)) = 0.5 ln 2 + 0.5 ln(2/3) = 0.1438; the second token is the same on both sides."""
    kl_nats, flips = divergence(tokens([[0.5001, 0.4999], [0.9, 0.1]]), tokens([[0.25, 0.75], [0.9, 0.1]]))

    assert kl_nats == pytest.approx(0.1438 / 2, abs=1e-3)
    assert flips == 0.5


def test_perplexity_is_the_inverse_of_the_mean_probability_in_logs() -> None:
    assert tokens([[0.5, 0.5], [0.125, 0.875]]).perplexity() == pytest.approx(math.exp((math.log(2) + math.log(8)) / 2))


def test_a_model_does_not_differ_from_itself(tiny: TinyLine) -> None:
    model, rows = load_base(Path(tiny.base.folder), None), read_prepared(tiny.dataset_dir / VALIDATION)
    pad = load_tokenizer(Path(tiny.base.folder)).pad_token_id

    first, second = read_answers(model, rows, pad), read_answers(model, rows, pad)

    assert divergence(first, second) == (0.0, 0.0)
    assert len(first.targets) == sum(label != -100 for row in rows for label in row["labels"][1:])


def test_answers_do_not_depend_on_who_shares_the_batch(tiny: TinyLine) -> None:
    model, tokenizer = load_base(Path(tiny.base.folder), None).float().eval(), load_tokenizer(Path(tiny.base.folder))

    together = answer_all(model, tokenizer, PROMPTS, 8)

    assert together == {prompt.id: answer_all(model, tokenizer, [prompt], 8)[prompt.id] for prompt in PROMPTS}


def test_each_answer_is_judged_once_by_its_own_prompt(tiny: TinyLine) -> None:
    model, tokenizer = load_base(Path(tiny.base.folder), None).eval(), load_tokenizer(Path(tiny.base.folder))
    asked: list[str] = []

    passes = count_passes(model, tokenizer, PROMPTS, lambda prompt_id, answer: asked.append(prompt_id) or prompt_id != "p3", 4)

    assert sorted(asked) == [prompt.id for prompt in PROMPTS]
    assert passes == len(PROMPTS) - 1
