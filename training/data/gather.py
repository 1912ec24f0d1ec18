"""All rows of a recipe: refined in parallel, compared with each other, weighed, and handed over as they are to be written.

Rows pass once, in chunks, through worker processes; what is left of them waits in a spool file, and memory holds some hundred
bytes per row. Then duplicates are dropped over all sources, the mix is made, and each row has its end in the ledger.
The outcome does not depend on the number of workers. Next: `training/prepare.py`, which writes the dataset.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.accounting import Ledger
from training.data.balance import Balanced, balance, rank_of
from training.data.config import DataSection
from training.data.crew import Crew, MakeMeasure, Stage, chunks_of
from training.data.duplicates import Duplicates, Fingerprints, find_duplicates
from training.data.duplicates_section import DuplicatesSection
from training.data.leakage import SuitePrompt
from training.data.leakage_keys import TrainKeys
from training.data.profile import DuplicateCounts, HowRead, UnreadFile, most_first
from training.data.profile_builder import ProfileBuilder
from training.data.profile_duplicates import duplicate_counts
from training.data.profile_samples import short
from training.data.rows import Rejected
from training.data.sources import Source, SourceSection, open_source
from training.data.spool import Spool, Waiting
from training.progress import Progress, Report

_SHOWN_FILES = 20
Side = Literal["train", "validation", "preferences"]


@dataclass
class Gathered:
    """Every row that is used, where it belongs, and how often it is used."""

    spool: Spool
    rows: list[Waiting]
    sides: dict[Side, list[int]] = field(default_factory=lambda: {"train": [], "validation": [], "preferences": []})
    copies: dict[int, int] = field(default_factory=dict)
    balanced: Balanced | None = None
    duplicates: Duplicates | None = None
    questions: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # hash of each row's question
    sources: tuple[Source, ...] = ()

    def lines(self, side: Side) -> Iterator[bytes]:
        """The rows of one side as they are to be written, repeats included."""
        for number in self.sides[side]:
            line = self.spool.line(self.rows[number])
            for _ in range(self.copies.get(number, 1)):
                yield line

    def duplicate_counts(self, section: DuplicatesSection) -> DuplicateCounts:
        """Groups of rows that say the same, in numbers."""
        found = self.duplicates
        sources = np.array([row.source for row in self.rows], np.int64)
        counts = duplicate_counts(found.kept_instead, found.exact, found.near, sources, found.conflicting) if found else DuplicateCounts()
        return counts.model_copy(update={"sought": section.sought})

    def how_read(self) -> dict[str, HowRead]:
        """By source, what was read otherwise than written, and the files that were left out."""
        return {
            source.section.label: HowRead(
                otherwise=most_first(source.notes),
                unread=tuple(UnreadFile(name=short(os.path.basename(file.path)), why=short(file.why)) for file in left[:_SHOWN_FILES]),
                unread_files=len(left),
            )
            for source in self.sources
            for left in [sorted(source.skipped, key=lambda file: file.is_hidden)]
        }

    def train_keys(self) -> TrainKeys:
        """The questions that are trained on, so that an evaluation which asks them can be refused."""
        return TrainKeys.from_hashes(self.questions[self.sides["train"] + self.sides["preferences"]])

    def used(self) -> Iterator[Waiting]:
        """Every row that is used, once."""
        return (self.rows[number] for numbers in self.sides.values() for number in numbers)


def gather(
    data: DataSection,
    wanted: Sequence[tuple[Stage, SourceSection]],
    prompts: Sequence[SuitePrompt],
    max_tokens: int | None,
    make_measure: MakeMeasure | None,
    ledger: Ledger,
    profile: ProfileBuilder,
    folder: Path,
    report: Report,
) -> Gathered:
    """Refine every row of the sources, and decide which are used.

    Args:
        wanted: what each source is for, and the source.
        make_measure: builds what renders and counts a row, once per process; None counts no tokens.
        ledger: gets every row's end, and is left open.
        profile: gets what the used rows weigh.
        folder: where the spool may lie.

    Raises:
        DataError: a source cannot be read, or two sources have the same name.
    """
    gathered = Gathered(Spool(folder), [])
    prints: list[Fingerprints] = []
    sections = [section for _, section in wanted]
    labels = distinct_labels(sections)
    with Crew(data, prompts, max_tokens, make_measure) as crew:
        sources = tuple(open_source(section.model_copy(update={"name": label})) for section, label in zip(sections, labels, strict=True))
        gathered.sources = sources
        for number, refined in crew.refine(chunks_of([stage for stage, _ in wanted], sources), _told(report, sources)):
            ledger.merge(refined.tally, refined.rejected)
            _absorb(profile, refined.profile)
            gathered.rows += [gathered.spool.put(number, kept) for kept in refined.kept]
            if refined.fingerprints is not None:
                prints.append(refined.fingerprints)
    _drop_duplicates(gathered, prints, data, sections, labels, ledger)
    _mix(gathered, data, wanted, labels, ledger)
    _account(gathered, labels, ledger, profile)
    return gathered


def distinct_labels(sections: Sequence[SourceSection]) -> list[str]:
    """What each source is called; a name that comes twice gets a number, or its rows would be counted together."""
    seen: dict[str, int] = {}
    labels = []
    for section in sections:
        seen[section.label] = count = seen.get(section.label, 0) + 1
        labels.append(section.label if count == 1 else f"{section.label} ({count})")
    return labels


def _told(report: Report, sources: Sequence[Source]) -> Callable[[int], None]:
    started = time.monotonic()

    def tell(number: int) -> None:
        done = sum(source.rows for source in sources)
        per_s = done / max(time.monotonic() - started, 1e-9)
        report(Progress(done, 0, "rows", f"{sources[number].section.label}, {per_s:.0f} rows/s"))

    return tell


def _absorb(total: ProfileBuilder, part: ProfileBuilder) -> None:
    merged = total + part
    total.__dict__.update(merged.__dict__)


def _drop_duplicates(
    gathered: Gathered, prints: list[Fingerprints], data: DataSection, sections: Sequence[SourceSection], labels: list[str], ledger: Ledger
) -> None:
    if not gathered.rows:
        return
    weights = np.array([sections[row.source].weight for row in gathered.rows], dtype=np.float64)

    def sides(numbers: NDArray[np.int64]) -> Sequence[tuple[str, str]]:
        return [gathered.spool.sides(gathered.rows[number]) for number in numbers]

    joined = Fingerprints.joined(prints)
    found = find_duplicates(joined, data.duplicates, sides, weights)
    gathered.duplicates, gathered.questions = found, joined.questions
    for number, row in enumerate(gathered.rows):
        if found.kept_instead[number] != number:
            reason, how = ("duplicate", "the same as") if found.exact[number] else ("near_duplicate", "nearly the same as")
            first = gathered.rows[found.kept_instead[number]].place
            ledger.drop(labels[row.source], Rejected(row.place, reason, f"{how} {first}", gathered.spool.raw(row)))


def _mix(gathered: Gathered, data: DataSection, wanted: Sequence[tuple[Stage, SourceSection]], labels: list[str], ledger: Ledger) -> None:
    """Put every row that is left on its side, and weigh the training side."""
    stays = (
        range(len(gathered.rows))
        if gathered.duplicates is None
        else np.flatnonzero(gathered.duplicates.kept_instead == np.arange(len(gathered.rows)))
    )
    for_sft: list[int] = []
    for number in map(int, stays):
        is_preference = wanted[gathered.rows[number].source][0] in ("dpo", "kto")
        (gathered.sides["preferences"] if is_preference else for_sft).append(number)
    held_back = data.held_back([gathered.rows[number].question_key for number in for_sft])
    gathered.sides["validation"] += compress(for_sft, held_back)
    train = list(compress(for_sft, map(not_, held_back)))
    rows = [gathered.rows[number] for number in train]
    weights = {label: section.weight for label, (_, section) in zip(labels, wanted, strict=True)}
    mixed = balance(
        data.balance,
        [rank_of(row.question_key) for row in rows],
        [labels[row.source] for row in rows],
        [row.topic for row in rows],
        weights,
    )
    gathered.balanced = mixed
    for place, number in enumerate(train):
        if reason := mixed.reason(place):
            row = gathered.rows[number]
            ledger.drop(labels[row.source], Rejected(row.place, reason, "left out by data.balance", gathered.spool.raw(row)))
        else:
            gathered.sides["train"].append(number)
            gathered.copies[number] = int(mixed.copies[place])


def _account(gathered: Gathered, labels: list[str], ledger: Ledger, profile: ProfileBuilder) -> None:
    for row in gathered.used():
        ledger.keep(labels[row.source], row.place, row.changes)
        characters, tokens, loss_tokens = row.weights
        profile.use(
            characters=characters,
            tokens=tokens or None,
            loss_tokens=loss_tokens,
            language=row.language,
            topic=row.topic,
            masked=row.masked,
        )
