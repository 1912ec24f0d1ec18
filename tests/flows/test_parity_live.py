"""Parity against the real vLLM: a tiny model with a real tokenizer, every fault planted, and an honest server that must pass."""

import pytest

from evaluation.parity_conversations import awkward_conversations
from evaluation.parity_records import ParityReport
from tests.fakes_parity import CONTEXT, PLANTED, Bench, Planted

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ParityReport]:
    return Bench(tmp_path_factory.mktemp("parity")).everything()


def test_an_honest_server_is_the_trained_model(reports: dict[str, ParityReport]) -> None:
    report = reports["honest"]
    assert report.faults == ()
    assert report.holds
    assert (report.compared, report.refused) == (20 + len(awkward_conversations()), 0)
    assert (report.stop_tokens, report.context_tokens, report.default_draws) == ((2,), CONTEXT, 8)
    assert report.figures is not None
    assert report.figures.tells_base_apart
    assert report.figures.tokens > 400


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_fault_is_caught_as_what_it_is(reports: dict[str, ParityReport], planted: Planted) -> None:
    report = reports[planted.seen_in]
    assert not report.holds
    assert planted.expected in {fault.kind for fault in report.faults}


@pytest.mark.parametrize("place", ["unmerged", "retrained", "from_served", "swapped", "templated", "flipped", "verified"])
def test_a_fault_that_stands_alone_is_named_as_the_likeliest(reports: dict[str, ParityReport], place: str) -> None:
    (expected,) = {planted.expected for planted in PLANTED if planted.seen_in == place}
    assert reports[place].likely is expected
