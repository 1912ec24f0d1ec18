"""What reading and understanding rows costs: rows/s and MB/s per format, peak memory, and the ratio to the bare minimum.

    python -m tests.benchmarks.data_reading [ROWS]

The floor is reading the same bytes and doing nothing; `datasets.load_dataset("json")` is what most trainers use instead. Every
case runs in a process of its own, so that its peak memory is its own; each is timed twice and the better time counts. Time is
the process's own CPU time: on a shared machine it is the honest figure, though it still varies by a third.
Rows are questions and answers of about 300 characters, a third of them Chinese, made from a fixed seed. Then every file of
`shared/data`, where it is there, is read and each of its rows accounted for.
"""

import csv
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.data.formats import FormatOptions, example_of
from training.data.rows import Rejected
from training.data.sources import SourceSection, open_source

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
_EN = [
    "the patient has had a fever of 38.5 °C since Monday",
    "take two tablets after meals: morning and evening",
    "see a doctor if the pain in the chest does not pass",
    "blood pressure was 140/90 in the morning",
    "rest for a few days and measure again",
    "this medicine can make you drowsy",
    "call the emergency number at once when breathing becomes difficult",
    "keep the wound clean and dry",
]
_ZH = [
    "患者自周一起发热，体温三十八度五",
    "饭后服用两片，早晚各一次",
    "多喝水，注意休息",
    "如果胸痛持续不缓解，请及时就医",
    "早晨测得血压偏高",
    "此药可能引起嗜睡，服药后不要开车",
    "出现呼吸困难时应立即拨打急救电话",
    "保持伤口清洁干燥",
]

Row = dict[str, Any]


def exchanges(count: int) -> Iterator[tuple[str, str, str]]:
    """(question, good answer, bad answer), each different from the others."""
    chance = random.Random(7)
    for number in range(count):
        words, joint = (_ZH, "。") if number % 3 == 0 else (_EN, ". ")
        parts = [joint.join(chance.choices(words, k=length)) for length in (2, 4 if words is _EN else 8, 3)]
        yield f"{parts[0]} ({number})?", parts[1], parts[2]


def alpaca(question: str, good: str, bad: str) -> Row:
    return {"instruction": question, "input": "", "output": good}


def messages(question: str, good: str, bad: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": good}]}


def sharegpt(question: str, good: str, bad: str) -> Row:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": good}]}


def preference(question: str, good: str, bad: str) -> Row:
    return {"prompt": question, "chosen": good, "rejected": bad}


def kto(question: str, good: str, bad: str) -> Row:
    return {**messages(question, good, bad), "label": True}


def as_lines(rows: Iterator[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_array(rows: Iterator[Row], path: Path) -> None:
    path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=2), encoding="utf-8")


def as_csv(rows: Iterator[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["instruction", "input", "output"])
        writer.writeheader()
        writer.writerows(rows)


def as_gzip(rows: Iterator[Row], path: Path) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_parquet(rows: Iterator[Row], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(list(rows)), path)


CASES: tuple[tuple[str, str, Callable[[str, str, str], Row], Callable[[Iterator[Row], Path], None]], ...] = (
    ("Alpaca, JSON Lines", "alpaca.jsonl", alpaca, as_lines),
    ("messages, JSON Lines", "messages.jsonl", messages, as_lines),
    ("ShareGPT, JSON Lines", "sharegpt.jsonl", sharegpt, as_lines),
    ("preference, JSON Lines", "preference.jsonl", preference, as_lines),
    ("KTO, JSON Lines", "kto.jsonl", kto, as_lines),
    ("Alpaca, JSON Lines, gzip", "alpaca.jsonl.gz", alpaca, as_gzip),
    ("Alpaca, one JSON array", "alpaca.json", alpaca, as_array),
    ("Alpaca, CSV", "alpaca.csv", alpaca, as_csv),
    ("Alpaca, Parquet", "alpaca.parquet", alpaca, as_parquet),
)


def read_and_understand(path: Path) -> int:
    """Ours: every row becomes an example."""
    rows = 0
    options = FormatOptions()
    for row in open_source(SourceSection(path=path)):
        if isinstance(row, Rejected) or isinstance(example_of(row, options)[0], Rejected):
            raise AssertionError(f"a sound row was rejected: {row}")
        rows += 1
    return rows


def read_only(path: Path) -> int:
    """Ours without the formats."""
    return sum(1 for _ in open_source(SourceSection(path=path)))


def read_bytes(path: Path) -> int:
    """The floor."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 18):
            pass
    return 0


def parse_plainly(path: Path) -> int:
    """The loop that everyone writes first."""
    with path.open(encoding="utf-8") as file:
        return sum(1 for line in file if json.loads(line))


def load_dataset(path: Path) -> int:
    """What most trainers do; it writes an Arrow copy, then each row is taken from it."""
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        datasets.disable_progress_bars()
        return sum(1 for _ in datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache))


READERS = {each.__name__: each for each in (read_and_understand, read_only, read_bytes, parse_plainly, load_dataset)}


def measure(reader: str, path: Path) -> tuple[float, float]:
    """(CPU seconds, peak MiB) in a process of its own; imports are not timed, but they count as memory."""
    command = [sys.executable, "-m", "tests.benchmarks.data_reading", "--one", reader, str(path)]
    seconds, peak = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(seconds), float(peak)


def one(reader: str, path: Path) -> None:
    """The process of one case."""
    if reader == "load_dataset":
        import datasets  # noqa: F401  # its import takes seconds
    times = []
    for _ in range(2):
        started = time.process_time()
        READERS[reader](path)
        times.append(time.process_time() - started)
    peak_kib = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]
    print(min(times), int(peak_kib) / 1024)


def speed_table(count: int, folder: Path) -> None:
    print(f"{count:,} rows\n\n{'format':<26}{'MB':>6}{'rows/s':>10}{'MB/s':>7}{'peak MiB':>10}{'/ bytes only':>14}")
    for title, name, shape, write in CASES:
        path = folder / name
        write((shape(*exchange) for exchange in exchanges(count)), path)
        size, (floor, _), (seconds, peak) = path.stat().st_size / 1e6, measure("read_bytes", path), measure("read_and_understand", path)
        print(f"{title:<26}{size:>6.1f}{count / seconds:>10,.0f}{size / seconds:>7.1f}{peak:>10.0f}{seconds / floor:>13.0f}x", flush=True)
    path = folder / "alpaca.jsonl"
    ours, _ = measure("read_and_understand", path)
    print(f"\n{'Alpaca, JSON Lines':<44}{'rows/s':>10}{'peak MiB':>10}{'time / ours':>13}")
    for reader in ("read_and_understand", "read_only", "parse_plainly", "load_dataset"):
        seconds, peak = measure(reader, path)
        title = READERS[reader].__doc__ or ""
        print(f"{reader + ': ' + title.split(';')[0].rstrip('.')[:24]:<44}{count / seconds:>10,.0f}{peak:>10.0f}{seconds / ours:>12.2f}x")


def accounts(folder: Path) -> None:
    """One line for each file: rows, what became of them, and how their format was told."""
    for path in sorted(each for each in folder.rglob("*") if each.suffix in (".json", ".jsonl")):
        ends: Counter[str] = Counter()
        why: Counter[str] = Counter()
        source = open_source(SourceSection(path=path))
        for row in source:
            example, detected = (row, None) if isinstance(row, Rejected) else example_of(row, FormatOptions())
            ends[example.reason if isinstance(example, Rejected) else type(example).__name__] += 1
            why[detected.why if detected else "not read"] += 1
        if source.rows != ends.total():
            raise AssertionError(f"{path}: {source.rows} rows, {ends.total()} accounted for")
        told = "; ".join(f"{count} {reason}" for reason, count in why.items())
        kept = ", ".join(f"{count} {end}" for end, count in ends.items())
        print(f"{path.relative_to(folder).as_posix():<30}{source.rows:>6} rows = {kept:<20} {told}")


def main() -> None:
    """Print both tables."""
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        speed_table(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, Path(folder))
    print()
    if SHARED.is_dir():
        accounts(SHARED)
    else:
        print(f"no accounts: {SHARED} is not there")


if __name__ == "__main__":
    main()
