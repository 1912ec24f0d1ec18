"""Closes a blind review: only when every vote is in is the key opened, checked against its seal and its scorecards, and counted.

What comes out is the same from the same files. The unit is the prompt, not the vote: several votes on one prompt are not independent,
so the majority of its reviewers counts once. Next: `review_condition.py`, what the gate makes of it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from evaluation.errors import ReviewError
from evaluation.records import Scorecard
from evaluation.review_records import Choice, Key, OpenedVote, Preference, Review, ReviewResult, Vote, seal_of
from evaluation.review_statistics import kappa, observed_agreement
from evaluation.review_votes import RESULT_FOLDER, VoteBook, as_seen, counted, swaps
from training.errors import RecordError

_SCORE: Mapping[Preference, float] = {"candidate": 1.0, "champion": 0.0, "tie": 0.5, "both_bad": 0.5}


def close_review(
    folder: Path, key_path: Path, candidate: Scorecard, champion: Scorecard, *, closed_by: str, without: Sequence[str] = ()
) -> ReviewResult:
    """Open the key and write the result below `folder`; from then on no vote is taken.

    Args:
        folder: the review's.
        key_path: the sealed key.
        candidate: the candidate's scorecard, as reviewed.
        champion: the other scorecard.
        closed_by: who closes it.
        without: reviewers whose votes do not count because they did not finish.

    Raises:
        ReviewError: votes are missing, or the review is closed already.
        RecordError: key, scorecards or votes are not those of the review.
    """
    review = Review.read(folder)
    book = VoteBook(folder)
    with book.locked() as file:
        if book.closed:
            raise ReviewError("this review is closed", do=f"read {folder / RESULT_FOLDER}")
        content = file.read()
        votes = counted(book.parse(content))
        reviewers = complete_reviewers(review, votes, without)
        key = open_key(review, key_path)
        _check_scorecards(review, key, candidate, champion)
        whole = content[: content.rfind(b"\n") + 1]
        result = _result(review, key, votes, reviewers, tuple(without), seal_of(whole.decode()), closed_by)
        result.write(folder / RESULT_FOLDER)
    return result


def complete_reviewers(review: Review, votes: Mapping[tuple[str, int], Vote], without: Sequence[str]) -> list[str]:
    """The reviewers whose votes count.

    Raises:
        ReviewError: one of them has pairs left, or nobody remains.
    """
    names = [each.name for each in review.reviewers]
    if unknown := [name for name in without if name not in names]:
        raise ReviewError(f"no reviewer is called {', '.join(unknown)}", do=f"choose from: {', '.join(names)}")
    counting = [name for name in names if name not in without]
    left = {name: sum((name, pair) not in votes for pair in range(len(review.pairs))) for name in counting}
    if unfinished := {name: count for name, count in left.items() if count}:
        raise ReviewError(
            "votes are missing: " + ", ".join(f"{name} has {count} of {len(review.pairs)} left" for name, count in unfinished.items()),
            why="the key opens only when everybody has voted; a look before that could steer the rest",
            do="let them finish, or leave somebody out with --without NAME",
        )
    if not counting:
        raise ReviewError("nobody's votes are left to count", do="leave at least one reviewer in")
    return counting


def open_key(review: Review, path: Path) -> Key:
    """The sealed key.

    Raises:
        RecordError: it is not there, or not the one that the review was made with.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{path}: the key cannot be read: {error.strerror}", do="restore it, or make a new review") from error
    if seal_of(text) != review.key_sha256:
        raise RecordError(
            f"{path} hashes to {seal_of(text)[:12]}, the review was made with {review.key_sha256[:12]}",
            why="with another key, wins could be turned into losses",
            do="restore the key, or make a new review",
        )
    return Key.model_validate_json(text)


def _check_scorecards(review: Review, key: Key, candidate: Scorecard, champion: Scorecard) -> None:
    """That the texts the reviewers saw are the answers of the two scorecards, on the sides that the key says."""
    if (candidate.digest, champion.digest) != (review.candidate_digest, review.champion_digest):
        raise RecordError("these are not the scorecards that the review was drawn from", do="make a new review")
    ours, theirs = ({answer.prompt_id: answer.answer.strip() for answer in reversed(card.answers)} for card in (candidate, champion))
    for pair, first in zip(review.pairs, key.candidate_first, strict=True):
        expected = (ours[pair.prompt_id], theirs[pair.prompt_id])
        if (pair.first, pair.second) != (expected if first else expected[::-1]):
            raise RecordError(f"prompt {pair.prompt_id}: what was shown is not what the models answered", do="make a new review")


def _result(
    review: Review,
    key: Key,
    votes: Mapping[tuple[str, int], Vote],
    reviewers: Sequence[str],
    left_out: tuple[str, ...],
    votes_sha256: str,
    closed_by: str,
) -> ReviewResult:
    rows = [[_preference(votes[name, pair].choice, key.candidate_first[pair]) for name in reviewers] for pair in range(len(review.pairs))]
    scores = [sum(_SCORE[label] for label in row) / len(row) for row in rows]
    sided = [as_seen(votes[name, pair].choice, swaps(review, name)) for name in reviewers for pair in range(len(rows))]
    one_sided = [choice for choice in sided if choice in ("first", "second")]
    return ReviewResult(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        review_digest=review.digest,
        candidate_digest=review.candidate_digest,
        champion_digest=review.champion_digest,
        key_sha256=review.key_sha256,
        votes_sha256=votes_sha256,
        closed_by=closed_by,
        reviewers=tuple(reviewers),
        left_out=left_out,
        wins=sum(score > 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
        ties=sum(score == 0.5 for score in scores),
        agreement=observed_agreement(rows),
        kappa=kappa(rows),
        left_share=one_sided.count("first") / len(one_sided) if one_sided else 0.5,
        votes=tuple(_opened(votes[name, pair], review, rows[pair][at]) for pair in range(len(rows)) for at, name in enumerate(reviewers)),
    )


def _preference(choice: Choice, candidate_first: bool) -> Preference:
    if choice == "tie" or choice == "both_bad":
        return choice
    return "candidate" if (choice == "first") == candidate_first else "champion"


def _opened(vote: Vote, review: Review, preference: Preference) -> OpenedVote:
    pair = review.pairs[vote.pair]
    return OpenedVote(
        reviewer=vote.reviewer, prompt_id=pair.prompt_id, topic=pair.topic, preference=preference, comment=vote.comment, at=vote.at
    )
