"""What a rule looks at, and what it found: the answer with the conversation around it, and spans of the original answer.

Knows nothing of kinds of rules. Next: `expectations.py`.
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from evaluation.negation import Parsed, parse

Role = Literal["meant", "denied", "forbidden"]


class Span(BaseModel):
    """Characters [start, end) of the original answer.

    `role`: meant (asked for, and said), denied (asked for, but it does not count), forbidden (must not be said).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(ge=0, description="first character of the answer, from 0")
    end: int = Field(ge=0, description="behind the last character")
    text: str = Field(description="these characters")
    phrase: str = Field(description="as the rule writes it, or the kind of what was found")
    role: Role = Field(description="asked for and said; said, but not so that it counts; must not be said")


@dataclass(frozen=True)
class Case:
    """One answer and what it answers: the system prompt, what the user said (all turns, oldest first) and a reference, if any."""

    answer: str
    said: tuple[str, ...] = ()
    system: str = ""
    reference: str = ""

    @cached_property
    def parsed(self) -> Parsed:
        """The answer, folded and cut up."""
        return parse_cached(self.answer)

    @property
    def given(self) -> tuple[str, ...]:
        """Every text that the answer may repeat."""
        return tuple(text for text in (*self.said, self.system, self.reference) if text)


@dataclass
class Judgement:
    """Reasons why an expectation is not met (none: it is), and the evidence for either."""

    reasons: list[str] = field(default_factory=list)
    evidence: list[Span] = field(default_factory=list)

    def forbid(self, case: Case, start: int, end: int, kind: str, reason: str) -> None:
        """Hold characters [start, end) of the answer against it."""
        self.evidence.append(Span(start=start, end=end, text=case.answer[start:end], phrase=kind, role="forbidden"))
        self.reasons.append(reason)

    def add(self, other: "Judgement") -> None:
        """Take in what another expectation found."""
        self.reasons += other.reasons
        self.evidence += other.evidence


@lru_cache(maxsize=1024)
def parse_cached(text: str) -> Parsed:
    """`parse`, once per text."""
    return parse(text)


def folded_span(parsed: Parsed, start: int, end: int, phrase: str, role: Role) -> Span:
    """A span of folded text as a span of the original."""
    first, last = parsed.folded.source_span(start, end)
    return Span(start=first, end=last, text=parsed.folded.source[first:last], phrase=phrase, role=role)
