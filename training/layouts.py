"""How the blocks of each architecture are built: names of their linear layers, norms, and where a bias may be.

A table that holds for transformers' classes; a test builds a small model of each and counts. What is not in it can be trained, only not
planned. Knows no sizes and nothing of torch. Next: `shapes.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_GATED = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Layout:
    """One architecture's block.

    `biases` maps a switch of the config to the layers that it gives a bias; one whose name is empty is always on. `on` are the switches
    that are on where the config says nothing.
    """

    reading: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    feed_forward: tuple[str, ...] = _GATED
    norms: int = 2
    query_norms: Literal["none", "head", "all"] = "none"
    norm_bias: bool = False
    biases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    on: frozenset[str] = frozenset({""})
    tied: bool = False

    def biased(self, config: Mapping[str, Any]) -> frozenset[str]:
        """The linear layers which have a bias in a model of this config."""
        return frozenset(name for switch, names in self.biases if config.get(switch, switch in self.on) for name in names)


_SWITCHED = (("attention_bias", _ATTENTION), ("mlp_bias", _GATED))
_STARCODER = (*_ATTENTION, "c_fc", "c_proj")

LAYOUTS: Mapping[str, Layout] = {
    "llama": Layout(biases=_SWITCHED),
    "granite": Layout(biases=_SWITCHED),
    "mistral": Layout(),
    "mixtral": Layout(),
    "qwen2": Layout(biases=(("", _ATTENTION[:3]),)),
    "qwen2_moe": Layout(biases=(("qkv_bias", _ATTENTION[:3]),), on=frozenset({"qkv_bias"})),
    "qwen3": Layout(query_norms="head", biases=_SWITCHED[:1]),
    "qwen3_moe": Layout(query_norms="head", biases=_SWITCHED[:1]),
    "gemma2": Layout(norms=4, biases=_SWITCHED[:1], tied=True),
    "gemma3_text": Layout(norms=4, query_norms="head", biases=_SWITCHED[:1], tied=True),
    "olmo2": Layout(query_norms="all", biases=_SWITCHED[:1]),
    "phi3": Layout(reading=("qkv_proj",), feed_forward=("gate_up_proj", "down_proj")),
    "starcoder2": Layout(
        feed_forward=("c_fc", "c_proj"), norm_bias=True, biases=(("use_bias", _STARCODER),), on=frozenset({"use_bias"}), tied=True
    ),
}
