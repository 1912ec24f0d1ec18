"""One file to records: looks at its first bytes, picks the reader, and says so when there is nothing to read.

The content decides; the ending only where the content could be either. Next: `read_jsonl.py`, `read_json_array.py`,
`read_table.py`, `read_parquet.py`.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from training.data.read_bytes import HEAD_BYTES, ByteStream, unreadable
from training.data.read_files import DataFile, stem_ending
from training.data.read_json_array import read_json_value
from training.data.read_jsonl import read_json_lines
from training.data.read_parquet import MAGIC, read_parquet
from training.data.read_record import Read, Reading
from training.data.read_table import read_table, table_shape
from training.data.read_text import Decoder
from training.errors import DataError

ROW_KEYS = frozenset(
    {"instruction", "input", "output", "history", "system", "conversations", "messages", "prompt", "completion", "question", "answer"}
    | {"chosen", "rejected", "label", "kto_tag", "tools", "response", "context"}
)
_LINE_ENDINGS = (".jsonl", ".ndjson")
_TABLE_ENDINGS = (".csv", ".tsv", ".tab")
_FOREIGN = {b"PK\x03\x04": "a zip archive or an Excel file", b"%PDF": "a PDF", b"\xd0\xcf\x11\xe0": "an old Office file"}
_SPACE = re.compile(r"[ \t\r\n]*")


class EmptyFile(DataError):
    """A file without a byte that is not white space, or without a row."""


@dataclass(frozen=True)
class ReadOptions:
    """What a source's section says about reading: bound on a row, old encoding, and the file's columns that are mapped."""

    max_row_bytes: int
    encoding: str
    columns: frozenset[str] = frozenset()


def read_file(file: DataFile, options: ReadOptions, notes: Counter[str], bytes_before: int = 0) -> Iterator[Read]:
    """Yield every row of `file` in its order, as a `Record` or a `Rejected`.

    Raises:
        EmptyFile: no row was found.
        DataError: the file cannot be read at all.
    """
    decoder = Decoder(options.encoding, notes)
    reading = Reading(file.name, options.max_row_bytes, decoder, notes, bytes_before)
    with file.open() as opened:
        empty = True
        for row in _rows(opened, file, reading, options.columns):
            empty = False
            yield row
        if empty:
            raise empty_file(file.path)


def empty_file(name: str) -> EmptyFile:
    """The error for a file or query without rows."""
    return EmptyFile(f"{name} holds no rows", why="there is nothing to learn from", do="put rows in it, or take it out of the recipe")


def _rows(opened: BinaryIO, file: DataFile, reading: Reading, columns: frozenset[str]) -> Iterator[Read]:
    first = _first_bytes(opened, file.path)
    if first == MAGIC:
        return read_parquet(opened, reading, file.size_bytes)
    stream = ByteStream(opened, file.path, first)
    if stream.encoding != "utf-8":
        reading.decoder = reading.decoder.utf8_only()
    head = stream.head.lstrip(b" \t\r\n")
    _refuse_foreign(head, file.path)
    ending, known = stem_ending(file.name), ROW_KEYS | columns
    if head.startswith(b"[") and ending not in _TABLE_ENDINGS:
        return read_json_value(stream, reading)
    if head.startswith(b"{") and ending not in _TABLE_ENDINGS:
        return _rows_of_objects(stream, reading, head, known, ending in _LINE_ENDINGS)
    if ending in _TABLE_ENDINGS:
        return read_table(stream, reading, table_shape(stream.head, known))
    if ending not in (*_LINE_ENDINGS, ".json") and head and (shape := table_shape(stream.head, known)).is_table:
        return read_table(stream, reading, shape)
    if ending in (*_LINE_ENDINGS, ".json") or not head:
        return read_json_lines(stream, reading)
    raise DataError(
        f"{file.path} is neither JSON nor a table: it begins with {head[:40]!r}", do="save it as JSON Lines, CSV, TSV or Parquet"
    )


def _first_bytes(opened: BinaryIO, path: str) -> bytes:
    try:
        return opened.read(len(MAGIC))
    except Exception as error:  # noqa: BLE001  # each fsspec backend raises its own family
        raise unreadable(path, 0, error) from None


def _refuse_foreign(head: bytes, path: str) -> None:
    if head.startswith(MAGIC):
        raise DataError(f"{path} is Parquet inside another packing", why="Parquet is read from its end", do="unpack it; Parquet is packed")
    if kind := next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), ""):
        raise DataError(f"{path} is {kind}, which cannot be read", do="save it as JSON Lines, CSV or Parquet")


def _rows_of_objects(stream: ByteStream, reading: Reading, head: bytes, known: frozenset[str], is_lines: bool) -> Iterator[Read]:
    """A file that begins with a brace: JSON Lines, an object around one list of rows, or objects over several lines each."""
    first, line_end, rest = head.partition(b"\n")
    first = first.strip()
    try:
        value = orjson.loads(first)
    except orjson.JSONDecodeError:
        spread_out = first.endswith((b"{", b"[", b","))
        list_key = _list_key(head[:HEAD_BYTES], known) if spread_out or not (line_end or is_lines) else None
        if list_key is None and not (spread_out and line_end):
            return read_json_lines(stream, reading)
        return read_json_value(stream, reading, list_key)
    if is_lines or rest.strip() or not stream.head_is_all or known & value.keys():
        return read_json_lines(stream, reading)
    list_key = next((key for key in value if _is_rows(value[key])), None)
    return read_json_lines(stream, reading) if list_key is None else read_json_value(stream, reading, list_key)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _list_key(head: bytes, known: Collection[str]) -> str | None:
    """The first key of the object that `head` begins whose value is a list of objects; None where a key is one of a row's own."""
    text, decoder = head.decode("utf-8", "replace"), json.JSONDecoder()
    at = 1
    try:
        while True:
            key, at = decoder.raw_decode(text, _space(text, at))
            at = _space(text, at)
            if not isinstance(key, str) or key in known or text[at] != ":":
                return None
            at = _space(text, at + 1)
            if text[at] == "[" and text[_space(text, at + 1)] == "{":
                return key
            _, at = decoder.raw_decode(text, at)
            at = _space(text, at)
            if text[at] != ",":
                return None
            at += 1
    except (ValueError, IndexError, RecursionError):
        return None


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
