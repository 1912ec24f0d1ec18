"""The list of bad input in the issue, one by one: what is read, what is rejected, and under which name."""

import gzip
import json
import lzma
import os
import resource
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from training.data.read_record import MAX_DEPTH, READING_REASONS, Record
from training.data.rows import Rejected
from training.data.sources import SourceSection, open_source
from training.errors import DataError

ROW = {"instruction": "Hi", "output": "Hello"}
LINE = json.dumps(ROW)


def outcome(path: Path, content: bytes | str, **keys: Any) -> list[Any]:
    """The values of each record, the reason of each rejected row."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row.values if isinstance(row, Record) else row.reason for row in open_source(SourceSection(path=path, **keys))]


def refused(path: Path, content: bytes | str, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        outcome(path, content, **keys)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", gzip.compress(b"")])
def test_an_empty_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    assert f"{name} holds no rows" in refused(tmp_path / name, content)


@pytest.mark.parametrize(("name", "content"), [("a.json", "[]"), ("a.json", "[ ]\n"), ("a.csv", "question,answer\n")])
def test_a_file_whose_list_is_empty_is_refused_by_name(tmp_path: Path, name: str, content: str) -> None:
    assert f"{name} holds no rows" in refused(tmp_path / name, content)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not_json"),
        (b"hello", "not_json"),
        (b'{"a": "tab\there"}', "not_json"),
        (b'{"a": ' + b"7" * 5000 + b"}", "not_json"),
        (b"[1, 2]", "not_object"),
        (b"3", "not_object"),
        (b"null", "not_object"),
        (b'{"a": 1, "a": 2}', "duplicate_keys"),
        (b'{"m": [{"role": "x", "role": "y"}]}', "duplicate_keys"),
        (b'{"a\\u003a": 1, "a:" : 1}', "duplicate_keys"),
        (b'{"a": "x\\u003ay", "a":""}', "duplicate_keys"),
        (b'{"a": "\\ud83d"}', "lone_surrogate"),
        (b'{"a":' * 255 + b"1" + b"}" * 255, "too_deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a": "\xff\x98"}', "not_utf8"),
    ],
)
@pytest.mark.parametrize("around", ["{}\n{}\n{}", "[{},\n{},\n{}]"])
def test_a_faulty_row_is_rejected_by_name_and_the_others_are_read(tmp_path: Path, line: bytes, reason: str, around: str) -> None:
    """In an array, a fault that leaves the brackets open takes what cannot be told from it; reading goes on at the next row's line."""
    first, second, last = around.split("{}")[0], around.split("{}")[1], around.split("{}")[3]
    content = first.encode() + LINE.encode() + second.encode() + line + second.encode() + LINE.encode() + last.encode()

    found = outcome(tmp_path / "a.json", content, max_row_bytes=1 << 20)

    if around.startswith("[") and line in (b"[" * 100_000, b'{"a": 1'):
        assert found[0] == ROW
        assert found[1] in ("truncated_file", "not_json", "too_deep")
    else:
        assert found == [ROW, reason, ROW]


@pytest.mark.parametrize("around", ["%s", "[%s]"])
def test_nesting_is_bounded_where_orjson_bounds_it(tmp_path: Path, around: str) -> None:
    deepest = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH

    (kept,) = outcome(tmp_path / "a.jsonl", around % deepest)

    assert orjson.dumps(kept) == deepest.encode()
    assert outcome(tmp_path / "a.jsonl", around % f'{{"a":{deepest}}}') == ["too_deep"]


def test_an_array_goes_on_at_the_next_line_that_begins_as_its_rows_do(tmp_path: Path) -> None:
    text = json.dumps([{"messages": [{"n": number}]} for number in range(4)], indent=2)
    text = text.replace('"n": 1', '"n": oops').replace('"n": 2\n', '"n": 2"\n')
    path = tmp_path / "a.json"

    assert outcome(path, text) == [{"messages": [{"n": 0}]}, "not_json", "not_json", {"messages": [{"n": 3}]}]
    assert [row.place.line for row in open_source(SourceSection(path=path))] == [2, 9, 16, 23]


def test_an_array_on_one_line_cannot_go_on_and_says_so(tmp_path: Path) -> None:
    assert outcome(tmp_path / "a.json", f"[{LINE}, oops, {LINE}]") == [ROW, "damaged_file"]


@pytest.mark.parametrize("cut", [1, 2, 10, 31])
def test_an_array_that_is_cut_off_gives_its_rows_and_one_tear(tmp_path: Path, cut: int) -> None:
    text = json.dumps([ROW] * 5)

    assert outcome(tmp_path / "a.json", text[:-cut]) == [ROW] * (5 if cut == 1 else 4) + ["truncated_file"]


def test_an_object_around_the_rows_that_is_cut_off_is_told(tmp_path: Path) -> None:
    text = json.dumps({"version": 1, "data": [ROW] * 3})

    assert outcome(tmp_path / "a.json", text[:-1]) == [ROW] * 3 + ["truncated_file"]
    assert outcome(tmp_path / "a.json", text[:-10]) == [ROW] * 2 + ["truncated_file"]


def test_a_second_list_of_rows_is_named_and_never_left_out_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    assert outcome(path, json.dumps({"train": [ROW], "test": [ROW, ROW]})) == [ROW, "second_list"]
    (_, second) = open_source(SourceSection(path=path))
    assert isinstance(second, Rejected)
    assert "`test` is a second list, of 2 rows" in second.detail


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress])
@pytest.mark.parametrize("array", [False, True])
def test_a_packed_file_that_is_cut_off_gives_the_rows_before_and_one_tear(tmp_path: Path, pack: Any, array: bool) -> None:
    texts = [{"instruction": os.urandom(20).hex(), "output": "x"} for _ in range(20_000)]
    text = json.dumps(texts) if array else "\n".join(map(json.dumps, texts))
    packed = pack(text.encode())

    found = outcome(tmp_path / "a.json", packed[: len(packed) * 3 // 4])

    whole = [row for row in found if isinstance(row, dict)]
    assert whole == texts[: len(whole)]
    assert len(whole) > 12_000
    assert [row for row in found if not isinstance(row, dict)] in (["truncated_file"], ["not_json", "truncated_file"])


def test_a_packed_file_with_a_changed_byte_is_damaged(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(f"{LINE}\n".encode() * 1000))
    packed[-6] ^= 0xFF

    assert outcome(tmp_path / "a.jsonl", bytes(packed)) == [ROW] * 1000 + ["damaged_file"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_line_of_100_mb_is_rejected_without_being_held(tmp_path: Path, name: str) -> None:
    """Peak memory of the whole process may grow by 50 MB at most."""
    path = tmp_path / name
    frames = {"a.jsonl": (f"{LINE}\n", f"\n{LINE}"), "a.json": (f"[{LINE},\n", f",\n{LINE}]")}
    before, after = frames.get(name, ("question,answer\nHi,Hello\n", "\nHi,Hello"))
    with path.open("w") as file:
        file.write(before + ('{"instruction": "' if name != "a.csv" else "Hi,"))
        for _ in range(100):
            file.write("x" * 1_000_000)
        file.write(('"}' if name != "a.csv" else "") + after)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    found = list(open_source(SourceSection(path=path)))

    assert [getattr(row, "reason", "kept") for row in found] == ["kept", "row_too_large", "kept"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 50_000
    assert found[1].place.line == found[0].place.line + 1


def test_a_small_archive_of_a_huge_text_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(200):
            file.write(bytes(1_000_000))
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    (row,) = open_source(SourceSection(path=path))

    assert getattr(row, "reason", "") in ("row_too_large", "not_json", "truncated_file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 50_000


# Files that are no data


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"PK\x03\x04rest", "zip archive or an Excel file"),
        ("a.parquet", b"PAR1" + bytes(100), "not a whole Parquet file"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
        ("a.gz", gzip.compress(b"PAR1" + bytes(100)), "Parquet inside another packing"),
        ("a.txt", b"Dear doctor, how are you?\nI am fine.", "neither JSON nor a table"),
        ("a.parquet", b"hello world", "neither JSON nor a table"),
    ],
)
def test_a_file_that_is_no_data_is_refused_by_name(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    assert said in refused(tmp_path / name, content)


def test_a_parquet_file_with_damaged_pages_gives_what_it_can(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(
        pa.table({"question": [os.urandom(20).hex() for _ in range(4000)]}), path, row_group_size=2000, use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4 : len(content) * 3 // 4 + 2000] = bytes(2000)

    found = outcome(path, bytes(content))

    assert len([row for row in found if isinstance(row, dict)]) >= 2000
    assert [row for row in found if isinstance(row, str)] == ["damaged_file"]


@pytest.mark.parametrize("path", ["nowhere.jsonl", "no*.jsonl", "nul\0.jsonl"])
def test_a_path_where_nothing_is_says_so(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match=r"is not there|cannot be read|no file matches"):
        open_source(SourceSection(path=tmp_path / path))


def test_a_folder_without_a_file_that_can_be_read_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("hello")

    with pytest.raises(DataError, match=r"notes\.md has an ending that no reader knows"):
        open_source(SourceSection(path=tmp_path))


def test_a_pipe_is_refused_before_it_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")

    with pytest.raises(DataError, match="no regular file"):
        open_source(SourceSection(path=tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://127.0.0.1:9/rows.jsonl", "cannot be reached: Cannot connect"),
        ("martian://host/rows.jsonl", "Protocol not known"),
        ("memory://nothing/here.jsonl", "is not there"),
        ("file:///nothing/here.jsonl", "is not there"),
    ],
)
def test_an_address_that_cannot_be_read_says_so(address: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(open_source(SourceSection(path=address)))


def test_every_reason_a_reader_gives_is_named_in_these_tests() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_readers_*.py"))

    assert [reason for reason in READING_REASONS if f'"{reason}"' not in text] == []


def test_an_empty_folder_and_a_glob_without_a_match_are_told_from_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for path, said in (("empty", "the folder .*empty holds no file"), ("no*.jsonl", "no file matches"), ("none.jsonl", "is not there")):
        with pytest.raises(DataError, match=said):
            open_source(SourceSection(path=tmp_path / path))
