"""How far a stage is, as a bar on its run in Prefect. A thread tells it every few seconds, so that no stage waits for Prefect.

A stage that is done sooner has no bar. Next: `display.py`, the same for a terminal; `artifacts.py`, the reports.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from flows.display import Display, Shown
from flows.stages import Line
from training.progress import Progress

EVERY_S = 5.0
# A Prefect server that is slow to take the last of it does not hold the stage up.
_PATIENCE_S = 2.0


def shown_in_prefect(line: Line) -> Line:
    """`line`, whose stages show their progress in Prefect too."""
    return replace(line, display=PrefectDisplay(line.display.console, line.display.times, line.display.log_every_s))


@dataclass
class PrefectDisplay(Display):
    """Shows each stage where it was shown before, and on the task run that it is called in."""

    every_s: float = EVERY_S

    @contextmanager
    def stage(self, name: str) -> Iterator[Shown]:
        """See `Display.stage`."""
        with super().stage(name) as shown, _Bar(name, self.every_s) as bar:
            yield _Both(shown, bar)


class _Both:
    """A stage's report goes to the terminal and to the bar; its note belongs to the terminal."""

    def __init__(self, shown: Shown, bar: "_Bar") -> None:
        self._shown, self._bar = shown, bar

    @property
    def note(self) -> str:
        return self._shown.note

    @note.setter
    def note(self, text: str) -> None:
        self._shown.note = text

    def report(self, progress: Progress) -> None:
        self._shown.report(progress)
        if progress.total:
            self._bar.percent = min(100.0, 100.0 * progress.done / progress.total)


class _Bar:
    def __init__(self, name: str, every_s: float) -> None:
        self.percent: float | None = None
        self._name, self._every_s, self._over = name, every_s, threading.Event()
        self._made: UUID | None = None
        # The run that the artifact belongs to is known from this thread's context.
        self._teller = threading.Thread(target=copy_context().run, args=(self._tell_until_over,), name=f"bar of {name}", daemon=True)

    def __enter__(self) -> "_Bar":
        self._teller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.percent = 100.0 if kind is None else self.percent
        self._over.set()
        self._teller.join(_PATIENCE_S)

    def _tell_until_over(self) -> None:
        while not self._over.wait(self._every_s):
            if self.percent is not None:
                self._tell(self.percent)
        if self._made is not None and self.percent is not None:
            self._tell(self.percent)

    def _tell(self, percent: float) -> None:
        with suppress(PrefectException, httpx.HTTPError):  # a bar is worth no stage
            if self._made is None:
                key = "progress-" + re.sub(r"[^a-z0-9]+", "-", self._name.lower()).strip("-")
                made = create_progress_artifact(percent, key=key, description=self._name)
                assert isinstance(made, UUID), "no event loop runs in this thread"
                self._made = made
            else:
                update_progress_artifact(self._made, percent)
