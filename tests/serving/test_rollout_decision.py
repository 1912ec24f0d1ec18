"""What follows from a judgement, over every outcome and every standing that matters."""

from typing import Any

import pytest

from evaluation.records import Outcome
from serving.rollout_decision import Action, Standing, decide
from serving.rollout_judging import Condition, judgement_of
from serving.rollout_section import RolloutSection, RolloutStep

SECTION = RolloutSection(
    steps=(RolloutStep(percent=5, min_s=60), RolloutStep(percent=25, min_s=120)), threshold=3, max_step_s=600, watch_s=300
)
PASS, FAIL, ERROR, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE
NEW = {"step": 0, "failures": 0, "errors": 0, "age_s": 0.0}

TABLE: list[tuple[dict[str, Any], Outcome, Action, tuple[int, int]]] = [
    # standing (what differs from NEW), outcome, action, FAILs and ERRORs in a row afterwards
    ({}, PASS, Action.HOLD, (0, 0)),
    ({"age_s": 60}, PASS, Action.ADVANCE, (0, 0)),
    ({"age_s": 60, "paused": True}, PASS, Action.HOLD, (0, 0)),
    ({"step": 1, "age_s": 60}, PASS, Action.HOLD, (0, 0)),
    ({"step": 1, "age_s": 120}, PASS, Action.GO_LIVE, (0, 0)),
    ({"failures": 2, "age_s": 60}, PASS, Action.ADVANCE, (0, 0)),
    ({}, FAIL, Action.HOLD, (1, 0)),
    ({"failures": 1}, FAIL, Action.HOLD, (2, 0)),
    ({"failures": 2}, FAIL, Action.ROLL_BACK, (3, 0)),
    ({"failures": 2, "paused": True}, FAIL, Action.ROLL_BACK, (3, 0)),
    ({"failures": 2, "live": True}, FAIL, Action.ROLL_BACK, (3, 0)),
    ({"failures": 2, "back_ready": False}, FAIL, Action.HOLD, (3, 0)),
    ({"failures": 3}, FAIL, Action.ROLL_BACK, (4, 0)),
    ({"errors": 2}, FAIL, Action.HOLD, (1, 0)),
    ({}, ERROR, Action.HOLD, (0, 1)),
    ({"errors": 2}, ERROR, Action.WITHDRAW, (0, 3)),
    ({"errors": 2, "paused": True}, ERROR, Action.HOLD, (0, 3)),
    ({"errors": 2, "back_ready": False}, ERROR, Action.HOLD, (0, 3)),
    ({"errors": 2, "live": True}, ERROR, Action.HOLD, (0, 3)),
    ({"failures": 2, "errors": 1}, ERROR, Action.HOLD, (2, 2)),
    ({}, INCONCLUSIVE, Action.HOLD, (0, 0)),
    ({"failures": 2}, INCONCLUSIVE, Action.HOLD, (0, 0)),
    ({"age_s": 599}, INCONCLUSIVE, Action.HOLD, (0, 0)),
    ({"age_s": 600}, INCONCLUSIVE, Action.WITHDRAW, (0, 0)),
    ({"age_s": 600}, FAIL, Action.WITHDRAW, (1, 0)),
    ({"age_s": 600}, PASS, Action.ADVANCE, (0, 0)),
    ({"age_s": 600, "paused": True}, INCONCLUSIVE, Action.HOLD, (0, 0)),
    ({"age_s": 299, "live": True}, PASS, Action.HOLD, (0, 0)),
    ({"age_s": 300, "live": True}, PASS, Action.FINISH, (0, 0)),
    ({"age_s": 300, "live": True}, INCONCLUSIVE, Action.FINISH, (0, 0)),
    ({"age_s": 300, "live": True}, FAIL, Action.HOLD, (1, 0)),
    ({"age_s": 600, "live": True}, FAIL, Action.FINISH, (1, 0)),
]


@pytest.mark.parametrize(("differs", "outcome", "action", "rows"), TABLE)
def test_the_action_follows_from_the_standing_and_the_outcome(
    differs: dict[str, Any], outcome: Outcome, action: Action, rows: tuple[int, int]
) -> None:
    decision = decide(SECTION, Standing(**NEW | differs), judgement_of(Condition("x", outcome, "because")))
    assert (decision.action, (decision.failures, decision.errors)) == (action, rows)
    assert "because" in decision.reason


@pytest.mark.parametrize(("differs", "outcome", "action", "rows"), TABLE)
def test_it_is_stuck_where_it_would_go_back_and_only_the_way_back_is_missing(
    differs: dict[str, Any], outcome: Outcome, action: Action, rows: tuple[int, int]
) -> None:
    judgement = judgement_of(Condition("x", outcome, "because"))
    ready, sick = (decide(SECTION, Standing(**NEW | differs | {"back_ready": back}), judgement) for back in (True, False))
    assert (ready.stuck, sick.stuck) == (False, ready.action in (Action.ROLL_BACK, Action.WITHDRAW))


def test_the_table_reaches_every_action_with_every_outcome() -> None:
    assert {action for _, _, action, _ in TABLE} == set(Action)
    assert {outcome for _, outcome, _, _ in TABLE} == set(Outcome)


@pytest.mark.parametrize("outcome", [FAIL, ERROR, INCONCLUSIVE])
def test_only_a_pass_gives_a_release_more_traffic(outcome: Outcome) -> None:
    for age_s in (0, 60, 120, 599, 600, 10_000):
        for step in (0, 1):
            standing = Standing(**NEW | {"step": step, "age_s": age_s})
            action = decide(SECTION, standing, judgement_of(Condition("x", outcome, "because"))).action
            assert action not in (Action.ADVANCE, Action.GO_LIVE)
