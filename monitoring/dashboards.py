"""Five dashboards, each an ordered set of rows of panels, each panel a question or two from the query files.

overview: do callers get what was promised · rollout: is the new release as good · engine: what vLLM does ·
quality: what the answers are like · training: what the line does. Says nothing of Grafana's JSON. Next: `grafana.py`, which writes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from monitoring import queries, queries_engine, queries_line, queries_rollouts, queries_training
from monitoring.alerts_line import DISK_LOW, DRIFT_LIMIT
from monitoring.alerts_objectives import ERROR_ALLOWANCE, LATENCY_P95_LIMIT_S, SLOW_ALLOWANCE
from monitoring.alerts_serving import REGISTRY_UNSEEN_S
from monitoring.queries import Query, first_token_quantile, inter_token_quantile, latency_quantile


@dataclass(frozen=True)
class Panel:
    """One picture of one or more queries of the same unit. Counts that seldom change are bars: flat lines say less.

    `limit` is the objective: a red line, or a red number beyond it.
    `good` says which side of the limit is the good one. `by_label` shows a stat's labels instead of its value.
    """

    title: str
    queries: tuple[Query, ...]
    width: int = 12
    kind: Literal["timeseries", "stat", "bars"] = "timeseries"
    limit: float | None = None
    good: Literal["below", "above"] = "below"
    by_label: bool = False
    decimals: int | None = None
    span_all: bool = False
    """Values may be negative; otherwise the axis begins at 0."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard. `slug` is its file's name and the end of its address; `says` is what it answers."""

    slug: str
    title: str
    says: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels, in order."""
        return (panel for row in self.rows for panel in row.panels)


def _stat(title: str, query: Query, width: int = 4, **more: object) -> Panel:
    return Panel(title, (query,), width, "stat", **more)  # type: ignore[arg-type]  # the fields of Panel


_OVERVIEW = Board(
    "overview",
    "tunegate overview",
    "Do callers get what was promised, and from which release?",
    (
        Row(
            "Objectives",
            (
                _stat("Availability, last day", queries.AVAILABILITY, limit=1 - ERROR_ALLOWANCE, good="above", decimals=3),
                _stat("Failed, last day", queries.FAILED_TODAY, decimals=0),
                _stat("Slower than 2 s, now", queries.SLOW_RATIO, limit=SLOW_ALLOWANCE),
                _stat("In production", queries.CHAMPIONS, 6, by_label=True),
                _stat("Engines", queries.SLOT_STATES, 6, by_label=True),
            ),
        ),
        Row(
            "Traffic",
            (
                Panel("Requests by outcome", (queries.REQUESTS_BY_OUTCOME,)),
                Panel("Requests by release", (queries.REQUESTS_BY_RELEASE,)),
                Panel("In flight", (queries.IN_FLIGHT,)),
                Panel("Tokens a second", (queries.TOKENS,)),
            ),
        ),
        Row(
            "Errors",
            (
                Panel("Failed share by release", (queries.ERROR_RATIO,), limit=ERROR_ALLOWANCE),
                Panel("Failures between gateway and engine", (queries.UPSTREAM_ERRORS,)),
            ),
        ),
        Row(
            "Latency",
            (
                Panel("Whole answers, p50, p95, p99", tuple(latency_quantile(q) for q in (0.5, 0.95, 0.99)), limit=LATENCY_P95_LIMIT_S),
                Panel("Time to first token, p50 and p95", (first_token_quantile(0.5), first_token_quantile(0.95))),
                Panel("Time between tokens, p50 and p95", (inter_token_quantile(0.5), inter_token_quantile(0.95))),
                Panel("Slower than 2 s", (queries.SLOW_RATIO,), limit=SLOW_ALLOWANCE),
            ),
        ),
        Row(
            "The gateway itself",
            (
                Panel("CPU", (queries.GATEWAY_CPU,)),
                Panel("Memory", (queries.GATEWAY_MEMORY,)),
                Panel("Disk free", (queries_line.DISK_FREE,), limit=DISK_LOW, good="above"),
                Panel("Since the registry last answered", (queries.REGISTRY_AGE,), limit=REGISTRY_UNSEEN_S),
            ),
        ),
    ),
)

_ROLLOUT = Board(
    "rollout",
    "tunegate rollout",
    "Is the new release as good as the one before, and who gets it?",
    (
        Row(
            "Where things stand",
            (
                _stat("In production", queries.CHAMPIONS, 6, by_label=True),
                _stat("Live or on their way", queries.RELEASES, 12, by_label=True),
                _stat("Changes of champion", queries.GENERATION, 6, decimals=0),
            ),
        ),
        Row(
            "The rollout that goes on",
            (
                _stat("Step", queries_rollouts.STEP, 6, decimals=0),
                _stat("Last look", queries_rollouts.LAST_LOOK, 6, by_label=True),
                _stat("Left of the lease", queries_rollouts.LEASE, 6, decimals=0),
                _stat("Wants to go back and cannot (1 = yes)", queries_rollouts.STUCK, 6, limit=1, decimals=0),
                Panel("Worse than the champion in (1 = yes)", (queries_rollouts.FAILING,), 24, limit=1),
            ),
        ),
        Row(
            "One beside the other",
            (
                Panel("Share of the traffic", (queries.TRAFFIC_SHARE, queries_rollouts.SHARE)),
                Panel("Requests by release", (queries.REQUESTS_BY_RELEASE,)),
                Panel("Failed share by release", (queries.ERROR_RATIO,), limit=ERROR_ALLOWANCE),
                Panel("Whole answers, p95", (latency_quantile(0.95),), limit=LATENCY_P95_LIMIT_S),
                Panel("Time to first token, p95", (first_token_quantile(0.95),)),
                Panel("Rules broken per checked answer", (queries_line.VIOLATIONS,)),
            ),
        ),
        Row(
            "What happened",
            (
                Panel("Steps of releases since the registry was made", (queries.TRANSITIONS,), 8, kind="bars"),
                Panel("Rollouts by how they ended", (queries_rollouts.ENDED,), 8, kind="bars"),
                Panel("Verdicts of the gate", (queries_line.VERDICTS,), 8, kind="bars"),
            ),
        ),
    ),
)

_ENGINE = Board(
    "engine",
    "tunegate engine",
    "What does vLLM do with the requests it is given?",
    (
        Row(
            "Engines",
            (_stat("Scraped (1 = yes)", queries_engine.ENGINES_UP, 12, decimals=0), _stat("State", queries.SLOT_STATES, 12, by_label=True)),
        ),
        Row(
            "Load",
            (
                Panel("Requests running and waiting", (queries_engine.RUNNING, queries_engine.WAITING)),
                Panel("KV cache in use", (queries_engine.KV_CACHE,)),
                Panel("Tokens a second", (queries_engine.GENERATED, queries_engine.READ)),
                Panel("Requests by how they ended", (queries_engine.FINISHED,)),
            ),
        ),
        Row(
            "Times inside the engine",
            (
                Panel("First token, p95", (queries_engine.ENGINE_FIRST_TOKEN,), 8),
                Panel("Between tokens, p95", (queries_engine.ENGINE_INTER_TOKEN,), 8),
                Panel("Waiting for a seat, p95", (queries_engine.ENGINE_QUEUE,), 8),
            ),
        ),
        Row(
            "Memory",
            (
                Panel("Put aside for want of memory", (queries_engine.PREEMPTIONS,)),
                Panel("Prompt tokens found in the prefix cache", (queries_engine.CACHE_HITS,)),
            ),
        ),
    ),
)

_QUALITY = Board(
    "quality",
    "tunegate quality",
    "What are the live answers like, and are callers still asking what the suite asks?",
    (
        Row(
            "Rules, on a sample of live answers",
            (
                Panel("Rules broken per checked answer", (queries_line.VIOLATIONS,)),
                Panel("Answers checked a minute", (queries_line.CHECKED,)),
            ),
        ),
        Row(
            "Drift against the suite (stability index: below 0.1 alike, above 0.25 another kind)",
            (
                Panel("Prompts", (queries_line.PROMPT_DRIFT,), limit=DRIFT_LIMIT),
                Panel("Answers", (queries_line.ANSWER_DRIFT,), limit=DRIFT_LIMIT),
                Panel("Drift beyond chance", (queries_line.DRIFT_OVER_CHANCE,), span_all=True),
                Panel("Answers that drift is measured on", (queries_line.LIVE_WINDOW_ANSWERS,)),
            ),
        ),
        Row("What was not looked at", (Panel("Sampled answers a minute, unchecked, by reason", (queries_line.UNCHECKED,), 24),)),
    ),
)

_TRAINING = Board(
    "training",
    "tunegate training",
    "What does the line that makes releases do, how long does it take, and what comes of it?",
    (
        Row(
            "Runs",
            (
                _stat("Since the newest release", queries_line.RELEASE_AGE, 6),
                _stat("Runs and promotions, last day", queries_line.RUNS_TODAY, 18, decimals=0),
            ),
        ),
        Row(
            "Training now",
            (
                Panel("Loss", (queries_training.LOSS, queries_training.HELD_OUT_LOSS)),
                Panel("Steps made", (queries_training.DONE,)),
                Panel("Learning rate", (queries_training.LEARNING_RATE,), 8),
                Panel("Tokens a second", (queries_training.SPEED,), 8),
                Panel("Memory", (queries_training.MEMORY,), 8),
            ),
        ),
        Row(
            "Times",
            (
                Panel("Last run of each stage", (queries_line.STEP_SECONDS,), kind="bars"),
                Panel("Last whole run and promotion", (queries_line.FLOW_SECONDS,), kind="bars"),
            ),
        ),
        Row(
            "Outcomes",
            (
                Panel("Verdicts of the gate", (queries_line.VERDICTS,), kind="bars"),
                Panel("Failures by stage", (queries_line.STEP_FAILURES,), kind="bars"),
            ),
        ),
    ),
)

BOARDS = (_OVERVIEW, _ROLLOUT, _ENGINE, _QUALITY, _TRAINING)
