"""What is compared at every start of an engine: against a fake server that answers as the trained model does, or otherwise."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluation.parity_conversations import conversations_of
from evaluation.parity_records import FaultKind
from evaluation.suite import load_suite
from serving.errors import SlotError
from serving.start_check import check_start, keep_for_starts
from tests.fakes_evaluation import FakeModel, render_turns, serve
from tests.fakes_suites import write_suite
from tests.fakes_trainer import trainer_view

OPENING = tuple(ord(char) for char in "<assistant>")


def started(folder: Path, model: FakeModel, *, digest: str | None = None, quantized: bool = False, context: int = 1024) -> str:
    suite = load_suite(write_suite(folder / "suite"))
    trained = trainer_view(suite, render_turns, opening=OPENING)
    keep_for_starts(folder / "live", "clinic-2", conversations_of(suite), trained, context, "bfloat16", quantized=quantized)
    with serve(model) as endpoint:
        return check_start(folder / "live", "clinic-2", digest or trained.model_digest, endpoint)


def test_an_engine_that_answers_as_it_was_judged_is_ready_and_it_is_said_what_was_compared(tmp_path: Path) -> None:
    assert started(tmp_path, FakeModel()) == "8 conversations and 4 log-probabilities as judged"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (FakeModel(prompts_next=False), FaultKind.GENERATION_PROMPT),
        (FakeModel(off=-1.01), FaultKind.BASE_SERVED),
        (FakeModel(off=0.5), FaultKind.WEIGHTS),
        (FakeModel(off=-0.009), FaultKind.DTYPE),
    ],
)
def test_an_engine_that_answers_otherwise_is_refused_with_the_kind_of_difference(tmp_path: Path, model: FakeModel, kind: FaultKind) -> None:
    with pytest.raises(SlotError, match=f"does not answer as it was judged: {kind}"):
        started(tmp_path, model)


def test_another_context_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlotError, match="the server says 1024 tokens, the recipe 512"):
        started(tmp_path, FakeModel(), context=512)


@pytest.mark.parametrize(("off", "refused"), [(0.1, False), (-1.01, True)])
def test_a_quantized_engine_may_be_far_from_the_merged_model_but_not_nearer_to_the_base(tmp_path: Path, off: float, refused: bool) -> None:
    """The base is 1.0 nats away from the merged model."""
    if refused:
        with pytest.raises(SlotError, match=FaultKind.BASE_SERVED):
            started(tmp_path, FakeModel(off=off), quantized=True)
    else:
        assert "as judged" in started(tmp_path, FakeModel(off=off), quantized=True)


UNASKED: Any = None


@pytest.mark.parametrize("case", ["another model", "no reference"])
def test_where_there_is_nothing_to_hold_it_against_nothing_is_asked_and_that_is_said(tmp_path: Path, case: str) -> None:
    if case == "another model":
        said = started(tmp_path, FakeModel(off=0.5), digest="f" * 64)
    else:
        said = check_start(tmp_path, "clinic-2", "f" * 64, UNASKED)
    assert said.startswith("not compared with a trained model: ")


@pytest.mark.parametrize("how", ["deleted", "deleted with its folder", "another release's"])
def test_a_release_that_was_compared_is_not_served_when_what_was_kept_of_it_is_gone(tmp_path: Path, how: str) -> None:
    suite = load_suite(write_suite(tmp_path / "suite"))
    trained = trainer_view(suite, render_turns, opening=OPENING)
    other = trained.model_copy(update={"model_digest": "f" * 64})
    for release_id, view in (("clinic-2", trained), ("clinic-3", other)):
        keep_for_starts(tmp_path, release_id, conversations_of(suite), view, 1024, "bfloat16")
    if how == "another release's":
        shutil.copyfile(tmp_path / "clinic-3/start.json", tmp_path / "clinic-2/start.json")
    elif how == "deleted":
        (tmp_path / "clinic-2/start.json").unlink()
    else:
        shutil.rmtree(tmp_path / "clinic-2")
    with pytest.raises(SlotError, match=r"clinic-2/start\.json is gone, or of another model"):
        check_start(tmp_path, "clinic-2", trained.model_digest, UNASKED)


def test_a_reference_that_cannot_be_read_keeps_the_engine_from_being_ready(tmp_path: Path) -> None:
    (tmp_path / "clinic-2").mkdir()
    (tmp_path / "clinic-2/start.json").write_text("{", encoding="utf-8")
    with pytest.raises(SlotError, match=r"start.json cannot be read"):
        check_start(tmp_path, "clinic-2", "f" * 64, UNASKED)
