"""What a recipe may say about leakage; apart from the rest so that reading a recipe loads no numpy. Next: `leakage.py`."""

from typing import Literal

from pydantic import Field

from training.sections import Section


class LeakageSection(Section):
    """What happens to a training row that overlaps an evaluation suite, and what counts as overlapping."""

    action: Literal["remove", "report", "refuse"] = Field(
        default="remove", description="take such rows out of the training data, only report them, or stop the run"
    )
    ngram: int = Field(
        default=13,
        ge=5,
        le=50,
        description="words in a run that counts as copied (times 1.5 in characters, for Chinese); fewer for short prompts",
    )
    containment: float = Field(
        default=0.7, ge=0.3, le=1, description="share (0.3–1) of a prompt or reference that must stand in the row in such runs"
    )
    near_threshold: float = Field(default=0.65, ge=0.4, le=1, description="similarity (0.4–1) from which a question is nearly the prompt")
