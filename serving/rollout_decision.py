"""What follows from a judgement: wait, the next step, all the traffic, back. A function of values, without clock or registry.

    FAIL          so many looks in a row as `threshold` says → rolled back
    ERROR         as many → withdrawn: nobody may go on blindly, and nothing was found against the release
    INCONCLUSIVE  wait; after `max_step_s` → withdrawn
    PASS          after `min_s` → the next step, and after the last one all the traffic

While it is live only FAIL counts, and when the watch is over that is the end: one promotion is rolled back by itself at most once.
Nothing goes to a release that is not ready. Next: `rollout_controller.py`, which asks and acts.
"""

from dataclasses import dataclass
from enum import StrEnum

from evaluation.outcome import Outcome
from serving.rollout_judging import Judgement
from serving.rollout_section import RolloutSection


class Action(StrEnum):
    """What the controller does next."""

    HOLD = "hold"
    ADVANCE = "advance"
    GO_LIVE = "go live"
    ROLL_BACK = "roll back"
    WITHDRAW = "withdraw"
    FINISH = "finish"


@dataclass(frozen=True)
class Standing:
    """Where a rollout is. `back_ready`: whether the release that would take over could answer now."""

    step: int
    failures: int
    errors: int
    age_s: float
    live: bool = False
    paused: bool = False
    back_ready: bool = True


@dataclass(frozen=True)
class Decision:
    """The action, the rows of bad looks after this one, and why. `stuck`: it should go back and there is nobody to go back to."""

    action: Action
    failures: int
    errors: int
    reason: str
    stuck: bool = False


def decide(section: RolloutSection, standing: Standing, judgement: Judgement) -> Decision:
    """The next action."""
    failures, errors = _rows(standing, judgement.outcome)
    action = _action(section, standing, judgement.outcome, failures, errors)
    reason = judgement.reason
    stuck = action in (Action.ROLL_BACK, Action.WITHDRAW) and not standing.back_ready
    if stuck:
        action, reason = Action.HOLD, f"stays, because the release to go back to is not ready; {reason}"
    elif action is Action.WITHDRAW and errors < section.threshold:
        reason = f"no PASS within {section.max_step_s:g} s; {reason}"
    return Decision(action, failures, errors, reason, stuck)


def _rows(standing: Standing, outcome: Outcome) -> tuple[int, int]:
    """(FAILs, ERRORs) in a row. Not being able to look neither excuses a FAIL nor adds one."""
    if outcome is Outcome.FAIL:
        return standing.failures + 1, 0
    if outcome is Outcome.ERROR:
        return standing.failures, standing.errors + 1
    return 0, 0


def _action(section: RolloutSection, standing: Standing, outcome: Outcome, failures: int, errors: int) -> Action:
    if outcome is Outcome.FAIL and failures >= section.threshold:
        return Action.ROLL_BACK
    if standing.live:
        over = standing.age_s >= section.watch_s and failures == 0
        return Action.FINISH if over or standing.age_s >= 2 * section.watch_s else Action.HOLD
    if standing.paused:
        return Action.HOLD
    if errors >= section.threshold or (outcome is not Outcome.PASS and standing.age_s >= section.max_step_s):
        return Action.WITHDRAW
    if outcome is not Outcome.PASS or standing.age_s < section.steps[standing.step].min_s:
        return Action.HOLD
    return Action.ADVANCE if standing.step + 1 < len(section.steps) else Action.GO_LIVE
