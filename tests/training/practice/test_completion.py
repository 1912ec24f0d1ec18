"""A tiny model that was never taught to chat, from prompts and completions to rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_training import QUESTIONS, write_jsonl, write_tiny_model
from training.base_model import fetch_base
from training.chat import IGNORED, render
from training.config import DataSection, ModelSection
from training.errors import ModelError
from training.practice.completion import TEMPLATE_FILE
from training.practice.template import check_template
from training.prepare import TRAIN, prepare_dataset, read_prepared
from training.progress import silent
from training.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSection:
    folder = write_tiny_model(tmp_path_factory.mktemp("plain") / "plain", template=None)
    return ModelSection(base=str(folder), template="completion", max_length=128)


def test_loss_is_on_the_completion_and_its_end_alone(model: ModelSection, tmp_path: Path) -> None:
    base = fetch_base(model, tmp_path, silent)
    rows = [{"prompt": question, "completion": f"Answer {number}."} for number, question in enumerate(QUESTIONS)]
    data = DataSection.model_validate({"sft": [{"path": write_jsonl(tmp_path / "rows.jsonl", rows)}]})

    prepare_dataset(model, data, base, tmp_path / "out", silent)

    tokenizer = load_tokenizer(Path(base.folder))
    learned, wanted = set(), {f"{row['completion']}<|im_end|>" for row in rows}
    for row in read_prepared(tmp_path / "out" / TRAIN):
        learned.add(tokenizer.decode([label for label in row["labels"] if label != IGNORED]))
        asked = tokenizer.decode([token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED])
        assert asked.removesuffix("\n") in QUESTIONS
    assert learned
    assert learned < wanted


def test_it_is_asked_as_it_was_trained_and_stops(model: ModelSection, tmp_path: Path) -> None:
    base = fetch_base(model, tmp_path, silent)

    check_template(load_tokenizer(Path(base.folder)), Path(base.folder))


def test_the_base_model_is_kept_apart_from_the_one_without_a_template_and_found_again(model: ModelSection, tmp_path: Path) -> None:
    first, again = fetch_base(model, tmp_path, silent), fetch_base(model, tmp_path, silent)
    bare = fetch_base(model.model_copy(update={"template": "own"}), tmp_path, silent)

    assert first.created_at == again.created_at
    assert first.digest == again.digest != bare.digest
    assert not (Path(model.base) / TEMPLATE_FILE).exists()


def test_without_it_the_error_names_the_key(model: ModelSection, tmp_path: Path) -> None:
    bare = fetch_base(model.model_copy(update={"template": "own"}), tmp_path, silent)
    turns: list[Any] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    with pytest.raises(ModelError, match="has no chat template") as caught:
        render(load_tokenizer(Path(bare.folder)), turns)
    assert "`model.template: completion`" in caught.value.do


def test_a_model_with_a_template_of_its_own_keeps_it(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "chats")

    with pytest.raises(ModelError, match="has a chat template of its own"):
        fetch_base(ModelSection(base=str(folder), template="completion"), tmp_path / "home", silent)


def test_a_tokenizer_that_begins_texts_with_a_token_does_so_under_the_template_too(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "begins", template=None)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    path.write_text(json.dumps(settings))

    base = fetch_base(ModelSection(base=str(folder), template="completion"), tmp_path / "home", silent)

    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert render(load_tokenizer(Path(base.folder)), conversation).input_ids[0] == 1
