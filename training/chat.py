"""Renders conversations with the model's own chat template and marks the tokens that bear loss.

Loss is on what the assistant says, the end-of-turn token included, and on nothing else. Where a turn begins and ends is
found by rendering the conversation up to it: the tokens of that prefix must be the first tokens of the whole, which is
also what the server will see, so a row for which this does not hold is refused and not trained on askew.
Knows nothing of files. Next: `prepare.py`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from training.data.rows import Message
from training.errors import DataError, ModelError

IGNORED = -100  # the label of a token without loss, as torch's cross entropy expects it


@dataclass(frozen=True)
class RenderedRow:
    """`input_ids` and `labels` have the same length; a label is the token's own id, or -100 where there is no loss."""

    input_ids: list[int]
    labels: list[int]


def render(tokenizer: Any, messages: Sequence[Message]) -> RenderedRow:
    """Tokenise a whole conversation.

    Raises:
        DataError: the template refuses these roles, or tokens merge across the start of an answer.
        ModelError: the tokenizer has no chat template.
    """
    whole = _template_text(tokenizer, messages, answer_next=False)
    answers = {
        turn: (
            _template_text(tokenizer, messages[:turn], answer_next=True),
            _template_text(tokenizer, messages[: turn + 1], answer_next=False) if turn + 1 < len(messages) else whole,
        )
        for turn, message in enumerate(messages)
        if message["role"] == "assistant"
    }
    ids = _ids_of(tokenizer, {whole, *(text for texts in answers.values() for text in texts)})
    labels = [IGNORED] * len(ids[whole])
    for turn, (before, through) in answers.items():
        start, end = _span(tokenizer, turn, ids[whole], ids[before], ids[through])
        labels[start:end] = ids[whole][start:end]
    return RenderedRow(ids[whole], labels)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids after which the assistant's answer begins, exactly as a server renders them."""
    return template_ids(tokenizer, messages, answer_next=True)


def template_ids(tokenizer: Any, messages: Sequence[Message], *, answer_next: bool) -> list[int]:
    """Token ids of the template's rendering of `messages`, with the opening of the next answer when `answer_next`."""
    text = _template_text(tokenizer, messages, answer_next=answer_next)
    return _ids_of(tokenizer, {text})[text]


def _template_text(tokenizer: Any, messages: Sequence[Message], *, answer_next: bool) -> str:
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template",
            why="trainer and server could not agree on how a conversation is written",
            do="set `model.template: completion`, use an instruction-tuned base model, or put a chat_template.jinja beside its tokenizer",
        )
    # What tools the row's conversation had; the template writes them where the model expects them.
    tools = next((message["tools"] for message in messages if message.get("tools")), None)
    turns = [_as_served(message) for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=answer_next))
    except TemplateError as error:
        raise DataError(f"the model's chat template refuses this conversation: {error}") from error


def _ids_of(tokenizer: Any, texts: Collection[str]) -> dict[str, list[int]]:
    """Token ids of each text; one call for all, because a call costs as much as a short text."""
    # The template writes the special tokens itself: adding them again would begin every row with two BOS tokens.
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return {text: list(ids) for text, ids in zip(texts, encoded, strict=True)}


def _as_served(message: Message) -> Message:
    """A turn as a server hands it to the template: without tools, text where there is none, calls with their fields in its order.

    Some templates write a call out whole, and then the order is part of the text: vLLM puts id, function, type, and in a function
    the arguments before the name. And it gives a turn that only calls a tool an empty text; None would be written as the word.
    """
    turn = {key: value for key, value in message.items() if key != "tools"} | {"content": message.get("content") or ""}
    if turn.get("tool_calls"):
        turn["tool_calls"] = [
            _in_order(call | {"function": _in_order(call["function"], "arguments", "name")}, "id", "function", "type")
            for call in turn["tool_calls"]
        ]
    return turn


def _in_order(fields: dict[str, Any], *first: str) -> dict[str, Any]:
    return {key: fields[key] for key in first if key in fields} | fields


def _span(tokenizer: Any, turn: int, whole: list[int], before: list[int], through: list[int]) -> tuple[int, int]:
    """First token of the answer in `turn`, and the one after its end-of-turn token."""
    if whole[: len(before)] != before or whole[: len(through)] != through:
        raise DataError(
            f"turn {turn + 1} does not begin or end on a token boundary under this chat template",
            why="the model would be trained on other tokens than the server feeds it",
        )
    end = len(through)
    while end > len(before) and not tokenizer.decode(through[end - 1 : end]).strip():
        end -= 1  # a template's line break after the end-of-turn token is not something the model says
    return len(before), end
