"""What vLLM says of itself, by release: Prometheus finds each engine through the gateway, which gives its series the release's label.

Next: `queries.py`, what the gateway says.
"""

from monitoring.queries import WINDOW, Query

ENGINE_JOB = "tunegate-engine"
ENGINE_SERIES = frozenset(
    {
        "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total", "vllm:request_success_total", "vllm:num_preemptions_total",
        "vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket",
        "vllm:request_queue_time_seconds_bucket", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
    }
)  # fmt: skip
"""The series of the pinned vLLM that queries may use; a test reads them from the real engine."""


def _quantile(name: str, series: str, quantile: float, what: str) -> Query:
    return Query(
        f"{name}_p{quantile * 100:g}",
        f"histogram_quantile({quantile:g}, sum by (release, le) (rate({series}_bucket[{WINDOW}])))",
        "s",
        "{{release}} p" + f"{quantile * 100:g}",
        f"{quantile:.0%} {what}",
    )


ENGINES_UP = Query("engines_up", f'max by (release) (up{{job="{ENGINE_JOB}"}})', "short", "{{release}}", "1 while an engine can be scraped")
RUNNING = Query(
    "engine_running",
    "sum by (release) (vllm:num_requests_running)",
    "short",
    "{{release}} running",
    "Requests that the engine works on in one batch",
)
WAITING = Query(
    "engine_waiting",
    "sum by (release) (vllm:num_requests_waiting)",
    "short",
    "{{release}} waiting",
    "Requests inside the engine that wait for a seat; the gateway's own queue comes before it",
)
KV_CACHE = Query(
    "engine_kv_cache",
    "max by (release) (vllm:kv_cache_usage_perc)",
    "percentunit",
    "{{release}}",
    "Share of the KV cache in use; near 100 % requests wait, or are put aside and computed again",
)
GENERATED = Query(
    "engine_generated",
    f"sum by (release) (rate(vllm:generation_tokens_total[{WINDOW}]))",
    "short",
    "{{release}} generated",
    "Tokens that the engine writes a second",
)
READ = Query(
    "engine_read",
    f"sum by (release) (rate(vllm:prompt_tokens_total[{WINDOW}]))",
    "short",
    "{{release}} read",
    "Prompt tokens that the engine takes in a second",
)
FINISHED = Query(
    "engine_finished",
    f"sum by (release, finished_reason) (rate(vllm:request_success_total[{WINDOW}]))",
    "reqps",
    "{{release}} {{finished_reason}}",
    "Requests a second by why the engine ended them; length means that max_tokens cut the answer off",
)
PREEMPTIONS = Query(
    "engine_preemptions",
    f"sum by (release) (rate(vllm:num_preemptions_total[{WINDOW}]))",
    "reqps",
    "{{release}}",
    "Requests a second put aside for want of KV cache, to be computed again",
)
CACHE_HITS = Query(
    "engine_cache_hits",
    f"sum by (release) (rate(vllm:prefix_cache_hits_total[{WINDOW}])) "
    f"/ (sum by (release) (rate(vllm:prefix_cache_queries_total[{WINDOW}])) > 0)",
    "percentunit",
    "{{release}}",
    "Share of prompt tokens found in the prefix cache; no line while nobody asks, or where the cache is off",
)
ENGINE_FIRST_TOKEN = _quantile("engine_first_token", "vllm:time_to_first_token_seconds", 0.95, "of first tokens came within this time")
ENGINE_INTER_TOKEN = _quantile(
    "engine_inter_token", "vllm:inter_token_latency_seconds", 0.95, "of tokens followed the one before within it"
)
ENGINE_QUEUE = _quantile("engine_queue", "vllm:request_queue_time_seconds", 0.95, "of requests waited in the engine no longer")
ENGINE_UNSEEN = Query(
    "engine_unseen",
    f'sum by (release) (tunegate_slot_state{{state="ready"}}) == 1 unless on (release) up{{job="{ENGINE_JOB}"}} == 1',
    "short",
    "{{release}}",
    "Engines that serve and cannot be scraped",
)
