"""The ledger: every row that comes in ends exactly once as kept, changed or dropped, and every dropped row can be read again.

Counts alone would not notice that one row ended twice and another never; so each source also carries a checksum of the
places that came in less those that ended, which is zero only when they are the same rows. A `Tally` is what one worker
counted and tallies add up; the `Ledger` is the parent's, and writes `rejected.jsonl` as it goes, so that memory stays
bounded by the number of sources and reasons. Knows nothing of what the steps do. Next: `profile.py`.
"""

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TextIO

from xxhash import xxh64_intdigest

from training.atomic import sweep
from training.data.read_record import RAW_CHARS
from training.data.reasons import REASONS
from training.data.rows import Place, Rejected

REJECTED = "rejected.jsonl"

_DETAIL_CHARACTERS = 400
_EXAMPLES = 3  # per reason; the first ones in file order, however many workers read
_MODULUS = 1 << 64


@dataclass
class SourceTally:
    """How one source's rows ended so far. `changes` counts rows by the name of the change; a row may count under several."""

    rows_in: int = 0
    kept: int = 0
    changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    pending: int = 0  # checksum of the places that came in, less that of the places that ended, modulo 2**64

    @property
    def rows_used(self) -> int:
        """Rows that were not dropped."""
        return self.kept + self.changed

    def __add__(self, other: "SourceTally") -> "SourceTally":
        return SourceTally(
            rows_in=self.rows_in + other.rows_in,
            kept=self.kept + other.kept,
            changed=self.changed + other.changed,
            dropped=self.dropped + other.dropped,
            changes=self.changes + other.changes,
            pending=(self.pending + other.pending) % _MODULUS,
        )


@dataclass
class Tally:
    """What was counted, by source. `a + b` is a new tally of both; a worker sends its own to the parent."""

    sources: dict[str, SourceTally] = field(default_factory=dict)
    examples: dict[str, tuple[Rejected, ...]] = field(default_factory=dict)

    def enter(self, source: str, place: Place) -> None:
        """A row was read. Every row, also one that is about to be rejected."""
        counts = self._of(source)
        counts.rows_in += 1
        counts.pending = (counts.pending + _checksum(place)) % _MODULUS

    def keep(self, source: str, place: Place, changes: Iterable[str] = ()) -> None:
        """A row goes into the dataset; `changes` names what was done to it, if anything."""
        counts = self._of(source)
        names = set(changes)
        if names:
            counts.changed += 1
            counts.changes.update(names)
        else:
            counts.kept += 1
        counts.pending = (counts.pending - _checksum(place)) % _MODULUS

    def drop(self, source: str, rejected: Rejected) -> None:
        """A row is left out for a reason of the closed list."""
        if rejected.reason not in REASONS:
            raise AssertionError(f"{rejected.reason!r} is not in REASONS: every reason has a sentence for people there")
        counts = self._of(source)
        counts.dropped[rejected.reason] += 1
        counts.pending = (counts.pending - _checksum(rejected.place)) % _MODULUS
        self._exemplify(rejected)

    def __add__(self, other: "Tally") -> "Tally":
        names = dict.fromkeys([*self.sources, *other.sources])
        total = Tally({name: self.sources.get(name, SourceTally()) + other.sources.get(name, SourceTally()) for name in names})
        for examples in (*self.examples.values(), *other.examples.values()):
            for rejected in examples:
                total._exemplify(rejected)
        return total

    def total(self) -> SourceTally:
        """All sources together."""
        return sum(self.sources.values(), SourceTally())

    def check(self) -> None:
        """Raises: AssertionError naming the first source of which a row was lost or ended twice."""
        for name, counts in self.sources.items():
            _check(name, counts)
        _check("all sources together", self.total())

    def _of(self, source: str) -> SourceTally:
        return self.sources.setdefault(source, SourceTally())

    def _exemplify(self, rejected: Rejected) -> None:
        seen = self.examples.get(rejected.reason, ())
        if len(seen) < _EXAMPLES or _in_file_order(rejected) < _in_file_order(seen[-1]):
            short = Rejected(rejected.place, rejected.reason, rejected.detail[:_DETAIL_CHARACTERS])
            self.examples[rejected.reason] = tuple(sorted((*seen, short), key=_in_file_order)[:_EXAMPLES])


class Ledger:
    """The tally of a whole preparation, and `rejected.jsonl`, which appears under its name only when the sums are right.

    As a context manager it closes when the block ends well; otherwise nothing of it stays on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.tally = Tally()
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        self._partial = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex[:8]}")  # the name that `sweep` looks for
        self._file = _private_file(self._partial)

    def enter(self, source: str, place: Place) -> None:
        """A row was read."""
        self.tally.enter(source, place)

    def keep(self, source: str, place: Place, changes: Iterable[str] = ()) -> None:
        """A row goes into the dataset, changed or as it was."""
        self.tally.keep(source, place, changes)

    def drop(self, source: str, rejected: Rejected) -> None:
        """A row is left out: counted and written."""
        self.tally.drop(source, rejected)
        self._file.write(_line(rejected))

    def merge(self, tally: Tally, rejected: Iterable[Rejected] = ()) -> None:
        """Add what a worker counted, and write the rows it dropped."""
        dropped = Counter(row.reason for row in self._written(rejected))
        if dropped != tally.total().dropped:
            raise AssertionError(f"a worker counted {dict(tally.total().dropped)} as dropped and handed over {dict(dropped)}")
        self.tally = self.tally + tally

    def close(self) -> Tally:
        """Check every sum, put `rejected.jsonl` in its place and return the tally.

        Raises:
            AssertionError: a row was lost or ended twice; names the source.
        """
        try:
            self.tally.check()
        except AssertionError:
            self.discard()
            raise
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self._path)
        return self.tally

    def discard(self) -> None:
        """Give up: leave no half-written file behind."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
        elif not self._file.closed:
            self.close()

    def _written(self, rejected: Iterable[Rejected]) -> Iterable[Rejected]:
        for row in rejected:
            self._file.write(_line(row))
            yield row


def _private_file(path: Path) -> TextIO:
    """A new file for its owner's eyes: rejected rows are raw, with the personal data that was in them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    # A lone surrogate cannot be UTF-8; written as \udXXX it is what JSON calls it, so nothing of the row is lost.
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")


def _line(rejected: Rejected) -> str:
    row = {
        "file": rejected.place.file,
        "line": rejected.place.line,
        "reason": rejected.reason,
        "detail": rejected.detail,
        "row": rejected.raw[:RAW_CHARS],
    }
    if len(rejected.raw) >= RAW_CHARS:
        row["cut"] = f"only the first {RAW_CHARS} characters; file and line say where the rest is"
    return json.dumps(row, ensure_ascii=False) + "\n"


def _checksum(place: Place) -> int:
    return xxh64_intdigest(f"{place.file}\0{place.line}".encode(errors="backslashreplace"))


def _in_file_order(rejected: Rejected) -> tuple[str, int]:
    return rejected.place.file, rejected.place.line


def _check(name: str, counts: SourceTally) -> None:
    dropped = counts.dropped.total()
    if counts.rows_in != counts.kept + counts.changed + dropped:
        raise AssertionError(f"{name}: {counts.rows_in} rows in, but {counts.kept} kept, {counts.changed} changed and {dropped} dropped")
    if counts.pending:
        raise AssertionError(f"{name}: the counts agree, but not the rows: one ended twice, and another never did")
