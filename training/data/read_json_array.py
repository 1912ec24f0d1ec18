"""One JSON value that holds many rows, streamed: an array, an object with one list of rows in it, or objects one after another.

A fault costs the row it is in: reading goes on at the next line that begins as the rows before it began. Where no such line
comes, one `Rejected` says that the rest was not read. Next: `read_window.py`.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from training.data.read_bytes import ByteStream
from training.data.read_json import Fault, decoder, keys_are_unique, parse
from training.data.read_jsonl import not_an_object, row_values, torn
from training.data.read_record import RAW_CHARS, Read, Reading, Record
from training.data.read_text import text_pieces
from training.data.read_window import Incomplete, TooWide, Window
from training.data.rows import Place, Rejected
from training.errors import DataError

_TAIL_CHARS = 1 << 20  # behind the list of rows: as much is looked through for a second one


class _RestIsLost(Exception):
    """The place of the next row cannot be told; the `Rejected` that says so is out already."""


def read_json_value(stream: ByteStream, reading: Reading, list_key: str | None = None) -> Iterator[Read]:
    """Yield a `Record` or a `Rejected` for each row, then one `Rejected` for a tear.

    Args:
        stream: the file.
        reading: its name and bounds.
        list_key: where the file is one object, the key of the list of rows in it.
    """
    rows = _Rows(stream, reading)
    try:
        yield from rows.inside(list_key) if list_key is not None else rows.in_turn()
    except _RestIsLost:
        return
    if stream.tear:
        yield torn(stream, reading, rows.window.line)


class _Rows:
    def __init__(self, stream: ByteStream, reading: Reading) -> None:
        self.stream, self.reading = stream, reading
        self.odd: Counter[str] = Counter()
        self.window = Window(text_pieces(stream, reading.decoder), reading.max_row_bytes, decoder(self.odd))
        self.indentation: int | None = None
        self.found_again = False  # the window stands at a row that was looked for after a fault

    def in_turn(self) -> Iterator[Read]:
        """Rows of lists, and rows that stand by themselves."""
        while opening := self.window.peek():
            if opening == "[":
                yield from self._list()
            elif opening == ",":
                self.window.take()
            else:
                yield from self._row()

    def inside(self, list_key: str) -> Iterator[Read]:
        """Rows of the list under `list_key`, then what of the object's other values is a list of rows too."""
        try:
            self._enter(list_key)
        except (Incomplete, TooWide, RecursionError, ValueError) as error:
            raise DataError(
                f"{self.reading.name}: what stands before the list `{list_key}` cannot be read: {error or type(error).__name__}",
                do="put the list into a file of its own",
            ) from None
        yield from self._list()
        yield from self._behind(list_key)

    def _enter(self, list_key: str) -> None:
        window, key = self.window, None
        while key != list_key:
            window.peek()
            window.take()  # the opening brace, or the comma
            window.peek()
            key, _ = window.value()
            window.peek()
            window.take()  # the colon
            window.peek()
            if key != list_key:
                window.value()
                window.peek()

    def _list(self) -> Iterator[Read]:
        window = self.window
        window.take()
        while (next_one := window.peek()) != "]":
            if not next_one:
                yield from self._end(window.line, "the file ends inside a list of rows")
            yield from self._row()
            if self.found_again:
                continue
            if window.peek() == ",":
                window.take()
            elif window.peek() not in ("]", ""):
                yield from self._broken("expected a comma or the end of the list")
        window.take()

    def _row(self) -> Iterator[Read]:
        window, line = self.window, self.window.line
        indentation = window.indentation()
        if indentation is not None and (self.indentation is None or window.peek() == "{"):
            self.indentation = indentation
        self.odd.clear()
        self.found_again = False
        try:
            value, text = window.value()
        except Incomplete:
            yield from self._end(line, "the file ends inside a row")
        except TooWide:
            yield from self._skipped(line, "row_too_large")
        except RecursionError:
            yield from self._skipped(line, "too_deep")
        except json.JSONDecodeError as error:
            yield from self._broken(error.msg)
        except ValueError as error:  # an integer of too many digits
            yield from self._broken(str(error))
        else:
            yield self._checked(value, text, line)

    def _checked(self, value: Any, text: str, line: int) -> Read:
        """The row as a record, unless a second look finds what the parser lets pass."""
        try:
            raw = text.encode("utf-8")
        except UnicodeEncodeError:
            return self._decoded(text.encode("utf-8", "surrogateescape"), line)
        try:
            if not self._sound(raw, value):
                parse(text, Counter())
        except Fault as fault:
            return self.reading.reject(line, fault.reason, fault.detail, text)
        self.reading.notes.update(self.odd)
        return self._read(value if isinstance(value, dict) else not_an_object(value, line, self.reading), line)

    def _sound(self, raw: bytes, value: Any) -> bool:
        try:
            return keys_are_unique(raw, value)
        except TypeError:
            return False

    def _decoded(self, row: bytes, line: int) -> Read:
        text = self.reading.decoder.legacy(row)
        if text is None:
            return self.reading.reject(line, "not_utf8", "the row is not UTF-8; save the file as UTF-8", row)
        return self._read(row_values(text, line, self.reading), line)

    def _read(self, outcome: dict[str, Any] | Rejected, line: int) -> Read:
        if isinstance(outcome, Rejected):
            return outcome
        return Record(Place(self.reading.name, line), outcome, self.reading.bytes_before + self.stream.raw_bytes)

    def _skipped(self, line: int, reason: str) -> Iterator[Read]:
        raw = self._shown()
        if raw[:1] not in ("{", "[", '"'):
            yield from self._broken("a number too long to keep")
            return
        try:
            size = self.window.skip_value()
        except Incomplete:
            yield from self._end(line, "the file ends inside a row")
        if reason == "row_too_large":
            yield self.reading.too_large(line, size)
        else:
            yield self.reading.reject(line, reason, "lists and objects are nested too deep", raw)

    def _broken(self, message: str) -> Iterator[Read]:
        """One fault, then on to the next line that looks like a row."""
        line, raw, indentation = self.window.line, self._shown(), self.indentation
        if indentation is not None and self.window.skip_to_line(indentation):
            self.found_again = True
            yield self.reading.reject(line, "not_json", f"not JSON: {message}; reading goes on at line {self.window.line}", raw)
            return
        yield self.reading.reject(line, "damaged_file", f"not JSON: {message}; the rest of the file was not read", raw)
        raise _RestIsLost

    def _end(self, line: int, detail: str) -> Iterator[Read]:
        """The file is over too early."""
        if self.stream.tear:
            yield torn(self.stream, self.reading, line)
        else:
            yield self.reading.reject(line, "truncated_file", f"{detail}: it was cut off; the rows before that are read", self._shown())
        raise _RestIsLost

    def _behind(self, list_key: str) -> Iterator[Read]:
        line, rest = self.window.line, self.window.rest(_TAIL_CHARS)
        if rest is None:
            yield self.reading.reject(line, "second_list", f"more than {_TAIL_CHARS:,} characters follow the list `{list_key}`, not read")
            raise _RestIsLost
        try:
            others = json.loads("{" + rest.strip().removeprefix(","))
        except (ValueError, RecursionError):
            yield from self._end(line, f"the object around the list `{list_key}` does not end")
        for key, value in others.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                detail = f"`{key[:100]}` is a second list, of {len(value):,} rows; only `{list_key}` was read: give it a file of its own"
                yield self.reading.reject(line, "second_list", detail, value[0])

    def _shown(self) -> str:
        return self.window.text[self.window.at : self.window.at + RAW_CHARS]
