"""The one place where base model and training arguments are built, for every trainer and the merge.

On a GPU the base weights stay in bitsandbytes' 4-bit layout. On a CPU they are rounded to NF4 by bitsandbytes and then
unpacked once to bf16: the values are, bit for bit, those which its layer would unpack again in every forward and backward
pass. That is faster where memory is no concern, and it avoids a trap: on a CPU that layer repacks its weights at the first
forward without gradients, after which they can no longer be unpacked. Next: `adapters.py`.
"""

import logging
import os
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from training.attention import register
from training.config import QuantizationSection, SftSection
from training.devices import ranks_here
from training.errors import ModelError
from training.tokenizer import load_tokenizer as load_tokenizer

_ROUNDED = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
_PROJECTED = {"galore": "galore_adamw", "apollo": "apollo_adamw"}


def on_gpu() -> bool:
    """Whether this process trains on an accelerator."""
    return torch.cuda.is_available()


def settle(seed: int) -> None:
    """Seed every generator, use this process's share of the cores, and keep the libraries' bars and notices off the terminal."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks_here().local_world))
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def load_base(
    folder: Path,
    quantization: QuantizationSection | None,
    *,
    trust_remote_code: bool = False,
    config_changes: Mapping[str, Any] | None = None,
    shard: bool = False,
) -> Any:
    """The base model in bf16, or rounded to 4 or 8 bits, frozen, on the GPU when there is one.

    One that several processes will `shard` out waits beside the GPU, which need not hold it whole. `config_changes` replaces values of
    its config.json: a recipe's longer context.

    Raises:
        ModelError: the folder cannot be loaded.
    """
    options: dict[str, Any] = {"dtype": torch.bfloat16, "local_files_only": True, "trust_remote_code": trust_remote_code}
    if quantization:
        options["quantization_config"] = rounding(quantization, shard=shard)
    if on_gpu():
        options["device_map"] = {"": "cpu" if shard else torch.cuda.current_device()}
    else:
        options["attn_implementation"] = register()
    try:
        if config_changes:
            options["config"] = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
            options["config"].update(dict(config_changes))
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the model in {folder} cannot be loaded: {error}", do="delete that folder; the next run makes it again"
        ) from error
    model.requires_grad_(False)
    if quantization and not on_gpu():
        unpack(model)
    return model


def rounding(quantization: QuantizationSection, *, shard: bool = False) -> BitsAndBytesConfig:
    """How bitsandbytes rounds weights; those to be shared out are kept in numbers of the type that the model computes in.

    Parts of weights in bytes, its usual way, are no parameters to FSDP.
    """
    if quantization.type == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16 if shard else torch.uint8,
    )


def unpack(model: Any) -> None:
    """Replace every rounded layer, in place, by a bf16 one with the same rounded values.

    For 8 bits this leaves out what bitsandbytes does on a GPU besides: it rounds the inputs too.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _ROUNDED)}
    for name, layer in layers.items():
        plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, dtype=torch.bfloat16, device="meta")
        plain.weight = torch.nn.Parameter(dequantised(layer), requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain)
    # Without these marks peft builds plain LoRA layers, and Trainer does not take the model for a quantised one.
    model.hf_quantizer, model.is_quantized, model.is_loaded_in_4bit, model.is_loaded_in_8bit = None, False, False, False
    del model.config.quantization_config


def dequantised(layer: Any) -> torch.Tensor:
    """The bf16 weights `(out, in)` which a rounded layer computes with."""
    weight = layer.weight
    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        values: torch.Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        return values.to(torch.bfloat16)
    rounded: torch.Tensor = bitsandbytes.functional.int8_vectorwise_dequant(weight.data, weight.SCB)
    return rounded.to(torch.bfloat16)


def dequantised_weights(model: Any) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Map a weight's name and bf16 value to the value the rounded model computes with; call before any forward.

    What was not rounded (embeddings, norms, the head) keeps its own value.
    """
    layers = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}

    def weight(name: str, original: torch.Tensor) -> torch.Tensor:
        layer = layers.get(name)
        if layer is None:
            return original
        return dequantised(layer).cpu() if isinstance(layer, _ROUNDED) else layer.weight.detach().cpu()

    return weight


def training_arguments(sft: SftSection, staging: Path) -> dict[str, Any]:
    """Arguments that TRL's SFTConfig and DPOConfig share; checkpoints are written to `staging`.

    TRL's packing is off: it fills sequences up to one length, and a step would then hold other rows. Rows of like length share a pass
    (`step_batches.py`), and where the attention is ours they stand in it without padding (`flat_rows.py`).
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
        **_optimizer(sft, gpu=gpu),
        "neftune_noise_alpha": sft.neftune_alpha or None,
        "bf16": True,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu,
        "seed": sft.seed,
        "data_seed": sft.seed,
        "logging_steps": 1,  # a loss that is not a number is seen at its own step
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": sft.checkpoint_every_steps,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
    }


def _optimizer(sft: SftSection, *, gpu: bool) -> dict[str, Any]:
    if sft.method not in _PROJECTED:
        return {"optim": optimizer_name(sft.optimizer, gpu=gpu)}
    _let_checkpoints_hold_projectors()
    settings = {"rank": sft.r, "update_proj_gap": sft.projection_gap_steps}
    return {
        "optim": _PROJECTED[sft.method],
        "optim_target_modules": [rf".*\.{re.escape(name)}" for name in sft.target_modules],
        "optim_args": ", ".join(f"{key}={value}" for key, value in settings.items()),
    }


def _let_checkpoints_hold_projectors() -> None:
    """Both optimizers keep plain objects of these two classes in their state, which torch refuses to load unless they are named."""
    from apollo_torch.random_projector import GradientProjector
    from galore_torch.galore_projector import GaLoreProjector

    torch.serialization.add_safe_globals([GaLoreProjector, GradientProjector])


def optimizer_name(choice: str, *, gpu: bool) -> str:
    """`auto` is paged 8-bit AdamW on a GPU (its state can leave the GPU's memory) and torch's AdamW on a CPU.

    There it is the fused form, the same formula in one pass per tensor: 17 instead of 45 ms per step of the demo.
    """
    if choice == "auto":
        return "paged_adamw_8bit" if gpu else "adamw_torch_fused"
    return choice
