"""Memory is made to run out by a planted error in a forward pass of too many rows; the losses show that the steps stayed the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes_training import TinyLine, sft_section
from training.errors import TrainingError
from training.practice.out_of_memory import Passes, is_out_of_memory, with_smaller_passes
from training.progress import Progress, silent
from training.records import AdapterArtifact
from training.sft import AnswerTrainer, train_sft

CPU_ALLOCATOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)
ROUNDING = 2e-3  # of bf16 sums taken in another order


@pytest.mark.parametrize(
    ("passes", "smaller"),
    [
        (Passes(8, 1), Passes(4, 2)),
        (Passes(6, 2), Passes(3, 4)),
        (Passes(3, 1), Passes(1, 3)),
        (Passes(5, 2), Passes(1, 10)),
        (Passes(1, 4), None),
    ],
)
def test_smaller_passes_make_the_same_step(passes: Passes, smaller: Passes | None) -> None:
    assert passes.smaller() == smaller
    assert smaller is None or smaller.rows * smaller.number == passes.rows * passes.number


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (CPU_ALLOCATOR, True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_another_error_is_passed_on() -> None:
    def attempt(passes: Passes) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        with_smaller_passes(Passes(4, 1), attempt)


def test_a_single_row_that_does_not_fit_ends_the_run() -> None:
    def attempt(passes: Passes) -> None:
        raise MemoryError

    with pytest.raises(TrainingError, match="with 1 row in a pass"):
        with_smaller_passes(Passes(4, 1), attempt)


def train(tiny: TinyLine, out: Path, report: Any = silent) -> AdapterArtifact:
    section = sft_section(dropout=0, epochs=1, method="lora", learning_rate=1e-3)
    return train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, out, report)


@pytest.fixture(scope="module")
def whole(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> AdapterArtifact:
    return train(tiny, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("error", [CPU_ALLOCATOR, torch.OutOfMemoryError("CUDA out of memory")], ids=["cpu", "cuda"])
def test_a_run_whose_batch_does_not_fit_goes_on_with_half_of_it_and_the_same_steps(
    tiny: TinyLine, whole: AdapterArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    honest, heard = AnswerTrainer.compute_loss, list[Progress]()

    def compute_loss(self: AnswerTrainer, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        # Held-back rows have no positions of their own: they are padded.
        if int((inputs.get("position_ids", torch.ones(1)) == 0).sum()) > 2 and self.state.global_step >= 4:
            raise error
        return honest(self, model, inputs, *arguments, **named)

    monkeypatch.setattr(AnswerTrainer, "compute_loss", compute_loss)
    halved = train(tiny, tmp_path / "halved", heard.append)

    assert halved.steps == whole.steps
    assert halved.last_loss == pytest.approx(whole.last_loss, rel=ROUNDING)
    assert halved.validation_loss == pytest.approx(whole.validation_loss, rel=ROUNDING)
    assert halved.course.out_of_memory == ("memory ran out with 4 rows in a pass: went on with 2 rows and 2 passes in a step",)
    assert [progress.done for progress in heard if progress.note == "resumed"] == [3]  # the checkpoint before it
    assert (halved.course.rows_per_pass, halved.course.passes_per_step) == (2, 2)
