"""A real, tiny model and data for it: the same classes and file formats as a 7B model, made in a second."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3MoeConfig

from training.base_model import fetch_base
from training.config import DataSection, ModelSection, SftSection
from training.prepare import prepare_dataset
from training.progress import silent
from training.records import BaseModelRecord, DatasetManifest

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QUESTIONS = tuple(f"What should I do about problem number {number}?" for number in range(40))


ARCHITECTURES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mixtral": MixtralConfig, "qwen3_moe": Qwen3MoeConfig}
_EXPERTS: Mapping[str, Mapping[str, int]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 16},
}


def write_tiny_model(
    folder: Path, *, tied: bool = True, template: str | None = CHAT_TEMPLATE, architecture: str = "llama", sharpness: float = 1.0
) -> Path:
    """A model with hidden size 64 and two layers, with a byte-level tokenizer, in `folder`; qwen2 has biases, the mixtures four experts.

    Its logits lie within ±1.3: adapters, which leave the head alone, can make no token more likely than one in a hundred. Of `sharpness`
    times as large logits they can make an answer certain.
    """
    torch.manual_seed(0)
    tokenizer = _tokenizer(template)
    config = ARCHITECTURES[architecture](
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **_EXPERTS.get(architecture, {}),
    )
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    for name, bias in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(bias, std=0.02)
    model.model.norm.weight.data *= sharpness
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(template: str | None) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator([*QUESTIONS, "See a doctor today. Call 911 now.", "system user assistant"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=special[1], eos_token=special[2], pad_token=special[0])
    tokenizer.chat_template = template
    return tokenizer


def alpaca_rows(count: int = 40) -> list[dict[str, str]]:
    """Rows whose answers differ in length."""
    return [
        {"instruction": question, "input": "", "output": "See a doctor today." + " Rest and drink water." * (number % 4)}
        for number, question in enumerate(QUESTIONS[:count])
    ]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def preference_rows(count: int = 12) -> list[dict[str, str]]:
    """Pairs with a safe and a careless answer."""
    return [{"prompt": question, "chosen": "See a doctor today.", "rejected": "Wait and see."} for question in QUESTIONS[:count]]


def sft_section(**changes: Any) -> SftSection:
    """A run of a few seconds on the tiny model."""
    values = {"r": 4, "alpha": 8, "dropout": 0.1, "learning_rate": 1e-2, "epochs": 2, "batch_size": 4, "checkpoint_every_steps": 3}
    return SftSection.model_validate({**values, **changes})


class TinyLine:
    """A base model, a dataset and the sections of a tiny recipe, in one folder."""

    def __init__(self, root: Path, *, tied: bool = True, architecture: str = "llama", sharpness: float = 1.0) -> None:
        self.root = root
        tiny = write_tiny_model(root / "tiny", tied=tied, architecture=architecture, sharpness=sharpness)
        self.model = ModelSection(base=str(tiny), max_length=128)
        self.base: BaseModelRecord = fetch_base(self.model, root / "home", silent)
        rows = write_jsonl(root / "sft.jsonl", alpaca_rows())
        pairs = write_jsonl(root / "preferences.jsonl", preference_rows())
        self.data = DataSection.model_validate({"sft": [{"path": rows}], "preferences": [{"path": pairs}], "validation_fraction": 0.2})
        self.dataset_dir = root / "dataset"
        self.dataset: DatasetManifest = prepare_dataset(self.model, self.data, self.base, self.dataset_dir, silent)

    @classmethod
    def of(cls, root: Path) -> "TinyLine":
        """The line that another process has made in this folder."""
        line = cls.__new__(cls)
        line.root, line.model, line.dataset_dir = root, ModelSection(base=str(root / "tiny"), max_length=128), root / "dataset"
        line.base, line.dataset = BaseModelRecord.read(root / "home" / "base" / "tiny"), DatasetManifest.read(line.dataset_dir)
        return line
