"""What is said of one sampled answer: which rules it broke, and how far live traffic has drifted from the suite.

Only closed sets and numbers: nothing that a caller wrote can pass through here into a metric. Next: `live_check.py`, which finds out.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

# The severities of evaluation.rules, which a test compares: importing them from there would cost the server a second and 8 MB.
Severity = Literal["critical", "major", "minor"]
Measure = Literal["prompt_length", "prompt_language", "prompt_topic", "answer_length", "answer_language"]
Unchecked = Literal["busy", "no_reference", "no_text", "too_long", "rule_failed"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
UNCHECKED: tuple[Unchecked, ...] = get_args(Unchecked)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sample(_Fact):
    """A live answer, and the conversation before it as (role, content)."""

    release: str
    turns: tuple[tuple[str, str], ...]
    answer: str


class DriftIndex(_Fact):
    """A population stability index, and what it stays below by chance alone."""

    index: float = Field(allow_inf_nan=False)
    chance: float = Field(allow_inf_nan=False)


class Checked(_Fact):
    """An answer was looked at. `window` is the number of answers behind `drift`."""

    release: str
    broken: Mapping[Severity, int]
    window: int
    drift: Mapping[Measure, DriftIndex]


class NotChecked(_Fact):
    """An answer could not be looked at."""

    release: str
    reason: Unchecked
