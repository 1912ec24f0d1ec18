"""The ways to learn from preferences that a recipe may name: what each compares, its losses, and which keys it reads.

A table and nothing else, so that a plan costs no import of torch. Sources are the papers' own, named with each method.
Next: `preference_section.py`, which checks a recipe against this table; `preference_losses.py`, which computes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

Name = Literal["dpo", "kto", "orpo", "cpo", "simpo"]
LossName = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "kto", "apo_zero_unpaired",
]  # fmt: skip
Rows = Literal["pairs", "labelled"]
Default = float | str


@dataclass(frozen=True)
class Preference:
    """One way to learn from preferences.

    `keys` are those of the `preference` section which it reads beside the common ones, with their defaults; `losses` those it may
    be computed with, the usual one first, each with the keys it reads besides. A method without losses has a single one.
    """

    what: str
    rows: Rows
    keys: Mapping[str, Default]
    losses: Mapping[LossName, Mapping[str, Default]] = field(default_factory=dict)

    @property
    def has_reference(self) -> bool:
        """Whether a second set of probabilities is needed, which the model is held to."""
        return "reference" in self.keys


_DPO: Mapping[LossName, Mapping[str, Default]] = {
    "sigmoid": {},  # arXiv:2305.18290
    "sigmoid_norm": {},  # the same over mean log-probabilities, arXiv:2411.15124
    "hinge": {},  # SLiC, arXiv:2305.10425
    "ipo": {},  # arXiv:2310.12036
    "robust": {"label_smoothing": 0.1},  # arXiv:2403.00409
    "exo_pair": {"label_smoothing": 1e-3},  # arXiv:2402.00856
    "nca_pair": {},  # arXiv:2402.05369
    "bco_pair": {},  # arXiv:2404.04656
    "sppo_hard": {},  # arXiv:2405.00675
    "aot": {"label_smoothing": 0.0},  # arXiv:2406.05882
    "aot_unpaired": {"label_smoothing": 0.0},
    "apo_zero": {},  # arXiv:2408.06266
    "apo_down": {},
    "discopop": {},  # arXiv:2406.08414
}

PREFERENCES: Mapping[Name, Preference] = MappingProxyType(
    {
        "dpo": Preference(
            "the preferred answer gains on the other, against a reference (arXiv:2305.18290)",
            "pairs",
            {"beta": 0.1, "reference": "sft", "sft_weight": 0.0},
            _DPO,
        ),
        "kto": Preference(
            "single answers labelled wanted or not, against a reference (arXiv:2402.01306)",
            "labelled",
            {"beta": 0.1, "reference": "sft", "desirable_weight": 1.0, "undesirable_weight": 1.0},
            {"kto": {}, "apo_zero_unpaired": {}},
        ),
        "orpo": Preference(
            "fine-tuning on the preferred answer, and its odds against the other; no reference (arXiv:2403.07691)",
            "pairs",
            {"beta": 0.1, "sft_weight": 1.0},
        ),
        "cpo": Preference(
            "as DPO without a reference, and fine-tuning on the preferred answer (arXiv:2401.08417)",
            "pairs",
            {"beta": 0.1, "sft_weight": 1.0},
            {"sigmoid": {"label_smoothing": 0.0}, "hinge": {}, "ipo": {}},
        ),
        "simpo": Preference(
            "mean log-probabilities, apart by a margin; no reference (arXiv:2405.14734)",
            "pairs",
            {"beta": 2.0, "margin": 1.0, "sft_weight": 0.0},
        ),
    }
)
assert set(PREFERENCES) == set(get_args(Name))

# These losses look at all rows of a batch together: of a single row they would learn nothing, or something else.
NEED_A_BATCH: frozenset[str] = frozenset({"kto", "aot", "aot_unpaired"})
SPECIAL_KEYS: frozenset[str] = frozenset(key for method in PREFERENCES.values() for key in method.keys) | {"label_smoothing"}


def usual_loss(name: Name) -> LossName | None:
    """The loss that a method takes when the recipe names none."""
    return next(iter(PREFERENCES[name].losses), None)


def keys_of(name: Name, loss: LossName | None) -> Mapping[str, Default]:
    """The special keys that a method reads with this loss, and their defaults."""
    method = PREFERENCES[name]
    return {**method.keys, **(method.losses.get(loss, {}) if loss else {})}


def readers_of(key: str) -> list[str]:
    """The methods that read a key, with the loss where it depends on that."""
    found: list[str] = [name for name, method in PREFERENCES.items() if key in method.keys]
    return found + [
        f"{name} with loss {loss}" for name, method in PREFERENCES.items() for loss, keys in method.losses.items() if key in keys
    ]
