"""What the gate makes of a blind review: one condition. Pure; without a closed review of these very answers it never passes.

The win rate is that of prompts whose answers differ; those with the same answer twice are not asked about. Next: `gate.py`.
"""

from evaluation.config import HumanReviewSection
from evaluation.records import Condition, Outcome, Verdict
from evaluation.review_records import ReviewResult
from evaluation.review_statistics import wilson_of_share
from evaluation.statistics import Interval

NAME = "human_review"


def human_review(
    section: HumanReviewSection, result: ReviewResult | None, candidate_digest: str, champion_digest: str | None, alpha: float
) -> Condition:
    """Whether people prefer the candidate as often as the policy asks.

    Args:
        section: the policy.
        result: the closed review; None while there is none.
        candidate_digest: of the candidate's scorecard under judgement.
        champion_digest: of the champion's; None without a champion.
        alpha: probability that one end of the interval is wrong.
    """
    if champion_digest is None:
        return _condition(section, Outcome.ERROR, "A blind review compares two models, and there is no champion to compare with.")
    if result is None:
        return _condition(section, Outcome.INCONCLUSIVE, "It waits for human review: tunegate review create RELEASE.")
    if (result.candidate_digest, result.champion_digest) != (candidate_digest, champion_digest):
        return _condition(section, Outcome.ERROR, "The review is of other answers than these.")
    trials = judged(result, section)
    if trials < section.min_prompts:
        return _condition(section, Outcome.INCONCLUSIVE, f"{trials} prompts were judged; the policy asks for {section.min_prompts}.")
    if len(result.reviewers) < section.min_reviewers:
        said = f"{len(result.reviewers)} reviewers judged; the policy asks for {section.min_reviewers}."
        return _condition(section, Outcome.INCONCLUSIVE, said)
    rate, interval = win_rate(result, section, alpha)
    outcome = Outcome.PASS if rate >= section.min_win_rate else Outcome.FAIL
    return _condition(section, outcome, _sentence(result, section, rate, interval), rate, interval)


def waits_for_review(verdict: Verdict, result: ReviewResult | None) -> bool:
    """Whether a review, which is not there yet, is all that is missing: every other condition holds."""
    open_ones = [(each.name, each.outcome) for each in verdict.conditions if each.outcome is not Outcome.PASS]
    return result is None and open_ones == [(NAME, Outcome.INCONCLUSIVE)]


def judged(result: ReviewResult, section: HumanReviewSection) -> int:
    """The prompts that the win rate is made of."""
    return result.prompts if section.ties == "half" else result.wins + result.losses


def win_rate(result: ReviewResult, section: HumanReviewSection, alpha: float) -> tuple[float, Interval]:
    """Share of prompts won, with Wilson's interval; a tie counts as half a win, or not at all, as the policy says."""
    trials = judged(result, section)
    rate = (result.wins + (result.ties / 2 if section.ties == "half" else 0)) / trials
    return rate, wilson_of_share(rate, trials, alpha)


def _sentence(result: ReviewResult, section: HumanReviewSection, rate: float, interval: Interval) -> str:
    ties = "a tie counts as half" if section.ties == "half" else "ties are left out"
    people = "1 reviewer" if len(result.reviewers) == 1 else f"{len(result.reviewers)} reviewers"
    kappa = "" if len(result.reviewers) == 1 else ", kappa not defined" if result.kappa is None else f", kappa {result.kappa:.2f}"
    return (
        f"Blind, {people} preferred the candidate on {result.wins} prompts and the champion on {result.losses}, {result.ties} ties: "
        f"a win rate of {rate:.1%} ({interval.low:.1%} to {interval.high:.1%}; {ties}{kappa})."
    )


def _condition(
    section: HumanReviewSection, outcome: Outcome, sentence: str, rate: float | None = None, interval: Interval | None = None
) -> Condition:
    return Condition(
        name=NAME,
        measured=rate,
        threshold=f"win rate ≥ {section.min_win_rate:.0%} over {section.min_prompts} prompts",
        interval=(interval.low, interval.high) if interval else None,
        outcome=outcome,
        sentence=sentence,
    )
