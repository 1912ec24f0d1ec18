"""The trainer's side of parity: the numbers are transformers' own, whatever way they are computed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes_training import TinyLine
from training.chat import prompt_ids
from training.reference import NEUTRAL, Continuation, continuations, in_float32, load_plain, sampling_defaults, special_ids, stop_ids

QUESTIONS = ("What should I do?", "Hi", "See a doctor today. What should I do about problem number 7?")


@pytest.fixture(scope="module")
def folder(tiny: TinyLine) -> Path:
    return Path(tiny.base.folder)


@pytest.fixture(scope="module")
def made(folder: Path, tokenizer: Any) -> list[Continuation]:
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": text}]) for text in QUESTIONS]
    return continuations(folder, folder, prompts, 6, tokenizer.pad_token_id)


def directly(model: Any, ids: tuple[int, ...]) -> list[float]:
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    return [float(row[token]) for row, token in zip(logits, ids[1:], strict=True)]


def test_exact_numbers_are_those_of_the_whole_model_in_float32(folder: Path, made: list[Continuation]) -> None:
    """One layer widened at a time, rows padded to one length; alone and widened as a whole it is the same to 1e-5."""
    whole = load_plain(folder).float()
    for each in made:
        assert each.exact == pytest.approx(directly(whole, (*each.prompt, *each.greedy)), abs=1e-5)


def test_rounded_numbers_are_near_the_exact_ones_and_not_the_same(made: list[Continuation]) -> None:
    apart = [abs(one - other) for each in made for one, other in zip(each.exact, each.rounded, strict=True)]
    assert 0 < sum(apart) / len(apart) < 0.05


def test_the_base_in_its_own_place_gives_the_rounded_numbers(made: list[Continuation]) -> None:
    assert all(each.base == each.rounded for each in made)


def test_every_token_but_the_first_has_its_number(made: list[Continuation]) -> None:
    assert [len(each.exact) for each in made] == [len(each.prompt) + len(each.greedy) - 1 for each in made]
    assert all(0 < len(each.greedy) <= 6 for each in made)


def test_greedy_tokens_are_those_of_each_prompt_alone(folder: Path, made: list[Continuation]) -> None:
    model = load_plain(folder)
    for each in made:
        alone = model.generate(torch.tensor([each.prompt]), max_new_tokens=6, do_sample=False)[0, len(each.prompt) :]
        assert list(each.greedy) == alone.tolist()[: len(each.greedy)]


def test_computing_in_float32_leaves_every_weight_as_it_was(folder: Path) -> None:
    model, before = load_plain(folder), {name: each.clone() for name, each in load_plain(folder).state_dict().items()}
    with in_float32(model):
        model(torch.tensor([[1, 2, 3]]))
    after = model.state_dict()
    assert {each.dtype for each in after.values()} == {torch.bfloat16}
    assert all(torch.equal(after[name], each) for name, each in before.items())


def altered(folder: Path, copy: Path, **values: object) -> Path:
    shutil.copytree(folder, copy)
    path = copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return copy


def test_sampling_defaults_are_the_neutral_ones_where_the_file_says_none(folder: Path) -> None:
    assert sampling_defaults(folder) == dict(NEUTRAL)


def test_sampling_defaults_are_those_of_the_file(folder: Path, tmp_path: Path) -> None:
    copy = altered(folder, tmp_path / "copy", temperature=0.3, top_k=20)
    assert sampling_defaults(copy) == {**NEUTRAL, "temperature": 0.3, "top_k": 20}


def test_answers_end_at_the_tokenizers_end_token_and_at_those_of_the_file(folder: Path, tmp_path: Path, tokenizer: Any) -> None:
    """The tiny model's `<|im_end|>` is token 2."""
    assert stop_ids(folder, tokenizer) == (2,)
    assert stop_ids(altered(folder, tmp_path / "copy", eos_token_id=[0, 2]), tokenizer) == (0, 2)
    (tmp_path / "copy" / "generation_config.json").unlink()
    assert stop_ids(tmp_path / "copy", tokenizer) == (2,)


def test_special_tokens_are_the_ones_the_tokenizer_marks(tokenizer: Any) -> None:
    assert special_ids(tokenizer) == (0, 1, 2)
