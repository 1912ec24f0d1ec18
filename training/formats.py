"""Reads rows written by people: Alpaca rows and OpenAI `messages` rows, as JSON Lines or as one JSON array.

Every row comes out as messages, or as a `BadRow` with its line, a reason code and a sentence; nothing is skipped and
nothing is guessed. Knows nothing of tokenizers. Next: `chat.py` renders the messages.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.errors import DataError

RowFormat = Literal["auto", "alpaca", "messages"]
Message = dict[str, str]
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Row:
    """One conversation that ends with the assistant's answer."""

    line: int
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class PreferenceRow:
    """A conversation that ends with the user's turn, and two answers to it."""

    line: int
    messages: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: `reason` is a code for counting, `detail` a sentence for the person."""

    line: int
    reason: str
    detail: str


class _Fault(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def read_rows(path: Path, row_format: RowFormat = "auto") -> Iterator[Row | BadRow]:
    """Yield every row of `path` in file order.

    Raises:
        DataError: the file is missing, empty, not readable, or starts an array that is not JSON.
    """
    for line, value in _values(path):
        try:
            yield Row(line, _conversation(_record(value), row_format))
        except _Fault as fault:
            yield BadRow(line, fault.reason, fault.detail)


def read_preferences(path: Path) -> Iterator[PreferenceRow | BadRow]:
    """Yield every preference pair of `path` in file order. Raises: as `read_rows`."""
    for line, value in _values(path):
        try:
            yield _preference(line, _record(value))
        except _Fault as fault:
            yield BadRow(line, fault.reason, fault.detail)


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line counted from 1, JSON value or `_Fault`)."""
    try:
        body = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise DataError(f"data file {path} is not there", do="correct the path in the recipe, or put the file there") from None
    except OSError as error:
        raise DataError(f"data file {path} cannot be read: {error.strerror}", do="make it a readable file") from error
    if not body.strip():
        raise DataError(
            f"data file {path} is empty", why="there is nothing to learn from", do="put rows in it, or take it out of the recipe"
        )
    return _array(path, body) if body.lstrip().startswith(b"[") else _lines(body)


def _lines(body: bytes) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(body.split(b"\n"), start=1):
        if text.strip():
            yield line, _parsed(text)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _Fault("not_utf8", f"byte {error.start + 1} of the row is not UTF-8; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return _Fault("not_json", f"not JSON at column {error.colno}: {error.msg}")


def _array(path: Path, body: bytes) -> Iterator[tuple[int, Any]]:
    """Items of one JSON array, each with the line it starts on. An array is whole or useless: faults are errors."""
    try:
        text = body.decode("utf-8")
        decoder, position, line, seen = json.JSONDecoder(), _skip(text, text.index("[") + 1), 1, 0
        while not text.startswith("]", position):
            line, seen = line + text.count("\n", seen, position), position
            value, position = decoder.raw_decode(text, position)
            yield line, value
            position = _skip(text, position)
            if text.startswith(",", position):
                position = _skip(text, position + 1)
            elif not text.startswith("]", position):
                raise json.JSONDecodeError("expected ',' or ']'", text, position)
    except UnicodeDecodeError as error:
        number = body.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {number}: not UTF-8", do="save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON: {error.msg}", do="mend that line; the rows after it were not read"
        ) from error


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _record(value: Any) -> dict[str, Any]:
    if isinstance(value, _Fault):
        raise value
    if not isinstance(value, dict):
        raise _Fault("not_object", f"a row is a JSON object, this is a {type(value).__name__}")
    return value


def _conversation(record: dict[str, Any], row_format: RowFormat) -> tuple[Message, ...]:
    if row_format == "messages" or (row_format == "auto" and "messages" in record):
        return _from_messages(record)
    if row_format == "alpaca" or "instruction" in record:
        return _from_alpaca(record)
    raise _Fault("unknown_format", f"neither `messages` nor `instruction` among its keys: {', '.join(map(str, record)) or 'none'}")


def _from_alpaca(record: dict[str, Any]) -> tuple[Message, ...]:
    question = "\n".join(filter(None, (_text(record, "instruction"), _text(record, "input", needed=False))))
    if not question:
        raise _Fault("empty_question", "`instruction` is empty")
    answer = _text(record, "output")
    if not answer:
        raise _Fault("empty_answer", "`output` is empty")
    system = _text(record, "system", needed=False)
    first = [{"role": "system", "content": system}] if system else []
    return (*first, {"role": "user", "content": question}, {"role": "assistant", "content": answer})


def _text(record: dict[str, Any], key: str, *, needed: bool = True) -> str:
    value = record.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        raise _Fault(f"no_{key}", f"`{key}` is missing" if value is None else f"`{key}` is a {type(value).__name__}, not text")
    return value.strip()


def _from_messages(record: dict[str, Any]) -> tuple[Message, ...]:
    messages = _turns(record)
    if not any(message["role"] == "assistant" for message in messages):
        raise _Fault("no_assistant", "no turn of the assistant, so there is nothing to learn")
    if messages[-1]["role"] != "assistant":
        raise _Fault("no_final_answer", f"the last turn is the {messages[-1]['role']}'s, not the assistant's")
    return messages


def _turns(record: dict[str, Any]) -> tuple[Message, ...]:
    turns = record.get("messages")
    if not isinstance(turns, list) or not turns:
        raise _Fault("no_messages", "`messages` is missing, empty or not a list")
    messages = tuple(_turn(number, turn) for number, turn in enumerate(turns, start=1))
    for number, message in enumerate(messages[1:], start=2):
        if message["role"] == "system":
            raise _Fault("late_system", f"turn {number} is a system turn; only the first may be one")
        if message["role"] == messages[number - 2]["role"]:
            raise _Fault("roles_repeat", f"turns {number - 1} and {number} are both the {message['role']}'s")
    if messages[0]["role"] == "assistant" or (messages[0]["role"] == "system" and messages[1:2] and messages[1]["role"] != "user"):
        raise _Fault("no_question", "the assistant speaks before the user does")
    return messages


def _turn(number: int, turn: Any) -> Message:
    if not isinstance(turn, dict) or "role" not in turn:
        raise _Fault("no_role", f"turn {number} has no `role`")
    role = turn["role"]
    if role not in ROLES:
        raise _Fault("unknown_role", f"turn {number} has the role {role!r}; known are {', '.join(ROLES)}")
    content = turn.get("content")
    if not isinstance(content, str):
        raise _Fault("no_content", f"turn {number} has no text in `content`")
    if not content.strip():
        raise _Fault("empty_answer" if role == "assistant" else "empty_content", f"turn {number} (the {role}'s) is empty")
    return {"role": str(role), "content": content.strip()}


def _preference(line: int, record: dict[str, Any]) -> PreferenceRow:
    if "messages" in record:
        messages = _turns(record)
    elif prompt := _text(record, "prompt"):
        messages = ({"role": "user", "content": prompt},)
    else:
        raise _Fault("empty_question", "`prompt` is empty")
    if messages[-1]["role"] != "user":
        raise _Fault("no_question", f"the conversation must end with the user's turn, it ends with the {messages[-1]['role']}'s")
    chosen, rejected = _text(record, "chosen"), _text(record, "rejected")
    if not chosen or not rejected:
        raise _Fault("empty_answer", f"`{'rejected' if chosen else 'chosen'}` is empty")
    if chosen == rejected:
        raise _Fault("same_answers", "`chosen` and `rejected` are the same text, so nothing is preferred")
    return PreferenceRow(line, messages, chosen, rejected)
