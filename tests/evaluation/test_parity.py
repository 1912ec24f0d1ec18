from collections.abc import Sequence
from pathlib import Path

from evaluation.client import Endpoint
from evaluation.config import EvaluationSection
from evaluation.parity import ParityReport, awkward_conversations, check_parity
from evaluation.suite import Message, load_suite
from tests.fakes_evaluation import END, FakeModel, render, serve
from tests.fakes_suites import write_suite


def compare(endpoint: Endpoint, folder: Path, **kwargs: int) -> ParityReport:
    suite = load_suite(write_suite(folder))
    return check_parity(endpoint, suite, EvaluationSection(suite=folder), render, **kwargs)  # type: ignore[arg-type]


def test_equal_rendering_holds_and_says_how_much_was_compared(tmp_path: Path) -> None:
    with serve(FakeModel()) as endpoint:
        report = compare(endpoint, tmp_path, max_model_len=1024, end_of_turn=END)
    assert report.holds
    assert report.stop_checked
    assert report.compared == 2 + len(awkward_conversations())


def test_another_template_is_caught_on_every_conversation(tmp_path: Path) -> None:
    with serve(FakeModel(trims=True)) as endpoint:
        report = compare(endpoint, tmp_path)
    assert len(report.mismatches) == report.compared
    assert "differs at token 0" in report.mismatches[0].what


def test_a_missing_generation_prompt_is_caught_where_it_lacks(tmp_path: Path) -> None:
    def without_prompt(messages: Sequence[Message]) -> list[int]:
        return render(messages)[: -len("<assistant>")]

    suite = load_suite(write_suite(tmp_path))
    with serve(FakeModel()) as endpoint:
        report = check_parity(endpoint, suite, EvaluationSection(suite=tmp_path), without_prompt)
    assert len(report.mismatches) == report.compared


def test_a_lost_end_of_turn_token_is_caught(tmp_path: Path) -> None:
    with serve(FakeModel(stops=False)) as endpoint:
        report = compare(endpoint, tmp_path, end_of_turn=END)
    assert [mismatch.subject for mismatch in report.mismatches] == ["stop token"]


def test_another_context_length_is_caught(tmp_path: Path) -> None:
    with serve(FakeModel()) as endpoint:
        report = compare(endpoint, tmp_path, max_model_len=512)
    assert [mismatch.what for mismatch in report.mismatches] == ["the server says 1024 tokens, the recipe 512"]


def test_nothing_compared_is_not_parity() -> None:
    assert not ParityReport(compared=0, stop_checked=False, mismatches=()).holds
