"""Finds which of many known texts (needles) stand inside a row, whole or in long runs, whatever stands around them.

A needle's share is the part of its tokens covered by runs of n tokens that the row has too: one changed word costs the runs
through it, hardly the share. n is a sixth of the needle, within bounds, so that a short needle is found as well; of one shorter
than twelve words every run must be there. Runs that several prompts have in common are a template and prove nothing: a needle is
found by the runs that are its own, and only then measured by all of them. Knows nothing of questions and answers.
Next: `leakage.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.shingles import Hashes, Positions, Shingles, Tokens, shingles_of, spans

Hit = tuple[int, float]  # number of the needle, share of it

CHARACTERS_PER_WORD = 1.5  # of Chinese
_RUNS = np.array([3, 5, 8, 13, 20, 30, 50, 75])  # lengths of a run; few, because each costs a pass over the rows
_WHOLE_BELOW = 12  # words
_POSITION_BITS = 16  # of a place; what stands later in a needle is not looked for
_BLOOM_SIZE = 1 << 18
_PIECE = 3  # tokens; the shortest run


@dataclass(frozen=True, slots=True)
class _Runs:
    """All runs of one length that only one prompt has, sorted; `needles` and `positions` say where each stands."""

    length: int
    hashes: Hashes
    needles: Positions
    positions: Positions
    all_of: Shingles  # every run of every needle, in order
    maybe: NDArray[np.bool_]  # by the lowest bits of a hash: whether it can be there at all

    def places_in(self, shingles: Shingles, needle_count: int) -> tuple[Positions, Positions]:
        """(row × needle, position in the needle) of every run of the rows, sorted and without repeats."""
        promising = self.maybe[shingles.hashes & np.uint64(_BLOOM_SIZE - 1)]
        hashes, rows = shingles.hashes[promising], shingles.owners()[promising]
        first = np.searchsorted(self.hashes, hashes, "left")
        times = np.searchsorted(self.hashes, hashes, "right") - first
        entries = np.arange(int(times.sum())) + np.repeat(first - (np.cumsum(times) - times), times)
        cells = np.repeat(rows, times) * needle_count + self.needles[entries]
        packed = np.unique((cells << _POSITION_BITS) | self.positions[entries])
        return packed >> _POSITION_BITS, packed & ((1 << _POSITION_BITS) - 1)


class RowRuns:
    """Runs of rows, of any length, without those that begin or end with a piece which no needle has."""

    def __init__(self, tokens: Tokens, pieces: NDArray[np.bool_]) -> None:
        """`pieces`: by the lowest bits of a hash, whether a needle can have that run of three tokens."""
        self._tokens = tokens
        self._last = np.repeat(tokens.starts[1:], tokens.counts)  # where the row of each token ends
        starts = np.flatnonzero(np.arange(_PIECE, len(tokens.hashes) + 1) <= self._last[: 1 - _PIECE])
        hashes = spans(tokens.hashes, starts, starts + _PIECE)
        there = pieces[hashes & np.uint64(_BLOOM_SIZE - 1)]
        self._piece_at = np.zeros(len(tokens.hashes), np.bool_)
        self._piece_at[starts[there]] = True

    def of(self, length: int) -> Shingles:
        """Those of one length, which is three or more."""
        more = length - _PIECE
        begins = self._piece_at[: len(self._piece_at) - more] & self._piece_at[more:]
        starts = np.flatnonzero(begins)
        starts = starts[starts + length <= self._last[starts]]
        return Shingles(spans(self._tokens.hashes, starts, starts + length), np.searchsorted(starts, self._tokens.starts))


class NeedleIndex:
    """Texts that are looked for inside rows."""

    def __init__(self, needles: Tokens, prompts: Hashes, longest_run: int, containment: float, shortest: int) -> None:
        """`prompts` has a key of the prompt each needle belongs to; `longest_run` and `shortest` count words."""
        spaceless = np.concatenate(([0], np.cumsum(needles.spaceless)))[needles.starts]
        scale = np.where(2 * np.diff(spaceless) > needles.counts, CHARACTERS_PER_WORD, 1.0)
        sizes = needles.counts
        lengths = _RUNS[np.searchsorted(_RUNS, np.clip(sizes // 6, 3 * scale, longest_run * scale), "right") - 1]
        lengths[sizes < shortest * scale] = 0
        self._count = len(sizes)
        self._runs = [_runs_of(needles, prompts, lengths, int(length)) for length in np.unique(lengths[lengths > 0])]
        self._own_sizes = np.zeros(self._count)
        for runs in self._runs:
            order = np.lexsort((runs.positions, runs.needles))
            self._own_sizes += _covered(runs.needles[order], runs.positions[order], runs.length, self._count)
        self._wanted = np.where(sizes < _WHOLE_BELOW * scale, 1.0, containment)
        self._wanted_own = np.where(self._own_sizes < _WHOLE_BELOW * scale, 1.0, containment)
        self.pieces = _maybe(shingles_of(needles, _PIECE, _PIECE, short=0).hashes)

    def best(self, runs_of: Callable[[int], Shingles]) -> dict[int, Hit]:
        """For each row that has one: the needle of which it holds most. `runs_of` gives the rows' runs of a length."""
        hits: dict[int, Hit] = {}
        for runs in self._runs:
            shingles = runs_of(runs.length)
            for row, needle in self._likely(runs, shingles):
                share = _share(runs, needle, shingles.hashes[shingles.starts[row] : shingles.starts[row + 1]])
                if share >= self._wanted[needle] and (row not in hits or share > hits[row][1]):
                    hits[row] = needle, share
        return hits

    def _likely(self, runs: _Runs, shingles: Shingles) -> Iterator[tuple[int, int]]:
        """(row, needle) where enough of the needle's own text is in the row."""
        cells, positions = runs.places_in(shingles, self._count)
        distinct, numbers = np.unique(cells, return_inverse=True)
        needles = distinct % self._count
        covered = _covered(numbers, positions, runs.length, len(distinct))
        enough = covered >= self._wanted_own[needles] * self._own_sizes[needles]
        yield from (divmod(cell, self._count) for cell in distinct[enough].tolist())


def _covered(owners: Positions, positions: Positions, length: int, count: int) -> NDArray[np.float64]:
    """For each owner, how many tokens its runs cover; the runs sorted by owner and position."""
    fresh = np.full(len(owners), length)
    fresh[:-1] = np.where(owners[1:] == owners[:-1], np.minimum(np.diff(positions), length), length)
    return np.bincount(owners, fresh, count).astype(np.float64)


def _share(runs: _Runs, needle: int, row: Hashes) -> float:
    """Share of the needle's tokens that the row has in runs; a scattered one below 1, whatever it covers."""
    wanted = runs.all_of.hashes[runs.all_of.starts[needle] : runs.all_of.starts[needle + 1]]
    there = np.isin(wanted, row)
    covered = _covered(np.zeros(int(there.sum()), np.int64), np.flatnonzero(there), runs.length, 1)[0]
    return 1.0 if there.all() else min(0.99, float(covered) / (len(wanted) + runs.length - 1))


def _runs_of(needles: Tokens, prompts: Hashes, lengths: Positions, length: int) -> _Runs:
    shingles = shingles_of(needles, length, length, short=0)
    owners = shingles.owners()
    positions = np.arange(len(owners)) - shingles.starts[owners]
    own = ~np.isin(shingles.hashes, _shared(shingles.hashes, prompts[owners]))
    chosen = own & (lengths[owners] == length) & (positions < (1 << _POSITION_BITS))
    order = np.argsort(shingles.hashes[chosen], kind="stable")
    hashes = shingles.hashes[chosen][order]
    return _Runs(length, hashes, owners[chosen][order], positions[chosen][order], shingles, _maybe(hashes))


def _maybe(hashes: Hashes) -> NDArray[np.bool_]:
    maybe = np.zeros(_BLOOM_SIZE, np.bool_)
    maybe[hashes & np.uint64(_BLOOM_SIZE - 1)] = True
    return maybe


def _shared(hashes: Hashes, prompts: Hashes) -> Hashes:
    """The runs that more than one prompt has."""
    pairs = np.unique(np.stack((hashes, prompts), axis=1), axis=0)
    runs, times = np.unique(pairs[:, 0], return_counts=True)
    return runs[times > 1]
