"""Cuts texts into tokens and shingles, as 64-bit hashes, many texts at a time and the same on every machine.

A token is a word of a script that puts spaces between words, or one character of a script that does not (Chinese, Japanese,
Thai, …). Letter case, width (ＡＢＣ), accents' encoding and punctuation do not count; symbols that carry meaning do (`<`, `+`, `€`, an
emoji), and so does a mark between two digits (`2.5`) or a minus before one. Knows nothing of rows, recipes or what the shingles are
compared for. Next: `duplicates.py` and `leakage.py` compare them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates_characters import LAST, LETTER, SEPARATOR, SPACELESS, SYMBOL, character_table, mix, normalised

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]

SHORT = 20  # tokens; one slip of the pen must not cost a short text a quarter of its shingles
WORDS, CHARACTERS = 3, 3  # tokens in a shingle, by the kind of its first one; measured in tests/benchmarks/data_duplicates.py

_PASS_CHARACTERS = 1 << 18  # text per numpy pass: keeps the arrays in the cache, and the memory bounded whatever comes
_POWER_BITS = 20  # one table for nearly everything: made again for each size, it took a tenth of the time
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers have inverses modulo 2**64
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of many texts on end: those of text `i` are `hashes[starts[i]:starts[i + 1]]`."""

    hashes: Hashes
    spaceless: NDArray[np.bool_]
    starts: Positions

    @property
    def counts(self) -> Positions:
        """Tokens per text."""
        return np.diff(self.starts)

    def of_each(self, count: int) -> "Tokens":
        """The same tokens with every `count` texts taken together as one."""
        return Tokens(self.hashes, self.spaceless, self.starts[::count])


@dataclass(frozen=True, slots=True)
class Shingles:
    """Shingles of many texts on end, with repeats: those of text `i` are `hashes[starts[i]:starts[i + 1]]`."""

    hashes: Hashes
    starts: Positions

    def owners(self) -> Positions:
        """For each shingle, the number of its text."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def tokens_of(texts: Sequence[str]) -> Tokens:
    """The tokens of each text."""
    hashes, spaceless, counts = [], [], np.zeros(len(texts), np.int64)
    for owners, pieces in _passes(texts):
        found, kinds, per_piece = _tokens_of_pass(pieces)
        hashes.append(found)
        spaceless.append(kinds)
        np.add.at(counts, owners, per_piece)
    empty = not hashes
    return Tokens(
        np.zeros(0, np.uint64) if empty else np.concatenate(hashes),
        np.zeros(0, np.bool_) if empty else np.concatenate(spaceless),
        np.concatenate(([0], np.cumsum(counts))),
    )


def shingles_of(tokens: Tokens, words: int = WORDS, characters: int = CHARACTERS, short: int = SHORT) -> Shingles:
    """Runs of `words` or `characters` tokens, by the kind of the first one.

    In a text of fewer than `short` tokens a shingle is one word or two characters; a text with fewer tokens than that is one
    shingle, one with none has none.
    """
    total, counts = len(tokens.hashes), tokens.counts
    last = np.repeat(tokens.starts[1:], counts)  # where the text of each token ends
    position = np.arange(total)
    in_short = np.repeat(counts < short, counts)
    wanted = np.where(tokens.spaceless, np.where(in_short, min(2, characters), characters), np.where(in_short, 1, words))
    first = np.zeros(total, np.bool_)
    first[tokens.starts[:-1][counts > 0]] = True
    chosen = np.flatnonzero((position + wanted <= last) | first)
    ends = np.minimum(chosen + wanted[chosen], last[chosen])
    chosen_before = np.concatenate(([0], np.cumsum(np.bincount(chosen, minlength=total))))
    return Shingles(spans(tokens.hashes, chosen, ends), chosen_before[tokens.starts])


def keys_of(tokens: Tokens) -> Hashes:
    """One hash per text over all its tokens in order; 0 for a text that has none."""
    keys = spans(tokens.hashes, tokens.starts[:-1], tokens.starts[1:])
    return np.where(tokens.counts > 0, np.maximum(keys, np.uint64(1)), np.uint64(0))


def spans(values: Hashes, starts: Positions, ends: Positions) -> Hashes:
    """A hash of `values[start:end]`, for every span at once: a polynomial modulo 2**64, read off its running sum."""
    powers, inverses = _powers(1 << max(_POWER_BITS, len(values).bit_length()))
    running = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=running[1:])
    return mix((running[ends] - running[starts]) * inverses[starts] + (ends - starts).astype(np.uint64))


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers of the base, and of its inverse, from 0 to `count`."""
    columns = []
    for base in (_BASE, _BASE_INVERSE):
        factors = np.full(count + 1, base, np.uint64)
        factors[0] = 1
        columns.append(np.multiply.accumulate(factors))
    return columns[0], columns[1]


def _passes(texts: Iterable[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Groups of (numbers of texts, pieces of them); a long text is cut, which costs the shingles at the cut and no more."""
    owners: list[int] = []
    pieces: list[str] = []
    size = 0
    for owner, piece in _pieces(texts):
        if size + len(piece) > _PASS_CHARACTERS and pieces:
            yield owners, pieces
            owners, pieces, size = [], [], 0
        owners.append(owner)
        pieces.append(piece)
        size += len(piece)
    if pieces:
        yield owners, pieces


def _pieces(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    for owner, text in enumerate(texts):
        for at in range(0, len(text), _PASS_CHARACTERS):
            yield owner, text[at : at + _PASS_CHARACTERS]


def _tokens_of_pass(pieces: list[str]) -> tuple[Hashes, NDArray[np.bool_], Positions]:
    """Hash and kind of every token of the pieces, and how many tokens each piece has."""
    table = character_table()
    characters, borders = _folded(pieces)
    kinds = _with_marks_in_numbers(characters, table.kind[characters])
    in_word = kinds == LETTER
    alone = kinds >= SPACELESS
    starts = np.flatnonzero(alone | (in_word & ~np.concatenate(([False], in_word[:-1]))))
    ends = np.flatnonzero(alone | (in_word & ~np.concatenate((in_word[1:], [False])))) + 1
    per_piece = np.diff(np.searchsorted(starts, borders), prepend=0)
    return spans(table.hash[characters], starts, ends), kinds[starts] == SPACELESS, per_piece


def _folded(pieces: list[str]) -> tuple[NDArray[np.uint32], Positions]:
    """Folded characters of all pieces, a line end after each, and where each piece ends."""
    table = character_table()
    characters, borders = _code_points(pieces)
    hard = np.flatnonzero(table.hard[characters])
    if len(hard):
        pieces = pieces.copy()
        for number in np.unique(np.searchsorted(borders, hard, side="right")):
            pieces[number] = normalised(pieces[number])
        characters, borders = _code_points(pieces)
    return table.folded[characters], borders


def _code_points(pieces: list[str]) -> tuple[NDArray[np.uint32], Positions]:
    joined = "\n".join(pieces) + "\n"
    characters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.minimum(characters, np.uint32(LAST + 1)), np.cumsum([len(piece) + 1 for piece in pieces])


def _with_marks_in_numbers(characters: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """2.5 is not 25 and not 2-5, and -5 is not 5: there, a mark counts as a symbol."""
    digit = (characters >= ord("0")) & (characters <= ord("9"))
    digits = np.flatnonzero(digit)
    marks = digits[digits > 0] - 1
    marks = marks[(kinds[marks] == SEPARATOR) & (characters[marks] > ord(" "))]
    before = np.maximum(marks - 1, 0)
    free = (characters[marks] == ord("-")) & ((marks == 0) | (kinds[before] == SEPARATOR))
    kinds[marks[free | (digit[before] & (marks > 0))]] = SYMBOL
    return kinds
