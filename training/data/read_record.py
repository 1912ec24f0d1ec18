"""What every reader yields: a record as it stands in its source, or the reason why there is none at that place.

A record holds plain JSON values only (text, numbers, true/false, null, lists, objects), whatever the source's own types are.
Knows nothing of formats, encodings or files. Next: `readers.py` picks the reader of a file.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.data.read_text import Decoder
from training.data.rows import Place, Rejected

RAW_CHARS = 20_000  # of a rejected row, written down for the person
MAX_DEPTH = 254  # lists and objects inside one another, as many as orjson writes; a row of a chat uses five

READING_REASONS = frozenset(
    {
        "not_utf8",
        "not_json",
        "not_object",
        "lone_surrogate",
        "duplicate_keys",
        "too_deep",
        "row_too_large",
        "truncated_file",
        "damaged_file",
        "second_list",
        "wrong_columns",
        "not_csv",
    }
)


@dataclass(frozen=True, slots=True)
class Record:
    """A raw record; `bytes_read` counts what was taken from the disk or network so far, over all files of the source."""

    place: Place
    values: dict[str, Any]
    bytes_read: int


Read = Record | Rejected


@dataclass
class Reading:
    """What the readers of one file share: how it is called, its bounds, and where odd things are counted."""

    name: str
    max_row_bytes: int
    decoder: Decoder
    notes: Counter[str]
    bytes_before: int = 0

    def reject(self, line: int, reason: str, detail: str, raw: object = "") -> Rejected:
        """A `Rejected` at that line of this file."""
        return Rejected(Place(self.name, line), reason, detail, shown(raw))

    def too_large(self, line: int, size: int) -> Rejected:
        """The row's size in bytes, or as much of it as was seen, is beyond the bound."""
        return self.reject(line, "row_too_large", f"more than {size:,} bytes in one row; `max_row_bytes` is {self.max_row_bytes:,}")


def shown(raw: object) -> str:
    """The first characters of a row, safe to print and to write as UTF-8."""
    if isinstance(raw, bytes | bytearray):
        raw = bytes(raw[: RAW_CHARS * 4]).decode("utf-8", "backslashreplace")
    text = raw if isinstance(raw, str) else repr(raw)
    return text[:RAW_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")


def kind_of(value: object) -> str:
    """What JSON calls the value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = ((str, "a text"), (int | float, "a number"), (list, "a list"), (dict, "an object"))
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


class TooDeep(Exception):
    """Lists and objects are nested beyond `MAX_DEPTH`."""


def refuse_depth(value: Any, room: int = MAX_DEPTH) -> None:
    """Raises: TooDeep."""
    if isinstance(value, dict | list):
        if not room:
            raise TooDeep
        for item in value.values() if isinstance(value, dict) else value:
            refuse_depth(item, room - 1)


def plain(value: Any, room: int = MAX_DEPTH) -> Any:
    """`value` of a table or a query in JSON's types: dates, decimals and the like become text, NaN becomes null.

    Raises:
        TooDeep: more than `room` levels.
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8")
    if isinstance(value, dict | list | tuple):
        if not room:
            raise TooDeep
        if isinstance(value, dict):
            return {str(key): plain(item, room - 1) for key, item in value.items()}
        return [plain(item, room - 1) for item in value]
    return str(value)


def text_size(value: Any) -> int:
    """Characters of all the text inside a plain value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(text_size, value.values()))
    return sum(map(text_size, value)) if isinstance(value, list) else 0


def record_of(reading: Reading, row: int, values: dict[str, Any], bytes_read: Callable[[], int]) -> Read:
    """A record from a source whose rows are Python values already: a table, a query, a hub dataset."""
    try:
        values = plain(values)
    except TooDeep:
        return reading.reject(row, "too_deep", f"lists and objects are nested more than {MAX_DEPTH} levels deep")
    except UnicodeDecodeError as error:
        return reading.reject(row, "not_utf8", f"a column holds bytes that are not UTF-8 text: {error.reason}", values)
    if (size := text_size(values)) > reading.max_row_bytes:
        return reading.too_large(row, size - 1)
    return Record(Place(reading.name, row), values, bytes_read())
