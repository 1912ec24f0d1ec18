"""What the line that makes releases, the sample of live answers, and the machine say. Next: `queries.py`, what the gateway says."""

from monitoring.queries import WINDOW, Query

LIVE_WINDOW = "1h"
EVIDENCE_STEPS = "merge|render|parity"
FLOWS = "retrain|promote"

CHECKED = Query(
    "live_checked",
    f"sum by (release) (rate(tunegate_live_checked_total[{WINDOW}])) * 60",
    "short",
    "{{release}}",
    "Live answers a minute held against the rules; TUNEGATE_LIVE_CHECKS_PER_MINUTE bounds them",
)
UNCHECKED = Query(
    "live_unchecked",
    f"sum by (reason) (rate(tunegate_live_unchecked_total[{WINDOW}])) * 60",
    "short",
    "{{reason}}",
    "Sampled answers a minute that could not be looked at; no_reference: the release was never judged on this machine",
)
VIOLATIONS = Query(
    "live_violations",
    f"sum by (release, severity) (rate(tunegate_live_rule_violations_total[{WINDOW}])) "
    f"/ on (release) group_left () (sum by (release) (rate(tunegate_live_checked_total[{WINDOW}])) > 0)",
    "short",
    "{{release}} {{severity}}",
    "Rules broken per checked answer, by severity: 0.1 is one in ten answers; no line while nothing is checked",
)
CRITICAL_VIOLATIONS = Query(
    "live_critical_violations",
    f'sum by (release) (increase(tunegate_live_rule_violations_total{{severity="critical"}}[{LIVE_WINDOW}])) '
    f"/ (sum by (release) (increase(tunegate_live_checked_total[{LIVE_WINDOW}])) > 0)",
    "short",
    "{{release}}",
    "Critical rules broken per checked answer in the last hour",
)
CHECKED_LATELY = Query(
    "live_checked_lately",
    f"sum by (release) (increase(tunegate_live_checked_total[{LIVE_WINDOW}]))",
    "short",
    "{{release}}",
    "How many answers that rests on",
)
LIVE_WINDOW_ANSWERS = Query(
    "live_window_answers", "sum by (release) (tunegate_live_window_answers)", "short", "{{release}}", "Answers that drift is measured on"
)
PROMPT_DRIFT = Query(
    "prompt_drift",
    'max by (release, measure) (tunegate_drift_index{measure=~"prompt_.*"})',
    "short",
    "{{release}} {{measure}}",
    "How far callers' prompts are from the suite's (population stability index): below 0.1 alike, above 0.25 another kind",
)
ANSWER_DRIFT = Query(
    "answer_drift",
    'max by (release, measure) (tunegate_drift_index{measure=~"answer_.*"})',
    "short",
    "{{release}} {{measure}}",
    "The same for what the model answers, against what it answered when it was judged",
)
DRIFT_OVER_CHANCE = Query(
    "drift_over_chance",
    "max by (release, measure) (tunegate_drift_index) - max by (release, measure) (tunegate_drift_chance_index)",
    "short",
    "{{release}} {{measure}}",
    "Drift less what chance alone explains with so few answers and prompts; only what is above 0 means something",
)
DRIFTED = Query(
    "drifted",
    "max by (release, measure) (tunegate_drift_index)",
    "short",
    "{{release}} {{measure}}",
    "The index of every measure",
)
VERDICTS = Query(
    "verdicts",
    "sum by (public_name, outcome) (tunegate_gate_verdicts_total)",
    "short",
    "{{public_name}} {{outcome}}",
    "Verdicts of the gate since the line's log began",
)
STEP_SECONDS = Query(
    "step_seconds",
    f'max by (public_name, step) (tunegate_step_duration_seconds{{step!~"{FLOWS}"}})',
    "s",
    "{{public_name}} {{step}}",
    "How long the last run of each stage took; a stage that was kept does not count",
)
FLOW_SECONDS = Query(
    "flow_seconds",
    f'max by (public_name, step) (tunegate_step_duration_seconds{{step=~"{FLOWS}"}})',
    "s",
    "{{public_name}} {{step}}",
    "How long the last whole run, and the last promotion, took",
)
STEP_FAILURES = Query(
    "step_failures",
    'sum by (public_name, step) (tunegate_step_runs_total{outcome="failed"})',
    "short",
    "{{public_name}} {{step}}",
    "Runs that failed since the line's log began, by the stage that did",
)
RUNS_TODAY = Query(
    "runs_today",
    f'sum by (public_name, step, outcome) (increase(tunegate_step_runs_total{{step=~"{FLOWS}"}}[1d]))',
    "short",
    "{{public_name}} {{step}} {{outcome}}",
    "Whole runs and promotions in the last day",
)
RELEASE_AGE = Query(
    "release_age",
    "time() - max by (public_name) (tunegate_newest_release_timestamp_seconds)",
    "s",
    "{{public_name}}",
    "Since the newest release was registered, whatever became of it",
)
RETRAIN_DUE = Query(
    "retrain_due",
    "max(tunegate_retrain_due_seconds)",
    "s",
    "limit",
    "TUNEGATE_RETRAIN_DAYS: from then on a retraining is overdue; 0: never",
)
EVIDENCE_FAILURES = Query(
    "evidence_failures",
    f'sum by (public_name, step) (increase(tunegate_step_runs_total{{step=~"{EVIDENCE_STEPS}", outcome="failed"}}[1h]))',
    "short",
    "{{public_name}} {{step}}",
    "Merges without a certificate and servers that are not the trained model, in the last hour",
)
FLOW_FAILURES = Query(
    "flow_failures",
    f'sum by (public_name, step) (increase(tunegate_step_runs_total{{step=~"{FLOWS}", outcome="failed"}}[1h]))',
    "short",
    "{{public_name}} {{step}}",
    "Runs and promotions that failed in the last hour",
)
DISK_FREE = Query(
    "disk_free",
    "min by (instance) (tunegate_disk_free_bytes / tunegate_disk_size_bytes)",
    "percentunit",
    "{{instance}}",
    "Share of the disk of TUNEGATE_HOME that is free; models, checkpoints and the registry lie there",
)
