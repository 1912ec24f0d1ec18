"""`tunegate data check`: what is found is named, and what cannot be read is one clear error."""

import json
import subprocess
import sys
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


def test_a_length_in_tokens_needs_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n", encoding="utf-8")

    with pytest.raises(DataError, match="--base"):
        check_data([SourceSection(path=path)], [], None, 512, tmp_path / "out", silent)


def test_data_is_held_against_an_earlier_check(tmp_path: Path) -> None:
    """300 rows in English, then 300 in Chinese: the language has moved."""
    written = {"en": "Is a rash on day {} of the fever urgent?", "zh": "发烧第{}天出皮疹，要不要紧？"}
    for name, question in written.items():
        rows = [
            {"question": question.format(n), "answer": f"Call us today, or dial {n}." if name == "en" else f"请今天来{n}号诊室。"}
            for n in range(300)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    check_data([SourceSection(path=tmp_path / "en.jsonl")], [], None, None, tmp_path / "before", silent)

    checked = check_data(
        [SourceSection(path=tmp_path / "zh.jsonl")], [], None, None, tmp_path / "after", silent, against=tmp_path / "before"
    )

    assert checked.report.drift is not None
    assert "language" in {finding.measure for finding in checked.report.drift.findings if finding.level == "warn"}
    assert "<h2>Against the champion's data</h2>" in checked.page.read_text(encoding="utf-8").replace("&#39;", "'")


def test_a_folder_without_a_report_to_compare_with_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no data_report\.json"):
        check_data([SourceSection(path=tmp_path / "rows.jsonl")], [], None, None, tmp_path / "out", silent, against=tmp_path)


def test_a_check_without_a_base_model_loads_no_training_library() -> None:
    """They take seconds, and nothing of them is used."""
    loaded = "print([name for name in ('torch', 'transformers', 'datasets') if name in __import__('sys').modules])"

    done = subprocess.run([sys.executable, "-c", f"import flows.data_check; {loaded}"], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_files_that_are_not_read_and_lines_whose_encoding_was_guessed_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = ['{"question": "头痛怎么办，要不要去医院？", "answer": "多休息，多喝水。"}'] * 2
    (folder / "a.jsonl").write_bytes(lines[0].encode() + b"\n" + lines[1].replace("头痛", "感冒").encode("gb18030") + b"\n")
    (folder / "more.docx").write_bytes(b"PK")
    (folder / ".hidden.jsonl").write_text("{}", encoding="utf-8")

    checked = check_data([SourceSection(path=folder)], [], None, None, tmp_path / "out", silent)

    fixes = " ".join(checked.report.fixes)
    assert "rows: 1 line not UTF-8; how they were read is a guess (gb18030 1)" in fixes
    assert "rows: 1 file there not read: more.docx has an ending that no reader knows" in fixes
    assert "hidden" not in fixes
    assert "2 more not read" in checked.page.read_text(encoding="utf-8")
