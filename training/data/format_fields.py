"""Single values of a record as text, list or label, or the fault that names what they are instead.

Knows nothing of turns or formats. Next: `format_turns.py`.
"""

from typing import Any

import orjson

from training.data.read_record import TooDeep, kind_of, refuse_depth

_YES = frozenset({"true", "1", "yes", "desirable"})
_NO = frozenset({"false", "0", "no", "undesirable"})
_TEXT_PARTS = ("text", "input_text", "output_text")


class Fault(Exception):
    """Why a record is no example: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def needed_text(values: dict[str, Any], key: str) -> str:
    """The text under `key`, without blanks around it; may be empty. Raises: Fault `no_<key>`."""
    value = values.get(key)
    if type(value) is str:
        return value.strip()
    if value is None:
        raise Fault(f"no_{key}", f"`{key}` is missing")
    raise Fault(f"no_{key}", f"`{key}` is {kind_of(value)}, not text")


def optional_text(values: dict[str, Any], key: str) -> str:
    """As `needed_text`, and empty where the key is missing or null."""
    return needed_text(values, key) if values.get(key) is not None else ""


def list_of(values: dict[str, Any], key: str) -> list[Any]:
    """The list under `key`, also where a table or a database holds it as JSON text. Raises: Fault `no_<key>`."""
    value = values.get(key)
    found = decoded(value)
    if isinstance(found, list) and found:
        return found
    state = "missing" if value is None else "empty" if found in ([], "") else f"{kind_of(value)}, not a list"
    raise Fault(f"no_{key}", f"`{key}` is {state}")


def decoded(value: Any) -> Any:
    """`value`, or the list or object that it holds as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            found = orjson.loads(value)
            refuse_depth(found)
        except (orjson.JSONDecodeError, TooDeep):
            return value
        return found
    return value


def label_of(values: dict[str, Any]) -> bool:
    """Whether the answer is wanted. Raises: Fault `no_label`."""
    value = values.get("label", values.get("kto_tag"))
    found = as_label(value)
    if found is None:
        raise Fault("no_label", "there is no `label`" if value is None else f"`label` is {str(value)[:60]!r}, neither true nor false")
    return found


def as_label(value: Any) -> bool | None:
    """True or false, also as a word or as 1 and 0; None for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    return True if word in _YES else False if word in _NO else None


def content_text(content: Any, turn: int) -> str:
    """The text of a turn; parts are joined by line breaks. Raises: Fault `image_content`, `no_content`."""
    if type(content) is str:
        return content.strip()
    if not isinstance(content, list):
        raise Fault("no_content", f"turn {turn} has no text but {'nothing' if content is None else 'a ' + type(content).__name__}")
    return "\n".join(_part_text(part, turn) for part in content).strip()


def _part_text(part: Any, turn: int) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Fault("no_content", f"turn {turn} has a part that is a {type(part).__name__}")
    kind, text = part.get("type", "text"), part.get("text")
    if kind not in _TEXT_PARTS:
        raise Fault("image_content", f"turn {turn} has a part of the type {str(kind)[:60]!r}; only text can be learnt from")
    if not isinstance(text, str):
        raise Fault("no_content", f"turn {turn} has a text part without text")
    return text
