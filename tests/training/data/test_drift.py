import math
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from training.data.drift import Drift, DriftFinding, DriftSection, compare, index_by_chance, stability_index
from training.data.profile import DataProfile, SourceProfile
from training.data.profile_histogram import Histogram, edge_below
from training.errors import DataError


def lengths(values: list[int]) -> Histogram:
    return Histogram.of(Counter(map(edge_below, values)), sum(values))


def profile(
    rows: int = 5000,
    *,
    seed: int = 1,
    mean: float = 5.0,
    dropped: dict[str, int] | None = None,
    languages: dict[str, float] | None = None,
    topics: dict[str, float] | None = None,
    tokenizer: str = "tiny",
) -> DataProfile:
    """Log-normal lengths, and languages and topics drawn by their shares."""
    draw = random.Random(seed)
    tokens = [round(draw.lognormvariate(mean, 0.6)) for _ in range(rows)]

    def drawn(shares: dict[str, float] | None) -> dict[str, int]:
        return dict(Counter(draw.choices(list(shares), list(shares.values()), k=rows))) if shares else {}

    dropped = dropped or {}
    return DataProfile(
        tokenizer=tokenizer,
        sources=(SourceProfile(name="a", rows_in=rows + sum(dropped.values()), kept=rows, changed=0, dropped=dropped),),
        tokens=lengths(tokens) if tokenizer else Histogram(),
        characters=lengths([4 * value for value in tokens]),
        languages=drawn(languages),
        topics=drawn(topics),
    )


def finding(drift: Drift, measure: str) -> DriftFinding:
    (found,) = [found for found in drift.findings if found.measure == measure]
    return found


STOP = DriftSection(policy="stop")
BOTH = {"en": 0.5, "zh": 0.5}


def test_the_index_of_two_equal_distributions_is_zero() -> None:
    assert stability_index([10, 20, 70], [100, 200, 700]) == pytest.approx(0, abs=0.002)


def test_the_index_is_the_sum_over_bins_of_the_difference_times_the_log_ratio() -> None:
    """Shares 0.9/0.1 against 0.5/0.5 are (0.4 ln 1.8) + (-0.4 ln 0.2) = 0.879; many rows make the half row vanish."""
    expected = 0.4 * math.log(0.9 / 0.5) - 0.4 * math.log(0.1 / 0.5)

    assert stability_index([900_000, 100_000], [500_000, 500_000]) == pytest.approx(expected, abs=1e-4)


def test_an_empty_bin_gives_a_large_index_and_not_an_infinite_one() -> None:
    assert 1 < stability_index([0, 1000], [500, 500]) < 10


def test_chance_is_the_99_percent_point_of_chi_square() -> None:
    """χ²(9) has its 99 % point at 21.67, so two samples of 1000 stay below 2/1000 of it."""
    assert index_by_chance(1000, 1000, 10) == pytest.approx(21.67 * 2 / 1000, rel=0.01)


def test_two_samples_of_one_distribution_are_seldom_taken_for_drift() -> None:
    """1 % of comparisons exceed what chance allows; of 100, 6 would be a 1 in 2000 event."""
    draw = random.Random(3)
    exceeded = 0
    for _ in range(100):
        ours, theirs = ([Counter(draw.choices(range(10), k=500))[number] for number in range(10)] for _ in range(2))
        exceeded += stability_index(ours, theirs) > index_by_chance(500, 500, 10)

    assert exceeded < 6


def test_the_same_kind_of_data_raises_nothing() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    drift = compare(profile(seed=1, languages=BOTH, topics=shares), profile(seed=2, languages=BOTH, topics=shares), STOP)

    assert {found.measure: found.level for found in drift.findings} == dict.fromkeys(
        ("rows", "rejected share", "length", "language", "topic"), "ok"
    )
    drift.require_none()


@pytest.mark.parametrize(("mean", "level"), [(5.0, "ok"), (5.3, "warn"), (6.0, "stop")])
def test_longer_rows_are_judged_by_the_usual_bands(mean: float, level: str) -> None:
    """A shift by d of a log-normal with sigma 0.6 has an index of about (d / 0.6)²: 0.25 for 0.3 (just below, in ten bins)."""
    found = finding(compare(profile(mean=mean, seed=1), profile(seed=2), STOP), "length")

    assert found.level == level
    assert found.unit == "PSI"


def test_a_finding_says_what_moved_from_where_to_where_why_it_matters_and_what_to_do() -> None:
    drift = compare(profile(languages={"en": 0.3, "zh": 0.7}), profile(languages={"en": 0.8, "zh": 0.2}), STOP)

    found = finding(drift, "language")
    assert found.level == "stop"
    assert "zh 20" in found.before
    assert "zh 70" in found.after
    assert f"PSI {found.value:.3f}" in found.what
    assert found.why
    assert found.do


def test_a_topic_that_was_never_there_is_noticed() -> None:
    found = finding(compare(profile(topics={"a": 0.6, "new": 0.4}), profile(topics={"a": 1.0}), STOP), "topic")

    assert found.level == "stop"
    assert "new" in found.after


def test_many_rare_topics_are_one_bin_and_not_noise() -> None:
    topics = {f"t{number}": 1.0 for number in range(2000)}

    assert finding(compare(profile(seed=1, topics=topics), profile(seed=2, topics=topics), STOP), "topic").level == "ok"


def test_more_rows_turned_away_name_the_reason() -> None:
    drift = compare(profile(dropped={"not_json": 1500, "too_long": 100}), profile(dropped={"too_long": 100}), STOP)

    found = finding(drift, "rejected share")
    assert found.level == "stop"
    assert "mostly `not_json`" in found.what


def test_rows_left_aside_by_caps_are_no_drift() -> None:
    assert finding(compare(profile(dropped={"capped": 4000}), profile(), STOP), "rejected share").level == "ok"


def test_fewer_rows_turned_away_are_no_fault() -> None:
    assert finding(compare(profile(), profile(dropped={"not_json": 3000}), STOP), "rejected share").level == "ok"


@pytest.mark.parametrize(("rows", "level"), [(5000, "ok"), (9000, "ok"), (2400, "warn"), (900, "stop")])
def test_far_fewer_rows_than_the_champion_had_are_noticed(rows: int, level: str) -> None:
    assert finding(compare(profile(rows), profile(5000), STOP), "rows").level == level


def test_a_small_sample_is_not_judged_and_never_stops_by_default() -> None:
    """150 rows against 5000, in other languages and lengths: too few to say anything."""
    drift = compare(profile(150, mean=8, languages={"zh": 1.0}), profile(languages={"en": 1.0}), STOP)

    assert {found.measure: found.level for found in drift.findings} == {
        "rows": "warn",
        "rejected share": "unjudged",
        "length": "unjudged",
        "language": "unjudged",
        "topic": "unjudged",
    }
    assert "150 rows and 200 are needed" in finding(drift, "length").what
    drift.require_none()


def test_a_recipe_may_refuse_what_cannot_be_judged() -> None:
    drift = compare(profile(150), profile(), DriftSection(policy="stop", too_few_rows="stop"))

    with pytest.raises(DataError, match="cannot be judged"):
        drift.require_none()


def test_a_band_exceeded_by_chance_alone_raises_nothing() -> None:
    """With 40 rows on each side ten bins may differ by 1.08 without any drift, more than every band."""
    section = DriftSection(policy="stop", min_rows=10)

    drift = compare(profile(40, seed=1), profile(40, seed=2), section)

    assert finding(drift, "length").level == "ok"


def test_a_warning_policy_never_stops() -> None:
    drift = compare(profile(languages={"zh": 1.0}), profile(languages={"en": 1.0}), DriftSection())

    assert drift.level == "warn"
    drift.require_none()


def test_a_stop_policy_stops_with_everything_that_moved() -> None:
    drift = compare(profile(mean=7, languages={"zh": 1.0}), profile(languages={"en": 1.0}), STOP)

    with pytest.raises(DataError, match="drifted") as caught:
        drift.require_none()
    assert "length in tokens" in caught.value.what
    assert "language" in caught.value.what
    assert "drift.policy: warn" in caught.value.do


def test_policy_off_compares_nothing() -> None:
    assert compare(profile(10), profile(), DriftSection(policy="off")) == Drift("off", ())


def test_the_worst_finding_comes_first() -> None:
    drift = compare(profile(2400, languages={"zh": 1.0}), profile(languages={"en": 1.0}), STOP)

    assert [found.level for found in drift.findings] == ["stop", "warn", "unjudged", "ok", "ok"]


def test_tokens_of_two_tokenizers_are_not_compared() -> None:
    found = finding(compare(profile(tokenizer="new"), profile(tokenizer="old"), STOP), "length")

    assert found.what.startswith("length in characters")


def test_what_was_not_measured_is_said_and_not_judged() -> None:
    found = finding(compare(profile(languages=BOTH), profile(), DriftSection(policy="stop", too_few_rows="stop")), "language")

    assert (found.level, found.what) == ("unjudged", "language: not measured in the champion's dataset")


@pytest.mark.parametrize(
    "settings",
    [{"psi_warn": 0.3}, {"rejected_stop": 0.01}, {"fewer_rows_stop": 0.1}, {"psi_warn": 0}, {"min_rows": 1}, {"policy": "maybe"}],
)
def test_thresholds_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DriftSection.model_validate(settings)
