"""All rows of a recipe: refined in parallel, compared with each other, weighed, and handed over as they are to be written.

Rows pass once, in chunks, through worker processes; what is left of them waits in a spool file, and memory holds some hundred
bytes per row. Then duplicates are dropped over all sources, the mix is made, and each row has its end in the ledger.
The outcome does not depend on the number of workers. Next: `training/prepare.py`, which writes the dataset.
"""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.pool import Pool
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from training.data.accounting import Ledger
from training.data.balance import Balanced, balance, rank_of, side
from training.data.config import DataSection
from training.data.duplicates import Duplicates, Fingerprints, find_duplicates
from training.data.leakage import SuitePrompt
from training.data.leakage_keys import TrainKeys
from training.data.profile import DuplicateCounts
from training.data.profile_builder import ProfileBuilder
from training.data.profile_duplicates import duplicate_counts
from training.data.read_record import Read
from training.data.refine import Kept, Measure, Refined, Refiner
from training.data.rows import Place, Rejected
from training.data.sources import Source, SourceSection, open_source
from training.progress import Progress, Report

Stage = Literal["sft", "dpo", "any"]
MakeMeasure = Callable[[], Measure]
Side = Literal["train", "validation", "preferences"]

_CHUNK_ROWS = 500
_INLINE_ROWS = 2_000  # fewer rows than this are done before a pool of processes has started


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row in the spool."""

    source: int
    place: Place
    start: int
    size: int
    question_key: str
    changes: tuple[str, ...]
    weights: tuple[int, int, int]  # characters, tokens, tokens that bear loss
    language: str
    topic: str
    masked: dict[str, int]


@dataclass
class Gathered:
    """Every row that is used, where it belongs, and how often it is used."""

    spool: "Spool"
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

    def duplicate_counts(self) -> DuplicateCounts:
        """Groups of rows that say the same, in numbers."""
        found = self.duplicates
        if found is None:
            return DuplicateCounts()
        sources = np.array([row.source for row in self.rows], np.int64)
        return duplicate_counts(found.kept_instead, found.exact, found.near, sources, found.conflicting)

    def train_keys(self) -> TrainKeys:
        """The questions that are trained on, so that an evaluation which asks them can be refused."""
        return TrainKeys.from_hashes(self.questions[self.sides["train"] + self.sides["preferences"]])

    def used(self) -> Iterator[Waiting]:
        """Every row that is used, once."""
        return (self.rows[number] for numbers in self.sides.values() for number in numbers)


class Spool:
    """Rows on disk until it is known which of them stay; the file has no name and is gone with the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the spool
        self._end = 0

    def put(self, source: int, kept: Kept) -> Waiting:
        """Append a row."""
        body = orjson.dumps([*kept.sides, kept.line.decode()])
        start, self._end = self._end, self._end + len(body)
        self._file.write(body)
        weights = (kept.characters, kept.tokens, kept.loss_tokens)
        return Waiting(
            source, kept.place, start, len(body), kept.question_key, kept.changes, weights, kept.language, kept.topic, dict(kept.masked)
        )

    def sides(self, row: Waiting) -> tuple[str, str]:
        """Question and answer of a row."""
        question, answer, _ = self._read(row)
        return question, answer

    def raw(self, row: Waiting) -> str:
        """Question and answer, for a person who looks at what was left out."""
        return orjson.dumps(dict(zip(("question", "answer"), self.sides(row), strict=True))).decode()

    def line(self, row: Waiting) -> bytes:
        """The row as it is to be written."""
        line: str = self._read(row)[2]
        return line.encode()

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()

    def _read(self, row: Waiting) -> Any:
        self._file.seek(row.start)
        return orjson.loads(self._file.read(row.size))


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
    with _Crew(data, prompts, max_tokens, make_measure) as crew:
        sources = tuple(open_source(section.model_copy(update={"name": label})) for section, label in zip(sections, labels, strict=True))
        gathered.sources = sources
        for number, refined in crew.refine(_chunks([stage for stage, _ in wanted], sources), _told(report, sources)):
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


_Chunk = tuple[int, SourceSection, Stage, list[Read]]


def _chunks(stages: Sequence[Stage], sources: Sequence[Source]) -> Iterator[_Chunk]:
    for number, (stage, source) in enumerate(zip(stages, sources, strict=True)):
        rows = iter(source)
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            yield number, source.section, stage, chunk


def _told(report: Report, sources: Sequence[Source]) -> Callable[[int], None]:
    started = time.monotonic()

    def tell(number: int) -> None:
        done = sum(source.rows for source in sources)
        per_s = done / max(time.monotonic() - started, 1e-9)
        report(Progress(done, 0, "rows", f"{sources[number].section.label}, {per_s:.0f} rows/s"))

    return tell


class _Crew:
    """The processes that refine chunks: none for a few rows, a pool as soon as there are more."""

    def __init__(self, data: DataSection, prompts: Sequence[SuitePrompt], max_tokens: int | None, make_measure: MakeMeasure | None) -> None:
        self._workers = data.workers or len(os.sched_getaffinity(0))
        self._pool: Pool | None = None
        self._refiner: Refiner | None = None

        def build() -> Refiner:
            return Refiner(data, prompts, max_tokens, make_measure() if make_measure else None)

        self._build = build

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()

    def refine(self, chunks: Iterator[_Chunk], tell: Callable[[int], None]) -> Iterator[tuple[int, Refined]]:
        """Refined chunks in reading order, a few ahead of whoever takes them."""
        first, rows = [], 0
        for chunk in chunks:
            first.append(chunk)
            rows += len(chunk[3])
            if rows > _INLINE_ROWS:
                break
        if rows <= _INLINE_ROWS or self._workers == 1:
            self._refiner = self._refiner or self._build()
            for number, section, stage, reads in _then(first, chunks):
                yield number, self._refiner.refine(section, stage, reads)
                tell(number)
            return
        yield from self._refine_in_pool(_then(first, chunks), tell)

    def _refine_in_pool(self, chunks: Iterator[_Chunk], tell: Callable[[int], None]) -> Iterator[tuple[int, Refined]]:
        # Forked, so that the tokenizer's library is not imported once per worker.
        self._pool = multiprocessing.get_context("fork").Pool(self._workers, _become_worker, (self._build,))
        ahead: deque[tuple[int, Any]] = deque()
        for number, section, stage, reads in chunks:
            ahead.append((number, self._pool.apply_async(_work, (section, stage, reads))))
            if len(ahead) > 2 * self._workers:
                source, result = ahead.popleft()
                yield source, result.get()
                tell(source)
        for source, result in ahead:
            yield source, result.get()
            tell(source)


def _then(first: list[_Chunk], rest: Iterator[_Chunk]) -> Iterator[_Chunk]:
    yield from first
    yield from rest


_own: list[Refiner] = []  # the worker process's


def _become_worker(build: Callable[[], Refiner]) -> None:
    _own[:] = [build()]


def _work(section: SourceSection, stage: Stage, reads: list[Read]) -> Refined:
    return _own[0].refine(section, stage, reads)


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
    train = []
    for number in map(int, stays):
        row = gathered.rows[number]
        if wanted[row.source][0] == "dpo":
            gathered.sides["preferences"].append(number)
        elif side(row.question_key, data.validation_fraction) == "validation":
            gathered.sides["validation"].append(number)
        else:
            train.append(number)
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
