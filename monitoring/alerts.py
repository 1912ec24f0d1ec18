"""When to wake somebody: the alert rules, and for each the cases in which it must and must not fire.

The cases become `promtool test rules` input, so a rule that never fires cannot stay unnoticed.
Knows nothing of who is woken. Next: `provisioning.py`, which writes the files.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from monitoring import queries
from monitoring.queries import latency_quantile

ERROR_RATIO_LIMIT = 0.001
LATENCY_P95_LIMIT_S = 2.0
_WINDOW = "5m"
# Below this, one unlucky request decides: 1 failure in 100 is already ten times the limit.
MIN_JUDGED_REQUESTS = 100
MIN_TIMED_REQUESTS = 20

Severity = Literal["page", "ticket"]


@dataclass(frozen=True)
class Case:
    """Series (promtool's notation, one value a minute) and the labels of the alerts that fire at `at`; none means quiet."""

    name: str
    series: dict[str, str]
    at: str
    fires: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Alert:
    """One rule. `hold` is how long the condition must last; `runbook` is the first thing to do."""

    name: str
    expr: str
    hold: str
    severity: Severity
    summary: str
    runbook: str
    cases: tuple[Case, ...] = field(default=())

    def rule(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook": self.runbook},
        }

    def tests(self) -> list[dict[str, Any]]:
        """The cases as `promtool test rules` reads them."""
        return [self._test(case) for case in self.cases]

    def _test(self, case: Case) -> dict[str, Any]:
        # promtool compares annotations letter by letter, so the labels they quote are filled in here.
        expected = [
            {
                "exp_labels": {"severity": self.severity, **labels},
                "exp_annotations": {"summary": _filled(self.summary, labels), "runbook": self.runbook},
            }
            for labels in case.fires
        ]
        return {
            "name": f"{self.name}: {case.name}",
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "alert_rule_test": [{"eval_time": case.at, "alertname": self.name, "exp_alerts": expected}],
        }


def _filled(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace("{{ $labels." + name + " }}", value)
    return text


def _outcome(outcome: str, release: str = "clinic-1") -> str:
    return f'tunegate_requests_total{{release="{release}",route="chat_completions",outcome="{outcome}"}}'


def _buckets(release: str, under_1_s: int, under_2_s: int, under_10_s: int) -> dict[str, str]:
    """Requests a minute that took at most 1, 2 and 10 seconds."""
    labels = f'release="{release}",route="chat_completions"'
    each = {"1.0": under_1_s, "2.0": under_2_s, "10.0": under_10_s, "+Inf": under_10_s}
    buckets = {f'tunegate_request_duration_seconds_bucket{{{labels},le="{le}"}}': f"0+{count}x15" for le, count in each.items()}
    return {**buckets, f"tunegate_request_duration_seconds_count{{{labels}}}": f"0+{under_10_s}x15"}


_CHAMPION = 'tunegate_release_info{release="clinic-1",public_name="clinic",state="live",model_digest="d"}'
_UP = 'up{job="tunegate",instance="g"}'

ERROR_RATIO = Alert(
    name="TunegateErrorRatioHigh",
    expr=(
        f"{queries.ERROR_RATIO_OVERALL.over(_WINDOW)} > {ERROR_RATIO_LIMIT:g}\n"
        f"and {queries.JUDGED_REQUESTS.over(_WINDOW)} >= {MIN_JUDGED_REQUESTS}"
    ),
    hold="1m",
    severity="page",
    summary="more than 0.1 % of requests failed in the last 5 minutes",
    runbook="tunegate status; tunegate rollback NAME if a promotion began it; else read slots/RELEASE/vllm.log in TUNEGATE_HOME",
    cases=(
        Case("1 % of 100 a minute fails", {_outcome("ok"): "0+99x15", _outcome("server_error"): "0+1x15"}, "10m", ({},)),
        Case("timeouts are failures", {_outcome("ok"): "0+99x15", _outcome("timeout"): "0+1x15"}, "10m", ({},)),
        Case("no ready release is a failure", {_outcome("ok"): "0+99x15", _outcome("server_error", "none"): "0+50x15"}, "10m", ({},)),
        Case("0.05 % is within the objective", {_outcome("ok"): "0+1999x15", _outcome("server_error"): "0+1x15"}, "10m"),
        Case("callers' own errors and hang-ups are not ours", {_outcome("client_error"): "0+50x15", _outcome("aborted"): "0+50x15"}, "10m"),
        Case("too few requests to judge", {_outcome("ok"): "0+2x15", _outcome("server_error"): "0+2x15"}, "10m"),
        Case("no traffic", {_outcome("ok"): "0+0x15", _outcome("server_error"): "0+0x15"}, "10m"),
        Case("errors that have stopped", {_outcome("ok"): "0+99x30", _outcome("server_error"): "0+1x5 5+0x25"}, "20m"),
    ),
)

LATENCY = Alert(
    name="TunegateLatencyP95High",
    expr=(
        f"{latency_quantile(0.95).over(_WINDOW)} > {LATENCY_P95_LIMIT_S:g}\n"
        f"and on (release) {queries.TIMED_REQUESTS.over(_WINDOW)} >= {MIN_TIMED_REQUESTS}"
    ),
    hold="2m",
    severity="page",
    summary="5 % of {{ $labels.release }}'s answers take longer than 2 s",
    runbook="look at in flight and tokens a second; tunegate rollback NAME if a promotion began it, else lower TUNEGATE_MAX_IN_FLIGHT",
    cases=(
        Case("10 % take 2 to 10 s", _buckets("clinic-1", 80, 90, 100), "10m", ({"release": "clinic-1"},)),
        Case(
            "only the slow release",
            _buckets("clinic-1", 80, 90, 100) | _buckets("clinic-2", 99, 100, 100),
            "10m",
            ({"release": "clinic-1"},),
        ),
        Case("4 % take longer", _buckets("clinic-1", 90, 96, 100), "10m"),
        Case("too few requests to judge", _buckets("clinic-1", 0, 0, 3), "10m"),
        Case("no traffic", _buckets("clinic-1", 0, 0, 0), "10m"),
    ),
)

CHAMPION_DOWN = Alert(
    name="TunegateChampionDown",
    expr=queries.CHAMPION_SLOT_DOWN.expr,
    hold="1m",
    severity="page",
    summary="{{ $labels.release }} is in production for {{ $labels.public_name }} and its engine is not ready",
    runbook="tunegate status tells why; the supervisor restarts it by itself; tunegate rollback NAME if it does not come up",
    cases=(
        Case(
            "the engine restarts",
            {_CHAMPION: "1x10", 'tunegate_slot_state{release="clinic-1",state="ready"}': "0x10"},
            "5m",
            ({"release": "clinic-1", "public_name": "clinic"},),
        ),
        Case("no engine at all", {_CHAMPION: "1x10"}, "5m", ({"release": "clinic-1", "public_name": "clinic"},)),
        Case("ready", {_CHAMPION: "1x10", 'tunegate_slot_state{release="clinic-1",state="ready"}': "1x10"}, "5m"),
    ),
)

NO_CHAMPION = Alert(
    name="TunegateNoChampion",
    expr=queries.NO_CHAMPION.expr,
    hold="5m",
    severity="ticket",
    summary="the gateway at {{ $labels.instance }} runs and has nothing in production",
    runbook="tunegate releases; promote one, or run a recipe: its base model becomes the first champion",
    cases=(
        Case("nothing in production", {_UP: "1x15"}, "10m", ({"job": "tunegate", "instance": "g"},)),
        Case("a champion", {_UP: "1x15", _CHAMPION: "1x15"}, "10m"),
        Case("a gateway that is down is another alert", {_UP: "0x15"}, "10m"),
    ),
)

SLOT_FAILED = Alert(
    name="TunegateSlotFailed",
    expr=queries.SLOT_FAILED.expr,
    hold="2m",
    severity="ticket",
    summary="the engine of {{ $labels.release }} does not come up",
    runbook="tunegate status gives the reason; the last lines of slots/RELEASE/vllm.log in TUNEGATE_HOME give the cause",
    cases=(
        Case("failed", {'tunegate_slot_state{release="clinic-2",state="failed"}': "1x10"}, "5m", ({"release": "clinic-2"},)),
        Case("starting", {'tunegate_slot_state{release="clinic-2",state="failed"}': "0x10"}, "5m"),
    ),
)

GATEWAY_DOWN = Alert(
    name="TunegateGatewayDown",
    expr=queries.GATEWAY_DOWN.expr,
    hold="1m",
    severity="page",
    summary="the gateway at {{ $labels.instance }} does not answer",
    runbook="is tunegate serve running? the end of serve.log in TUNEGATE_HOME says why it stopped",
    cases=(
        Case("down", {_UP: "0x10"}, "5m", ({"job": "tunegate", "instance": "g"},)),
        Case("up", {_UP: "1x10"}, "5m"),
    ),
)

ALERTS = (ERROR_RATIO, LATENCY, CHAMPION_DOWN, NO_CHAMPION, SLOT_FAILED, GATEWAY_DOWN)
