"""Hostile files: nothing but a DataError may leave a reader, every row is accounted for, and formats never raise.

`FUZZ_EXAMPLES=20000 pytest tests/training/data/test_readers_fuzz.py` runs longer than the suite does.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections import Counter
from functools import cache
from typing import Any

import orjson
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from training.data.config import DataSection
from training.data.formats import FORMAT_REASONS, FormatOptions, example_of
from training.data.leakage import SuitePrompt
from training.data.read_files import DataFile
from training.data.read_record import READING_REASONS, Record
from training.data.readers import ReadOptions, read_file
from training.data.refine import Refiner
from training.data.rows import ROLES, Place, Rejected, texts_of
from training.data.sources import Column, SourceSection
from training.errors import DataError

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize="FUZZ_EXAMPLES" not in os.environ,
)
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", "")
NAMES = (*Column.__args__, "kto_tag", "role", "content", "from", "value", "type", "text", "tool_calls", "function_call", "weight", "name")
ROWS: tuple[dict[str, Any], ...] = (
    {"instruction": "Fever: what now?", "input": "", "output": "Rest.", "history": [["a", "b"]], "system": "Be kind."},
    {"messages": [{"role": "user", "content": "发烧怎么办"}, {"role": "assistant", "content": "及时就医"}], "label": True},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": 'A "quote": é'}], "id": 7},
    {"prompt": "p", "chosen": "c", "rejected": "r", "score": 0.5, "none": None},
    {"question": "q\n\n,;", "answer": "a\t\\", "qtype": "x"},
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
MARKUP = (
    "<p>",
    "&#xD800;",
    "&lt;b",
    "click here",
    "138 1234 5678",
    "Dr. Lee",
    "a@b.cn",
    "```",
    "Ã©",
    "\u202e",
    "\u0301",
    "请点击",
    "39 度",
    "ﬁ",
)
texts = st.lists(st.sampled_from(MARKUP) | st.text(max_size=12), max_size=8).map("".join)
well_formed = st.fixed_dictionaries({"instruction": texts, "output": texts}, optional={"input": texts, "system": texts})
rows_like_ours = st.dictionaries(st.sampled_from(NAMES), json_values | st.text(max_size=12), max_size=6)


def read(data: bytes, ending: str = ".jsonl", **options: Any) -> list[Record | Rejected]:
    file = DataFile(f"rows{ending}", f"rows{ending}", len(data), lambda: io.BytesIO(data))
    return list(read_file(file, ReadOptions(options.get("max_row_bytes", 1 << 16), options.get("encoding", "auto")), Counter()))


def survive(data: bytes, ending: str) -> None:
    """Read and understand everything; check what came out."""
    try:
        rows = read(data, ending)
    except DataError:
        return
    assert rows
    for row in rows:
        assert isinstance(row, Record | Rejected)
        orjson.dumps([str(row.place), getattr(row, "raw", "")])  # may be printed and written
        if isinstance(row, Rejected):
            assert row.reason in READING_REASONS
        else:
            understand(row)


def understand(record: Record) -> None:
    """Make the example and check what must hold of it."""
    for tools in ("keep", "refuse"):
        example, detected = example_of(record, FormatOptions(tools=tools))  # type: ignore[arg-type]
        assert detected.why
        if isinstance(example, Rejected):
            assert example.reason in FORMAT_REASONS
            continue
        assert example.messages
        assert all(message["role"] in ROLES and isinstance(message["content"], str) for message in example.messages)
        assert all(text == text.strip() for text in texts_of(example))


def mutations(data: bytes) -> st.SearchStrategy[bytes]:
    """The data with a few cuts, changes, insertions and repeats, or its beginning."""
    place = st.integers(0, max(0, len(data) - 1))
    edit = st.tuples(st.sampled_from(("cut", "put", "set", "again", "end")), place, st.integers(0, 40), st.binary(max_size=6))
    return st.lists(edit, min_size=1, max_size=4).map(lambda edits: mutated(data, edits))


def mutated(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, at, length, new in edits:
        if kind == "cut":
            data = data[:at] + data[at + length :]
        elif kind == "put":
            data = data[:at] + new + data[at:]
        elif kind == "set":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "again":
            data = data[: at + length] + data[at:]
        else:
            data = data[: max(1, at)]
    return data


def as_lines(rows: tuple[dict[str, Any], ...] = ROWS) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows) * 3


def as_csv(delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["question", "answer", "n"], *([f"q {n}\n,", 'say "hi"', n] for n in range(9))])
    return text.getvalue().encode()


def as_parquet() -> bytes:
    out = io.BytesIO()
    table = pa.table({"question": ["a", "b", "发烧"], "answer": ["x", None, "y"], "when": pa.array([0, 1, 2], pa.timestamp("ns"))})
    parquet.write_table(table, out, row_group_size=2)
    return out.getvalue()


SEEDS = {
    "lines": (as_lines(), ".jsonl"),
    "array": (json.dumps(ROWS * 2, ensure_ascii=False).encode(), ".json"),
    "spread array": (json.dumps(ROWS * 2, indent=2, ensure_ascii=False).encode(), ".json"),
    "wrapped": (json.dumps({"version": 1, "data": ROWS, "more": [1]}).encode(), ".json"),
    "csv": (as_csv(), ".csv"),
    "tsv": (as_csv("\t"), ".tsv"),
    "parquet": (as_parquet(), ".parquet"),
    "gzip": (gzip.compress(as_lines(), mtime=0), ".jsonl"),
    "bzip2": (bz2.compress(as_lines()), ".jsonl.bz2"),
    "xz": (lzma.compress(as_lines()), ".jsonl"),
    "zstd": (zstandard.compress(as_lines()), ".jsonl"),
    "utf-16": ("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode("utf-16"), ".jsonl"),
    "gb18030": ("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode("gb18030"), ".jsonl"),
    "gb18030 array": (json.dumps(ROWS, ensure_ascii=False, indent=1).encode("gb18030"), ".json"),
}


@fuzz
@given(st.binary(max_size=400), st.sampled_from(ENDINGS))
def test_any_bytes_are_read_or_refused(data: bytes, ending: str) -> None:
    survive(data, ending)


@fuzz
@given(st.text(alphabet='{}[]",:\\ \n\tab1-.eu\x00\ufeff发é', max_size=200), st.sampled_from(ENDINGS))
def test_any_text_of_brackets_and_quotes_is_read_or_refused(text: str, ending: str) -> None:
    survive(text.encode(), ending)


@pytest.mark.parametrize("seed", SEEDS)
@fuzz
@given(data=st.data())
def test_a_damaged_file_is_read_as_far_as_it_goes(seed: str, data: st.DataObject) -> None:
    content, ending = SEEDS[seed]
    survive(data.draw(mutations(content)), ending)


@fuzz
@given(
    st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")) | json_values.map(lambda value: json.dumps(value).encode()))
)
def test_every_line_that_is_not_blank_comes_out_once(lines: list[bytes]) -> None:
    whole = [orjson.dumps(ROWS[0]), orjson.dumps(ROWS[1]), *lines]

    rows = read(b"\n".join(whole))

    expected = [number for number, line in enumerate(whole, start=1) if line.strip(b" \t\r")]
    assert [row.place.line for row in rows] == expected


@fuzz
@given(st.lists(json_values, min_size=1, max_size=8), st.sampled_from((None, 0, 1, 4)), st.booleans())
def test_every_item_of_an_array_comes_out_once(values: list[Any], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)

    rows = read(text.encode("utf-8", "surrogatepass"), ".json")

    assert len(rows) == len(values)
    assert all(isinstance(row, Rejected) or row.values.keys() == value.keys() for row, value in zip(rows, values, strict=True))


@fuzz
@given(
    st.lists(st.tuples(*[st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)] * 3), min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(("\n", "\r\n")),
)
def test_a_table_comes_back_as_it_was_written(rows: list[tuple[str, ...]], delimiter: str, line_end: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([("question", "answer", "kind"), *rows])

    found = read(text.getvalue().encode(), ".csv")

    assert [tuple(row.values.values()) for row in found if isinstance(row, Record)] == list(rows)


@fuzz
@given(json_values, st.booleans(), st.sampled_from((None, (",", " :"), (", ", ":  "))))
def test_a_key_that_stands_twice_is_told_whatever_the_text(value: Any, ascii_only: bool, separators: tuple[str, str] | None) -> None:
    """Against the slow and certain way: the parser that hands over every pair."""
    inner = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    for text in (
        f'{{"a": {inner}}}',
        f'{{"a": {inner}, "b" :{inner}, "a":1}}',
        f'{{"a\\u003a": {inner}, "b": [{inner}, {{"c":1,"c":2}}]}}',
    ):
        twice: list[bool] = []
        json.loads(text, object_pairs_hook=lambda pairs, twice=twice: twice.append(len(dict(pairs)) < len(pairs)))

        for ending, data in ((".jsonl", text), (".json", f"[{text}]")):
            (row,) = read(data.encode("utf-8", "surrogatepass"), ending)

            assert isinstance(row, Rejected) or not any(twice)
            assert not (isinstance(row, Rejected) and row.reason == "duplicate_keys" and not any(twice))


@fuzz
@given(rows_like_ours)
def test_any_record_is_an_example_or_says_why_not(values: dict[str, Any]) -> None:
    understand(Record(Place("rows.jsonl", 1), values, 0))


@fuzz
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("role", "content", "from", "value", "tool_calls"), json_values))))
def test_any_turns_are_an_example_or_say_why_not(turns: list[dict[str, Any]]) -> None:
    for key in ("messages", "conversations", "chosen"):
        understand(Record(Place("rows.jsonl", 1), {key: turns, "rejected": turns, "prompt": turns}, 0))


@cache
def refiner() -> Refiner:
    data = DataSection.model_validate({"sft": [{"path": "rows.jsonl"}], "privacy": {"mode": "mask"}, "languages": {"allow": ["en", "zh"]}})
    return Refiner(data, (SuitePrompt("gate", "fever", "一岁宝宝发烧39 度, click here?", "及时就医。"),), None, None)


@fuzz
@given(st.lists(well_formed | rows_like_ours, max_size=4))
def test_any_rows_end_once_after_every_step(rows: list[dict[str, Any]]) -> None:
    reads = [Record(Place("rows.jsonl", line), values, 0) for line, values in enumerate(rows, start=1)]

    refined = refiner().refine(SourceSection(path="rows.jsonl"), "any", reads)

    ended = [row.place.line for row in (*refined.kept, *refined.rejected)]
    assert sorted(ended) == list(range(1, len(rows) + 1))
    assert refined.fingerprints is None or len(refined.fingerprints.questions) == len(refined.kept)
    orjson.dumps([row.sides for row in refined.kept])  # may be written
