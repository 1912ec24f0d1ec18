"""Draws a blind review from two scorecards: which prompts, in which order, and which answer stands first.

Stratified by topic, as many of each as its share. Sides are balanced within one pair in every topic and over all: who always took
the first answer would come out even. Prompts with the same answer twice are not drawn, because nobody could prefer one.
All chance comes from outside. Next: `review_votes.py`.
"""

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from evaluation.errors import ReviewError
from evaluation.records import AnswerRecord, Scorecard
from evaluation.review_records import Key, Pair, Review, Reviewer, seal_of

_TOKEN_BYTES = 24
_Both = tuple[AnswerRecord, AnswerRecord]


@dataclass(frozen=True)
class Drawn:
    """A new review with its sealed key and, by reviewer, the token of each one's link, which is kept nowhere."""

    review: Review
    key: Key
    tokens: Mapping[str, str]


def draw_review(candidate: Scorecard, champion: Scorecard, reviewers: Sequence[str], count: int, random: Random) -> Drawn:
    """A sample of `count` prompts, or of all that differ where there are fewer.

    Args:
        candidate: the scorecard under review.
        champion: the scorecard it is compared with, on the same suite.
        reviewers: their names.
        count: prompts to draw.
        random: decides everything that chance decides but the nonce and the tokens.

    Raises:
        ReviewError: the two cannot be compared, no answer differs, or the reviewers' names cannot be used.
    """
    _check(candidate, champion, reviewers)
    both = _both(candidate, champion)
    different = [pair for pair in both if pair[0].answer.strip() != pair[1].answer.strip()]
    if not different:
        raise ReviewError(
            f"all {len(both)} answers are the same, word for word", do="there is nothing to review: judge by the other conditions"
        )
    chosen = stratified(different, count, random)
    sides = _balanced_sides([ours.topic for ours, _ in chosen], random)
    tokens = {name: secrets.token_urlsafe(_TOKEN_BYTES) for name in reviewers}
    key = Key(nonce=secrets.token_hex(32), candidate_first=tuple(sides))
    review = Review(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        release=candidate.subject,
        against=champion.subject,
        candidate_digest=candidate.digest,
        champion_digest=champion.digest,
        key_sha256=seal_of(key.sealed()),
        pairs=tuple(_pair(*pair, first) for pair, first in zip(chosen, sides, strict=True)),
        reviewers=tuple(Reviewer(name=name, token_sha256=seal_of(token)) for name, token in tokens.items()),
        prompts=len(both),
        identical=len(both) - len(different),
    )
    return Drawn(review, key, tokens)


def stratified(pairs: Sequence[_Both], count: int, random: Random) -> list[_Both]:
    """`count` of the pairs in random order, each topic by its share (largest remainders); all of them where there are fewer."""
    by_topic: defaultdict[str, list[_Both]] = defaultdict(list)
    for pair in pairs:
        by_topic[pair[0].topic].append(pair)
    share = min(count, len(pairs)) / len(pairs)
    places = {topic: int(share * len(rows)) for topic, rows in by_topic.items()}
    order = sorted(by_topic, key=lambda topic: (places[topic] - share * len(by_topic[topic]), random.random()))
    for topic in order[: min(count, len(pairs)) - sum(places.values())]:
        places[topic] += 1
    chosen = [pair for topic, rows in sorted(by_topic.items()) for pair in random.sample(rows, places[topic])]
    random.shuffle(chosen)
    return chosen


def _balanced_sides(topics: Sequence[str], random: Random) -> list[bool]:
    """For each pair whether the candidate stands first: every other one, topic after topic, from a random start."""
    sides = [False] * len(topics)
    first = random.random() < 0.5
    for step, position in enumerate(sorted(range(len(topics)), key=lambda position: (topics[position], random.random()))):
        sides[position] = (step % 2 == 0) == first
    return sides


def _both(candidate: Scorecard, champion: Scorecard) -> list[_Both]:
    """The first answer of each model to every prompt."""
    theirs: dict[str, AnswerRecord] = {}
    for answer in champion.answers:
        theirs.setdefault(answer.prompt_id, answer)
    ours: dict[str, AnswerRecord] = {}
    for answer in candidate.answers:
        ours.setdefault(answer.prompt_id, answer)
    return [(answer, theirs[prompt_id]) for prompt_id, answer in ours.items() if prompt_id in theirs]


def _pair(ours: AnswerRecord, theirs: AnswerRecord, candidate_first: bool) -> Pair:
    """Without the blanks round an answer: a model's habit of beginning with one would tell who it is."""
    first, second = (ours, theirs) if candidate_first else (theirs, ours)
    return Pair(
        prompt_id=ours.prompt_id, topic=ours.topic, messages=ours.messages, first=first.answer.strip(), second=second.answer.strip()
    )


def _check(candidate: Scorecard, champion: Scorecard, reviewers: Sequence[str]) -> None:
    if candidate.suite_digest != champion.suite_digest:
        raise ReviewError(
            f"{candidate.subject} was asked suite {candidate.suite_digest[:12]}, {champion.subject} {champion.suite_digest[:12]}",
            why="answers to different questions cannot be compared",
            do="compare releases that were judged on the same suite",
        )
    if candidate.generation != champion.generation:
        raise ReviewError("the two models answered under different generation settings", do="judge both again with one recipe")
    names = [name.strip() for name in reviewers]
    if not names or len(set(names)) != len(names) or "" in names or any(len(name) > 80 for name in names):
        raise ReviewError(f"reviewers: {', '.join(reviewers) or '(none)'}", do="name each of them once, in 1 to 80 characters")
