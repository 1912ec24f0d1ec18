"""What the report shows of every prompt: both answers, the rules they break, and what changed from one model to the other.

Evidence is highlighted by cutting an answer into pieces, never by building markup from it. Pure. Next: `report.py`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.records import AnswerRecord, Scorecard
from evaluation.rules import SEVERITIES, RuleResult, Severity
from evaluation.suite import Message

Change = Literal["broken", "still", "fixed", "changed", "same", "kept"]

CHANGES: dict[Change, str] = {
    "broken": "newly broken",
    "still": "still broken",
    "fixed": "fixed",
    "changed": "other words",
    "same": "same words",
    "kept": "keeps its rules",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an answer; `mark` is "" or the role of the evidence in it."""

    text: str
    mark: str


@dataclass(frozen=True, slots=True)
class Side:
    """One model's answer to a prompt, ready to print."""

    subject: str
    pieces: tuple[Piece, ...]
    broken: tuple[RuleResult, ...]
    judged: bool
    cut_off: bool


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One prompt with the answers of both models. `severity` is the worst rule that either of them breaks."""

    prompt_id: str
    topic: str
    messages: tuple[Message, ...]
    reference: str
    change: Change
    severity: Severity | None
    broken_rules: tuple[str, ...]
    sides: tuple[Side, ...]

    @property
    def question(self) -> str:
        """The last user message."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class RuleRow:
    """How often one rule was broken, by each model; `theirs` is None without a champion."""

    rule_id: str
    severity: Severity
    judged: int
    ours: int
    theirs: int | None


def answer_rows(candidate: Scorecard, champion: Scorecard | None) -> list[AnswerRow]:
    """Every prompt of the candidate: newly broken first, and the most severe of those first."""
    theirs = {(answer.prompt_id, answer.repetition): answer for answer in champion.answers} if champion else {}
    rows = [_row(candidate, answer, champion, theirs.get((answer.prompt_id, answer.repetition))) for answer in candidate.answers]
    return sorted(rows, key=_worst_first)


def count_changes(rows: Sequence[AnswerRow]) -> dict[Change, int]:
    """How many rows changed how, in the order of `CHANGES`; kinds that do not occur are left out."""
    counts = Counter(row.change for row in rows)
    return {change: counts[change] for change in CHANGES if counts[change]}


def rule_rows(candidate: Scorecard, champion: Scorecard | None) -> list[RuleRow]:
    """Every rule that one of the models broke, the most severe and most often broken by the candidate first."""
    ours, theirs = _breaks(candidate), _breaks(champion) if champion else Counter()
    known = {result.rule_id: result.severity for card in (candidate, champion) if card for each in card.answers for result in each.rules}
    judged = Counter(result.rule_id for answer in candidate.answers for result in answer.rules)
    rows = [
        RuleRow(rule_id, severity, judged[rule_id], ours[rule_id], theirs[rule_id] if champion else None)
        for rule_id, severity in known.items()
        if ours[rule_id] or theirs[rule_id]
    ]
    return sorted(rows, key=lambda row: (SEVERITIES.index(row.severity), -row.ours, row.rule_id))


def cut_pieces(answer: str, results: Sequence[RuleResult]) -> tuple[Piece, ...]:
    """Cut an answer where its evidence begins and ends. Forbidden wins over denied, and that over meant."""
    marks = [""] * len(answer)
    spans = [span for result in results for span in result.evidence]
    for role in ("meant", "denied", "forbidden"):
        for span in spans:
            if span.role == role:
                marks[span.start : span.end] = [role] * (min(span.end, len(answer)) - span.start)
    pieces: list[Piece] = []
    start = 0
    for at in range(1, len(answer) + 1):
        if at == len(answer) or marks[at] != marks[start]:
            pieces.append(Piece(answer[start:at], marks[start]))
            start = at
    return tuple(pieces)


def _row(candidate: Scorecard, answer: AnswerRecord, champion: Scorecard | None, other: AnswerRecord | None) -> AnswerRow:
    broken = (*answer.broken, *(other.broken if other else ()))
    sides = [_side(candidate.subject, answer)] + ([_side(champion.subject, other)] if champion and other else [])
    return AnswerRow(
        prompt_id=answer.prompt_id,
        topic=answer.topic,
        messages=answer.messages,
        reference=answer.reference,
        change=_change(answer, other),
        severity=min((result.severity for result in answer.broken or broken), key=SEVERITIES.index, default=None),
        broken_rules=tuple(dict.fromkeys(result.rule_id for result in broken)),
        sides=tuple(sides),
    )


def _change(answer: AnswerRecord, other: AnswerRecord | None) -> Change:
    ours = {result.rule_id for result in answer.broken}
    if other is None:
        return "broken" if ours else "kept"
    theirs = {result.rule_id for result in other.broken}
    if ours - theirs:
        return "broken"
    if ours:
        return "still"
    if theirs:
        return "fixed"
    return "same" if answer.answer == other.answer else "changed"


def _side(subject: str, answer: AnswerRecord) -> Side:
    return Side(
        subject=subject,
        pieces=cut_pieces(answer.answer, answer.rules),
        broken=answer.broken,
        judged=bool(answer.rules),
        cut_off=answer.finish_reason == "length",
    )


def _worst_first(row: AnswerRow) -> tuple[int, int, str]:
    severity = SEVERITIES.index(row.severity) if row.severity else len(SEVERITIES)
    return list(CHANGES).index(row.change), severity, row.prompt_id


def _breaks(card: Scorecard) -> Counter[str]:
    return Counter(result.rule_id for answer in card.answers for result in answer.broken)
