"""What one gateway worker counts of each release, finely enough to compare two of them; and the same as a value to add and subtract.

Times go into logarithmic buckets 9 % wide: the buckets of `metrics.py` are as wide as 2 to 1, and two equal releases on both sides of
such a bound would look different. Knows nothing of rollouts or SQL. Next: `rollout_judging.py`, which compares.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_PER_DOUBLING = 8
_SHORTEST_S = 1e-6

Times = Mapping[int, int]
"""bucket -> how many; bucket i holds times from 2^(i/8) up to 2^((i+1)/8) seconds."""

Ended = Literal["ok", "client_error", "server_error", "aborted", "timeout", "rejected"]


@dataclass(frozen=True)
class Counts:
    """Numbers that only grow: `refused` are the caller's faults in the slot's eyes, `failed` also those another slot answered instead.

    `durations` are of good answers, `first_tokens` of streams; `broken` of the `checked` answers broke a rule.
    """

    answered: int = 0
    refused: int = 0
    failed: int = 0
    checked: int = 0
    broken: int = 0
    durations: Times = field(default_factory=dict)
    first_tokens: Times = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Every request that the release was given and that was not hung up on."""
        return self.answered + self.refused + self.failed

    def __sub__(self, earlier: "Counts") -> "Counts":
        """What was added since `earlier`."""
        return _combined(self, earlier, -1)

    def __add__(self, other: "Counts") -> "Counts":
        return _combined(self, other, 1)

    def spelled(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: _spelled(value) for name, value in vars(self).items()}

    @classmethod
    def read(cls, spelled: Mapping[str, Any]) -> "Counts":
        """The opposite of `spelled`; what an older worker does not count is 0."""
        return cls(**{name: _read(value) for name, value in spelled.items() if name in cls.__dataclass_fields__})


class Tally:
    """Counts one release in this process. Called for every request, so it does no more than add."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self._durations: Counter[int] = Counter()
        self._first_tokens: Counter[int] = Counter()
        self._checked = self._broken = 0

    def finished(self, outcome: Ended, duration_s: float) -> None:
        """A request ended."""
        self._ended[outcome] += 1
        if outcome == "ok":
            self._durations[bucket_of(duration_s)] += 1

    def handed_over(self) -> None:
        """A request that this release did not answer went to another one."""
        self._ended["server_error"] += 1

    def first_token(self, duration_s: float) -> None:
        """A stream began so long after its request."""
        self._first_tokens[bucket_of(duration_s)] += 1

    def judged(self, *, broken: bool) -> None:
        """An answer was held against the rules."""
        self._checked += 1
        self._broken += broken

    def counts(self) -> Counts:
        """Everything so far."""
        ended = self._ended
        return Counts(
            answered=ended["ok"],
            refused=ended["client_error"],
            failed=ended["server_error"] + ended["timeout"],
            checked=self._checked,
            broken=self._broken,
            durations=dict(self._durations),
            first_tokens=dict(self._first_tokens),
        )


class Tallies:
    """A tally for each release this process has heard of."""

    def __init__(self) -> None:
        self._of: dict[str, Tally] = {}

    def of(self, release_id: str) -> Tally:
        """The release's tally, which stays the same for the life of the process."""
        tally = self._of.get(release_id)
        if tally is None:
            tally = self._of[release_id] = Tally()
        return tally

    def counts(self, release_ids: Iterable[str]) -> dict[str, Counts]:
        """What was counted of these releases."""
        return {release_id: self.of(release_id).counts() for release_id in release_ids}


def bucket_of(seconds: float) -> int:
    """The bucket of a time."""
    return math.floor(math.log2(max(seconds, _SHORTEST_S)) * _PER_DOUBLING)


def time_at(times: Times, rank: float) -> float:
    """The time, in seconds, below which `rank` of the times lie; infinite beyond the last, 0 before the first.

    Inside a bucket times are taken to be spread evenly on a logarithmic scale.
    """
    if rank <= 0:
        return 0.0
    below = 0
    for bucket in sorted(times):
        if below + times[bucket] >= rank:
            return float(2 ** ((bucket + (rank - below) / times[bucket]) / _PER_DOUBLING))
        below += times[bucket]
    return math.inf


def _combined(left: Counts, right: Counts, sign: int) -> Counts:
    def number(name: str) -> int:
        total: int = getattr(left, name) + sign * getattr(right, name)
        return total

    def times(name: str) -> dict[int, int]:
        ours, theirs = getattr(left, name), getattr(right, name)
        sums = {bucket: ours.get(bucket, 0) + sign * theirs.get(bucket, 0) for bucket in ours.keys() | theirs.keys()}
        return {bucket: total for bucket, total in sums.items() if total}

    whole = ("answered", "refused", "failed", "checked", "broken")
    return Counts(**{name: number(name) for name in whole}, durations=times("durations"), first_tokens=times("first_tokens"))


def _spelled(value: int | Times) -> Any:
    return value if isinstance(value, int) else {str(bucket): count for bucket, count in value.items()}


def _read(value: Any) -> Any:
    return value if isinstance(value, int) else {int(bucket): int(count) for bucket, count in value.items()}
