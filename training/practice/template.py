"""The trap of a chat template that asks for one answer and was trained on another, or whose answers never end.

Two faults of a template are looked for before a single row is rendered. The opening of an answer that a server writes (the generation
prompt) must be what stands before an answer in training; and an answer must end with a token at which the server stops.
Next: `training/chat.py`, which renders rows; `collation.py`, which sees to it that the end of an answer still bears loss in a batch.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from training.chat import IGNORED, render
from training.data.rows import Message
from training.errors import ModelError
from training.practice.template_bounds import check_bounds

_QUESTION: Message = {"role": "user", "content": "Where is the pharmacy?"}
_ANSWER: Message = {"role": "assistant", "content": "On the ground floor."}
_SHOWN = 40


def check_template(tokenizer: Any, folder: Path) -> None:
    """Look at how a tokenizer's template opens and ends an answer; `folder` holds the base model.

    Raises:
        ModelError: the template does not end or fills the memory, the model would be asked in another way than it is trained, or
            would never stop.
    """
    check_bounds(tokenizer.chat_template, lambda: _text(tokenizer, [_QUESTION, _ANSWER], answer_next=False))
    _same_opening(tokenizer)
    last = next(label for label in reversed(render(tokenizer, [_QUESTION, _ANSWER]).labels) if label != IGNORED)
    stops = stop_tokens(tokenizer, folder)
    if last not in stops:
        known = ", ".join(f"{token} ({tokenizer.decode([token])!r})" for token in sorted(stops)) or "none at all"
        raise ModelError(
            f"under this chat template an answer ends with token {last} ({tokenizer.decode([last])!r}), at which no server stops: "
            f"the model's stop tokens are {known}",
            why="the model would learn to say that token and then go on; it would never stop",
            do="write the end of the turn into the template, or name that token as `eos_token_id` in generation_config.json",
        )


def stop_tokens(tokenizer: Any, folder: Path) -> frozenset[int]:
    """Token ids at which a server ends an answer: the tokenizer's own, and those that config.json and generation_config.json name."""
    found = {tokenizer.eos_token_id}
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        found |= set(named) if isinstance(named, Collection) else {named}
    return frozenset(token for token in found if token is not None)


def _text(tokenizer: Any, turns: list[Message], *, answer_next: bool) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next))


def _same_opening(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        return  # rendering says so, with what to do
    asked, trained = _text(tokenizer, [_QUESTION], answer_next=True), _text(tokenizer, [_QUESTION, _ANSWER], answer_next=False)
    if trained.startswith(asked):
        return
    same = next((at for at, (one, other) in enumerate(zip(asked, trained, strict=False)) if one != other), len(trained))
    raise ModelError(
        f"the chat template opens an answer in two ways: asked for one it writes {asked[same:][:_SHOWN]!r} where a row to train on "
        f"has {trained[same:][:_SHOWN]!r}",
        why="the server would start every answer with tokens that training never put there",
        do="put a chat_template.jinja beside the tokenizer whose generation prompt is what it writes before an assistant's turn",
    )
