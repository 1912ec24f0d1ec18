"""The page is read as HTML; positions are worked out by hand for a frame of 1000 × 1000 with five percent of air."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_training import TinyLine, sft_section
from training.errors import TrainingError
from training.practice.course import CURVES_SUFFIX
from training.practice.curves import CurvesPage, charts, render_curves
from training.progress import Progress
from training.sft import AnswerTrainer, train_sft

LOG: list[dict[str, Any]] = [
    {"loss": 2.0, "learning_rate": 1e-4, "tokens_per_s": 250.0, "memory_bytes": 2e9, "step": 1},
    {"loss": 1.0, "learning_rate": 2e-4, "tokens_per_s": 260.0, "memory_bytes": 2e9, "step": 2},
    {"eval_loss": 1.5, "step": 2},
]


def test_a_point_stands_at_its_share_of_the_run_and_of_the_range() -> None:
    """Range 1 to 2, air 0.05: 0.95 to 2.05, 1.1 wide. 2.0 lies 0.05 below the top: 45.5; 1.0 lies 1.05 below it: 954.5; 1.5 halfway."""
    loss = charts(LOG, steps=4)[0]

    training, held_out = loss.lines
    assert (training.path, held_out.path) == ("M250.0 45.5 L500.0 954.5", "M500.0 500.0")
    assert (training.last, held_out.last) == ("1.000", "1.500")
    assert [label for _, label in loss.ticks] == ["2.050", "1.775", "1.500", "1.225", "0.950"]


def test_there_is_a_chart_for_what_was_logged_and_for_nothing_else() -> None:
    assert [chart.title for chart in charts(LOG, 4)] == ["Loss", "Learning rate", "Speed", "Memory"]


@pytest.mark.parametrize(("key", "title"), [("reward", "Reward"), ("rewards/margins", "Margin"), ("margin", "Margin")])
def test_learning_from_rewards_and_preferences_has_a_chart_and_a_loss_of_its_own(key: str, title: str) -> None:
    loss, other = charts([{"loss": 0.1, key: 0.5, "step": 1}], 4)

    assert (loss.unit, other.title, other.lines[0].last) == ("as the method defines it", title, "0.500")


def test_ten_thousand_steps_are_drawn_by_four_hundred_points() -> None:
    (loss,) = charts([{"loss": 1.0 + 1 / step, "step": step} for step in range(1, 10_001)], 10_000)

    assert loss.lines[0].path.count("L") == 399
    assert loss.lines[0].path.split("L")[-1].startswith("1000.0 ")


def test_a_value_that_is_no_number_is_not_drawn() -> None:
    assert charts([{"loss": float("nan"), "step": 1}], 4) == []


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("running", [True, False])
def test_the_page_needs_nothing_else_and_loads_itself_again_only_while_the_run_goes_on(running: bool) -> None:
    page = render_curves("sft-1", LOG, 4, running=running)

    tags = Tags(page).found
    assert sum(tag == "figure" for tag, _ in tags) == 4
    assert not [attributes for _, attributes in tags if attributes.keys() & {"src", "href"}]
    assert not [tag for tag, _ in tags if tag == "script"]
    assert ("refresh" in [attributes.get("http-equiv") for _, attributes in tags]) is running
    assert "Step 2 of 4" in page


def test_what_is_said_of_a_run_is_text_and_never_markup() -> None:
    assert "&lt;script&gt;" in render_curves("sft-1", LOG, 4, running=False, said=("<script>",))


def test_a_page_is_not_written_more_often_than_every_two_seconds_but_always_at_the_end(tmp_path: Path) -> None:
    page = CurvesPage(tmp_path / "a.html", "a")
    page.draw(LOG[:1], 4, running=True)
    page.draw(LOG, 4, running=True)
    assert "Step 1 of 4" in page.path.read_text()
    page.draw(LOG, 4, running=False)
    assert "Step 2 of 4" in page.path.read_text()


def test_the_page_lies_beside_the_runs_folder_while_it_trains_and_says_what_broke_it(
    tiny: TinyLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the fifth step is made NaN: the page of a running training becomes that of one that was stopped, and why."""
    page, seen, honest = tmp_path / f"out{CURVES_SUFFIX}", list[str](), AnswerTrainer.compute_loss

    def compute_loss(self: AnswerTrainer, *arguments: Any, **named: Any) -> Any:
        return honest(self, *arguments, **named) * (float("nan") if self.state.global_step == 4 else 1.0)

    def look(progress: Progress) -> None:
        seen.append(page.read_text() if page.exists() else "")

    monkeypatch.setattr(AnswerTrainer, "compute_loss", compute_loss)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 5: loss .* sound at step 4, so a row of this step is broken"):
        train_sft(tiny.model, sft_section(epochs=1), tiny.base, tiny.dataset_dir, tiny.dataset, tmp_path / "out", look)

    assert "running; this page" in seen[-1]
    assert re.search(r"ended.*class=\"said\">the loss is nan at step 5", page.read_text(), re.DOTALL)
    assert [path.name for path in (tmp_path / "out" / "checkpoints").glob("step-*")] == ["step-00000003"]
