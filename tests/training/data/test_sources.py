import bz2
import gzip
import json
import lzma
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zstandard
from pydantic import ValidationError

from training.data.formats import FormatOptions, example_of
from training.data.read_record import Read, Record
from training.data.sources import SourceSection, open_source, size_bytes
from training.errors import DataError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
ROW = {"instruction": "Hi", "input": "", "output": "Hello"}
LINE = json.dumps(ROW).encode()


def rows(path: Path | str, **keys: Any) -> list[Read]:
    return list(open_source(SourceSection(path=path, **keys)))


def values(path: Path | str, **keys: Any) -> list[Any]:
    return [row.values if isinstance(row, Record) else row.reason for row in rows(path, **keys)]


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINE + b"\n" + LINE),
        ("a.jsonl", b"\xef\xbb\xbf" + LINE + b"\r\n\r\n" + LINE + b"\r\n"),
        ("a.json", json.dumps([ROW, ROW])),
        ("a.json", json.dumps([ROW, ROW], indent=4)),
        ("a.json", json.dumps({"version": "1", "split": [1], "data": [ROW, ROW]})),
        ("a.json", json.dumps({"version": "1", "data": [ROW, ROW], "by": {"x": 1}}, indent=2)),
        ("a.json", json.dumps(ROW, indent=2) + "\n" + json.dumps(ROW, indent=2)),
        ("a.txt", LINE + b"\n" + LINE),
        ("a", json.dumps([ROW, ROW])),
        ("a.csv", "instruction,input,output\nHi,,Hello\nHi,,Hello\n"),
        ("a.csv", "\ufeffinstruction;input;output\r\nHi;;Hello\r\nHi;;Hello\r\n"),
        ("a.tsv", "instruction\tinput\toutput\nHi\t\tHello\nHi\t\tHello"),
        ("a.txt", 'instruction|input|output\n"Hi"||"Hello"\nHi||Hello\n'),
        ("a.csv", "instruction,input,output\rHi,,Hello\rHi,,Hello\r"),
        ("a.csv", "instruction,input,output\nHi,,Hello\nHi,,Hello\n".encode("utf-16")),
        ("a.jsonl", (LINE + b"\n" + LINE).decode().encode("utf-16-le")),
        ("a.jsonl", (LINE + b"\n" + LINE).decode().encode("utf-32")),
        ("a.gz", gzip.compress(LINE + b"\n" + LINE)),
        ("a.jsonl", gzip.compress(LINE + b"\n") + gzip.compress(LINE) + bytes(512)),
        ("a.json.bz2", bz2.compress(json.dumps([ROW, ROW]).encode())),
        ("a.jsonl.xz", lzma.compress(LINE + b"\n") + lzma.compress(LINE)),
        ("a.jsonl.zst", zstandard.compress(LINE + b"\n") + zstandard.compress(LINE)),
    ],
)
def test_the_same_rows_are_read_however_they_are_written(tmp_path: Path, name: str, content: bytes | str) -> None:
    assert values(written(tmp_path / name, content)) == [ROW, ROW]


def test_parquet_is_told_by_its_first_bytes_and_its_dates_become_text(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"question": ["a"], "answer": [b"b"], "day": pa.array([1], pa.timestamp("ns")), "list": [[{"x": None}]]})
    parquet.write_table(table, tmp_path / "a.jsonl")

    assert values(tmp_path / "a.jsonl") == [{"question": "a", "answer": "b", "day": "1970-01-01 00:00:00.000000001", "list": [{"x": None}]}]


@pytest.mark.parametrize("content", [LINE + b"\n" + b"x" * 100, json.dumps([ROW] * 3, indent=1).encode()])
def test_a_row_says_where_it_stands_and_how_far_reading_is(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "a.json", content)

    found = rows(path)

    assert [str(row.place) for row in found][:2] == (["a.json:1", "a.json:2"] if content.startswith(b"{") else ["a.json:2", "a.json:7"])
    assert isinstance(found[0], Record)
    assert 0 < found[0].bytes_read <= size_bytes(SourceSection(path=path)) == len(content)


def test_a_record_can_be_sent_to_another_process(tmp_path: Path) -> None:
    (row,) = rows(written(tmp_path / "a.jsonl", LINE))

    assert pickle.loads(pickle.dumps(row)) == row


# Many files


def test_a_folder_is_read_in_the_order_of_names_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "b").mkdir(parents=True)
    for name in ("b/1.jsonl", "a.jsonl", ".hidden.jsonl", "_SUCCESS", "notes.md"):
        written(folder / name, LINE)
    written(folder / "c.csv", "")
    source = open_source(SourceSection(path=folder))

    found = list(source)

    assert [row.place.file for row in found] == ["data/a.jsonl", "data/b/1.jsonl"]
    assert [(Path(file.path).name, file.why.split()[0:2]) for file in source.skipped] == [
        (".hidden.jsonl", ["is", "hidden"]),
        ("_SUCCESS", ["is", "hidden"]),
        ("notes.md", ["has", "an"]),
        ("c.csv", ["holds", "no"]),
    ]
    assert isinstance(found[-1], Record)
    assert found[-1].bytes_read == source.size_bytes == 2 * len(LINE)


def test_a_glob_takes_the_files_that_match(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.json"):
        written(tmp_path / name, LINE)

    assert [row.place.file for row in rows(tmp_path / "*.jsonl")] == [f"{tmp_path.name}/a.jsonl", f"{tmp_path.name}/b.jsonl"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    assert values(written(tmp_path / "rows[1].jsonl", LINE)) == [ROW]


def test_an_address_is_read_through_fsspec_be_it_file_folder_or_glob() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/bucket/a.jsonl": LINE, "/bucket/deep/b.jsonl.gz": gzip.compress(LINE), "/bucket/c.md": b"no"})

    assert values("memory://bucket/a.jsonl") == [ROW]
    assert values("memory://bucket") == [ROW, ROW]
    assert [row.place.file for row in rows("memory://bucket/*.jsonl")] == ["memory://bucket/a.jsonl"]
    assert size_bytes(SourceSection(path="memory://bucket/a.jsonl")) == len(LINE)
    assert [file.path for file in open_source(SourceSection(path="memory://bucket")).skipped] == ["memory://bucket/c.md"]


def test_max_rows_counts_every_row_that_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", LINE + b"\n3\n" + LINE + b"\n" + LINE)

    assert values(path, max_rows=3) == [ROW, "not_object", ROW]


# Columns


def test_columns_are_read_under_our_names_even_when_they_swap(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "answer,question,kind\nHi,Hello,x\n")

    assert values(path, columns={"question": "answer", "answer": "question"}) == [{"question": "Hi", "answer": "Hello", "kind": "x"}]


@pytest.mark.parametrize("content", ["frage,antwort\na,b\n", '{"frage": "a"}\n{"antwort": "b"}\n'])
def test_a_column_map_that_names_no_column_lists_those_there_are_and_the_nearest(tmp_path: Path, content: str) -> None:
    path = written(tmp_path / ("a.csv" if "," in content[:10] else "a.jsonl"), content)

    with pytest.raises(DataError, match=r"question: fragen \(nearest is frage\)") as caught:
        rows(path, columns={"question": "fragen", "answer": "antwort"}, max_rows=2)

    assert "frage, antwort" in caught.value.do


def test_a_mapped_list_of_turns_is_not_taken_for_the_list_of_rows(tmp_path: Path) -> None:
    row = {"dialog": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    path = written(tmp_path / "a.json", json.dumps(row))

    assert values(path, columns={"messages": "dialog"}) == [{"messages": row["dialog"]}]


# The section


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "exactly one"),
        ({"path": "a", "dataset": "b"}, "exactly one"),
        ({"sql": "select 1"}, "go together"),
        ({"path": "a", "database": "sqlite://"}, "go together"),
        ({"path": "a", "split": "test"}, "belong to dataset"),
        ({"path": "a", "columns": {"question": "x", "answer": "x"}}, "same column"),
        ({"path": "a", "columns": {"query": "x"}}, "query"),
        ({"path": "a", "encoding": "martian"}, "no text encoding"),
        ({"path": "a", "encoding": "rot13"}, "no text encoding"),
        ({"path": "a", "weight": 0}, "greater than 0"),
        ({"path": ""}, "path"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SourceSection(**keys)


def test_a_path_stays_a_path_and_an_address_stays_text() -> None:
    assert SourceSection(path="rows.jsonl").path == Path("rows.jsonl")
    assert SourceSection(path="s3://bucket/rows.jsonl").path == "s3://bucket/rows.jsonl"
    assert SourceSection(path=Path("/x/rows.jsonl")).label == "rows.jsonl"
    assert SourceSection(path=Path(".")).label == "."


def test_importing_sources_and_formats_loads_nothing_heavy() -> None:
    code = "import sys, training.data.sources, training.data.formats; print(*sys.modules)"

    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())

    assert not loaded & {"pyarrow", "fsspec", "sqlalchemy", "datasets", "torch", "transformers", "charset_normalizer", "zstandard"}


@pytest.mark.parametrize(
    ("name", "count", "kind"),
    [
        ("med_zh/alpaca.jsonl", 6000, "Conversation"),
        ("med_en/medquad.jsonl", 5000, "Conversation"),
        ("formats/alpaca_en_demo.json", 999, "Conversation"),
        ("formats/alpaca_zh_demo.json", 1000, "Conversation"),
        ("formats/identity.json", 91, "Conversation"),
        ("formats/dpo_en_demo.json", 300, "Pair"),
        ("formats/kto_en_demo.json", 300, "Labelled"),
    ],
)
def test_every_row_of_the_real_files_is_an_example(name: str, count: int, kind: str) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    source = open_source(SourceSection(path=SHARED / name))

    kinds = [type(example_of(row, FormatOptions())[0]).__name__ for row in source if isinstance(row, Record)]

    assert kinds == [kind] * count
    assert (source.rows, source.skipped, source.notes.total()) == (count, [], 0)
