"""`tunegate data check`: what is found is named, and what cannot be read is one clear error."""

import json
from pathlib import Path

import pytest

from flows.data_check import check_data
from training.data.sources import SourceSection
from training.errors import DataError
from training.progress import silent


def test_a_check_names_faults_and_writes_the_page_and_the_rejected_rows(tmp_path: Path) -> None:
    rows = [{"question": f"What helps against cough number {n}?", "answer": f"Rest, and tea number {n}."} for n in range(5)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in [*rows, {"question": "Why?", "answer": ""}]), encoding="utf-8")

    checked = check_data([SourceSection(path=path)], [], None, None, tmp_path / "out", silent)

    assert (checked.profile.rows_in, checked.profile.rows_used, checked.profile.faults) == (6, 5, {"empty_answer": 1})
    assert "rows.jsonl:6" in " ".join(checked.report.fixes)
    assert "<html" in checked.page.read_text(encoding="utf-8")
    assert json.loads(checked.rejected.read_text(encoding="utf-8"))["reason"] == "empty_answer"


def test_a_source_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        check_data([SourceSection(path=tmp_path / "none.jsonl")], [], None, None, tmp_path / "out", silent)


USER, ANSWER = {"role": "user", "content": "Is a rash urgent?"}, {"role": "assistant", "content": "Call us today, please."}
GOOD = {"messages": [USER, ANSWER]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD, None),
        ({"messages": [ANSWER, USER, ANSWER]}, "no_question"),
        ({"messages": [USER]}, "no_assistant"),
        ({"messages": [USER, USER, ANSWER]}, "roles_repeat"),
        ({"messages": [USER, ANSWER, {"role": "system", "content": "Be kind."}, USER, ANSWER]}, "late_system"),
        ({"messages": [None, USER, ANSWER]}, "no_role"),
        ({"messages": [{"role": None, "content": None}, ANSWER]}, "unknown_role"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": None}]}]}, "no_content"),
        ({"instruction": {"a": [None]}, "output": "x"}, "no_instruction"),
        ({"question": "Why?", "answer": None}, "no_answer"),
        ({"messages": [USER, {"role": "assistant", "content": "word " * 1_000_000}]}, None),
    ],
)
def test_the_only_row_of_a_file_is_used_or_named(row: object, reason: str | None, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")

    profile = check_data([SourceSection(path=path)], [], None, None, tmp_path / "out", silent).profile

    assert (profile.rows_in, profile.rows_used) == (1, 0 if reason else 1)
    assert profile.faults == ({reason: 1} if reason else {})


def test_a_base_model_that_is_not_there_is_told_before_any_row_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n", encoding="utf-8")

    with pytest.raises(DataError, match="no folder of a base model"):
        check_data([SourceSection(path=path)], [], tmp_path / "none", 512, tmp_path / "out", silent)

    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_for_the_report_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n", encoding="utf-8")

    with pytest.raises(DataError, match="cannot be written"):
        check_data([SourceSection(path=path)], [], None, None, path / "out", silent)
