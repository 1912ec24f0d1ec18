"""What an alert rule is, and how it is tested: its cases become `promtool test rules` input, so that one that never fires is noticed.

`signals` are the questions whose answers the expression compares. They must have data while all is well, which a test proves with a
real Prometheus: an alert about a series that does not exist is quiet for ever. Next: `alerts.py`.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

Severity = Literal["page", "ticket"]
Action = Literal["collect", "retrain"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True)
class Case:
    """Series (promtool's notation, one value an interval) and the labels of the alerts that fire at `at`; none means quiet."""

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
    signals: tuple[str, ...]
    cases: tuple[Case, ...] = ()
    test_interval: str = "1m"
    """Between two values of a case's series, and two evaluations: days of minutes take promtool minutes."""
    action: Action | None = None
    """What starts by itself: Alertmanager sends such an alert to the hooks too, and a trigger of deploy/prefect.yaml waits for it."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its own, beside those of its series."""
        return {"severity": self.severity} | ({"action": self.action} if self.action else {})

    def rule(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": self.labels,
            "annotations": {"summary": self.summary, "runbook": self.runbook},
        }

    def tests(self) -> list[dict[str, Any]]:
        """The cases as `promtool test rules` reads them."""
        return [self._test(case) for case in self.cases]

    def _test(self, case: Case) -> dict[str, Any]:
        # promtool compares annotations letter by letter, so the labels they quote are filled in here.
        expected = [
            {
                "exp_labels": {**self.labels, **labels},
                "exp_annotations": {"summary": _filled(self.summary, labels), "runbook": self.runbook},
            }
            for labels in case.fires
        ]
        return {
            "name": f"{self.name}: {case.name}",
            "interval": self.test_interval,
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "alert_rule_test": [{"eval_time": case.at, "alertname": self.name, "exp_alerts": expected}],
        }


def _filled(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace("{{ $labels." + name + " }}", value)
    return text
