"""CSV and TSV to records: the delimiter is found by trying, the first row names the columns, every value is text.

A row that does not fit costs one `Rejected`: where an open quote swallowed the lines after it, those lines are read again.
Place and line are those where a row starts. Next: `readers.py`.
"""

import csv
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from training.data.read_bytes import ByteStream
from training.data.read_jsonl import torn
from training.data.read_lines import Line, TooLong, line_blocks
from training.data.read_record import Read, Reading, Record
from training.data.rows import Place, Rejected
from training.errors import DataError

_DELIMITERS = (",", "\t", ";", "|")
_SNIFFED_ROWS = 50
_READ_AGAIN_LINES = 1000  # behind an open quote; more are rejected with it
_READ_AGAIN_IN_ALL = 100_000  # a hostile file must not make every line be read a thousand times


@dataclass(frozen=True)
class TableShape:
    """How a table is written, and how well that explains its first rows: columns that are known, equal rows, columns."""

    delimiter: str
    escaped: bool
    line_end: bytes
    known: int
    even: float
    columns: int

    @property
    def is_table(self) -> bool:
        """Two columns at least, and most rows have as many as the first."""
        return self.columns >= 2 and self.even >= 0.8


def table_shape(head: bytes, known_columns: Collection[str] = ()) -> TableShape:
    """The best explanation of a file's first bytes. Quotes are doubled inside of quotes, unless backslashes explain more rows."""
    line_end = b"\r" if b"\r" in head and b"\n" not in head else b"\n"
    text = head.decode("utf-8", "replace")
    lines = text.split(line_end.decode())[: _SNIFFED_ROWS * 4]
    lines = lines[:-1] if len(lines) > 2 else lines
    ways = (False, True) if '\\"' in text else (False,)
    shapes = [_shape(lines, delimiter, escaped, line_end, known_columns) for escaped in ways for delimiter in _DELIMITERS]
    return max(shapes, key=lambda shape: (shape.known, shape.is_table, shape.even * min(shape.columns, 4), shape.columns))


def _shape(lines: list[str], delimiter: str, escaped: bool, line_end: bytes, known: Collection[str]) -> TableShape:
    rows: list[list[str]] = []
    reader = _parser((line + "\n" for line in lines), delimiter, escaped)
    while len(rows) < _SNIFFED_ROWS:
        try:
            rows += [row] if (row := next(reader)) else []
        except StopIteration:
            break
        except csv.Error:
            rows += [[]]
    width = len(rows[0]) if rows else 0
    even = sum(len(row) == width for row in rows) / max(1, len(rows))
    return TableShape(delimiter, escaped, line_end, sum(name.strip() in known for name in rows[0]) if rows else 0, even, width)


def _parser(lines: Iterator[str], delimiter: str, escaped: bool) -> Iterator[list[str]]:
    """Strict, because otherwise a quote that is never closed swallows the rest of the file in silence."""
    return csv.reader(lines, delimiter=delimiter, doublequote=not escaped, escapechar="\\" if escaped else None, strict=True)


def read_table(stream: ByteStream, reading: Reading, shape: TableShape) -> Iterator[Read]:
    """Yield a `Record` or a `Rejected` for each row after the first, then one `Rejected` for a tear.

    Raises:
        DataError: the first row does not name the columns.
    """
    lines = _Lines(stream, reading, shape.line_end)
    csv.field_size_limit(max(csv.field_size_limit(), reading.max_row_bytes))
    rows = _parser(lines, shape.delimiter, shape.escaped)
    columns: list[str] | None = None
    while True:
        lines.taken.clear()
        lines.fault = None
        try:
            row = next(rows)
        except StopIteration:
            break
        except (csv.Error, _RowTooLarge) as error:
            lines.fault = lines.refuse(error)
            row = []
        if lines.fault is not None:
            yield _fault_of_row(lines.fault, columns)
        elif len(row) == 1 and not row[0].strip() and (columns is None or len(columns) > 1):
            continue  # a line of blanks
        elif row and columns is None:
            columns = _column_names(row, reading.name)
        elif row and columns is not None:
            yield _record(row, columns, lines, stream, reading)
    if stream.tear:
        yield torn(stream, reading, lines.number + 1)


def _fault_of_row(fault: Rejected, columns: list[str] | None) -> Rejected:
    if columns is None:
        raise DataError(
            f"{fault.place}: the first row, which names the columns, cannot be read: {fault.detail}",
            do="mend that row; the rest hangs on it",
        )
    return fault


def _column_names(row: list[str], name: str) -> list[str]:
    columns = [column.strip() or f"column_{number}" for number, column in enumerate(row, start=1)]
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(
            f"{name}: the first row names {', '.join(repr(column[:100]) for column in twice)} more than once",
            why="one of the columns would be lost",
            do="give each column a name of its own; a table needs a first row with the names",
        )
    return columns


def _record(row: list[str], columns: list[str], lines: "_Lines", stream: ByteStream, reading: Reading) -> Read:
    number = lines.taken[0].number
    if len(row) != len(columns):
        detail = f"{len(row)} values, and the first row names {len(columns)} columns; look for a quote that is not closed or doubled"
        return reading.reject(number, "wrong_columns", detail, lines.taken_text())
    return Record(Place(reading.name, number), dict(zip(columns, row, strict=True)), reading.bytes_before + stream.raw_bytes)


class _RowTooLarge(Exception):
    """The lines of one row exceed the bound."""


@dataclass(frozen=True, slots=True)
class _Taken:
    number: int
    text: str
    fault: Rejected | None = None


class _Lines:
    """Feeds lines to the CSV parser and remembers those of the row at hand, and the first fault among them."""

    def __init__(self, stream: ByteStream, reading: Reading, line_end: bytes) -> None:
        self.taken: list[_Taken] = []
        self.fault: Rejected | None = None
        self.number = 0
        self._again: deque[_Taken] = deque()
        self._budget = _READ_AGAIN_IN_ALL
        self._reading = reading
        self._size = 0
        self._blocks = line_blocks(stream, reading.max_row_bytes, line_end)
        self._block: list[Line] = []
        self._at = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._fresh()
        self._size = len(line.text) + (self._size if self.taken else 0)
        self.taken.append(line)
        self.fault = self.fault or line.fault
        if self._size > self._reading.max_row_bytes:
            raise _RowTooLarge
        return line.text

    def _fresh(self) -> _Taken:
        if self._at == len(self._block):
            self._block, self._at = next(self._blocks), 0
        line = self._block[self._at]
        self._at += 1
        self.number += 1
        if isinstance(line, TooLong):
            return _Taken(self.number, "\n", self._reading.too_large(self.number, line.size))
        try:
            return _Taken(self.number, line.decode("utf-8") + "\n")
        except UnicodeDecodeError as error:
            return self._decoded(line, error.start + 1)

    def _decoded(self, line: bytes, fault_at: int) -> _Taken:
        text = self._reading.decoder.legacy(line, self._block[self._at : self._at + _READ_AGAIN_LINES])
        if text is not None:
            return _Taken(self.number, text + "\n")
        detail = f"byte {fault_at} of the line is not UTF-8; save the file as UTF-8"
        return _Taken(self.number, "\n", self._reading.reject(self.number, "not_utf8", detail, line))

    def refuse(self, error: Exception) -> Rejected:
        """Reject the first line of the row at hand and read the others again, or reject all where they are too many."""
        first, again, raw = self.taken[0], self.taken[1:], self.taken_text()
        last = self.taken[-1].number
        if first.fault is not None and len(again) <= min(_READ_AGAIN_LINES, self._budget):
            self._read_again(again)
            return first.fault
        if not again and isinstance(error, _RowTooLarge):
            return self._reading.too_large(first.number, self._size - 1)
        if len(again) <= min(_READ_AGAIN_LINES, self._budget):
            self._read_again(again)
            last = first.number
        lines = f"lines {first.number:,}–{last:,} are" if last > first.number else f"line {first.number:,} is"
        return self._reading.reject(first.number, "not_csv", f"{lines} not readable as a table: {error or 'a quote is never closed'}", raw)

    def _read_again(self, lines: list[_Taken]) -> None:
        self._budget -= len(lines)
        self._again.extendleft(reversed(lines))

    def taken_text(self) -> str:
        """The lines of the row at hand."""
        return "".join(line.text for line in self.taken)
