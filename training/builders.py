"""The one place where base model, adapter and training arguments are built, for every trainer and the merge.

On a GPU the base weights stay in bitsandbytes' 4-bit layout. On a CPU they are rounded to NF4 by bitsandbytes and then
unpacked once to bf16: the values are, bit for bit, those which its layer would unpack again in every forward and backward
pass. That is faster where memory is no concern, and it avoids a trap: on a CPU that layer repacks its weights at the first
forward without gradients, after which they can no longer be unpacked. Next: `sft.py`.
"""

import json
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy
import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from training.atomic import write_text
from training.attention import register
from training.config import QuantizationSection, SftSection
from training.errors import ModelError
from training.stacked import stack_projections
from training.tokenizer import load_tokenizer as load_tokenizer


def on_gpu() -> bool:
    """Whether this process trains on an accelerator."""
    return torch.cuda.is_available()


def settle(seed: int) -> None:
    """Seed every generator, use every core this process may use, and keep the libraries' bars and notices off the terminal."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def load_base(folder: Path, quantization: QuantizationSection | None, *, trust_remote_code: bool = False) -> Any:
    """The base model in bf16, or rounded to NF4, frozen, on the GPU when there is one.

    Raises:
        ModelError: the folder cannot be loaded.
    """
    options: dict[str, Any] = {"dtype": torch.bfloat16, "local_files_only": True, "trust_remote_code": trust_remote_code}
    if quantization:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.type,
            bnb_4bit_use_double_quant=quantization.double_quant,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if on_gpu():
        options["device_map"] = {"": torch.cuda.current_device()}
    else:
        options["attn_implementation"] = register()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the model in {folder} cannot be loaded: {error}", do="delete that folder; the next run makes it again"
        ) from error
    model.requires_grad_(False)
    if quantization and not on_gpu():
        unpack_nf4(model)
    return model


def unpack_nf4(model: Any) -> None:
    """Replace every 4-bit layer, in place, by a bf16 one with the same rounded values."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    for name, layer in layers.items():
        plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, dtype=torch.bfloat16, device="meta")
        plain.weight = torch.nn.Parameter(dequantised(layer), requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain)
    # Without these marks peft builds plain LoRA layers, and Trainer does not take the model for a quantised one.
    model.hf_quantizer, model.is_quantized, model.is_loaded_in_4bit = None, False, False
    del model.config.quantization_config


def dequantised(layer: Any) -> torch.Tensor:
    """The bf16 weights `(out, in)` which a 4-bit layer computes with."""
    weight = layer.weight
    values: torch.Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    return values.to(torch.bfloat16)


def dequantised_weights(model: Any) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Map a weight's name and bf16 value to the value the NF4 model computes with; call before any forward.

    What was not rounded (embeddings, norms, the head) keeps its own value.
    """
    layers = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}

    def weight(name: str, original: torch.Tensor) -> torch.Tensor:
        layer = layers.get(name)
        if layer is None:
            return original
        return dequantised(layer).cpu() if isinstance(layer, bitsandbytes.nn.Linear4bit) else layer.weight.detach().cpu()

    return weight


def new_adapter(model: Any, sft: SftSection) -> Any:
    """Wrap the base model in a fresh LoRA adapter, which changes nothing until it is trained.

    Raises:
        ModelError: no layer, or only some of the named kinds of layers, exist in this model.
    """
    kinds = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if missing := [name for name in sft.target_modules if name.rsplit(".", 1)[-1] not in kinds]:
        raise ModelError(
            f"`sft.target_modules`: the model has no layers called {', '.join(missing)}",
            do=f"choose from: {', '.join(sorted(kinds - {'lm_head'}))}",
        )
    config = peft.LoraConfig(
        r=sft.r,
        lora_alpha=sft.alpha,
        lora_dropout=sft.dropout,
        target_modules=list(sft.target_modules),
        bias="none",
        task_type=peft.TaskType.CAUSAL_LM,
    )
    return _for_this_machine(peft.get_peft_model(model, config))


def load_adapter(model: Any, folder: Path, *, trainable: bool) -> Any:
    """Wrap the base model in the adapter that lies in `folder`; one that is not trained is in bf16, as training computes with it."""
    adapted = peft.PeftModel.from_pretrained(model, folder, is_trainable=trainable, local_files_only=True)
    return _for_this_machine(adapted) if trainable else adapted.to(torch.bfloat16)


def _for_this_machine(adapted: Any) -> Any:
    """On a CPU the adapted layers compute together; on a GPU peft's own passes wait for nothing."""
    if not on_gpu():
        stack_projections(adapted)
    return adapted


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, the same bytes for the same adapter on every machine."""
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    # peft keeps the modules in a set, whose order changes with every process, and the folder this machine loaded from.
    settings |= {"target_modules": sorted(settings["target_modules"]), "base_model_name_or_path": base_name, "revision": None}
    write_text(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def trainable_parameters(model: Any) -> int:
    """How many numbers the optimizer moves."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def training_arguments(sft: SftSection, staging: Path) -> dict[str, Any]:
    """Arguments that TRL's SFTConfig and DPOConfig share; checkpoints are written to `staging`.

    Packing and padding-free batches are off: without FlashAttention they let rows see each other. Rows of like length
    share a batch instead, which costs a few percent of padding.
    """
    gpu = on_gpu()
    return {
        "output_dir": str(staging),
        "per_device_train_batch_size": sft.batch_size,
        "per_device_eval_batch_size": sft.batch_size,
        "gradient_accumulation_steps": sft.gradient_accumulation,
        "num_train_epochs": sft.epochs,
        "learning_rate": sft.learning_rate,
        "lr_scheduler_type": sft.scheduler,
        "warmup_steps": sft.warmup_ratio,
        "weight_decay": sft.weight_decay,
        "max_grad_norm": sft.max_grad_norm,
        "optim": optimizer_name(sft.optimizer, gpu=gpu),
        "bf16": True,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu,
        "seed": sft.seed,
        "data_seed": sft.seed,
        "logging_steps": 10 if gpu else 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": sft.checkpoint_every_steps,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
        "remove_unused_columns": False,
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
    }


def optimizer_name(choice: str, *, gpu: bool) -> str:
    """`auto` is paged 8-bit AdamW on a GPU (its state can leave the GPU's memory) and torch's AdamW on a CPU.

    There it is the fused form, the same formula in one pass per tensor: 17 instead of 45 ms per step of the demo.
    """
    if choice == "auto":
        return "paged_adamw_8bit" if gpu else "adamw_torch_fused"
    return choice
