"""Which conversations are measured, and what a person is told when parity is broken."""

import pytest

from evaluation.parity import identity_only
from evaluation.parity_records import Fault, FaultKind, ParityReport, Rendered
from flows.errors import ParityBroken
from flows.rendering import SAMPLES, require, samples_of


def rendered(name: str, count: int, tokens: int = 20) -> list[Rendered]:
    return [Rendered(name=f"{name}{number}", ids=tuple(range(tokens))) for number in range(count)]


def broken(*kinds: FaultKind) -> ParityReport:
    faults = tuple(Fault(kind=kind, subject=f"subject {number}", what="differs") for number, kind in enumerate(kinds))
    return identity_only("clinic-2", "m" * 64, "s" * 64, {"model.safetensors": "0" * 64}).model_copy(update={"faults": faults})


def test_the_suites_prompts_are_measured_first_and_spread_over_it() -> None:
    """Of 60 prompts every fifth."""
    chosen = samples_of([*rendered("prompt:", 60), *rendered("awkward:", 40)], 1024)
    assert [each.name for each in chosen] == [f"prompt:{number}" for number in range(0, 60, 5)]


def test_a_small_suite_is_filled_up_with_awkward_conversations() -> None:
    chosen = samples_of([*rendered("prompt:", 2), *rendered("awkward:", 40)], 1024)
    assert [each.name for each in chosen[:3]] == ["prompt:0", "prompt:1", "awkward:0"]
    assert len(chosen) == SAMPLES


@pytest.mark.parametrize(
    ("tokens", "context", "fits"), [(128, 1024, True), (129, 1024, False), (55, 64, True), (56, 64, False), (1, 64, False)]
)
def test_what_is_measured_is_short_and_fits_with_its_answer(tokens: int, context: int, fits: bool) -> None:
    """Of a context of 64 tokens 8 are the answer's, and one is left over: 55."""
    assert bool(samples_of(rendered("prompt:", 1, tokens), context)) is fits


def test_what_the_template_refuses_is_not_measured() -> None:
    assert samples_of([Rendered(name="prompt:0", ids=None)], 1024) == []


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_of_fault_is_named_with_what_to_do(kind: FaultKind) -> None:
    with pytest.raises(ParityBroken, match=f"most likely: {kind}") as caught:
        require(broken(kind), "m" * 64)
    assert len(caught.value.do) > 40


def test_the_cause_is_named_before_its_consequences_and_three_of_a_kind_are_enough() -> None:
    report = broken(*[FaultKind.TEMPLATE] * 50, FaultKind.WEIGHTS, FaultKind.TOKENIZER)
    with pytest.raises(ParityBroken, match=r"most likely: another tokenizer\. 52 differences") as caught:
        require(report, "m" * 64)
    assert len(caught.value.what.splitlines()) == 1 + 3 + 1 + 1


@pytest.mark.parametrize("report", [broken(), broken().model_copy(update={"against_trainer": True})], ids=["identity", "too little"])
def test_a_report_that_compared_nothing_with_the_trainer_is_refused(report: ParityReport) -> None:
    with pytest.raises(ParityBroken):
        require(report, "m" * 64)
