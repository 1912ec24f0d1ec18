"""What production has to teach: kept answers, what was said of them, the rules they broke, and blind reviews, as drafts of rows.

| seen in production | draft | teaches |
| --- | --- | --- |
| the caller wrote what it should have said | `correction`: that, rather than the answer | SFT and preferences |
| the answer breaks a rule, a shadow's answer to the same breaks none; or the other way round | `shadow`: the better one | preferences |
| the answer breaks a rule, or was rated down, and nothing better is known | `wanted`: a person has to write it | both, once written |
| rated up, and every rule is kept | `liked`: the answer | SFT |
| most reviewers preferred one of two answers, blind | `review`: that one | preferences |

An answer that breaks a critical rule is never the better one, whoever liked it. Pure. Next: `collecting.py`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.errors import PatternTooSlow
from evaluation.review_records import Key, Review, ReviewResult
from evaluation.rules import RuleResult
from serving.kept_records import Exchange, Turn

DraftKind = Literal["correction", "shadow", "review", "wanted", "liked"]
Broken = Callable[[Sequence[Turn], str], Sequence[RuleResult]]
_FIRST: tuple[DraftKind, ...] = ("correction", "shadow", "review", "wanted", "liked")
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Draft:
    """A row to be. `better` is "" where a person has to write it, `worse` is "" where nothing is to be avoided."""

    kind: DraftKind
    messages: tuple[Turn, ...]
    better: str
    worse: str
    reasons: tuple[str, ...]
    source: str
    key_id: str = ""
    critical: bool = False


def in_order(drafts: Sequence[Draft]) -> list[Draft]:
    """The most telling first: broken critical rules, then by kind; the newest of equals first."""
    newest_first = list(reversed(drafts))
    return sorted(newest_first, key=lambda draft: (not draft.critical, _FIRST.index(draft.kind)))


def draft_of(exchange: Exchange, broken: Broken) -> Draft | None:
    """What one kept answer teaches, if anything."""
    faults = _judged(broken, exchange.messages, exchange.answer)
    if faults is None:
        return None
    better = _better(exchange, faults, broken)
    reasons = tuple(reason[:_LONGEST_REASON] for reason in (*_in_words(faults), *_said(exchange), *(better[2] if better else ())))
    critical = _is_critical(faults)
    if better is not None:
        kind, text, _, worse = better
        return Draft(kind, exchange.messages, text, worse, reasons, exchange.request_id, exchange.key_id, critical)
    if faults or exchange.rating == "down":
        return Draft("wanted", exchange.messages, "", exchange.answer, reasons, exchange.request_id, exchange.key_id, critical)
    if exchange.rating == "up":
        return Draft("liked", exchange.messages, exchange.answer, "", reasons, exchange.request_id, exchange.key_id)
    return None


def drafts_of_review(review: Review, result: ReviewResult, key: Key) -> Iterator[Draft]:
    """One draft for each prompt on which most reviewers preferred the same model's answer."""
    preferences: Mapping[str, list[str]] = defaultdict(list)
    for vote in result.votes:
        preferences[vote.prompt_id].append(vote.preference)
    for pair, candidate_first in zip(review.pairs, key.candidate_first, strict=True):
        said = preferences[pair.prompt_id]
        for_candidate, for_champion = said.count("candidate"), said.count("champion")
        if for_candidate == for_champion:
            continue
        better, worse = (pair.first, pair.second) if (for_candidate > for_champion) == candidate_first else (pair.second, pair.first)
        turns = tuple({"role": message.role, "content": message.content} for message in pair.messages)
        reason = f"{max(for_candidate, for_champion)} of {len(said)} reviewers preferred it, blind"
        yield Draft("review", turns, better, worse, (reason,), f"review of {review.release} against {review.against}: {pair.prompt_id}")


def _better(exchange: Exchange, faults: Sequence[RuleResult], broken: Broken) -> tuple[DraftKind, str, tuple[str, ...], str] | None:
    """Kind, the better answer, why, and the worse one; None where nothing better is known."""
    correction = exchange.correction.strip()
    if correction and correction != exchange.answer.strip():
        found = _judged(broken, exchange.messages, correction)
        if found is not None and not _is_critical(found):
            return "correction", correction, ("the caller wrote what it should have said",), exchange.answer
    for release, answer in exchange.shadows:
        found = _judged(broken, exchange.messages, answer)
        if found is None or answer.strip() == exchange.answer.strip():
            continue
        if faults and not found:
            return "shadow", answer, (f"{release}, asked the same, keeps every rule",), exchange.answer
        if found and not faults and exchange.rating != "down":
            return "shadow", exchange.answer, (f"{release}, asked the same: {'; '.join(_in_words(found))}",), answer
    return None


def _judged(broken: Broken, messages: Sequence[Turn], answer: str) -> Sequence[RuleResult] | None:
    """The rules that an answer breaks; None where a rule ran out of time, and nothing may be concluded."""
    try:
        return broken(messages, answer)
    except PatternTooSlow:
        return None


def _is_critical(faults: Sequence[RuleResult]) -> bool:
    return any(fault.severity == "critical" for fault in faults)


def _in_words(faults: Sequence[RuleResult]) -> list[str]:
    return [f"breaks {fault.rule_id} ({fault.severity}): {fault.reason}" for fault in faults]


def _said(exchange: Exchange) -> list[str]:
    rated = [f"rated {exchange.rating}"] if exchange.rating else []
    return rated + ([f"comment: {exchange.comment}"] if exchange.comment else [])
