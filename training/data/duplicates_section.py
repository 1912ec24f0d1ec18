"""What a recipe may say about duplicates; apart from the rest so that reading a recipe loads no numpy. Next: `duplicates.py`."""

from typing import Literal

from pydantic import Field

from training.sections import Section

Rule = Literal["first", "longest", "highest_weight"]
Scope = Literal["row", "question"]


class DuplicatesSection(Section):
    """Which rows count as the same, and which of them stays."""

    exact: bool = Field(default=True, description="drop rows whose text is the same but for spaces and Unicode encoding")
    near: bool = Field(default=True, description="drop rows whose text is nearly the same")
    near_threshold: float = Field(
        default=0.7, ge=0.5, le=1, description="share of common shingles (Jaccard, 0.5–1) from which rows are near duplicates"
    )
    keep: Rule = Field(
        default="first", description="which row of a group stays: the first read, the longest, or that of the heaviest source"
    )
    scope: Scope = Field(default="row", description="compare question and answer, or the question alone")
    permutations: int = Field(
        default=64, ge=16, le=512, description="length of a signature: 4 bytes each per row; more finds a little more"
    )

    @property
    def sought(self) -> tuple[Literal["exact", "near"], ...]:
        """What is looked for."""
        return (*(("exact",) if self.exact else ()), *(("near",) if self.near else ()))
