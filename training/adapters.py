"""What moves while a model is tuned: builds it on a base model, finds it again, writes it and reads it back.

An artefact holds peft's two files for what peft tunes, `weights.safetensors` for weights that are trained whole, or both. All of them
are safetensors. Knows nothing of trainers, data or merging. Next: `sft.py`; `fold.py`, which puts the outcome into weights.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file

from training.atomic import write_text
from training.bottleneck import WEIGHTS as BOTTLENECK_WEIGHTS
from training.bottleneck import add_bottlenecks, load_bottlenecks, save_bottlenecks
from training.builders import on_gpu
from training.config import SftSection
from training.errors import ModelError
from training.shards import shard_blocks
from training.stacked import stack_projections
from training.updates import ADAPTER_CONFIG, WHOLE_WEIGHTS

_PEFT_PREFIX = "base_model.model."
_CAUSAL = peft.TaskType.CAUSAL_LM
_ADALORA_START, _ADALORA_END = 0.1, 0.3  # shares of the steps before ranks move, and after they have settled
_EXPERT_WEIGHTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
_ALSO = {"embeddings": (".embed_tokens.",), "norms": ("norm.", "layernorm."), "router": (".gate.weight",)}


def new_adapter(model: Any, sft: SftSection, steps: int = 1, *, shard: bool = False) -> Any:
    """Make the recipe's parameters trainable on a frozen base model; before a step is made it computes what it did.

    `steps` is the length of the run, which AdaLoRA plans its ranks by; `shard` has several processes share the frozen weights out.

    Raises:
        ModelError: the model has not got what the recipe wants to tune.
    """
    if sft.tuning.family == "weights":
        _mark(model, sft)
        return model
    if sft.tuning.family == "bottleneck":
        add_bottlenecks(model, sft.r, sft.dropout)
        return model
    if sft.tuning.family != "prompt":
        _require_layers(model, sft)
    adapted = peft.get_peft_model(model, peft_config(sft, steps))
    for name, parameter in adapted.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)  # AdaLoRA's divisor: peft lets it be trained, and neither saves nor merges what it became
    if sft.also_train:
        _unfreeze(model, [name for name, _ in model.named_parameters() if _is_also_trained(name, sft.also_train)], "sft.also_train")
    return _for_this_machine(adapted, shard=shard)


def peft_config(sft: SftSection, steps: int = 1) -> peft.PeftConfig:
    """The peft configuration of a method that peft implements."""
    match sft.method:
        case "adalora":
            start, end = math.floor(steps * _ADALORA_START), math.floor(steps * _ADALORA_END)
            return peft.AdaLoraConfig(
                init_r=math.ceil(1.5 * sft.r), target_r=sft.r, tinit=start, tfinal=end, deltaT=1, total_step=max(steps, 1),
                lora_alpha=sft.alpha, lora_dropout=sft.dropout, target_modules=list(sft.target_modules), task_type=_CAUSAL,
            )  # fmt: skip
        case "ia3":
            inner = [name for name in sft.target_modules if name.endswith("down_proj")]
            wanted = [name for name in sft.target_modules if name.split(".")[-1] in ("k_proj", "v_proj", "down_proj")]
            return peft.IA3Config(target_modules=wanted, feedforward_modules=inner, task_type=_CAUSAL)
        case "prompt_tuning":
            return peft.PromptTuningConfig(num_virtual_tokens=sft.virtual_tokens, task_type=_CAUSAL)
        case "p_tuning":
            return peft.PromptEncoderConfig(
                num_virtual_tokens=sft.virtual_tokens, encoder_hidden_size=sft.encoder_hidden, task_type=_CAUSAL
            )
        case "prefix_tuning":
            return peft.PrefixTuningConfig(num_virtual_tokens=sft.virtual_tokens, task_type=_CAUSAL)
        case _:
            return peft.LoraConfig(
                r=sft.r, lora_alpha=sft.alpha, lora_dropout=sft.dropout, bias="none", task_type=_CAUSAL,
                target_modules=list(sft.target_modules), target_parameters=list(_EXPERT_WEIGHTS) if sft.experts else None,
                use_dora=sft.method == "dora", use_rslora=sft.method == "rslora",
            )  # fmt: skip


def load_adapter(model: Any, folder: Path, *, trainable: bool, shard: bool = False) -> Any:
    """Put the artefact in `folder` on its base model; one that is not trained is in bf16, as training computes with it."""
    if (folder / WHOLE_WEIGHTS).is_file():
        _load_whole(model, folder, trainable=trainable)
    if (folder / BOTTLENECK_WEIGHTS).is_file():
        load_bottlenecks(model, folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        return model if trainable else model.to(torch.bfloat16)
    adapted = peft.PeftModel.from_pretrained(model, folder, is_trainable=trainable, local_files_only=True)
    return _for_this_machine(adapted if trainable else adapted.to(torch.bfloat16), shard=shard)


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Write what was trained: the same bytes for the same numbers on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, peft.PeftModel):
        _save_peft(model, folder, base_name)
    whole = {name: parameter.detach().cpu().contiguous() for name, parameter in whole_weights(model)}
    if whole:
        save_file(whole, folder / WHOLE_WEIGHTS)
    if not isinstance(model, peft.PeftModel) and not whole:
        save_bottlenecks(model, folder)


def whole_weights(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The base model's own weights that are trained, by the base model's names."""
    for name, parameter in base_of(model).named_parameters():
        if parameter.requires_grad and not any(mark in name for mark in ("lora_", "ia3_", "bottleneck.", "prompt_encoder")):
            yield name.replace(".base_layer", ""), parameter


def trainable_parameters(model: Any) -> int:
    """How many numbers the optimizer moves."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def base_of(model: Any) -> Any:
    """The causal language model below an adapter."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def _save_peft(model: Any, folder: Path, base_name: str) -> None:
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / ADAPTER_CONFIG
    settings = json.loads(path.read_text(encoding="utf-8"))
    # peft keeps the modules in sets, whose order changes with every process, and the folder this machine loaded from.
    settings |= {key: sorted(settings[key]) for key in ("target_modules", "feedforward_modules") if isinstance(settings.get(key), list)}
    settings |= {"base_model_name_or_path": base_name, "revision": None}
    write_text(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _load_whole(model: Any, folder: Path, *, trainable: bool) -> None:
    saved, own = load_file(folder / WHOLE_WEIGHTS), dict(model.named_parameters())
    if strangers := sorted(saved.keys() - own.keys()):
        raise ModelError(f"{folder}: the model has no weight called {strangers[0]}", do="use the base model this was trained on")
    with torch.no_grad():
        for name, tensor in saved.items():
            own[name].data = tensor.to(own[name].device) if trainable else tensor.to(own[name].device, own[name].dtype)
            own[name].requires_grad_(trainable)


def _mark(model: Any, sft: SftSection) -> None:
    names = [name for name, _ in model.named_parameters()]
    if sft.method == "bitfit":
        return _unfreeze(model, [name for name in names if name.endswith(".bias")], "sft.method: bitfit trains biases")
    if sft.method == "freeze":
        blocks = model.config.num_hidden_layers
        if sft.last_layers > blocks:
            raise ModelError(f"`sft.last_layers` is {sft.last_layers}, the model has {blocks} blocks", do=f"choose 1 to {blocks}")
        wanted = tuple(f"model.layers.{number}." for number in range(blocks - sft.last_layers, blocks))
        return _unfreeze(model, [name for name in names if name.startswith(wanted)], "sft.last_layers")
    return _unfreeze(model, names, "sft.method")


def _unfreeze(model: Any, names: list[str], key: str) -> None:
    """Train these weights in fp32: in bf16 a step of 1e-5 of a weight's size would be rounded away."""
    if not names:
        raise ModelError(
            f"`{key}`: this model ({model.config.model_type}) has no such weights",
            why="nothing would be trained",
            do="choose another method, such as lora",
        )
    own = dict(model.named_parameters())
    for name in names:
        own[name].data = own[name].data.float()
        own[name].requires_grad_(True)


def _is_also_trained(name: str, kinds: tuple[str, ...]) -> bool:
    return not any(mark in name for mark in ("lora_", "ia3_")) and any(part in name for kind in kinds for part in _ALSO[kind])


def _require_layers(model: Any, sft: SftSection) -> None:
    kinds = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    fused = {"gate_proj", "up_proj", "down_proj"} if sft.experts else set()
    if missing := [name for name in sft.target_modules if name.rsplit(".", 1)[-1] not in kinds | fused]:
        raise ModelError(
            f"`sft.target_modules`: the model has no layers called {', '.join(missing)}",
            do=f"choose from: {', '.join(sorted(kinds - {'lm_head'}))}"
            + (" (`sft.experts` tunes stacked experts)" if not sft.experts else ""),
        )
    if sft.experts and not any(name.endswith("mlp.experts.gate_up_proj") for name, _ in model.named_parameters()):
        raise ModelError("`sft.experts`: this model has no experts", do="remove the key, or choose a mixture-of-experts model")


def _for_this_machine(adapted: Any, *, shard: bool) -> Any:
    """On a CPU the adapted layers compute together, where they hold whole weights; on a GPU peft's own passes wait for nothing."""
    if shard:
        shard_blocks(adapted)
    elif not on_gpu():
        stack_projections(adapted)
    return adapted
