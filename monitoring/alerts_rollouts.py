"""Alerts about promotions by steps, each from what the controller itself has found. Next: `alerting.py`, what an alert is."""

from monitoring import queries_rollouts
from monitoring.alerting import Alert, Case

_OF_CANARY = {"public_name": "clinic", "release": "clinic-2"}
_GOOD = ("failed requests", "latency p95", "broken rules")


def _labels(**more: str) -> str:
    return ",".join(f'{name}="{value}"' for name, value in (_OF_CANARY | more).items())


def _failing(*conditions: str, values: str = "1x10") -> dict[str, str]:
    """These fail from the start, the others do not."""
    return {
        f"tunegate_rollout_failing{{{_labels(condition=each)}}}": values if each in conditions else "0x10" for each in (*_GOOD, *conditions)
    }


def _ended(status: str, outcome: str) -> str:
    return f'tunegate_rollouts_ended_total{{public_name="clinic",status="{status}",outcome="{outcome}"}}'


def _fires(condition: str) -> tuple[dict[str, str], ...]:
    return (_OF_CANARY | {"condition": condition},)


CANARY_FAILING = Alert(
    name="TunegateCanaryFailing",
    expr=f"{queries_rollouts.FAILING.expr} == 1",
    hold="0m",
    severity="page",
    summary="{{ $labels.release }}, being rolled out for {{ $labels.public_name }}, is worse than the champion: {{ $labels.condition }}",
    runbook="it is taken back by itself within seconds, and this ends; if it goes on, tunegate rollback NAME; then tunegate show RELEASE",
    signals=(queries_rollouts.FAILING.expr,),
    cases=(
        Case("5 % of its requests fail", _failing("failed requests"), "5m", _fires("failed requests")),
        Case("3 times as slow", _failing("latency p95"), "5m", _fires("latency p95")),
        Case("first token 3 times as late", _failing("first token p95"), "5m", _fires("first token p95")),
        Case("garbage", _failing("broken rules"), "5m", _fires("broken rules")),
        Case("its engine is gone", _failing("slot"), "5m", _fires("slot")),
        Case("slow and wrong", _failing("latency p95", "broken rules"), "5m", (*_fires("broken rules"), *_fires("latency p95"))),
        Case("it fails nothing", _failing(), "5m"),
        Case("it was taken back", _failing("broken rules", values="1x3 stale"), "8m"),
    ),
)

ROLLBACK_STUCK = Alert(
    name="TunegateRollbackStuck",
    expr=f"{queries_rollouts.STUCK.expr} == 1",
    hold="0m",
    severity="page",
    summary="{{ $labels.release }} should give {{ $labels.public_name }}'s traffic back, and the release to go back to is not ready",
    runbook="tunegate status says what is wrong with that release's engine; as soon as it is ready the rollback happens by itself",
    signals=(queries_rollouts.STUCK.expr,),
    cases=(
        Case("nobody to go back to", {f"tunegate_rollout_stuck{{{_labels()}}}": "0x3 1x5"}, "5m", (_OF_CANARY,)),
        Case("the other one is ready again", {f"tunegate_rollout_stuck{{{_labels()}}}": "1x3 stale"}, "8m"),
        Case("nothing is wanted back", {f"tunegate_rollout_stuck{{{_labels()}}}": "0x10"}, "5m"),
    ),
)

ROLLOUT_WITHDRAWN = Alert(
    name="TunegateRolloutWithdrawn",
    expr=f"{queries_rollouts.WITHDRAWN.over('10m')} > 0",
    hold="0m",
    severity="ticket",
    summary="a rollout of {{ $labels.public_name }} was given up within the last 10 minutes: {{ $labels.outcome }}",
    runbook="tunegate show RELEASE says why; it is approved as before: mend that, and promote it again",
    signals=(queries_rollouts.WITHDRAWN.over("10m"),),
    cases=(
        Case(
            "too few requests",
            {_ended("withdrawn", "INCONCLUSIVE"): "0x5 1x10"},
            "8m",
            ({"public_name": "clinic", "outcome": "INCONCLUSIVE"},),
        ),
        Case("nothing was counted", {_ended("withdrawn", "ERROR"): "2x5 3x10"}, "8m", ({"public_name": "clinic", "outcome": "ERROR"},)),
        Case("a person stopped it", {_ended("withdrawn", "ABORTED"): "0x5 1x10"}, "8m"),
        Case("it went well", {_ended("done", "PASS"): "0x5 1x10", _ended("withdrawn", "ERROR"): "3x15"}, "8m"),
    ),
)

ROLLED_BACK = Alert(
    name="TunegateRolledBack",
    expr=f"{queries_rollouts.ROLLBACKS.over('10m')} > 0",
    hold="0m",
    severity="ticket",
    summary="a release of {{ $labels.public_name }} was taken back within the last 10 minutes",
    runbook="tunegate show RELEASE says who or what did it and why; the champion before it answers, callers need nothing",
    signals=(queries_rollouts.ROLLBACKS.over("10m"),),
    cases=(
        Case(
            "one more than before",
            {'tunegate_release_transitions_total{public_name="clinic",to="rolled_back"}': "0x5 1x10"},
            "8m",
            ({"public_name": "clinic"},),
        ),
        Case("a promotion", {'tunegate_release_transitions_total{public_name="clinic",to="live"}': "0x5 1x10"}, "8m"),
        Case("long ago", {'tunegate_release_transitions_total{public_name="clinic",to="rolled_back"}': "3x30"}, "20m"),
    ),
)

ROLLOUTS = (CANARY_FAILING, ROLLBACK_STUCK, ROLLOUT_WITHDRAWN, ROLLED_BACK)
