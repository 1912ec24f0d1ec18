"""How long it takes to prepare many rows with every step on, and how much memory: the whole of `training/prepare.py`.

    python -m tests.benchmarks.data_prepare [ROWS] --base FOLDER

Rows are put together from sentences of the real texts in ../shared/data where they are there, else from made-up ones, about 300
characters each, one in fifty a duplicate. FOLDER holds a base model (`base/…` of a TUNEGATE_HOME); its tokenizer counts.
"""

import argparse
import json
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

from training.config import DataSection, ModelSection
from training.prepare import prepare_dataset
from training.progress import Progress
from training.records import BaseModelRecord

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
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
    data = DataSection.model_validate({"sft": [{"path": folder / "rows.jsonl"}], "privacy": {"mode": "mask"}, "bad_rows": "drop"})
    said: list[Progress] = []
    manifest = prepare_dataset(ModelSection(base="x"), data, BaseModelRecord.read(asked.base), folder / "out", said.append)
    wall_s = manifest.wall_s
    peak_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    print(f"{'rows':>10} {'MB':>8} {'seconds':>9} {'rows/s':>9} {'peak MiB':>9} {'x copy':>9}")
    print(f"{asked.rows:>10} {size / 1e6:>8.1f} {wall_s:>9.1f} {asked.rows / wall_s:>9.0f} {peak_mib:>9.0f} {wall_s / copy_s:>9.0f}")
    print(f"kept {manifest.sources[0].kept}, dropped {manifest.sources[0].dropped}; peak is the parent's and the largest worker's together")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
