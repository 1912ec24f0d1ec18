"""What each step of data preparation costs, alone, on one core: rows per second, and how many times reading and writing the same bytes.

    python -m tests.benchmarks.data_steps [ROWS] [--base FOLDER]

Rows are those of `data_prepare.py`. Times are of the processor, so that a busy machine hardly counts; with FOLDER, a base model's
folder, rows are also rendered with its template and tokenised.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson

from evaluation.suite import load_suite
from tests.benchmarks.data_prepare import write_rows
from training.data.cleaning import Cleaner, CleaningSection
from training.data.duplicates import Fingerprints, compared, find_duplicates, fingerprints
from training.data.duplicates_section import DuplicatesSection
from training.data.formats import FormatOptions, example_of
from training.data.languages import Identifier, LanguageSection
from training.data.leakage import Index, SuitePrompt
from training.data.privacy import Masker, PrivacySection
from training.data.read_record import Record
from training.data.rows import Example, Rejected, question_of, texts_of
from training.data.sources import SourceSection, open_source
from training.prepare import renderer
from training.tokenizer import load_tokenizer

SUITE = Path(__file__).resolve().parents[2] / "flows" / "recipes" / "clinic_en" / "suite"
CHUNK = 500
Steps = dict[str, Callable[[], object]]


def floor(path: Path) -> None:
    """Read and write the same bytes, line by line, and nothing else."""
    with path.open("rb") as read, path.with_suffix(".copy").open("wb") as written:
        for line in read:
            written.write(orjson.dumps(orjson.loads(line)) + b"\n")


def steps_of(path: Path, examples: list[Example], base: Path | None) -> Steps:
    """Every step as a call that takes all rows through it."""
    cleaner, identifier, masker = Cleaner(CleaningSection()), Identifier(LanguageSection()), Masker(PrivacySection())
    suite, section = load_suite(SUITE), DuplicatesSection()
    index = Index([SuitePrompt(suite.name, prompt.id, prompt.text, prompt.reference) for prompt in suite.prompts])
    texts = [texts_of(example) for example in examples]
    sides = [(question_of(example), example.messages[-1]["content"]) for example in examples]
    chunks = [examples[start : start + CHUNK] for start in range(0, len(examples), CHUNK)]

    def made() -> Fingerprints:
        return Fingerprints.joined([fingerprints([compared(example) for example in chunk], section) for chunk in chunks])

    prints = made()
    steps: Steps = {
        "read and write, nothing else": lambda: floor(path),
        "read": lambda: sum(1 for _ in open_source(SourceSection(path=path))),
        "tell the format": lambda: [
            example_of(row, FormatOptions()) for row in open_source(SourceSection(path=path)) if isinstance(row, Record)
        ],
        "clean": lambda: [cleaner.clean(text) for row in texts for text in row],
        "tell the language": lambda: [identifier.identify("\n".join(row)) for row in texts],
        "mask personal data": lambda: [masker.mask(row) for row in texts],
        "look for leaks": lambda: [index.overlaps(sides[start : start + CHUNK]) for start in range(0, len(sides), CHUNK)],
        "make fingerprints": made,
        "find duplicates": lambda: find_duplicates(
            prints, section, lambda numbers: [sides[number] for number in numbers.tolist()], np.ones(len(sides))
        ),
    }
    if base is not None:
        measure = renderer(load_tokenizer(base), None)
        steps["render and tokenise"] = lambda: [measure(example) for example in examples]
    return steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=100_000)
    parser.add_argument("--base", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        size = write_rows(path, asked.rows)
        rows = [row for row in open_source(SourceSection(path=path)) if isinstance(row, Record)]
        examples = [example for row in rows for example in [example_of(row, FormatOptions())[0]] if not isinstance(example, Rejected)]
        assert len(examples) == asked.rows
        print(f"{asked.rows:,} rows, {size / 1e6:.1f} MB\n{'step':32}{'seconds':>9}{'rows/s':>10}{'x floor':>9}")
        spent_on_floor = 0.0
        for name, step in steps_of(path, examples, asked.base).items():
            started = time.process_time()
            step()
            spent = time.process_time() - started
            spent_on_floor = spent_on_floor or spent
            print(f"{name:32}{spent:9.2f}{asked.rows / spent:10,.0f}{spent / spent_on_floor:9.1f}", flush=True)


if __name__ == "__main__":
    main()
