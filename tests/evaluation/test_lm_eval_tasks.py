"""Task files, and what lm-eval's per-item results become; nothing here imports lm-eval."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.config import ForgettingSection
from evaluation.errors import ScoringError, SuiteError
from evaluation.lm_eval_tasks import TASKS_FOLDER, LocalTask, choose_tasks, load_tasks, score, terms_of


def write_task(folder: Path, name: str, *, items: str = '{"question": "q", "choices": ["a", "b"], "answer": 0}\n') -> Path:
    (folder / f"{name}.yaml").write_text(f"task: {name}\nitems: {name}.jsonl\noutput_type: multiple_choice\n", encoding="utf-8")
    (folder / f"{name}.jsonl").write_text(items, encoding="utf-8")
    return folder


def sample(number: int, **values: Any) -> dict[str, Any]:
    metrics = [key for key in values if key != "filter"]
    return {"doc_id": number, "filter": "none", "metrics": metrics} | values


@pytest.mark.parametrize("name", sorted(load_tasks(TASKS_FOLDER)))
def test_the_shipped_tasks_have_enough_sound_items(name: str) -> None:
    items = load_tasks(TASKS_FOLDER)[name].items
    assert len(items) >= 20
    assert all(0 <= item["answer"] < len(item["choices"]) == 4 for item in items)
    assert len({item["question"] for item in items}) == len(items)
    assert {item["answer"] for item in items} == {0, 1, 2, 3}


def test_task_files_that_cannot_be_used_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: a\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("task: b\nitems: none.jsonl\noutput_type: multiple_choice\n", encoding="utf-8")
    write_task(tmp_path, "c")
    (tmp_path / "d.yaml").write_text((tmp_path / "c.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        load_tasks(tmp_path)
    found = "\n".join(caught.value.problems)
    assert "a.yaml:1: a task file has the keys" in found
    assert "none.jsonl: no such file" in found
    assert "d.yaml:1: a task named c is there already" in found


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no task files"):
        load_tasks(tmp_path)


def test_a_task_file_goes_before_a_task_of_lm_evals_own_name_and_yours_before_ours(tmp_path: Path) -> None:
    write_task(tmp_path, "hellaswag")
    write_task(tmp_path, "general_knowledge")
    section = ForgettingSection(tasks=("general_knowledge", "hellaswag", "arc_easy"), folder=tmp_path)
    ours, hellaswag, official = choose_tasks(section)
    assert isinstance(ours, LocalTask)
    assert len(ours.items) == 1
    assert isinstance(hellaswag, LocalTask)
    assert official == "arc_easy"


def test_the_same_task_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="tasks names a twice"):
        ForgettingSection(tasks=("a", "b", "a"))


@pytest.mark.parametrize(
    "changed", [{"items": 3}, {"few_shot": 2}, {"api": "chat"}], ids=["fewer items", "with examples", "through the template"]
)
def test_results_on_other_terms_cannot_be_compared(changed: dict[str, Any]) -> None:
    task, section = load_tasks(TASKS_FOLDER)["general_knowledge"], ForgettingSection()
    assert terms_of(task, section) != terms_of(task, section.model_copy(update=changed))
    assert terms_of(task, section) == terms_of(task, section.model_copy(update={"tasks": ("general_knowledge", "other")}))


def test_a_changed_item_is_another_term(tmp_path: Path) -> None:
    first = load_tasks(write_task(tmp_path, "a"))["a"]
    second = load_tasks(write_task(tmp_path, "a", items='{"question": "q", "choices": ["a", "b"], "answer": 1}\n'))["a"]
    assert terms_of(first, ForgettingSection()) != terms_of(second, ForgettingSection())


def test_accuracy_is_read_item_by_item() -> None:
    samples = [sample(0, acc=1.0, acc_norm=0.0), sample(1, acc=0.0, acc_norm=1.0), sample(2, acc=1.0, acc_norm=1.0)]
    found = score("t", "x", samples, 3)
    assert (found.metric, found.correct, found.accuracy) == ("acc", (True, False, True), pytest.approx(2 / 3))


def test_of_several_filters_the_first_counts() -> None:
    samples = [sample(0, exact_match=1.0), sample(1, exact_match=0.0)] + [sample(n, exact_match=1.0, filter="flexible") for n in range(2)]
    assert score("t", "x", samples, 2).correct == (True, False)


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        ([sample(0, acc=1.0)], "judged 1 of 2 items"),
        ([sample(0, bleu=12.5), sample(1, bleu=80.0)], "values like"),
        ([sample(0, acc=float("nan")), sample(1, acc=1.0)], "values like"),
        ([], "gave no number"),
        ([sample(0), sample(1)], "gave no number"),
    ],
)
def test_what_is_no_yes_or_no_for_every_item_is_an_error(samples: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(ScoringError, match=what):
        score("t", "x", samples, 2)
