"""What a command counts as its stages."""

import time

import pytest

from flows.timing import counted, stages_counted


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_stages_count_and_what_lies_between_does_not() -> None:
    stage, began = counted(nap), time.monotonic()
    with stages_counted() as clock:
        assert stage(0.05) + stage(seconds=0.05) == 0.1
        nap(0.2)
    assert 0.1 <= clock.seconds <= time.monotonic() - began - 0.2


def test_a_stage_within_a_stage_counts_once() -> None:
    began = time.monotonic()
    with stages_counted() as clock:
        counted(lambda: counted(nap)(0.05))()
        with clock.running():
            counted(nap)(0.05)
    assert 0.1 <= clock.seconds <= time.monotonic() - began


def test_a_stage_that_fails_counts_and_fails() -> None:
    with stages_counted() as clock, pytest.raises(ZeroDivisionError):
        counted(lambda: nap(0.05) / 0)()
    assert clock.seconds >= 0.05


def test_nobody_counts_where_nobody_asked() -> None:
    with stages_counted() as clock:
        pass
    assert (counted(nap)(0.01), clock.seconds) == (0.01, 0.0)
