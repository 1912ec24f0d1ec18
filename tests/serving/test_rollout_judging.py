"""Canary against champion over the same window: what PASSes, what FAILs, and what nobody can tell yet."""

import math
from typing import Any

import pytest
from scipy.stats import binomtest

from evaluation.records import Outcome
from serving.rollout_counts import Counts, bucket_of
from serving.rollout_judging import CAN_FAIL, Bounds, judge, judgement_of, proportion_difference, quantile, wilson
from serving.rollout_section import RolloutSection, RolloutStep

SECTION = RolloutSection(steps=(RolloutStep(percent=5),), max_error_increase=0.01, max_violation_increase=0.01)
MIN = 300


def shown(
    answered: int, *, failed: int = 0, refused: int = 0, pace: float = 1.0, streams: int = 0, first_pace: float = 1.0, **rules: int
) -> Counts:
    """Answer times spread evenly over 0.5 to 1.5 s, first tokens over 0.05 to 0.15 s."""

    def times(count: int, middle_s: float) -> dict[int, int]:
        found: dict[int, int] = {}
        for number in range(count):
            bucket = bucket_of(middle_s * (0.5 + number / count))
            found[bucket] = found.get(bucket, 0) + 1
        return found

    durations, first = times(answered, pace), times(streams, 0.1 * first_pace)
    return Counts(answered=answered, failed=failed, refused=refused, durations=durations, first_tokens=first, **rules)


CHAMPION = shown(10_000, failed=5, streams=5_000, checked=2_000, broken=2)

VERDICTS: dict[str, tuple[Counts, Counts, Outcome]] = {
    "as good": (shown(600, streams=300, checked=400), CHAMPION, Outcome.PASS),
    "as good, nobody streams and nothing is checked": (shown(600), shown(10_000), Outcome.PASS),
    "both fail alike": (shown(380, failed=20), shown(19_000, failed=1000), Outcome.INCONCLUSIVE),
    "both fail alike, and enough was asked": (shown(19_000, failed=1000), shown(19_000, failed=1000), Outcome.PASS),
    "no request at all": (Counts(), Counts(), Outcome.INCONCLUSIVE),
    "the canary got none": (Counts(), CHAMPION, Outcome.INCONCLUSIVE),
    "the champion got none": (shown(600), Counts(), Outcome.INCONCLUSIVE),
    "too few": (shown(299), CHAMPION, Outcome.INCONCLUSIVE),
    "one failure among few": (shown(9, failed=1), CHAMPION, Outcome.INCONCLUSIVE),
    "three failures among few": (shown(7, failed=3), CHAMPION, Outcome.FAIL),
    "5 % fail": (shown(285, failed=15), CHAMPION, Outcome.FAIL),
    "everything fails": (shown(0, failed=50), CHAMPION, Outcome.FAIL),
    "5 % are refused": (shown(285, refused=15), CHAMPION, Outcome.FAIL),
    "3 times as slow": (shown(600, pace=3), CHAMPION, Outcome.FAIL),
    "1.5 times as slow": (shown(600, pace=1.5), CHAMPION, Outcome.INCONCLUSIVE),
    "1.2 times as slow": (shown(600, pace=1.2), shown(10_000), Outcome.PASS),
    "faster": (shown(600, pace=0.3), shown(10_000), Outcome.PASS),
    "first token 3 times as late": (shown(600, streams=300, first_pace=3), CHAMPION, Outcome.FAIL),
    "its streams do not begin": (shown(600, streams=0), CHAMPION, Outcome.INCONCLUSIVE),
    "few streams on both sides": (shown(600, streams=5), shown(10_000, streams=90), Outcome.PASS),
    "garbage": (shown(600, streams=300, checked=100, broken=50), CHAMPION, Outcome.FAIL),
    "rules are checked on one side only": (shown(600, streams=300), CHAMPION, Outcome.PASS),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_what_was_counted_decides(case: str) -> None:
    canary, champion, outcome = VERDICTS[case]
    judgement = judge(canary, champion, SECTION, MIN)
    assert judgement.outcome is outcome, judgement
    assert judgement.reason
    assert bool(judgement.failing) == (outcome is Outcome.FAIL)
    assert set(judgement.failing) <= set(CAN_FAIL)


def test_the_table_holds_every_outcome_that_counts_can_have() -> None:
    assert {outcome for _, _, outcome in VERDICTS.values()} == {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE}


def test_checked_answers_can_be_made_a_duty() -> None:
    strict = SECTION.model_copy(update={"require_rule_checks": True})
    assert judge(shown(600), shown(10_000), strict, MIN).outcome is Outcome.INCONCLUSIVE


def test_no_condition_at_all_is_an_error_and_never_a_pass() -> None:
    assert judgement_of().outcome is Outcome.ERROR


def test_the_reason_names_only_what_decided() -> None:
    judgement = judge(shown(285, failed=15), CHAMPION, SECTION, MIN)
    assert judgement.reason.startswith("failed requests: 15 of 300 against 5 of 10005, a difference of ")
    assert "latency" not in judgement.reason


@pytest.mark.parametrize(("found", "trials"), [(0, 10), (3, 50), (50, 50), (1, 3000)])
def test_wilsons_interval_is_that_of_scipy(found: int, trials: int) -> None:
    ours, theirs = wilson(found, trials, 0.05), binomtest(found, trials).proportion_ci(confidence_level=0.9, method="wilson")
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_newcombes_interval_is_that_of_his_paper() -> None:
    """56/70 - 48/80 at 95 %, two-sided: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    bounds = proportion_difference(56, 70, 48, 80, 0.025)
    assert (bounds.low, bounds.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_the_interval_of_a_quantile_widens_when_there_is_less_to_go_by() -> None:
    def width(count: int) -> float:
        bounds = quantile(shown(count).durations, 0.5, 0.05)
        return bounds.high - bounds.low

    assert width(100) > width(1000) > width(10_000) > 0


def test_the_tail_of_few_times_has_no_upper_bound() -> None:
    assert quantile(shown(40).durations, 0.95, 0.05).high == math.inf
    assert quantile(shown(60).durations, 0.95, 0.05).high < 2


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"steps": ({"percent": 25}, {"percent": 5})}, "must grow; these are 25, 5 percent"),
        ({"steps": ({"percent": 5}, {"percent": 5})}, "must grow"),
        ({"steps": ({"percent": 100},)}, "less than 100"),
        ({"steps": ({"percent": 5, "min_s": 90},), "max_step_s": 60}, "must be above every step's min_s, which goes up to 90"),
        ({"steps": ({"percent": 5, "min_requests": 0},)}, "greater than or equal to 1"),
    ],
)
def test_steps_that_make_no_sense_are_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        RolloutSection.model_validate(changes)


@pytest.mark.parametrize(("requests", "outcome"), [(267, Outcome.INCONCLUSIVE), (268, Outcome.PASS)])
def test_without_a_failure_one_percent_is_told_from_268_requests_on(requests: int, outcome: Outcome) -> None:
    """Wilson's upper bound of 0 in n is z² / (n + z²) with z = 1.645: at most 0.01 from n = 267.8 on."""
    assert judge(shown(requests), shown(10_000), SECTION, 1).outcome is outcome


def test_bounds_are_ordered() -> None:
    bounds = proportion_difference(3, 300, 5, 10_000, 0.05)
    assert isinstance(bounds, Bounds)
    assert bounds.low < 0.01 - 0.0005 < bounds.high
