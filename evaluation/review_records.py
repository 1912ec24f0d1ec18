"""The records of a blind review: what reviewers are shown (`Review`), which side is which (`Key`), what they say, what came out.

A `Review` holds two texts per prompt and not whose they are. The `Key` lies elsewhere, readable by its owner alone; the review names
its sha256 from the first moment, so it cannot be exchanged later. Next: `review_draw.py`, which makes both.
"""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from evaluation.suite import Message
from training.records import Record

Choice = Literal["first", "second", "tie", "both_bad"]
Preference = Literal["candidate", "champion", "tie", "both_bad"]
PREFERENCES: tuple[Preference, ...] = ("candidate", "champion", "tie", "both_bad")
LONGEST_COMMENT = 2000


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pair(_Fact):
    """One prompt and two answers, in the order that the key knows the meaning of."""

    prompt_id: str
    topic: str
    messages: tuple[Message, ...] = Field(description="as both models were sent them, the system prompt included")
    first: str
    second: str


class Reviewer(_Fact):
    """A person with a link of their own; the token in it is kept as its hash."""

    name: str = Field(min_length=1, max_length=80)
    token_sha256: str


class Review(Record):
    """A sample of prompts with both models' answers, blinded; everything that the review page may know."""

    release: str = Field(description="the candidate")
    against: str = Field(description="the champion, or another release")
    candidate_digest: str = Field(description="of the candidate's scorecard")
    champion_digest: str = Field(description="of the other scorecard")
    key_sha256: str = Field(description="of the sealed key's file, byte for byte")
    pairs: tuple[Pair, ...]
    reviewers: tuple[Reviewer, ...]
    prompts: int = Field(description="prompts that both models answered, from which the sample was drawn")
    identical: int = Field(description="of these, those with the same answer twice: nobody is asked about them")


class Key(_Fact):
    """Which of the two texts of a pair is the candidate's, pair by pair. `nonce` keeps its hash from being guessed."""

    nonce: str
    candidate_first: tuple[bool, ...]

    def sealed(self) -> str:
        """The key as its file holds it."""
        return self.model_dump_json() + "\n"


def seal_of(text: str) -> str:
    """Hex sha256 of a sealed key's text, or of a reviewer's token."""
    return hashlib.sha256(text.encode()).hexdigest()


class Vote(_Fact):
    """What one reviewer said of one pair, by the order of the review, not that of the screen. The last of several counts."""

    reviewer: str
    pair: int = Field(ge=0, description="position in the review")
    choice: Choice
    comment: str = Field(default="", max_length=LONGEST_COMMENT)
    at: str = Field(description="UTC, ISO 8601")


class OpenedVote(_Fact):
    """A vote that counted, with what it meant."""

    reviewer: str
    prompt_id: str
    topic: str
    preference: Preference
    comment: str
    at: str


class ReviewResult(Record):
    """A closed review: the key has been opened, and this is what the votes say."""

    review_digest: str
    candidate_digest: str = Field(description="of the candidate's scorecard")
    champion_digest: str = Field(description="of the other scorecard")
    key_sha256: str
    votes_sha256: str = Field(description="of the file of votes, byte for byte, as it was when the review was closed")
    closed_by: str
    reviewers: tuple[str, ...] = Field(description="whose votes count")
    left_out: tuple[str, ...] = Field(default=(), description="reviewers who did not finish and were left out before the key was opened")
    wins: int = Field(ge=0, description="prompts on which most reviewers preferred the candidate")
    losses: int = Field(ge=0, description="prompts on which most reviewers preferred the champion")
    ties: int = Field(ge=0, description="prompts without a majority either way, both answers bad included")
    agreement: float | None = Field(description="share of pairs of votes on the same prompt that say the same; None for one reviewer")
    kappa: float | None = Field(description="Cohen's kappa of two reviewers, Fleiss' of more; None where chance alone explains everything")
    left_share: float = Field(ge=0, le=1, description="of the votes for one side, those for the answer that was shown first")
    votes: tuple[OpenedVote, ...]

    @property
    def prompts(self) -> int:
        """How many prompts were judged."""
        return self.wins + self.losses + self.ties
