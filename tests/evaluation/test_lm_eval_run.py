"""lm-eval for real, against a server whose log-probabilities are known. In this process, so that its imports are paid once."""

from pathlib import Path

import pytest

from evaluation.aggregates import measure
from evaluation.config import ForgettingSection
from evaluation.errors import EndpointError, ScoringError, SuiteError
from evaluation.lm_eval_run import prepare_tasks, run_tasks
from evaluation.lm_eval_tasks import TASKS_FOLDER, load_tasks
from tests.fakes_evaluation import FakeModel, serve, token_logprob

pytestmark = pytest.mark.slow
SPELL = """
task: spell
items: spell.jsonl
output_type: generate_until
doc_to_text: "Spell: {{word}}"
doc_to_target: "{{word}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def test_lm_eval_picks_the_choice_that_the_server_finds_most_likely() -> None:
    """The fake's log-probability of a choice is the sum over its characters (and the blank before it), so the winner is known."""
    items = load_tasks(TASKS_FOLDER)["general_knowledge"].items

    def likely(choices: list[str]) -> int:
        sums = [sum(token_logprob(ord(char)) for char in f" {choice}") for choice in choices]
        return sums.index(max(sums))

    with serve(FakeModel()) as endpoint:
        (score,) = run_tasks(endpoint, ForgettingSection(), 8)
    assert list(score.correct) == [likely(item["choices"]) == item["answer"] for item in items]
    assert 0 < score.accuracy < 1
    assert measure([], [score])["forgetting_accuracy"] == score.accuracy


def test_a_log_probability_that_is_no_number_is_an_error_and_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.lm_eval_run._ATTEMPTS", 1)
    with serve(FakeModel(logprob=lambda token: float("nan"))) as endpoint, pytest.raises(EndpointError, match="not a finite number"):
        run_tasks(endpoint, ForgettingSection(items=1), 8)


def test_a_server_that_is_gone_is_an_error_and_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.lm_eval_run._ATTEMPTS", 1)
    with serve(FakeModel()) as endpoint:
        gone = endpoint
    with pytest.raises(EndpointError, match="an lm-eval request failed"):
        run_tasks(gone, ForgettingSection(items=1), 8)


def test_only_the_first_items_are_asked_and_answers_through_the_chat_api_are_compared(tmp_path: Path) -> None:
    (tmp_path / "spell.yaml").write_text(SPELL, encoding="utf-8")
    (tmp_path / "spell.jsonl").write_text('{"word": "yes"}\n{"word": "no"}\n{"word": "yes"}\n', encoding="utf-8")
    model = FakeModel(answer=lambda prompt: "yes")
    with serve(model) as endpoint:
        (score,) = run_tasks(endpoint, ForgettingSection(tasks=("spell",), folder=tmp_path, api="chat", items=2), 2)
    assert (score.metric, score.correct) == ("exact_match", (True, False))
    assert sorted(body["messages"][-1]["content"] for body in model.chats) == ["Spell: no", "Spell: yes"]


@pytest.mark.parametrize(
    ("section", "kind", "what"),
    [
        (ForgettingSection(tasks=("hellaswagg",)), SuiteError, "there is no task 'hellaswagg'; did you mean 'hellaswag'"),
        (ForgettingSection(tasks=("hellaswag",)), ScoringError, "task hellaswag cannot be loaded"),
        (ForgettingSection(api="chat"), ScoringError, "judged by multiple_choice, which the chat API cannot give"),
    ],
    ids=["unknown name", "no hub", "likelihoods over chat"],
)
def test_what_cannot_be_run_is_said_before_any_question(
    section: ForgettingSection, kind: type[Exception], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.config
    import huggingface_hub.constants
    import lm_eval.tasks

    # Of lm-eval's thousands of task files, which take 17 s of processor time to look through, one folder.
    hellaswag = lm_eval.tasks.TaskManager(include_defaults=False, include_path=Path(lm_eval.tasks.__file__).parent / "hellaswag")
    local = lm_eval.tasks.TaskManager(include_defaults=False)
    monkeypatch.setattr("evaluation.lm_eval_run._manager", lambda own_tasks: hellaswag if own_tasks else local)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(kind, match=what):
        prepare_tasks(section)
