"""Regular expressions with a bound on their time: a bomb ends in an error, never in a hang.

In a rule a pattern is written between slashes, and applied to folded text, whatever the case; in a JSON schema it is taken as it is.
The bound is processor time of this process, so a busy machine does not trip it. Next: `phrases.py`.
"""

from collections.abc import Iterator
from functools import lru_cache

import regex

from evaluation.errors import PatternTooSlow
from evaluation.text import simplify

TIMEOUT_S = 0.5


class TimedPattern:
    """A compiled pattern whose every search takes about `TIMEOUT_S` at most."""

    def __init__(self, written: str, *, folded: bool) -> None:
        """Raises ValueError for what is no regular expression."""
        self.written = written
        try:
            self._compiled = regex.compile(simplify(written), regex.IGNORECASE) if folded else regex.compile(written)
        except regex.error as error:
            raise ValueError(f"/{written}/ is no regular expression: {error}") from error

    def find(self, text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Spans of every match that is not empty.

        Raises:
            PatternTooSlow: the search ran out of time.
        """
        try:
            for match in self._compiled.finditer(text, start, len(text) if end is None else end, timeout=TIMEOUT_S):
                if match.end() > match.start():
                    yield match.span()
        except TimeoutError:
            raise PatternTooSlow(self.written, len(text), TIMEOUT_S) from None

    def matches(self, text: str) -> bool:
        """Whether it matches anywhere, be it nothing. Raises as `find` does."""
        try:
            return self._compiled.search(text, timeout=TIMEOUT_S) is not None
        except TimeoutError:
            raise PatternTooSlow(self.written, len(text), TIMEOUT_S) from None


@lru_cache(maxsize=1024)
def timed(written: str, *, folded: bool = True) -> TimedPattern:
    """The pattern, compiled once."""
    return TimedPattern(written, folded=folded)
