"""Every tuning method on a tiny model: what moves, what becomes of it, and whether a killed run ends the same."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from tests.fakes_training import TinyLine, sft_section
from training.adapters import load_adapter, new_adapter, save_adapter, trainable_parameters
from training.builders import dequantised_weights, load_base, load_tokenizer, settle
from training.checkpoints import CheckpointFolder
from training.config import ModelSection, QuantizationSection, SftSection
from training.context import config_changes
from training.devices import Ranks
from training.errors import MergeError, ModelError
from training.fold import fold
from training.methods import METHODS, Name
from training.outcome import run
from training.prepare import TRAIN, read_prepared
from training.progress import silent
from training.records import AdapterArtifact
from training.sft import AnswerTrainer, train_sft
from training.shapes import shape_of, trainable_in
from training.updates import read_updates
from training.watch import Watch

QKV = ["q_proj", "v_proj"]
ALL_LINEAR = r"\.(q|k|v|o|gate|up|down)_proj\.weight"
LORA = r"\.lora_[AB]\."

# method, what its section says beside the usual, the architecture, and a pattern that exactly the moving parameters match
MOVES: list[tuple[Name, dict[str, Any], str, str]] = [
    ("lora", {}, "llama", LORA),
    ("qlora", {}, "llama", LORA),
    ("qlora", {"quantization": {"type": "fp4"}}, "llama", LORA),
    ("qlora", {"quantization": {"type": "int8"}}, "llama", LORA),
    ("rslora", {}, "llama", LORA),
    ("dora", {}, "llama", r"\.lora_(A|B|magnitude_vector)\."),
    ("lora_plus", {}, "llama", LORA),
    ("adalora", {"r": 16}, "llama", r"\.lora_[ABE]\."),
    ("lora", {"also_train": ["embeddings", "norms"]}, "llama", LORA + r"|embed_tokens|norm"),
    ("lora", {"experts": True, "target_modules": QKV, "dropout": 0.0}, "mixtral", LORA),
    ("lora", {"experts": True, "target_modules": QKV, "dropout": 0.0}, "qwen3_moe", LORA),
    ("lora", {"target_modules": QKV, "also_train": ["router"]}, "mixtral", LORA + r"|\.mlp\.gate\.weight"),
    ("ia3", {}, "llama", r"\.ia3_l\."),
    ("bottleneck", {}, "llama", r"\.bottleneck\."),
    ("prompt_tuning", {"virtual_tokens": 4}, "llama", "prompt_encoder"),
    ("p_tuning", {"virtual_tokens": 4}, "llama", "prompt_encoder"),
    ("prefix_tuning", {"virtual_tokens": 4}, "llama", "prompt_encoder"),
    ("full", {}, "llama", "."),
    ("freeze", {"last_layers": 1}, "llama", r"^model\.layers\.1\."),
    ("bitfit", {}, "qwen2", r"\.bias$"),
    ("galore", {"projection_gap_steps": 2}, "llama", "."),
    ("apollo", {"projection_gap_steps": 2}, "llama", "."),
]
NAMES = [f"{method}-{architecture}-{'-'.join(map(str, changes)) or 'plain'}" for method, changes, architecture, _ in MOVES]
RATES = {"full": 1e-3, "freeze": 1e-3, "galore": 1e-3, "apollo": 1e-3, "prompt_tuning": 0.3, "ia3": 0.2, "adalora": 0.05}


def section_of(method: Name, changes: dict[str, Any], **more: Any) -> SftSection:
    """A short run; keys of `sft_section` that the method does not read are left at their defaults."""
    defaults = {key: SftSection.model_fields[key].default for key in ("r", "alpha", "dropout") if key not in METHODS[method].keys}
    return sft_section(
        **{"method": method, "learning_rate": RATES.get(method, 1e-2), "dropout": 0.0, "batch_size": 8, **defaults, **changes, **more}
    )


@pytest.fixture(scope="module")
def lines(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyLine]:
    made = {name: TinyLine(tmp_path_factory.mktemp(name), architecture=name) for name in ("qwen2", "mixtral", "qwen3_moe")}
    return {"llama": tiny, **made}


def build(line: TinyLine, section: SftSection, steps: int = 12) -> Any:
    settle(section.seed)
    return new_adapter(load_base(Path(line.base.folder), section.quantization), section, steps)


def trainer_of(line: TinyLine, adapted: Any, section: SftSection, out: Path) -> tuple[AnswerTrainer, CheckpointFolder]:
    checkpoints = CheckpointFolder(out / "checkpoints", "test")
    rows = read_prepared(line.dataset_dir / TRAIN)
    return AnswerTrainer(adapted, section, load_tokenizer(Path(line.base.folder)), rows, Watch(silent, checkpoints), Ranks()), checkpoints


def test_every_method_is_tried_below() -> None:
    assert {method for method, *_ in MOVES} == set(get_args(Name))


@pytest.mark.parametrize(("method", "changes", "architecture", "pattern"), MOVES, ids=NAMES)
def test_its_parameters_and_only_they_move_and_become_the_weights_that_are_served(
    lines: dict[str, TinyLine], tmp_path: Path, method: Name, changes: dict[str, Any], architecture: str, pattern: str
) -> None:
    line, section = lines[architecture], section_of(method, changes, epochs=1)
    adapted = build(line, section, steps=4)
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    trainer, checkpoints = trainer_of(line, adapted, section, tmp_path)

    run(trainer, checkpoints)

    moved = {name for name, parameter in adapted.named_parameters() if not torch.equal(parameter, before[name])}
    meant = {name for name in before if re.search(pattern, name)}
    assert moved == meant
    assert trainable_parameters(adapted) == sum(before[name].numel() for name in meant) == trainable_in(shape_of(line.base.folder), section)
    save_adapter(adapted, tmp_path / "out", "tiny")
    if not METHODS[method].mergeable:
        with pytest.raises(MergeError, match="cannot be folded"):
            read_updates(tmp_path / "out")
    else:
        assert_served_as_trained(line, adapted, section.quantization, tmp_path)


def assert_served_as_trained(line: TinyLine, adapted: Any, quantization: QuantizationSection | None, folder: Path) -> None:
    """The folded weights give the trained model's logits, but for one rounding to bf16; the base's do not.

    A base that was rounded in training is the one that is folded into, and that is compared with.
    """
    base, ids = Path(line.base.folder), torch.arange(3, 40)[None]
    weight = dequantised_weights(load_base(base, quantization))
    (folder / "merged").mkdir()
    fold(base, read_updates(folder / "out"), folder / "merged", weight, lambda done, total: None)
    merged, loaded = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32), load_base(base, quantization)
    with torch.no_grad():
        trained = adapted.eval().float()(ids).logits
        served, plain = merged(ids).logits, loaded.float()(ids).logits
        again = load_adapter(load_base(base, quantization), folder / "out", trainable=False).eval().float()(ids).logits
    learned = float((plain - trained).norm())
    assert float((served - trained).norm()) < learned / 10
    assert float((again - trained).norm()) < learned / 10


class Killed(Exception):
    """Ends a run between two steps, as a SIGKILL behind a checkpoint would."""


RESUMED_METHODS = ("dora", "lora_plus", "adalora", "ia3", "bottleneck", "p_tuning", "freeze", "galore", "apollo")
RESUMED = [case for case in MOVES if case[0] in RESUMED_METHODS or case[1].get("also_train") == ["embeddings", "norms"]]


@pytest.mark.parametrize(
    ("method", "changes", "architecture", "pattern"), RESUMED, ids=[case[0] + "-" + "-".join(case[1]) for case in RESUMED]
)
def test_a_run_that_was_ended_resumes_to_the_very_numbers_of_one_that_was_not(
    lines: dict[str, TinyLine], tmp_path: Path, method: Name, changes: dict[str, Any], architecture: str, pattern: str
) -> None:
    line, section = lines[architecture], section_of(method, changes, epochs=1, checkpoint_every_steps=2)
    ended, checkpoints = trainer_of(line, build(line, section, 4), section, tmp_path)

    def kill(progress: Any) -> None:
        if progress.done == 3:
            raise Killed

    ended.watch.report = kill
    with pytest.raises(Killed):
        run(ended, checkpoints)
    resumed, checkpoints = trainer_of(line, build(line, section, 4), section, tmp_path)
    run(resumed, checkpoints)
    whole, folder = trainer_of(line, build(line, section, 4), section, tmp_path / "whole")
    run(whole, folder)

    ours, theirs = (dict(each.model.named_parameters()) for each in (resumed, whole))
    assert resumed.state.global_step == whole.state.global_step == 4
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_biases_are_refused_on_a_model_without_any(tiny: TinyLine) -> None:
    with pytest.raises(ModelError, match=r"bitfit trains biases.*llama"):
        build(tiny, section_of("bitfit", {}))


def test_experts_are_refused_on_a_model_without_any(tiny: TinyLine) -> None:
    with pytest.raises(ModelError, match="no experts"):
        build(tiny, section_of("lora", {"experts": True}))


def test_more_blocks_than_there_are_cannot_be_trained(tiny: TinyLine) -> None:
    with pytest.raises(ModelError, match="the model has 2 blocks"):
        build(tiny, section_of("freeze", {"last_layers": 3}))


def test_keys_of_another_method_are_refused_by_name_all_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        SftSection.model_validate({"method": "bitfit", "alpha": 8, "virtual_tokens": 3, "quantization": {}})
    assert all(part in str(caught.value) for part in ("`alpha`", "`virtual_tokens`", "p_tuning", "remove `quantization`"))


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_a_stretched_context_is_trained_and_served_with_the_same_positions(tiny: TinyLine, tmp_path: Path, kind: str) -> None:
    model = ModelSection.model_validate({**tiny.model.model_dump(), "rope_scaling": {"type": kind, "factor": 2}})
    changes = config_changes(Path(tiny.base.folder), model)
    section = section_of("lora", {"also_train": ["norms"]}, epochs=1)

    artifact = train_sft(model, section, tiny.base, tiny.dataset_dir, tiny.dataset, tmp_path / "out", silent)

    assert artifact.config_changes == changes
    assert changes["max_position_embeddings"] == 1024
    assert AdapterArtifact.read(tmp_path / "out") == artifact
    (tmp_path / "merged").mkdir()
    fold(
        Path(tiny.base.folder),
        read_updates(tmp_path / "out"),
        tmp_path / "merged",
        lambda name, tensor: tensor,
        lambda done, total: None,
        changes,
    )
    served = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert served.config.rope_parameters["rope_type"] == kind
    assert served.config.max_position_embeddings == 1024
