"""The metrics as a scraper reads them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.lifecycle import State
from serving.metrics import GatewayMetrics, series_names
from serving.metrics_requests import INFERENCE_ROUTES, OUTCOMES
from serving.records import Release, SlotInfo, SlotState, Snapshot
from tests.fakes_gateway import slot_info
from tests.fakes_serving import bare_release


def snapshot(
    *releases: Release, generation: int = 1, slots: tuple[SlotInfo, ...] = (), steps: dict[tuple[str, State], int] | None = None
) -> Snapshot:
    return Snapshot(generation=generation, releases=releases, slots=slots, leases={}, steps=steps or {})


def samples(metrics: GatewayMetrics, name: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {tuple(sorted(s.labels.values())): s.value for family in families for s in family.samples if s.name == name}


def test_a_release_has_every_outcome_at_zero_before_its_first_request() -> None:
    """`rate()` sees no increase in a series that is born at 1."""
    metrics = GatewayMetrics()
    metrics.follow(snapshot(bare_release(1, State.LIVE)))
    counts = {labels: count for labels, count in samples(metrics, "tunegate_requests_total").items() if "clinic-1" in labels}
    assert len(counts) == len(OUTCOMES) * len(INFERENCE_ROUTES)
    assert set(counts.values()) == {0.0}


def test_a_release_has_one_state_at_a_time() -> None:
    metrics = GatewayMetrics()
    metrics.follow(snapshot(bare_release(1, State.LIVE)))
    metrics.follow(snapshot(bare_release(1, State.RETIRED), bare_release(2, State.LIVE), generation=2))
    info = samples(metrics, "tunegate_release_info")
    assert set(info) == {("1" * 64, "clinic", "clinic-1", "retired"), ("2" * 64, "clinic", "clinic-2", "live")}
    assert samples(metrics, "tunegate_champion_generation") == {(): 2.0}


def test_a_slot_is_in_one_state_and_vanishes_when_it_is_gone() -> None:
    metrics = GatewayMetrics()
    metrics.follow(snapshot(slots=(slot_info(1, SlotState.READY), slot_info(2, SlotState.STARTING))))
    states = samples(metrics, "tunegate_slot_state")
    assert {labels for labels, value in states.items() if value} == {("clinic-1", "ready"), ("clinic-2", "starting")}
    assert len(states) == 2 * len(SlotState)
    metrics.follow(snapshot(slots=(slot_info(2, SlotState.READY),)))
    assert {labels for labels, value in samples(metrics, "tunegate_slot_state").items() if value} == {("clinic-2", "ready")}


def test_transitions_follow_the_registrys_count_and_never_go_back() -> None:
    metrics = GatewayMetrics()
    for steps in (2, 2, 3):
        metrics.follow(snapshot(steps={("clinic", State.LIVE): steps}))
    assert samples(metrics, "tunegate_release_transitions_total") == {("clinic", "live"): 3.0}


def test_a_request_in_flight_is_counted_until_it_ends() -> None:
    metrics = GatewayMetrics()
    series = metrics.requests("clinic-1", "chat_completions")
    series.started()
    assert samples(metrics, "tunegate_requests_in_flight") == {("clinic-1",): 1.0}
    series.finished("ok", 0.3)
    assert samples(metrics, "tunegate_requests_in_flight") == {("clinic-1",): 0.0}


def test_two_seconds_is_a_bucket_border_and_there_are_many_below() -> None:
    metrics = GatewayMetrics()
    metrics.requests("clinic-1", "completions").finished("ok", 1.9)
    borders = [
        float(label) for labels in samples(metrics, "tunegate_request_duration_seconds_bucket") for label in labels if label[0].isdigit()
    ]
    assert 2.0 in borders
    assert len([border for border in borders if border < 2.0]) >= 10


def test_a_registry_that_answers_a_lone_gateway_has_answered_its_server() -> None:
    metrics, names = GatewayMetrics(), ("tunegate_registry_seen_timestamp_seconds", "tunegate_gateway_registry_seen_timestamp_seconds")
    before = [samples(metrics, name) for name in names]
    metrics.registry_seen()
    moved = [{label for label, at in samples(metrics, name).items() if at > then[label]} for name, then in zip(names, before, strict=True)]
    assert moved == [{("server",)}, {()}]


def test_two_gateways_share_no_counter() -> None:
    one, other = GatewayMetrics(), GatewayMetrics()
    one.requests("clinic-1", "completions").upstream_error("connect")
    assert samples(other, "tunegate_upstream_errors_total") == {}


def test_a_release_without_an_engine_costs_one_series() -> None:
    """Old releases add up; each must not bring its histograms along."""
    metrics = GatewayMetrics()
    metrics.follow(snapshot(*(bare_release(number, State.RETIRED) for number in range(1, 101)), bare_release(101, State.LIVE)))
    assert len(samples(metrics, "tunegate_release_info")) == 101
    assert len(samples(metrics, "tunegate_request_duration_seconds_count")) == len(INFERENCE_ROUTES)


INTERFACE = [
    "tunegate_requests_total", "tunegate_request_duration_seconds_bucket", "tunegate_time_to_first_token_seconds_bucket",
    "tunegate_upstream_errors_total", "tunegate_requests_in_flight", "tunegate_tokens_total", "tunegate_release_info",
    "tunegate_champion_generation", "tunegate_slot_state", "tunegate_release_transitions_total",
]  # fmt: skip


@pytest.mark.parametrize("name", INTERFACE)
def test_the_agreed_metric_exists(name: str) -> None:
    assert name in series_names()
