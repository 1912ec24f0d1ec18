"""The two objectives, 99.9 % of requests answered and 95 % of answers within 2 s, as burn rates over two windows each.

A burn rate of 1 spends exactly the month's allowance in a month. As in Google's SRE workbook (chapter 5): 14.4 over one hour spends 2 %
of it, 6 over six hours 5 %, 1 over three days 10 %; a second window, a twelfth as long, ends the alert soon after the cause has ended.
Next: `alerting.py`, what an alert is.
"""

from monitoring import queries
from monitoring.alerting import Alert, Case
from monitoring.queries import Query

ERROR_ALLOWANCE = 0.001
SLOW_ALLOWANCE = 0.05
LATENCY_P95_LIMIT_S = 2.0
# Below this, one unlucky request decides: 1 failure in 100 is already ten times the allowance.
MIN_REQUESTS = 100

_FAST = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
_SLOW = ((1.0, "3d", "6h"),)
_Pairs = tuple[tuple[float, str, str], ...]


def _burns(query: Query, allowance: float, pairs: _Pairs) -> str:
    """Over each pair of windows: both burn too fast, and the longer one holds enough requests to say so."""
    return "\nor\n".join(
        f"({query.over(long)} > {rate * allowance:g}\n"
        f" and {query.over(short)} > {rate * allowance:g}\n"
        f" and {queries.JUDGED_REQUESTS.over(long)} >= {MIN_REQUESTS})"
        for rate, long, short in pairs
    )


def _signals(query: Query, pairs: _Pairs) -> tuple[str, ...]:
    windows = [window for _, long, short in pairs for window in (long, short)]
    return (*(query.over(window) for window in windows), queries.JUDGED_REQUESTS.over(windows[0]))


def _answers(values: int, **each: int) -> dict[str, str]:
    """So many requests of each outcome in every interval."""
    return {_outcome(outcome): f"0+{count}x{values}" for outcome, count in each.items()}


def _outcome(outcome: str, release: str = "clinic-1") -> str:
    return f'tunegate_requests_total{{release="{release}",route="chat_completions",outcome="{outcome}"}}'


def _times(values: int, *, quick: int, slow: int) -> dict[str, str]:
    """So many answers within 2 s and later, in every interval."""
    labels = 'release="clinic-1",route="chat_completions"'
    return {
        f'tunegate_request_duration_seconds_bucket{{{labels},le="2.0"}}': f"0+{quick}x{values}",
        f"tunegate_request_duration_seconds_count{{{labels}}}": f"0+{quick + slow}x{values}",
        _outcome("ok"): f"0+{quick + slow}x{values}",
    }


_DAYS = 4 * 24

AVAILABILITY_FAST = Alert(
    name="TunegateErrorBudgetBurnsFast",
    expr=_burns(queries.ERROR_RATIO_OVERALL, ERROR_ALLOWANCE, _FAST),
    hold="2m",
    severity="page",
    summary="so many requests fail that the month's allowance of 0.1 % is gone within days",
    runbook="tunegate status; tunegate rollback NAME if a promotion began it; else read slots/RELEASE/vllm.log in TUNEGATE_HOME",
    signals=_signals(queries.ERROR_RATIO_OVERALL, _FAST),
    cases=(
        Case("2 % fail: 20 times the allowance", _answers(90, ok=98, server_error=2), "80m", ({},)),
        Case("timeouts are failures", _answers(90, ok=98, timeout=2), "80m", ({},)),
        Case("no ready release is a failure", {_outcome("ok"): "0+98x90", _outcome("server_error", "none"): "0+2x90"}, "80m", ({},)),
        Case("0.8 % for hours: the longer pair", _answers(500, ok=992, server_error=8), "400m", ({},)),
        Case("a whole outage is paged within minutes", _answers(20, ok=0, server_error=60), "8m", ({},)),
        Case("0.05 % is within the objective", _answers(500, ok=1999, server_error=1), "400m"),
        Case("callers' own errors and hang-ups are not ours", _answers(90, ok=0, client_error=50, aborted=50, rejected=50), "80m"),
        Case("too few requests to judge", _answers(60, ok=1, server_error=0) | {_outcome("timeout"): "0 1 1x60"}, "50m"),
        Case("no traffic", _answers(90, ok=0, server_error=0), "80m"),
        Case("ended 40 minutes ago", {_outcome("ok"): "0+98x160", _outcome("server_error"): "0+3x100 300+0x60"}, "140m"),
    ),
)

AVAILABILITY_SLOW = Alert(
    name="TunegateErrorBudgetBurns",
    expr=_burns(queries.ERROR_RATIO_OVERALL, ERROR_ALLOWANCE, _SLOW),
    hold="15m",
    severity="ticket",
    summary="more than 0.1 % of requests have failed for days",
    runbook="the overview's panel of failures between gateway and slot tells the kind; compare releases there",
    signals=_signals(queries.ERROR_RATIO_OVERALL, _SLOW),
    test_interval="1h",
    cases=(
        Case("0.2 % for four days", _answers(_DAYS, ok=998, server_error=2), "84h", ({},)),
        Case("0.05 % for four days", _answers(_DAYS, ok=1999, server_error=1), "84h"),
    ),
)

LATENCY_FAST = Alert(
    name="TunegateLatencyBudgetBurnsFast",
    expr=_burns(queries.SLOW_RATIO, SLOW_ALLOWANCE, _FAST),
    hold="2m",
    severity="page",
    summary="most answers take longer than 2 s",
    runbook="look at the engine's queue and KV cache; tunegate rollback NAME if a promotion began it, else lower TUNEGATE_MAX_IN_FLIGHT",
    signals=_signals(queries.SLOW_RATIO, _FAST),
    cases=(
        Case("80 % take longer", _times(90, quick=20, slow=80), "80m", ({},)),
        Case("40 % for hours: the longer pair", _times(500, quick=60, slow=40), "400m", ({},)),
        Case("4 % is within the objective", _times(500, quick=96, slow=4), "400m"),
        Case("too few requests to judge", _times(60, quick=0, slow=1), "50m"),
        Case("no traffic", _times(90, quick=0, slow=0), "80m"),
    ),
)

LATENCY_SLOW = Alert(
    name="TunegateLatencyBudgetBurns",
    expr=_burns(queries.SLOW_RATIO, SLOW_ALLOWANCE, _SLOW),
    hold="15m",
    severity="ticket",
    summary="for days, more than 5 % of answers have taken longer than 2 s",
    runbook="compare the releases' p95 before and after the last promotion; else serve on more hardware, or shorten max_tokens",
    signals=_signals(queries.SLOW_RATIO, _SLOW),
    test_interval="1h",
    cases=(
        Case("8 % for four days", _times(_DAYS, quick=92, slow=8), "84h", ({},)),
        Case("4 % for four days", _times(_DAYS, quick=96, slow=4), "84h"),
    ),
)

OBJECTIVES = (AVAILABILITY_FAST, AVAILABILITY_SLOW, LATENCY_FAST, LATENCY_SLOW)
