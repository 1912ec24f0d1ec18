"""Which format a record is in, told by its keys, with the reason in words.

The most telling keys are asked first: a pair of answers, then a label, then a list of turns, then single texts.
Knows nothing of what the values hold, but for the few types that tell formats apart. Next: `formats.py`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from training.data.format_fields import as_label

Format = Literal["alpaca", "sharegpt", "messages", "prompt_completion", "question_answer", "preference", "kto", "unknown"]


@dataclass(frozen=True, slots=True)
class Detected:
    """A record's format and, in words, what showed it. One value for each way to tell, so that they can be counted."""

    format: Format
    why: str


_MESSAGES = Detected("messages", "has `messages`: OpenAI messages")
_SHAREGPT = Detected("sharegpt", "has `conversations` with from/value: ShareGPT")
_CONVERSATIONS = Detected("messages", "has `conversations` with role/content: OpenAI messages under another name")
_ALPACA = Detected("alpaca", "has `instruction` and `output`: Alpaca")
_ALPACA_ONLY = Detected("alpaca", "has `instruction`: Alpaca")
_COMPLETION = Detected("prompt_completion", "has `prompt` and `completion`: prompt and completion")
_QUESTION = Detected("question_answer", "has `question` and `answer`: question and answer")
_UNKNOWN = Detected("unknown", "none of the formats has such keys")
_BASES = (_MESSAGES, _SHAREGPT, _CONVERSATIONS, _ALPACA, _ALPACA_ONLY, _COMPLETION, _QUESTION)
_LABELLED = {base: Detected("kto", f"{base.why.partition(':')[0]}, and a label that is true or false: KTO") for base in _BASES}
_PAIRS = {
    key: Detected("preference", f"has `{key}`, `chosen` and `rejected`: preference pair")
    for key in ("messages", "conversations", "prompt", "instruction", "question")
}
_BARE_PAIR = Detected("preference", "has `chosen` and `rejected` and no prompt beside them: preference pair")
_SAID = {
    name: Detected(name, "the recipe says so")
    for name in ("alpaca", "sharegpt", "messages", "prompt_completion", "question_answer", "preference", "kto")
}


def detect(values: dict[str, Any]) -> Detected:
    """The format of a record."""
    if "chosen" in values and "rejected" in values:
        return next((pair for key, pair in _PAIRS.items() if values.get(key) is not None), _BARE_PAIR)
    base = detect_base(values)
    if base is not _UNKNOWN and ("label" in values or "kto_tag" in values) and _is_kto_label(values.get("label", values.get("kto_tag"))):
        return _LABELLED[base]
    return base


def detect_base(values: dict[str, Any]) -> Detected:
    """The format of the conversation alone, leaving answers to choose from and labels aside."""
    if "messages" in values:
        return _MESSAGES
    if "conversations" in values:
        return _sharegpt_or_messages(values["conversations"])
    if "instruction" in values:
        return _ALPACA if "output" in values else _ALPACA_ONLY
    if "prompt" in values and "completion" in values:
        return _COMPLETION
    if "question" in values and "answer" in values:
        return _QUESTION
    return _UNKNOWN


def told(name: Literal["alpaca", "sharegpt", "messages", "prompt_completion", "question_answer", "preference", "kto"]) -> Detected:
    """The format that the recipe names."""
    return _SAID[name]


def _sharegpt_or_messages(turns: Any) -> Detected:
    first = turns[0] if isinstance(turns, list) and turns else None
    return _CONVERSATIONS if isinstance(first, dict) and "role" in first and "from" not in first else _SHAREGPT


def _is_kto_label(value: Any) -> bool:
    """A number may be the label of anything, so it counts only where the recipe says `format: kto`."""
    return isinstance(value, bool) or (isinstance(value, str) and not value.strip().isdigit() and as_label(value) is not None)
