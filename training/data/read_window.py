"""A sliding window over the text of a file: parse the value at its start, skip one, or find the next line that looks like one.

The window holds one value at most, up to a bound, so a file of any size takes the memory of its largest row. Line numbers are
counted on the way. Knows nothing of rows. Next: `read_json_array.py`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_STRUCTURE = re.compile(r'"|[\[{]+|[\]}]+')
_IN_STRING = re.compile(r'["\\]')
_WORD = re.compile(r"[\w+.\\-]*\s*")
_EDGE = 16  # a fault this near to the window's end may be a value that goes on behind it
_LINE_START = 256  # indentation before a row that can still be found again


class Incomplete(Exception):
    """The text ends inside a value."""


class TooWide(Exception):
    """The value is larger than the window may be."""


class Window:
    """Args: the text in pieces, the largest value in characters, and the parser's hook for NaN and Infinity."""

    def __init__(self, pieces: Iterator[str], limit: int, decoder: json.JSONDecoder) -> None:
        self.text, self.at, self.line = "", 0, 1
        self._pieces, self._limit, self._decoder = pieces, limit, decoder

    def peek(self) -> str:
        """The next character that is not white space, or nothing at the end."""
        while True:
            self._advance(self._match_end(_SPACE))
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def take(self) -> None:
        """Go past the character that `peek` showed."""
        self._advance(self.at + 1)

    def value(self) -> tuple[Any, str]:
        """The value at the start of the window and its text; the window moves behind it.

        Raises:
            Incomplete, TooWide, RecursionError, json.JSONDecodeError, ValueError: the window has not moved.
        """
        while True:
            try:
                value, end = self._decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not (error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _EDGE):
                    raise
                if self._widen():
                    continue
                if error.msg.startswith("Unterminated string") or _WORD.fullmatch(self.text, error.pos):
                    raise Incomplete from None
                raise
            if end == len(self.text) and self._widen():  # a number may go on
                continue
            if end - self.at > self._limit:
                raise TooWide
            source = self.text[self.at : end]
            self._advance(end)
            return value, source

    def skip_value(self) -> int:
        """Go past an object or list by its brackets, parsing nothing and holding nothing; returns its length.

        Raises:
            Incomplete: it does not end.
        """
        depth = length = 0
        while True:
            found = _STRUCTURE.search(self.text, self.at)
            end = found.end() if found else len(self.text)
            if found and (mark := found.group())[0] in "]}":
                end = found.start() + min(depth, len(mark))
                depth -= min(depth, len(mark))
            elif found:
                depth += len(mark) if mark != '"' else 0
            length += end - self.at
            self._advance(end)
            if found and found.group() == '"':
                length += self._skip_string()
            if found and depth == 0:
                return length
            if not found and not self._more():
                raise Incomplete

    def _skip_string(self) -> int:
        length = 0
        while True:
            found = _IN_STRING.search(self.text, self.at)
            end = found.end() if found else len(self.text)
            length += end - self.at
            self._advance(end)
            if found and found.group() == '"':
                return length
            if self.at == len(self.text) and not self._more():
                raise Incomplete
            if found:  # a backslash: whatever follows is not the string's end
                length += 1
                self._advance(self.at + 1)

    def skip_to_line(self, indentation: int) -> bool:
        """Go to the next line that begins with so many blanks and a brace; False at the end of the text."""
        row = re.compile(rf"\n[ \t]{{{min(indentation, _LINE_START)}}}(?=\{{)")
        while not (found := row.search(self.text, self.at)):
            self._advance(max(self.at, len(self.text) - _LINE_START - 2))
            if not self._more():
                self._advance(len(self.text))
                return False
        self._advance(found.end())
        return True

    def indentation(self) -> int | None:
        """Blanks before the window's start, where nothing else stands before it in its line."""
        before = self.text[max(0, self.at - _LINE_START) : self.at]
        blanks = before[before.rfind("\n") + 1 :]
        starts = "\n" in before or self.at == len(before)
        return len(blanks) if starts and not blanks.strip(" \t") else None

    def rest(self, limit: int) -> str | None:
        """All the text that is left, or None where it is longer than `limit`."""
        while len(self.text) - self.at <= limit and self._more():
            pass
        return self.text[self.at :] if len(self.text) - self.at <= limit else None

    def _match_end(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        return found.end() if found else self.at

    def _advance(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _more(self) -> bool:
        """Another piece behind the window, whose past is let go but for the start of its line."""
        piece = next(self._pieces, "")
        past = max(0, self.at - _LINE_START)
        self.text, self.at = self.text[past:] + piece, self.at - past
        return bool(piece)

    def _widen(self) -> bool:
        """Twice the window, so that a large value is parsed few times; False at the end of the text."""
        if len(self.text) - self.at > self._limit:
            raise TooWide
        goal, grew = 2 * (len(self.text) - self.at), False
        while len(self.text) - self.at <= min(goal, self._limit) and self._more():
            grew = True
        return grew
