"""What cleaning, language identification and the glossary cost per row: run `python -m tests.benchmarks.data_cleaning [rows]`.

Rows are real ones where `../shared/data` is there, else made up; half Chinese, half English, one in ten damaged in one of ten ways.
Every figure is CPU seconds of one process, the better of two passes; the floor is copying the text through UTF-8, as reading does.
"""

import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

from training.data.cleaning import Cleaner, CleaningSection
from training.data.glossary import Glossary, GlossarySection
from training.data.languages import Identifier, LanguageSection

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
GOAL = 6000  # rows per second and core, for cleaning and language together
TERMS = 10_000
STEPS = ("mojibake", "control_characters", "unicode", "html", "boilerplate", "whitespace")

Row = tuple[str, str]  # question, answer

DAMAGES: tuple[Callable[[str], str], ...] = (
    lambda text: text.encode().decode("latin-1"),
    lambda text: f"<p>{text}</p><br>&nbsp;",
    lambda text: text.replace(" ", "  ").replace("。", "。\u3000"),
    lambda text: text.replace("a", "a\u200b").replace("的", "的\ufeff"),
    lambda text: f"{text}\nClick here to learn more.\n",
    lambda text: f"{text}更多精彩内容，请关注我们的公众号。",
    lambda text: f"{text}\r\n\r\n\r\n\r\n\r\n{text}",
    lambda text: f"{text} cafe\u0301 “ok” — 10⁹/L",
    lambda text: f"{text} p < 0.05, a & b; see https://example.org/?a=1&b=2",
    lambda text: f"{text}\n```python\nif a < b:\n    print(a)\n```\n",
)


def real_rows() -> Iterator[Row]:
    """Question and answer of the two files in turn."""
    chinese = (SHARED / "med_zh" / "alpaca.jsonl").read_text(encoding="utf-8").splitlines()
    english = (SHARED / "med_en" / "medquad.jsonl").read_text(encoding="utf-8").splitlines()
    for ours, theirs in zip(chinese, english, strict=False):
        row, other = json.loads(ours), json.loads(theirs)
        yield row["instruction"], row["output"]
        yield other["question"], other["answer"][:500]


def made_up_rows() -> Iterator[Row]:
    """Sentences of common words, of the length of the real ones."""
    chance = random.Random(7)
    words = "the patient should take this drug with food because it may cause nausea or pain in the chest after a week of treatment"
    english = words.split()
    chinese = "患者应当注意休息多喝水如果发烧超过三天请及时就医避免剧烈运动以及辛辣食物血压需要每天测量一次"
    while True:
        yield "".join(chance.choices(chinese, k=40)) + "？", "".join(chance.choices(chinese, k=60)) + "。"
        yield " ".join(chance.choices(english, k=9)) + "?", " ".join(chance.choices(english, k=80)) + "."


def rows_of(number: int) -> list[Row]:
    """`number` rows, one in ten damaged."""
    undamaged = list(real_rows()) if SHARED.exists() else list(islice(made_up_rows(), 2000))
    damages = cycle(DAMAGES)
    rows = islice(cycle(undamaged), number)
    return [(question, next(damages)(answer)) if index % 10 == 0 else (question, answer) for index, (question, answer) in enumerate(rows)]


def glossary(folder: Path) -> Glossary:
    """Ten thousand terms, of which some occur."""
    terms = {"MI": "myocardial infarction", "syndrome": "syndrome (disease)", "心梗": "心肌梗死", "肺炎": "肺部炎症"}
    terms |= {f"drug{number}ol": f"medicine {number}" for number in range(TERMS // 2)}
    terms |= {f"药{chr(0x4E00 + number)}素": f"药物{number}" for number in range(TERMS - len(terms))}
    path = folder / "glossary.tsv"
    path.write_text("".join(f"{term}\t{written}\n" for term, written in terms.items()), encoding="utf-8")
    return Glossary(GlossarySection(path=path))


def seconds(work: Callable[[Row], object], rows: list[Row]) -> float:
    """The better of two passes."""
    took = []
    for _ in range(2):
        started = time.process_time()
        for row in rows:
            work(row)
        took.append(time.process_time() - started)
    return min(took)


def only(step: str) -> Cleaner:
    chosen: dict[str, object] = {name: name == step for name in STEPS if name != "unicode"}
    return Cleaner(CleaningSection.model_validate({**chosen, "unicode": "nfc" if step == "unicode" else "none"}))


def cleaning(cleaner: Cleaner) -> Callable[[Row], object]:
    return lambda row: [cleaner.clean(text) for text in row]


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rows = rows_of(number)
    characters = sum(len(question) + len(answer) for question, answer in rows)
    before = _megabytes()
    cleaner, identifier = Cleaner(CleaningSection()), Identifier(LanguageSection(allow=("zh", "en")))
    with tempfile.TemporaryDirectory() as folder:
        terms = glossary(Path(folder))
    identifier.identify("Ein Satz, für den das Modell geladen wird, bevor die Uhr läuft.")

    def together(row: Row) -> object:
        question, answer = (cleaner.clean(text).text for text in row)
        return identifier.identify(f"{question}\n{answer}")

    works: dict[str, Callable[[Row], object]] = {"copy (floor)": lambda row: [text.encode().decode() for text in row]}
    works |= {step: cleaning(only(step)) for step in STEPS}
    works |= {"all cleaning": cleaning(cleaner), "language": lambda row: identifier.identify(f"{row[0]}\n{row[1]}")}
    works |= {"cleaning + language": together, f"glossary, {TERMS:,} terms": lambda row: [terms.apply(text) for text in row]}

    print(f"{number:,} rows, {characters / number:.0f} characters each, {'real' if SHARED.exists() else 'made up'}, one in ten damaged\n")
    print(f"{'step':<24}{'rows/s':>10}{'µs/row':>9}{'× floor':>9}")
    took = {name: seconds(work, rows) for name, work in works.items()}
    for name, one in took.items():
        print(f"{name:<24}{number / one:>10,.0f}{one / number * 1e6:>9.1f}{one / took['copy (floor)']:>9.1f}")
    changes = sum((cleaner.clean(text).changes for row in rows for text in row), Counter[str]())
    found = Counter(identifier.identify(f"{question}\n{answer}").code for question, answer in rows)
    rate = number / took["cleaning + language"]
    print(f"\ntexts changed: {dict(changes)}\nlanguages: {dict(found.most_common(6))}")
    print(f"memory: {before:.0f} MB with the rows, {_megabytes():.0f} MB at the peak")
    print(f"goal of {GOAL:,} rows/s per core: {'met' if rate >= GOAL else 'MISSED'} ({rate / GOAL:.1f}×)")


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
