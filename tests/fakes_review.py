"""Two scorecards whose answers differ, a review drawn from them, and votes, for the tests of the blind review."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from evaluation.records import Scorecard
from evaluation.review_draw import Drawn, draw_review
from evaluation.review_records import Choice, ReviewResult, Vote
from evaluation.review_votes import VoteBook
from tests.fakes_evaluation import make_answer, make_card

OURS, THEIRS = "Call 911 now, said by ours", "Wait at home, said by theirs"


def two_cards(prompts: int = 12, topics: Sequence[str] = ("pain", "sleep"), identical: int = 0) -> tuple[Scorecard, Scorecard]:
    """Candidate and champion; the last `identical` prompts have the same answer twice."""

    def card(says: str, subject: str) -> Scorecard:
        texts = [f"{says} {number}" for number in range(prompts - identical)] + ["the same"] * identical
        answers = [
            make_answer(number, answer=text).model_copy(update={"topic": topics[number % len(topics)]}) for number, text in enumerate(texts)
        ]
        return make_card(answers, subject=subject)

    return card(OURS, "clinic-2"), card(THEIRS, "clinic-1")


@dataclass
class Table:
    """A review in a folder, its key beside it, and its two scorecards."""

    drawn: Drawn
    folder: Path
    key_path: Path
    candidate: Scorecard
    champion: Scorecard

    @property
    def book(self) -> VoteBook:
        """The votes."""
        return VoteBook(self.folder)

    def choice(self, pair: int, preference: str) -> Choice:
        """What a reviewer has to choose on a pair to prefer `candidate` or `champion`."""
        if preference in ("tie", "both_bad"):
            return preference  # type: ignore[return-value]  # one of the two
        return "first" if (preference == "candidate") == self.drawn.key.candidate_first[pair] else "second"

    def vote_all(self, reviewer: str, prefers: Callable[[int], str]) -> None:
        """One vote on every pair."""
        for pair in range(len(self.drawn.review.pairs)):
            self.book.add(make_vote(reviewer, pair, self.choice(pair, prefers(pair))))


def make_table(folder: Path, reviewers: Sequence[str] = ("ann",), prompts: int = 12, seed: int = 3) -> Table:
    """A review of all prompts, written as the command writes it."""
    candidate, champion = two_cards(prompts)
    drawn = draw_review(candidate, champion, reviewers, prompts, Random(seed))
    key_path = folder / "keys" / "key.json"
    key_path.parent.mkdir(parents=True)
    key_path.write_text(drawn.key.sealed(), encoding="utf-8")
    drawn.review.write(folder / "review")
    return Table(drawn, folder / "review", key_path, candidate, champion)


def make_vote(reviewer: str, pair: int, choice: Choice, comment: str = "") -> Vote:
    """A vote at a fixed time."""
    return Vote(reviewer=reviewer, pair=pair, choice=choice, comment=comment, at="2030-01-01T00:00:00+00:00")


def make_result(
    wins: int, losses: int, ties: int = 0, *, reviewers: Sequence[str] = ("ann",), candidate: str = "c", champion: str = "d"
) -> ReviewResult:
    """A closed review with these counts and no votes."""
    return ReviewResult(
        created_at="x",
        review_digest="r",
        candidate_digest=candidate,
        champion_digest=champion,
        key_sha256="k",
        votes_sha256="v",
        closed_by="bob",
        reviewers=tuple(reviewers),
        wins=wins,
        losses=losses,
        ties=ties,
        agreement=None,
        kappa=None,
        left_share=0.5,
        votes=(),
    )
