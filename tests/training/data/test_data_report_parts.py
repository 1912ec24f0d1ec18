import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.data.test_gather import write
from training.data.accounting import REJECTED, Ledger
from training.data.config import DataSection
from training.data.gather import gather
from training.data.profile import (
    DataProfile,
    DroppedExample,
    DuplicateCounts,
    FormatSeen,
    LeakedPrompt,
    PrivacyMode,
    SourceProfile,
)
from training.data.profile_builder import ProfileBuilder
from training.data.profile_histogram import Histogram
from training.data.reasons import STAGES
from training.data.report import DataReport, render_report
from training.data.report_charts import funnel, length_chart, shares
from training.data.report_fixes import to_fix
from training.data.report_markdown import markdown_report
from training.data.report_text import differences, visible
from training.progress import silent


def source(name: str = "faq.jsonl", kept: int = 8, **dropped: int) -> SourceProfile:
    return SourceProfile(
        name=name,
        formats=(FormatSeen(name="alpaca", why="it has `instruction`", rows=kept),),
        rows_in=kept + sum(dropped.values()),
        kept=kept,
        changed=0,
        dropped=dropped,
    )


def test_the_funnel_loses_every_dropped_row_once() -> None:
    """5155 rows in; 155 dropped, of which 3 by weights."""
    first = source("a", 3000, not_json=7, duplicate=40, near_duplicate=9, leaked=2, too_long=90, language=4)
    profile = DataProfile(sources=(first, source("b", 2000, sampled_out=3)))
    steps = funnel(profile)

    assert (steps[0].rows, steps[-1].rows) == (profile.rows_in, profile.rows_used) == (5155, 5000)
    assert sum(step.lost for step in steps) == 155
    assert len(steps) == len(STAGES) + 1
    assert all(after.rows == before.rows - after.lost for before, after in pairwise(steps))


@pytest.mark.parametrize(
    ("known", "steps"),
    [
        ({}, {"Unique", "No suite to compare with", "Tokens not counted"}),
        ({"suites": ("gate",), "tokenizer": "tiny"}, {"Unique", "Not in an evaluation suite", "Fits the model"}),
        ({"duplicates": DuplicateCounts(sought=())}, {"Duplicates not looked for"}),
    ],
)
def test_a_step_that_looked_at_nothing_does_not_pass_for_one_that_found_nothing(known: dict[str, Any], steps: set[str]) -> None:
    assert steps <= {step.name for step in funnel(DataProfile(sources=(source(),), **known))}


def test_the_limit_is_the_edge_between_two_bars() -> None:
    """256 tokens are kept and 257 are not, so no bar stands on both sides of the line."""
    kept, refused = Histogram(bins=((250, 5), (256, 3)), total=2018), Histogram(bins=((257, 2), (400, 1)), total=914)
    chart = length_chart(DataProfile(max_length=256, tokens=kept, tokens_refused=refused))

    assert chart is not None
    assert chart.limit_x is not None
    for bar in chart.bars:
        assert bar.x + bar.width <= chart.limit_x + 1e-6 or bar.x >= chart.limit_x - 1e-6
        assert (bar.refused_height > 0) == (bar.x >= chart.limit_x - 1e-6)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 10**6), st.integers(1, 10**6), min_size=1, max_size=30),
    st.dictionaries(st.integers(0, 10**6), st.integers(1, 10**6), max_size=10),
    st.one_of(st.none(), st.integers(16, 131_072)),
)
def test_a_chart_stays_in_its_frame_and_shows_every_row(kept: dict[int, int], refused: dict[int, int], limit: int | None) -> None:
    tokens, over = (Histogram(bins=tuple(sorted(counts.items())), total=0) for counts in (kept, refused))

    chart = length_chart(DataProfile(max_length=limit, tokens=tokens, tokens_refused=over))

    assert chart is not None
    shown = sum(int(number.replace(",", "")) for bar in chart.bars for number in re.findall(r"([\d,]+) (?:rows kept|refused)", bar.title))
    assert shown == sum(kept.values()) + sum(refused.values())
    assert all(bar.x >= -1e-6 and bar.x + bar.width <= 100 + 1e-6 and bar.width > 0 for bar in chart.bars)
    assert all(0 <= bar.kept_height + bar.refused_height <= 100 + 1e-6 for bar in chart.bars)
    assert all(-1e-6 <= x <= 100 + 1e-6 for x, _ in chart.ticks)


def test_characters_are_drawn_where_no_tokenizer_was_at_hand() -> None:
    chart = length_chart(DataProfile(characters=Histogram(bins=((80, 5),), total=400)))

    assert chart is not None
    assert chart.unit == "characters"
    assert length_chart(DataProfile()) is None


def test_the_smallest_shares_are_shown_as_one() -> None:
    bars = shares({f"t{number}": 100 - number for number in range(40)})

    assert (len(bars), bars[-1].name, sum(bar.rows for bar in bars)) == (13, "28 others", sum(100 - number for number in range(40)))


def test_what_to_fix_is_ordered_by_rows_and_names_the_first_place() -> None:
    profile = DataProfile(
        sources=(source("a", 5000, not_json=3, too_long=400, roles_repeat=20, duplicate=4),),
        examples={"too_long": (DroppedExample(file="a.jsonl", line=12, detail=""),)},
    )

    fixes = to_fix(profile)

    assert [re.findall("`([a-z_]+)`", sentence)[0] for sentence in fixes] == ["too_long", "roles_repeat", "not_json"]
    assert fixes[0].endswith("First: a.jsonl:12.")
    assert "`model.max_length`" in fixes[0]


def test_a_few_rows_that_a_step_turned_away_are_nobodys_concern_but_every_fault_is() -> None:
    assert to_fix(DataProfile(sources=(source("a", 5000, duplicate=4, too_long=40),))) == []
    assert len(to_fix(DataProfile(sources=(source("a", 5000, not_json=1),)))) == 1
    assert len(to_fix(DataProfile(sources=(source("a", 5000, leaked=1),)))) == 1


def test_rows_left_aside_by_the_recipe_itself_are_nothing_to_fix() -> None:
    assert to_fix(DataProfile(sources=(source("a", 2000, sampled_out=9000, capped=4000),))) == []


def test_a_source_of_which_nothing_is_used_is_named() -> None:
    fixes = to_fix(DataProfile(sources=(source("good.jsonl", 2000), source("bad.csv", 0, unknown_format=50))))

    assert any(sentence.startswith("bad.csv: none of its 50 rows is used, mostly for `unknown_format`") for sentence in fixes)


def test_what_is_trained_on_and_should_not_be_is_named() -> None:
    leak = LeakedPrompt(suite="s", prompt_id="p", kind="near", rows=3, file="a", line=1)
    profile = DataProfile(sources=(source("a", 2000),), leaks=(leak,), duplicates=DuplicateCounts(conflicting=90))

    fixes = to_fix(profile)

    assert [sentence.split(" row")[0] for sentence in fixes] == ["90", "3"]
    assert "are trained on" in fixes[1]
    assert "<b>3 rows overlap a suite and are trained on.</b>" in render_report(DataReport("x", profile))


def test_small_data_is_told_to_use_folds() -> None:
    assert "`data.folds: 5`" in to_fix(DataProfile(sources=(source("a", 120),)))[-1]


def test_a_wrong_encoding_that_was_mended_is_still_to_be_fixed_at_its_origin() -> None:
    mended = SourceProfile(name="a", rows_in=2000, kept=1000, changed=1000, changes={"mojibake": 900, "whitespace": 1000})

    assert to_fix(DataProfile(sources=(mended,))) == [
        "900 rows (45.0 %) were decoded with the wrong encoding, and mended. Export them as UTF-8: a repair is a guess."
    ]


@pytest.mark.parametrize(
    ("profile", "level"),
    [
        (DataProfile(sources=(source("a", 2000),)), "good"),
        (DataProfile(sources=(source("a", 2000, not_json=1),)), "look"),
        (DataProfile(sources=(source("a", 0, not_json=1),)), "stop"),
        (DataProfile(), "stop"),
    ],
)
def test_the_verdict_is_the_worst_that_was_found(profile: DataProfile, level: str) -> None:
    assert DataReport("x", profile).verdict.level == level


def test_what_cannot_be_seen_is_spelt_out_and_what_scripts_need_stays() -> None:
    assert visible("a\u202eb\u200bc\x1b\ud800") == "a⟨U+202E⟩b⟨U+200B⟩c⟨U+001B⟩⟨U+D800⟩"
    assert visible("می‌خواهم 👩‍⚕️\tx\ny") == "می‌خواهم 👩‍⚕️\tx\ny"


def test_what_differs_between_two_texts_is_cut_out_word_by_word() -> None:
    before, after = differences("Take <b>two</b> pills", "Take two pills")

    assert [(piece.text, piece.mark) for piece in before if piece.mark] == [("<b>", "gone"), ("</b>", "gone")]
    assert not [piece for piece in after if piece.mark]


def test_chinese_is_compared_character_by_character() -> None:
    before, after = differences("请及时就医广告", "请及时就医")

    assert [(piece.text, piece.mark) for piece in before] == [("请及时就医", ""), ("广告", "gone")]
    assert [piece.text for piece in after] == ["请及时就医"]


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_unmarked_pieces_of_both_sides_are_the_same_text(before: str, after: str) -> None:
    left, right = differences(before, after)

    assert "".join(piece.text for piece in left if not piece.mark) == "".join(piece.text for piece in right if not piece.mark)
    assert not [piece for piece in left if piece.mark == "new"]


def test_where_both_texts_were_cut_the_cut_is_no_difference() -> None:
    before, after = differences("<p>one two three…", "one two three four five…")

    assert [piece.text for piece in before if piece.mark] == ["<p>"]
    assert not [piece for piece in after if piece.mark]


def test_terms_and_adverts_are_shown_with_how_often(tmp_path: Path) -> None:
    """Through the steps: the glossary writes MI out twice, and one advert stands in both rows, with a number that nobody may read."""
    (tmp_path / "terms.csv").write_text("term,replacement\nMI,myocardial infarction\n", encoding="utf-8")
    answers = [f"A heart attack, number {number}. Call us now at 650-253-0000." for number in range(2)]
    rows = [{"instruction": f"What is MI, case {number}?", "output": answer} for number, answer in enumerate(answers)]
    path = write(tmp_path / "rows.jsonl", rows)
    data = DataSection.model_validate({"sft": [{"path": path}], "glossary": {"path": tmp_path / "terms.csv"}})
    builder = ProfileBuilder()
    with Ledger(tmp_path / REJECTED) as ledger:
        gather(data, [("sft", data.sft[0])], (), None, None, ledger, builder, tmp_path, silent)
        profile = builder.build(ledger.close(), str)

    assert profile.terms == {"MI": 2}
    assert profile.adverts == {"Call us now at [PHONE_1].": 2}
    for shown in (render_report(DataReport("x", profile)), markdown_report(DataReport("x", profile))):
        assert "erms written as the glossary has them" in shown
        assert "dverts" in shown
        assert "[PHONE" in shown.replace("\\", "")


@pytest.mark.parametrize(
    ("mode", "page", "funnel_step"),
    [
        ("mask", "Masked in 3 rows", "Personal data masked"),
        ("count", "Found in 3 rows, and <b>left as it is</b>", "Personal data counted"),
    ],
)
def test_the_report_says_whether_personal_data_was_masked_or_only_counted(mode: PrivacyMode, page: str, funnel_step: str) -> None:
    profile = DataProfile(sources=(source("a", 2000),), privacy=mode, masked={"name": 4}, masked_rows=3)

    assert page in render_report(DataReport("x", profile))
    assert funnel_step in markdown_report(DataReport("x", profile))
    assert ("masked in 3 rows" in markdown_report(DataReport("x", profile))) == (mode == "mask")


def test_personal_data_that_stays_is_something_to_fix() -> None:
    kept = DataProfile(sources=(source("a", 2000),), privacy="count", masked={"phone": 60}, masked_rows=50)

    assert to_fix(kept) == [
        "50 rows (2.5 %) hold personal data (phone), which the model would learn and may repeat. Set `data.privacy.mode: mask`."
    ]
    assert to_fix(kept.model_copy(update={"privacy": "mask"})) == []
