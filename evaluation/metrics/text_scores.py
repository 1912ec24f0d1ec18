"""Everything that the text of one answer gives without a server: how like its reference it is, and what it is by itself.

Kept per answer, as sufficient statistics where a corpus number is no mean, so that any set of answers has its exact number.
Next: `../aggregates.py`, which makes the numbers of a scorecard.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from evaluation.metrics.bleu import bleu_stats
from evaluation.metrics.chrf import chrf_stats
from evaluation.metrics.overlap import overlap
from evaluation.metrics.repetition import distinct, ends_in_loop, repeated_share
from evaluation.metrics.rouge import rouge
from evaluation.metrics.words import units_of

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TextScores(BaseModel):
    """What one answer's text gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bleu_stats: tuple[int, ...] = Field(description="sufficient statistics of corpus BLEU-4, see bleu.BLEU_COLUMNS")
    chrf_stats: tuple[int, ...] = Field(description="sufficient statistics of corpus chrF2, see chrf.CHRF_COLUMNS")
    rouge_1: Share = Field(description="F1 of words shared with the reference")
    rouge_2: Share = Field(description="F1 of word pairs shared with the reference")
    rouge_l: Share = Field(description="F1 of the longest common subsequence with the reference")
    exact_match: bool = Field(description="the reference but for case, width, punctuation and blanks")
    token_f1: Share = Field(description="F1 of the words, as SQuAD counts them")
    units: int = Field(ge=0, description="words, a Chinese character being one")
    distinct_1: Share = Field(description="share of its words that differ")
    distinct_2: Share = Field(description="share of its word pairs that differ")
    repeated_share: Share = Field(description="share of its 4-grams that were there before")
    loops: bool = Field(description="the end repeats itself three times or more")


def score_text(answer: str, reference: str, language: str) -> TextScores:
    """Score one answer; `language` decides how BLEU, ROUGE and token F1 cut words."""
    units = units_of(answer)
    rouge_1, rouge_2, rouge_l = rouge(answer, reference, language)
    exact, token_f1 = overlap(answer, reference, language)
    return TextScores(
        bleu_stats=bleu_stats(answer, reference, language),
        chrf_stats=chrf_stats(answer, reference),
        rouge_1=rouge_1,
        rouge_2=rouge_2,
        rouge_l=rouge_l,
        exact_match=exact,
        token_f1=token_f1,
        units=len(units),
        distinct_1=distinct(units, 1),
        distinct_2=distinct(units, 2),
        repeated_share=repeated_share(units),
        loops=ends_in_loop(units),
    )
