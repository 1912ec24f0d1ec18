"""How much of each source and topic is trained on, and which rows are held back: always by the hash of a row's content.

Of a group that must shrink, the rows with the smallest hashes stay; a group that must grow is repeated whole, and the
remainder again goes to the smallest hashes. So the choice does not depend on file order, and adding rows replaces old ones only where
a quota is full. Caps come first, then weights. Repeat training rows only: split before you balance. Knows nothing of what a
row says. Next: `profile.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.errors import DataError
from training.sections import Section

if TYPE_CHECKING:  # numpy takes 0.3 s to import, and a recipe is read without it
    import numpy as np
    from numpy.typing import NDArray

Side = Literal["train", "validation"]
Weight = Annotated[float, Field(ge=0, le=1000)]

_HASH_SPACE = float(1 << 32)


class BalanceSection(Section):
    """How much of each source and topic the model sees."""

    strategy: Literal["none", "weights"] = Field(
        default="none",
        description="none uses each row once; weights as often as its source's `weight` times its topic's: 2 is twice, 0.5 half of them",
    )
    max_rows_per_source: int | None = Field(default=None, ge=1, le=10**9, description="rows of one source at most, before any repeats")
    topic_field: str | None = Field(default=None, min_length=1, max_length=200, description="the record's column that names its topic")
    max_rows_per_topic: int | None = Field(
        default=None, ge=1, le=10**9, description="rows of one topic at most, over all sources, before any repeats"
    )
    topic_weights: dict[str, Weight] = Field(
        default_factory=dict, description="how often a topic's rows are used, relative to the others; 1 if not listed, 0 for never"
    )
    total_rows: int | None = Field(
        default=None, ge=1, le=10**9, description="training rows after mixing, in the same shares; null is what the weights give"
    )
    max_repeats: int = Field(default=4, ge=1, le=100, description="times one row may be used at most, whatever the weights say")

    @model_validator(mode="after")
    def _topics_have_a_field(self) -> Self:
        if self.topic_field is None and (self.max_rows_per_topic or self.topic_weights):
            raise ValueError("`max_rows_per_topic` and `topic_weights` need `topic_field`: the column that names the topic")
        if self.topic_weights and self.strategy == "none":
            raise ValueError("`topic_weights` are used by `strategy: weights` only")
        return self


class SourceShare(BaseModel):
    """One source's part in the mix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    weight: float
    rows_in: int = Field(description="rows that could be taken")
    capped: int = Field(description="rows left aside by a cap")
    share_wanted: float = Field(description="of all rows out, 0–1")
    rows_out: int = Field(description="rows trained on, repeats counted")
    repeats: int = Field(description="times the most used row is used")


@dataclass(frozen=True)
class Balanced:
    """`copies[i]` says how often row i is used: 0 is left out, more than 1 repeats it. `capped[i]` tells a cap from a weight."""

    copies: "NDArray[np.int64]"
    capped: "NDArray[np.bool_]"
    plan: tuple[SourceShare, ...]

    def reason(self, row: int) -> str | None:
        """Why row i is left out, as a code of the closed list; None when it is used."""
        if self.copies[row]:
            return None
        return "capped" if self.capped[row] else "sampled_out"


def rank_of(key: str) -> int:
    """A row's place in every choice, from the hex digest (32 digits or more) of its content: 0 ≤ rank < 2**63."""
    return int(key[16:32], 16) >> 1  # other digits than `side` uses: who is chosen must not depend on the side


def side(question_key: str, fraction: float) -> Side:
    """On which side a question falls, by its own hash alone: adding rows never moves an old one."""
    return "validation" if int(question_key[:8], 16) / _HASH_SPACE < fraction else "train"


def folds(question_keys: Sequence[str], k: int) -> list[int]:
    """The fold (0 … k-1) of each row, for small data; the same question is always in the same one, whatever else is there.

    Raises:
        DataError: a fold would be empty.
    """
    # Other digits than `side` uses, so that the two choices are independent.
    chosen = [int(key[8:24], 16) % k for key in question_keys]
    if empty := k - len(set(chosen)):
        raise DataError(
            f"{empty} of {k} folds are empty: there are {len(set(question_keys))} different questions",
            why="a fold without rows has nothing to be judged on",
            do="use fewer folds, or add rows",
        )
    return chosen


def balance(
    section: BalanceSection, ranks: Iterable[int], sources: Iterable[str], topics: Iterable[str], weights: Mapping[str, float]
) -> Balanced:
    """Choose the rows. `ranks`, `sources` and `topics` run over the same rows; a topic of "" is no topic and is never capped.

    Raises:
        DataError: every topic of all that is left has weight 0.
    """
    import numpy as np

    rank = np.fromiter(ranks, dtype=np.int64)
    source, source_names = _coded(sources, len(rank))
    topic, topic_names = _coded(topics, len(rank))
    capped = _over_cap(rank, source, section.max_rows_per_source)
    capped |= _over_topic_cap(rank, topic, topic_names, capped, section.max_rows_per_topic)
    source_weights = np.array([weights.get(name, 1.0) for name in source_names])
    topic_weights = np.array([section.topic_weights.get(name, 1.0) for name in topic_names])
    wanted = source_weights[source] * topic_weights[topic] if section.strategy == "weights" else np.ones(len(rank))
    left = np.flatnonzero(~capped & (wanted > 0))
    if len(rank) and not len(left):
        raise DataError(
            "nothing is left to train on: every topic that has rows has weight 0",
            do="give a topic a weight above 0, or set `balance.strategy: none`",
        )
    copies = np.zeros(len(rank), dtype=np.int64)
    # Without weights all rows are one group: the smallest hashes of all stay, whatever their source.
    cell = source[left] * len(topic_names) + topic[left] if section.strategy == "weights" else np.zeros(len(left), dtype=np.int64)
    copies[left] = _copies(section, rank[left], cell, wanted[left])
    shares = np.bincount(source[left], wanted[left], minlength=len(source_names)) / max(float(wanted[left].sum()), 1e-9)
    return Balanced(copies, capped, tuple(_plan(source, source_names, source_weights, shares, copies, capped)))


def _copies(
    section: BalanceSection, rank: "NDArray[np.int64]", cell: "NDArray[np.int64]", wanted: "NDArray[np.float64]"
) -> "NDArray[np.int64]":
    """How often each row is used; rows of one cell are all wanted equally often."""
    import numpy as np

    _, cell, rows = np.unique(cell, return_inverse=True, return_counts=True)
    limits = rows * (section.max_repeats if section.strategy == "weights" else 1)
    shares = np.bincount(cell, wanted).astype(np.float64)
    if section.total_rows is None:  # what a full cell cannot take is then nobody else's
        shares = np.minimum(shares, limits.astype(np.float64))
    quotas = _apportioned(section.total_rows or round(float(shares.sum())), shares, limits)
    whole, rest = np.divmod(quotas, np.maximum(rows, 1))
    return np.asarray(whole[cell] + (_position(rank, cell) < rest[cell]))


def _coded(names: Iterable[str], rows: int) -> tuple["NDArray[np.int64]", list[str]]:
    """A number for each name in order of appearance; a million names take 8 MB."""
    import numpy as np

    known: dict[str, int] = {}
    codes = np.fromiter((known.setdefault(name, len(known)) for name in names), dtype=np.int64)
    if len(codes) != rows:
        raise AssertionError(f"{len(codes)} names for {rows} rows")
    return codes, list(known)


def _position(rank: "NDArray[np.int64]", group: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Each row's place in its group by rank, from 0; equal ranks by their order."""
    import numpy as np

    order = np.lexsort((rank, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(order)))
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return position


def _over_cap(rank: "NDArray[np.int64]", group: "NDArray[np.int64]", most: int | None) -> "NDArray[np.bool_]":
    import numpy as np

    return _position(rank, group) >= most if most else np.zeros(len(rank), dtype=bool)


def _over_topic_cap(
    rank: "NDArray[np.int64]", topic: "NDArray[np.int64]", names: list[str], gone: "NDArray[np.bool_]", most: int | None
) -> "NDArray[np.bool_]":
    """Rows over their topic's cap among those that are not gone yet."""
    import numpy as np

    over = np.zeros(len(rank), dtype=bool)
    if most:
        counted = np.flatnonzero(~gone & (topic != names.index("")) if "" in names else ~gone)
        over[counted] = _over_cap(rank[counted], topic[counted], most)
    return over


def _apportioned(total: int, shares: "NDArray[np.float64]", limits: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Whole numbers near `total` × share that add up to `total`, or to what the limits allow.

    What a full group cannot take goes to the others by their shares. Rounding is by largest remainder.
    """
    import numpy as np

    quotas = np.zeros(len(shares), dtype=np.int64)
    unfilled = (shares > 0) & (limits > 0)
    left = min(total, int(limits[unfilled].sum()))
    while unfilled.any():
        ideal = np.where(unfilled, left * shares / shares[unfilled].sum(), 0.0)
        full = unfilled & (ideal >= limits)
        if not full.any():
            quotas[unfilled] = np.floor(ideal[unfilled]).astype(np.int64)
            rest = left - int(quotas[unfilled].sum())
            most_owed = np.argsort(np.where(unfilled, np.floor(ideal) - ideal, np.inf), kind="stable")
            quotas[most_owed[:rest]] += 1
            break
        quotas[full] = limits[full]
        left -= int(limits[full].sum())
        unfilled &= ~full
    return quotas


def _plan(
    source: "NDArray[np.int64]",
    names: list[str],
    weights: "NDArray[np.float64]",
    wanted: "NDArray[np.float64]",
    copies: "NDArray[np.int64]",
    capped: "NDArray[np.bool_]",
) -> Iterable[SourceShare]:
    for code, name in enumerate(names):
        rows = source == code
        yield SourceShare(
            source=name,
            weight=float(weights[code]),
            rows_in=int(rows.sum()),
            capped=int(capped[rows].sum()),
            share_wanted=float(wanted[code]),
            rows_out=int(copies[rows].sum()),
            repeats=int(copies[rows].max()),
        )
