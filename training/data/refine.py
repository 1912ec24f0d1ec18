"""What happens to one chunk of rows: read as examples, cleaned, told by language, made private, held against the suites, measured.

Every step is pure and sees one row, or a chunk of rows at once where that is cheaper; a row that a step turns away goes no
further. Runs in worker processes, and gives the same for the same rows wherever it runs. Knows nothing of the other chunks:
duplicates and weights are found by `gather.py`, which is next.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from training.data.accounting import Tally
from training.data.cleaning import Cleaner
from training.data.config import DataSection
from training.data.duplicates import Fingerprints, compared, fingerprints
from training.data.formats import FormatOptions, example_of, raw_of
from training.data.glossary import Glossary
from training.data.languages import Identifier
from training.data.leakage import Index, SuitePrompt
from training.data.privacy import Masker
from training.data.profile_builder import ProfileBuilder
from training.data.read_record import Read, Record
from training.data.rows import Example, Pair, Place, Rejected, question_of, texts_of, with_texts
from training.data.sources import SourceSection
from training.errors import DataError
from training.records import digest_of


@dataclass(frozen=True, slots=True)
class Measured:
    """A row as it will be written, and what it weighs in tokens."""

    line: bytes  # JSON, without its end of line
    tokens: int
    loss_tokens: int


Measure = Callable[[Example], Measured]  # raises DataError when a row cannot be rendered


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that every step let through."""

    place: Place
    line: bytes
    sides: tuple[str, str]  # question and answer, as duplicates are compared
    question_key: str
    changes: tuple[str, ...]
    characters: int
    tokens: int
    loss_tokens: int
    language: str
    topic: str
    masked: Counter[str]


@dataclass
class Refined:
    """A chunk after all steps. `tally` has entered every row and dropped the rejected ones; the kept are still open."""

    tally: Tally = field(default_factory=Tally)
    rejected: list[Rejected] = field(default_factory=list)
    profile: ProfileBuilder = field(default_factory=ProfileBuilder)
    kept: list[Kept] = field(default_factory=list)
    fingerprints: Fingerprints | None = None


@dataclass(slots=True)
class _Row:
    """A row on its way through a chunk."""

    example: Example
    topic: str
    raw: str
    changes: list[str]
    language: str = ""
    masked: Counter[str] = field(default_factory=Counter)


class Refiner:
    """All steps of one recipe; built once per process, because some hold models and tables."""

    def __init__(self, data: DataSection, prompts: Sequence[SuitePrompt], max_tokens: int | None, measure: Measure | None) -> None:
        self.data, self._max_tokens, self._measure = data, max_tokens, measure
        self._cleaner = Cleaner(data.cleaning)
        self._identifier = Identifier(data.languages)
        self._glossary = Glossary(data.glossary) if data.glossary else None
        self._masker = Masker(data.privacy)
        self._shown = Masker(data.privacy.model_copy(update={"enabled": True, "mode": "mask"}))  # samples never show personal data
        self._index = Index(prompts, data.leakage) if prompts else None
        self.shown_advert = lru_cache(maxsize=1000)(self.masked)  # a website has one on every page

    def warm(self) -> None:
        """Take a made-up row through every step: what steps load at their first text, processes forked afterwards then share."""
        row = Record(Place("warm-up", 1), {"instruction": "Appelez-moi au 115, cliquez ici", "output": "请点击这里。Call Ann Smith."}, 0)
        self.refine(SourceSection(path="warm-up"), "any", [row])

    def masked(self, text: str) -> str:
        """A text as a report may show it."""
        return self._shown.mask([text]).texts[0]

    def refine(self, source: SourceSection, stage: str, rows: Sequence[Read]) -> Refined:
        """Take rows of one source through every step; `stage` is what they are for, `sft`, `dpo`, `kto` or `any`."""
        chunk = _Chunk(self, source.label, Refined())
        options = FormatOptions(format=source.format, tools=source.tools, stage=stage)  # type: ignore[arg-type]
        live = [row for row in (chunk.understood(read, options, self.data.balance.topic_field) for read in rows) if row is not None]
        live = [row for row in live if chunk.cleaned(row) and chunk.spoken(row) and chunk.private(row)]
        live = chunk.unseen(live)
        chunk.measured(live)
        return chunk.out


class _Chunk:
    """The steps over one chunk; each says whether the row goes on, and accounts for it if it does not."""

    def __init__(self, refiner: Refiner, source: str, out: Refined) -> None:
        self.refiner, self.source, self.out = refiner, source, out

    def drop(self, place: Place, reason: str, detail: str, raw: str) -> bool:
        if raw and self.refiner.data.privacy.enabled and self.refiner.data.privacy.mode != "count":
            raw = self.refiner.masked(raw)  # what is not trained on lies in rejected.jsonl
        rejected = Rejected(place, reason, detail, raw)
        self.out.tally.drop(self.source, rejected)
        self.out.rejected.append(rejected)
        return False

    def understood(self, read: Read, options: FormatOptions, topic_field: str | None) -> _Row | None:
        self.out.tally.enter(self.source, read.place)
        if not isinstance(read, Record):
            self.drop(read.place, read.reason, read.detail, read.raw)
            return None
        example, detected = example_of(read, options)
        self.out.profile.recognise(self.source, detected.format, detected.why)
        if isinstance(example, Rejected):
            self.drop(example.place, example.reason, example.detail, example.raw)
            return None
        topic = read.values.get(topic_field) if topic_field else None
        return _Row(example, topic if isinstance(topic, str) else "", raw_of(read.values), [])

    def cleaned(self, row: _Row) -> bool:
        before, changes, empty = row.example, Counter[str](), False

        def clean(text: str) -> str:
            nonlocal empty
            cleaned = self.refiner._cleaner.clean(text)
            changes.update(cleaned.changes)
            for advert in cleaned.adverts:
                self.out.profile.take_out(self.refiner.shown_advert(advert))
            empty = empty or cleaned.is_empty
            return cleaned.text

        row.example = with_texts(before, clean)
        if empty:
            return self.drop(before.place, "empty_after_cleaning", "a turn has no text left after cleaning", row.raw)
        if changes:
            row.changes += sorted(changes)
            self.show(row, before)
        return True

    def show(self, row: _Row, before: Example) -> None:
        for old, new in zip(texts_of(before), texts_of(row.example), strict=True):
            if old != new:
                self.out.profile.sample(row.example.place, row.changes, old, new, self.refiner.masked)
                return

    def spoken(self, row: _Row) -> bool:
        identifier = self.refiner._identifier
        if identifier.section.identify:
            language = identifier.identify("\n".join(texts_of(row.example)))
            row.language = language.code
            if refusal := identifier.refusal(language):
                self.out.profile.refuse_language(language.code)
                return self.drop(row.example.place, "language", refusal, row.raw)
        if self.refiner._glossary is not None:
            row.example, terms = self.refiner._glossary.apply_to(row.example)
            row.changes += ["glossary"] if terms else []
            self.out.profile.rewrite(terms)
        return True

    def private(self, row: _Row) -> bool:
        found = self.refiner._masker.mask(texts_of(row.example))
        if found.drop:
            kinds = ", ".join(sorted(found.counts))
            return self.drop(row.example.place, "personal_data", f"holds {kinds}", "")  # the row itself would be kept in rejected.jsonl
        row.masked = found.counts
        if found.findings and self.refiner._masker.section.mode == "mask":
            masked = iter(found.texts)
            row.example = with_texts(row.example, lambda _: next(masked))
            row.changes.append("privacy")
        return True

    def unseen(self, rows: list[_Row]) -> list[_Row]:
        index, action = self.refiner._index, self.refiner.data.leakage.action
        if index is None or not rows:
            return rows
        free = []
        overlaps = index.overlaps([(question_of(row.example), _answer_of(row.example)) for row in rows])
        for row, overlap in zip(rows, overlaps, strict=True):
            if overlap is not None:
                self.out.profile.leak(row.example.place, overlap.suite, overlap.prompt_id, overlap.kind)
            if overlap is not None and action != "report":
                self.drop(row.example.place, "leaked", str(overlap), row.raw)
            else:
                free.append(row)
        return free

    def measured(self, rows: list[_Row]) -> None:
        texts = []
        for row in rows:
            text = compared(row.example)
            kept = self._measured(row, (text.question, text.answer))
            if kept is not None:
                self.out.kept.append(kept)
                texts.append(text)
        self.out.fingerprints = fingerprints(texts, self.refiner.data.duplicates)

    def _measured(self, row: _Row, sides: tuple[str, str]) -> Kept | None:
        measured = Measured(b"", 0, 0)
        if self.refiner._measure is not None:
            try:
                measured = self.refiner._measure(row.example)
            except DataError as error:
                self.drop(row.example.place, "template", error.what, row.raw)
                return None
            if fault := self._length_fault(measured):
                if fault[0] == "too_long":
                    self.out.profile.refuse_length(measured.tokens)
                self.drop(row.example.place, *fault, row.raw)
                return None
        return Kept(
            place=row.example.place,
            line=measured.line,
            sides=sides,
            question_key=digest_of([message["content"] for message in row.example.messages if message["role"] == "user"]),
            changes=tuple(row.changes),
            characters=sum(map(len, texts_of(row.example))),
            tokens=measured.tokens,
            loss_tokens=measured.loss_tokens,
            language=row.language,
            topic=row.topic,
            masked=row.masked,
        )

    def _length_fault(self, measured: Measured) -> tuple[str, str] | None:
        longest, shortest = self.refiner._max_tokens, self.refiner.data.min_tokens
        if not measured.loss_tokens:
            return "no_loss", "no token of the row would bear loss"
        if longest is not None and measured.tokens > longest:
            return "too_long", f"{measured.tokens} tokens, max_length is {longest}"
        if measured.tokens < shortest:
            return "too_short", f"{measured.tokens} tokens, data.min_tokens is {shortest}"
        return None


def _answer_of(example: Example) -> str:
    answers = [message["content"] for message in example.messages if message["role"] == "assistant" and message.get("content")]
    return "\n".join([*answers, example.chosen, example.rejected] if isinstance(example, Pair) else answers)
