import json
import math
from pathlib import Path

import pytest

from evaluation.client import Endpoint
from evaluation.config import EvaluationSection
from evaluation.errors import EndpointError, ScoringError
from evaluation.records import Scorecard
from evaluation.scoring import ANSWERS_NAME, score_endpoint
from evaluation.suite import load_suite
from tests.fakes_evaluation import FakeModel, serve, token_logprob
from tests.fakes_suites import many_prompts, write_suite
from training.errors import RecordError
from training.progress import Progress, silent


def score(
    endpoint: Endpoint, folder: Path, *, perplexity: bool = True, attempts: int = 1, model_digest: str = "m", concurrency: int = 4
) -> Scorecard:
    section = EvaluationSection(suite=folder / "suite", concurrency=concurrency, perplexity=perplexity, attempts=attempts, timeout_s=5)
    suite = load_suite(folder / "suite")
    return score_endpoint(endpoint, suite, section, model_digest=model_digest, subject="candidate", out=folder / "card", report=silent)


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
    assert caught.value.__notes__ == ["prompt p3"]
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
    assert (tmp_path / "card" / "answers.stale.jsonl").is_file()


def test_every_answer_is_on_disk_before_the_next_is_reported(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite", prompts=many_prompts(3))
    section = EvaluationSection(suite=tmp_path / "suite", concurrency=1, perplexity=False)
    lines: list[int] = []

    def listen(progress: Progress) -> None:
        lines.append(len((tmp_path / "card" / ANSWERS_NAME).read_text(encoding="utf-8").splitlines()))

    with serve(FakeModel()) as endpoint:
        score_endpoint(
            endpoint, load_suite(tmp_path / "suite"), section, model_digest="m", subject="c", out=tmp_path / "card", report=listen
        )
    assert lines == [2, 3, 4]  # the first line says what the answers belong to
    assert "terms" in json.loads((tmp_path / "card" / ANSWERS_NAME).read_text(encoding="utf-8").splitlines()[0])
