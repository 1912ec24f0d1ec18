"""The line's log: appended by whoever runs a stage, read once by the server, counted under names that the registry knows."""

from pathlib import Path

import pytest

from flows.timing import timed
from serving.lifecycle import State
from serving.line_log import LOG_NAME, STEPS, VERDICTS, Entry, LineLog, append
from serving.metrics import GatewayMetrics
from serving.records import Snapshot
from tests.fakes_serving import bare_release


def entry(step: str = "sft", outcome: str = "ok", public_name: str = "clinic", **more: object) -> Entry:
    return Entry.model_validate({"at": 100.0, "public_name": public_name, "step": step, "outcome": outcome, "seconds": 7.0, **more})


def known() -> Snapshot:
    return Snapshot(generation=1, releases=(bare_release(1, State.LIVE),), slots=(), leases={}, steps={})


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"public_name": "clinic", **labels})


def test_each_entry_is_read_once_and_half_a_line_waits(tmp_path: Path) -> None:
    log = LineLog(tmp_path)
    assert list(log.news()) == []
    append(tmp_path, entry("sft"))
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write(entry("merge").model_dump_json()[:20])
    assert [each.step for each in log.news()] == ["sft"]
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write(entry("merge").model_dump_json()[20:] + "\nno json\n")
    append(tmp_path, entry("gate"))
    assert [each.step for each in log.news()] == ["merge", "gate"]
    assert list(log.news()) == []


def test_a_new_log_in_the_old_ones_place_is_read_from_its_start(tmp_path: Path) -> None:
    append(tmp_path, entry("sft"))
    log = LineLog(tmp_path)
    list(log.news())
    (tmp_path / LOG_NAME).rename(tmp_path / "old")
    append(tmp_path, entry("merge"))
    assert [each.step for each in log.news()] == ["merge"]


def test_a_log_that_cannot_be_written_ends_no_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(tmp_path / "absent", entry())
    assert "the metrics miss a sft" in caplog.text


@pytest.mark.parametrize(("fails", "outcome"), [(False, "ok"), (True, "failed")])
def test_a_stage_is_written_down_however_it_ends(tmp_path: Path, fails: bool, outcome: str) -> None:
    def stage() -> None:
        with timed(tmp_path, "clinic", "parity"):
            if fails:
                raise RuntimeError

    if fails:
        with pytest.raises(RuntimeError):
            stage()
    else:
        stage()
    (read,) = LineLog(tmp_path).news()
    assert (read.step, read.outcome, read.verdict) == ("parity", outcome, None)


def test_every_step_and_verdict_of_a_known_name_exists_at_zero() -> None:
    metrics = GatewayMetrics()
    metrics.follow(known())
    for step in STEPS:
        for outcome in ("ok", "failed"):
            assert value(metrics, "tunegate_step_runs_total", step=step, outcome=outcome) == 0
    assert [value(metrics, "tunegate_gate_verdicts_total", outcome=verdict) for verdict in VERDICTS] == [0] * 4


def test_an_entry_waits_until_its_public_name_is_known() -> None:
    """The first run of a recipe fetches its base model before there is a release."""
    metrics = GatewayMetrics()
    metrics.line.take([entry("gate", verdict="FAIL"), entry("sft", public_name="made-up")])
    assert b"clinic" not in metrics.render()
    metrics.follow(known())
    assert value(metrics, "tunegate_gate_verdicts_total", outcome="FAIL") == 1
    assert value(metrics, "tunegate_step_duration_seconds", step="gate") == 7
    assert b"made-up" not in metrics.render()


def test_a_failed_step_does_not_count_as_the_last_good_one() -> None:
    metrics = GatewayMetrics()
    metrics.follow(known())
    metrics.line.take([entry("retrain"), entry("retrain", "failed", at=200.0)])
    assert value(metrics, "tunegate_step_end_timestamp_seconds", step="retrain") == 100
