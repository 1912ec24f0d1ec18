"""What a person sees of a stage: one line when it has ended well, and its progress now and then."""

import io

import pytest
from rich.console import Console

from flows.display import Display, each_said_once
from tests.fakes_flows import printed, quiet_console
from training.progress import Progress


def test_a_stage_that_ends_well_is_one_line_with_its_time_and_note() -> None:
    display = Display(quiet_console())
    with display.stage("sft") as shown:
        shown.report(Progress(1, 2, "steps", "loss 2.0"))
        shown.note = "5 steps"
    lines = printed(display.console).splitlines()
    assert len(lines) == 1
    assert lines[0].split() == ["✓", "sft", "0.0", "s", "5", "steps"]
    assert [name for name, _ in display.times] == ["sft"]


def test_without_a_note_the_last_progress_is_the_note() -> None:
    display = Display(quiet_console())
    with display.stage("merge") as shown:
        shown.report(Progress(1, 1, "tensors", "kept bf16"))
    assert printed(display.console).rstrip().endswith("kept bf16")


def test_a_stage_that_fails_leaves_no_tick() -> None:
    display = Display(quiet_console())
    with pytest.raises(ZeroDivisionError), display.stage("sft"):
        raise ZeroDivisionError
    assert (printed(display.console), display.times) == ("", [])


def test_a_log_hears_of_a_long_stage_now_and_then() -> None:
    display = Display(quiet_console(), log_every_s=0.0)
    with display.stage("sft") as shown:
        shown.report(Progress(3, 0, "steps", "loss [2.0]"))
    assert printed(display.console).splitlines()[0].split() == ["sft", "3/?", "steps", "loss", "[2.0]"]


def test_a_short_stage_is_not_logged_in_between() -> None:
    display = Display(quiet_console())
    with display.stage("sft") as shown:
        for step in range(100):
            shown.report(Progress(step, 100, "steps", "working"))
    assert printed(display.console).count("working") == 1


def test_a_kept_stage_says_so() -> None:
    display = Display(quiet_console())
    display.reused("sft", "9 rows [kept]")
    assert printed(display.console).split() == ["✓", "sft", "kept", "9", "rows", "[kept]"]
    assert display.times == [("sft", 0.0)]


def test_markup_in_a_note_is_text() -> None:
    display = Display(quiet_console())
    with display.stage("base") as shown:
        shown.note = "[/red] [bold]x[/bold] \x1b[31m"
    assert "[/red] [bold]x[/bold] \ufffd[31m" in printed(display.console)


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    display = Display(console)
    with display.stage("sft") as shown:
        shown.report(Progress(1, 2, "steps", "[/nothing] is no markup"))
    assert "is no markup" in printed(console)


def test_a_stage_that_a_command_comes_by_twice_is_shown_once_and_another_end_of_it_again() -> None:
    """As the base model, which a first run makes while Prefect starts: the line finds it kept."""
    console = quiet_console()
    with each_said_once():
        Display(console).finished("base", 61.0, "smollm2")
        Display(console).reused("base", "smollm2")
        Display(console).reused("base", "another")
    Display(console).reused("base", "another")
    assert [line.split()[1:] for line in printed(console).splitlines()] == [
        ["base", "61.0", "s", "smollm2"],
        ["base", "kept", "another"],
        ["base", "kept", "another"],
    ]
