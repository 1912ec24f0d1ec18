"""The recipe's `data` section: where rows come from and what happens to them on the way. Next: `refine.py`, which does it."""

from typing import Literal

from pydantic import Field

from training.data.balance import BalanceSection
from training.data.cleaning import CleaningSection
from training.data.drift import DriftSection
from training.data.duplicates_section import DuplicatesSection
from training.data.glossary import GlossarySection
from training.data.languages import LanguageSection
from training.data.leakage_section import LeakageSection
from training.data.privacy import PrivacySection
from training.data.sources import SourceSection
from training.sections import Section


class DataSection(Section):
    """Which rows the model learns from, and what is done to them first."""

    sft: tuple[SourceSection, ...] = Field(min_length=1, description="sources of rows for supervised fine-tuning")
    preferences: tuple[SourceSection, ...] = Field(default=(), description="sources of preference pairs; empty skips that stage")
    system_prompt: str | None = Field(default=None, description="put first in every row that brings no system turn")
    validation_fraction: float = Field(default=0.08, gt=0, le=0.5, description="share of rows (0–0.5) held back, by hash of the question")
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
