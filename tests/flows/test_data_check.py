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
