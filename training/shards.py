"""Shares out the frozen weights of a model's blocks among the processes that train together, by torch's FSDP2.

Each process keeps its part of every block, and has a whole block only while that block computes. What is trained is small beside them
and stays whole on each: its gradients are averaged as ever, so adapter and checkpoints are those of any other run. Embeddings and head
stay whole too, because losses read them outside a forward pass. accelerate's own FSDP takes no CPU, where it would train without a word
as if nothing had been asked. Knows nothing of recipes. Next: `builders.py`, which rounds weights so that they can be shared out.
"""

from itertools import chain
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from torch.distributed import get_world_size
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from training.errors import ModelError


def shard_blocks(adapted: Any) -> None:
    """Leave this process its part of every block's frozen weights, in place; all processes call it together, with the same weights."""
    base, gpu = adapted.get_base_model(), torch.cuda.is_available()
    mesh = init_device_mesh("cuda" if gpu else "cpu", (get_world_size(),))
    trained = {parameter for parameter in adapted.parameters() if parameter.requires_grad}
    for block in blocks_of(base):
        _keep_constants(block)
        fully_shard(block, mesh=mesh, ignored_params=trained)
    # The root has no part of its own; under one root, each block is fetched while the one before it computes.
    fully_shard(base.base_model, mesh=mesh, ignored_params={each for each in adapted.parameters() if not isinstance(each, DTensor)})
    if gpu:
        _bring_the_rest(adapted, base, torch.device("cuda", torch.cuda.current_device()))


def blocks_of(base: Any) -> list[Any]:
    """The blocks of a causal language model, by the names that transformers gives their classes.

    Raises:
        ModelError: it names none.
    """
    names = set(base._no_split_modules or ())
    blocks = [module for module in base.modules() if type(module).__name__ in names]
    if not blocks:
        raise ModelError(
            f"`devices.shard`: transformers does not say what the blocks of {type(base).__name__} are",
            why="weights are shared out block by block",
            do="remove the key: each process then holds the whole model",
        )
    return blocks


def is_sharded(model: Any) -> bool:
    """Whether weights of this model lie in parts on several processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


class SharedOut:
    """Lets a trainer average the gradients of what is trained beside shared-out weights; stands before the library's trainer.

    accelerate would do the same around any other model, and refuses on a GPU when a weight lies in parts.
    """

    accelerator: Any

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        if not training or isinstance(model, DistributedDataParallel) or not is_sharded(model):
            return super()._wrap_model(model, training, dataloader)  # type: ignore[misc]
        apart = [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, apart)  # type: ignore[no-untyped-call]
        in_bf16 = self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)  # what it averages, it averages here
        return DistributedDataParallel(in_bf16)


def _keep_constants(block: Any) -> None:
    """A rounded weight loses its constants when it is cut; bitsandbytes then takes those of its layer, which stay whole."""
    for layer in block.modules():
        if isinstance(layer, Linear4bit):
            layer.quant_state = layer.weight.quant_state


def _bring_the_rest(adapted: Any, base: Any, device: torch.device) -> None:
    """Shared-out blocks went to the GPU one by one; what stays whole follows."""
    for tensor in chain(adapted.parameters(), adapted.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)
    base.hf_device_map = {"": device.index}  # trainers ask it where the model lies
