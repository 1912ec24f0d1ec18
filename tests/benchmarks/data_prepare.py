"""How long it takes to prepare many rows with every step on, and how much memory: the whole of `training/prepare.py`.

Every step: cleaning, wanted languages, a glossary, masking, leakage against the clinic suite, duplicates, rendering and tokenising.

    python -m tests.benchmarks.data_prepare [ROWS] --base FOLDER

Rows are put together from sentences of the real texts in ../shared/data where they are there, else from made-up ones, about 300
characters each, one in fifty a duplicate. FOLDER holds a base model (`base/…` of a TUNEGATE_HOME); its tokenizer counts.
"""

import argparse
import json
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path

import psutil

from evaluation.suite import load_suite
from training.config import DataSection, ModelSection
from training.data.leakage import SuitePrompt
from training.prepare import prepare_dataset
from training.progress import Progress
from training.records import BaseModelRecord

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SUITE = Path(__file__).resolve().parents[2] / "flows" / "recipes" / "clinic_en" / "suite"
TERMS = "MI: myocardial infarction\nBP: blood pressure\nDM: diabetes mellitus\nCHF: congestive heart failure\n"
MADE_UP = [f"Patients who feel {a} should {b} and tell the clinic about {c}." for a in ["cold", "hot", "weak", "dizzy"]
           for b in ("rest", "drink water", "see a doctor") for c in ("fever", "pain", "a rash")]  # fmt: skip


def sentences() -> list[str]:
    """Sentences of at least 20 characters."""
    path = SHARED / "med_en" / "medquad.jsonl"
    if not path.is_file():
        return MADE_UP
    texts = (json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines())
    return sorted({part.strip() + "." for text in texts for part in text.split(". ") if 20 < len(part) < 120})


def write_rows(path: Path, rows: int) -> int:
    """Write Alpaca rows and return the bytes."""
    chance, known = random.Random(7), sentences()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            if number % 50 == 49:
                chance.seed(number - 1)  # the row before once more
            else:
                chance.seed(number)
            question = f"Question {chance.randrange(10**9)}: {chance.choice(known)}"
            file.write(json.dumps({"instruction": question, "input": "", "output": " ".join(chance.sample(known, 3))}) + "\n")
    return path.stat().st_size


class PeakMemory(threading.Thread):
    """The most that this process and its children held together, what they share counted once (PSS), looked at twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib, self.looks, self._over = 0.0, 0, threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self._over.wait(0.5):
            held = 0
            for process in (me := psutil.Process(), *me.children(recursive=True)):
                try:
                    held += process.memory_full_info().pss
                except psutil.Error:  # it has just ended
                    continue
            self.peak_mib, self.looks = max(self.peak_mib, held / 2**20), self.looks + 1

    def stop(self) -> None:
        """End, after the last look."""
        self._over.set()
        self.join()


def main() -> None:
    """Prepare once and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=20_000)
    parser.add_argument("--base", type=Path, required=True)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="data-prepare-"))
    size = write_rows(folder / "rows.jsonl", asked.rows)
    started = time.monotonic()
    shutil.copyfile(folder / "rows.jsonl", folder / "copy.jsonl")
    copy_s = time.monotonic() - started
    (folder / "terms.yaml").write_text(TERMS, encoding="utf-8")
    data = DataSection.model_validate(
        {
            "sft": [{"path": folder / "rows.jsonl"}],
            "privacy": {"mode": "mask"},
            "languages": {"allow": ["en"]},
            "glossary": {"path": folder / "terms.yaml"},
            "bad_rows": "drop",
        }
    )
    prompts = [SuitePrompt("clinic_en", prompt.id, prompt.text, prompt.reference) for prompt in load_suite(SUITE).prompts]
    said: list[Progress] = []
    memory, spent_s = PeakMemory(), sum(psutil.Process().cpu_times()[:4])
    memory.start()
    manifest = prepare_dataset(ModelSection(base="x"), data, BaseModelRecord.read(asked.base), folder / "out", said.append, prompts)
    memory.stop()
    wall_s, peak_mib = manifest.wall_s, memory.peak_mib
    spent_s = sum(psutil.Process().cpu_times()[:4]) - spent_s
    print(f"{'rows':>10} {'MB':>8} {'seconds':>9} {'rows/s':>9} {'peak MiB':>9} {'x copy':>9}")
    print(f"{asked.rows:>10} {size / 1e6:>8.1f} {wall_s:>9.1f} {asked.rows / wall_s:>9.0f} {peak_mib:>9.0f} {wall_s / copy_s:>9.0f}")
    print(f"kept {manifest.sources[0].kept}, dropped {manifest.sources[0].dropped}")
    print(f"{spent_s:.0f} processor seconds; memory looked at {memory.looks} times")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
