"""What workers count in files, as the server's page says it."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics_mapped import count_in
from serving.metrics_requests import RequestMetrics
from serving.metrics_workers import WorkersMetrics
from serving.rollout_counts import Tallies


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # put back at the end
    return tmp_path


def worker(folder: Path, number: int) -> RequestMetrics:
    """A worker's metrics, as it begins; nothing is ever closed, as when it is killed."""
    count_in(str(folder), number)
    return RequestMetrics(CollectorRegistry(), Tallies())


def page(folder: Path, *gone: int) -> dict[tuple[str, ...], float]:
    """Every sample by its name and labels, when these workers have ended."""
    registry = CollectorRegistry()
    workers = WorkersMetrics(registry, folder)
    for number in gone:
        workers.ended(number)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_every_step_is_on_the_page_at_once_summed_over_workers(folder: Path) -> None:
    for number, duration_s in ((0, 0.3), (1, 1.9)):
        series = worker(folder, number).requests("clinic-1", "completions")
        series.started()
        series.tokens(7, 40)
        series.finished("ok", duration_s)
        series.started()
    found = page(folder)
    assert found["tunegate_requests_total", "clinic-1", "completions", "ok"] == 2
    assert found["tunegate_tokens_total", "clinic-1", "completion"] == 80
    assert found["tunegate_requests_in_flight", "clinic-1"] == 2
    buckets = [found["tunegate_request_duration_seconds_bucket", *sorted((border, "clinic-1", "completions"))] for border in ("0.3", "2.0")]
    assert buckets == [1, 2]
    assert found["tunegate_request_duration_seconds_sum", "clinic-1", "completions"] == pytest.approx(2.2)


def test_the_next_worker_of_a_number_goes_on_but_has_nothing_in_flight(folder: Path) -> None:
    first = worker(folder, 0).requests("clinic-1", "completions")
    first.started()
    first.finished("ok", 0.3)
    first.started()
    assert page(folder, 0).get(("tunegate_requests_in_flight", "clinic-1"), 0) == 0
    second = worker(folder, 0).requests("clinic-1", "completions")
    second.started()
    second.finished("ok", 0.3)
    found = page(folder)
    assert (found["tunegate_requests_total", "clinic-1", "completions", "ok"], found["tunegate_requests_in_flight", "clinic-1"]) == (2, 0)


def test_releases_that_come_later_make_the_files_larger_and_nothing_is_lost(folder: Path) -> None:
    metrics = worker(folder, 0)
    series = [metrics.requests(f"clinic-{number}", "completions") for number in range(100)]
    for each in series:
        each.started()
        each.finished("ok", 0.3)
    found = page(folder)
    assert {found["tunegate_requests_total", f"clinic-{number}", "completions", "ok"] for number in range(100)} == {1.0}
    assert (folder / "counter_0.db").stat().st_size > 1 << 16
