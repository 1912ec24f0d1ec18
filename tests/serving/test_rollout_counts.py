"""Counting one release finely: values that add and subtract, and quantiles within the width of a bucket."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.rollout_counts import Counts, Tallies, Tally, bucket_of, time_at

WIDTH = 2 ** (1 / 8)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("ok", (1, 0, 0)),
        ("client_error", (0, 1, 0)),
        ("server_error", (0, 0, 1)),
        ("timeout", (0, 0, 1)),
        ("aborted", (0, 0, 0)),
        ("rejected", (0, 0, 0)),
    ],
)
def test_each_outcome_counts_as_what_it_says_of_the_release(outcome: str, expected: tuple[int, int, int]) -> None:
    tally = Tally()
    tally.finished(outcome, 0.5)  # type: ignore[arg-type]  # a parameter of the table
    counts = tally.counts()
    assert (counts.answered, counts.refused, counts.failed) == expected
    assert sum(counts.durations.values()) == (outcome == "ok")


def test_a_request_that_another_slot_had_to_answer_is_a_failure_of_the_first() -> None:
    tally = Tally()
    tally.handed_over()
    assert (tally.counts().failed, tally.counts().requests) == (1, 1)


@given(st.floats(min_value=1e-5, max_value=1e5))
def test_a_time_lies_in_its_bucket(seconds: float) -> None:
    low = 2 ** (bucket_of(seconds) / 8)
    assert low <= seconds * (1 + 1e-9)
    assert seconds < low * WIDTH * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_quantile_is_right_within_the_width_of_a_bucket(share: float) -> None:
    dice = random.Random(3)
    times = sorted(dice.lognormvariate(0, 1) for _ in range(5000))
    tally = Tally()
    for time in times:
        tally.finished("ok", time)
    found = time_at(tally.counts().durations, share * len(times))
    assert 1 / WIDTH < found / times[int(share * len(times))] < WIDTH


@pytest.mark.parametrize(("rank", "expected"), [(0, 0.0), (-1, 0.0), (3, math.inf)])
def test_a_rank_outside_the_times_has_no_bound(rank: float, expected: float) -> None:
    assert time_at({0: 1, 8: 1}, rank) == expected


def some_counts(number: int) -> Counts:
    tally = Tally()
    for step in range(number):
        tally.finished("ok", 0.1 + step)
        tally.first_token(0.01)
        tally.judged(broken=step == 0)
    return tally.counts()


def test_what_is_subtracted_from_a_later_count_is_what_was_added_since() -> None:
    earlier, later = some_counts(3), some_counts(7)
    assert (later - earlier) + earlier == later
    assert (later - earlier).requests == 4
    assert later - later == Counts()


def test_counts_survive_being_written_as_json() -> None:
    counts = some_counts(5)
    assert Counts.read(json.loads(json.dumps(counts.spelled()))) == counts


def test_what_an_older_worker_does_not_count_is_zero_and_what_a_newer_one_counts_besides_is_left_out() -> None:
    assert Counts.read({"answered": 3, "colour": 7}) == Counts(answered=3)


def test_a_releases_tally_is_the_same_each_time_it_is_asked_for() -> None:
    tallies = Tallies()
    tallies.of("clinic-1").finished("ok", 1)
    assert tallies.counts(["clinic-1", "clinic-2"]) == {"clinic-1": tallies.of("clinic-1").counts(), "clinic-2": Counts()}
