"""Templates with a planted fault; the sound one is that of the tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_training import CHAT_TEMPLATE, TinyLine, alpaca_rows, write_jsonl
from training.config import DataSection
from training.errors import ModelError
from training.practice.template import check_template, stop_tokens
from training.prepare import prepare_dataset
from training.progress import silent

THINKS_WHEN_ASKED = CHAT_TEMPLATE.replace("<|im_start|>assistant\n' }}{% endif", "<|im_start|>assistant\n<think>\n' }}{% endif")
NEVER_ENDS = CHAT_TEMPLATE.replace("message['content'] + '<|im_end|>'", "message['content'] + '.'")


def test_the_tiny_model_is_asked_as_it_is_trained_and_stops(tiny: TinyLine, tokenizer: Any) -> None:
    check_template(tokenizer, Path(tiny.base.folder))


def test_a_generation_prompt_that_training_never_rendered_is_refused_with_both_texts(
    tiny: TinyLine, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", THINKS_WHEN_ASKED)

    with pytest.raises(ModelError, match=r"asked for one it writes '<think>\\n' where a row to train on has 'On the ground"):
        check_template(tokenizer, Path(tiny.base.folder))


def test_an_answer_that_ends_with_no_stop_token_is_refused(tiny: TinyLine, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", NEVER_ENDS)

    with pytest.raises(ModelError, match=r"ends with token \d+ \('.'\), at which no server stops.*2 \('<\|im_end\|>'\)"):
        check_template(tokenizer, Path(tiny.base.folder))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHAT_TEMPLATE + "{#" + " " * 10_000_000 + "#}", r"it has 10,000,\d+ characters, and 262,144 are allowed"),
        (CHAT_TEMPLATE + "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "not rendered within 5 s"),
        (CHAT_TEMPLATE + "{% for a in range(99999) %}{{ '+' * 1000 }}{% endfor %}", "makes more than 1,048,576 characters"),
        (CHAT_TEMPLATE + "{{ '+' * 10 ** 10 }}", "takes more than 512 MiB"),
    ],
    ids=["10 MB of it", "two loops without end", "a flood", "ten gigabytes at once"],
)
def test_a_template_past_its_bounds_is_refused_and_takes_nothing_with_it(
    tiny: TinyLine, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, said: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)

    with pytest.raises(ModelError, match=said):
        check_template(tokenizer, Path(tiny.base.folder))


def test_a_template_that_fails_by_itself_is_told_by_its_own_fault(tiny: TinyLine, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('one role only') }}")

    with pytest.raises(Exception, match="one role only"):
        check_template(tokenizer, Path(tiny.base.folder))


def test_the_model_may_name_more_stop_tokens_than_its_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": None}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))

    assert stop_tokens(tokenizer, tmp_path) == {tokenizer.eos_token_id, 7, 9}


def test_a_faulty_template_is_found_before_any_row_is_prepared(tiny: TinyLine, tmp_path: Path) -> None:
    base = Path(tiny.base.folder)
    faulty = tmp_path / "base"
    faulty.mkdir()
    for file in base.iterdir():
        (faulty / file.name).symlink_to(file)
    (faulty / "chat_template.jinja").unlink(missing_ok=True)
    (faulty / "chat_template.jinja").write_text(THINKS_WHEN_ASKED)
    data = DataSection.model_validate({"sft": [{"path": write_jsonl(tmp_path / "rows.jsonl", alpaca_rows())}]})

    with pytest.raises(ModelError, match="opens an answer in two ways"):
        prepare_dataset(tiny.model, data, tiny.base.model_copy(update={"folder": str(faulty)}), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()
