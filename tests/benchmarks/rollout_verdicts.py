"""How often a rollout's step is right: equal releases that are rolled back by mistake, and bad ones, and after how many looks.

    python -m tests.benchmarks.rollout_verdicts [STEPS]

Simulated: Poisson traffic of which the canary gets 5 %, log-normal answer times, faults as they come. The code that judges and
decides is the controller's own. Each row is STEPS steps, each of at most 120 looks.
"""

import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from serving.rollout_counts import Counts, bucket_of
from serving.rollout_decision import Action, Standing, decide
from serving.rollout_judging import judge_windows
from serving.rollout_section import RolloutSection, RolloutStep

SECTION = RolloutSection(steps=(RolloutStep(percent=5, min_requests=300, min_s=60),), interval_s=5, max_step_s=600)
SHARE = 0.05


@dataclass(frozen=True)
class Case:
    """A canary beside a champion: failures as shares of all requests, `pace` as a multiple of the champion's times."""

    name: str
    champion_failed: float = 0.001
    canary_failed: float = 0.001
    pace: float = 1.0
    broken: float = 0.0


CASES = (
    Case("equal, 0.1 % fail"),
    Case("equal, 1 % fail", 0.01, 0.01),
    Case("equal, 5 % fail", 0.05, 0.05),
    Case("5 % fail", canary_failed=0.05),
    Case("3 times as slow", pace=3.0),
    Case("half break a rule", broken=0.5),
)


def counted(dice: np.random.Generator, per_s: float, failed: float, pace: float, broken: float) -> Counts:
    """What one release shows in one interval."""
    requests = int(dice.poisson(per_s * SECTION.interval_s))
    bad = int(dice.binomial(requests, failed))
    times = Counter(bucket_of(time) for time in dice.lognormal(-0.7, 0.5, requests - bad) * pace)
    checked = int(dice.binomial(requests - bad, 0.2))
    return Counts(answered=requests - bad, failed=bad, checked=checked, broken=int(dice.binomial(checked, broken)), durations=dict(times))


def one_step(dice: np.random.Generator, case: Case, per_s: float) -> tuple[Action, int]:
    """How a step ends, and after how many looks."""
    sums, failures, look = [(Counts(), Counts())], 0, 0
    while True:
        look += 1
        canary = counted(dice, per_s * SHARE, case.canary_failed, case.pace, case.broken)
        champion = counted(dice, per_s * (1 - SHARE), case.champion_failed, 1.0, 0.0)
        now = (sums[-1][0] + canary, sums[-1][1] + champion)
        windows = [(now[0] - then[0], now[1] - then[1]) for then in (sums[0], sums[max(0, len(sums) - SECTION.threshold)], sums[-1])]
        sums.append(now)
        judgement = judge_windows(windows, SECTION, SECTION.steps[0].min_requests)
        standing = Standing(step=0, failures=failures, errors=0, age_s=look * SECTION.interval_s)
        decision = decide(SECTION, standing, judgement)
        failures = decision.failures
        if decision.action is not Action.HOLD:
            return decision.action, look


def main(arguments: list[str]) -> None:
    """Simulate every case at every rate, and print the table."""
    steps = int(arguments[0]) if arguments else 200
    print(f"{'canary':20}{'requests/s':>11}{'passed':>9}{'rolled back':>13}{'withdrawn':>11}{'looks p50':>11}{'p95':>5}")
    for case in CASES:
        for per_s in (20.0, 100.0, 500.0):
            dice = np.random.default_rng(5)
            ends = [one_step(dice, case, per_s) for _ in range(steps)]
            shares = [sum(action is wanted for action, _ in ends) / steps for wanted in (Action.GO_LIVE, Action.ROLL_BACK, Action.WITHDRAW)]
            p50, p95 = np.quantile([looks for _, looks in ends], [0.5, 0.95])
            print(f"{case.name:20}{per_s:>11.0f}{shares[0]:>9.1%}{shares[1]:>13.1%}{shares[2]:>11.1%}{p50:>11.0f}{p95:>5.0f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
