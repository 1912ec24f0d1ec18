"""MinHash signatures: the share of equal entries in two of them estimates the Jaccard similarity of two sets of shingles.

Entry k is the smallest of the shingles' hashes under function k, so a signature depends on the text alone, not on what it was made with or
beside. Numpy does a thousand texts at a time: as fast as the Rust library measured against it, which hands its result over as lists.
Knows nothing of thresholds. Next: `duplicates_clusters.py`.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates_characters import mix
from training.data.shingles import Shingles, shingles_of, tokens_of

Signatures = NDArray[np.uint32]  # (texts, permutations)

EMPTY = np.uint32(0xFFFFFFFF)  # every entry of a text without a single shingle

_FAMILY_SEED = np.uint64(0x7475_6E65_6761_7465)  # fixed, so that signatures of two runs can be compared
_TEXTS_AT_ONCE = 1000  # their shingles stay in the cache while every function passes over them


def signatures(texts: Sequence[str], permutations: int) -> Signatures:
    """Signature of each text."""
    parts = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
    found = [signatures_of(shingles_of(tokens_of(part)), permutations) for part in parts]
    return np.concatenate([np.zeros((0, permutations), np.uint32), *found])


def signature(text: str, permutations: int) -> NDArray[np.uint32]:
    """Signature of one text; many at once are far cheaper each."""
    return np.asarray(signatures([text], permutations)[0])


def signatures_of(shingles: Shingles, permutations: int) -> Signatures:
    """Signature of each set of shingles."""
    flips, factors = _family(permutations)
    filled = np.flatnonzero(np.diff(shingles.starts))
    starts = shingles.starts[filled]
    hashes = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
    columns = np.empty((permutations, len(filled)), np.uint32)
    scratch = np.empty_like(hashes)
    for number in range(permutations if len(filled) else 0):
        np.bitwise_xor(hashes, flips[number], out=scratch)
        np.multiply(scratch, factors[number], out=scratch)
        np.minimum.reduceat(scratch, starts, out=columns[number])
    found = np.full((len(shingles.starts) - 1, permutations), EMPTY, np.uint32)
    found[filled] = columns.T
    return found


@lru_cache(maxsize=4)
def _family(permutations: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Of each function h -> (h ^ flip) * factor modulo 2**32 the flip and the odd factor."""
    drawn = mix(np.arange(1, 2 * permutations + 1, dtype=np.uint64) * _FAMILY_SEED)
    numbers = (drawn >> np.uint64(32)).astype(np.uint32)
    return numbers[:permutations], numbers[permutations:] | np.uint32(1)
