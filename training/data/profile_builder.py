"""Builds a `DataProfile` row by row, in as many processes as there are; builders add up in any order to the same profile.

Memory is bounded: lengths go into bins, topics are cut off at a thousand names, and of samples the few with the smallest hashes stay.
Text is masked before it is kept. Knows nothing of files, tokenizers or recipes. Next: `report.py`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from xxhash import xxh64_intdigest

from training.data.accounting import Tally
from training.data.balance import SourceShare
from training.data.profile import (
    DataProfile,
    DroppedExample,
    DuplicateCounts,
    FormatSeen,
    HowRead,
    LeakedPrompt,
    PrivacyMode,
    Sample,
    SourceProfile,
    most_first,
)
from training.data.profile_histogram import Histogram, edge_below
from training.data.profile_samples import Mask, masked_pair, short
from training.data.rows import Place, Rejected

K = TypeVar("K")
V = TypeVar("V", str, tuple[str, int])

OTHER = "(other)"
_NAMES = 1000  # topics, terms or adverts that are told apart
_DETAIL_CHARACTERS = 300
_LEAKS = 200
_SAMPLES_PER_CHANGE = 4
_SAMPLES = 12


@dataclass
class _Lengths:
    counts: Counter[int] = field(default_factory=Counter)
    total: int = 0

    def add(self, value: int) -> None:
        self.counts[edge_below(value)] += 1
        self.total += value

    def __add__(self, other: "_Lengths") -> "_Lengths":
        return _Lengths(self.counts + other.counts, self.total + other.total)

    def frozen(self) -> Histogram:
        return Histogram.of(self.counts, self.total)


@dataclass
class ProfileBuilder:
    """Collects; `a + b` is a new builder of both."""

    tokens: _Lengths = field(default_factory=_Lengths)
    tokens_refused: _Lengths = field(default_factory=_Lengths)
    characters: _Lengths = field(default_factory=_Lengths)
    loss_tokens: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    languages_refused: Counter[str] = field(default_factory=Counter)
    topics: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    masked_rows: int = 0
    terms: Counter[str] = field(default_factory=Counter)
    adverts: Counter[str] = field(default_factory=Counter)
    formats: Counter[tuple[str, str]] = field(default_factory=Counter)
    recognised_by: dict[tuple[str, str], str] = field(default_factory=dict)
    leaks: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    leak_places: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    samples: dict[str, list[tuple[int, Sample | None]]] = field(default_factory=dict)

    def recognise(self, source: str, name: str, why: str, rows: int = 1) -> None:
        """Rows of a source were read as the format `name`, recognised by `why`; of several such sentences one is kept."""
        self.formats[source, name] += rows
        self.recognised_by[source, name] = min(self.recognised_by.get((source, name), why), why)

    def use(
        self,
        *,
        characters: int,
        tokens: int | None = None,
        loss_tokens: int = 0,
        language: str = "",
        topic: str = "",
        masked: Mapping[str, int] | None = None,
    ) -> None:
        """One row that goes into the dataset; once per row, however often it is repeated."""
        self.characters.add(characters)
        if tokens is not None:
            self.tokens.add(tokens)
        self.loss_tokens += loss_tokens
        if language:
            self.languages[language] += 1
        if topic:
            _count(self.topics, short(topic), 1)
        if masked:
            self.masked.update(masked)
            self.masked_rows += 1

    def rewrite(self, terms: Mapping[str, int]) -> None:
        """Terms of the glossary were written another way, so often."""
        for term, times in terms.items():
            _count(self.terms, short(term), times)

    def take_out(self, advert: str) -> None:
        """A sentence was taken out as an advert; given masked."""
        _count(self.adverts, short(advert), 1)

    def refuse_length(self, tokens: int) -> None:
        """A row was dropped for its length: it belongs on the other side of the truncation line."""
        self.tokens_refused.add(tokens)

    def refuse_language(self, language: str) -> None:
        """A row was dropped for its language."""
        self.languages_refused[language] += 1

    def leak(self, place: Place, suite: str, prompt_id: str, kind: str) -> None:
        """A row overlaps a prompt of a suite: it was dropped as `leaked`, or is used all the same; not one dropped for another reason."""
        key = (short(suite), short(prompt_id), short(kind))
        self.leaks[key] += 1
        self.leak_places[key] = min(self.leak_places.get(key, (place.file, place.line)), (place.file, place.line))

    def sample(self, place: Place, changes: Sequence[str], before: str, after: str, mask: Mask) -> None:
        """Offer a changed text to be shown. Cheap for most: only the few with the smallest hashes are masked and kept."""
        rank = xxh64_intdigest(f"{place.file}\0{place.line}".encode(errors="backslashreplace"))
        wanted = [change for change in changes if self._would_take(change, rank)]
        if wanted:
            shown = masked_pair(before, after, mask)
            sample = _sample(place, changes, shown) if shown else None
            for change in wanted:
                # A text with nothing to show still takes its place, lest every row be masked in search of one.
                self._take(change, rank, sample)

    def __add__(self, other: "ProfileBuilder") -> "ProfileBuilder":
        total = ProfileBuilder(
            tokens=self.tokens + other.tokens,
            tokens_refused=self.tokens_refused + other.tokens_refused,
            characters=self.characters + other.characters,
            loss_tokens=self.loss_tokens + other.loss_tokens,
            languages=self.languages + other.languages,
            languages_refused=self.languages_refused + other.languages_refused,
            topics=_joined(self.topics, other.topics),
            masked=self.masked + other.masked,
            masked_rows=self.masked_rows + other.masked_rows,
            terms=_joined(self.terms, other.terms),
            adverts=_joined(self.adverts, other.adverts),
            formats=self.formats + other.formats,
            recognised_by=_least(self.recognised_by, other.recognised_by),
            leaks=self.leaks + other.leaks,
            leak_places=_least(self.leak_places, other.leak_places),
            samples={change: list(kept) for change, kept in self.samples.items()},
        )
        for change, kept in other.samples.items():
            for rank, sample in kept:
                total._take(change, rank, sample)
        return total

    def build(
        self,
        tally: Tally,
        mask: Mask,
        *,
        tokenizer: str = "",
        max_length: int | None = None,
        train_rows: int = 0,
        validation_rows: int = 0,
        preference_rows: int = 0,
        repeated_rows: int = 0,
        fold: str = "",
        privacy: PrivacyMode = "mask",
        suites: Iterable[str] = (),
        duplicates: DuplicateCounts | None = None,
        balance: Sequence[SourceShare] = (),
        read: Mapping[str, HowRead] | None = None,
    ) -> DataProfile:
        """The profile. `train_rows` counts repeats; leave all four out when nothing was split.

        Raises:
            AssertionError: the rows that were used, written and measured are not equally many.
        """
        used = tally.total().rows_used
        written = train_rows + validation_rows + preference_rows - repeated_rows
        if self.characters.counts.total() != used or (written and written != used):
            raise AssertionError(f"{used} rows used, {self.characters.counts.total()} measured, {written} written")
        return DataProfile(
            tokenizer=tokenizer,
            max_length=max_length,
            sources=tuple(self._sources(tally, read or {})),
            train_rows=train_rows,
            validation_rows=validation_rows,
            preference_rows=preference_rows,
            repeated_rows=repeated_rows,
            fold=fold,
            tokens=self.tokens.frozen(),
            tokens_refused=self.tokens_refused.frozen(),
            characters=self.characters.frozen(),
            loss_tokens=self.loss_tokens,
            languages=most_first(self.languages),
            languages_refused=most_first(self.languages_refused),
            topics=most_first(self.topics),
            privacy=privacy,
            masked=most_first(self.masked),
            masked_rows=self.masked_rows,
            terms=most_first(self.terms),
            adverts=most_first(self.adverts),
            duplicates=duplicates or DuplicateCounts(),
            suites=tuple(sorted({short(suite) for suite in suites})),
            leaks=tuple(self._leaked()),
            balance=tuple(balance),
            examples={code: tuple(_example(row, mask) for row in rows) for code, rows in sorted(tally.examples.items())},
            samples=tuple(self._shown_samples()),
        )

    def _would_take(self, change: str, rank: int) -> bool:
        kept = self.samples.get(change, [])
        if any(rank == other for other, _ in kept):
            return False
        return len(kept) < _SAMPLES_PER_CHANGE or rank < kept[-1][0]

    def _take(self, change: str, rank: int, sample: Sample | None) -> None:
        if self._would_take(change, rank):
            kept = [*self.samples.get(change, []), (rank, sample)]
            self.samples[change] = sorted(kept, key=lambda entry: entry[0])[:_SAMPLES_PER_CHANGE]

    def _sources(self, tally: Tally, read: Mapping[str, HowRead]) -> list[SourceProfile]:
        return [
            SourceProfile(
                name=short(name),
                formats=tuple(
                    FormatSeen(name=short(kind), why=short(self.recognised_by[source, kind]), rows=rows)
                    for (source, kind), rows in sorted(self.formats.items(), key=lambda item: (-item[1], item[0]))
                    if source == name
                ),
                read=read.get(name, HowRead()),
                rows_in=counts.rows_in,
                kept=counts.kept,
                changed=counts.changed,
                dropped=most_first(counts.dropped),
                changes=most_first(counts.changes),
            )
            for name, counts in tally.sources.items()
        ]

    def _leaked(self) -> list[LeakedPrompt]:
        most = sorted(self.leaks.items(), key=lambda item: (-item[1], item[0]))[:_LEAKS]
        return [
            LeakedPrompt(suite=key[0], prompt_id=key[1], kind=key[2], rows=rows, file=short(place[0]), line=place[1])
            for key, rows in most
            for place in [self.leak_places[key]]
        ]

    def _shown_samples(self) -> list[Sample]:
        """A few of each change, those of the rarest change first, none twice."""
        shown: dict[tuple[str, int], Sample] = {}
        depth = range(_SAMPLES_PER_CHANGE)
        for turn in depth:
            for _, kept in sorted(self.samples.items(), key=lambda item: (len(item[1]), item[0])):
                if turn < len(kept) and len(shown) < _SAMPLES and (sample := kept[turn][1]):
                    shown.setdefault((sample.file, sample.line), sample)
        return list(shown.values())


def _count(counts: Counter[str], name: str, times: int) -> None:
    """Of a bounded number of names; what comes later is counted together."""
    counts[name if name in counts or len(counts) < _NAMES else OTHER] += times


def _joined(ours: Counter[str], theirs: Counter[str]) -> Counter[str]:
    total = Counter(ours)
    for name, times in theirs.items():
        _count(total, name, times)
    return total


def _least(ours: Mapping[K, V], theirs: Mapping[K, V]) -> dict[K, V]:
    """Both, and where both have a value the lesser, so that the order of adding does not matter."""
    return {**theirs, **{key: min(value, theirs.get(key, value)) for key, value in ours.items()}}


def _sample(place: Place, changes: Sequence[str], shown: tuple[str, str]) -> Sample:
    names = tuple(short(change) for change in changes)
    return Sample(file=short(place.file), line=place.line, changes=names, before=shown[0], after=shown[1])


def _example(rejected: Rejected, mask: Mask) -> DroppedExample:
    place = rejected.place
    return DroppedExample(file=short(place.file), line=place.line, detail=short(mask(rejected.detail), _DETAIL_CHARACTERS))
