"""What a person sees while the line runs: one line per stage, a bar while it works, and the time it took.

In a terminal the bar moves; elsewhere (a log, CI) a line appears now and then. Knows nothing of what the stages do.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from training.progress import Progress

_NAME_WIDTH = 16
# Everything by which a text could steer the terminal: the C0 and C1 control characters, line break and tab excepted.
_CONTROL = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


_said: ContextVar[set[tuple[str, str]] | None] = ContextVar("ends of stages that this command has shown", default=None)


@contextmanager
def each_said_once() -> Iterator[None]:
    """While the block runs, the same end of a stage is shown once: a command may come by a stage twice, as by the base model."""
    before = _said.set(set())
    try:
        yield
    finally:
        _said.reset(before)


def _is_news(name: str, note: str) -> bool:
    said = _said.get()
    if said is None or not note:
        return True
    new = (name, note) not in said
    said.add((name, note))
    return new


def plain(text: str) -> str:
    """Text of a model's or of a data file's, ready for a rich markup string: it can neither style nor steer the terminal."""
    return escape(text.translate(_CONTROL))


def make_console(*, stderr: bool = False) -> Console:
    """A terminal that shows texts as they are: rich would draw `:pill:` as a picture."""
    return Console(emoji=False, stderr=stderr)


class Shown(Protocol):
    """A stage that is being shown. `note` is its summary at the end."""

    note: str

    def report(self, progress: Progress) -> None:
        """How far it is."""


@dataclass
class Display:
    """Prints the line's progress. `times` keeps (stage, seconds) in the order of the stages.

    Outside a terminal a stage says how far it is every `log_every_s` seconds.
    """

    console: Console
    times: list[tuple[str, float]] = field(default_factory=list)
    log_every_s: float = 15.0

    @contextmanager
    def stage(self, name: str) -> "Iterator[Shown]":
        """Show one stage while the block runs. Yields something with a `report` for the stage and a `note`, its summary at the end."""
        began = time.monotonic()
        shown = _Live(self.console, name) if self.console.is_terminal else _Logged(self.console, name, self.log_every_s)
        with shown:
            yield shown
        self.finished(name, time.monotonic() - began, shown.note)

    def finished(self, name: str, seconds: float, note: str = "") -> None:
        """One line for a stage that has ended well."""
        self.times.append((name, seconds))
        if _is_news(name, note):
            self.console.print(f"[green]✓[/] {name:<{_NAME_WIDTH}} {seconds:6.1f} s  {plain(note)}", highlight=False, soft_wrap=True)

    def reused(self, name: str, note: str) -> None:
        """One line for a stage whose inputs have not changed."""
        self.times.append((name, 0.0))
        if _is_news(name, note):
            self.console.print(f"[green]✓[/] {name:<{_NAME_WIDTH}} {'kept':>8}  {plain(note)}", highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """A line for people, with rich markup."""
        self.console.print(text, highlight=False)


class _Live:
    def __init__(self, console: Console, name: str) -> None:
        self.note = ""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._bar = Bar(*columns, console=console, transient=True)
        self._task: TaskID = self._bar.add_task(f"{name:<{_NAME_WIDTH}}", total=None, note="")

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, progress: Progress) -> None:
        self.note = progress.note
        count = f"{progress.done}/{progress.total} {progress.unit}" if progress.total else f"{progress.done} {progress.unit}"
        self._bar.update(self._task, completed=progress.done, total=progress.total or None, note=plain(f"{count}  {progress.note}"))


class _Logged:
    def __init__(self, console: Console, name: str, every_s: float) -> None:
        self.note = ""
        self._console, self._name, self._every_s, self._last = console, name, every_s, time.monotonic()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def report(self, progress: Progress) -> None:
        self.note = progress.note
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            count = f"{progress.done}/{progress.total or '?'} {progress.unit}"
            self._console.print(f"  {self._name:<{_NAME_WIDTH}} {count}  {plain(progress.note)}", highlight=False, soft_wrap=True)
