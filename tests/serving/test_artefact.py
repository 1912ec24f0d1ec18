"""What is served is what was judged: every file is held against its record."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.artefact import verify_artefact
from serving.registry import Registry
from tests.fakes_serving import candidate, url_in, write_model
from training.errors import RecordError
from training.records import MergeCertificate, MergedModel, MergeMeasurement, digest_files


def merged_model(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_text("merged")
    figures = MergeMeasurement(variant="bf16_base", kl_nats=0.1, flip_rate=0.0, perplexity=2.0, rule_passes=1, rule_prompts=1)
    record = MergedModel(
        created_at="2030-01-01T00:00:00Z",
        base_digest="0" * 64,
        adapter_digest="1" * 64,
        certificate=MergeCertificate(
            trained=figures.model_copy(update={"variant": "trained"}), measurements=(figures,), chosen="bf16_base", reason="nearest"
        ),
        files=digest_files(folder),
    )
    record.write(folder)
    return record.digest


@pytest.mark.parametrize("make", [merged_model, write_model])
def test_a_true_artefact_passes_whether_merged_or_base(tmp_path: Path, make: Callable[[Path], str]) -> None:
    with Registry(url_in(tmp_path)) as registry:
        verify_artefact(candidate(registry, digest=make(tmp_path / "m"), folder=tmp_path / "m"))


def flip(folder: Path) -> None:
    body = bytearray((folder / "model.safetensors").read_bytes())
    body[0] ^= 1
    (folder / "model.safetensors").write_bytes(body)


def add_link(folder: Path) -> None:
    (folder / "extra.json").symlink_to("/etc/hostname")


SABOTAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip, "other bytes"),
    "a file more": (lambda folder: (folder / "extra.py").write_text("import os"), "does not belong here"),
    "a file less": (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
    "a link": (add_link, "symbolic link"),
    "no record": (lambda folder: (folder / "record.json").unlink(), "is not there"),
    "half a record": (lambda folder: (folder / "record.json").write_text('{"kind": "Merg'), "cannot be read"),
    "another kind": (lambda folder: (folder / "record.json").write_text('{"kind": "Scorecard", "digest": ""}'), "holds a Scorecard"),
    "a record that is a list": (lambda folder: (folder / "record.json").write_text("[]"), "cannot be read"),
}


@pytest.mark.parametrize("make", [merged_model, write_model])
@pytest.mark.parametrize("fault", list(SABOTAGE))
def test_an_artefact_that_was_tampered_with_is_refused(tmp_path: Path, make: Callable[[Path], str], fault: str) -> None:
    sabotage, message = SABOTAGE[fault]
    with Registry(url_in(tmp_path)) as registry:
        release = candidate(registry, digest=make(tmp_path / "m"), folder=tmp_path / "m")
        sabotage(tmp_path / "m")
        with pytest.raises(RecordError, match=message):
            verify_artefact(release)


@pytest.mark.parametrize(
    ("name", "body", "fault"),
    [
        ("pytorch_model.bin", b"cos\nsystem\n(S'touch canary'\ntR.", "is a pickle"),
        ("optimizer.PT", b"", "is a pickle"),
        ("extra.pkl", b"", "is a pickle"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../../other/model.safetensors"}}', "which is not in the folder"),
    ],
)
def test_what_would_run_code_or_read_elsewhere_is_not_served_though_it_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: bytes, fault: str
) -> None:
    """Planted before the record was written, so that every hash holds."""
    monkeypatch.chdir(tmp_path)
    planted = tmp_path / "m" / name
    planted.parent.mkdir()
    planted.write_bytes(body)
    with Registry(url_in(tmp_path)) as registry, pytest.raises(RecordError, match=rf"is not served: .*{fault}"):
        verify_artefact(candidate(registry, digest=merged_model(tmp_path / "m"), folder=tmp_path / "m"))
    assert not (tmp_path / "canary").exists()


def test_a_true_artefact_of_another_model_is_refused(tmp_path: Path) -> None:
    with Registry(url_in(tmp_path)) as registry:
        write_model(tmp_path / "m")
        with pytest.raises(RecordError, match="but clinic-1 is aaaaaaaaaaaa"):
            verify_artefact(candidate(registry, digest="a" * 64, folder=tmp_path / "m"))
