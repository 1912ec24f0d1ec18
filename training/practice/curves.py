"""The curves of a run as one self-contained HTML page beside its folder, written anew while it goes on: loss, rate, speed, memory.

Drawn from the trainer's own log, so a resumed run shows its whole course. The page needs no network and no script; while the run goes
on it loads itself again. Everything on it is a number of ours, and Jinja escapes the rest. Next: `curves.html.j2`, `training/watch.py`.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from training.atomic import write_text
from training.practice.history import HELD_OUT, MARGIN, MEMORY, PAIR_MARGIN, PASS_RATE, REWARD, TOKENS_PER_S, Log, Series, series

_WRITE_EVERY_S = 2.0
_MOST_POINTS = 400
_TICKS = 4
_AIR = 0.05
_GB = 1e9


@dataclass(frozen=True)
class Line:
    """One curve: `path` for a frame of 1000 × 1000, and its last value in words."""

    name: str
    path: str
    last: str
    marks: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Chart:
    """Curves of one unit over the steps of the run; ticks are (percent from the top, label)."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]


class CurvesPage:
    """The page of one run, at `path`. Writing is bounded to once in two seconds, whatever the speed of the steps."""

    def __init__(self, path: Path, title: str) -> None:
        self.path, self._title, self._written = path, title, -math.inf

    def draw(self, log: Log, steps: int, *, running: bool, said: Sequence[str] = ()) -> None:
        """Write the page, unless that was just done and the run goes on. `said` are the run's warnings."""
        if running and time.monotonic() - self._written < _WRITE_EVERY_S:
            return
        write_text(self.path, render_curves(self._title, log, steps, running=running, said=said))
        self._written = time.monotonic()


def render_curves(title: str, log: Log, steps: int, *, running: bool, said: Sequence[str] = ()) -> str:
    """The page for a trainer's log of a run of `steps` steps."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    done = max((step for step, _ in series(log, "loss")), default=0)
    page = environment.get_template("curves.html.j2")
    return page.render(title=title, charts=charts(log, steps), done=done, steps=steps, running=running, said=said)


def charts(log: Log, steps: int) -> list[Chart]:
    """Every chart for which there is a value."""
    memory = [(step, value / _GB) for step, value in series(log, MEMORY)]
    wanted: list[tuple[str, str, str, list[tuple[str, Series]]]] = [
        ("Loss", _loss_unit(log), "{:.3f}", [("training", series(log, "loss")), ("held out", series(log, HELD_OUT))]),
        ("Reward", "mean of the answers", "{:.3f}", [("reward", series(log, REWARD))]),
        ("Margin", "of the preferred answer's reward", "{:.3f}", [("margin", series(log, PAIR_MARGIN) or series(log, MARGIN))]),
        ("Rules kept", "share of the validation prompts", "{:.2f}", [("validation prompts", series(log, PASS_RATE))]),
        ("Learning rate", "per step", "{:.2g}", [("learning rate", series(log, "learning_rate"))]),
        ("Gradient", "norm before clipping", "{:.3g}", [("gradient", series(log, "grad_norm"))]),
        ("Speed", "tokens a second, padding not counted", "{:,.0f}", [("tokens/s", series(log, TOKENS_PER_S))]),
        ("Memory", "GB", "{:.2f}", [("memory", memory)]),
    ]
    return [chart for each in wanted if (chart := _chart(*each, steps=steps))]


def _loss_unit(log: Log) -> str:
    """Learning from rewards and from preferences has losses of its own; the others are cross entropy."""
    others = any(key in entry for entry in log for key in (REWARD, PAIR_MARGIN, MARGIN))
    return "as the method defines it" if others else "nats per answer token"


def _chart(title: str, unit: str, number: str, curves: list[tuple[str, Series]], *, steps: int) -> Chart | None:
    finite = [(name, [(step, value) for step, value in points if math.isfinite(value)]) for name, points in curves]
    shown = [(name, _thinned(points)) for name, points in finite if points]
    if not shown:
        return None
    values = [value for _, points in shown for _, value in points]
    low, high = min(values), max(values)
    air = (high - low or abs(high) or 1.0) * _AIR
    low, high = low - air, high + air

    def place(step: int, value: float) -> tuple[float, float]:
        return 1000.0 * step / max(steps, step, 1), 1000.0 * (high - value) / (high - low)

    lines = tuple(_line(name, [place(*point) for point in points], number.format(points[-1][1])) for name, points in shown)
    ticks = tuple((100.0 * part / _TICKS, number.format(high - (high - low) * part / _TICKS)) for part in range(_TICKS + 1))
    return Chart(title, unit, lines, ticks)


def _line(name: str, placed: list[tuple[float, float]], last: str) -> Line:
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    return Line(name, path, last, tuple(placed) if len(placed) <= _MOST_POINTS // 10 else ())


def _thinned(points: Series) -> Series:
    """At most so many points: means of neighbours, each at its last step."""
    size = -(-len(points) // _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
