"""What a field of a request must look like. The check of a value and its words in the OpenAPI document come from one place.

A shape reads a value (and may spell it better: 12.0 is 12), or refuses it by name. null never comes here: it means that a field was
left out. Pure. Knows nothing of HTTP, nor which field has which shape. Next: `limits.py`, which says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from serving.openai_errors import ApiError, bad_request

Json = dict[str, Any]
Kind = Literal["string", "object"]
_TYPES: dict[Kind, type] = {"string": str, "object": dict}
_LARGEST_TOKEN = 2**31 - 1
_TOKEN: Json = {"type": "integer", "minimum": 0, "maximum": _LARGEST_TOKEN}


class Shape(Protocol):
    """What a value must be."""

    def read(self, value: Any, name: str) -> Any:
        """The value as it goes on; `ApiError` 400 when it is something else."""
        ...

    def schema(self) -> Json:
        """The same as JSON schema, without null."""
        ...


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, value: Any, name: str) -> bool:
        """See `Shape`."""
        if not isinstance(value, bool):
            raise bad_request(f"'{name}' must be true or false", param=name)
        return value

    def schema(self) -> Json:
        """See `Shape`."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole:
    """A whole number; `or_flag`: or true or false."""

    low: int
    high: int
    or_flag: bool = False

    def read(self, value: Any, name: str) -> int | bool:
        """See `Shape`."""
        if isinstance(value, float) and value.is_integer():  # JSON knows one kind of number: 12.0 is 12
            value = int(value)
        if isinstance(value, bool) and self.or_flag:
            return value
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise _refused(name, f"must be a whole number from {self.low} to {self.high}")
        return value

    def schema(self) -> Json:
        """See `Shape`."""
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [{"type": "boolean"}, number]} if self.or_flag else number


@dataclass(frozen=True)
class Listed:
    """A list of one kind; `alone`: one of them without a list will do. `entry` looks closer at each, `words` say at what."""

    kind: Kind
    most: int
    least: int = 0
    alone: bool = False
    entry: Callable[[Any, str, int], None] | None = None
    words: Callable[[], Json] | None = None

    def read(self, value: Any, name: str) -> Any:
        """See `Shape`."""
        if self.alone and isinstance(value, _TYPES[self.kind]):
            return value
        if not isinstance(value, list) or len(value) < self.least:
            raise _refused(name, "must be a list" if self.least == 0 else f"must be a list of {self.least} at least")
        _check_length(value, self.most, name)
        kind, look = _TYPES[self.kind], self.entry
        for at, each in enumerate(value):
            if type(each) is not kind:
                raise _refused(f"{name}[{at}]", f"must be of type {self.kind}")
            if look is not None:
                look(each, name, at)
        return value

    def schema(self) -> Json:
        """See `Shape`."""
        entry = {"type": self.kind} if self.words is None else self.words()
        listed = {"type": "array", "minItems": self.least, "maxItems": self.most, "items": entry}
        return {"anyOf": [{"type": self.kind}, listed]} if self.alone else listed


@dataclass(frozen=True)
class Tokens:
    """A list of token numbers."""

    most: int

    def read(self, value: Any, name: str) -> Any:
        """See `Shape`."""
        if not isinstance(value, list) or (tokens := _tokens(value)) is None:
            raise _refused(name, f"must be a list of token numbers, from 0 to {_LARGEST_TOKEN}")
        _check_length(tokens, self.most, name)
        return tokens

    def schema(self) -> Json:
        """See `Shape`."""
        return {"type": "array", "maxItems": self.most, "items": _TOKEN}


@dataclass(frozen=True)
class Table:
    """An object with so many entries."""

    most: int

    def read(self, value: Any, name: str) -> Any:
        """See `Shape`."""
        if not isinstance(value, dict):
            raise _refused(name, "must be an object")
        _check_length(value, self.most, name)
        return value

    def schema(self) -> Json:
        """See `Shape`."""
        return {"type": "object", "maxProperties": self.most}


@dataclass(frozen=True)
class Prompts:
    """What a model reads: a text or its tokens, or several of them."""

    most: int

    def read(self, value: Any, name: str) -> Any:
        """See `Shape`."""
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value:
            if (tokens := _tokens(value)) is not None:
                return tokens
            _check_length(value, self.most, name)
            if set(map(type, value)) == {str}:
                return value
            several = [_tokens(each) if isinstance(each, list) else None for each in value]
            if all(several):
                return several
        raise _refused(name, f"must be a text, a list of token numbers from 0 to {_LARGEST_TOKEN}, or a list of either, none of them empty")

    def schema(self) -> Json:
        """See `Shape`."""
        tokens = {"type": "array", "minItems": 1, "items": _TOKEN}
        several = [{"type": "array", "minItems": 1, "maxItems": self.most, "items": each} for each in ({"type": "string"}, tokens)]
        return {"anyOf": [{"type": "string"}, tokens, *several]}


def count_of(prompts: Any) -> int:
    """How many prompts these are, of what `Prompts` has read."""
    return len(prompts) if isinstance(prompts, list) and not isinstance(prompts[0], int) else 1


def _tokens(values: list[Any]) -> list[int] | None:
    """The same list, with 12 for 12.0; None where one is no token. A prompt may have a hundred thousand: no loop of our own."""
    kinds = set(map(type, values))
    if not kinds <= {int, float} or (values and not 0 <= min(values) <= max(values) <= _LARGEST_TOKEN):
        return None
    if float not in kinds:
        return values
    whole = list(map(int, values))
    return whole if whole == values else None


def _check_length(value: list[Any] | dict[str, Any], most: int, name: str) -> None:
    if len(value) > most:
        raise _refused(name, f"has {len(value)} entries; the limit is {most}")


def _refused(name: str, what: str) -> ApiError:
    return bad_request(f"'{name}' {what}", param=name, code="invalid_value")
