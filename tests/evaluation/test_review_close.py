"""Closing a review: when the key opens, what is checked, what is counted, and what the gate makes of it."""

from pathlib import Path

import pytest

from evaluation.config import GateSection, HumanReviewSection
from evaluation.errors import ReviewError
from evaluation.gate import decide
from evaluation.records import Outcome
from evaluation.review_close import close_review
from evaluation.review_condition import human_review, waits_for_review
from evaluation.review_records import ReviewResult
from tests.fakes_review import Table, make_result, make_table, make_vote
from training.errors import RecordError


def close(table: Table, **more: object) -> ReviewResult:
    return close_review(table.folder, table.key_path, table.candidate, table.champion, closed_by="bob", **more)  # type: ignore[arg-type]


def test_wins_losses_and_ties_are_those_of_the_prompts(tmp_path: Path) -> None:
    """Of 12 prompts the first 6 go to the candidate, 3 to the champion, 2 are ties and 1 both bad."""
    table = make_table(tmp_path)
    table.vote_all("ann", lambda pair: "candidate" if pair < 6 else "champion" if pair < 9 else "tie" if pair < 11 else "both_bad")
    result = close(table)
    assert (result.wins, result.losses, result.ties, result.prompts) == (6, 3, 3, 12)
    assert (result.agreement, result.kappa) == (None, None)
    assert [vote.preference for vote in result.votes].count("both_bad") == 1
    assert ReviewResult.read(table.folder / "result") == result


def test_of_several_reviewers_the_majority_of_a_prompt_counts_once(tmp_path: Path) -> None:
    """ann and bob prefer the candidate everywhere, cy on two prompts alone: of the 36 pairs of votes 2·3 + 10·1 agree."""
    table = make_table(tmp_path, ["ann", "bob", "cy"])
    table.vote_all("ann", lambda _: "candidate")
    table.vote_all("bob", lambda _: "candidate")
    table.vote_all("cy", lambda pair: "candidate" if pair < 2 else "champion")
    result = close(table)
    assert (result.wins, result.losses, result.ties) == (12, 0, 0)
    assert result.agreement == pytest.approx((2 * 3 + 10 * 1) / 36)


def test_two_who_disagree_make_a_tie(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["ann", "bob"])
    table.vote_all("ann", lambda _: "candidate")
    table.vote_all("bob", lambda pair: "champion" if pair else "tie")
    result = close(table)
    assert (result.wins, result.losses, result.ties) == (1, 0, 11)
    assert result.kappa == pytest.approx(0.0)


def test_who_always_takes_the_left_answer_comes_out_even(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    for pair in range(12):
        table.book.add(make_vote("ann", pair, "first"))
    result = close(table)
    assert (result.wins, result.losses, result.left_share) == (6, 6, 1.0)


def test_while_a_vote_is_missing_the_key_stays_shut(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["ann", "bob"])
    table.vote_all("ann", lambda _: "tie")
    table.book.add(make_vote("bob", 0, "tie"))
    table.key_path.unlink()
    with pytest.raises(ReviewError, match="bob has 11 of 12 left"):
        close(table)
    assert not table.book.closed


def test_who_did_not_finish_can_be_left_out(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["ann", "bob"])
    table.vote_all("ann", lambda _: "candidate")
    result = close(table, without=["bob"])
    assert (result.reviewers, result.left_out, result.wins) == (("ann",), ("bob",), 12)


@pytest.mark.parametrize(("without", "complaint"), [(["ann"], "nobody's votes"), (["zoe"], "no reviewer is called zoe")])
def test_leaving_out_everybody_or_nobody_known_is_refused(tmp_path: Path, without: list[str], complaint: str) -> None:
    with pytest.raises(ReviewError, match=complaint):
        close(make_table(tmp_path), without=without)


def test_a_review_is_closed_once(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.vote_all("ann", lambda _: "tie")
    close(table)
    with pytest.raises(ReviewError, match="closed"):
        close(table)


def test_a_key_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    """With every side turned, all losses would be wins."""
    table = make_table(tmp_path)
    table.vote_all("ann", lambda _: "champion")
    key = table.drawn.key
    turned = key.model_copy(update={"candidate_first": tuple(not first for first in key.candidate_first)})
    table.key_path.write_text(turned.sealed(), encoding="utf-8")
    with pytest.raises(RecordError, match="the review was made with"):
        close(table)
    assert not table.book.closed


def test_a_key_that_is_lost_is_named(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.vote_all("ann", lambda _: "tie")
    table.key_path.unlink()
    with pytest.raises(RecordError, match="the key cannot be read"):
        close(table)


def test_other_scorecards_are_refused(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    table.vote_all("ann", lambda _: "tie")
    table.champion = table.champion.model_copy(update={"subject": "clinic-0"})
    with pytest.raises(RecordError, match="not the scorecards"):
        close(table)


SECTION = HumanReviewSection(min_win_rate=0.85, min_prompts=100)


@pytest.mark.parametrize(
    ("result", "section", "outcome", "says"),
    [
        (None, {}, Outcome.INCONCLUSIVE, "waits for human review"),
        (make_result(85, 15), {}, Outcome.PASS, "win rate of 85.0%"),
        (make_result(84, 16), {}, Outcome.FAIL, "win rate of 84.0%"),
        (make_result(84, 14, 2), {}, Outcome.PASS, "win rate of 85.0%"),
        (make_result(85, 15, 2), {"ties": "excluded"}, Outcome.PASS, "ties are left out"),
        (make_result(80, 10, 20), {"ties": "excluded"}, Outcome.INCONCLUSIVE, "90 prompts were judged"),
        (make_result(99, 0), {}, Outcome.INCONCLUSIVE, "99 prompts were judged; the policy asks for 100"),
        (make_result(100, 0), {"min_reviewers": 2}, Outcome.INCONCLUSIVE, "1 reviewers judged"),
        (make_result(100, 0, reviewers=("ann", "bob")), {"min_reviewers": 2}, Outcome.PASS, "kappa not defined"),
        (make_result(100, 0, candidate="other"), {}, Outcome.ERROR, "other answers"),
        (make_result(100, 0, champion="other"), {}, Outcome.ERROR, "other answers"),
    ],
)
def test_the_condition(result: ReviewResult | None, section: dict[str, object], outcome: Outcome, says: str) -> None:
    condition = human_review(SECTION.model_copy(update=section), result, "c", "d", 0.05)
    assert condition.outcome is outcome
    assert says in condition.sentence


def test_without_a_champion_there_is_nothing_to_review() -> None:
    assert human_review(SECTION, make_result(100, 0), "c", None, 0.05).outcome is Outcome.ERROR


def test_the_interval_of_85_of_100_is_wilsons() -> None:
    """At z = 1.645: centre (0.85 + 0.01353) / 1.02706 = 0.8408, half 0.0587 (two-sided 90 %)."""
    interval = human_review(SECTION, make_result(85, 15), "c", "d", 0.05).interval
    assert interval == (pytest.approx(0.7821, abs=5e-4), pytest.approx(0.8995, abs=5e-4))


def test_a_verdict_waits_only_where_nothing_but_the_review_is_missing(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    policy = GateSection(min_prompts=1, human_review=SECTION)
    waiting = decide(table.candidate, table.champion, policy)
    assert (waiting.outcome, waits_for_review(waiting, None)) == (Outcome.INCONCLUSIVE, True)
    assert not waits_for_review(decide(table.candidate, table.champion, policy.model_copy(update={"min_prompts": 99})), None)
    judged = make_result(50, 49, candidate=table.candidate.digest, champion=table.champion.digest)
    assert not waits_for_review(decide(table.candidate, table.champion, policy, judged), judged)


def test_a_closed_review_turns_waiting_into_a_pass(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    policy = GateSection(min_prompts=1, human_review=HumanReviewSection(min_win_rate=0.75, min_prompts=12))
    table.vote_all("ann", lambda pair: "candidate" if pair < 9 else "champion")
    assert decide(table.candidate, table.champion, policy, close(table)).outcome is Outcome.PASS
