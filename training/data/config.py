"""The recipe's `data` section: where rows come from and what happens to them on the way. Next: `refine.py`, which does it."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from training.data.balance import BalanceSection, folds, side
from training.data.cleaning import CleaningSection
from training.data.drift import DriftSection
from training.data.duplicates_section import DuplicatesSection
from training.data.glossary import GlossarySection
from training.data.languages import LanguageSection
from training.data.leakage_section import LeakageSection
from training.data.privacy import PrivacySection
from training.data.profile import PrivacyMode
from training.data.sources import SourceSection
from training.sections import Section


class DataSection(Section):
    """Which rows the model learns from, and what is done to them first."""

    sft: tuple[SourceSection, ...] = Field(min_length=1, description="sources of rows for supervised fine-tuning")
    preferences: tuple[SourceSection, ...] = Field(default=(), description="sources of preference pairs; empty skips that stage")
    collected: bool = Field(
        default=False, description="also train on the rows from production that somebody has accepted (`tunegate collect review`)"
    )
    system_prompt: str | None = Field(default=None, description="put first in every row that brings no system turn")
    validation_fraction: float = Field(default=0.08, gt=0, le=0.5, description="share of rows (0–0.5) held back, by hash of the question")
    folds: int | None = Field(
        default=None,
        ge=2,
        le=20,
        description="for small data, instead of `validation_fraction`: the rows in so many parts, by hash of the question",
    )
    fold: int = Field(default=0, ge=0, le=19, description="with `folds`: the part that is held back, from 0; the others are trained on")
    min_tokens: int = Field(default=1, ge=1, le=131_072, description="tokens per row; shorter rows are dropped by name")
    bad_rows: Literal["refuse", "drop"] = Field(
        default="refuse", description="a malformed row stops the run (refuse), or goes to rejected.jsonl and is counted (drop)"
    )
    cleaning: CleaningSection = Field(default_factory=CleaningSection, description="repairs of every text")
    languages: LanguageSection = Field(default_factory=LanguageSection, description="which languages rows may be in")
    glossary: GlossarySection | None = Field(default=None, description="how terms are written; left out, as they are")
    privacy: PrivacySection = Field(
        default_factory=lambda: PrivacySection(mode="count"), description="personal data; left out, it is counted and not touched"
    )
    duplicates: DuplicatesSection = Field(default_factory=DuplicatesSection, description="rows that say the same")
    leakage: LeakageSection = Field(default_factory=LeakageSection, description="rows that overlap the recipe's evaluation suites")
    balance: BalanceSection = Field(default_factory=BalanceSection, description="how much of each source and topic is used")
    drift: DriftSection = Field(default_factory=DriftSection, description="comparison with the data of the model in production")
    workers: int = Field(default=0, ge=0, le=256, description="processes that prepare rows; 0 takes every core, the result is the same")

    @model_validator(mode="after")
    def _split_is_one_of_two(self) -> Self:
        faults = []
        # A default that was dumped to JSON comes back as a given value: only values that differ from it were meant.
        given = {key for key in ("fold", "validation_fraction") if getattr(self, key) != type(self).model_fields[key].default}
        if self.folds is None and "fold" in given:
            faults.append("`fold` says which part is held back, and needs `folds`: the number of parts")
        if self.folds is not None and self.fold >= self.folds:
            faults.append(f"`fold` counts from 0: with `folds: {self.folds}` the last one is {self.folds - 1}, not {self.fold}")
        if self.folds is not None and "validation_fraction" in given:
            faults.append("`folds` and `validation_fraction` both say which rows are held back: leave one of them out")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def privacy_mode(self) -> PrivacyMode:
        """What is done with personal data, or that it is not looked for."""
        return self.privacy.mode if self.privacy.enabled else "off"

    @property
    def held_back_share(self) -> float:
        """Of the rows, about so many are held back for validation (0–1)."""
        return 1 / self.folds if self.folds else self.validation_fraction

    @property
    def split(self) -> str:
        """How the rows that are held back are chosen, in words."""
        return f"fold {self.fold} of folds 0 to {self.folds - 1}" if self.folds else f"{self.validation_fraction:.3g} of the rows"

    def held_back(self, question_keys: Sequence[str]) -> list[bool]:
        """For each row, from the hash of its question, whether it is held back for validation.

        Raises:
            DataError: a fold would be empty.
        """
        if self.folds is None:
            return [side(key, self.validation_fraction) == "validation" for key in question_keys]
        return [fold == self.fold for fold in folds(question_keys, self.folds)]
