"""Counts groups of duplicates for the profile, from arrays with one entry per row.

Knows nothing of how rows were found to be alike; that is `duplicates.py`. Next: `profile.py`.
"""

from typing import TYPE_CHECKING, Any

from training.data.profile import DuplicateCounts

if TYPE_CHECKING:  # numpy takes 0.3 s to import
    import numpy as np
    from numpy.typing import NDArray


def duplicate_counts(
    kept_instead: "NDArray[Any]", exact: "NDArray[np.bool_]", near: "NDArray[np.bool_]", sources: "NDArray[Any]", conflicting: int = 0
) -> DuplicateCounts:
    """Of all rows: the row kept in each one's place, whether it was dropped as exact or near, and a number for its source."""
    import numpy as np

    if not len(kept_instead):
        return DuplicateCounts(conflicting=conflicting)
    sizes = np.bincount(kept_instead)
    other_source = sources != sources[kept_instead]
    return DuplicateCounts(
        exact_clusters=len(np.unique(kept_instead[exact])),
        near_clusters=len(np.unique(kept_instead[near])),
        largest_cluster=int(sizes.max()) if sizes.max() > 1 else 0,
        across_sources=len(np.unique(kept_instead[other_source])),
        conflicting=conflicting,
    )
