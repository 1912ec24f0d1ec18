"""The questions we ask of the gateway's metrics, each with a name, a unit and what it means.

Panels and alerts are built from these; none writes PromQL of its own. Pure text, knows no Prometheus server.
Next: `queries_rollouts.py`, `queries_engine.py`, `queries_line.py`, the other questions; `alerts.py`, `dashboards.py`.
"""

from dataclasses import dataclass

WINDOW = "$__rate_interval"
"""Grafana's own choice of window; `Query.over` puts a fixed one in its place."""

# What a caller feels as a failure, and the requests among which it counts: an aborted request was neither answered nor failed,
# a rejected one (key, limits, unknown route) never reached a model.
FAILED = 'outcome=~"server_error|timeout"'
JUDGED = 'outcome=~"ok|client_error|server_error|timeout"'


@dataclass(frozen=True)
class Query:
    """One PromQL expression. `unit` is Grafana's id of the unit; `legend` names each series by its labels."""

    name: str
    expr: str
    unit: str
    legend: str
    help: str

    def over(self, window: str) -> str:
        """The expression with a fixed window, e.g. `5m`."""
        return self.expr.replace(WINDOW, window)


def latency_quantile(quantile: float) -> Query:
    """The time within which this share of a release's answered requests were complete."""
    return Query(
        name=f"latency_p{quantile * 100:g}",
        expr=f"histogram_quantile({quantile:g}, sum by (release, le) (rate(tunegate_request_duration_seconds_bucket[{WINDOW}])))",
        unit="s",
        legend="{{release}} p" + f"{quantile * 100:g}",
        help=f"{quantile:.0%} of a release's answers were complete within this time; aborted requests are left out",
    )


def first_token_quantile(quantile: float) -> Query:
    """The time within which this share of a release's streams began."""
    return Query(
        name=f"first_token_p{quantile * 100:g}",
        expr=f"histogram_quantile({quantile:g}, sum by (release, le) (rate(tunegate_time_to_first_token_seconds_bucket[{WINDOW}])))",
        unit="s",
        legend="{{release}} p" + f"{quantile * 100:g}",
        help=f"{quantile:.0%} of a release's streams began within this time",
    )


def inter_token_quantile(quantile: float) -> Query:
    """The time between two tokens that this share of a release's streams stayed below, each stream by its mean."""
    return Query(
        name=f"inter_token_p{quantile * 100:g}",
        expr=f"histogram_quantile({quantile:g}, sum by (release, le) (rate(tunegate_inter_token_seconds_bucket[{WINDOW}])))",
        unit="s",
        legend="{{release}} p" + f"{quantile * 100:g}",
        help=f"{quantile:.0%} of a release's complete streams had less than this between two tokens, on average",
    )


REQUESTS_BY_OUTCOME = Query(
    "requests_by_outcome",
    f"sum by (outcome) (rate(tunegate_requests_total[{WINDOW}]))",
    "reqps",
    "{{outcome}}",
    "Requests a second by how they ended; a stream that broke off is a server_error though HTTP said 200",
)
REQUESTS_BY_RELEASE = Query(
    "requests_by_release",
    f"sum by (release) (rate(tunegate_requests_total[{WINDOW}]))",
    "reqps",
    "{{release}}",
    "Requests a second by the release that answered; 'none' were never routed",
)
ERROR_RATIO = Query(
    "error_ratio",
    f'sum by (release) (rate(tunegate_requests_total{{release!="none",{FAILED}}}[{WINDOW}])) '
    f'/ sum by (release) (rate(tunegate_requests_total{{release!="none",{JUDGED}}}[{WINDOW}]))',
    "percentunit",
    "{{release}}",
    "Share of a release's requests that failed or timed out, aborted ones left out; no line while it has no traffic",
)
ERROR_RATIO_OVERALL = Query(
    "error_ratio_overall",
    f"sum(rate(tunegate_requests_total{{{FAILED}}}[{WINDOW}])) / sum(rate(tunegate_requests_total{{{JUDGED}}}[{WINDOW}]))",
    "percentunit",
    "all releases",
    "The same over everything callers sent, requests that found no ready release included",
)
SLOW_RATIO = Query(
    "slow_ratio",
    f'1 - sum(rate(tunegate_request_duration_seconds_bucket{{le="2.0"}}[{WINDOW}])) '
    f"/ sum(rate(tunegate_request_duration_seconds_count[{WINDOW}]))",
    "percentunit",
    "all releases",
    "Share of answers that took longer than 2 s; the objective allows 5 %",
)
AVAILABILITY = Query(
    "availability",
    f"1 - sum(increase(tunegate_requests_total{{{FAILED}}}[1d])) / sum(increase(tunegate_requests_total{{{JUDGED}}}[1d]))",
    "percentunit",
    "last day",
    "Share of requests that did not fail in the last day; the objective is 99.9 %",
)
TRAFFIC_SHARE = Query(
    "traffic_share",
    f'sum by (release) (rate(tunegate_requests_total{{release!="none"}}[{WINDOW}])) '
    f'/ scalar(sum(rate(tunegate_requests_total{{release!="none"}}[{WINDOW}])) > 0)',
    "percentunit",
    "{{release}}",
    "Which part of the routed requests each release answers: the steps of a rollout as callers felt them",
)
FAILED_TODAY = Query(
    "failed_today", f"sum(increase(tunegate_requests_total{{{FAILED}}}[1d]))", "short", "failed", "Requests that failed in the last day"
)
RELEASES = Query(
    "releases",
    'sum by (public_name, release, state) (tunegate_release_info{state!~"retired|rejected|rolled_back"})',
    "short",
    "{{release}}: {{state}}",
    "Releases in production, or on their way to it",
)
JUDGED_REQUESTS = Query(
    "judged_requests",
    f"sum(increase(tunegate_requests_total{{{JUDGED}}}[{WINDOW}]))",
    "short",
    "requests",
    "How many requests the overall error ratio rests on",
)
UPSTREAM_ERRORS = Query(
    "upstream_errors",
    f"sum by (kind) (rate(tunegate_upstream_errors_total[{WINDOW}]))",
    "reqps",
    "{{kind}}",
    "Failures between gateway and slot; one that a retry mended shows here and not in the error ratio",
)
IN_FLIGHT = Query("in_flight", "sum by (release) (tunegate_requests_in_flight)", "short", "{{release}}", "Requests being answered now")
TOKENS = Query(
    "tokens",
    f"sum by (release, direction) (rate(tunegate_tokens_total[{WINDOW}]))",
    "short",
    "{{release}} {{direction}}",
    "Tokens a second in `usage` objects; a stream reports them only when its caller asks for stream_options.include_usage",
)
CHAMPIONS = Query(
    "champions",
    'sum by (public_name, release, model_digest) (tunegate_release_info{state="live"})',
    "short",
    "{{public_name}}: {{release}}",
    "The release in production for each public name",
)
GENERATION = Query("generation", "max(tunegate_champion_generation)", "none", "generation", "Rises by one with each promotion or rollback")
CHAMPION_CHANGES = Query(
    "champion_changes", "changes(tunegate_champion_generation[1m]) > 0", "short", "champion changed", "Moments of promotion or rollback"
)
TRANSITIONS = Query(
    "transitions",
    "sum by (public_name, to) (tunegate_release_transitions_total)",
    "short",
    "{{public_name}} → {{to}}",
    "Steps of releases since the registry was made",
)
SLOT_STATES = Query(
    "slot_states",
    "sum by (release, state) (tunegate_slot_state) == 1",
    "short",
    "{{release}} {{state}}",
    "What each release's engine is doing",
)
CHAMPION_SLOT_DOWN = Query(
    "champion_slot_down",
    'sum by (public_name, release) (tunegate_release_info{state="live"}) '
    'unless on (release) (sum by (release) (tunegate_slot_state{state="ready"}) == 1)',
    "short",
    "{{public_name}}: {{release}}",
    "Releases in production whose engine is not ready: their callers get 503",
)
NO_CHAMPION = Query(
    "no_champion",
    'up{job="tunegate"} == 1 unless on () count(tunegate_release_info{state="live"}) > 0',
    "short",
    "{{instance}}",
    "A gateway that runs and has nothing in production",
)
SLOT_FAILED = Query(
    "slot_failed", 'sum by (release) (tunegate_slot_state{state="failed"}) == 1', "short", "{{release}}", "Engines that gave up for now"
)
GATEWAY_DOWN = Query("gateway_down", 'up{job="tunegate"} == 0', "short", "{{instance}}", "Gateways that cannot be scraped")
REGISTRY_AGE = Query(
    "registry_age",
    "time() - min by (instance, part) (tunegate_registry_seen_timestamp_seconds "
    'or label_replace(tunegate_gateway_registry_seen_timestamp_seconds, "part", "gateway", "", ""))',
    "s",
    "{{part}}",
    "Since the registry last answered each part of the server; of several gateway workers, the one that has waited longest",
)
GATEWAY_MEMORY = Query(
    "gateway_memory", 'process_resident_memory_bytes{job="tunegate"}', "bytes", "{{instance}}", "Memory of the serving process"
)
GATEWAY_CPU = Query(
    "gateway_cpu",
    f'rate(process_cpu_seconds_total{{job="tunegate"}}[{WINDOW}])',
    "percentunit",
    "{{instance}}",
    "Cores the serving process uses",
)
