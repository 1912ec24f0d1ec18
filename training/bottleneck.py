"""Bottleneck adapters: behind every block a small network that is added to what the block gives.

Down to a few numbers, a nonlinearity, up again (Houlsby et al., arXiv:1902.00751; one per block as in Pfeiffer et al.,
arXiv:2005.00247). The nonlinearity is why it can never be folded into the weights. peft has no such adapter.
Knows nothing of trainers. Next: `adapters.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = "bottleneck.safetensors"
_NAME = "bottleneck"


class Bottleneck(nn.Module):
    """x -> x + up(gelu(down(x))) for x `(batch, seq, width)`; at first it changes nothing, because `up` is zero."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.down.weight, std=width**-0.5)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.gelu(nn.functional.linear(self.dropout(x).to(self.down.weight.dtype), self.down.weight, self.down.bias))
        added: Tensor = nn.functional.linear(inner, self.up.weight, self.up.bias)
        return x + added.to(x.dtype)


def add_bottlenecks(model: Any, inner: int, dropout: float) -> None:
    """Put a fresh adapter behind every block of a frozen model, in place."""
    for block in model.model.layers:
        adapter = Bottleneck(model.config.hidden_size, inner, dropout).to(model.device)
        block.add_module(_NAME, adapter)
        block.register_forward_hook(_through)


def _through(block: Any, inputs: Any, output: Any) -> Any:
    adapter = getattr(block, _NAME)
    return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)


def parts(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """The adapters' parameters by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if f".{_NAME}." in name)


def save_bottlenecks(model: Any, folder: Path) -> None:
    """Write the adapters alone."""
    save_file({name: parameter.detach().cpu().contiguous() for name, parameter in parts(model)}, folder / WEIGHTS)


def load_bottlenecks(model: Any, folder: Path) -> None:
    """Put the saved adapters behind the blocks."""
    saved = load_file(folder / WEIGHTS)
    inner = next(tensor.shape[0] for name, tensor in saved.items() if name.endswith("down.weight"))
    add_bottlenecks(model, inner, 0.0)
    with torch.no_grad():
        for name, parameter in parts(model):
            parameter.copy_(saved[name])
