"""Near duplicates: what is found, what is dropped wrongly, and what a row costs, also by datatrove, rensa and datasketch.

    python -m tests.benchmarks.data_duplicates quality           recall by edit, wrong drops on real questions, choice of the shingle
    python -m tests.benchmarks.data_duplicates scale [ROWS …]    seconds and peak memory, each size in a process of its own
    python -m tests.benchmarks.data_duplicates rivals [ROWS]     the same rows through the others

The rivals are no dependencies: install `datatrove[processing] spacy datasketch rensa` in an environment of their own, with numpy, regex,
xxhash and pydantic, and run this file there. Times are CPU seconds of one process: on a shared machine they are the honest figure.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.data_duplicates_rows import CHUNK, Row, edits, huatuo, made_up_rows, medquad
from training.data.duplicates import Compared, Duplicates, Fingerprints, find_duplicates, fingerprints
from training.data.duplicates_clusters import find_clusters, kept
from training.data.duplicates_same import distinct_shingles, jaccard
from training.data.duplicates_section import DuplicatesSection
from training.data.duplicates_signatures import signatures
from training.data.shingles import shingles_of, tokens_of

# ---- what is measured --------------------------------------------------------------------------------------------------------


def deduplicate(rows: Sequence[Row], section: DuplicatesSection) -> Duplicates:
    """All the way, in memory."""
    found = Fingerprints.joined(
        [fingerprints([Compared(*row, 0) for row in rows[start : start + CHUNK]], section) for start in range(0, len(rows), CHUNK)]
    )
    return find_duplicates(found, section, lambda numbers: [rows[number] for number in numbers.tolist()], np.ones(len(rows)))


def recall_table(language: str, rows: list[Row]) -> None:
    """Share of planted copies dropped for their original, the copies lying among all the rows."""
    thresholds = (0.5, 0.6, 0.7, 0.8)
    print(
        f"\n{language}: share of 600 planted copies found, by near_threshold\n{'edit':30}" + "".join(f"{value:>7}" for value in thresholds)
    )
    for name, edit in edits(language, [answer for _, answer in rows]).items():
        rng = random.Random(name)
        originals = rng.sample(range(len(rows)), 600)
        mixed = rows + [edit(rows[number], rng) for number in originals]
        shares = []
        for threshold in thresholds:
            found = deduplicate(mixed, DuplicatesSection(near_threshold=threshold))
            instead = found.kept_instead
            shares.append(np.mean([instead[len(rows) + place] == instead[number] for place, number in enumerate(originals)]))
        print(f"{name:30}" + "".join(f"{share:7.1%}" for share in shares))


def precision_table() -> None:
    """MedQuAD rows dropped for a row about another disease or another kind of question: plain MinHash, and with the last word."""
    records = medquad()
    rows = [(record["question"], record["answer"]) for record in records]
    topics = np.array([f"{record['focus'].casefold()}|{record['qtype']}" for record in records])
    sketch = signatures([f"{question}\n{answer}" for question, answer in rows], 64)
    print(f"\nMedQuAD, {len(rows)} rows: dropped, and of those for a row of another topic or type of question")
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        plain = kept(find_clusters(sketch, threshold), "first", np.zeros(len(rows), np.int64), np.ones(len(rows)))
        ours = deduplicate(rows, DuplicatesSection(near_threshold=threshold)).kept_instead
        line = [
            f"{name} {(instead != np.arange(len(rows))).sum()} / {(topics != topics[instead]).sum()}"
            for name, instead in (("plain MinHash", plain), ("here", ours))
        ]
        print(f"  threshold {threshold:<5}" + "".join(f"{part:>28}" for part in line))
    found = deduplicate(rows, DuplicatesSection(exact=False))
    for row in np.flatnonzero(found.near):
        print(f"    {rows[row][0]}  ->  {rows[found.kept_instead[row]][0]}")


def shingle_table(language: str, rows: list[Row]) -> None:
    """Jaccard over 0.7 between a row and its edited copy, by tokens per shingle: why three."""
    lengths = (1, 2, 3, 4, 5)
    print(
        f"\n{language}: share of pairs with Jaccard of at least 0.7, by tokens per shingle\n{'edit':30}"
        + "".join(f"{size:>7}" for size in lengths)
    )
    for name, edit in edits(language, [answer for _, answer in rows]).items():
        rng = random.Random(name)
        sample = rng.sample(rows, 600)
        texts = ["\n".join(row) for row in sample] + ["\n".join(edit(row, rng)) for row in sample]
        shares = []
        for size in lengths:
            hashes, starts = distinct_shingles(texts, size, size, short=0)
            shares.append((jaccard(hashes, starts, np.arange(600), np.arange(600, 1200)) >= 0.7).mean())
        print(f"{name:30}" + "".join(f"{share:7.1%}" for share in shares))


def estimate_table() -> None:
    """How far the signature's estimate lies from the exact Jaccard similarity, against the theory's standard error."""
    rows, copies = made_up_rows(20_000)
    texts = ["\n".join(row) for row in rows]
    pairs = np.array(list(copies.items())[:2000])
    hashes, starts = distinct_shingles(texts)
    exact = jaccard(hashes, starts, pairs[:, 0], pairs[:, 1])
    print("\nestimate by signature: bias and root mean square error, against the theory")
    for permutations in (64, 128, 256):
        sketch = signatures(texts, permutations)
        error = (sketch[pairs[:, 0]] == sketch[pairs[:, 1]]).mean(axis=1) - exact
        theory = np.sqrt((exact * (1 - exact) / permutations).mean())
        print(f"  {permutations:>4} permutations: bias {error.mean():+.4f}, error {np.sqrt((error**2).mean()):.4f}, theory {theory:.4f}")


# ---- what it costs -----------------------------------------------------------------------------------------------------------


def write_rows(folder: Path, count: int) -> None:
    """The rows as a file, one JSON array a line, and which are copies."""
    rows, copies = made_up_rows(count)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    np.save(folder / "copies.npy", np.array(list(copies.items())))


class RowsOnDisk:
    """Reads rows by number, as a pipeline does that keeps no text in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.offsets = np.concatenate(([0], np.cumsum(np.fromiter((len(line) for line in self._file), np.int64))))

    def __call__(self, numbers: Any) -> list[Row]:
        return [self._read(int(self.offsets[number])) for number in numbers]

    def _read(self, offset: int) -> Row:
        self._file.seek(offset)
        question, answer = json.loads(self._file.readline())
        return question, answer


def scale_child(folder: Path) -> None:
    """One size, in this process; prints one line of JSON."""
    rows = RowsOnDisk(folder / "rows.jsonl")
    count, section = len(rows.offsets) - 1, DuplicatesSection()
    started = time.process_time()
    parts, reading = [], 0.0
    for start in range(0, count, CHUNK):
        clock = time.process_time()
        texts = rows(range(start, min(count, start + CHUNK)))
        reading += time.process_time() - clock
        parts.append(fingerprints([Compared(*row, 0) for row in texts], section))
    found = Fingerprints.joined(parts)
    del parts
    sketched = time.process_time()
    duplicates = find_duplicates(found, section, rows, np.ones(count))
    ended = time.process_time()
    alike = _alike_copies(rows, np.load(folder / "copies.npy")[:2000], section.near_threshold)
    dropped = duplicates.exact | duplicates.near
    share = float((duplicates.kept_instead[alike[:, 0]] == duplicates.kept_instead[alike[:, 1]]).mean())
    planted = np.load(folder / "copies.npy")[:, 0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dropped[planted] = False
    print(json.dumps([sketched - started - reading, ended - sketched, peak, share, int(dropped.sum())]))


def _alike_copies(rows: RowsOnDisk, copies: Any, threshold: float) -> Any:
    """The planted copies that are as similar to their original as the threshold wants."""
    hashes, starts = distinct_shingles(["\n".join(row) for row in rows(copies.ravel())])
    return copies[jaccard(hashes, starts, np.arange(0, copies.size, 2), np.arange(1, copies.size, 2)) >= threshold]


def scale_table(sizes: Sequence[int]) -> None:
    """Seconds and memory by number of rows."""
    print(
        f"{'rows':>9} {'fingerprints s':>15} {'finding s':>10} {'µs a row':>9} {'peak MiB':>9} {'copies found':>13} {'dropped wrongly':>16}"
    )
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder), size)
            output = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.data_duplicates", "child", folder], capture_output=True, check=True
            ).stdout
        sketch_s, find_s, peak, share, wrong = json.loads(output)
        each = (sketch_s + find_s) / size * 1e6
        print(
            f"{size:>9} {sketch_s:>15.1f} {find_s:>10.1f} {each:>9.1f} {peak / 1024:>9.0f} {share:>13.1%} {wrong:>16}",
            flush=True,
        )


# ---- rivals ------------------------------------------------------------------------------------------------------------------


def _cpu_s(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _with_datatrove(texts: list[str], folder: str) -> int:
    """datatrove's four steps with 3-word shingles and 64 hashes; returns the rows it would drop."""
    minhash, data = import_module("datatrove.pipeline.dedup.minhash"), import_module("datatrove.data")
    config = minhash.MinhashConfig(n_grams=3, num_buckets=16, hashes_per_bucket=4)
    documents = [data.Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    minhash.MinhashDedupSignature(f"{folder}/signatures", config).run(iter(documents), 0, 1)
    for bucket in range(config.num_buckets):
        minhash.MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config).run(None, bucket, config.num_buckets)
    minhash.MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config).run(None, 0, 1)
    return len(texts) - sum(1 for _ in minhash.MinhashDedupFilter(f"{folder}/remove").run(iter(documents), 0, 1))


def _signatures_by_datasketch(texts: list[str]) -> None:
    sketch = import_module("datasketch").MinHash
    for text in texts:
        words = text.lower().split()
        sketch(num_perm=64).update_batch([" ".join(words[at : at + 3]).encode() for at in range(len(words) - 2)])


def _signatures_by_rensa(texts: list[str]) -> None:
    cut = [text.lower().split() for text in texts]
    sets = [[" ".join(words[at : at + 3]) for at in range(len(words) - 2)] for words in cut]
    np.array(import_module("rensa").RMinHash.digest_matrix_from_token_sets(sets, 64, 7).to_rows(), np.uint32)


def _signatures_by_rensa_from_our_shingles(texts: list[str]) -> None:
    made_by = import_module("rensa").RMinHash.digest_matrix_from_flat_token_hashes
    for start in range(0, len(texts), 1000):
        shingles = shingles_of(tokens_of(texts[start : start + 1000]))
        np.array(made_by(shingles.hashes, shingles.starts.astype(np.uint64), 64, 7).to_rows(), np.uint32)


def rivals_table(count: int) -> None:
    """CPU seconds for the same rows, as ratios to ours in this run."""
    rows, copies = made_up_rows(count)
    texts = ["\n".join(row) for row in rows]
    deduplicate(rows[:2000], DuplicatesSection())  # builds the tables
    dropped: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[str, Callable[[], Any]] = {
            "signatures: here": lambda: signatures(texts, 64),
            "signatures: rensa, words in Python": lambda: _signatures_by_rensa(texts),
            "signatures: rensa, our shingles": lambda: _signatures_by_rensa_from_our_shingles(texts),
            "signatures: datasketch": lambda: _signatures_by_datasketch(texts),
            "all steps: here": lambda: dropped.update(
                here=int((deduplicate(rows, DuplicatesSection()).kept_instead != np.arange(count)).sum())
            ),
            "all steps: datatrove": lambda: dropped.update(datatrove=_with_datatrove(texts, folder)),
        }
        seconds: dict[str, float] = {}
        for name, work in cases.items():
            try:
                seconds[name] = _cpu_s(work)
            except ImportError as missing:
                print(f"{name}: not installed here ({missing.name})")
    for name, spent in seconds.items():
        print(f"{name:36} {spent:8.2f} s {spent / count * 1e6:8.1f} µs a row {spent / seconds[name.split(':')[0] + ': here']:7.1f} × ours")
    print(f"dropped of {count} rows with {len(copies)} planted copies: {dropped}")


def main() -> None:
    """Run the part asked for."""
    part, *rest = sys.argv[1:] or ["quality"]
    if part == "child":
        scale_child(Path(rest[0]))
    elif part == "scale":
        scale_table([int(size) for size in rest] or [10_000, 100_000])
    elif part == "rivals":
        rivals_table(int(rest[0]) if rest else 10_000)
    else:
        precision_table()
        english = [(row["question"], row["answer"][:300]) for row in medquad()]
        for language, rows in (("en", english), ("zh", huatuo())):
            shingle_table(language, rows)
            recall_table(language, rows)
        estimate_table()


if __name__ == "__main__":
    main()
