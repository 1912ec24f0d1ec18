"""Reads the trainer's log: losses by step, and over-fitting, the trap of a training loss that falls while the held-out loss rises.

The log is a list of dicts that the trainer keeps in its checkpoints, so what is read here is the same after a resumed run. Pure.
Next: `stopping.py`, which stops in time; `curves.py`, which draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Log = Sequence[Mapping[str, Any]]
Series = list[tuple[int, float]]

HELD_OUT = "eval_loss"
HELD_OUT_ACCURACY = "eval_accuracy"  # of pairs, the share whose preferred answer is ahead
PASS_RATE = "rule_pass_rate"  # noqa: S105  # a share of answers, no password
TOKENS_PER_S, MEMORY = "tokens_per_s", "memory_bytes"
REWARD = "reward"  # of online learning's answers
PAIR_MARGIN, MARGIN = "rewards/margins", "margin"  # of preference tuning and of a reward model, as TRL names them

_RISE = 0.02  # of the lowest held-out loss; less may be chance


def series(log: Log, key: str) -> Series:
    """(step, value) of every entry that has the key, in order."""
    return [(int(entry["step"]), float(entry[key])) for entry in log if entry.get(key) is not None]


def newest(log: Log) -> dict[str, float]:
    """The newest value of each figure that is shown while a run goes on."""
    shown = {"loss": "loss", "held_out_loss": HELD_OUT, "learning_rate": "learning_rate", TOKENS_PER_S: TOKENS_PER_S, MEMORY: MEMORY}
    values = {name: next((entry[key] for entry in reversed(log) if entry.get(key) is not None), None) for name, key in shown.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def overfitting(log: Log) -> str | None:
    """A sentence when the held-out loss rose from its lowest value to the end of the run while the training loss went on falling."""
    held_out, training = series(log, HELD_OUT), series(log, "loss")
    if len(held_out) < 2:
        return None
    best = min(range(len(held_out)), key=lambda number: held_out[number][1])
    (best_step, lowest), (last_step, last) = held_out[best], held_out[-1]
    before = _mean(training, held_out[best - 1][0] if best else 0, best_step)
    after = _mean(training, held_out[-2][0], last_step)
    if last <= lowest * (1 + _RISE) or before is None or after is None or after >= before:
        return None
    return (
        f"over-fitting since step {best_step}: the held-out loss rose from {lowest:.3f} to {last:.3f} by step {last_step}, "
        f"while the training loss fell from {before:.3f} to {after:.3f}"
    )


def _mean(points: Series, after: int, until: int) -> float | None:
    """Mean of the values at the steps `after` < step <= `until`."""
    values = [value for step, value in points if after < step <= until]
    return sum(values) / len(values) if values else None
