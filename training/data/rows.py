"""What a row is on its way through data preparation, and where it came from.

Three kinds of example can be learnt from; what cannot be used is `Rejected`, with a code for counting and a sentence for
the person. Knows nothing of files, tokenizers or recipes. Next: `sources.py` reads files, `formats.py` makes rows of records.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Message = dict[str, Any]  # `role`, `content`, and for tools `tool_calls`, `tool_call_id`, `name`
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row lies: the file as a person would name it, and its line (or row, where there are no lines) from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages that end with the assistant's answer."""

    place: Place
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Messages that end with the user's turn, and two answers to it, of which one is preferred."""

    place: Place
    messages: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """Messages that end with the assistant's answer, and whether that answer is wanted (KTO)."""

    place: Place
    messages: tuple[Message, ...]
    desirable: bool


Example = Conversation | Pair | Labelled


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not used: `reason` is a code from the closed list of its step, `detail` a sentence, `raw` its first characters."""

    place: Place
    reason: str
    detail: str
    raw: str = ""


def question_of(example: Example) -> str:
    """What the users of the conversation say, one turn per line."""
    return "\n".join(message["content"] for message in example.messages if message["role"] == "user")


def texts_of(example: Example) -> list[str]:
    """Every text of the example in reading order: turns, then the two answers of a pair."""
    texts = [message["content"] for message in example.messages if message.get("content")]
    return [*texts, example.chosen, example.rejected] if isinstance(example, Pair) else texts


def with_texts(example: Example, change: Callable[[str], str]) -> Example:
    """The same example with every text changed."""
    messages = tuple(
        {**message, "content": change(message["content"])} if message.get("content") else message for message in example.messages
    )
    if isinstance(example, Pair):
        return replace(example, messages=messages, chosen=change(example.chosen), rejected=change(example.rejected))
    return replace(example, messages=messages)
