"""Text as it comes: old encodings, broken ones, numbers that are none, and tables with quotes out of place."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.data.read_record import Record
from training.data.sources import SourceSection, open_source
from training.errors import DataError

ROW = {"instruction": "Hi", "output": "Hello"}
LINE = json.dumps(ROW)
CHINESE, ACCENTED = {"instruction": "发烧头痛怎么办", "output": "及时就医"}, {"instruction": "Café au lait?", "output": "It’s fine"}


def outcome(path: Path, content: bytes | str, **keys: Any) -> list[Any]:
    """The values of each record, the reason of each rejected row."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row.values if isinstance(row, Record) else row.reason for row in open_source(SourceSection(path=path, **keys))]


def refused(path: Path, content: bytes | str, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        outcome(path, content, **keys)
    return str(caught.value)


@pytest.mark.parametrize("array", [False, True])
def test_lines_in_old_encodings_are_read_beside_utf8_and_counted(tmp_path: Path, array: bool) -> None:
    lines = [
        json.dumps(CHINESE, ensure_ascii=False).encode(),
        json.dumps(CHINESE, ensure_ascii=False).encode("gb18030"),
        json.dumps(ACCENTED, ensure_ascii=False).encode("cp1252"),
        json.dumps(ACCENTED, ensure_ascii=False).encode(),
    ]
    path = tmp_path / "a.json"
    path.write_bytes(b"[\n" + b",\n".join(lines) + b"\n]" if array else b"\n".join(lines))
    source = open_source(SourceSection(path=path))

    assert [row.values for row in source if isinstance(row, Record)] == [CHINESE, CHINESE, ACCENTED, ACCENTED]
    assert source.notes == {"decoded_gb18030": 1, "decoded_cp1252": 1}


@pytest.mark.parametrize(("name", "frame"), [("a.jsonl", "%s\n%s"), ("a.json", "[%s, %s]"), ("a.json", "[\n%s,\n%s\n]\n")])
def test_utf8_that_lost_a_byte_is_rejected_and_not_read_as_another_encoding(tmp_path: Path, name: str, frame: str) -> None:
    whole = json.dumps(CHINESE, ensure_ascii=False)
    content = (frame % (whole, whole)).encode()
    at = content.index("及".encode())

    assert outcome(tmp_path / name, content[:at] + content[at + 1 :]) == ["not_utf8", CHINESE]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "患者出现发热、咳嗽三天，伴有头痛，应当及时就医。"),
        ("big5", "患者出現發熱、咳嗽三天，伴有頭痛，應當及時就醫。"),
        ("shift_jis", "患者は三日間の発熱と咳があり、頭痛を伴っている。"),
        ("euc_kr", "환자는 삼일 동안 발열과 기침이 있었다."),
        ("cp1251", "Пациент жалуется на головную боль и кашель."),
        ("cp1252", "Le café de l’hôtel était fermé: «naïve»."),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_file_in_an_old_encoding_is_told_by_its_text(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    table = f"question,answer\n{text},{text}\n"
    row = json.dumps({"question": text, "answer": text}, ensure_ascii=False) + "\n"

    assert outcome(tmp_path / name, (table if name == "a.csv" else row * 3).encode(encoding))[0] == {"question": text, "answer": text}


def test_a_named_encoding_is_used_and_utf8_refuses_every_other(tmp_path: Path) -> None:
    content = json.dumps(ACCENTED, ensure_ascii=False).encode("mac_roman")

    assert outcome(tmp_path / "a.jsonl", content, encoding="mac_roman") == [ACCENTED]
    assert outcome(tmp_path / "a.jsonl", content, encoding="utf-8") == ["not_utf8"]


def test_utf16_text_that_breaks_off_is_told(tmp_path: Path) -> None:
    assert outcome(tmp_path / "a.jsonl", f"{LINE}\n{LINE}".encode("utf-16")[:-1]) == [ROW, "not_json", "truncated_file"]


def test_numbers_that_are_none_become_null_and_are_counted(tmp_path: Path) -> None:
    for name, frame in (("a.jsonl", "%s\n%s"), ("a.json", "[%s, %s]")):
        (tmp_path / name).write_text(frame % ('{"a": NaN}', '{"a": -Infinity, "b": 1e999}'))
        source = open_source(SourceSection(path=tmp_path / name))

        assert [row.values for row in source if isinstance(row, Record)] == [{"a": None}, {"a": None, "b": None}]
        assert source.notes == {"no_number": 3}


def test_nested_nulls_stay_as_they_are(tmp_path: Path) -> None:
    row = {"messages": [None, {"role": None}], "history": [[None, None]], "tools": None}

    assert outcome(tmp_path / "a.jsonl", json.dumps(row)) == [row]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    text = 'question,answer\na,b\n"open,c\nd,e\nf,"g\nh"\n'

    assert outcome(tmp_path / "a.csv", text) == [
        {"question": "a", "answer": "b"},
        "not_csv",
        {"question": "d", "answer": "e"},
        {"question": "f", "answer": "g\nh"},
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("question,answer\na,b,c\nd,e\n", ["wrong_columns", {"question": "d", "answer": "e"}]),
        ("question,answer\na\nd,e\n", ["wrong_columns", {"question": "d", "answer": "e"}]),
        ('question,answer\n"say ""hi""",b\n', [{"question": 'say "hi"', "answer": "b"}]),
        ('question,answer\n"say \\"hi\\"",b\n', [{"question": 'say "hi"', "answer": "b"}]),
        ("question,answer\n,\n\n\nd,e\n", [{"question": "", "answer": ""}, {"question": "d", "answer": "e"}]),
        ("question, \nd,e\n", [{"question": "d", "column_2": "e"}]),
        ("text\nhello world\n", [{"text": "hello world"}]),
    ],
)
def test_rows_of_a_table_that_do_not_fit_are_named(tmp_path: Path, text: str, found: list[Any]) -> None:
    assert outcome(tmp_path / "a.csv", text) == found


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "'answer' more than once" in refused(tmp_path / "a.csv", "answer,answer\na,b\n")


def test_a_first_row_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "names the columns" in refused(tmp_path / "a.csv", b"\x00\xff\xfe,b\nc,d\n")
