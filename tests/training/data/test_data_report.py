import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.accounting import Tally
from training.data.balance import SourceShare
from training.data.drift import DriftSection, compare
from training.data.profile import DataProfile, DroppedExample, DuplicateCounts, FormatSeen, LeakedPrompt, Sample, SourceProfile
from training.data.profile_builder import ProfileBuilder
from training.data.profile_histogram import Histogram
from training.data.reasons import REASONS
from training.data.report import DataReport, render_report, write_report
from training.data.report_charts import funnel
from training.data.report_markdown import markdown_report
from training.data.rows import Place, Rejected

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></tr></table></style>",
    "\u202egnp.exe\u2066",
    "\ud800\x00\x1b[31m",
    "{{ 7 * 7 }}{% raw %}",
    "a | b `c` ](x) <u>\n\n# title",
    "مرحبا بالعالم",
    "W" * 1_000_000,
]


class Tags(HTMLParser):
    """Every tag, attribute and open element of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def source(name: str = "faq.jsonl", kept: int = 8, **dropped: int) -> SourceProfile:
    return SourceProfile(
        name=name,
        formats=(FormatSeen(name="alpaca", why="it has `instruction`", rows=kept),),
        rows_in=kept + sum(dropped.values()),
        kept=kept,
        changed=0,
        dropped=dropped,
    )


def whole(text: str = "plain") -> DataProfile:
    """A profile with something in every section, and `text` wherever a text of strangers can stand."""
    return DataProfile(
        tokenizer=text[:200],
        max_length=256,
        sources=(
            source(text[:200], 3000, not_json=7, duplicate=40, near_duplicate=9, leaked=2, too_long=90, language=4),
            source("b", 2000, sampled_out=3),
        ),
        train_rows=4700,
        validation_rows=400,
        repeated_rows=100,
        tokens=Histogram(bins=((20, 3000), (100, 2000)), total=260_000),
        tokens_refused=Histogram(bins=((300, 90),), total=27_000),
        characters=Histogram(bins=((80, 5000),), total=400_000),
        loss_tokens=200_000,
        languages={"en": 3000, text[:200]: 2000},
        topics={text[:200]: 10},
        masked={"phone": 12},
        masked_rows=11,
        duplicates=DuplicateCounts(exact_clusters=30, near_clusters=8, largest_cluster=5, across_sources=1),
        leaks=(LeakedPrompt(suite=text[:200], prompt_id=text[:200], kind="exact", rows=2, file=text[:200], line=3),),
        balance=(SourceShare(source=text[:200], weight=1, rows_in=5, capped=0, share_wanted=1, rows_out=5, repeats=1),),
        examples={"not_json": (DroppedExample(file=text[:200], line=4, detail=text[:3000]),)},
        samples=(Sample(file=text[:200], line=5, changes=(text[:200],), before=f"<b>{text[:600]}", after=text[:600]),),
    )


def report(profile: DataProfile, title: str = "recipe clinic") -> DataReport:
    return DataReport(title, profile, compare(profile, profile, DriftSection()))


def storable(text: str) -> str:
    """As `ProfileBuilder` keeps it: a profile is JSON and cannot hold half a character."""
    return text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_changes_nothing_about_the_page(text: str) -> None:
    plain, attacked = (Tags(render_report(report(whole(storable(each)), each))) for each in ("plain", text))

    assert len(attacked.seen) > 200
    assert attacked.open == []
    assert set(attacked.seen) == set(plain.seen)
    assert attacked.seen.count("td") == plain.seen.count("td")
    assert [name for name, _ in attacked.attributes] == [name for name, _ in plain.attributes]


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec=None), max_size=80))
def test_no_text_at_all_adds_a_tag_or_an_unseen_character(text: str) -> None:
    page = render_report(report(whole(storable(text)), text))

    assert Tags(page).open == []
    assert page.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069]", page)


def test_the_page_needs_nothing_from_outside() -> None:
    tags = Tags(render_report(report(whole())))

    assert not {"script", "link", "iframe", "img", "object"} & set(tags.seen)
    assert not [value for name, value in tags.attributes if name in ("src", "href", "srcset", "xlink:href") or "url(" in (value or "")]


def test_the_page_follows_light_and_dark_and_fits_a_phone() -> None:
    page = render_report(report(whole()))

    assert "prefers-color-scheme: dark" in page
    assert 'content="width=device-width' in page
    assert "@media (max-width" in page


def test_a_megabyte_of_text_stays_a_small_page() -> None:
    builder, tally, text = ProfileBuilder(), Tally(), "<" * 1_000_000
    for line in range(50):
        place = Place(text, line)
        tally.enter(text, place)
        builder.sample(place, [text], f"x{text}", f"y{text}", lambda masked: masked)
        tally.drop(text, Rejected(place, "not_json", text, text))

    profile = builder.build(tally, lambda masked: masked)

    assert len(render_report(report(profile, text))) < 100_000
    assert len(markdown_report(report(profile, text))) < 10_000


def test_the_report_is_written_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", report(whole()))

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    "heading",
    [
        "What to fix first",
        "From rows in to rows used",
        "Tokens per row",
        "Sources",
        "Balance",
        "Languages",
        "Topics",
        "Duplicates",
        "Overlap with evaluation suites",
        "Personal data",
        "Against the champion&#39;s data",
        "What was left out, and why",
        "What was changed",
    ],
)
def test_every_section_is_there(heading: str) -> None:
    assert f"<h2>{heading}</h2>".replace("&#39;", "'") in render_report(report(whole()))


def test_an_empty_dataset_has_a_report_too() -> None:
    empty = DataReport("nothing", DataProfile())

    assert Tags(render_report(empty)).open == []
    assert empty.verdict.level == "stop"
    assert "There is no row in any source" in markdown_report(empty)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_whatever_a_row_is_dropped_for_shows_in_the_funnel_and_in_the_page(reason: str) -> None:
    profile = DataProfile(sources=(source(**{reason: 3}),))

    assert [step.lost for step in funnel(profile) if step.lost] == [3]
    assert REASONS[reason].means.split("`")[0] in render_report(DataReport("x", profile)).replace("&#39;", "'")


def test_drift_that_stops_the_recipe_stops_the_verdict() -> None:
    ours, theirs = (whole().model_copy(update={"languages": languages}) for languages in ({"en": 5000}, {"zh": 5000}))

    stopped = DataReport("x", ours, compare(ours, theirs, DriftSection(policy="stop")))

    assert stopped.verdict.level == "stop"
    assert "language: " in render_report(stopped)
    assert "**stop** language" in markdown_report(stopped)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_opens_a_cell_a_tag_or_a_heading_in_the_markdown(text: str) -> None:
    plain, attacked = (markdown_report(report(whole(storable(each)), each)) for each in ("plain", text))

    def shape(page: str) -> list[int]:
        return [len(re.findall(r"(?<!\\)\|", line)) for line in page.split("\n")]

    assert shape(attacked) == shape(plain)
    assert not re.search(r"(?<!\\)<", attacked)
    assert max(map(len, attacked.split("\n"))) < 1500
    assert attacked.encode("utf-8")


def test_the_markdown_says_what_the_page_says() -> None:
    short = markdown_report(report(whole()))

    for said in (
        "5,000 of 5,155 rows can be trained on",
        "What to fix first",
        "| Unique | ",
        "near_duplicate 9",
        "phone 12",
        "the limit is 256",
    ):
        assert said in short
    assert len(short.split("\n")) < 80
