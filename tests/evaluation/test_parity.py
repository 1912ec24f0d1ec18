"""What parity finds of a fake server that misbehaves in one way at a time, and what the pure comparison makes of its figures."""

import math
from pathlib import Path
from typing import Any

import pytest

from evaluation.config import EvaluationSection
from evaluation.errors import EndpointError
from evaluation.parity import broken_bytes, check_parity, identity_only
from evaluation.parity_conversations import awkward_conversations
from evaluation.parity_records import FaultKind, ParityReport, TrainerView
from evaluation.suite import load_suite
from tests.fakes_evaluation import FakeModel, render_turns, serve
from tests.fakes_suites import write_suite
from tests.fakes_trainer import END, WEIGHTS, trainer_view

OPENING = tuple(ord(char) for char in "<assistant>")


def compare(folder: Path, model: FakeModel, *, weights: dict[str, str] = WEIGHTS, context: int = 1024, **changes: Any) -> ParityReport:
    suite = load_suite(write_suite(folder))
    trained: TrainerView = trainer_view(suite, render_turns, opening=OPENING).model_copy(update=changes)
    identity = identity_only("clinic-2", "m" * 64, suite.digest, weights)
    section = EvaluationSection(suite=folder, concurrency=8)
    with serve(model) as endpoint:
        return check_parity(endpoint, suite, section, trained, identity, context_tokens=context)


def test_an_honest_server_holds_and_every_figure_says_how_much_was_compared(tmp_path: Path) -> None:
    """Two prompts and all awkward conversations; served numbers are 0.010 from float32, the trainer's own rounding 0.012."""
    report = compare(tmp_path, FakeModel())
    assert report.faults == ()
    assert report.holds
    assert report.compared == 2 + len(awkward_conversations()) >= 100
    assert (report.stop_tokens, report.stops_probed, report.default_draws, report.context_tokens) == ((END,), 3, 8, 1024)
    figures = report.figures
    assert figures is not None
    assert (figures.conversations, figures.dtype_seen, figures.agreement) == (16, "bfloat16", 1.0)
    assert (figures.mean, figures.own_mean, figures.mean_limit) == pytest.approx((0.010, 0.012, 0.036))
    assert (figures.base_mean, figures.tells_base_apart) == (pytest.approx(1.0), True)


@pytest.mark.parametrize(
    ("model", "likely"),
    [
        (FakeModel(trims=True), FaultKind.TOKENIZER),
        (FakeModel(prompts_next=False), FaultKind.GENERATION_PROMPT),
        (FakeModel(ends_turns=False), FaultKind.END_OF_TURN),
        (FakeModel(refuses="Be brief"), FaultKind.TEMPLATE),
        (FakeModel(stops=False), FaultKind.END_OF_TURN),
        (FakeModel(temperature=0.6), FaultKind.DEFAULTS),
        (FakeModel(off=-1.01), FaultKind.BASE_SERVED),
        (FakeModel(off=0.5), FaultKind.WEIGHTS),
        (FakeModel(off=-0.009), FaultKind.DTYPE),
        (FakeModel(writes_otherwise=True), FaultKind.DECODING),
    ],
    ids=lambda value: value.name if isinstance(value, FaultKind) else None,
)
def test_a_misbehaving_server_is_caught_and_the_likeliest_cause_is_named(tmp_path: Path, model: FakeModel, likely: FaultKind) -> None:
    """`off` moves served log-probabilities: -1.01 on to the base model's, 0.5 to nobody's, -0.009 to 0.001 from float32, as float16 is."""
    report = compare(tmp_path, model)
    assert (report.holds, report.likely) == (False, likely)


@pytest.mark.parametrize(
    ("changes", "likely"),
    [
        ({"end_of_turn": 7}, FaultKind.END_OF_TURN),
        ({"stops": (END, 8)}, FaultKind.STOP_TOKENS),
        ({"stops": (), "end_of_turn": 8}, FaultKind.END_OF_TURN),
        ({"base_weights_sha256": dict(WEIGHTS)}, FaultKind.ADAPTER_LOST),
        ({"weights_sha256": {"model.safetensors": "1" * 64}}, FaultKind.BYTES),
        ({"model_digest": "n" * 64}, FaultKind.BYTES),
        ({"samples": ()}, FaultKind.NOT_MEASURED),
        ({"conversations": ()}, FaultKind.NOT_MEASURED),
    ],
    ids=str,
)
def test_a_trainers_view_that_the_server_does_not_match_is_a_fault(tmp_path: Path, changes: dict[str, Any], likely: FaultKind) -> None:
    report = compare(tmp_path, FakeModel(), **changes)
    assert (report.holds, report.likely) == (False, likely)


def test_a_stop_that_the_models_files_do_not_name_is_caught(tmp_path: Path) -> None:
    report = compare(tmp_path, FakeModel(), stops=(), end_of_turn=4)
    assert [fault.subject for fault in report.faults] == ["token 4", "token 3"]


def test_another_context_length_is_caught(tmp_path: Path) -> None:
    report = compare(tmp_path, FakeModel(), context=512)
    assert [fault.what for fault in report.faults] == ["the server says 1024 tokens, the recipe 512"]


def test_a_difference_names_the_place_and_both_sides(tmp_path: Path) -> None:
    """`<system>Be careful.` are 19 characters, and so the turn's end is token 19; two tokens before it are shown."""
    report = compare(tmp_path, FakeModel(ends_turns=False))
    assert "differs at token 19: trained with [108, 46, 3" in next(each.what for each in report.faults if each.subject == "prompt:p0")


def test_a_conversation_refused_on_both_sides_is_compared_and_counted(tmp_path: Path) -> None:
    trained = trainer_view(load_suite(write_suite(tmp_path / "s")), render_turns, opening=OPENING)
    refused = tuple(
        each.model_copy(update={"ids": None}) if each.name.startswith("awkward:system+") else each for each in trained.conversations
    )
    samples = tuple(each for each in trained.samples if "system" not in each.name)
    report = compare(tmp_path, FakeModel(refuses="Be brief"), conversations=refused, samples=samples)
    others = {fault.subject for fault in report.faults}
    assert report.refused == sum(each.ids is None for each in refused) > 30
    assert others == {"awkward:tools:two_offered"}


def test_a_request_that_says_all_sampling_settings_shields_the_measure_from_the_servers_defaults(tmp_path: Path) -> None:
    report = compare(tmp_path, FakeModel(temperature=0.0))
    assert {fault.kind for fault in report.faults} == {FaultKind.DEFAULTS}


def test_a_server_that_answers_without_numbers_is_not_compared_but_refused(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="a log-probability is nan"):
        compare(tmp_path, FakeModel(off=math.nan))


def test_a_report_of_identity_alone_says_so_and_holds_only_with_hashes() -> None:
    known = identity_only("clinic-1", "m" * 64, "s" * 64, WEIGHTS)
    assert (known.holds, known.against_trainer, known.compared) == (True, False, 0)
    assert not identity_only("clinic-1", "m" * 64, "s" * 64, {}).holds
    assert not broken_bytes("clinic-1", "m" * 64, "s" * 64, "a file has other bytes").holds


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report = compare(tmp_path / "suite", FakeModel(off=0.5))
    assert ParityReport.read(report.write(tmp_path / "parity")) == report


def test_the_awkward_conversations_have_names_of_their_own_and_all_the_kinds_that_are_promised() -> None:
    made = awkward_conversations()
    assert len({each.name for each in made}) == len(made) > 100
    kinds = ("system+", "turns+", "tools:", "emoji", "chinese", "arabic", "combining", "numbers", "python", "chatml", "empty", "very_long")
    assert [kind for kind in kinds if not any(kind in each.name for each in made)] == []
    assert max(len(each.messages[0]["content"]) for each in made) > 10_000
