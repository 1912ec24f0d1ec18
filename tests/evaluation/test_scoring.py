import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from evaluation.client import Endpoint
from evaluation.config import EvaluationSection, ForgettingSection
from evaluation.errors import EndpointError, ScoringError, SuiteError
from evaluation.journal import ANSWERS_NAME, STALE_NAME
from evaluation.lm_eval_run import run_tasks
from evaluation.lm_eval_tasks import forgetting_terms
from evaluation.records import Scorecard, TaskScore
from evaluation.scoring import RunTasks, score_endpoint
from evaluation.suite import load_suite
from tests.fakes_evaluation import FakeModel, Fault, serve, token_logprob
from tests.fakes_suites import PROMPT, many_prompts, write_suite
from training.errors import RecordError
from training.progress import Progress, silent


def score(endpoint: Endpoint, folder: Path, *, model_digest: str = "m", tasks: RunTasks = run_tasks, **settings: Any) -> Scorecard:
    section = EvaluationSection(suite=folder / "suite", **{"concurrency": 4, "attempts": 1, "timeout_s": 5, "forgetting": None} | settings)
    suite = load_suite(folder / "suite")
    out = folder / "card"
    return score_endpoint(endpoint, suite, section, model_digest=model_digest, subject="candidate", out=out, report=silent, tasks=tasks)


def test_a_scorecard_holds_every_answer_and_reads_back(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel(answer=lambda prompt: "Please call 911 now." if "0" in prompt else "No need to call 911.")) as endpoint:
        card = score(endpoint, tmp_path)
    assert Scorecard.read(tmp_path / "card") == card
    assert [answer.prompt_id for answer in card.answers] == ["p0", "p1"]
    assert (card.metrics["rule_pass_rate"], card.metrics["critical_failures"], card.metrics["empty_answers"]) == (0.5, 1, 0)
    assert card.answers[0].rouge_l == 1.0


def test_perplexity_is_that_of_the_reference_tokens_alone(tmp_path: Path) -> None:
    """The fake's tokens are characters: exp(-mean log-probability) over the reference's characters, and no template's."""
    write_suite(tmp_path / "suite")
    with serve(FakeModel()) as endpoint:
        card = score(endpoint, tmp_path)
    reference = card.answers[0].reference
    expected = math.exp(-sum(token_logprob(ord(char)) for char in reference) / len(reference))
    assert card.answers[0].reference_tokens == len(reference)
    assert card.metrics["perplexity"] == pytest.approx(expected, rel=1e-12)


def test_without_perplexity_the_number_is_missing_and_not_zero(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel()) as endpoint:
        assert score(endpoint, tmp_path, perplexity=False).metrics["perplexity"] is None


def test_a_template_that_hides_the_reference_is_an_error(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", prompts=[many_prompts(1)[0]])

    class Rewriting(FakeModel):
        async def _tokenize(self, request):  # type: ignore[no-untyped-def]
            self.trims = "continue_final_message" in await request.json()
            return await super()._tokenize(request)

    with serve(Rewriting()) as endpoint, pytest.raises(ScoringError, match="p0"):
        score(endpoint, tmp_path)


def test_empty_answers_are_counted_and_break_the_rule(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel(answer=lambda _: "")) as endpoint:
        card = score(endpoint, tmp_path)
    assert (card.metrics["empty_answers"], card.metrics["critical_failures"], card.metrics["bleu_4"]) == (2, 2, 0.0)
    assert card.metrics["ttft_p50_s"] is not None


def test_requests_run_side_by_side_up_to_the_limit(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", prompts=many_prompts(12))
    model = FakeModel(answer=lambda _: "call 911 " * 10)
    with serve(model) as endpoint:
        score(endpoint, tmp_path, concurrency=4)
    assert model.most_in_flight == 4


def test_a_fault_that_passes_costs_nothing_but_time(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel(faults=["none", "cut", "http_500"])) as endpoint:
        assert len(score(endpoint, tmp_path, attempts=3).answers) == 2


def test_a_server_that_dies_gives_no_scorecard_and_the_next_run_asks_only_for_the_rest(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", prompts=many_prompts(6))
    with serve(FakeModel(faults=["none", "none", "none", "none", "cut"])) as endpoint, pytest.raises(EndpointError) as caught:
        score(endpoint, tmp_path, concurrency=1)
    where = tmp_path / "card" / ANSWERS_NAME
    assert caught.value.__notes__ == ["prompt p3", f"3 answers are kept in {where}; the next run asks for the rest"]
    with pytest.raises(RecordError):
        Scorecard.read(tmp_path / "card")

    model = FakeModel()
    with serve(model) as endpoint:
        card = score(endpoint, tmp_path, concurrency=1)
    assert len(card.answers) == 6
    assert [body["messages"][-1]["content"] for body in model.chats] == [
        "Prompt 3?",
        "Prompt 3?",
        "Prompt 4?",
        "Prompt 5?",
    ]  # the first one warms up


def test_a_line_torn_by_a_kill_is_asked_again(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    model = FakeModel()
    with serve(model) as endpoint:
        first = score(endpoint, tmp_path)
        log = tmp_path / "card" / ANSWERS_NAME
        log.write_text(log.read_text(encoding="utf-8")[:-9], encoding="utf-8")
        second = score(endpoint, tmp_path)
    assert second.digest == first.digest
    assert len(model.chats) == 3  # warm-up and two prompts: the torn line held a log-probability


def test_answers_of_another_model_are_put_aside(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    model = FakeModel()
    with serve(model) as endpoint:
        score(endpoint, tmp_path, model_digest="one")
        score(endpoint, tmp_path, model_digest="two")
    assert len(model.chats) == 6
    assert (tmp_path / "card" / STALE_NAME).is_file()


def test_every_answer_is_on_disk_before_the_next_is_reported(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", prompts=many_prompts(3))
    section = EvaluationSection(suite=tmp_path / "suite", concurrency=1, perplexity=False, forgetting=None)
    lines: list[int] = []

    def listen(progress: Progress) -> None:
        lines.append(len((tmp_path / "card" / ANSWERS_NAME).read_text(encoding="utf-8").splitlines()))

    with serve(FakeModel()) as endpoint:
        score_endpoint(
            endpoint, load_suite(tmp_path / "suite"), section, model_digest="m", subject="c", out=tmp_path / "card", report=listen
        )
    assert lines == [2, 3, 4]  # the first line says what the answers belong to
    assert "terms" in json.loads((tmp_path / "card" / ANSWERS_NAME).read_text(encoding="utf-8").splitlines()[0])["entry"]


def test_endless_answers_are_counted(tmp_path: Path) -> None:
    """Both end at the limit of tokens; one of them in a loop."""
    write_suite(tmp_path / "suite")
    answers = {"Prompt 0?": "call 911 " * 9, "Prompt 1?": "call 911 and then tell them what you saw and where you are"}
    with serve(FakeModel(answer=lambda prompt: answers[prompt], finish="length")) as endpoint:
        metrics = score(endpoint, tmp_path).metrics
    assert (metrics["truncated_answers"], metrics["endless_answers"]) == (2, 1)
    assert metrics["repetition"] == pytest.approx((13 / 15 + 0) / 2)  # 18 words have 15 4-grams, two of them different


def test_an_answer_that_loops_and_stops_by_itself_is_not_endless(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel(answer=lambda _: "call 911 " * 9)) as endpoint:
        metrics = score(endpoint, tmp_path).metrics
    assert (metrics["truncated_answers"], metrics["endless_answers"]) == (0, 0)


def test_tokens_per_second_are_those_of_an_answer_in_flight(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel()) as endpoint:
        card = score(endpoint, tmp_path)
    expected = sum(answer.completion_tokens or 0 for answer in card.answers) / sum(answer.latency_s for answer in card.answers)
    assert card.metrics["tokens_per_s"] == pytest.approx(expected)


def test_a_classification_suite_has_accuracy_and_macro_f1(tmp_path: Path) -> None:
    """urgent: 1 right of 2, and one routine called urgent, F1 1/2; routine: 1 right of 2, and no answer once, F1 2/3."""
    prompts = [
        PROMPT | {"id": f"p{n}", "prompt": f"Prompt {n}?", "label": label} for n, label in enumerate(["urgent"] * 2 + ["routine"] * 2)
    ]
    folder = write_suite(tmp_path / "suite", prompts=prompts)
    header = json.loads((folder / "suite.yaml").read_text(encoding="utf-8"))
    (folder / "suite.yaml").write_text(json.dumps(header | {"labels": ["urgent", "routine"]}), encoding="utf-8")
    answers = {"Prompt 0?": "Urgent.", "Prompt 1?": "urgent or routine", "Prompt 2?": "Label: urgent", "Prompt 3?": "**routine**"}
    with serve(FakeModel(answer=lambda prompt: answers[prompt])) as endpoint:
        card = score(endpoint, tmp_path)
    assert [answer.predicted_label for answer in card.answers] == ["urgent", None, "urgent", "routine"]
    assert card.metrics["accuracy"] == 0.5
    assert card.metrics["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_without_labels_there_is_no_accuracy(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel()) as endpoint:
        metrics = score(endpoint, tmp_path).metrics
    assert (metrics["accuracy"], metrics["macro_f1"]) == (None, None)


def test_a_label_that_the_suite_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suite", prompts=[PROMPT | {"label": "urgnt"}])
    header = json.loads((folder / "suite.yaml").read_text(encoding="utf-8"))
    (folder / "suite.yaml").write_text(json.dumps(header | {"labels": ["urgent", "routine"]}), encoding="utf-8")
    with pytest.raises(SuiteError, match="prompt p0 label: 'urgnt' is not among the suite's labels; did you mean 'urgent'"):
        load_suite(folder)


@pytest.mark.parametrize("labels", [["urgent"], ["Urgent", "urgent"], ["urgent", "!"]])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[str], tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suite")
    header = json.loads((folder / "suite.yaml").read_text(encoding="utf-8"))
    (folder / "suite.yaml").write_text(json.dumps(header | {"labels": labels}), encoding="utf-8")
    with pytest.raises(SuiteError, match="at least two that differ"):
        load_suite(folder)


def test_repetitions_are_asked_with_seeds_of_their_own_and_stand_together(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", temperature=0.7)
    model = FakeModel()
    with serve(model) as endpoint:
        card = score(endpoint, tmp_path, repetitions=3)
    assert [(answer.prompt_id, answer.repetition) for answer in card.answers] == [(p, r) for p in ("p0", "p1") for r in range(3)]
    asked = sorted((body["messages"][-1]["content"], body["seed"]) for body in model.chats[1:])
    assert asked == [(f"Prompt {p}?", seed) for p in range(2) for seed in range(3)]
    assert card.repetitions == 3
    assert len({(answer.reference_logprob, answer.prompt_id) for answer in card.answers}) == 2


def test_more_repetitions_ask_only_for_the_new_ones(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", temperature=0.7)
    model = FakeModel()
    with serve(model) as endpoint:
        score(endpoint, tmp_path, repetitions=2)
        model.chats.clear()
        score(endpoint, tmp_path, repetitions=3)
    assert [body["seed"] for body in model.chats[1:]] == [2, 2]


def test_repetitions_of_greedy_answers_are_refused(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel()) as endpoint, pytest.raises(ScoringError, match=r"repetitions is 2, but small asks for greedy answers"):
        score(endpoint, tmp_path, repetitions=2)


def test_a_suite_with_one_prompt_is_measured(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", prompts=[PROMPT])
    with serve(FakeModel()) as endpoint:
        card = score(endpoint, tmp_path)
    assert len(card.answers) == 1
    assert card.metrics["latency_p95_s"] == card.answers[0].latency_s


@pytest.mark.parametrize(("fault", "what"), [("malformed", "choices that are none"), ("no_finish", "without a finish_reason")])
def test_a_reply_that_is_not_what_the_api_promises_ends_the_evaluation(fault: Fault, what: str, tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel(faults=["none", fault])) as endpoint, pytest.raises(EndpointError, match=what):
        score(endpoint, tmp_path)
    assert not (tmp_path / "card" / "record.json").exists()


def test_half_a_surrogate_pair_does_not_end_the_evaluation(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    with serve(FakeModel(answer=lambda _: "call 911 \ud83d")) as endpoint:
        assert score(endpoint, tmp_path).answers[0].answer == "call 911 ?"


def test_a_finished_task_is_not_run_again_after_a_failure(tmp_path: Path) -> None:
    """The first task is kept; the second fails, and is the only one that the next run asks for."""
    write_suite(tmp_path / "suite")
    section, ran = ForgettingSection(tasks=("general_knowledge", "other")), list[str]()

    def run(_: Endpoint, wanted: ForgettingSection, concurrency: int) -> tuple[TaskScore, ...]:
        ran.extend(wanted.tasks)
        if ran == ["general_knowledge", "other"]:
            raise EndpointError("gone", fault="connect")
        (terms,) = forgetting_terms(wanted)
        return (TaskScore(task=wanted.tasks[0], metric="acc", terms=terms, accuracy=0.5, correct=(True, False)),)

    with serve(FakeModel()) as endpoint:
        with pytest.raises(EndpointError):
            score(endpoint, tmp_path, forgetting=section, tasks=run)
        card = score(endpoint, tmp_path, forgetting=section, tasks=run)
    assert ran == ["general_knowledge", "other", "other"]
    assert [task.task for task in card.tasks] == ["general_knowledge", "other"]
    assert card.metrics["forgetting_accuracy"] == 0.5


def test_tasks_begin_when_every_answer_is_there_and_do_not_hold_up_the_log_probabilities(tmp_path: Path) -> None:
    """Two prompts and one question to warm up are three chats; a task that waited alone for a log-probability would wait in vain."""
    write_suite(tmp_path / "suite")
    weighed, chats = threading.Event(), list[int]()

    def logprob(token: int) -> float:
        weighed.set()
        return token_logprob(token)

    model, section = FakeModel(logprob=logprob), ForgettingSection(items=1)
    (terms,) = forgetting_terms(section)

    def run(endpoint: Endpoint, asked: ForgettingSection, concurrency: int) -> tuple[TaskScore, ...]:
        chats.append(len(model.chats))
        assert weighed.wait(10)
        return (TaskScore(task="general_knowledge", metric="acc", terms=terms, accuracy=1.0, correct=(True,)),)

    with serve(model) as endpoint:
        card = score(endpoint, tmp_path, forgetting=section, tasks=run)
    assert chats == [3]
    assert card.metrics["forgetting_accuracy"] == 1.0
