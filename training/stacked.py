"""LoRA on a CPU in as few passes over memory as its mathematics allows.

peft's layer is built for every device and variant: it casts its input to fp32 and back, scales and adds in passes of their own,
and lets autograd keep the parts. Here the projections that read the same input (query, key, value; gate, up) are one matrix
product over their stacked frozen weights, the adapters' small products are added in place, and the gradients are written
out. The parameters stay peft's: they are trained, saved and loaded as ever.
Source: y = xWᵀ + s(xAᵀ)Bᵀ gives dx = gW + s(gB)A, dA = s(gB)ᵀx, dB = s gᵀ(xAᵀ). Knows nothing of trainers. Next: `answer_loss.py`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_ADAPTER = "default"


def stack_projections(model: Any) -> int:
    """Let the plain LoRA layers of a model compute together, in place; returns how many layers now do.

    Layers with dropout, a bias, a LoRA variant or another dtype than their neighbours keep peft's own forward pass.
    """
    layers = 0
    for group in list(_groups(model)):
        _stack(group)
        layers += len(group)
    return layers


def _groups(model: Any) -> Iterator[list[Linear]]:
    for block in model.modules():
        plain = {name: layer for name, layer in block.named_children() if isinstance(layer, Linear) and _is_plain(layer)}
        for names in _SAME_INPUT:
            if all(name in plain for name in names) and len({plain[name].base_layer.weight.dtype for name in names}) == 1:
                yield [plain.pop(name) for name in names]
        yield from ([layer] for layer in plain.values())


def _is_plain(layer: Linear) -> bool:
    return (
        set(layer.lora_A) == {_ADAPTER}
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[_ADAPTER], torch.nn.Identity)
        and layer.base_layer.bias is None
        and type(layer.base_layer) is torch.nn.Linear
        and layer.lora_A[_ADAPTER].bias is None
        and layer.lora_B[_ADAPTER].bias is None
    )


def _stack(group: list[Linear]) -> None:
    weight = group[0].base_layer.weight.data if len(group) == 1 else torch.cat([layer.base_layer.weight.data for layer in group])
    for layer, rows in zip(group, torch.split(weight, [layer.base_layer.out_features for layer in group]), strict=True):
        layer.base_layer.weight.data = rows  # a view: the stacked copy is the only one
    waiting: list[tuple[Tensor, Tensor]] = []  # the input, and what the next layers of the group give for it
    for place, layer in enumerate(group):
        layer.forward = _forward(group, place, weight, waiting, layer.forward)


def _forward(
    group: list[Linear], place: int, weight: Tensor, waiting: list[tuple[Tensor, Tensor]], usual: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """The forward pass of one layer: the first of a group computes for all, the others hand out what is waiting."""
    scales = tuple(float(layer.scaling[_ADAPTER]) for layer in group)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = group[place]
        if layer.disable_adapters or layer.merged or list(layer.active_adapters) != [_ADAPTER]:
            return usual(x, *args, **kwargs)
        if place == 0:
            adapters = [matrix[_ADAPTER].weight for each in group for matrix in (each.lora_A, each.lora_B)]
            answers: tuple[Tensor, ...] = StackedProjections.apply(x, weight, scales, *adapters)  # type: ignore[no-untyped-call]
            waiting[:] = [(x, other) for other in answers[1:]]
            return answers[0]
        for_input, answer = waiting.pop(0)
        if for_input is not x:
            raise RuntimeError("projections that were stacked did not read the same input in their order")
        return answer

    return forward


class StackedProjections(torch.autograd.Function):
    """Adapted projections of one input: `weight (sum of out, in)` frozen, then A `(r, in)` and B `(out, r)` of each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: tuple[float, ...], *adapters: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)
            down = torch.cat([a.to(weight.dtype) for a in adapters[::2]])
            up = [(b * scale).to(weight.dtype) for b, scale in zip(adapters[1::2], scales, strict=True)]
            inner = flat @ down.T
            out = flat @ weight.T
            start = 0
            for part, b in zip(torch.split(inner, [b.shape[1] for b in up], dim=1), up, strict=True):
                out[:, start : start + len(b)].addmm_(part, b.T)
                start += len(b)
        ctx.save_for_backward(flat, weight, inner, down, *up)
        ctx.scales, ctx.shape, ctx.dtype = scales, x.shape, x.dtype
        return tuple(part.reshape(*x.shape[:-1], -1) for part in torch.split(out, [len(b) for b in up], dim=1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        flat, weight, inner, down, *up = ctx.saved_tensors
        ranks = [b.shape[1] for b in up]
        parts = [grad.reshape(len(flat), -1).to(weight.dtype) for grad in grads]
        whole = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        inner_grad = torch.cat([part @ b for part, b in zip(parts, up, strict=True)], 1)
        a_grads = torch.split((inner_grad.T @ flat).float(), ranks)
        b_grads = [
            (part.T @ seen).float() * scale for part, seen, scale in zip(parts, torch.split(inner, ranks, dim=1), ctx.scales, strict=True)
        ]
        x_grad = (whole @ weight).addmm_(inner_grad, down).reshape(ctx.shape).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return x_grad, None, None, *(grad for pair in zip(a_grads, b_grads, strict=True) for grad in pair)
