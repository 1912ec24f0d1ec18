import json
from pathlib import Path

import pytest

from tests.fakes_training import write_jsonl
from training.errors import DataError
from training.formats import BadRow, PreferenceRow, Row, read_preferences, read_rows

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def test_an_alpaca_row_joins_instruction_and_input(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "Translate", "input": "chat", "output": "cat"}])

    (row,) = read_rows(path)

    assert row == Row(1, ({"role": "user", "content": "Translate\nchat"}, {"role": "assistant", "content": "cat"}))


def test_both_formats_may_stand_in_one_file(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b"}, {"messages": [USER, ANSWER]}])

    assert all(isinstance(row, Row) for row in read_rows(path))


def test_a_json_array_gives_the_line_each_row_starts_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n {"instruction": "a",\n  "output": "b"},\n {"instruction": "c", "output": ""}\n]', encoding="utf-8")

    assert [(type(row), row.line) for row in read_rows(path)] == [(Row, 2), (BadRow, 4)]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"instruction": "a", "output": "b"}\r\n\r\n')

    assert len(list(read_rows(path))) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "a", "output": " "}, "empty_answer"),
        ({"instruction": "a"}, "no_output"),
        ({"instruction": " ", "output": "b"}, "empty_question"),
        ({"instruction": 3, "output": "b"}, "no_instruction"),
        ({"question": "a", "answer": "b"}, "unknown_format"),
        ({"messages": []}, "no_messages"),
        ({"messages": [{"content": "Hi"}, ANSWER]}, "no_role"),
        ({"messages": ["Hi"]}, "no_role"),
        ({"messages": [{"role": "human", "content": "Hi"}, ANSWER]}, "unknown_role"),
        ({"messages": [USER]}, "no_assistant"),
        ({"messages": [USER, ANSWER, USER]}, "no_final_answer"),
        ({"messages": [USER, USER, ANSWER]}, "roles_repeat"),
        ({"messages": [ANSWER]}, "no_question"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "empty_answer"),
        ({"messages": [{"role": "user", "content": ""}, ANSWER]}, "empty_content"),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, "no_content"),
        ({"messages": [USER, {"role": "system", "content": "x"}, ANSWER]}, "late_system"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path: Path, row: dict[str, object], reason: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [row])

    (bad,) = read_rows(path)

    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason) == (1, reason)


def test_a_line_that_is_not_utf8_or_not_json_does_not_stop_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": "\xff", "output": "b"}\n{"instruction": \n3\n{"instruction": "a", "output": "b"}\n')

    assert [getattr(row, "reason", "kept") for row in read_rows(path)] == ["not_utf8", "not_json", "not_object", "kept"]


@pytest.mark.parametrize(
    ("body", "said"), [(None, "is not there"), ("", "is empty"), (" \n\n", "is empty"), ('[{"a": 1}, {"b"]', "line 1: not JSON")]
)
def test_a_file_that_cannot_be_read_is_an_error_with_its_path(tmp_path: Path, body: str | None, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    if body is not None:
        path.write_text(body, encoding="utf-8")

    with pytest.raises(DataError, match=said) as caught:
        list(read_rows(path))
    assert str(path) in caught.value.what


def test_a_preference_row_is_a_prompt_and_two_answers(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "pairs.jsonl", [{"prompt": "Hi", "chosen": "a", "rejected": "b"}, {"prompt": "Hi", "chosen": "a", "rejected": "a"}]
    )

    good, bad = read_preferences(path)

    assert good == PreferenceRow(1, (USER,), "a", "b")
    assert isinstance(bad, BadRow)
    assert bad.reason == "same_answers"


def test_chinese_emoji_and_unknown_keys_are_read_as_they_are(tmp_path: Path) -> None:
    rows = [{"instruction": "步骤", "input": "发烧 🤒", "output": "及时就医"}, {"instruction": "a", "output": "b", "topic": "x"}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")

    assert [type(row) for row in read_rows(path)] == [Row, Row]
