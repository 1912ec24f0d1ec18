from pathlib import Path

import pytest

from evaluation.aggregates import measure
from evaluation.errors import SuiteError
from evaluation.lm_eval_tasks import TASKS_FOLDER, load_tasks, run_tasks
from tests.fakes_evaluation import FakeModel, serve, token_logprob


def test_the_shipped_task_has_enough_sound_items() -> None:
    (task,) = load_tasks(TASKS_FOLDER)
    assert len(task["items"]) >= 20
    assert all(0 <= item["answer"] < len(item["choices"]) == 4 for item in task["items"])
    assert len({item["question"] for item in task["items"]}) == len(task["items"])
    assert {item["answer"] for item in task["items"]} == {0, 1, 2, 3}


def test_task_files_that_cannot_be_used_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: a\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("task: b\nitems: none.jsonl\noutput_type: multiple_choice\n", encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        load_tasks(tmp_path)
    found = "\n".join(caught.value.problems)
    assert "a.yaml:1: a task file has the keys" in found
    assert "none.jsonl: no such file" in found


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no task files"):
        load_tasks(tmp_path)


@pytest.mark.slow
def test_lm_eval_picks_the_choice_that_the_server_finds_most_likely() -> None:
    """The fake's log-probability of a choice is the sum over its characters (and the blank before it), so the winner is known."""
    (task,) = load_tasks(TASKS_FOLDER)

    def likely(item: dict[str, list[str]]) -> int:
        sums = [sum(token_logprob(ord(char)) for char in f" {choice}") for choice in item["choices"]]
        return sums.index(max(sums))

    with serve(FakeModel()) as endpoint:
        (score,) = run_tasks(endpoint, concurrency=8)
    assert list(score.correct) == [likely(item) == item["answer"] for item in task["items"]]
    assert 0 < score.accuracy < 1
    assert measure([], [score])["forgetting_accuracy"] == score.accuracy
