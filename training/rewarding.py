"""What online learning is told about answers: a function from answers to numbers. Knows nothing of where the numbers come from.

Costs no import of torch, so that rules, which know nothing of torch either, can be handed in. Next: `online.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """One answer to one prompt, as text and as the token ids of both."""

    prompt_id: str
    text: str
    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]


@dataclass(frozen=True)
class Rewarding:
    """What answers are worth: a number each, None where it cannot be told; and the digest of all that the numbers depend on."""

    rewards: Callable[[Sequence[Answered]], Sequence[float | None]]
    digest: str
