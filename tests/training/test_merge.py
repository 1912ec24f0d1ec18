from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.fakes_training import QUESTIONS, TinyLine, sft_section
from training.config import MergeSection
from training.errors import InputError, RecordError
from training.measure import Judge, ValidationPrompt
from training.merge import merge_adapter
from training.progress import silent
from training.records import AdapterArtifact, MergedModel, verify_files
from training.sft import train_sft

Trained = tuple[Path, AdapterArtifact]
PROMPTS = [ValidationPrompt(f"p{number}", ({"role": "user", "content": question},)) for number, question in enumerate(QUESTIONS[:4])]


def always(prompt_id: str, answer: str) -> bool:
    return True


@pytest.fixture(scope="module")
def qlora(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("qlora")
    return folder, train_sft(tiny.model, sft_section(), tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)


def merge(
    tiny: TinyLine, trained: Trained, out: Path, *, judge: Judge = always, prompts: Sequence[ValidationPrompt] = PROMPTS
) -> MergedModel:
    section = MergeSection(validation_suite=Path("unused"), max_new_tokens=8)
    return merge_adapter(section, tiny.base, tiny.dataset_dir, tiny.dataset, *trained, prompts, judge, out, silent)


def test_both_merges_are_measured_against_the_model_as_trained(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    certificate = merge(tiny, qlora, tmp_path).certificate

    assert (certificate.trained.variant, certificate.trained.kl_nats, certificate.trained.flip_rate) == ("trained", 0.0, 0.0)
    assert [each.variant for each in certificate.measurements] == ["bf16_base", "nf4_base"]
    assert [each.rule_passes for each in certificate.measurements] == [4, 4]


def test_the_merge_into_nf4_weights_is_far_closer_to_what_was_trained(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    bf16, nf4 = merge(tiny, qlora, tmp_path).certificate.measurements

    assert 0 <= nf4.kl_nats < bf16.kl_nats / 10


@pytest.mark.parametrize("kind", ["fp4", "int8"])
def test_other_roundings_are_merged_both_ways_too_and_the_rounded_one_is_what_was_trained(
    tiny: TinyLine, tmp_path: Path, kind: str
) -> None:
    section = sft_section(quantization={"type": kind}, epochs=1)
    trained = train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, tmp_path / "trained", silent)

    bf16, rounded = merge(tiny, (tmp_path / "trained", trained), tmp_path / "merged").certificate.measurements

    assert (bf16.variant, rounded.variant) == ("bf16_base", f"{kind}_base")
    assert 0 <= rounded.kl_nats < bf16.kl_nats


def test_the_folder_holds_the_chosen_merge_only_and_loads(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    merged = merge(tiny, qlora, tmp_path)

    verify_files(tmp_path, merged.files)
    assert MergedModel.read(tmp_path) == merged
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.model_type == "llama"


def test_the_judge_decides_when_the_merges_answer_differently(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    """The judge is asked about 4 prompts of the trained model, then 4 of the bf16 merge, then 4 of the NF4 merge."""
    asked: list[str] = []

    def only_the_last_model(prompt_id: str, answer: str) -> bool:
        asked.append(prompt_id)
        return len(asked) > 8

    certificate = merge(tiny, qlora, tmp_path, judge=only_the_last_model).certificate

    assert len(asked) == 12
    assert certificate.chosen == "nf4_base"
    assert "4 of 4 validation prompts break no critical rule, against 0" in certificate.reason


def test_an_adapter_trained_on_bf16_weights_has_one_merge(tiny: TinyLine, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    artifact = train_sft(tiny.model, sft_section(method="lora"), tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)

    certificate = merge(tiny, (folder, artifact), tmp_path / "out").certificate

    assert [each.variant for each in certificate.measurements] == ["bf16_base"]
    assert certificate.reason.startswith("the only usable merge")


def test_what_a_killed_merge_left_is_swept(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    leftover = tmp_path / "candidates" / "bf16_base"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")

    merged = merge(tiny, qlora, tmp_path)

    verify_files(tmp_path, merged.files)


def test_merging_twice_gives_the_same_model(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    first, second = (merge(tiny, qlora, tmp_path / name) for name in ("one", "two"))

    assert first.digest == second.digest


def test_an_adapter_for_another_base_is_refused(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    other = qlora[1].model_copy(update={"base_digest": "0" * 64})

    with pytest.raises(InputError, match="was trained on base model 000000000000"):
        merge(tiny, (qlora[0], other), tmp_path)


def test_an_adapter_altered_after_training_is_refused(tiny: TinyLine, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    artifact = train_sft(tiny.model, sft_section(epochs=1), tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"X")

    with pytest.raises(RecordError, match=r"adapter_model\.safetensors has other bytes"):
        merge(tiny, (folder, artifact), tmp_path / "out")


def test_without_validation_prompts_there_is_no_merge(tiny: TinyLine, qlora: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no validation prompts"):
        merge(tiny, qlora, tmp_path, prompts=[])
