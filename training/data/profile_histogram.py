"""Counts of whole numbers that stay small for any number of rows: exact up to 4095, to 1.6 % beyond.

A bin is named by its lower edge. Quantiles are exact where bins are one wide. Knows nothing of what is counted.
Next: `profile.py`.
"""

import math
from collections import Counter
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_EXACT_BELOW = 1 << 12
_KEPT_BITS = 7  # of a larger number: a bin is less than 1/64 of its lower edge wide


def edge_below(value: int) -> int:
    """The lower edge of the bin that `value` falls into."""
    if value < _EXACT_BELOW:
        return max(value, 0)
    shift = value.bit_length() - _KEPT_BITS
    return value >> shift << shift


class Histogram(BaseModel):
    """How often each number was seen: `bins` are (lower edge, count) in rising order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: tuple[tuple[int, int], ...] = ()
    total: int = Field(default=0, ge=0, description="sum of all numbers, exact")

    @model_validator(mode="after")
    def _edges_rise(self) -> Self:
        edges = [edge for edge, _ in self.bins]
        if edges != sorted(set(edges)):
            raise ValueError("the bins of a histogram must rise")
        return self

    @classmethod
    def of(cls, counts: Counter[int], total: int) -> "Histogram":
        """From counts by lower edge and the exact sum of the numbers."""
        return cls(bins=tuple(sorted(counts.items())), total=total)

    @property
    def rows(self) -> int:
        """How many numbers were counted."""
        return sum(count for _, count in self.bins)

    @property
    def mean(self) -> float:
        """Exact mean; 0 when nothing was counted."""
        return self.total / rows if (rows := self.rows) else 0.0

    def quantile(self, share: float) -> int:
        """The smallest bin edge such that at least `share` of the numbers lie in its bin or below; 0 when there are none."""
        needed, seen = math.ceil(share * self.rows), 0
        for edge, count in self.bins:
            seen += count
            if seen >= needed:
                return edge
        return 0

    def counts_between(self, edges: list[int]) -> list[int]:
        """Rows in [edges[i], edges[i+1]), the last one open to the top; numbers below the first edge count into the first."""
        counts = [0] * len(edges)
        at = 0
        for edge, count in self.bins:
            while at + 1 < len(edges) and edge >= edges[at + 1]:
                at += 1
            counts[at] += count
        return counts
