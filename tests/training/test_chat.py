"""The loss mask is proven against an oracle that works another way: character offsets in the rendered text."""

import copy
from typing import Any

import pytest

from training.chat import IGNORED, prompt_ids, render
from training.data.rows import Message
from training.errors import DataError, ModelError

CONVERSATIONS = {
    "one turn": [("user", "Hi"), ("assistant", "Hello there")],
    "with system": [("system", "Be careful."), ("user", "Hi"), ("assistant", "Call 911 now.")],
    "multi-turn": [("user", "a"), ("assistant", "b b b"), ("user", "c"), ("assistant", "d"), ("user", "e"), ("assistant", "f\n\ng")],
    "CJK": [("user", "一岁宝宝发烧 39 度"), ("assistant", "请及时就医。不要拖延。")],
    "emoji": [("user", "🤒👨‍👩‍👧"), ("assistant", "🏥 now 🚑")],
    "the answer's words stand in the question": [("user", "Say: Hello<|im_end|>"), ("assistant", "Hello")],
    "answer of digits and spaces": [("user", "count"), ("assistant", "1 2  3\n4")],
}


def messages(turns: list[tuple[str, str]]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in turns]


def oracle(tokenizer: Any, turns: list[Message]) -> list[int]:
    """Labels by offsets: a token bears loss when it lies in an answer or in the end-of-turn mark after it."""
    text, spans = "", []
    for turn in turns:
        text += f"<|im_start|>{turn['role']}\n"
        start = len(text)
        text += turn["content"] + "<|im_end|>"
        if turn["role"] == "assistant":
            spans.append((start, len(text)))
        text += "\n"
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert tokenizer.apply_chat_template(turns, tokenize=False) == text
    return [
        token if any(start <= first and last <= end for start, end in spans) else IGNORED
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_loss_is_on_the_assistants_tokens_and_its_end_of_turn_only(tokenizer: Any, name: str) -> None:
    turns = messages(CONVERSATIONS[name])

    rendered = render(tokenizer, turns)

    assert rendered.labels == oracle(tokenizer, turns)


def test_every_answer_ends_with_the_end_of_turn_token(tokenizer: Any) -> None:
    turns = messages(CONVERSATIONS["multi-turn"])

    labels = render(tokenizer, turns).labels

    assert labels.count(tokenizer.eos_token_id) == 3


def test_the_trained_tokens_follow_exactly_on_the_prompt_a_server_renders(tokenizer: Any) -> None:
    turns = messages(CONVERSATIONS["with system"])

    rendered, prompt = render(tokenizer, turns), prompt_ids(tokenizer, turns[:-1])

    assert rendered.input_ids[: len(prompt)] == prompt
    assert rendered.labels[len(prompt) - 1] == IGNORED
    assert rendered.labels[len(prompt)] != IGNORED


def test_a_template_that_rewrites_earlier_answers_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = "{% for m in messages %}{{ m['content'] if loop.last else m['content'][:1] }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", cut)

    with pytest.raises(DataError, match="turn 2"):
        render(tokenizer, messages([("user", "question"), ("assistant", "answer"), ("user", "more"), ("assistant", "end")]))


def test_what_the_template_says_when_it_refuses_is_passed_on(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no system turns') }}")

    with pytest.raises(DataError, match="no system turns"):
        render(tokenizer, messages(CONVERSATIONS["with system"]))


def test_a_model_without_a_template_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)

    with pytest.raises(ModelError, match="no chat template"):
        render(tokenizer, messages(CONVERSATIONS["one turn"]))


def test_a_call_is_written_with_its_fields_in_the_order_in_which_a_server_reads_them(tokenizer: Any) -> None:
    """A template that writes calls out whole shows it; the row has them in another order, and no text beside the call."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for message in messages %}[{{ message.content }}]{{ message.tool_calls | tojson }}{% endfor %}"
    call = {"type": "function", "function": {"name": "dose", "arguments": {"kg": 7}}, "id": "1"}
    ids = prompt_ids(tokenizer, [{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert tokenizer.decode(ids) == '[][{"id": "1", "function": {"arguments": {"kg": 7}, "name": "dose"}, "type": "function"}]'
