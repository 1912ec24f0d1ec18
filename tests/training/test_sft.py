import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTTrainer

from tests.fakes_training import TinyLine, sft_section
from training.adapters import new_adapter
from training.atomic import sha256_of
from training.builders import load_base, load_tokenizer, settle
from training.checkpoints import CheckpointFolder
from training.config import SftSection
from training.devices import Ranks
from training.errors import InputError, RecordError
from training.measure import answer_logits
from training.prepare import TRAIN, read_prepared
from training.progress import Progress, silent
from training.records import AdapterArtifact, verify_files
from training.sft import AnswerTrainer, train_sft
from training.watch import Watch


def train(tiny: TinyLine, out: Path, section: SftSection, report: Any = silent) -> AdapterArtifact:
    return train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, out, report)


@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_training_lowers_the_loss_and_records_what_it_did(tiny: TinyLine, tmp_path: Path, method: str) -> None:
    artifact = train(tiny, tmp_path, sft_section(method=method, epochs=4))

    assert artifact.last_loss < artifact.first_loss * 0.9
    assert artifact.quantization == ("nf4" if method == "qlora" else "none")
    assert artifact.steps == -(-tiny.dataset.train_rows // 4) * 4
    assert AdapterArtifact.read(tmp_path) == artifact


def test_a_finished_stage_holds_the_adapter_and_no_pickle(tiny: TinyLine, tmp_path: Path) -> None:
    artifact = train(tiny, tmp_path, sft_section(epochs=1))

    assert [file.path for file in artifact.files] == ["adapter_config.json", "adapter_model.safetensors"]
    verify_files(tmp_path, artifact.files)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == tiny.base.source


def test_every_step_is_reported_with_loss_speed_and_time_left(tiny: TinyLine, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[Progress] = []

    artifact = train(tiny, tmp_path, sft_section(epochs=1), heard.append)

    assert [progress.done for progress in heard] == list(range(artifact.steps + 1))
    assert all(each in heard[-1].note for each in ("loss ", " tokens/s", " s left"))
    assert "{'loss'" not in capfd.readouterr().out


def test_the_loss_is_that_of_trl_but_for_rounding(tiny: TinyLine, tmp_path: Path) -> None:
    settle(1)
    adapted = new_adapter(load_base(Path(tiny.base.folder), None), sft_section(dropout=0))
    watch = Watch(silent, CheckpointFolder(tmp_path, ""))
    rows = read_prepared(tiny.dataset_dir / TRAIN)
    trainer = AnswerTrainer(adapted, sft_section(dropout=0), load_tokenizer(Path(tiny.base.folder)), rows, watch, Ranks())
    batch = trainer.data_collator([{key: row[key] for key in ("input_ids", "labels")} for row in rows[:5]])

    ours, theirs = trainer.compute_loss(trainer.model, dict(batch)), SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))

    assert ours.item() == pytest.approx(theirs.item(), rel=5e-3)


def test_logits_are_computed_for_answer_tokens_only(tiny: TinyLine) -> None:
    rows = read_prepared(tiny.dataset_dir / TRAIN)[:1]
    inputs = {key: torch.tensor([rows[0][key]]) for key in ("input_ids", "labels")} | {
        "attention_mask": torch.ones(1, len(rows[0]["labels"]))
    }

    logits, targets = answer_logits(load_base(Path(tiny.base.folder), None), inputs)

    assert len(logits) == len(targets) == sum(label != -100 for label in rows[0]["labels"][1:])


def test_rows_prepared_for_another_base_model_are_refused(tiny: TinyLine, tmp_path: Path) -> None:
    other = tiny.base.model_copy(update={"source": "another"})

    with pytest.raises(InputError, match="prepared for base model"):
        train_sft(tiny.model, sft_section(), other, tiny.dataset_dir, tiny.dataset, tmp_path, silent)


def test_rows_altered_after_they_were_prepared_are_refused(tmp_path: Path) -> None:
    line = TinyLine(tmp_path / "line")
    with (line.dataset_dir / TRAIN).open("a") as file:
        file.write("{}\n")

    with pytest.raises(RecordError, match=r"train\.jsonl has other bytes"):
        train(line, tmp_path / "out", sft_section())


RESUME_PROGRAM = """
import sys
from pathlib import Path
from tests.fakes_training import sft_section
from training.config import ModelSection
from training.progress import silent
from training.records import BaseModelRecord, DatasetManifest
from training.sft import train_sft

base, dataset, out = map(Path, sys.argv[1:])
train_sft(ModelSection(base="x"), sft_section(), BaseModelRecord.read(base), dataset, DatasetManifest.read(dataset), out, silent)
"""

FULL_DISK_PROGRAM = """
import resource, signal
from training.progress import Progress
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails as on a full disk, with an OSError

def fill(progress: Progress) -> None:
    if progress.done == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
""" + RESUME_PROGRAM.replace("out, silent", "out, fill")


def start(tiny: TinyLine, out: Path) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", RESUME_PROGRAM, tiny.base.folder, str(tiny.dataset_dir), str(out)]
    return subprocess.Popen(arguments, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})


def test_a_run_stopped_by_ctrl_c_goes_on_and_ends_with_the_very_same_adapter(tiny: TinyLine, tmp_path: Path) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 8:
            raise KeyboardInterrupt

    whole = train(tiny, tmp_path / "whole", sft_section())
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tmp_path / "stopped", sft_section(), press_ctrl_c)
    heard: list[Progress] = []

    resumed = train(tiny, tmp_path / "stopped", sft_section(), heard.append)

    assert (heard[0].done, heard[0].note) == (6, "resumed")
    assert resumed.digest == whole.digest


def test_a_run_stopped_in_a_later_epoch_reads_the_rows_that_were_left(tiny: TinyLine, tmp_path: Path) -> None:
    """Each epoch has its own order; a resumed run that drew it anew would end elsewhere."""

    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 14:
            raise KeyboardInterrupt

    whole = train(tiny, tmp_path / "whole", sft_section())
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tmp_path / "stopped", sft_section(), press_ctrl_c)

    assert whole.steps // 2 < 12
    assert train(tiny, tmp_path / "stopped", sft_section()).digest == whole.digest


def test_a_flipped_bit_in_the_newest_checkpoint_is_told_and_the_one_before_is_used(tiny: TinyLine, tmp_path: Path) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, tmp_path, sft_section(), press_ctrl_c)
    weights = tmp_path / "checkpoints" / "step-00000006" / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    heard: list[Progress] = []

    train(tiny, tmp_path, sft_section(), heard.append)

    assert (heard[0].done, heard[0].note) == (3, "resumed; step-00000006 is damaged and was passed over")


def test_a_full_disk_stops_the_run_and_leaves_the_checkpoint_before_whole(tiny: TinyLine, tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow beyond 40 kB once the first checkpoint is sealed: the second cannot be written."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK_PROGRAM, tiny.base.folder, str(tiny.dataset_dir), str(tmp_path)],
        capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip

    assert "TrainingError: a checkpoint could not be written" in done.stderr
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000003"]
    heard: list[Progress] = []
    train(tiny, tmp_path, sft_section(), heard.append)
    assert (heard[0].done, heard[0].note) == (3, "resumed")


def test_a_changed_recipe_starts_anew(tiny: TinyLine, tmp_path: Path) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, tmp_path, sft_section(), press_ctrl_c)
    heard: list[Progress] = []

    train(tiny, tmp_path, sft_section(seed=8), heard.append)

    assert heard[0].done == 0


@pytest.mark.slow
def test_a_run_killed_between_checkpoints_ends_with_the_very_same_adapter(tiny: TinyLine, tmp_path: Path) -> None:
    """SIGKILL after the second checkpoint, and that one truncated besides: bit for bit the uninterrupted result."""
    whole = train(tiny, tmp_path / "whole", sft_section())
    killed = start(tiny, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed" / "checkpoints").glob("step-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "record.json").exists()
    newest = max((tmp_path / "killed" / "checkpoints").glob("step-*"))
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:100])
    heard: list[Progress] = []

    resumed = train(tiny, tmp_path / "killed", sft_section(), heard.append)

    assert 0 < heard[0].done < int(newest.name.removeprefix("step-"))
    weights = [sha256_of(tmp_path / name / "adapter_model.safetensors") for name in ("killed", "whole")]
    assert weights[0] == weights[1]
    assert resumed.digest == whole.digest
