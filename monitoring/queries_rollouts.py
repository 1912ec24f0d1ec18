"""The questions about promotions by steps. What decides is the controller's own look at both releases' counts, never an answer from here.

Next: `queries.py`, what a question is; `serving/metrics_rollouts.py`, where the series come from.
"""

from monitoring.queries import WINDOW, Query

STEP = Query(
    "rollout_step", "max by (public_name, release) (tunegate_rollout_step)", "none", "{{release}}: step", "From 1, as in its recipe"
)
SHARE = Query(
    "rollout_share",
    "max by (public_name, release) (tunegate_rollout_share_ratio)",
    "percentunit",
    "{{release}} is to get",
    "The part of the traffic that a rollout gives a release; what it gets beside that tells whether the gateway follows",
)
LEASE = Query(
    "rollout_lease",
    "max by (public_name, release) (tunegate_rollout_lease_seconds)",
    "s",
    "{{release}}",
    "What is left of a canary's lease, renewed long before its end; at 0 the champion has all the traffic",
)
LAST_LOOK = Query(
    "rollout_outcome",
    "sum by (public_name, release, outcome) (tunegate_rollout_outcome) == 1",
    "short",
    "{{release}}: {{outcome}}",
    "What the last look at a rollout came to; PASS goes on to the next step, FAIL back",
)
FAILING = Query(
    "rollout_failing",
    "max by (public_name, release, condition) (tunegate_rollout_failing)",
    "short",
    "{{release}} {{condition}}",
    "1 for each condition in which the last look found a release worse than the champion",
)
STUCK = Query(
    "rollout_stuck",
    "max by (public_name, release) (tunegate_rollout_stuck)",
    "short",
    "{{release}}",
    "1 while a release should give the traffic back and the one to go back to is not ready",
)
ENDED = Query(
    "rollouts_ended",
    "sum by (public_name, status, outcome) (tunegate_rollouts_ended_total) > 0",
    "short",
    "{{public_name}} {{status}}: {{outcome}}",
    "Rollouts since the registry was made, by how they ended and what the last look had found",
)
WITHDRAWN = Query(
    "rollouts_withdrawn",
    'sum by (public_name, outcome) (increase(tunegate_rollouts_ended_total{status="withdrawn",outcome=~"FAIL|INCONCLUSIVE|ERROR"}'
    f"[{WINDOW}]))",
    "short",
    "{{public_name}} {{outcome}}",
    "Rollouts that the controller gave up without a verdict; one that a person stopped is left out",
)
ROLLBACKS = Query(
    "rollbacks",
    f'sum by (public_name) (increase(tunegate_release_transitions_total{{to="rolled_back"}}[{WINDOW}]))',
    "short",
    "{{public_name}}",
    "Releases taken back, by hand or by themselves",
)
