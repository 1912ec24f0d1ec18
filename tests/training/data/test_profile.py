import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from training.data.accounting import Tally
from training.data.profile import PROFILE, DataProfile, DuplicateCounts, LeakedPrompt, SourceProfile, read_profile, write_profile
from training.data.profile_builder import OTHER, ProfileBuilder
from training.data.profile_duplicates import duplicate_counts
from training.data.profile_histogram import Histogram, edge_below
from training.data.profile_samples import masked_pair
from training.data.rows import Place, Rejected
from training.errors import RecordError

PHONE = "13800138000"


def mask(text: str) -> str:
    return text.replace(PHONE, "[PHONE_1]")


def histogram(values: list[int]) -> Histogram:
    return Histogram.of(Counter(map(edge_below, values)), sum(values))


def prepared(lines: range) -> tuple[ProfileBuilder, Tally]:
    """Rows 0, 5, 10 … are rejected, 1, 6, 11 … are changed."""
    builder, tally = ProfileBuilder(), Tally()
    for line in lines:
        place = Place("a.jsonl", line)
        tally.enter("a", place)
        if line % 5 == 0:
            builder.refuse_length(900 + line)
            tally.drop("a", Rejected(place, "too_long", f"call {PHONE}"))
            continue
        changes = ["html"] if line % 5 == 1 else []
        if changes:
            builder.sample(place, changes, f"<b>row {line}</b> {PHONE}", f"row {line} {PHONE}", mask)
        builder.recognise("a", "alpaca", "it has `instruction`")
        builder.use(characters=10 * line, tokens=line, loss_tokens=1, language="en", topic=f"t{line % 3}", masked={"phone": 1})
        tally.keep("a", place, changes)
    return builder, tally


@given(st.lists(st.integers(0, 4095), min_size=1, max_size=80), st.floats(0, 1))
def test_quantiles_of_short_lengths_are_exact(values: list[int], share: float) -> None:
    """The q-quantile is the smallest value with at least q · n values at or below it."""
    expected = next(value for value in sorted(values) if sum(other <= value for other in values) >= share * len(values) - 1e-9)

    assert histogram(values).quantile(share) == expected


@given(st.integers(0, 10**9))
def test_a_bin_is_never_wider_than_a_64th_of_its_length(value: int) -> None:
    edge = edge_below(value)

    assert edge <= value <= edge * (1 + 1 / 64)
    assert edge_below(edge) == edge


def test_a_histogram_of_a_million_row_lengths_stays_small() -> None:
    """4096 exact bins, and 64 for each power of two from 2**12 to 2**20."""
    assert len({edge_below(value) for value in range(1 << 20)}) == 4096 + 64 * 8


def test_mean_and_rows_are_exact() -> None:
    assert (histogram([5, 9000, 1]).mean, histogram([5, 9000, 1]).rows) == (3002.0, 3)
    assert (Histogram().mean, Histogram().quantile(0.5)) == (0.0, 0)


@given(st.lists(st.integers(0, 10**6), max_size=60), st.sets(st.integers(1, 10**6), min_size=1, max_size=12))
def test_no_row_is_lost_between_bins_and_wider_bins(values: list[int], edges: set[int]) -> None:
    assert sum(histogram(values).counts_between([0, *sorted(edges)])) == len(values)


def test_builders_add_up_to_the_same_profile_wherever_the_rows_are_cut() -> None:
    whole, tally = prepared(range(300))
    expected = whole.build(tally, mask, max_length=512)
    for cut in (1, 100, 299):
        parts = [prepared(range(cut)), prepared(range(cut, 300))]
        for order in (parts, parts[::-1]):
            (first, one), (second, two) = (pickle.loads(pickle.dumps(part)) for part in order)
            assert (first + second).build(one + two, mask, max_length=512) == expected


def test_a_profile_says_what_became_of_every_row() -> None:
    builder, tally = prepared(range(20))

    profile = builder.build(tally, mask, train_rows=12, validation_rows=5, repeated_rows=1)

    assert (profile.rows_in, profile.rows_used, profile.dropped, profile.changes) == (20, 16, {"too_long": 4}, {"html": 4})
    assert (profile.tokens.rows, profile.tokens_refused.rows, profile.loss_tokens, profile.masked) == (16, 4, 16, {"phone": 16})
    assert profile.sources[0].formats[0].name == "alpaca"


def test_rows_chosen_away_by_weights_are_not_held_against_the_data() -> None:
    source = SourceProfile(name="a", rows_in=10, kept=4, changed=0, dropped={"capped": 3, "sampled_out": 1, "not_json": 1, "too_long": 1})
    profile = DataProfile(sources=(source,))

    assert (profile.rejected_share, profile.faults) == (0.2, {"not_json": 1})


def test_rows_that_were_used_but_not_measured_are_noticed() -> None:
    builder, tally = prepared(range(20))
    tally.enter("a", Place("a.jsonl", 99))
    tally.keep("a", Place("a.jsonl", 99))

    with pytest.raises(AssertionError, match="17 rows used, 16 measured"):
        builder.build(tally, mask)


def test_rows_that_were_used_but_not_written_are_noticed() -> None:
    builder, tally = prepared(range(20))

    with pytest.raises(AssertionError, match="16 rows used, 16 measured, 15 written"):
        builder.build(tally, mask, train_rows=10, validation_rows=5)


def test_no_personal_data_of_a_row_is_in_the_profile() -> None:
    builder, tally = prepared(range(300))
    profile = builder.build(tally, mask)

    assert profile.samples
    assert "[PHONE_1]" in profile.model_dump_json()
    assert PHONE not in profile.model_dump_json()


def test_a_pair_whose_dirt_hides_personal_data_from_the_masker_is_not_shown() -> None:
    assert masked_pair("<b>138</b>00138000 call", f"{PHONE} call", mask) is None


def test_a_pair_that_differs_only_in_personal_data_shows_nothing() -> None:
    assert masked_pair(f"call {PHONE}", "call [PHONE_1]", mask) is None


@pytest.mark.parametrize("offset", range(14))
def test_half_a_number_at_the_edge_of_what_is_looked_at_is_never_shown(offset: int) -> None:
    """The window starts 400 characters before the first difference and so cuts the number; masking the long address after it
    would bring what is left of the number into sight."""
    address = "a" * 380
    text = "-" * 600 + PHONE + address + "b" * (20 - offset)

    shown = masked_pair(text + "<b>x" + "y" * 90, text + "x" + "y" * 90, lambda window: mask(window).replace(address, "[ADDRESS_1]"))

    assert shown is None or not any(character.isdigit() for side in shown for character in side)


def test_a_difference_deep_inside_a_megabyte_is_shown_with_what_stands_before_it() -> None:
    shown = masked_pair("word " * 200_000 + "<b>bold</b>" + "x" * 1_000_000, "word " * 200_000 + "bold" + "x" * 1_000_000, mask)

    assert shown is not None
    assert shown[0].startswith("…")
    assert "word <b>bold</b>" in shown[0]
    assert max(map(len, shown)) < 700


def test_few_samples_are_masked_however_many_rows_change() -> None:
    """Only a row that may stay is masked: of n rows about 4 · ln(n / 4), twice each."""
    looked_at: list[str] = []

    def counting(text: str) -> str:
        looked_at.append(text)
        return text

    builder = ProfileBuilder()
    for line in range(5000):
        builder.sample(Place("a", line), ["html"], "<b>x", "x", counting)

    assert len(looked_at) < 120


def test_a_million_topics_do_not_fill_the_memory() -> None:
    builder = ProfileBuilder()
    for number in range(3000):
        builder.use(characters=1, topic=f"topic {number}")

    assert len(builder.topics) == 1001
    assert builder.topics[OTHER] == 2000


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_can_be_kept_as_json(text: str) -> None:
    builder, tally = ProfileBuilder(), Tally()
    place = Place(text, 1)
    tally.enter(text, place)
    tally.drop(text, Rejected(place, "leaked", text, text))
    builder.leak(place, text, text, "exact")
    builder.recognise(text, text, text)
    builder.sample(place, [text], text + "<b>", text, mask)

    profile = builder.build(tally, mask)

    assert DataProfile.model_validate_json(profile.model_dump_json()) == profile


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        builder, tally = prepared(range(50))
        write_profile(tmp_path / name, builder.build(tally, mask))

    assert (tmp_path / "one" / PROFILE).read_bytes() == (tmp_path / "two" / PROFILE).read_bytes()


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    builder, tally = prepared(range(50))
    profile = builder.build(tally, mask, tokenizer="tiny", max_length=512)
    write_profile(tmp_path, profile)

    assert read_profile(tmp_path) == profile


def test_a_dataset_without_a_profile_has_none(tmp_path: Path) -> None:
    assert read_profile(tmp_path) is None


@pytest.mark.parametrize("body", ["", "{", '{"schema_version": 2}', '{"train_rows": -1}', "[]"])
def test_a_profile_that_cannot_be_read_is_an_error_with_its_path(tmp_path: Path, body: str) -> None:
    (tmp_path / PROFILE).write_text(body, encoding="utf-8")

    with pytest.raises(RecordError, match=r"data_report\.json cannot be read"):
        read_profile(tmp_path)


def test_a_profile_whose_rows_do_not_add_up_is_refused() -> None:
    with pytest.raises(ValidationError, match="3 rows in, but 1 kept"):
        SourceProfile(name="a", rows_in=3, kept=1, changed=0, dropped={"not_json": 1})


def test_a_profile_with_an_unknown_reason_is_refused() -> None:
    source = {"name": "a", "rows_in": 1, "kept": 0, "changed": 0, "dropped": {"bad_luck": 1}}

    with pytest.raises(ValidationError, match="no reason is called bad_luck"):
        DataProfile.model_validate_json(json.dumps({"sources": [source]}))


def test_groups_of_duplicates_are_counted_by_the_row_that_was_kept() -> None:
    """Rows 0, 1, 3 are one group (1 exact, 3 near, of another source), 2 and 4 another (exact); 5 is alone."""
    kept_instead, sources = np.array([0, 0, 2, 0, 2, 5]), np.array([0, 0, 0, 1, 0, 0])
    exact, near = (np.isin(np.arange(6), rows) for rows in ([1, 4], [3]))

    counts = duplicate_counts(kept_instead, exact, near, sources, conflicting=2)

    assert counts == DuplicateCounts(exact_clusters=2, near_clusters=1, largest_cluster=3, across_sources=1, conflicting=2)


@pytest.mark.parametrize("rows", [0, 1])
def test_where_nothing_is_double_there_is_no_group(rows: int) -> None:
    none = np.zeros(rows, dtype=bool)

    assert duplicate_counts(np.arange(rows), none, none, np.zeros(rows)) == DuplicateCounts()


def test_overlaps_that_are_only_reported_count_as_kept() -> None:
    leak = LeakedPrompt(suite="s", prompt_id="p", kind="near", rows=3, file="a", line=1)
    source = SourceProfile(name="a", rows_in=5, kept=4, changed=0, dropped={"leaked": 1})

    assert DataProfile(sources=(source,), leaks=(leak,)).leaks_kept == 2
