"""Finds groups of rows whose signatures are alike, in time and memory linear in the rows, and picks the row kept of each group.

Signatures are cut into bands; rows that agree in a whole band are sorted next to each other and compared with a few neighbours
and with the first of their kind, never all with all, so that a million copies cost a million comparisons. Rows refused again and
again are alike by a template; they are looked at once more by what is their own. `same`, which has the texts, decides; a row is
dropped only if it is the same as the very row kept in its place. No Python object per row, and nothing depends on who made the
signatures.
Next: `duplicates_same.py` is the usual `same`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates_characters import mix
from training.data.duplicates_section import Rule
from training.data.duplicates_signatures import EMPTY, Signatures
from training.data.shingles import Hashes, Positions

Same = Callable[[Positions, Positions], NDArray[np.bool_]]  # pairs of row numbers -> whether the two are the same

OWN_SIMILARITY = 0.5  # share of shingles, without those of a template, that two rows must have in common

_MISSED_AT_THRESHOLD = 0.015  # share of pairs just at the threshold that share no band
_NEIGHBOURS = 4
_HALF, _LOWER_HALF = np.uint64(32), np.uint64(0xFFFFFFFF)
_PAIRS_AT_ONCE = 1 << 16
_REFUSALS = 8  # of one row; then it is taken to be alike by a template only
_ROUNDS = 16  # of choosing a kept row in what is left of a group; what is left after that is kept


@dataclass(frozen=True, slots=True)
class Clusters:
    """For each row the first row of its group, and what decided that two rows of a group belong together."""

    labels: Positions
    same: Same


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows per band): the longest bands that still miss at most 1.5 % of the pairs just at the threshold."""
    for width in range(permutations, 1, -1):
        bands = permutations // width
        if float((1 - threshold**width) ** bands) <= _MISSED_AT_THRESHOLD:
            return bands, width
    return permutations, 1


def estimate(signatures: Signatures, left: Positions, right: Positions) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of pairs of rows; the standard error is sqrt(s (1 - s) / permutations)."""
    found = [
        (signatures[left[start : start + _PAIRS_AT_ONCE]] == signatures[right[start : start + _PAIRS_AT_ONCE]]).mean(axis=1)
        for start in range(0, len(left), _PAIRS_AT_ONCE)
    ]
    return np.concatenate([np.zeros(0), *found])


def find_clusters(
    signatures: Signatures,
    threshold: float,
    same: Same | None = None,
    groups: Hashes | None = None,
    among: Positions | None = None,
    own_signatures: Callable[[Positions], Signatures] | None = None,
) -> Clusters:
    """Group the rows that are alike.

    Args:
        signatures: of all rows, in their order.
        threshold: Jaccard similarity from which two rows may be the same.
        same: the last word on a pair; without it, the estimate by the signatures is.
        groups: rows of different groups are never compared (a preference pair and a conversation, two system prompts).
        among: the rows that are looked at, in order; all by default.
        own_signatures: of the rows asked for, without what they share with a template.
    """
    rows, permutations = signatures.shape
    decide = same or (lambda left, right: estimate(signatures, left, right) >= threshold)
    slack = 3 * float(np.sqrt(threshold * (1 - threshold) / permutations)) if same else 0.0
    search = _Search(rows, decide, lambda left, right: estimate(signatures, left, right) >= threshold - slack)
    comparable = np.setdiff1d(np.arange(rows) if among is None else among, _empty(signatures))
    bands, width = bands_for(threshold, permutations)
    for band in range(bands):
        keys = _band_keys(signatures[:, band * width : (band + 1) * width], groups)
        for left, right in _candidates(comparable, keys[comparable]):
            search.join(left, right)
    if own_signatures is not None and len(alike := search.often_refused()):
        their_groups = None if groups is None else groups[alike]
        again = find_clusters(own_signatures(alike), OWN_SIMILARITY, lambda left, right: decide(alike[left], alike[right]), their_groups)
        search.unite(alike, alike[again.labels])
    return Clusters(search.labels, decide)


def kept(clusters: Clusters, rule: Rule, lengths: Positions, weights: NDArray[np.float64]) -> Positions:
    """For each row the row that is kept in its place: itself, or the best of its group that is the same as it.

    The best is the first, the longest or the heaviest; among equals the first.
    """
    instead = np.arange(len(clusters.labels))
    merit = {"first": np.zeros(len(lengths)), "longest": lengths, "highest_weight": weights}[rule]
    sizes = np.bincount(clusters.labels, minlength=len(instead))
    left = np.flatnonzero(sizes[clusters.labels] > 1)
    for _ in range(_ROUNDS):
        left = left[np.lexsort((left, -merit[left], clusters.labels[left]))]
        labels = clusters.labels[left]
        leads = np.concatenate(([True], labels[1:] != labels[:-1])) if len(left) else np.zeros(0, np.bool_)
        leaders = left[leads][np.cumsum(leads) - 1] if len(left) else left
        others, their_leaders = left[~leads], leaders[~leads]
        if not len(others):
            break
        replaced = clusters.same(others, their_leaders)
        instead[others[replaced]] = their_leaders[replaced]
        left = others[~replaced]
    return instead


class _Search:
    """Joins rows pair by pair; remembers which pairs were refused."""

    def __init__(self, rows: int, same: Same, may_be_same: Same) -> None:
        self.labels = np.arange(rows)
        self._same, self._may_be_same = same, may_be_same
        self._refused = np.zeros(0, np.uint64)
        self._refusals = np.zeros(rows, np.int32)

    def join(self, left: Positions, right: Positions) -> None:
        """Join the rows of each pair that are the same and not yet in one group."""
        tired = np.minimum(self._refusals[left], self._refusals[right]) >= _REFUSALS
        open_pairs = (self.labels[left] != self.labels[right]) & ~tired
        left, right = left[open_pairs], right[open_pairs]
        likely = self._may_be_same(left, right)
        pairs = np.setdiff1d(_codes(left[likely], right[likely]), self._refused)
        left, right = (pairs >> _HALF).astype(np.int64), (pairs & _LOWER_HALF).astype(np.int64)
        same = self._same(left, right)
        self._refused = np.union1d(self._refused, pairs[~same])
        for side in (left[~same], right[~same]):
            self._refusals += np.bincount(side, minlength=len(self._refusals))
        self.unite(left[same], right[same])

    def often_refused(self) -> Positions:
        """The rows that were compared often enough to say that more of it is useless."""
        return np.flatnonzero(self._refusals >= _REFUSALS)

    def unite(self, left: Positions, right: Positions) -> None:
        """Give both rows of every pair, and all that are already with them, the smallest label among them."""
        one, other = self.labels[left], self.labels[right]
        while (apart := one != other).any():
            np.minimum.at(self.labels, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
            while ((further := self.labels[self.labels]) != self.labels).any():
                self.labels = further
            one, other = self.labels[one], self.labels[other]


def _empty(signatures: Signatures) -> Positions:
    """The rows without a shingle; the first column finds the few to look at, without a copy of all."""
    suspects = np.flatnonzero(signatures[:, 0] == EMPTY)
    return np.asarray(suspects[(signatures[suspects] == EMPTY).all(axis=1)])


def _codes(left: Positions, right: Positions) -> Hashes:
    return (np.minimum(left, right).astype(np.uint64) << _HALF) | np.maximum(left, right).astype(np.uint64)


def _band_keys(columns: Signatures, groups: Hashes | None) -> Hashes:
    keys = np.zeros(len(columns), np.uint64) if groups is None else mix(groups)
    for column in columns.T:
        keys = mix(keys * np.uint64(0x9E3779B97F4A7C15) + column)
    return keys


def _candidates(rows: Positions, keys: Hashes) -> Iterator[tuple[Positions, Positions]]:
    """Pairs of rows with equal keys: each with the first of its kind, then each with the few that follow it."""
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    new = np.ones(len(rows), np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    bucket = np.cumsum(new) - 1
    yield rows[new][bucket][~new], rows[~new]
    near = [np.flatnonzero(bucket[distance:] == bucket[:-distance]) for distance in range(1, _NEIGHBOURS + 1)]
    yield (
        np.concatenate([rows[at] for at in near]),
        np.concatenate([rows[at + distance] for distance, at in enumerate(near, start=1)]),
    )
