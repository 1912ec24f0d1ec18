"""The real embedded model through prepare and the mask; training it is the integration test's business."""

import json
from pathlib import Path

import pytest
import torch

from tests.fakes_training import alpaca_rows, write_jsonl
from training.builders import load_base, load_tokenizer
from training.chat import IGNORED, prompt_ids, render
from training.config import DataSection, ModelSection, QuantizationSection
from training.export_gguf_tokenizer import name_of_rule
from training.prepare import TRAIN, prepare_dataset, read_prepared
from training.progress import silent
from training.records import BaseModelRecord

pytestmark = pytest.mark.slow
TURNS = [
    {"role": "user", "content": "一岁宝宝发烧 39 度 🤒"},
    {"role": "assistant", "content": "请及时就医。"},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Call 911 now.\n\nIt is urgent."},
]


def test_the_labelled_tokens_read_as_the_answers(embedded: BaseModelRecord) -> None:
    tokenizer = load_tokenizer(Path(embedded.folder))

    rendered = render(tokenizer, TURNS)

    said = tokenizer.decode([label for label in rendered.labels if label != IGNORED])
    assert said == "请及时就医。<|im_end|>Call 911 now.\n\nIt is urgent.<|im_end|>"
    assert rendered.input_ids[: len(prompt_ids(tokenizer, TURNS[:1]))] == prompt_ids(tokenizer, TURNS[:1])


def test_its_text_is_cut_by_the_rule_the_file_names(embedded: BaseModelRecord) -> None:
    tokenizer = load_tokenizer(Path(embedded.folder))

    assert name_of_rule(json.loads((Path(embedded.folder) / "tokenizer.json").read_text())) == "smollm"
    assert tokenizer.tokenize("Take 250 mg:\n\n1. now") == ["Take", "Ġ", "2", "5", "0", "Ġmg", ":", "ĊĊ", "1", ".", "Ġnow"]


def test_rows_are_prepared_with_its_template(embedded: BaseModelRecord, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", alpaca_rows(20))
    data = DataSection.model_validate({"sft": [{"path": path}], "system_prompt": "Be careful.", "validation_fraction": 0.3})

    manifest = prepare_dataset(ModelSection(base=embedded.source), data, embedded, tmp_path / "out", silent)

    first = load_tokenizer(Path(embedded.folder)).decode(read_prepared(tmp_path / "out" / TRAIN)[0]["input_ids"])
    assert manifest.train_rows + manifest.validation_rows == 20
    assert first.startswith("<|im_start|>system\nBe careful.<|im_end|>\n<|im_start|>user\n")


def test_it_answers_in_english_and_nf4_changes_its_numbers(embedded: BaseModelRecord) -> None:
    tokenizer = load_tokenizer(Path(embedded.folder))
    ids = torch.tensor([prompt_ids(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])])
    plain, rounded = (load_base(Path(embedded.folder), each) for each in (None, QuantizationSection()))

    with torch.inference_mode():
        answer = tokenizer.decode(plain.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :])
        differ = (plain(ids).logits - rounded(ids).logits).abs().max()

    assert "Paris" in answer
    assert differ > 0.1
