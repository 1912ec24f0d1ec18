"""The tuning methods a recipe may name: what each one trains, which keys it reads, and what can become of the outcome.

A table and nothing else, so that a plan costs no import of torch. Sources are the papers' own, named with each method.
Next: `config.py`, which checks a recipe against this table; `adapters.py`, which builds what it describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

Name = Literal[
    "qlora", "lora", "rslora", "dora", "lora_plus", "adalora", "ia3", "bottleneck", "prompt_tuning", "p_tuning", "prefix_tuning",
    "full", "freeze", "bitfit", "galore", "apollo",
]  # fmt: skip
Family = Literal["lora", "ia3", "bottleneck", "prompt", "weights"]


@dataclass(frozen=True)
class Method:
    """One way to tune a model.

    `keys` are those of the `sft` section which it reads beyond the common ones; `rates` is the range of learning rates in which it is
    known to work. `mergeable` says whether the outcome is again a set of weights of the same shapes, which alone can be served here.
    """

    family: Family
    what: str
    keys: frozenset[str]
    rates: tuple[float, float]
    quantizable: bool
    mergeable: bool = True


_LORA = frozenset({"r", "alpha", "dropout", "target_modules", "also_train", "experts"})
_PLACED = frozenset({"target_modules"})
_PROMPT = frozenset({"virtual_tokens"})

METHODS: Mapping[Name, Method] = MappingProxyType(
    {
        "qlora": Method("lora", "LoRA over quantised base weights (arXiv:2305.14314)", _LORA, (1e-5, 3e-3), True),
        "lora": Method("lora", "low-rank updates of linear layers (arXiv:2106.09685)", _LORA, (1e-5, 3e-3), False),
        "rslora": Method("lora", "LoRA scaled by alpha / sqrt(r), for high ranks (arXiv:2312.03732)", _LORA, (5e-6, 2e-3), True),
        "dora": Method("lora", "LoRA of the direction, and the length of each row apart (arXiv:2402.09353)", _LORA, (1e-5, 2e-3), True),
        "lora_plus": Method(
            "lora", "LoRA whose B learns faster than its A (arXiv:2402.12354)", _LORA | {"lora_plus_ratio"}, (5e-6, 1e-3), True
        ),
        "adalora": Method(
            "lora", "ranks that move to the layers which need them (arXiv:2303.10512)", _LORA - {"experts"}, (1e-4, 2e-2), True
        ),
        "ia3": Method("ia3", "one factor for each key, value and inner activation (arXiv:2205.05638)", _PLACED, (1e-4, 5e-2), True),
        "bottleneck": Method(
            "bottleneck", "a small network behind each block (arXiv:1902.00751)", frozenset({"r", "dropout"}), (1e-5, 5e-3), True, False
        ),
        "prompt_tuning": Method("prompt", "trained vectors before the prompt (arXiv:2104.08691)", _PROMPT, (1e-4, 1.0), True, False),
        "p_tuning": Method(
            "prompt", "the same, made by a small network (arXiv:2103.10385)", _PROMPT | {"encoder_hidden"}, (1e-5, 5e-2), True, False
        ),
        "prefix_tuning": Method(
            "prompt", "trained keys and values before the prompt in every layer (arXiv:2101.00190)", _PROMPT, (1e-5, 5e-2), True, False
        ),
        "full": Method("weights", "every weight", frozenset(), (1e-7, 2e-4), False),
        "freeze": Method("weights", "every weight of the last blocks", frozenset({"last_layers"}), (1e-7, 3e-4), False),
        "bitfit": Method("weights", "biases only (arXiv:2106.10199)", frozenset(), (1e-5, 1e-2), False),
        "galore": Method(
            "weights", "every weight, its gradient projected to a low rank (arXiv:2403.03507)", frozenset({"r", "target_modules",
            "projection_gap_steps"}), (1e-6, 2e-2), False
        ),
        "apollo": Method(
            "weights", "every weight, its step scaled from a low-rank projection (arXiv:2412.05270)", frozenset({"r", "target_modules",
            "projection_gap_steps"}), (1e-6, 2e-2), False
        ),
    }
)  # fmt: skip
assert set(METHODS) == set(get_args(Name))

SPECIAL_KEYS = frozenset().union(*(method.keys for method in METHODS.values()))


def unread_keys(name: Name, given: frozenset[str]) -> list[str]:
    """Those of the given keys which this method does not read, sorted."""
    return sorted((given & SPECIAL_KEYS) - METHODS[name].keys)


def readers_of(key: str) -> list[str]:
    """The methods that read a key."""
    return sorted(name for name, method in METHODS.items() if key in method.keys)
