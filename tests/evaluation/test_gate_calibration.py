"""A small run of the calibration: the gate keeps its word about known truths, and the table would say so if it did not."""

from dataclasses import replace

import pytest

from tests.benchmarks.gate_calibration import Tally, Truth, line, truths


def test_the_gate_keeps_its_error_and_its_power_where_the_truth_is_known() -> None:
    found = list(truths(trials=60, sizes=(50, 100)))
    assert len(found) == 25
    assert [line(truth) for truth in found if not truth.kept] == []
    assert sum(truth.most is not None for truth in found) == 14
    assert sum(truth.least == 0.8 for truth in found) == 8


@pytest.mark.parametrize(
    ("passed", "most", "least", "kept"),
    [(5, 0.05, None, True), (20, 0.05, None, False), (80, None, 0.8, True), (60, None, 0.8, False), (60, None, None, True)],
)
def test_a_line_that_does_not_keep_its_bound_is_marked(passed: int, most: float | None, least: float | None, kept: bool) -> None:
    truth = Truth("made up", 50, Tally(100, passed, 0), most=most, least=least)
    assert truth.kept is kept
    assert ("NOT KEPT" in line(truth)) is not kept
    assert "–" in line(replace(truth, tally=Tally(100, passed, 0)))
