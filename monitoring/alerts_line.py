"""Alerts about what is made and what it says: evidence, runs, retraining, live answers, the disk. Next: `alerting.py`, what an alert is."""

from monitoring import queries_line as line
from monitoring.alerting import Alert, Case

CRITICAL_LIMIT = 0.02
MIN_CHECKED = 50
DRIFT_LIMIT = 0.25
MIN_WINDOW = 100
DISK_LOW, DISK_FULL = 0.10, 0.03

_NEWEST = 'tunegate_newest_release_timestamp_seconds{public_name="clinic"}'
_MONTH_S = 30 * 86_400
_OF_CLINIC = {"public_name": "clinic"}


def _runs(step: str, outcome: str = "failed") -> str:
    return f'tunegate_step_runs_total{{public_name="clinic",step="{step}",outcome="{outcome}"}}'


def _live(broken: str, checked: str) -> dict[str, str]:
    return {
        'tunegate_live_rule_violations_total{release="clinic-1",severity="critical"}': broken,
        'tunegate_live_checked_total{release="clinic-1"}': checked,
    }


def _drift(index: float, chance: float, window: int) -> dict[str, str]:
    labels = 'release="clinic-1",measure="prompt_topic"'
    return {
        f"tunegate_drift_index{{{labels}}}": f"{index}x60",
        f"tunegate_drift_chance_index{{{labels}}}": f"{chance}x60",
        'tunegate_live_window_answers{release="clinic-1"}': f"{window}x60",
    }


def _disk(free: int) -> dict[str, str]:
    return {'tunegate_disk_free_bytes{instance="g"}': f"{free}x20", 'tunegate_disk_size_bytes{instance="g"}': "100x20"}


EVIDENCE_BROKEN = Alert(
    name="TunegateEvidenceBroken",
    expr=f"{line.EVIDENCE_FAILURES.expr} > 0",
    hold="0m",
    severity="ticket",
    summary="{{ $labels.step }} failed for {{ $labels.public_name }}: there is no proof that what would be served is what was trained",
    runbook="the run's output names the mismatch; nothing was promoted; run the recipe again once it is mended",
    signals=(line.EVIDENCE_FAILURES.expr,),
    cases=(
        Case("parity does not hold", {_runs("parity"): "0x5 1x10"}, "8m", (_OF_CLINIC | {"step": "parity"},)),
        Case("a merge without a certificate", {_runs("merge"): "0x5 1x10"}, "8m", (_OF_CLINIC | {"step": "merge"},)),
        Case("parity holds", {_runs("parity"): "0x15", _runs("parity", "ok"): "0x5 1x10"}, "8m"),
        Case("another stage failed", {_runs("sft"): "0x5 1x10"}, "8m"),
    ),
)

RUN_FAILED = Alert(
    name="TunegateRunFailed",
    expr=f"{line.FLOW_FAILURES.expr} > 0",
    hold="0m",
    severity="ticket",
    summary="{{ $labels.step }} failed for {{ $labels.public_name }} within the last hour",
    runbook="the dashboard of training shows which stage; its .log lies beside its folder in runs/; the same command goes on from there",
    signals=(line.FLOW_FAILURES.expr,),
    cases=(
        Case("a run failed", {_runs("retrain"): "0x5 1x10"}, "8m", (_OF_CLINIC | {"step": "retrain"},)),
        Case("a run ended well", {_runs("retrain"): "0x15", _runs("retrain", "ok"): "0x5 1x10"}, "8m"),
    ),
)

RETRAIN_OVERDUE = Alert(
    name="TunegateRetrainOverdue",
    expr=f"{line.RELEASE_AGE.expr} > on () group_left () ({line.RETRAIN_DUE.expr} > 0)",
    hold="10m",
    severity="ticket",
    summary="{{ $labels.public_name }} has had no new release for longer than TUNEGATE_RETRAIN_DAYS",
    runbook="is the schedule running? tunegate run RECIPE makes one by hand; TUNEGATE_RETRAIN_DAYS=0 if no more are wanted",
    signals=(line.RELEASE_AGE.expr, line.RETRAIN_DUE.expr),
    cases=(
        Case("31 days", {_NEWEST: f"{-31 * 86_400}x30", "tunegate_retrain_due_seconds": f"{_MONTH_S}x30"}, "20m", (_OF_CLINIC,)),
        Case("29 days", {_NEWEST: f"{-29 * 86_400}x30", "tunegate_retrain_due_seconds": f"{_MONTH_S}x30"}, "20m"),
        Case("never overdue", {_NEWEST: f"{-31 * 86_400}x30", "tunegate_retrain_due_seconds": "0x30"}, "20m"),
    ),
)

RULES_BROKEN = Alert(
    name="TunegateRulesBroken",
    expr=f"{line.CRITICAL_VIOLATIONS.expr} > {CRITICAL_LIMIT:g}\nand on (release) {line.CHECKED_LATELY.expr} >= {MIN_CHECKED}",
    hold="5m",
    severity="page",
    summary="more than 2 % of {{ $labels.release }}'s live answers break a critical rule",
    runbook="tunegate rollback NAME if the release before did not; keep answers for a while (TUNEGATE_CAPTURE_RATIO) to see which rule",
    signals=(line.CHECKED_LATELY.expr, 'tunegate_live_rule_violations_total{severity="critical"}'),
    action="collect",
    cases=(
        Case("one in twenty", _live("0+1x90", "0+20x90"), "80m", ({"release": "clinic-1"},)),
        Case("one in a hundred", _live("0+1x90", "0+100x90"), "80m"),
        Case("too few to judge", _live("0+1x8 8+0x80", "0+2x8 16+0x80"), "30m"),
        Case("nothing is checked", _live("0x90", "0x90"), "80m"),
    ),
)

DRIFTED = Alert(
    name="TunegateDrift",
    expr=(
        f"{line.DRIFTED.expr} > {DRIFT_LIMIT:g}\n"
        f"and on (release, measure) {line.DRIFT_OVER_CHANCE.expr} > 0\n"
        f"and on (release) {line.LIVE_WINDOW_ANSWERS.expr} >= {MIN_WINDOW}"
    ),
    hold="30m",
    severity="ticket",
    summary="{{ $labels.measure }} of {{ $labels.release }}'s traffic is no longer like the suite it was judged by",
    runbook="the gate says nothing about what the suite does not ask: add such prompts to the suite, and rows like them to the data",
    signals=(line.DRIFTED.expr, line.DRIFT_OVER_CHANCE.expr, line.LIVE_WINDOW_ANSWERS.expr),
    action="collect",
    cases=(
        Case("another kind of prompts", _drift(0.6, 0.2, 300), "50m", ({"release": "clinic-1", "measure": "prompt_topic"},)),
        Case("somewhat different", _drift(0.2, 0.1, 300), "50m"),
        Case("no more than chance explains", _drift(0.6, 0.7, 300), "50m"),
        Case("too few answers", _drift(0.6, 0.2, 60), "50m"),
    ),
)

DISK_IS_LOW = Alert(
    name="TunegateDiskLow",
    expr=f"{line.DISK_FREE.expr} < {DISK_LOW:g}",
    hold="5m",
    severity="ticket",
    summary="less than 10 % of the disk of TUNEGATE_HOME is free",
    runbook="remove folders of old runs below runs/ whose releases are rejected; each holds a model and checkpoints",
    signals=(line.DISK_FREE.expr,),
    cases=(Case("7 % free", _disk(7), "10m", ({"instance": "g"},)), Case("20 % free", _disk(20), "10m")),
)

DISK_IS_FULL = Alert(
    name="TunegateDiskFull",
    expr=f"{line.DISK_FREE.expr} < {DISK_FULL:g}",
    hold="1m",
    severity="page",
    summary="less than 3 % of the disk of TUNEGATE_HOME is free: the registry will soon refuse promotions and rollbacks",
    runbook="stop running stages; remove runs/ of rejected releases, then slots/*/vllm.log.1; routing goes on meanwhile",
    signals=(line.DISK_FREE.expr,),
    cases=(Case("2 % free", _disk(2), "10m", ({"instance": "g"},)), Case("7 % free", _disk(7), "10m")),
)

LINE = (EVIDENCE_BROKEN, RUN_FAILED, RETRAIN_OVERDUE, RULES_BROKEN, DRIFTED, DISK_IS_LOW, DISK_IS_FULL)
