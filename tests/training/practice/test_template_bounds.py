"""How a template's trial may die: each child here really does."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from training.errors import ModelError
from training.practice.template_bounds import check_bounds


def dies_of(number: signal.Signals, tries: Path, times: int = 99) -> Callable[[], str]:
    """A rendering that notes each try and kills itself the first `times` times."""

    def render() -> str:
        with tries.open("a") as noted:
            noted.write("x")
        if tries.stat().st_size <= times:
            os.kill(os.getpid(), number)
        return "rendered"

    return render


def ends_with_status_seven() -> str:
    os._exit(7)


def raises(error: BaseException) -> Callable[[], str]:
    def render() -> str:
        raise error

    return render


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_template_whose_trial_dies_of_a_signal_is_refused_with_its_name(number: signal.Signals, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"refused: the process that rendered .* was ended by {number.name}\n") as refused:
        check_bounds("", dies_of(number, tmp_path / "tries"))

    assert (refused.value.why or "").startswith("whatever renders with it next")
    assert (tmp_path / "tries").read_text() == "x"


def test_a_trial_that_was_killed_twice_is_a_refusal_that_speaks_of_memory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="was ended by SIGKILL, twice") as refused:
        check_bounds("", dies_of(signal.SIGKILL, tmp_path / "tries"))

    assert "free some and run it again; else put the template" in (refused.value.do or "")
    assert (tmp_path / "tries").read_text() == "xx"


def test_a_trial_that_the_machine_killed_once_is_made_again(tmp_path: Path) -> None:
    check_bounds("", dies_of(signal.SIGKILL, tmp_path / "tries", times=1))

    assert (tmp_path / "tries").read_text() == "xx"


def test_a_trial_that_ends_by_itself_in_the_middle_is_a_refusal() -> None:
    with pytest.raises(ModelError, match="ended with status 7"):
        check_bounds("", ends_with_status_seven)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0)], ids=["Ctrl-C", "an exit"])
def test_a_trial_that_was_broken_off_is_no_pass(error: BaseException) -> None:
    with pytest.raises(ModelError, match="ended with status 5"):
        check_bounds("", raises(error))


def test_a_template_that_raises_passes_to_whoever_renders_next() -> None:
    check_bounds("", raises(ValueError("roles must alternate")))
