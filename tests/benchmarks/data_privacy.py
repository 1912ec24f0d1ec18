"""How much personal data the masker finds, how much else it takes for it, and how fast: against a set of plain patterns and Presidio.

    python -m tests.benchmarks.data_privacy [--presidio FOLDER] [--rows 20000]

The labelled set (`tests/training/data/privacy_labelled.jsonl`) was written for this project, with invented values. Its text decides the
half: rows whose sha256 begins with an even byte are `dev`, on which the recognisers were tuned; the others are `held-out`. A finding
is a hit when it has the kind of a labelled span and the two share 80 % of the longer one; leaked are the labelled characters that no
finding of any kind covers. Names are labelled without their title; 小李, 张某 and 王XX are not personal data.

Presidio's pattern recognisers need no model, but bring spaCy: install them aside (`pip install --target FOLDER presidio-analyzer`).
Its names come from a model that a package index does not hold, so it finds none here. Not run by pytest; the floors are.
"""

import argparse
import hashlib
import json
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from training.data.privacy import Masker, PrivacySection

LABELLED = Path(__file__).parents[1] / "training" / "data" / "privacy_labelled.jsonl"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SHARED_ROW_CHARACTERS = 300
HALVES = ("dev", "held-out")

Place = tuple[int, int, str]  # start, end, kind
Finder = Callable[[str], list[Place]]


@dataclass(frozen=True, slots=True)
class Item:
    """A labelled text."""

    id: str
    language: str
    text: str
    spans: tuple[Place, ...]

    @property
    def half(self) -> str:
        return HALVES[hashlib.sha256(self.text.encode()).digest()[0] % 2]


@dataclass
class Score:
    """Spans and characters, counted."""

    labelled: int = 0
    found: int = 0
    hits: int = 0
    characters: int = 0
    leaked: int = 0

    @property
    def precision(self) -> float:
        return self.hits / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.hits / self.labelled if self.labelled else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.hits / (self.found + self.labelled) if self.found + self.labelled else 1.0

    @property
    def leak_ratio(self) -> float:
        return self.leaked / self.characters if self.characters else 0.0

    def add(self, other: "Score") -> None:
        for name in ("labelled", "found", "hits", "characters", "leaked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Scores:
    """By (language, kind), and the sum."""

    parts: dict[tuple[str, str], Score] = field(default_factory=dict)

    def part(self, language: str, kind: str) -> Score:
        return self.parts.setdefault((language, kind), Score())

    def total(self, language: str = "", kinds: Iterable[str] = ()) -> Score:
        total, wanted = Score(), set(kinds)
        for (part_language, kind), score in self.parts.items():
            if language in ("", part_language) and (not wanted or kind in wanted):
                total.add(score)
        return total


def labelled_items() -> list[Item]:
    """The whole set."""
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    return [Item(row["id"], row["language"], row["text"], tuple((a, b, kind) for a, b, kind in row["spans"])) for row in rows]


def score(items: Iterable[Item], find: Finder) -> Scores:
    """Counts over these items."""
    scores = Scores()
    for item in items:
        found = find(item.text)
        covered = {place for start, end, _ in found for place in range(start, end)}
        for start, end, kind in item.spans:
            part = scores.part(item.language, kind)
            part.labelled += 1
            part.characters += end - start
            part.leaked += sum(place not in covered for place in range(start, end))
        for place in found:
            part = scores.part(item.language, place[2])
            part.found += 1
            part.hits += any(_is_hit(place, label) for label in item.spans)
    return scores


def _is_hit(found: Place, label: Place) -> bool:
    shared = min(found[1], label[1]) - max(found[0], label[0])
    return found[2] == label[2] and shared >= 0.8 * max(found[1] - found[0], label[1] - label[0])


def masker_finder(masker: Masker) -> Finder:
    """The project's own."""
    return lambda text: [(finding.start, finding.end, finding.kind) for finding in masker.mask([text]).findings]


_PLAIN = {
    "email": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"),
    "cn_id": re.compile(r"\b\d{17}[\dXx]\b"),
    "us_ssn": re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    "bank_card": re.compile(r"\b(?:\d[ -]?){13,19}\b"),
    "ip": re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"),
    "phone": re.compile(r"(?:\+\d{1,3}[ -]?)?(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b|\b1[3-9]\d{9}\b|\b0\d{2,3}-\d{7,8}\b"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b"),
    "name": re.compile(r"(?<=Mr\. )[A-Z]\w+|(?<=Mrs\. )[A-Z]\w+|(?<=Dr\. )[A-Z]\w+|[\u4e00-\u9fff]{2,3}(?=先生|女士|医生)"),
}


def plain_finder(text: str) -> list[Place]:
    """What most teams paste into a script: one pattern per kind, no checksum, no context; the first to match keeps the place."""
    taken: list[Place] = []
    for kind, pattern in _PLAIN.items():
        for match in pattern.finditer(text):
            if not any(match.start() < end and start < match.end() for start, end, _ in taken):
                taken.append((*match.span(), kind))
    return taken


_PRESIDIO_KINDS = {
    "Phone": "phone",
    "Email": "email",
    "UsSsn": "us_ssn",
    "Nhs": "uk_nhs",
    "CreditCard": "bank_card",
    "Iban": "iban",
    "Ip": "ip",
    "UsPassport": "passport",
    "UkPassport": "passport",
}


def presidio_finder(folder: str) -> Finder:
    """Presidio's pattern recognisers at its default threshold, the best score first where two overlap."""
    sys.path.append(folder)
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # it asks the network for a list and goes on without it
    from presidio_analyzer import predefined_recognizers  # type: ignore[import-not-found]

    recognisers = {kind: getattr(predefined_recognizers, f"{name}Recognizer")() for name, kind in _PRESIDIO_KINDS.items()}

    def find(text: str) -> list[Place]:
        results: list[tuple[float, Any, str]] = []
        for kind, recogniser in recognisers.items():
            results += [(found.score, found, kind) for found in recogniser.analyze(text, recogniser.supported_entities, None) or []]
        taken: list[Place] = []
        for _, found, kind in sorted(results, key=lambda result: -result[0]):
            if not any(found.start < end and start < found.end for start, end, _ in taken):
                taken.append((found.start, found.end, kind))
        return taken

    return find


def realistic_rows(count: int) -> list[str]:
    """Rows of about 300 characters, half Chinese and half English: the shared medical data where it is there, else the labelled set."""
    chinese = _packed(_fields(SHARED / "med_zh" / "alpaca.jsonl", "instruction", "output") or _labelled_texts("zh"))
    english = _packed(_fields(SHARED / "med_en" / "medquad.jsonl", "question", "answer") or _labelled_texts("en"))
    return list(islice((row for pair in zip(cycle(chinese), cycle(english), strict=False) for row in pair), count))


def _fields(path: Path, *names: str) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [" ".join(str(json.loads(line)[name]) for name in names) for line in lines]


def _labelled_texts(language: str) -> list[str]:
    return [item.text for item in labelled_items() if item.language == language]


def _packed(texts: list[str]) -> list[str]:
    whole = "\n".join(texts)
    return [whole[start : start + SHARED_ROW_CHARACTERS] for start in range(0, len(whole), SHARED_ROW_CHARACTERS)]


def rows_per_s(find: Finder, rows: list[str]) -> float:
    """Rows per second of processor time, so that a busy machine does not count."""
    find(rows[0])
    start = time.process_time()
    for row in rows:
        find(row)
    return len(rows) / (time.process_time() - start)


def print_detail(console: Console, scores: Scores, title: str) -> None:
    table = Table("language", "kind", "labelled", "found", "precision", "recall", "F1", "leaked characters", title=title)
    for language in ("zh", "en", ""):
        kinds = sorted(kind for part, kind in scores.parts if part == language)
        for kind in [*kinds, "all"]:
            part = scores.total(language) if kind == "all" else scores.parts[language, kind]
            figures = (f"{value:.3f}" for value in (part.precision, part.recall, part.f1))
            table.add_row(language or "both", kind, str(part.labelled), str(part.found), *figures, f"{part.leak_ratio:.1%}")
    console.print(table)


def comparison(contenders: dict[str, Finder], items: list[Item], rows: list[str]) -> Iterator[tuple[str, ...]]:
    """One line per contender: everything, what Presidio's patterns and the plain ones are for, and speed."""
    structured = set(_PRESIDIO_KINDS.values())
    for name, find in contenders.items():
        scores = score(items, find)
        every, some = scores.total(), scores.total(kinds=structured)
        cells = (f"{value:.3f}" for part in (every, some) for value in (part.precision, part.recall))
        yield name, *cells, f"{every.leak_ratio:.1%}", f"{rows_per_s(find, rows):,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presidio", metavar="FOLDER", help="where presidio-analyzer is installed")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of about 300 characters for the speed")
    options = parser.parse_args()

    console, items, rows = Console(width=140), labelled_items(), realistic_rows(options.rows)
    find = masker_finder(Masker(PrivacySection()))
    negatives = sum(not item.spans for item in items)
    languages = Counter(item.language for item in items)
    console.print(f"{len(items)} labelled texts, {negatives} of them without personal data, languages {dict(languages)}")
    for half in HALVES:
        print_detail(console, score([item for item in items if item.half == half], find), f"tunegate, {half}")

    contenders: dict[str, Finder] = {"tunegate": find, "plain patterns": plain_finder}
    if options.presidio:
        contenders["presidio patterns"] = presidio_finder(options.presidio)
    held_out = [item for item in items if item.half == "held-out"]
    title = f"held-out; speed on {len(rows)} rows of {SHARED_ROW_CHARACTERS} characters (presidio: 1000)"
    table = Table("", "precision", "recall", "precision, numbers and mail", "recall", "leaked", "rows/s of one core", title=title)
    for name, find in contenders.items():
        for line in comparison({name: find}, held_out, rows[:1000] if name.startswith("presidio") else rows):
            table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    main()
